//! One address of a service, and what is known about it.
//!
//! An [`Instance`] is shared by all workers, and what they read of it changes rarely. Whatever a
//! request writes (its load, its counters, even the reference count) is the worker's own: a worker
//! holds an instance through an [`InstanceRef`], of which each worker has one to clone from.

mod admission;
mod breakers;
mod comparison;
mod penalty;
mod tls;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::Notify;

use super::breaker::Breaker;
use super::ejection::Ejections;
use super::failing::Failing;
use super::latency::{Known, Latency};
use super::settings::{BreakerOf, BreakerSettings};
use super::silence::{Doubt, Heard, Silence, Slowest};
use super::tally::Tally;
use super::tls::TlsFailure;
use crate::clock::{self, Millis};
use crate::per_worker::{PerWorker, WorkerId};

pub use admission::{Admission, InFlight};
use penalty::Penalty;

#[derive(Debug)]
pub struct Instance {
    /// Unique for the life of the process; an address that leaves and comes back gets another.
    pub id: u64,
    pub address: SocketAddr,
    /// What `host: instance` sends. Workers clone [`InstanceRef::authority`] instead.
    pub authority: HeaderValue,
    pub breaker: Breaker,
    /// Of routes that have one of their own. Each is made with the route's first request.
    route_breakers: ArcSwapOption<RouteBreakers>,
    weight: AtomicU32,
    health: AtomicU8,
    ejections: Ejections,
    removed: AtomicBool,
    /// When it began to get requests, in milliseconds; 0 for one that is to have its whole share at once.
    began_at: AtomicU64,
    /// It began by joining others, and not by coming back.
    joined: AtomicBool,
    /// The last try to connect failed.
    unreachable: AtomicBool,
    /// When it last came back after it could not be used, in milliseconds; 0 before. How long it took until then says nothing.
    back_at: AtomicU64,
    /// Why the last try to agree on TLS failed, as long as none has gone well since.
    tls_failure: ArcSwapOption<TlsFailure>,
    /// It answers nobody, while others answer.
    pub(super) silence: Silence,
    /// Its last answers were failures.
    pub(super) failing: Failing,
    /// Told when the next health check should not wait.
    check: Notify,
    loads: PerWorker<Load>,
    /// Written and read on the control side only.
    last_check: Mutex<Option<Check>>,
}

/// What the active health checks say. An instance that was never checked may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Unchecked,
    Healthy,
    Unhealthy,
}

/// The outcome of one active health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub at: Millis,
    pub took: Duration,
    /// Why it failed; `None` when it did not.
    pub failure: Option<String>,
}

/// An instance's counters, summed over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub in_flight: u64,
    pub attempts: u64,
    pub failures: u64,
}

