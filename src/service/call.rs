//! A request to a service: which instance, and whether to try another when that one fails.
//!
//! An attempt is repeated only while nothing of a response was passed on, when the request can be repeated at
//! all, and while the service's retry budget lasts.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::attempt::{Attempt, AttemptError, AttemptLimits, Head, Responded};
use super::pool::{InstancePool, PoolLimits, Pools};
use super::upstream_body::Held;
use super::verdict::Verdict;
use super::{
    Admission, Failure, InFlight, InstanceRef, NoPick, Picked, Service, SessionCode, Upgraded, UpstreamBody,
    Wish, backoff,
};
use crate::clock::{self, Millis};
use crate::http::body::RequestBody;
use crate::http::response::Response;
use crate::per_worker::WorkerId;
use crate::reason::Reason;
use crate::telemetry::metrics::Outcome;

/// Instances are tried again only when there are no others; so many are remembered.
const MAX_TRIED: usize = 8;

/// What a call needs of the worker that makes it.
#[derive(Clone, Copy)]
pub struct Caller<'w> {
    pub worker: WorkerId,
    pub workers: usize,
    pub pools: &'w Pools,
}

pub struct Call {
    pub head: Head,
    pub body: Rc<RequestBody>,
    pub deadline: Option<Instant>,
    /// Of [`Service::wish`].
    pub wish: Wish,
}

/// How far a call came, kept outside of it so that it is known even when the call is dropped.
pub trait Progress {
    fn attempt(&mut self, instance: SocketAddr, at: Instant);
}

/// The head of an instance's response, and its body.
pub struct Answer {
    pub response: Response<()>,
    pub body: UpstreamBody,
    /// The instance's side of a tunnel, where it has switched protocols.
    pub upgrade: Option<Upgraded>,
    /// What is to be told to the client, so that it stays with the instance that answered.
    pub session: Option<SessionCode>,
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the service has no instance in rotation")]
    NoInstance,
    #[error("the breakers of all instances are open")]
    CircuitOpen,
    #[error(transparent)]
    Attempt(#[from] AttemptError),
}

impl CallError {
    pub fn reason(&self) -> Reason {
        match self {
            CallError::NoInstance => Reason::NoInstance,
            CallError::CircuitOpen => Reason::CircuitOpen,
            CallError::Attempt(error) => error.reason(),
        }
    }
}

impl From<NoPick> for CallError {
    fn from(none: NoPick) -> Self {
        match none {
            NoPick::AllOpen => CallError::CircuitOpen,
            NoPick::Empty | NoPick::AllUnhealthy => CallError::NoInstance,
        }
    }
}

/// Calls `service`, with the retries that it allows.
pub async fn call(
    service: &Service,
    caller: Caller<'_>,
    call: &Call,
    progress: &mut dyn Progress,
) -> Result<Answer, CallError> {
    // Read once for all that begins now.
    let mut now = Instant::now();
    let mut at = Millis::of(now);
    service.budget.count_request(caller.worker, at);
    let mut tries = Tries::new(service, call, caller, now);
    loop {
        let tried = &tries.tried[..tries.tried_count];
        let picked = match service.pick(caller.worker, call.wish, tried, at, &mut tries.rng) {
            Ok(picked) => picked,
            Err(none) => return tries.last.take().unwrap_or_else(|| Err(none.into())),
        };
        tries.last = None;
        tries.count_retry();
        progress.attempt(picked.instance.address, now);
        let step = match tries.attempt(picked, now).await {
            Ok(got) => tries.judge_response(got),
            Err((error, admission)) => tries.judge_error(error, admission),
        };
        match step {
            Step::Answer(answer) => return Ok(answer),
            Step::GiveUp(error) => return Err(error.into()),
            Step::Again { after: None } => {}
            Step::Again { after: Some(after) } => tokio::time::sleep(after).await,
        }
        now = Instant::now();
        at = Millis::of(now);
    }
}

/// What follows from an attempt.
enum Step {
    Answer(Answer),
    GiveUp(AttemptError),
    Again { after: Option<Duration> },
}

/// A response whose head has come, and what its attempt holds.
struct Got {
    responded: Responded,
    in_flight: InFlight,
    admission: Admission,
    at: Millis,
    session: Option<SessionCode>,
}

/// What has been tried so far, and what may still be.
struct Tries<'c> {
    service: &'c Service,
    caller: Caller<'c>,
    call: &'c Call,
    tried: [u64; MAX_TRIED],
    tried_count: usize,
    retries: u32,
    /// Those of them for which there was an instance left.
    retried: u32,
    method_allows: bool,
    idempotent: bool,
    /// The next attempt takes a new connection, because a kept one turned out to be closed. Once a call
    /// that doesn't count as a retry.
    fresh: bool,
    stale_left: bool,
    /// How the last attempt ended, in case there is no instance left for another.
    last: Option<Result<Answer, CallError>>,
    began: Instant,
    rng: fastrand::Rng,
}

