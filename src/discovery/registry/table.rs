//! The table behind the store: which instances there are, and who was heard of when.
//!
//! Nothing that a heartbeat needs looks at all instances: one is found by its key, and the longest silent one is
//! the first of an order. The view of a service is made when somebody looks, not with each change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::instance::{Instance, Key, Metadata};
use super::store::{MAX_INSTANCES_IN_ALL, MAX_SERVICES, StoreError, View};
use crate::service::discovered::MAX_INSTANCES;

pub struct Table {
    pub heartbeat_ttl: Duration,
    services: BTreeMap<Arc<str>, Service>,
    /// Where each instance stands in its service.
    places: HashMap<Key, Place>,
    /// The services of all instances, the longest silent instance first.
    by_silence: BTreeMap<(Instant, Place), Arc<str>>,
    next_place: u64,
    /// How many fell silent.
    expired: u64,
    /// The newest version of any service. One counter for all: a service that was forgotten and
    /// comes back has a higher version than it ever had.
    version: u64,
}

/// From 1, unique over all services; a later one belongs to an instance that came later.
type Place = u64;

pub struct Service {
    entries: BTreeMap<Place, Entry>,
    metadata: Metadata,
    /// After whom the rotation of `turn` goes on; 0 before the first.
    last_turn: Place,
    /// 0 for a service that never had an instance.
    version: watch::Sender<u64>,
    /// Of the present version, once somebody has looked.
    view: Option<Arc<View>>,
}

struct Entry {
    instance: Arc<Instance>,
    heartbeat: Instant,
}

impl Table {
    /// Versions are higher than `version`.
    pub fn new(heartbeat_ttl: Duration, version: u64) -> Self {
        Table {
            heartbeat_ttl,
            services: BTreeMap::new(),
            places: HashMap::new(),
            by_silence: BTreeMap::new(),
            next_place: 1,
            expired: 0,
            version,
        }
    }

    /// The newest version of any service.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// For a table that goes on from an earlier one.
    pub fn continue_after(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// How many fell silent, since the start.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// Adds one that isn't there. Returns the service's version.
    pub fn add(&mut self, instance: Instance) -> Result<u64, StoreError> {
        if self.places.len() >= MAX_INSTANCES_IN_ALL {
            return Err(StoreError::TooManyInstances);
        }
        let (now, place) = (Instant::now(), self.next_place);
        let key = instance.key.clone();
        let service = self.service(&key.service_name)?;
        if service.entries.len() >= MAX_INSTANCES {
            return Err(StoreError::ServiceFull(key.service_name));
        }
        service.entries.insert(place, Entry { instance: Arc::new(instance), heartbeat: now });
        self.next_place += 1;
        self.by_silence.insert((now, place), key.service_name.clone());
        let version = self.changed(&key.service_name);
        self.places.insert(key, place);
        Ok(version)
    }

    /// Notes a sign of life and what is new about the instance. `None` when it is not registered;
    /// otherwise the service's version.
    pub fn heard(&mut self, key: &Key, update: impl FnOnce(&Instance) -> Instance) -> Option<u64> {
        let place = *self.places.get(key)?;
        let service = self.services.get_mut(&key.service_name)?;
        let entry = service.entries.get_mut(&place)?;
        let now = Instant::now();
        if let Some(name) = self.by_silence.remove(&(entry.heartbeat, place)) {
            self.by_silence.insert((now, place), name);
        }
        entry.heartbeat = now;
        let updated = update(&entry.instance);
        if updated == *entry.instance {
            return Some(*service.version.borrow());
        }
        entry.instance = Arc::new(updated);
        Some(self.changed(&key.service_name))
    }

    /// Of a service that has instances. Returns its version.
    pub fn describe(&mut self, name: &Arc<str>, metadata: Metadata) -> Option<u64> {
        let service = self.services.get_mut(name).filter(|service| !service.entries.is_empty())?;
        if service.metadata == metadata {
            return Some(*service.version.borrow());
        }
        service.metadata = metadata;
        Some(self.changed(name))
    }

    /// Says whether it was there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Some(place) = self.places.get(key).copied() else { return false };
        self.take_out(&key.service_name, place);
        self.changed(&key.service_name);
        true
    }

