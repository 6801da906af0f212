//! What one worker owns and shares with nobody: its view of the snapshot, its connections to instances,
//! its remembered tokens, its end of the log.

mod pulse;
mod tally;
mod thread;

use std::cell::{OnceCell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use arc_swap::ArcSwap;

use crate::buffers::Buffers;
use crate::per_worker::WorkerId;
use crate::policy::authenticate::TokenCache;
use crate::route::Place;
use crate::service::{Caller, Pools};
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::access_log::LogSender;
use crate::telemetry::metrics::{Metrics, RouteCounts};

pub use thread::{Command, Commands, WorkerHandle, start};

/// A snapshot as one worker's exchanges hold it: counted by the worker alone, so that cloning it writes no
/// cache line of another's.
pub type CurrentSnapshot = Rc<View>;

/// A snapshot, and what the worker counts of its routes.
pub struct View {
    snapshot: Arc<Snapshot>,
    worker: WorkerId,
    /// By the route's place. They are the metrics' own: here they are found without going through those.
    counts: Box<[OnceCell<RouteCounts>]>,
}

impl View {
    fn new(snapshot: Arc<Snapshot>, worker: WorkerId) -> Self {
        View { counts: (0..snapshot.routes.len()).map(|_| OnceCell::new()).collect(), worker, snapshot }
    }
}

impl Deref for View {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// A route of a snapshot, held likewise.
#[derive(Clone)]
pub struct CurrentRoute {
    view: CurrentSnapshot,
    place: Place,
}

impl CurrentRoute {
    pub fn new(snapshot: &CurrentSnapshot, place: Place) -> Self {
        CurrentRoute { view: snapshot.clone(), place }
    }

    /// What this worker counts of it. While requests are answered it is the tally that writes there.
    fn counts(&self) -> &RouteCounts {
        self.view.counts[self.place.number()].get_or_init(|| self.metrics.counts(self.view.worker))
    }
}

impl Deref for CurrentRoute {
    type Target = Route;

    fn deref(&self) -> &Route {
        &self.view.routes[self.place]
    }
}

pub struct Worker {
    pub id: WorkerId,
    pub workers: usize,
    pub pools: Pools,
    pub tokens: TokenCache,
    pub buffers: Rc<Buffers>,
    pub log: LogSender,
    pub metrics: Arc<Metrics>,
    /// Requests that no route took.
    pub unrouted: RouteCounts,
    /// Requests that routes took.
    pub tally: tally::Tally,
    pulse: pulse::Pulse,
    /// Tasks that go on at the next pulse.
    later: RefCell<Vec<Waker>>,
    published: Arc<ArcSwap<Snapshot>>,
    current: RefCell<CurrentSnapshot>,
}

impl Worker {
    pub fn new(
        id: WorkerId,
        workers: usize,
        published: Arc<ArcSwap<Snapshot>>,
        metrics: Arc<Metrics>,
        log: LogSender,
    ) -> Rc<Self> {
        let buffers = Rc::<Buffers>::default();
        Rc::new(Worker {
            id,
            workers,
            pools: Pools::new(id, metrics.clone(), buffers.clone()),
            tokens: TokenCache::new(),
            buffers,
            log,
            unrouted: metrics.unrouted().counts(id),
            metrics,
            tally: tally::Tally::default(),
            pulse: pulse::Pulse::default(),
            later: RefCell::default(),
            current: RefCell::new(Rc::new(View::new(published.load_full(), id))),
            published,
        })
    }

    /// The snapshot for a new exchange. The shared count is touched only after a reload; a request costs
    /// one of this worker's own.
    pub fn snapshot(&self) -> CurrentSnapshot {
        let published = self.published.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&published, &current.snapshot) {
            *current = Rc::new(View::new(Arc::clone(&published), self.id));
        }
        current.clone()
    }

    pub fn caller(&self) -> Caller<'_> {
        Caller { worker: self.id, pools: &self.pools, workers: self.workers }
    }

    /// A request has begun: the worker's clockwork runs while there are any.
    pub fn request_began(&self) {
        self.pulse.beat();
    }

    /// Wakes a task some milliseconds from now, at the latest when it has ended. Only while it answers a request, or
    /// there is no pulse. It costs less than a timer, for what has no hurry and mostly is not needed by then.
    pub fn wake_later(&self, task: &Waker) {
        self.later.borrow_mut().push(task.clone());
    }

    fn pulsed(&self) {
        self.log.flush();
        self.tally.settle();
        let mut later = self.later.take();
        later.drain(..).for_each(Waker::wake);
        // With its room, so that it need not grow again.
        *self.later.borrow_mut() = later;
    }

    /// What has to be looked after about once a second.
    pub fn tick(&self) {
        self.pools.sweep();
        self.metrics.token_cache(self.id, self.tokens.look_ups(), self.tokens.len());
        // An idle worker would otherwise keep an old snapshot, and all that it refers to, alive.
        self.tally.settle();
        self.snapshot();
        self.log.flush();
    }
}
