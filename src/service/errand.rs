//! One request to one service: what its attempts have in common, and how one is made.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{Attempt, AttemptError, AttemptLimits, Responded};
use super::bulkhead::Answered;
use super::call::{Call, CallError, Caller};
use super::pool::{InstancePool, PoolLimits, Waits, Way};
use super::silence::Hope;
use super::{Admission, Failure, HedgeAfter, InFlight, InstanceRef, Picked, Service, SessionCode};
use crate::clock::{self, Millis};
use crate::http::body::RequestBody;
use crate::telemetry::metrics::Outcome;

#[derive(Clone, Copy)]
pub struct Errand<'c> {
    pub service: &'c Service,
    pub caller: Caller<'c>,
    pub call: &'c Call,
    /// When all of it is to be over, the body of the response included.
    pub total: Option<Instant>,
}

/// How an attempt is to be made.
#[derive(Clone, Copy)]
pub struct How {
    /// When it begins.
    pub at: Millis,
    /// So long may its response take.
    pub response: Duration,
    /// On a new connection.
    pub fresh: bool,
    pub waits: Waits,
}

/// A response whose head has come, and what its attempt holds.
pub struct Got {
    pub responded: Responded,
    pub in_flight: InFlight,
    pub admission: Admission,
    pub at: Millis,
    /// What the client is to be told, so that it stays with the instance.
    pub session: Option<SessionCode>,
}

/// How an attempt came out. What it says about the instance is still to be told.
pub type Attempted = Result<Got, (AttemptError, Admission)>;

impl Errand<'_> {
    /// By when there must be a head, however far it has come.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.call.deadline, self.total) {
            (Some(call), Some(total)) => Some(call.min(total)),
            (one, other) => one.or(other),
        }
    }

    pub fn is_over_in_total(&self) -> bool {
        self.total.is_some_and(|total| total <= Instant::now())
    }

    /// What was cut short because all of the time is over is called so, whatever it was waiting for.
    pub fn name(&self, error: AttemptError) -> CallError {
        if error.is_about_time() && self.is_over_in_total() { CallError::TotalTimedOut } else { error.into() }
    }

    /// One attempt at the instance that was picked for it. `hope` is told when the answer is not to be counted on any more.
    pub async fn attempt(&self, picked: Picked, began: Instant, how: How, hope: &Cell<Hope>) -> Attempted {
        let Picked { admission, in_flight } = picked;
        let instance = in_flight.instance();
        let pool = {
            let Service { name, tls, settings, .. } = self.service;
            let way = Way { tls: tls.as_ref(), protocol: settings.protocol };
            self.caller.pools.of(name, instance, way, self.pool_limits())
        };
        let timed = self.service.settings.times_answers().then_some(instance);
        let joined_after = timed.and_then(|_| self.joined_after());
        let (body, outcome) = (&*self.call.body, Some(Outcome::Cancelled));
        let recording = Recording { pool: &pool, timed, joined_after, body, began, ended: None, outcome };
        instance.waits();
        let waiting = Waiting { errand: self, instance, began, hope, admission: Some(admission) };
        let attempt = Attempt {
            pool: &pool,
            head: &self.call.head,
            host: self.call.head.host.as_deref().unwrap_or_else(|| instance.authority().as_bytes()),
            body: &self.call.body,
            limits: self.limits(how.response),
            fresh: how.fresh,
            waits: how.waits,
            waiting: &waiting,
        };
        let ran = attempt.run().await;
        let admission = waiting.end();
        match ran {
            Ok(responded) => {
                let status = responded.response.status.as_u16();
                let ended = recording.end(Outcome::Status(status));
                let at = Millis::of(ended);
                self.heard(instance, how.at, at, status < 500);
                if !responded.lease.reused {
                    instance.agreed_on_tls();
                    if instance.is_unreachable() {
                        instance.reached(at);
                    }
                }
                if status < 500 {
                    self.answered(began, ended);
                }
                let session = self.service.session(instance, self.call.wish);
                Ok(Got { responded, in_flight, admission, at, session })
            }
            Err(error) if error.is_full().is_some() => {
                recording.forget();
                in_flight.withdraw();
                Err((error, admission))
            }
            Err(error) => {
                // Whatever the instance's side made of it, the client's failure came first.
                let error = self.call.body.failure().map_or(error, AttemptError::Client);
                let ended = recording.end(error.outcome());
                if error.failure() == Some(Failure::Timeout) {
                    self.answered(began, ended);
                }
                if error.failure() == Some(Failure::Connect) {
                    instance.set_unreachable();
                }
                Err((error, admission))
            }
        }
    }

    fn joined_after(&self) -> Option<Duration> {
        match self.service.settings.hedging?.after {
            HedgeAfter::Time(after) => Some(after),
            HedgeAfter::Percentile95 => self.service.latency.percentile_95(),
        }
    }

    /// An attempt went wrong, and says so about its instance.
    pub fn blame(&self, failure: Failure, admission: Admission) {
        let settings = &self.service.settings;
        admission.note(failure, clock::now());
        if settings.breaker_failures.contains(failure) {
            admission.failure(clock::now(), &settings.breaker);
        } else {
            admission.server_error(clock::now(), &settings.breaker);
        }
    }

    /// Tells those who want to know how long it took. The time in which the client sent its request is not the service's.
    fn answered(&self, began: Instant, ended: Instant) {
        let bulkhead = self.service.bulkhead.as_ref().filter(|bulkhead| bulkhead.is_adaptive());
        let Some(bulkhead) = bulkhead else { return };
        let asked = self.call.body.taken_at().map_or(began, |taken| taken.max(began));
        let took = ended.saturating_duration_since(asked);
        bulkhead.answered(Answered { began: Millis::of(began), at: Millis::of(ended), took });
    }

    fn limits(&self, response: Duration) -> AttemptLimits {
        let settings = &self.service.settings;
        AttemptLimits {
            connect: settings.connect_timeout,
            tls: settings.tls_timeout,
            response: settings.retries.per_attempt_timeout.map_or(response, |each| each.min(response)),
            idle: settings.idle_timeout,
            deadline: self.deadline(),
        }
    }

    /// Divided among the workers, among whom requests spread evenly.
    fn pool_limits(&self) -> PoolLimits {
        let pool = &self.service.settings.pool;
        let workers = self.caller.workers.max(1);
        PoolLimits {
            max_connections: pool.max_connections.div_ceil(workers),
            max_idle: pool.max_idle.div_ceil(workers),
            idle_timeout: pool.idle_timeout,
        }
    }
}