impl<'c> Tries<'c> {
    fn new(service: &'c Service, call: &'c Call, caller: Caller<'c>, began: Instant) -> Self {
        Tries {
            service,
            caller,
            call,
            method_allows: service.settings.retries.methods.contains(&call.head.method),
            idempotent: call.head.method.is_idempotent(),
            tried: [0; MAX_TRIED],
            tried_count: 0,
            retries: 0,
            retried: 0,
            fresh: false,
            stale_left: true,
            last: None,
            began,
            rng: fastrand::Rng::new(),
        }
    }

    async fn attempt(&mut self, picked: Picked, began: Instant) -> Result<Got, (AttemptError, Admission)> {
        let Picked { instance, admission, in_flight } = picked;
        self.remember(instance.id);
        let pool = self.caller.pools.of(&self.service.name, &instance, self.pool_limits());
        let timed = self.service.settings.rule.times_answers().then_some(&instance);
        let body = &*self.call.body;
        let recording =
            Recording { pool: &pool, timed, body, began, ended: None, outcome: Outcome::Cancelled };
        let attempt = Attempt {
            pool: &pool,
            head: &self.call.head,
            host: self.call.head.host.as_deref().unwrap_or_else(|| instance.authority().as_bytes()),
            body: &self.call.body,
            limits: self.limits(),
            fresh: std::mem::take(&mut self.fresh),
            began,
        };
        match attempt.run().await {
            Ok(responded) => {
                let status = responded.response.status.as_u16();
                let at = Millis::of(recording.end(Outcome::Status(status)));
                let session = self.service.session(&instance, self.call.wish);
                Ok(Got { responded, in_flight, admission, at, session })
            }
            Err(error) => {
                // Whatever the instance's side made of it, the client's failure came first.
                let error = self.call.body.failure().map_or(error, AttemptError::Client);
                recording.end(error.outcome());
                if error.failure() == Some(Failure::Connect) {
                    instance.set_unreachable();
                }
                Err((error, admission))
            }
        }
    }

    fn judge_response(&mut self, got: Got) -> Step {
        let settings = &self.service.settings;
        let Got { responded, in_flight, admission, at, session } = got;
        let status = responded.response.status;
        let repeat = settings.retries.on.contains(Failure::Status(status)) && self.may_repeat(false);
        let asked = if repeat { responded.response.fields.value(&header::RETRY_AFTER) } else { None };
        let asked = asked.and_then(|value: HeaderValue| backoff::retry_after(&value, SystemTime::now()));
        let verdict = Verdict::of_head(status, admission, at, settings);
        let mut answer = self.answer(responded, in_flight, verdict, at);
        // Nobody is to stay with an instance that fails.
        answer.session = session.filter(|_| !status.is_server_error());
        match repeat.then(|| self.take_retry(asked)).flatten() {
            Some(after) => {
                self.last = Some(Ok(answer));
                Step::Again { after: Some(after) }
            }
            None => Step::Answer(answer),
        }
    }

