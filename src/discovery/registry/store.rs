//! Who is registered: what the HTTP API and the sources that read it in-process share.
//!
//! Every change of a service's instances gives the service a new, higher version; a heartbeat that changes
//! nothing doesn't. Versions begin with the time of day, so that those of a registry that was started anew are
//! higher than those that its clients remember. Time is tokio's, so expiry is tested on a paused clock.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::instance::{Announcement, Instance, Key, Metadata, Written};
use super::table::{Service, Table};
use crate::service::discovered::MAX_INSTANCES;

pub const MAX_SERVICES: usize = 1024;
/// Over all services; with the bound of metadata this bounds the registry's memory.
pub const MAX_INSTANCES_IN_ALL: usize = 20_000;
/// Half of the connections that the server takes: watchers can't shut heartbeats out.
pub const MAX_WATCHERS: usize = 1024;
/// Expiry doesn't run more often than this, however many instances there are.
const EXPIRY_PAUSE: Duration = Duration::from_millis(50);
/// How often expiry looks at the clock, and how late it may be for that before the process is taken to have
/// stood still: stopped, or on a machine without time for it.
const LOOK: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(1);
/// A change is told at once. Of many that follow closely upon each other, what comes within this is told together:
/// to all who watch at the same moment, so that they share one document. It is this for each thousand instances,
/// of which the whole set is told each time.
const TOGETHER: Duration = Duration::from_millis(40);
/// So many are not many yet.
const AT_ONCE: u32 = 8;

/// The instances of one service at one version.
#[derive(Debug, Default)]
pub struct View {
    service_name: Arc<str>,
    /// 0 for a service that never had an instance.
    pub version: u64,
    /// Of the service.
    pub metadata: Metadata,
    /// In the order in which they registered.
    pub instances: Vec<Arc<Instance>>,
    document: OnceLock<Bytes>,
}

impl View {
    pub(super) fn new(
        service_name: Arc<str>,
        version: u64,
        metadata: Metadata,
        instances: Vec<Arc<Instance>>,
    ) -> Self {
        View { service_name, version, metadata, instances, document: OnceLock::new() }
    }

    /// As JSON on one line, written once for all who ask.
    pub fn document(&self) -> Bytes {
        let write = || {
            let document = Document {
                service_name: &self.service_name,
                version: self.version,
                metadata: &self.metadata,
                instances: self.instances.iter().map(|instance| instance.written()).collect(),
            };
            // Nothing of it can fail to be JSON.
            serde_json::to_vec(&document).unwrap_or_default().into()
        };
        self.document.get_or_init(write).clone()
    }
}

#[derive(Serialize)]
struct Document<'a> {
    service_name: &'a str,
    version: u64,
    metadata: &'a Metadata,
    instances: Vec<Written<'a>>,
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

/// A service and its instances, each with the time since its last heartbeat, for the listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub service_name: Arc<str>,
    pub version: u64,
    pub metadata: Metadata,
    pub instances: Vec<(Arc<Instance>, Duration)>,
}

/// What the metrics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub instances: u64,
    pub watchers: u64,
    /// Instances that fell silent, since the start.
    pub expired: u64,
}

pub struct Store {
    table: Mutex<Table>,
    /// For clients that watch.
    watchers: Arc<Semaphore>,
    /// Something happened that may move the next expiry.
    wake: Notify,
    /// The newest version of any service.
    version: watch::Sender<u64>,
    began: Instant,
}

