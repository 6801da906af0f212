//! Who is registered: the one table behind the HTTP API and the sources that read it in-process.
//!
//! Every change of a service's instances gives the service a new, higher version and a new view;
//! a heartbeat that changes nothing doesn't. Time is tokio's, so expiry is tested on a paused clock.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::instance::{Announcement, Instance, Key};
use crate::service::discovered::MAX_INSTANCES;

pub const MAX_SERVICES: usize = 1024;
/// Over all services; with the bound of metadata this bounds the registry's memory.
pub const MAX_INSTANCES_IN_ALL: usize = 20_000;
/// Expiry doesn't run more often than this, however many instances there are.
const EXPIRY_PAUSE: Duration = Duration::from_millis(50);

/// The instances of one service at one version.
#[derive(Debug, Default, PartialEq)]
pub struct View {
    /// 0 for a service that never had an instance.
    pub version: u64,
    /// In the order in which they registered.
    pub instances: Vec<Arc<Instance>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// False when it was registered already.
    pub created: bool,
    /// Of the service, after this.
    pub version: u64,
    pub heartbeat_ttl: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{0} is not registered, or its last heartbeat is too long ago: register it again")]
    Unknown(Key),
    #[error("the registry holds {MAX_SERVICES} services and takes no more")]
    TooManyServices,
    #[error("the registry holds {MAX_INSTANCES_IN_ALL} instances and takes no more")]
    TooManyInstances,
    #[error("{0} has {MAX_INSTANCES} instances and takes no more")]
    ServiceFull(Arc<str>),
}

/// An instance and the time since its last heartbeat, for the listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub instance: Arc<Instance>,
    pub since_heartbeat: Duration,
}

pub struct Store {
    inner: Mutex<Inner>,
    /// Something happened that may move the next expiry.
    wake: Notify,
}

struct Inner {
    heartbeat_ttl: Duration,
    services: BTreeMap<Arc<str>, Service>,
    instances: usize,
    /// The newest version of any service. One counter for all: a service that was forgotten and
    /// comes back has a higher version than it ever had.
    version: u64,
}

struct Service {
    entries: Vec<Entry>,
    /// Where the rotation of `discover` stands.
    next: usize,
    view: watch::Sender<Arc<View>>,
}

struct Entry {
    instance: Arc<Instance>,
    heartbeat: Instant,
}

impl Store {
    pub fn new(heartbeat_ttl: Duration) -> Self {
        let inner = Inner { heartbeat_ttl, services: BTreeMap::new(), instances: 0, version: 0 };
        Store { inner: Mutex::new(inner), wake: Notify::new() }
    }

    /// For a reload that changes it.
    pub fn set_heartbeat_ttl(&self, heartbeat_ttl: Duration) {
        self.lock().heartbeat_ttl = heartbeat_ttl;
        self.wake.notify_one();
    }

    /// Registering again updates the instance and counts as a heartbeat.
    pub fn register(&self, announcement: Announcement) -> Result<Registered, StoreError> {
        let instance = announcement.into_instance();
        let mut inner = self.lock();
        let heartbeat_ttl = inner.heartbeat_ttl;
        if let Some(version) = inner.heard(&instance.key, |_| instance.clone()) {
            return Ok(Registered { created: false, version, heartbeat_ttl });
        }
        if inner.instances >= MAX_INSTANCES_IN_ALL {
            return Err(StoreError::TooManyInstances);
        }
        let name = instance.key.service_name.clone();
        let service = inner.service(&name)?;
        if service.entries.len() >= MAX_INSTANCES {
            return Err(StoreError::ServiceFull(name));
        }
        service.entries.push(Entry { instance: Arc::new(instance), heartbeat: Instant::now() });
        inner.instances += 1;
        let version = inner.changed(&name);
        self.wake.notify_one();
        Ok(Registered { created: true, version, heartbeat_ttl })
    }

    /// Members that the announcement gives are updated, the others stay.
    pub fn heartbeat(&self, announcement: Announcement) -> Result<Registered, StoreError> {
        let key = announcement.key.clone();
        let mut inner = self.lock();
        let heartbeat_ttl = inner.heartbeat_ttl;
        match inner.heard(&key, |instance| announcement.applied_to(instance)) {
            Some(version) => Ok(Registered { created: false, version, heartbeat_ttl }),
            None => Err(StoreError::Unknown(key)),
        }
    }