/// Few: each is a route of the configuration.
type RouteBreakers = Vec<(BreakerOf, Arc<Breaker>)>;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Instance {
    pub(super) fn new(address: SocketAddr, authority: HeaderValue, weight: u32, workers: usize) -> Self {
        Instance {
            id: NEXT_ID.fetch_add(1, Relaxed),
            address,
            authority,
            breaker: Breaker::new(workers),
            route_breakers: ArcSwapOption::empty(),
            weight: AtomicU32::new(weight),
            health: AtomicU8::new(Health::Unchecked as u8),
            ejections: Ejections::default(),
            removed: AtomicBool::new(false),
            began_at: AtomicU64::new(0),
            joined: AtomicBool::new(false),
            unreachable: AtomicBool::new(false),
            back_at: AtomicU64::new(0),
            tls_failure: ArcSwapOption::empty(),
            silence: Silence::default(),
            failing: Failing::default(),
            check: Notify::new(),
            loads: PerWorker::new(workers),
            last_check: Mutex::new(None),
        }
    }

    /// 1 or more.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    pub(super) fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Relaxed);
    }

    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            value if value == Health::Unhealthy as u8 => Health::Unhealthy,
            value if value == Health::Healthy as u8 => Health::Healthy,
            _ => Health::Unchecked,
        }
    }

    pub fn set_health(&self, health: Health) {
        if self.health() == Health::Unhealthy && health == Health::Healthy {
            let now = clock::now();
            self.begins(now);
            self.back_at.store(now.0, Relaxed);
            // Who answers checks answers requests: they need not wait to find out.
            self.silence.end();
            self.failing.end();
            self.breaker.probe_from(now);
        }
        self.health.store(health as u8, Relaxed);
    }

    /// From now on it gets requests again.
    pub(super) fn begins(&self, now: Millis) {
        self.joined.store(false, Relaxed);
        self.began_at.store(now.0, Relaxed);
    }

    /// From now on it gets requests, for the first time.
    pub(super) fn joins(&self, now: Millis) {
        self.began_at.store(now.0, Relaxed);
        self.joined.store(true, Relaxed);
    }

    /// Whether the others have been without it before.
    pub(super) fn has_joined(&self) -> bool {
        self.joined.load(Relaxed)
    }

    /// How much of its share it is to have, up to 1, when that takes `slow_start` to grow.
    pub fn share_of_its_own(&self, slow_start: Duration, now: Millis) -> f64 {
        let began_at = self.began_at.load(Relaxed);
        let age = now.since(Millis(began_at));
        if began_at == 0 || age >= slow_start {
            return 1.0;
        }
        (age.as_secs_f64() / slow_start.as_secs_f64()).max(FIRST_SHARE)
    }

    pub fn last_check(&self) -> Option<Check> {
        self.last_check.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_last_check(&self, check: Option<Check>) {
        *self.last_check.lock().unwrap_or_else(PoisonError::into_inner) = check;
    }

    /// Whether it left its service: its idle connections can be closed.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Relaxed)
    }

    pub(super) fn set_removed(&self) {
        self.removed.store(true, Relaxed);
    }

    /// Whether connecting failed when it was last tried.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Relaxed)
    }

    pub fn set_unreachable(&self) {
        // Mostly it is known already, and a load spares the others their cache line.
        if !self.is_unreachable() {
            self.unreachable.store(true, Relaxed);
        }
    }

    /// Connecting works again: whatever was to be waited for is over.
    pub fn reached(&self, now: Millis) {
        if self.unreachable.swap(false, Relaxed) {
            self.back_at.store(now.0, Relaxed);
            self.failing.end();
            self.probe_breakers_from(now);
            self.check.notify_one();
            let tallied = self.ejections.run_of().map(|_| self.tallied());
            if self.ejections.reached(now, tallied) {
                self.begins(now);
            }
        }
    }

    /// Why others are preferred, if they are.
    pub fn doubt(&self) -> Option<Doubt> {
        if self.is_unreachable() {
            Some(Doubt::Unreachable)
        } else {
            self.silence.is_on().then_some(Doubt::Silent)
        }
    }

    /// Whether its last answers were failures.
    pub fn is_failing(&self) -> bool {
        self.failing.is_on()
    }

    /// Whether any answer has come after `moment`.
    pub(super) fn was_heard_after(&self, moment: Millis) -> bool {
        self.loads.all().any(|load| load.heard.is_after(moment))
    }

    /// The requests that wait for it to answer.
    pub(super) fn waiting(&self) -> u32 {
        self.loads.all().map(|load| load.waiting.load(Relaxed)).sum()
    }

    /// The longest that a good answer has taken in the last minute or two.
    pub(super) fn slowest_of_late(&self, now: Millis) -> Option<Duration> {
        self.loads.all().filter_map(|load| load.slowest.of_late(now)).max()
    }

    /// Waits until the instance is back after it could not be reached.
    pub async fn wants_a_check(&self) {
        self.check.notified().await;
    }

    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for load in self.loads.all() {
            totals.in_flight += u64::from(load.in_flight.load(Relaxed));
            totals.attempts += load.attempts.load(Relaxed);
            totals.failures += load.failures.load(Relaxed);
        }
        totals
    }

    /// Whether a request may be sent here now.
    pub(super) fn is_usable(&self, now: Millis, settings: &BreakerSettings, despite_health: bool) -> bool {
        let is_in_rotation = despite_health || self.health() != Health::Unhealthy;
        // One that is not there yet is closed.
        is_in_rotation
            && self.with_breaker(settings.of, |breaker| breaker.admits(now, settings)).unwrap_or(true)
    }

    /// Whether it can take its share of the requests, and not only one to see whether it is back.
    pub(super) fn takes_its_share(
        &self,
        now: Millis,
        settings: &BreakerSettings,
        despite_health: bool,
    ) -> bool {
        self.with_breaker(settings.of, Breaker::is_closed).unwrap_or(true)
            && self.is_usable(now, settings, despite_health)
    }

    /// Likewise, as far as can be said without knowing the service.
    pub(super) fn seems_usable(&self) -> bool {
        self.breaker.is_closed() && self.health() != Health::Unhealthy
    }

    /// How busy the instance is from one worker's point of view, in [`UNIT`]s for each request.
    pub(super) fn pressure(&self, worker: WorkerId, now: Millis) -> u64 {
        let load = self.loads.of(worker);
        u64::from(load.in_flight.load(Relaxed)) * UNIT + load.penalty.at(now)
    }

    /// What a request would have to wait for here, in requests, from one worker's point of view: those in flight, and
    /// more for failures than [`Instance::pressure`] has, because a failing instance is to look slow.
    pub(super) fn queue(&self, worker: WorkerId, now: Millis) -> f64 {
        let load = self.loads.of(worker);
        let failures = load.penalty.at(now) as f64 / UNIT as f64;
        f64::from(load.in_flight.load(Relaxed)) + FAILURE_IN_REQUESTS * failures
    }

    /// The requests that one worker has here.
    pub(super) fn in_flight(&self, worker: WorkerId) -> u32 {
        self.loads.of(worker).in_flight.load(Relaxed)
    }

    /// How long it takes to answer, as one worker has seen it.
    pub(super) fn latency(&self, worker: WorkerId) -> Known {
        self.loads.of(worker).latency.known_after(self.back_at())
    }

    fn back_at(&self) -> Millis {
        Millis(self.back_at.load(Relaxed))
    }

    /// The mean over the workers that have timed an answer; `None` when nobody goes by that.
    pub fn mean_latency(&self) -> Option<Duration> {
        let answered = self.loads.all().map(|load| load.latency.known()).filter(|known| known.answered);
        let (sum, count) = answered.fold((0.0, 0u32), |(sum, count), known| (sum + known.cost_us, count + 1));
        (count > 0).then(|| Duration::from_micros((sum / f64::from(count)) as u64))
    }
}

