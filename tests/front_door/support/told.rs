//! One way to tell any of the real sources which instances the service `users` has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use super::companion::Companion;
use super::{Consul, Etcd};

pub enum Told {
    File(InFile),
    Etcd(Etcd),
    Consul(Consul),
}

/// A file in a directory of its own, replaced by renaming.
pub struct InFile {
    directory: tempfile::TempDir,
    instances: Mutex<BTreeMap<String, SocketAddr>>,
}

impl Told {
    pub fn file() -> Told {
        let directory = tempfile::tempdir().expect("there is a directory for temporary files");
        let file = InFile { directory, instances: Mutex::default() };
        file.change(|_| {});
        Told::File(file)
    }

    pub async fn etcd() -> Told {
        Told::Etcd(Etcd::start().await)
    }

    /// `None` where there is no Consul to be had.
    pub async fn consul() -> Option<Told> {
        Consul::start().await.map(Told::Consul)
    }

    /// Where it listens, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Told::File(_) => None,
            Told::Etcd(etcd) => Some(etcd.address),
            Told::Consul(consul) => Some(consul.address),
        }
    }

    pub fn process(&mut self) -> &mut Companion {
        match self {
            Told::Etcd(etcd) => &mut etcd.process,
            Told::Consul(consul) => &mut consul.process,
            Told::File(_) => panic!("a file is no process"),
        }
    }

    /// The service's source, asked at `address` if it is asked somewhere.
    pub fn discovery(&self, address: Option<SocketAddr>) -> String {
        let url = address.map(|address| format!("http://{address}")).unwrap_or_default();
        match self {
            Told::File(file) => format!("{{ file: {{ path: \"{}\" }} }}", file.path().display()),
            Told::Etcd(_) => format!("{{ etcd: {{ endpoints: [\"{url}\"], prefix: /services/users/ }} }}"),
            Told::Consul(_) => format!("{{ consul: {{ address: \"{url}\", service: users }} }}"),
        }
    }

    /// A gateway's configuration with the service `users` for all paths.
    pub fn configuration(&self, settings: &str) -> String {
        let source = self.discovery(self.address());
        format!(
            "services: {{ users: {{ discovery: {source}, {settings} }} }}\n\
             routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
        )
    }

    pub async fn add(&self, address: SocketAddr) {
        let id = address.to_string();
        match self {
            Told::File(file) => file.change(|all| {
                all.insert(id, address);
            }),
            Told::Etcd(etcd) => etcd.put(&format!("/services/users/{id}"), &id).await,
            Told::Consul(consul) => consul.register(&id.replace([':', '.'], "-"), address).await,
        }
    }

    pub async fn add_all(&self, addresses: impl Iterator<Item = SocketAddr>) {
        match self {
            Told::File(file) => {
                file.change(|all| all.extend(addresses.map(|address| (address.to_string(), address))))
            }
            Told::Etcd(etcd) => {
                let key = |address| (format!("/services/users/{address}"), format!("{address}"));
                etcd.put_all(addresses.map(key)).await;
            }
            Told::Consul(consul) => consul.register_all(addresses).await,
        }
    }

    pub async fn remove(&self, address: SocketAddr) {
        let id = address.to_string();
        match self {
            Told::File(file) => file.change(|all| {
                all.remove(&id);
            }),
            Told::Etcd(etcd) => etcd.delete(&format!("/services/users/{id}")).await,
            Told::Consul(consul) => consul.deregister(&id.replace([':', '.'], "-")).await,
        }
    }
}

impl InFile {
    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("users.yaml")
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, SocketAddr>)) {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut instances);
        let mut list: String = instances.values().map(|address| format!("- http://{address}\n")).collect();
        if list.is_empty() {
            list = "[]\n".to_owned();
        }
        let new = self.directory.path().join("users.new");
        std::fs::write(&new, list).expect("writable");
        std::fs::rename(new, self.path()).expect("writable");
    }
}