impl Store {
    pub fn new(heartbeat_ttl: Duration) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Milliseconds are whole numbers in every JSON library for the next two hundred thousand years.
        let version = since_1970.as_millis() as u64;
        let table = Table::new(heartbeat_ttl, version);
        Store {
            table: Mutex::new(table),
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
            wake: Notify::new(),
            version: watch::Sender::new(version),
            began: Instant::now(),
        }
    }

    /// For a reload that changes it.
    pub fn set_heartbeat_ttl(&self, heartbeat_ttl: Duration) {
        self.lock().heartbeat_ttl = heartbeat_ttl;
        self.wake.notify_one();
    }

    /// For a registry that goes on from an earlier one: versions are higher than this.
    pub fn continue_after(&self, version: u64) {
        self.lock().continue_after(version);
    }

    /// Registering again updates the instance and counts as a heartbeat.
    pub fn register(&self, announcement: Announcement) -> Result<Registered, StoreError> {
        let (instance, service_metadata) = announcement.into_instance();
        let name = instance.key.service_name.clone();
        let mut table = self.lock();
        let was_empty = table.is_empty();
        let (created, version) = match table.heard(&instance.key, |_| instance.clone()) {
            Some(version) => (false, version),
            None => (true, table.add(instance)?),
        };
        let described = service_metadata.and_then(|metadata| table.describe(&name, metadata));
        let registered =
            Registered { created, version: described.unwrap_or(version), heartbeat_ttl: table.heartbeat_ttl };
        self.tell(&table);
        if was_empty {
            self.wake.notify_one();
        }
        Ok(registered)
    }

    /// Members that the announcement gives are updated, the others stay, and so does what it says of the
    /// service: instances that differ in that would undo each other's words with every heartbeat.
    pub fn heartbeat(&self, announcement: Announcement) -> Result<Registered, StoreError> {
        let key = announcement.key.clone();
        let mut table = self.lock();
        let heartbeat_ttl = table.heartbeat_ttl;
        let heard = table.heard(&key, |instance| announcement.applied_to(instance));
        self.tell(&table);
        let version = heard.ok_or(StoreError::Unknown(key))?;
        Ok(Registered { created: false, version, heartbeat_ttl })
    }

    pub fn deregister(&self, key: &Key) -> Result<(), StoreError> {
        let mut table = self.lock();
        let was_there = table.remove(key);
        self.tell(&table);
        if was_there { Ok(()) } else { Err(StoreError::Unknown(key.clone())) }
    }

    /// One instance of the service, each in its turn.
    pub fn discover(&self, service_name: &str) -> Option<Arc<Instance>> {
        self.lock().turn(service_name)
    }

    /// The service's instances now.
    pub fn view(&self, service_name: &str) -> Arc<View> {
        self.lock().view(service_name)
    }

    /// Every service that ever had an instance.
    pub fn list(&self) -> Vec<Listed> {
        let now = Instant::now();
        self.lock().services().map(|(name, service)| listed(name, service, now)).collect()
    }

    /// One of those.
    pub fn listed(&self, service_name: &Arc<str>) -> Option<Listed> {
        let table = self.lock();
        let service = table.get(service_name).filter(|service| service.version() > 0)?;
        Some(listed(service_name, service, Instant::now()))
    }

    /// The service's instances now and at every later change.
    pub fn subscribe(self: &Arc<Self>, service_name: &str) -> Result<Subscription, StoreError> {
        let name: Arc<str> = service_name.into();
        let versions = self.lock().service(&name)?.versions();
        Ok(Subscription { store: self.clone(), name, versions, seen: None, told: None, in_a_row: 0 })
    }

    /// To be held by a client that watches. `None` when there are too many.
    pub fn watcher(&self) -> Option<OwnedSemaphorePermit> {
        self.watchers.clone().try_acquire_owned().ok()
    }

    pub fn load(&self) -> Load {
        let table = self.lock();
        Load {
            instances: table.len() as u64,
            watchers: (MAX_WATCHERS - self.watchers.available_permits()) as u64,
            expired: table.expired(),
        }
    }

    /// How many are subscribed to the service.
    pub fn watchers(&self, service_name: &str) -> usize {
        self.lock().get(service_name).map_or(0, Service::watchers)
    }

    /// The newest version of any service, now and at every later change.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Takes instances out that have been silent for `heartbeat_ttl`. Runs until dropped; exactly
    /// one of it must.
    ///
    /// Time in which nobody could be heard is no silence: a process that was stopped for longer than the TTL
    /// would otherwise lose everybody in the moment in which it goes on.
    pub async fn expire(&self) {
        let mut looked: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let lost = looked.map(|looked| now.saturating_duration_since(looked)).unwrap_or_default();
            let next = {
                let mut table = self.lock();
                if lost > LOOK + LATE {
                    table.forgive(lost, now);
                }
                let next = table.expire(now);
                self.tell(&table);
                next
            };
            looked = next.map(|_| now);
            let sleep = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.clamp(now + EXPIRY_PAUSE, now + LOOK)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.wake.notified() => {}
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing that holds the lock panics half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait for any change.
    pub(super) fn tell(&self, table: &Table) {
        let now = table.version();
        self.version.send_if_modified(|version| std::mem::replace(version, now) != now);
    }
}

fn listed(name: &Arc<str>, service: &Service, now: Instant) -> Listed {
    let instances = service.instances();
    let instances =
        instances.map(|(instance, heard)| (instance.clone(), now.saturating_duration_since(heard)));
    Listed {
        service_name: name.clone(),
        version: service.version(),
        metadata: service.metadata().clone(),
        instances: instances.collect(),
    }
}

/// Somebody who follows the instances of one service.
pub struct Subscription {
    store: Arc<Store>,
    name: Arc<str>,
    versions: watch::Receiver<u64>,
    /// The version that was seen last. `None` before the first.
    seen: Option<u64>,
    /// When that was, and what is told together of a set of its size.
    told: Option<(Instant, Duration)>,
    /// How many were looked at, each shortly after the one before.
    in_a_row: u32,
}

impl Subscription {
    /// As if this version had been looked at already.
    pub fn after(self, seen: Option<u64>) -> Self {
        Subscription { seen, ..self }
    }

    /// The service's instances now.
    pub fn look(&mut self) -> Arc<View> {
        let now = Instant::now();
        let soon = |(told, together)| now.saturating_duration_since(told) < 2 * together;
        self.in_a_row = if self.told.is_some_and(soon) { self.in_a_row.saturating_add(1) } else { 0 };
        let view = self.store.view(&self.name);
        let thousands = u32::try_from(view.instances.len().div_ceil(1000)).unwrap_or(u32::MAX);
        self.told = Some((now, TOGETHER.saturating_mul(thousands.max(1))));
        self.seen = Some(view.version);
        view
    }

    /// Waits until there is another version than the one that was looked at last. Nothing is lost when this is
    /// dropped while it waits.
    pub async fn changed(&mut self) {
        let seen = self.seen;
        // The service is not forgotten while somebody watches it, and the store is held here.
        if self.versions.wait_for(|version| Some(*version) != seen).await.is_err() {
            pending().await
        }
        let soon = |(told, together): &(Instant, Duration)| told.elapsed() < *together;
        if let Some((told, together)) = self.told.filter(soon).filter(|_| self.in_a_row >= AT_ONCE) {
            let since = told.saturating_duration_since(self.store.began).as_millis() as u64;
            let together = together.as_millis() as u64;
            let next = Duration::from_millis((since / together + 1) * together);
            tokio::time::sleep_until(self.store.began + next).await;
        }
    }
}
