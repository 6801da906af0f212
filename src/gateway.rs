//! The composition root: what starts, in what order, and how it ends.
//!
//! Configurations are applied one at a time. What is wrong with one is found before any of it takes
//! effect: the snapshot is compiled, certificates are read and addresses are bound beside what is serving.

mod listeners;
mod plan;
mod surface;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::admin::Admin;
use crate::admin::view::{ListenerStatus, Moment, ProblemStatus, ReloadOutcome, ReloadStatus};
use crate::config::{self, Config, Problems, Source, Workers};
use crate::control::upkeep::Upkeep;
use crate::control::{changes, memory};
use crate::discovery::registry::Store;
use crate::discovery::registry::state_file::{self, Restored};
use crate::discovery::{Sources, SystemResolver};
use crate::listener::Tickets;
use crate::per_worker::WorkerId;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::{AccessLog, Output};
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;
use crate::worker::{self, Command, Commands, WorkerHandle};
use listeners::Listeners;
use plan::Files;
pub use plan::{Plan, Wrong, check};

/// How often a look is taken whether an old snapshot is still in use.
const RETIRING_LOOK: Duration = Duration::from_millis(100);

/// A running gateway.
pub struct Gateway {
    file: PathBuf,
    workers: usize,
    /// The way to each of them, for what need not wait until a configuration has been applied.
    commands: Vec<Commands>,
    started: SystemTime,
    metrics: Arc<Metrics>,
    /// What clients resume their TLS sessions with.
    tickets: Tickets,
    log: AccessLog,
    published: Arc<ArcSwap<Snapshot>>,
    /// The configuration that the published snapshot was made of.
    applied: ArcSwap<Config>,
    /// Since the first configuration that has one.
    registry: ArcSwapOption<Store>,
    /// Held while a configuration is applied.
    control: tokio::sync::Mutex<Control>,
    status: Mutex<Status>,
    draining: AtomicBool,
    /// Told after each applied configuration, so that its files are watched.
    watch: tokio::sync::watch::Sender<Vec<PathBuf>>,
}

/// What applying a configuration changes.
struct Control {
    workers: Vec<WorkerHandle>,
    listeners: Listeners,
    upkeep: Upkeep,
    applied: Files,
    /// What was refused since, until something is applied again.
    refused: Option<Files>,
}

/// What came of looking for another configuration.
enum Applied {
    Changed(Vec<String>),
    Same,
    Nothing,
}

/// What a look at the configuration's files found.
enum Look {
    /// What serves already.
    Same,
    /// What was refused before, and nobody has asked again.
    SameMistake,
    New {
        plan: Box<Plan>,
        source: Source,
        changes: Vec<String>,
    },
}

#[derive(Default)]
struct Status {
    /// Of the configuration of which all has taken effect.
    generation: u64,
    listeners: Vec<ListenerStatus>,
    last_reload: Option<ReloadStatus>,
    reloads: Reloads,
    /// The last that was applied, after the one of the start.
    applied_at: Option<SystemTime>,
}

#[derive(Clone, Copy, Default)]
struct Reloads {
    applied: u64,
    unchanged: u64,
    refused: u64,
}