    /// Takes out those that have been silent for the TTL. Returns when the next one will have been.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let mut changed: Vec<Arc<str>> = Vec::new();
        let next = loop {
            let Some((&(heartbeat, place), name)) = self.by_silence.first_key_value() else { break None };
            if now.saturating_duration_since(heartbeat) < self.heartbeat_ttl {
                break heartbeat.checked_add(self.heartbeat_ttl);
            }
            let name = name.clone();
            self.take_out(&name, place);
            self.expired += 1;
            if changed.last() != Some(&name) {
                changed.push(name);
            }
        };
        changed.sort_unstable();
        changed.dedup();
        for name in changed {
            self.changed(&name);
        }
        next
    }

    /// Nobody could be heard for so long.
    pub fn forgive(&mut self, lost: Duration, now: Instant) {
        let later = |heartbeat: Instant| heartbeat.checked_add(lost).map_or(now, |moved| moved.min(now));
        for entry in self.services.values_mut().flat_map(|service| service.entries.values_mut()) {
            entry.heartbeat = later(entry.heartbeat);
        }
        let by_silence = std::mem::take(&mut self.by_silence);
        self.by_silence =
            by_silence.into_iter().map(|((heard, place), name)| ((later(heard), place), name)).collect();
    }

    /// One instance of the service, each in its turn.
    pub fn turn(&mut self, name: &str) -> Option<Arc<Instance>> {
        let service = self.services.get_mut(name)?;
        let next = service.entries.range(service.last_turn + 1..).next();
        let (&place, entry) = next.or_else(|| service.entries.first_key_value())?;
        service.last_turn = place;
        Some(entry.instance.clone())
    }

    /// The service's instances now.
    pub fn view(&mut self, name: &str) -> Arc<View> {
        self.services.get_mut(name).map(|service| service.view(name)).unwrap_or_default()
    }

    /// Every service that ever had an instance.
    pub fn services(&self) -> impl Iterator<Item = (&Arc<str>, &Service)> {
        self.services.iter().filter(|(_, service)| service.version() > 0)
    }

    pub fn get(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// The entry of a service, made if need be.
    pub fn service(&mut self, name: &Arc<str>) -> Result<&mut Service, StoreError> {
        if !self.services.contains_key(name) && self.services.len() >= MAX_SERVICES {
            self.services.retain(|_, service| !service.entries.is_empty() || service.watchers() > 0);
            if self.services.len() >= MAX_SERVICES {
                return Err(StoreError::TooManyServices);
            }
        }
        Ok(self.services.entry(name.clone()).or_insert_with(|| Service {
            entries: BTreeMap::new(),
            metadata: Metadata::default(),
            last_turn: 0,
            version: watch::Sender::new(0),
            view: None,
        }))
    }

    /// Leaves it to the caller to tell.
    fn take_out(&mut self, name: &Arc<str>, place: Place) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(entry) = service.entries.remove(&place) else { return };
        self.places.remove(&entry.instance.key);
        self.by_silence.remove(&(entry.heartbeat, place));
        if service.entries.is_empty() {
            service.metadata = Metadata::default();
        }
    }

    /// Gives the service its next version and tells all who watch.
    fn changed(&mut self, name: &Arc<str>) -> u64 {
        self.version += 1;
        if let Some(service) = self.services.get_mut(name) {
            service.view = None;
            service.version.send_replace(self.version);
        }
        self.version
    }
}

impl Service {
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub fn watchers(&self) -> usize {
        self.version.receiver_count()
    }

    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// In the order in which they registered, each with the last time that it was heard of.
    pub fn instances(&self) -> impl Iterator<Item = (&Arc<Instance>, Instant)> {
        self.entries.values().map(|entry| (&entry.instance, entry.heartbeat))
    }

    fn view(&mut self, name: &str) -> Arc<View> {
        let version = self.version();
        let (entries, metadata) = (&self.entries, &self.metadata);
        let make = || {
            let instances = entries.values().map(|entry| entry.instance.clone()).collect();
            Arc::new(View::new(name.into(), version, metadata.clone(), instances))
        };
        self.view.get_or_insert_with(make).clone()
    }
}