/// What an instance is given of its share to begin with: enough for it to warm up by.
const FIRST_SHARE: f64 = 0.1;
/// What a failure of just now weighs in [`Instance::queue`].
const FAILURE_IN_REQUESTS: f64 = 4.0;

/// What one request in flight weighs in [`Instance::pressure`].
pub(super) const UNIT: u64 = 256;

/// One worker's share of an instance's load and counters; nobody else writes it.
#[derive(Debug, Default)]
struct Load {
    in_flight: AtomicU32,
    /// Those of them without the head of an answer yet.
    waiting: AtomicU32,
    attempts: AtomicU64,
    failures: AtomicU64,
    penalty: Penalty,
    latency: Latency,
    tally: Tally,
    heard: Heard,
    slowest: Slowest,
}

/// Adds one to a counter that only this worker writes.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

/// A worker's own reference to an instance. Cloning it touches no cache line of another worker's.
#[derive(Clone, Debug)]
pub struct InstanceRef(Arc<Seat>);

/// On cache lines of its own, because the reference count in front of it is written by requests.
#[repr(align(64))]
#[derive(Debug)]
struct Seat {
    instance: Arc<Instance>,
    worker: WorkerId,
    /// A copy: clones of one header value share a reference count.
    authority: HeaderValue,
    /// Requests to any of the service's instances, where the balancing rule counts them.
    service: Arc<PerWorker<AtomicU32>>,
}

impl InstanceRef {
    pub(super) fn new(instance: Arc<Instance>, worker: WorkerId, service: Arc<PerWorker<AtomicU32>>) -> Self {
        let authority = HeaderValue::from_bytes(instance.authority.as_bytes())
            .expect("the bytes are those of a valid header value");
        InstanceRef(Arc::new(Seat { instance, worker, authority, service }))
    }

    pub fn worker(&self) -> WorkerId {
        self.0.worker
    }

    /// What `host: instance` sends.
    pub fn authority(&self) -> &HeaderValue {
        &self.0.authority
    }

    /// The shared object itself, for what outlives the worker's interest.
    pub fn shared(&self) -> &Arc<Instance> {
        &self.0.instance
    }

    /// Counts an attempt, in flight until the guard is dropped; among those of the service, too, if
    /// the balancing rule goes by keys.
    pub(super) fn begin(&self, by_key: bool) -> InFlight {
        let load = self.load();
        load.in_flight.store(load.in_flight.load(Relaxed).wrapping_add(1), Relaxed);
        bump(&load.attempts);
        if by_key {
            self.of_service().fetch_add(1, Relaxed);
        }
        InFlight { instance: self.clone(), by_key }
    }

    fn of_service(&self) -> &AtomicU32 {
        self.0.service.of(self.0.worker)
    }

    pub(super) fn admit(&self, now: Millis, settings: &BreakerSettings) -> Option<Admission> {
        let admit = |breaker: &Breaker| breaker.admit(now, settings);
        let pass = match self.with_breaker(settings.of, admit) {
            Some(pass) => pass?,
            None => {
                self.add_breaker(settings.of);
                self.with_breaker(settings.of, admit)??
            }
        };
        Some(Admission { instance: self.clone(), pass: Some(pass), of: settings.of })
    }