impl Gateway {
    /// Starts what `source` asks for. On an error nothing is left running.
    pub async fn start(source: Source) -> Result<Arc<Gateway>, Wrong> {
        let loaded = plan::load(&source)?;
        let workers = match loaded.config.workers {
            Workers::Count(count) => count,
            Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let metrics = Metrics::new(workers);
        let registry = loaded.config.registry.as_ref().map(registry);
        let sources = Sources { resolver: Arc::new(SystemResolver::new()), registry: registry.clone() };
        let upkeep = Upkeep::new(sources);
        let tickets = Tickets::default();
        let plan = Plan::make(loaded, &source, None, &metrics, &tickets, workers)?;
        let listeners = Listeners::default();
        let opening = listeners.prepare(&plan, workers, &metrics).map_err(|p| Wrong::new(&source, p))?;
        let log = AccessLog::start(Output::from(&plan.config.access_log.output)).map_err(Wrong::cannot)?;
        upkeep.seed(&plan.config, &plan.snapshot);
        let published = Arc::new(ArcSwap::from_pointee(plan.snapshot));
        let mut handles = Vec::with_capacity(workers);
        for id in 0..workers {
            let started =
                worker::start(WorkerId(id), workers, published.clone(), metrics.clone(), log.sender());
            handles.push(started.map_err(Wrong::cannot)?);
        }
        tokio::spawn(memory::watch(published.clone()));
        let gateway = Arc::new(Gateway {
            file: source.path.clone(),
            workers,
            commands: handles.iter().map(|worker: &WorkerHandle| worker.commands().clone()).collect(),
            started: SystemTime::now(),
            metrics,
            tickets,
            log,
            applied: ArcSwap::from_pointee(plan.config.clone()),
            registry: registry.into(),
            control: tokio::sync::Mutex::new(Control {
                workers: handles,
                listeners,
                upkeep,
                applied: plan.files.clone(),
                refused: None,
            }),
            status: Mutex::default(),
            draining: AtomicBool::new(false),
            watch: tokio::sync::watch::Sender::new(plan.files.paths.clone()),
            published,
        });
        {
            let mut control = gateway.control.lock().await;
            gateway.take_effect(&mut control, &plan.config, opening).await;
        }
        Ok(gateway)
    }

    /// Reads the configuration file again and applies it, if all of it can be. The old one serves otherwise.
    pub async fn reload(self: &Arc<Self>) -> ReloadOutcome {
        self.reload_if(true).await
    }

    /// As [`Gateway::reload`], for a watch that may have been woken by nothing new: then nothing is said.
    pub async fn reload_if_changed(self: &Arc<Self>) -> ReloadOutcome {
        self.reload_if(false).await
    }

    async fn reload_if(self: &Arc<Self>, asked: bool) -> ReloadOutcome {
        let mut control = self.control.lock().await;
        let refused_before = control.refused.is_some();
        let outcome = match self.apply(&mut control, asked).await {
            Ok(Applied::Nothing) => return ReloadOutcome::Unchanged,
            Ok(Applied::Same) if !asked && !refused_before => return ReloadOutcome::Unchanged,
            Ok(Applied::Same) => {
                events::info(format_args!("{}: the same configuration as before", self.file.display()));
                control.refused = None;
                ReloadOutcome::Unchanged
            }
            Ok(Applied::Changed(changes)) => {
                events::info(format_args!("reloaded {}: {}", self.file.display(), changes.join(", ")));
                control.refused = None;
                ReloadOutcome::Applied { changes }
            }
            Err(wrong) => {
                events::error(format_args!(
                    "{} is refused, and the configuration before goes on serving:\n{wrong}",
                    self.file.display()
                ));
                self.watch_for_cure(&mut control, wrong.files.as_ref());
                ReloadOutcome::Refused { problems: wrong.statuses() }
            }
        };
        self.remember(&outcome);
        outcome
    }

    /// The cure of a mistake may be in a file that only the refused configuration refers to.
    fn watch_for_cure(&self, control: &mut Control, files: Option<&Files>) {
        control.refused = Some(files.cloned().unwrap_or_default());
        let mut paths = control.applied.paths.clone();
        paths.extend(files.iter().flat_map(|files| files.paths.iter().cloned()));
        self.watch.send_if_modified(|watched| {
            let other = *watched != paths;
            *watched = paths;
            other
        });
    }

    fn remember(&self, outcome: &ReloadOutcome) {
        let now = SystemTime::now();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            ReloadOutcome::Applied { .. } => {
                status.reloads.applied += 1;
                status.applied_at = Some(now);
            }
            ReloadOutcome::Unchanged => status.reloads.unchanged += 1,
            ReloadOutcome::Refused { .. } => status.reloads.refused += 1,
        }
        status.last_reload = Some(ReloadStatus { at: Moment(now), outcome: outcome.clone() });
    }

    async fn apply(self: &Arc<Self>, control: &mut Control, asked: bool) -> Result<Applied, Wrong> {
        if self.draining.load(Relaxed) {
            return Err(Wrong::stopping());
        }
        let gateway = self.clone();
        let applied = control.applied.clone();
        let refused = control.refused.clone().filter(|_| !asked);
        // All that takes long with a large configuration is done beside health checks, which go on.
        let look = tokio::task::spawn_blocking(move || gateway.look(&applied, refused.as_ref()));
        let (plan, source, changes) = match look.await.map_err(|_| Wrong::failed())?? {
            Look::Same => return Ok(Applied::Same),
            Look::SameMistake => return Ok(Applied::Nothing),
            Look::New { plan, source, changes } => (plan, source, changes),
        };
        let opening = control
            .listeners
            .prepare(&plan, self.workers, &self.metrics)
            .map_err(|problems| Wrong::new(&source, problems).of(&plan.files))?;
        let Plan { config, snapshot, files, .. } = *plan;
        let config = Arc::new(config);
        self.registry_settings(control, &config);
        control.upkeep.seed(&config, &snapshot);
        let served = self.published.swap(Arc::new(snapshot));
        let old = self.applied.swap(config.clone());
        if old.access_log != config.access_log {
            self.log.set_output(Output::from(&config.access_log.output));
        }
        self.watch.send_replace(files.paths.clone());
        control.applied = files;
        self.take_effect(control, &config, opening).await;
        tokio::spawn(retire(served, old));
        Ok(Applied::Changed(changes))
    }

