//! The tasks beside the requests, one for each thing that the snapshot holds and somebody must keep
//! up to date: instances, their health, keys, the rate limits' cells, and whether maintenance is on.
//!
//! A task is started anew only when what it depends on has changed.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::health;
use super::keys::{KeyRefresh, Outcome};
use super::maintenance;
use super::outliers;
use super::returning;
use super::transitions;
use crate::config::Config;
use crate::discovery::registry::state_file;
use crate::discovery::{self, Sought, Sources};
use crate::policy::authenticate::KeySet;
use crate::policy::rate_limit::RateLimiter;
use crate::service::discovered::{Described, Publish};
use crate::service::{HealthSettings, InstanceSet, Instances, OutlierSettings};
use crate::snapshot::Snapshot;
use crate::telemetry::events;

const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often a look is taken whether an old set of instances is still in use.
const RETIRING_LOOK: Duration = Duration::from_millis(100);
/// A set of so few instances may be freed by whoever happens to do so.
const FREED_AT_ONCE: usize = 64;

pub struct Upkeep {
    sources: Sources,
    found: HashMap<Arc<str>, Discovering>,
    checked: HashMap<Arc<str>, Checking<HealthSettings>>,
    compared: HashMap<Arc<str>, Checking<OutlierSettings>>,
    keys: KeyRefresh,
    sweeping: Option<AbortHandle>,
    /// Following the files that maintenance depends on.
    switching: Option<AbortHandle>,
    expiring: Option<AbortHandle>,
    /// Where the registry's state is kept.
    keeping: Option<(PathBuf, AbortHandle)>,
    /// All instances there are: for the log, and for those that can't be reached.
    watched: watch::Sender<Vec<transitions::Watched>>,
}

struct Discovering {
    sought: Sought,
    instances: Arc<Instances>,
    task: AbortHandle,
}

/// Watching over the instances of a service, as `settings` say.
struct Checking<S> {
    settings: S,
    instances: Arc<Instances>,
    task: AbortHandle,
}

impl Upkeep {
    pub fn new(sources: Sources) -> Self {
        Upkeep {
            sources,
            found: HashMap::new(),
            checked: HashMap::new(),
            compared: HashMap::new(),
            keys: KeyRefresh::new(report_keys),
            sweeping: None,
            switching: None,
            expiring: None,
            keeping: None,
            watched: watch::Sender::default(),
        }
    }

    pub fn sources(&mut self) -> &mut Sources {
        &mut self.sources
    }

    /// Gives services that have no instances yet those that are known without waiting.
    pub fn seed(&self, config: &Config, snapshot: &Snapshot) {
        for service in &snapshot.services {
            let Some(sought) = sought(config, &service.name) else { continue };
            if service.instances.source().last_set.is_some() {
                continue;
            }
            if let Some(known) = discovery::initial(&sought, &self.sources) {
                service.instances.publish(known);
            }
        }
    }

    /// Runs what this snapshot needs, and nothing else.
    pub fn apply(&mut self, config: &Config, snapshot: &Snapshot) {
        self.discover(config, snapshot);
        self.watch_over(snapshot);
        if self.watched.receiver_count() == 0 {
            tokio::spawn(transitions::run(self.watched.subscribe()));
            tokio::spawn(returning::run(self.watched.subscribe()));
        }
        let watched =
            snapshot.services.iter().map(|service| (service.name.clone(), service.instances.clone()));
        self.watched.send_replace(watched.collect());
        if let (Some(store), None) = (&self.sources.registry, &self.expiring) {
            let store = store.clone();
            self.expiring = Some(tokio::spawn(async move { store.expire().await }).abort_handle());
        }
        self.keep_registry(config);
        let sets = snapshot.authenticators.iter().flat_map(|authenticator| authenticator.key_sets());
        self.keys.apply(sets);
        if let Some(before) = self.sweeping.take() {
            before.abort();
        }
        if !snapshot.limiters.is_empty() {
            self.sweeping = Some(tokio::spawn(sweep(snapshot.limiters.clone())).abort_handle());
        }
        if let Some(before) = self.switching.take() {
            before.abort();
        }
        if !snapshot.switches.is_empty() {
            self.switching = Some(tokio::spawn(maintenance::run(snapshot.switches.clone())).abort_handle());
        }
    }