    /// The head of an answer came, or nobody waits for it any longer. Only a good answer can make the instance faster.
    pub(crate) fn waited(&self, took: Duration, good: bool, now: Millis) {
        let (load, back_at) = (self.load(), self.back_at());
        load.latency.forget_before(back_at);
        // What was sent while it could not be used took as long as that did.
        let counts = now.since(back_at) >= took || back_at == Millis::default();
        if good {
            load.tally.answered(took);
        }
        match good {
            _ if !counts => {}
            true => load.latency.answered(took, now),
            false => load.latency.waited_in_vain(took, now),
        }
    }

    /// Nobody waits any longer, because another instance was quicker: an answer would have taken longer than this.
    pub(super) fn takes_longer_than(&self, waited: Duration) {
        self.load().tally.answered(waited);
    }

    /// Counts what came of a request, if anybody wants to know.
    fn tell(&self, failed: bool) {
        if let Some(run_of) = self.ejections.run_of() {
            self.load().tally.record(failed, run_of);
        }
    }

    /// A request that was sent then is answered, well or not.
    pub(super) fn heard(&self, sent: Millis, now: Millis, good: bool) {
        let load = self.load();
        load.heard.note(sent, now);
        if good {
            load.slowest.note(now.since(sent), now);
        }
        if self.silence.end() {
            self.back_at.store(now.0, Relaxed);
            if good {
                self.probe_breakers_from(now);
            }
        }
    }

    /// A request begins to wait for an answer.
    pub(super) fn waits(&self) {
        let waiting = &self.load().waiting;
        waiting.store(waiting.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// It does so no longer.
    pub(super) fn has_waited(&self) {
        let waiting = &self.load().waiting;
        waiting.store(waiting.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    fn load(&self) -> &Load {
        self.0.instance.loads.of(self.0.worker)
    }
}

impl Deref for InstanceRef {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.0.instance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> InstanceRef {
        let authority = HeaderValue::from_static("users.internal:8001");
        let shared = Arc::new(Instance::new(([127, 0, 0, 1], 8001).into(), authority, 1, 2));
        InstanceRef::new(shared, WorkerId(1), Arc::new(PerWorker::new(2)))
    }

    #[test]
    fn load_and_counters_are_summed_over_workers() {
        let one = instance();
        let other = InstanceRef::new(one.shared().clone(), WorkerId(0), one.0.service.clone());
        let guards = (one.begin(true), one.begin(false), other.begin(true));
        assert_eq!(one.totals(), Totals { in_flight: 3, attempts: 3, failures: 0 });
        assert_eq!(one.pressure(WorkerId(1), Millis(0)), 2 * UNIT);
        assert_eq!(one.of_service().load(Relaxed), 1);
        drop(guards);
        assert_eq!(one.of_service().load(Relaxed), 0);
        assert_eq!(one.totals().in_flight, 0);
        assert_eq!(one.totals().attempts, 3);
    }

    #[test]
    fn a_share_grows_from_a_tenth_to_all_of_it() {
        let instance = instance();
        let share = |now| instance.share_of_its_own(Duration::from_secs(30), Millis(now));
        assert_eq!(share(0), 1.0, "it did not begin slowly");
        instance.begins(Millis(1000));
        for (now, wanted) in [(0, 0.1), (1000, 0.1), (4000, 0.1), (16_000, 0.5), (31_000, 1.0), (99_000, 1.0)]
        {
            assert_eq!(share(now), wanted, "at {now}");
        }
        assert_eq!(instance.share_of_its_own(Duration::ZERO, Millis(1000)), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_back_begins_anew() {
        let instance = instance();
        let share = || instance.share_of_its_own(Duration::from_secs(30), clock::now());
        instance.set_health(Health::Healthy);
        assert_eq!(share(), 1.0);
        instance.set_health(Health::Unhealthy);
        instance.set_health(Health::Healthy);
        assert_eq!(share(), 0.1);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(share(), 1.0);
        let settings = BreakerSettings {
            consecutive_failures: 1,
            failure_ratio: None,
            minimum_requests: 1,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(1),
            max_open_for: Duration::from_secs(1),
            half_open_requests: 1,
            of: BreakerOf::SERVICE,
        };
        let admit = || instance.admit(clock::now(), &settings).expect("it is not open");
        admit().success(clock::now(), &settings);
        assert_eq!(share(), 1.0);
        admit().failure(clock::now(), &settings);
        tokio::time::advance(Duration::from_secs(1)).await;
        admit().success(clock::now(), &settings);
        assert_eq!(share(), 0.1, "its breaker has closed");
    }

    #[test]
    fn health_is_what_was_set_last() {
        let instance = instance();
        for health in [Health::Unchecked, Health::Healthy, Health::Unhealthy] {
            instance.set_health(health);
            assert_eq!(instance.health(), health);
        }
    }
}
