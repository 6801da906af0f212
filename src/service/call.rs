//! A request to a service: which instance, and whether to try another when that one fails.
//!
//! An attempt is repeated only while nothing of a response was passed on, when the request can be repeated at
//! all, and while the service's retry budget lasts.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::admittance::enter;
use super::attempt::{AttemptError, Head, Responded};
use super::bulkhead::Slot;
use super::errand::{Attempted, Errand, Got, How};
use super::pool::{ConnectError, Pools, Waits};
use super::race::{self, Runner};
use super::tls::Protocol;
use super::upstream_body::{BodyLimits, Held};
use super::verdict::Verdict;
use super::{
    Admission, Failure, InFlight, Instance, NoPick, Picked, Service, SessionCode, Upgraded, UpstreamBody,
    Wish, backoff,
};
use crate::clock::{self, Millis};
use crate::http::body::RequestBody;
use crate::http::response::Response;
use crate::per_worker::WorkerId;
use crate::reason::Reason;

/// Instances are tried again only when there are no others; so many are remembered.
pub(super) const MAX_TRIED: usize = 8;

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

    /// The last attempt was none: it goes elsewhere.
    fn withdrawn(&mut self) {}

    /// Which of the instances gave the answer, where it was not the last.
    fn answered_by(&mut self, _instance: SocketAddr) {}
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

