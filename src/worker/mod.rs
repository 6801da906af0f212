//! What one worker owns and shares with nobody: its view of the snapshot, its connections to instances,
//! its remembered tokens, its end of the log.

mod pulse;
mod thread;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use arc_swap::ArcSwap;

use crate::buffers::Buffers;
use crate::per_worker::WorkerId;
use crate::policy::authenticate::TokenCache;
use crate::service::{Caller, Pools};
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::LogSender;
use crate::telemetry::metrics::{Metrics, NO_ROUTE, RouteMetrics};

pub use thread::{Command, WorkerHandle, start};

/// A snapshot as one worker's exchanges hold it: counted by the worker alone, so that cloning it writes no
/// cache line of another's.
pub type CurrentSnapshot = Rc<Arc<Snapshot>>;

pub struct Worker {
    pub id: WorkerId,
    pub workers: usize,
    pub pools: Pools,
    pub tokens: TokenCache,
    pub buffers: Rc<Buffers>,
    pub log: LogSender,
    pub metrics: Arc<Metrics>,
    /// Requests that no route took.
    pub unrouted: Arc<RouteMetrics>,
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
            unrouted: metrics.route(NO_ROUTE),
            metrics,
            pulse: pulse::Pulse::default(),
            later: RefCell::default(),
            current: RefCell::new(Rc::new(published.load_full())),
            published,
        })
    }

    /// The snapshot for a new exchange. The shared count is touched only after a reload; a request costs
    /// one of this worker's own.
    pub fn snapshot(&self) -> CurrentSnapshot {
        let published = self.published.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&published, &current) {
            *current = Rc::new(Arc::clone(&published));
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
        self.snapshot();
        self.log.flush();
    }
}