    fn discover(&mut self, config: &Config, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.found);
        for service in &snapshot.services {
            let Some(sought) = sought(config, &service.name) else { continue };
            let running = before.remove(&service.name);
            let running = running.and_then(|running| {
                if running.sought == sought && Arc::ptr_eq(&running.instances, &service.instances) {
                    return Some(running);
                }
                running.task.abort();
                None
            });
            let running = running.unwrap_or_else(|| {
                let sink = Arc::new(Reporting { name: service.name.clone(), to: service.instances.clone() });
                let task = discovery::run(sought.clone(), sink, self.sources.clone());
                Discovering {
                    sought,
                    instances: service.instances.clone(),
                    task: tokio::spawn(task).abort_handle(),
                }
            });
            self.found.insert(service.name.clone(), running);
        }
        before.into_values().for_each(|gone| gone.task.abort());
    }

    fn keep_registry(&mut self, config: &Config) {
        let path = config.registry.as_ref().and_then(|registry| registry.state_file.as_ref());
        let path = path.map(|path| path.value.clone());
        if self.keeping.as_ref().map(|(path, _)| path) == path.as_ref() {
            return;
        }
        if let Some((_, before)) = self.keeping.take() {
            before.abort();
        }
        if let (Some(store), Some(path)) = (&self.sources.registry, path) {
            let told = path.clone();
            let report = move |outcome: Result<(), &io::Error>| report_state_file(&told, outcome);
            let task = state_file::keep(store.clone(), path.clone(), report);
            self.keeping = Some((path, tokio::spawn(task).abort_handle()));
        }
    }

    fn watch_over(&mut self, snapshot: &Snapshot) {
        let health = snapshot.services.iter().map(|service| {
            (service.name.clone(), service.instances.clone(), service.settings.health_check.clone())
        });
        bring_into_line(&mut self.checked, health, health::run, health::forget);
        let outliers = snapshot.services.iter().map(|service| {
            (service.name.clone(), service.instances.clone(), service.settings.outlier_detection)
        });
        bring_into_line(&mut self.compared, outliers, outliers::run, outliers::forget);
    }
}

/// Runs `run` for those services that have settings for it. What runs already goes on as long as nothing changes for it.
fn bring_into_line<S: Clone + PartialEq, F: Future<Output = ()> + Send + 'static>(
    running: &mut HashMap<Arc<str>, Checking<S>>,
    services: impl Iterator<Item = (Arc<str>, Arc<Instances>, Option<S>)>,
    run: impl Fn(Arc<Instances>, S) -> F,
    forget: impl Fn(&Instances),
) {
    let mut before = std::mem::take(running);
    for (name, instances, settings) in services {
        let present = before.remove(&name);
        let Some(settings) = settings else {
            if let Some(present) = present {
                present.task.abort();
                forget(&instances);
            }
            continue;
        };
        let present = present.and_then(|present| {
            if present.settings == settings && Arc::ptr_eq(&present.instances, &instances) {
                return Some(present);
            }
            present.task.abort();
            None
        });
        let present = present.unwrap_or_else(|| Checking {
            settings: settings.clone(),
            instances: instances.clone(),
            task: tokio::spawn(run(instances, settings)).abort_handle(),
        });
        running.insert(name, present);
    }
    before.into_values().for_each(|gone| gone.task.abort());
}

fn sought(config: &Config, name: &Arc<str>) -> Option<Sought> {
    let service = config.services.iter().find(|service| *service.name.value == **name)?;
    Some(Sought {
        source: service.source.clone(),
        service_name: name.clone(),
        over_tls: service.tls.is_some(),
    })
}

async fn sweep(limiters: Vec<Arc<RateLimiter>>) {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let limiters = limiters.clone();
        let swept = tokio::task::spawn_blocking(move || {
            for limiter in &limiters {
                limiter.sweep();
            }
        });
        if swept.await.is_err() {
            events::error("sweeping the rate limits failed");
        }
    }
}

/// Tells the log what the source of a service tells the service.
struct Reporting {
    name: Arc<str>,
    to: Arc<Instances>,
}

impl Publish for Reporting {
    fn publish(&self, found: Vec<crate::service::discovered::Discovered>) {
        let old = self.to.current();
        let (before, now) = (old.len(), found.len());
        self.to.publish(found);
        if now != before {
            events::info(format_args!("service {}: {before} → {now} instances", self.name));
        }
        if before > FREED_AT_ONCE && !Arc::ptr_eq(&old, &self.to.current()) {
            tokio::spawn(retire(old));
        }
    }

    fn describe(&self, described: Described) {
        self.to.describe(described);
    }

    fn source_failed(&self, what: &str) {
        events::warn(format_args!(
            "service {}: its instances can't be asked for, the last known stay: {what}",
            self.name
        ));
        self.to.source_failed(what);
    }

    fn source_recovered(&self) {
        events::info(format_args!("service {}: its instances can be asked for again", self.name));
        self.to.source_recovered();
    }
}

fn report_state_file(path: &Path, outcome: Result<(), &io::Error>) {
    let path = path.display();
    match outcome {
        Ok(()) => events::info(format_args!("registry: {path} can be written again")),
        Err(error) => events::warn(format_args!(
            "registry: {path} can't be written, a restart would not find who is registered: {error}"
        )),
    }
}

/// Frees a set that is in use no more. Were it left to a worker that happens to look at it last, others' requests
/// would wait for that.
async fn retire(set: Arc<InstanceSet>) {
    while Arc::strong_count(&set) > 1 {
        tokio::time::sleep(RETIRING_LOOK).await;
    }
    tokio::task::spawn_blocking(move || drop(set));
}

fn report_keys(set: &KeySet, outcome: Outcome) {
    match outcome {
        Outcome::Changed { keys, notes } => {
            events::info(format_args!("{} keys from {}", keys, set.url()));
            for note in notes {
                events::warn(format_args!("keys from {}: {note}", set.url()));
            }
        }
        Outcome::Unchanged => {}
        Outcome::Failed { why, failures_in_a_row } => events::warn(format_args!(
            "keys can't be fetched from {} ({failures_in_a_row} in a row), the last known stay: {why}",
            set.url()
        )),
    }
}