impl Answer {
    /// The request keeps its place at the service until the body is through.
    fn held(mut self, slot: Option<Slot>) -> Self {
        if let Some(slot) = slot {
            self.body.hold(slot);
        }
        self
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the service has no instance in rotation")]
    NoInstance,
    #[error("the breakers of all instances are open")]
    CircuitOpen,
    #[error("the service is at its limit, and its queue is full")]
    OverLimit,
    #[error("the service was at its limit for too long")]
    QueueTimedOut,
    #[error("the whole call took too long")]
    TotalTimedOut,
    #[error(transparent)]
    Attempt(#[from] AttemptError),
}

impl CallError {
    pub fn reason(&self) -> Reason {
        match self {
            CallError::NoInstance => Reason::NoInstance,
            CallError::CircuitOpen => Reason::CircuitOpen,
            CallError::OverLimit => Reason::ConcurrencyLimit,
            CallError::QueueTimedOut => Reason::QueueTimeout,
            CallError::TotalTimedOut => Reason::TotalTimeout,
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
    let total = service.settings.total_timeout.map(|total| Instant::now() + total);
    // Retries keep it.
    let slot = match &service.bulkhead {
        None => None,
        Some(bulkhead) => Some(enter(&Errand { service, caller, call, total }, bulkhead).await?),
    };
    // Read once for all that begins now.
    let mut now = Instant::now();
    let mut at = Millis::of(now);
    service.budget.count_request(caller.worker, at);
    let mut tries = Tries::new(Errand { service, caller, call, total }, now);
    loop {
        let tried = &tries.tried[..tries.tried_count];
        let picked = match service.pick(caller.worker, tries.wish(), tried, at, &mut tries.rng) {
            Ok(picked) => picked,
            Err(none) => {
                return tries.last.take().unwrap_or_else(|| Err(none.into())).map(|last| last.held(slot));
            }
        };
        tries.last = None;
        tries.count_retry();
        progress.attempt(picked.instance().address, now);
        let step = match tries.hedge_after(&picked) {
            None => 'step: {
                let how = tries.begin(&picked, at);
                let (errand, address, hope) = (tries.errand, picked.instance().address, Cell::default());
                let mut attempt = pin!(errand.attempt(picked, now, how, &hope));
                // A block of its own: what it gives is not kept while others join.
                if let Some(attempted) = race::alone(attempt.as_mut(), &hope).await {
                    break 'step tries.judge(attempted);
                }
                // Boxed, so that the requests that are not joined by others are no larger for it.
                let first = Runner::known(Box::pin(attempt), address, &hope);
                let attempted = Box::pin(tries.race(vec![first], true, progress)).await;
                tries.judge(attempted)
            }
            // Boxed likewise.
            Some(after) => {
                let attempted = Box::pin(tries.hedged(picked, now, after, progress)).await;
                tries.judge(attempted)
            }
        };
        match step {
            Step::Answer(answer) => {
                call.body.answered();
                return Ok(answer.held(slot));
            }
            Step::GiveUp(error) => return Err(tries.errand.name(error)),
            Step::Again { after: None } => {}
            // A timer would take a millisecond to see it.
            Step::Again { after: Some(Duration::ZERO) } => {}
            Step::Elsewhere => progress.withdrawn(),
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
    Again {
        after: Option<Duration>,
    },
    /// Nothing was tried: the instance has no connection free.
    Elsewhere,
}

/// What has been tried so far, and what may still be.
pub(super) struct Tries<'c> {
    pub errand: Errand<'c>,
    pub tried: [u64; MAX_TRIED],
    pub tried_count: usize,
    retries: u32,
    /// Those of them for which there was an instance left.
    retried: u32,
    /// Attempts that found nobody.
    in_vain: u32,
    method_allows: bool,
    pub idempotent: bool,
    /// The next attempt takes a new connection, because a kept one turned out to be closed. Once a call
    /// that doesn't count as a retry.
    fresh: bool,
    stale_left: bool,
    /// How the last attempt ended, in case there is no instance left for another.
    last: Option<Result<Answer, CallError>>,
    pub began: Instant,
    /// A second attempt was made, or not allowed, while one was under way.
    pub is_hedged: bool,
    pub rng: fastrand::Rng,
}

impl<'c> Tries<'c> {
    fn new(errand: Errand<'c>, began: Instant) -> Self {
        let Errand { service, call, .. } = errand;
        let retries = &service.settings.retries;
        let method_allows = retries.methods.contains(&call.head.method);
        let idempotent = call.head.method.is_idempotent();
        // What is refused in HTTP/2 was not looked at, though a part of it was sent.
        let may_be_refused = service.settings.protocol != Protocol::Http1;
        let keeps = idempotent || (method_allows || may_be_refused) && retries.attempts > 0;
        if !call.body.is_empty() && keeps {
            call.body.keep_for_replay(retries.keep_body);
        }
        Tries {
            errand,
            method_allows,
            idempotent,
            tried: [0; MAX_TRIED],
            tried_count: 0,
            retries: 0,
            retried: 0,
            in_vain: 0,
            fresh: false,
            stale_left: true,
            last: None,
            began,
            is_hedged: false,
            rng: fastrand::Rng::new(),
        }
    }

    /// That of the call, with what this request may not risk.
    fn wish(&self) -> Wish {
        Wish { once: !self.method_allows, ..self.errand.call.wish }
    }

    /// An attempt at `picked` begins.
    pub fn begin(&mut self, picked: &Picked, at: Millis) -> How {
        let waits = self.waits(picked);
        self.remember(picked.instance().id);
        // The first attempt has all of it, however long connecting takes.
        let all = self.errand.service.settings.response_timeout;
        let response = if self.retries == 0 { all } else { self.left() };
        How { at, response, fresh: std::mem::take(&mut self.fresh), waits }
    }

    /// An instance without a free connection is waited for only when there is none that has one, or when the client is to
    /// stay with it; and for long only when there is no other at all.
    fn waits(&self, picked: &Picked) -> Waits {
        let tried = &self.tried[..self.tried_count];
        let stays = tried.is_empty() && self.errand.call.wish.session.is_some();
        if !stays && tried.len() < MAX_TRIED && !tried.contains(&picked.instance().id) {
            return Waits::Not;
        }
        let is_only = self.errand.service.instances.set().len() == 1;
        if stays || is_only { Waits::Long } else { Waits::ALittle }
    }

    // As `race::alone`.
    #[inline(always)]
    fn judge(&mut self, attempted: Attempted) -> Step {
        match attempted {
            Ok(got) => self.judge_response(got),
            Err((error, admission)) => self.judge_error(error, admission),
        }
    }

    #[inline(always)]
    fn judge_response(&mut self, got: Got) -> Step {
        let settings = &self.errand.service.settings;
        let Got { responded, in_flight, admission, at, session } = got;
        let status = responded.response.status;
        let (on, is_overfull) = (&settings.retries.on, responded.is_overfull());
        let is_bad = on.contains(Failure::Status(status))
            || is_overfull && on.contains(Failure::Reset) && self.has_untried();
        let repeat = is_bad && self.may_repeat(false, 0);
        let asked = if repeat { responded.response.fields.value(&header::RETRY_AFTER) } else { None };
        let asked = asked.and_then(|value: HeaderValue| backoff::retry_after(&value, SystemTime::now()));
        let verdict = if is_overfull {
            // No failure for its breaker: a service may always have answered so, and been of use.
            admission.server_error(at, &settings.breaker);
            None
        } else {
            Verdict::of_head(status, admission, at, settings)
        };
        let mut answer = self.answer(responded, in_flight, verdict, at);
        // Nobody is to stay with an instance that fails.
        answer.session = session.filter(|_| !status.is_server_error());
        match repeat.then(|| self.take_retry(asked, false)).flatten() {
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
            let (stream, first, slot) =
                lease.into_stream().expect("only HTTP/1.1 has this status: it is refused in HTTP/2");
            let upgrade = Some(Upgraded::new(first, stream));
            return Answer {
                response,
                body: UpstreamBody::of_tunnel(in_flight, slot),
                upgrade,
                session: None,
            };
        }
        let held = Held { lease, in_flight, verdict, sent: self.errand.call.body.clone(), slot: None };
        let limits = BodyLimits { idle: self.errand.service.settings.idle_timeout, total: self.errand.total };
        let body = UpstreamBody::new(body, held, limits, at);
        Answer { response, body, upgrade: None, session: None }
    }

    fn judge_error(&mut self, error: AttemptError, admission: Admission) -> Step {
        if let Some(waited) = error.is_full() {
            admission.ignored();
            let now = Instant::now();
            let is_over = now - self.began >= self.errand.service.settings.connect_timeout
                || self.errand.deadline().is_some_and(|deadline| deadline <= now);
            return if waited && is_over { Step::GiveUp(error) } else { Step::Elsewhere };
        }
        if self.has_stayed_in_vain(&error) {
            admission.ignored();
            return Step::Again { after: None };
        }
        let settings = &self.errand.service.settings;
        if self.stale_left && error.is_stale_connection() && self.take_replacement(&error) {
            // The instance closed a kept connection as we used it: its right, and no failure of its own.
            self.forget(admission.instance_id());
            admission.ignored();
            self.stale_left = false;
            self.fresh = true;
            return Step::Again { after: None };
        }
        // When the time for all of it ends while the client is still sending, the instance is not to blame.
        let is_clients = self.errand.call.body.waits_for_client() && self.errand.is_over_in_total();
        let Some(failure) = error.failure().filter(|_| !is_clients) else {
            admission.ignored();
            return Step::GiveUp(error);
        };
        self.errand.blame(failure, admission);
        self.in_vain += u32::from(failure == Failure::Connect);
        if settings.retries.on.contains(failure)
            && self.may_repeat(error.nothing_written(), 0)
            && let Some(after) = self.take_retry(None, failure == Failure::Connect)
        {
            self.last = Some(Err(error.into()));
            return Step::Again { after: Some(after) };
        }
        Step::GiveUp(error)
    }

    /// Whether the client's own instance, which was waited for, has had no connection free, and another may have.
    fn has_stayed_in_vain(&self, error: &AttemptError) -> bool {
        let Errand { service, call, .. } = self.errand;
        call.wish.session.is_some()
            && self.tried_count == 1
            && matches!(error, AttemptError::Connect(ConnectError::Exhausted))
            && service.instances.set().len() > 1
            && !self.left().is_zero()
    }

    fn take_replacement(&self, error: &AttemptError) -> bool {
        let service = self.errand.service;
        let replaced = || service.budget.try_replacement(service.settings.retries.budget, clock::now());
        self.errand.call.body.is_replayable() && (error.nothing_written() || self.idempotent && replaced())
    }

    /// Whether there may be one more attempt. `waiting`: attempts under way that have little to hope for.
    pub fn may_repeat(&self, nothing_written: bool, waiting: u32) -> bool {
        let attempts = self.errand.service.settings.retries.attempts;
        let in_vain = self.in_vain + waiting;
        self.errand.call.body.is_replayable()
            && (nothing_written || self.method_allows)
            && (self.retries < attempts
                || attempts > 0 && self.retries < attempts + in_vain && self.has_untried())
    }

    /// An attempt beside others has ended.
    pub fn count_in_vain(&mut self, attempted: &Attempted) {
        let found_nobody = |(error, _): &(AttemptError, Admission)| error.failure() == Some(Failure::Connect);
        self.in_vain += u32::from(attempted.as_ref().is_err_and(found_nobody));
    }

    /// Whether there is an instance that the request was not at and nothing speaks against. An attempt that finds nobody
    /// doesn't count among those that are allowed while there is: by such attempts instances are found out, so there are few,
    /// and the budget bounds them.
    fn has_untried(&self) -> bool {
        let Errand { service, caller, .. } = self.errand;
        let now = clock::now();
        let despite_health = service.is_panicking();
        let is_new = |instance: &Arc<Instance>| {
            !self.tried().contains(&instance.id)
                && instance.doubt().is_none()
                && !instance.is_ejected()
                && instance.is_usable(now, &service.settings.breaker, despite_health)
        };
        let set = service.instances.set();
        // Of thousands, those behind the one that was tried last in some order: any place is as good.
        let from = self.tried().last().map_or(0, |&tried| tried as usize % set.len().max(1));
        self.tried_count < MAX_TRIED && set.some(caller.worker, from).any(is_new)
    }

    fn tried(&self) -> &[u64] {
        &self.tried[..self.tried_count]
    }

    /// Takes a retry out of the budget, if it would still come in time and find an instance. `found_nobody`: the attempt before
    /// could not even connect.
    fn take_retry(&mut self, asked: Option<Duration>, found_nobody: bool) -> Option<Duration> {
        let retries = &self.errand.service.settings.retries;
        let left = self.left();
        // Another instance knows nothing of the failure and need not be spared, unless it is the second one that fails.
        let spares_nobody = asked.is_none() && (self.retries == 0 || found_nobody) && self.has_untried();
        let asked = if spares_nobody { Some(Duration::ZERO) } else { asked };
        let after = backoff::delay(retries, self.retries, asked, left, &mut self.rng)?;
        let Errand { service, caller, .. } = self.errand;
        if !service.has_usable(caller.worker, clock::now().plus(after), &mut self.rng) {
            return None;
        }
        if !self.errand.service.budget.try_retry(retries.budget, clock::now()) {
            self.errand.service.metrics.retry_refused(self.errand.caller.worker);
            return None;
        }
        self.retries += 1;
        Some(after)
    }

    /// A retry counts once its attempt begins: until then every breaker may have opened.
    fn count_retry(&mut self) {
        if self.retried < self.retries {
            self.retried = self.retries;
            self.errand.service.metrics.retried(self.errand.caller.worker);
        }
    }

    /// An attempt at `picked` is made beside those under way, which counts as a retry.
    pub fn joined(&mut self, picked: &Picked) {
        self.remember(picked.instance().id);
        self.retries += 1;
        self.count_retry();
    }

    /// What is left of the time that a response may take.
    pub fn left(&self) -> Duration {
        let now = Instant::now();
        let left = self.errand.service.settings.response_timeout.saturating_sub(now - self.began);
        self.errand.deadline().map_or(left, |deadline| left.min(deadline.saturating_duration_since(now)))
    }

    /// It may be tried like one where the request was not. Which attempt was the last is no matter: several may have been made at once.
    fn forget(&mut self, instance: u64) {
        if let Some(place) = self.tried().iter().rposition(|&tried| tried == instance) {
            self.tried.copy_within(place + 1..self.tried_count, place);
            self.tried_count -= 1;
        }
    }

    fn remember(&mut self, instance: u64) {
        if let Some(place) = self.tried.get_mut(self.tried_count) {
            *place = instance;
            self.tried_count += 1;
        }
    }
}