    fn answer(
        &self,
        responded: Responded,
        in_flight: InFlight,
        verdict: Option<Verdict>,
        at: Millis,
    ) -> Answer {
        let Responded { response, body, lease } = responded;
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            let (stream, first, slot) = lease.into_stream();
            let upgrade = Some(Upgraded::new(first, stream));
            return Answer {
                response,
                body: UpstreamBody::of_tunnel(in_flight, slot),
                upgrade,
                session: None,
            };
        }
        let held = Held { lease, in_flight, verdict, sent: self.call.body.clone() };
        let body = UpstreamBody::new(body, held, self.service.settings.idle_timeout, at);
        Answer { response, body, upgrade: None, session: None }
    }

    fn judge_error(&mut self, error: AttemptError, admission: Admission) -> Step {
        let settings = &self.service.settings;
        if self.stale_left && error.is_stale_connection() && self.may_replace_connection(&error) {
            // The instance closed a kept connection as we used it: its right, and no failure of its own.
            admission.ignored();
            self.stale_left = false;
            self.fresh = true;
            self.tried_count -= 1;
            return Step::Again { after: None };
        }
        let Some(failure) = error.failure() else {
            admission.ignored();
            return Step::GiveUp(error);
        };
        if settings.breaker_failures.contains(failure) {
            admission.failure(clock::now(), &settings.breaker);
        } else {
            admission.server_error(clock::now(), &settings.breaker);
        }
        if settings.retries.on.contains(failure)
            && self.may_repeat(error.nothing_written())
            && let Some(after) = self.take_retry(None)
        {
            self.last = Some(Err(error.into()));
            return Step::Again { after: Some(after) };
        }
        Step::GiveUp(error)
    }

    fn may_replace_connection(&self, error: &AttemptError) -> bool {
        self.call.body.is_replayable() && (self.idempotent || error.nothing_written())
    }

    fn may_repeat(&self, nothing_written: bool) -> bool {
        self.retries < self.service.settings.retries.attempts
            && self.call.body.is_replayable()
            && (nothing_written || self.method_allows)
    }

    /// Takes a retry out of the budget, if it would still come in time and find an instance.
    fn take_retry(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let retries = &self.service.settings.retries;
        let left = self.left();
        let after = backoff::delay(retries, self.retries, asked, left, &mut self.rng)?;
        if !self.service.has_usable(clock::now().plus(after)) {
            return None;
        }
        if !self.service.budget.try_retry(retries.budget, clock::now()) {
            self.service.metrics.retry_refused(self.caller.worker);
            return None;
        }
        self.retries += 1;
        Some(after)
    }

    /// A retry counts once its attempt begins: until then every breaker may have opened.
    fn count_retry(&mut self) {
        if self.retried < self.retries {
            self.retried = self.retries;
            self.service.metrics.retried(self.caller.worker);
        }
    }

    /// What is left of the time that a response may take.
    fn left(&self) -> Duration {
        let now = Instant::now();
        let left = self.service.settings.response_timeout.saturating_sub(now - self.began);
        self.call.deadline.map_or(left, |deadline| left.min(deadline.saturating_duration_since(now)))
    }

    fn remember(&mut self, instance: u64) {
        if let Some(place) = self.tried.get_mut(self.tried_count) {
            *place = instance;
            self.tried_count += 1;
        }
    }

    fn limits(&self) -> AttemptLimits {
        let settings = &self.service.settings;
        // The first attempt has all of it, however long connecting takes.
        let left = if self.retries == 0 { settings.response_timeout } else { self.left() };
        AttemptLimits {
            connect: settings.connect_timeout,
            response: settings.retries.per_attempt_timeout.map_or(left, |each| each.min(left)),
            idle: settings.idle_timeout,
            deadline: self.call.deadline,
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

/// Counts an attempt when it is over, even when that is because nobody waits for it any more.
struct Recording<'p> {
    pool: &'p InstancePool,
    /// The instance, where the balancing rule wants to know how long it takes.
    timed: Option<&'p InstanceRef>,
    body: &'p RequestBody,
    began: Instant,
    ended: Option<Instant>,
    outcome: Outcome,
}

impl Recording<'_> {
    /// Counts it now, and says when that is.
    fn end(mut self, outcome: Outcome) -> Instant {
        self.outcome = outcome;
        *self.ended.insert(Instant::now())
    }
}

impl Recording<'_> {
    /// Tells how long the instance took, from the last on that it was given of the request. A client that doesn't send
    /// its request is not the instance's fault; being turned away is no sign of its being fast.
    fn time(&self, instance: &InstanceRef, ended: Instant) {
        let good = matches!(self.outcome, Outcome::Status(status) if status < 500 && status != 429);
        if !good && (self.body.waits_for_client() || self.body.failure().is_some()) {
            return;
        }
        let since = self.body.taken_at().map_or(self.began, |at| at.max(self.began));
        instance.waited(ended.saturating_duration_since(since), good, Millis::of(ended));
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let ended = self.ended.unwrap_or_else(Instant::now);
        self.pool.record(self.outcome, ended.saturating_duration_since(self.began));
        if let Some(instance) = self.timed {
            self.time(instance, ended);
        }
    }
}