/// An attempt that waits for its answer. When it is dropped meanwhile, because another was quicker or the client left, an
/// instance that has been silent is to blame.
pub(super) struct Waiting<'a> {
    pub errand: &'a Errand<'a>,
    pub instance: &'a InstanceRef,
    pub began: Instant,
    /// For whoever could send the request elsewhere as well.
    pub hope: &'a Cell<Hope>,
    admission: Option<Admission>,
}

impl Waiting<'_> {
    pub fn silence(&self) -> Option<Duration> {
        self.errand.service.settings.silence
    }

    fn end(mut self) -> Admission {
        self.admission.take().expect("it is taken here and when this is dropped, which is later")
    }

    fn is_in_vain(&self, now: Instant) -> bool {
        let body = &self.errand.call.body;
        if body.waits_for_client() || body.failure().is_some() {
            return false;
        }
        let since = body.taken_at().map_or(self.began, |at| at.max(self.began));
        let hope = || self.errand.hope(self.instance, since, now, Duration::MAX);
        self.hope.get() == Hope::None || hope() == Hope::None
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.instance.has_waited();
        let Some(admission) = self.admission.take() else { return };
        let now = Instant::now();
        if self.is_in_vain(now) {
            self.instance.silence.begin(Millis::of(now));
            self.errand.blame(Failure::Timeout, admission);
        }
    }
}

/// Counts an attempt when it is over, even when that is because nobody waits for it any more.
struct Recording<'p> {
    pool: &'p InstancePool,
    /// The instance, where somebody wants to know how long it takes.
    timed: Option<&'p InstanceRef>,
    /// When another attempt joins it, where the service hedges.
    joined_after: Option<Duration>,
    body: &'p RequestBody,
    began: Instant,
    ended: Option<Instant>,
    /// `None` when there was nothing to count.
    outcome: Option<Outcome>,
}

impl Recording<'_> {
    /// Counts it now, and says when that is.
    fn end(mut self, outcome: Outcome) -> Instant {
        self.outcome = Some(outcome);
        *self.ended.insert(Instant::now())
    }

    /// Nothing was tried.
    fn forget(mut self) {
        self.outcome = None;
    }

    /// Tells how long the instance took, from the last on that it was given of the request. A client that doesn't send
    /// its request is not the instance's fault; being turned away is no sign of its being fast.
    fn time(&self, instance: &InstanceRef, outcome: Outcome, ended: Instant) {
        let good = matches!(outcome, Outcome::Status(status) if status < 500 && status != 429);
        if !good && (self.body.waits_for_client() || self.body.failure().is_some()) {
            return;
        }
        let since = self.body.taken_at().map_or(self.began, |at| at.max(self.began));
        let waited = ended.saturating_duration_since(since);
        instance.waited(waited, good, Millis::of(ended));
        // Were only those timed that win, an instance that others always outrun would never seem slow.
        if outcome == Outcome::Cancelled && self.joined_after.is_some_and(|after| waited >= after) {
            instance.takes_longer_than(waited);
        }
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let Some(outcome) = self.outcome else { return };
        let ended = self.ended.unwrap_or_else(Instant::now);
        self.pool.record(outcome, ended.saturating_duration_since(self.began));
        if let Some(instance) = self.timed {
            self.time(instance, outcome, ended);
        }
    }
}