    fn look(&self, applied: &Files, refused: Option<&Files>) -> Result<Look, Wrong> {
        let source = config::read_source(&self.file).map_err(Wrong::unreadable)?;
        if applied.are_unchanged(&source) {
            return Ok(Look::Same);
        }
        if refused.is_some_and(|refused| refused.are_unchanged(&source)) {
            return Ok(Look::SameMistake);
        }
        let loaded = plan::load(&source)?;
        let previous = self.published.load_full();
        let plan = Plan::make(loaded, &source, Some(&previous), &self.metrics, &self.tickets, self.workers)?;
        let mut changes = changes::between(&self.applied.load(), &plan.config);
        if changes.is_empty() {
            changes.push("files that it refers to, or its wording".to_owned());
        }
        Ok(Look::New { plan: Box::new(plan), source, changes })
    }

    fn registry_settings(&self, control: &mut Control, config: &Config) {
        match (&*self.registry.load(), &config.registry) {
            (Some(store), Some(settings)) => store.set_heartbeat_ttl(settings.heartbeat_ttl),
            (None, Some(settings)) => {
                let store = registry(settings);
                control.upkeep.sources().registry = Some(store.clone());
                self.registry.store(Some(store));
            }
            // The store stays, should the block come back; nobody can reach it.
            (_, None) => {}
        }
    }

    async fn take_effect(
        self: &Arc<Self>,
        control: &mut Control,
        config: &Config,
        opening: listeners::Opening,
    ) {
        let snapshot = self.published.load_full();
        control.upkeep.apply(config, &snapshot);
        snapshot.take_effect();
        let admin = |token| Admin::new(Arc::new(surface::Surface(self.clone())), token);
        control.listeners.take_effect(opening, &control.workers, self.registry.load_full().as_ref(), admin);
        for worker in &control.workers {
            worker.settled().await;
        }
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.listeners = control.listeners.status();
        status.generation = self.published.load().generation;
    }

    /// The configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The files whose change is a reason to reload.
    pub fn files(&self) -> tokio::sync::watch::Receiver<Vec<PathBuf>> {
        self.watch.subscribe()
    }

    /// The configuration that serves now.
    pub fn config(&self) -> Arc<Config> {
        self.applied.load_full()
    }

    /// Opens the access log anew, after its file was moved away.
    pub fn reopen_log(&self) {
        self.log.reopen();
    }

    /// The addresses that are served now, by the name of the listener; `admin` and `registry` among them.
    pub fn addresses(&self) -> Vec<ListenerStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).listeners.clone()
    }

    /// Stops accepting, lets requests finish for so long, and ends the workers.
    pub async fn stop(self: &Arc<Self>, within: Duration) {
        self.draining.store(true, Relaxed);
        let handles = {
            let mut control = self.control.lock().await;
            std::mem::take(&mut control.workers)
        };
        for handle in &handles {
            handle.send(Command::Stop { within });
        }
        let joined = tokio::task::spawn_blocking(move || handles.into_iter().for_each(WorkerHandle::join));
        if joined.await.is_err() {
            events::error("the workers did not end in order");
        }
        self.log.shutdown(Duration::from_secs(2));
        let state_file =
            self.applied.load().registry.as_ref().and_then(|registry| registry.state_file.clone());
        if let (Some(path), Some(store)) = (state_file, self.registry.load_full()) {
            // What goes wrong now was told before.
            let _ = tokio::task::spawn_blocking(move || state_file::write(&store, &path)).await;
        }
    }
}

/// With whom it had when the process ended last, where that was kept.
fn registry(settings: &config::Registry) -> Arc<Store> {
    let store = Store::new(settings.heartbeat_ttl);
    let Some(path) = &settings.state_file else { return Arc::new(store) };
    match state_file::restore(&store, path) {
        Ok(None) => {}
        Ok(Some(Restored { instances, why: None, .. })) => {
            events::info(format_args!(
                "registry: {instances} instances were restored from {}",
                path.display()
            ));
        }
        Ok(Some(Restored { instances, refused, why: Some(why) })) => events::warn(format_args!(
            "registry: {instances} instances were restored from {}, and {refused} were not: {why}",
            path.display()
        )),
        Err(error) => {
            let aside = match state_file::set_aside(path) {
                Ok(aside) => format!("it is now {}", aside.display()),
                Err(error) => format!("it is not moved out of the way: {error}"),
            };
            events::warn(format_args!(
                "registry: nobody was restored from {}: {error}; {aside}",
                path.display()
            ));
        }
    }
    Arc::new(store)
}

/// Keeps what served before until the last request that runs against it has ended. Whoever lets go last frees
/// all its routes, and that must be no worker: others' requests would wait for it.
async fn retire(snapshot: Arc<Snapshot>, config: Arc<Config>) {
    while Arc::strong_count(&snapshot) > 1 {
        tokio::time::sleep(RETIRING_LOOK).await;
    }
    tokio::task::spawn_blocking(move || drop((snapshot, config)));
}

/// What `Wrong` says to the admin API.
fn statuses(problems: &Problems) -> Vec<ProblemStatus> {
    problems.iter().map(ProblemStatus::from).collect()
}