    pub fn deregister(&self, key: &Key) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let left = inner.remove(&key.service_name, |entry| entry.instance.key == *key);
        if left { Ok(()) } else { Err(StoreError::Unknown(key.clone())) }
    }

    /// One instance of the service, each in its turn.
    pub fn discover(&self, service_name: &str) -> Option<Arc<Instance>> {
        let mut inner = self.lock();
        let service = inner.services.get_mut(service_name)?;
        let turn = service.next.checked_rem(service.entries.len())?;
        service.next = turn + 1;
        service.entries.get(turn).map(|entry| entry.instance.clone())
    }

    /// The service's instances now.
    pub fn view(&self, service_name: &str) -> Arc<View> {
        let inner = self.lock();
        inner.services.get(service_name).map(|service| service.view.borrow().clone()).unwrap_or_default()
    }

    /// Every service that ever had an instance, with its version and instances.
    pub fn list(&self) -> Vec<(Arc<str>, u64, Vec<Listed>)> {
        let now = Instant::now();
        let inner = self.lock();
        let listed = |entry: &Entry| Listed {
            instance: entry.instance.clone(),
            since_heartbeat: now.saturating_duration_since(entry.heartbeat),
        };
        let services = inner.services.iter().map(|(name, service)| {
            let version = service.view.borrow().version;
            (name.clone(), version, service.entries.iter().map(listed).collect())
        });
        services.filter(|(_, version, _)| *version > 0).collect()
    }

    /// The service's instances now and at every later change.
    pub fn subscribe(&self, service_name: &str) -> Result<watch::Receiver<Arc<View>>, StoreError> {
        Ok(self.lock().service(&service_name.into())?.view.subscribe())
    }

    /// How many are subscribed to the service.
    pub fn watchers(&self, service_name: &str) -> usize {
        let inner = self.lock();
        inner.services.get(service_name).map_or(0, |service| service.view.receiver_count())
    }

    /// Takes instances out that have been silent for `heartbeat_ttl`. Runs until dropped; exactly
    /// one of it must.
    pub async fn expire(&self) {
        loop {
            let next = self.expire_now();
            let sleep = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.max(Instant::now() + EXPIRY_PAUSE)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Returns when the next instance expires if nothing is heard of it.
    fn expire_now(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut inner = self.lock();
        let ttl = inner.heartbeat_ttl;
        let expired = |entry: &Entry| now.saturating_duration_since(entry.heartbeat) >= ttl;
        let due: Vec<Arc<str>> = inner
            .services
            .iter()
            .filter(|(_, service)| service.entries.iter().any(expired))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            inner.remove(&name, expired);
        }
        let entries = inner.services.values().flat_map(|service| &service.entries);
        entries.map(|entry| entry.heartbeat).min().and_then(|oldest| oldest.checked_add(ttl))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds the lock panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The entry of a service, made if need be.
    fn service(&mut self, name: &Arc<str>) -> Result<&mut Service, StoreError> {
        if !self.services.contains_key(name) && self.services.len() >= MAX_SERVICES {
            self.services
                .retain(|_, service| !service.entries.is_empty() || service.view.receiver_count() > 0);
            if self.services.len() >= MAX_SERVICES {
                return Err(StoreError::TooManyServices);
            }
        }
        Ok(self.services.entry(name.clone()).or_insert_with(|| Service {
            entries: Vec::new(),
            next: 0,
            view: watch::Sender::new(Arc::default()),
        }))
    }

    /// Notes a sign of life and what is new about the instance. `None` when it is not registered;
    /// otherwise the service's version.
    fn heard(&mut self, key: &Key, update: impl FnOnce(&Instance) -> Instance) -> Option<u64> {
        let service = self.services.get_mut(&key.service_name)?;
        let entry = service.entries.iter_mut().find(|entry| entry.instance.key == *key)?;
        entry.heartbeat = Instant::now();
        let updated = update(&entry.instance);
        if updated == *entry.instance {
            return Some(service.view.borrow().version);
        }
        entry.instance = Arc::new(updated);
        Some(self.changed(&key.service_name))
    }

    /// Removes the entries that `gone` picks; says whether there were any.
    fn remove(&mut self, name: &Arc<str>, gone: impl Fn(&Entry) -> bool) -> bool {
        let Some(service) = self.services.get_mut(name) else { return false };
        let before = service.entries.len();
        service.entries.retain(|entry| !gone(entry));
        let removed = before - service.entries.len();
        if removed > 0 {
            self.instances -= removed;
            self.changed(name);
        }
        removed > 0
    }

    /// Gives the service its next version and shows its instances to all who watch.
    fn changed(&mut self, name: &Arc<str>) -> u64 {
        self.version += 1;
        if let Some(service) = self.services.get(name) {
            let instances = service.entries.iter().map(|entry| entry.instance.clone()).collect();
            service.view.send_replace(Arc::new(View { version: self.version, instances }));
        }
        self.version
    }
}
