//! One try of one request on one instance: a connection, the request, the head of the response.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, StatusCode, header};
use tokio::time::Instant;

use super::Failure;
use super::carrier::{Carrier, Held};
use super::errand::Waiting;
use super::http1::Failed;
use super::http1::decode::{self, Invalid};
use super::pool::{ConnectBy, ConnectError, InstancePool, Lease, Waits, Wanted};
use super::silence::{Hope, LOOKS};
use super::time_left;
use super::tls::TlsFailure;
use crate::clock::Millis;
use crate::http::body::{BodyError, RequestBody};
use crate::http::field_lines::FieldLines;
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::reason::Reason;
use crate::telemetry::metrics::Outcome;

/// The head of a request to an instance: origin-form target, end-to-end fields only.
#[derive(Clone)]
pub struct Head {
    pub method: Method,
    pub target: PathAndQuery,
    /// What `Host` says; without one it is the instance's own name.
    pub host: Option<Bytes>,
    pub headers: Fields,
    /// More fields, in the form in which they are sent. `headers` has none of these names.
    pub lines: FieldLines,
    pub informational: Option<Rc<dyn InformationalSink>>,
}

/// Where interim (1xx) responses of an instance go (RFC 9110 §15.2).
pub trait InformationalSink {
    fn interim(&self, status: StatusCode, fields: &Fields);
}

/// The limits of one attempt.
#[derive(Clone, Copy)]
pub struct AttemptLimits {
    pub connect: Duration,
    pub tls: Duration,
    /// To the head of the response.
    pub response: Duration,
    /// Without a byte of a body.
    pub idle: Duration,
    /// The end of the whole call, where it has one.
    pub deadline: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before a response; `written` when the instance may have seen the request.
    #[error("the connection broke before a response")]
    Reset {
        written: bool,
        reused: bool,
        #[source]
        cause: io::Error,
    },
    #[error("no response in time")]
    TimedOut,
    #[error("the response is not well-formed HTTP")]
    Invalid(#[source] Invalid),
    /// The client's side failed, not the instance's.
    #[error(transparent)]
    Client(BodyError),
}

impl AttemptError {
    pub fn reason(&self) -> Reason {
        match self {
            AttemptError::Connect(ConnectError::TimedOut) => Reason::ConnectTimeout,
            AttemptError::Connect(ConnectError::Tls(_)) => Reason::TlsFailure,
            AttemptError::Connect(ConnectError::TlsTimedOut) => Reason::TlsTimeout,
            AttemptError::Connect(ConnectError::Exhausted | ConnectError::Full { .. }) => {
                Reason::PoolExhausted
            }
            AttemptError::Connect(_) => Reason::ConnectFailure,
            AttemptError::Reset { .. } => Reason::UpstreamReset,
            AttemptError::TimedOut => Reason::ResponseTimeout,
            AttemptError::Invalid(_) => Reason::InvalidResponse,
            AttemptError::Client(BodyError::TooLarge) => Reason::BodyTooLarge,
            AttemptError::Client(BodyError::Stalled) => Reason::RequestTimeout,
            AttemptError::Client(BodyError::Malformed) => Reason::InvalidRequest,
            AttemptError::Client(BodyError::Broken) => Reason::ClientGone,
        }
    }

    /// How the metrics name it.
    pub fn outcome(&self) -> Outcome {
        match self {
            AttemptError::Connect(ConnectError::TimedOut) => Outcome::ConnectTimeout,
            AttemptError::Connect(ConnectError::Tls(failure)) if failure.is_about_certificate => {
                Outcome::TlsCertificate
            }
            AttemptError::Connect(ConnectError::Tls(_)) => Outcome::TlsFailure,
            AttemptError::Connect(ConnectError::TlsTimedOut) => Outcome::TlsTimeout,
            AttemptError::Connect(ConnectError::Exhausted | ConnectError::Full { .. }) => {
                Outcome::PoolExhausted
            }
            AttemptError::Connect(_) => Outcome::ConnectFailure,
            AttemptError::Reset { .. } => Outcome::Reset,
            AttemptError::TimedOut => Outcome::ResponseTimeout,
            AttemptError::Invalid(_) => Outcome::InvalidResponse,
            AttemptError::Client(_) => Outcome::Cancelled,
        }
    }

    /// What the breaker and the retry rules call it; `None` when it says nothing about the instance.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            AttemptError::Connect(ConnectError::Exhausted | ConnectError::Full { .. })
            | AttemptError::Client(_) => None,
            AttemptError::Connect(_) => Some(Failure::Connect),
            AttemptError::Reset { .. } | AttemptError::Invalid(_) => Some(Failure::Reset),
            AttemptError::TimedOut => Some(Failure::Timeout),
        }
    }

    /// Whether it ended because some time was over.
    pub fn is_about_time(&self) -> bool {
        matches!(
            self,
            AttemptError::TimedOut
                | AttemptError::Connect(
                    ConnectError::TimedOut
                        | ConnectError::TlsTimedOut
                        | ConnectError::Exhausted
                        | ConnectError::Full { .. }
                )
        )
    }

    /// Whether the instance can't have seen anything of the request.
    pub fn nothing_written(&self) -> bool {
        matches!(self, AttemptError::Connect(_) | AttemptError::Reset { written: false, .. })
    }

    /// Whether nothing was tried, because all connections are in use and it was not to wait for one any longer; and
    /// if so, whether it has waited at all.
    pub fn is_full(&self) -> Option<bool> {
        match self {
            AttemptError::Connect(ConnectError::Full { waited }) => Some(*waited),
            _ => None,
        }
    }

    /// Whether it is what a kept-alive connection does that the instance had closed meanwhile.
    pub fn is_stale_connection(&self) -> bool {
        matches!(self, AttemptError::Reset { reused: true, .. })
    }
}

/// One try of a request.
pub struct Attempt<'a> {
    pub pool: &'a Rc<InstancePool>,
    pub head: &'a Head,
    pub host: &'a [u8],
    pub body: &'a Rc<RequestBody>,
    pub limits: AttemptLimits,
    /// On a connection that has not carried a request before.
    pub fresh: bool,
    pub waits: Waits,
    pub waiting: &'a Waiting<'a>,
}

/// A body without a length may be one that is sent piece by piece for as long as it goes: it is held back so long at most.
const HELD_WITHOUT_LENGTH: Duration = Duration::from_millis(10);
/// One with a length, where nobody asks for silence.
const HELD: Duration = Duration::from_secs(2);

/// How long an attempt has waited for the head of a response.
struct Wait {
    since: Instant,
    /// On a connection that was kept.
    reused: bool,
    /// How often it has looked whether there is still hope.
    looks: u32,
}

/// The head of a response, what is to come of its body, and the connection that it comes on.
pub struct Responded {
    pub response: Response<()>,
    pub body: decode::Body,
    pub lease: Lease,
}

impl Responded {
    /// Whether more has come than it said. What was said may be right, and what came, too.
    pub fn is_overfull(&self) -> bool {
        self.lease.connection.has_more_than(&self.body)
    }
}

impl Attempt<'_> {
    /// Sends the request and waits for the head of the response, and for a short body behind it. Whatever of the request is still under way then is
    /// sent on by whoever reads the response's body.
    pub async fn run(self) -> Result<Responded, AttemptError> {
        // Once a body is taken from the client, there is nothing to repeat the request with.
        let repeatable = self.head.method.is_idempotent() && self.body.is_empty();
        let wanted = Wanted { fresh: self.fresh, surely_open: !repeatable, waits: self.waits };
        let (mut lease, since) = match self.pool.take_idle(wanted) {
            Some(lease) => (lease, self.waiting.began),
            None => {
                let by = ConnectBy { began: self.waiting.began, limits: &self.limits };
                (self.pool.lease(wanted, by).await?, Instant::now())
            }
        };
        let connection = &mut lease.connection;
        self.begin(connection);
        let sink = self.head.informational.as_deref();
        let mut wait = Wait { since, reused: lease.reused, looks: 0 };
        let hold_back = |response: &Response<()>| self.hold_back(response);
        let responded = poll_fn(|cx| match connection.poll_response(sink, hold_back, cx) {
            Poll::Ready(responded) => Poll::Ready(Some(responded)),
            Poll::Pending if self.is_overdue(&mut wait, connection, cx) => {
                Poll::Ready(self.held(connection).map(Ok))
            }
            Poll::Pending => Poll::Pending,
        })
        .await;
        match responded {
            None => Err(AttemptError::TimedOut),
            Some(Ok((response, body))) => Ok(Responded { response, body, lease }),
            Some(Err(failed)) => Err(match failed {
                Failed::Client(error) => AttemptError::Client(error),
                Failed::Invalid(invalid) => AttemptError::Invalid(invalid),
                // It may come before anything was sent.
                Failed::Reset(cause) | Failed::Unprocessed { cause, .. }
                    if !lease.reused
                        && let Some(failure) = TlsFailure::of_refusal(&cause) =>
                {
                    self.waiting.instance.set_tls_failure(&failure);
                    AttemptError::Connect(ConnectError::Tls(failure))
                }
                // One that closes is as one that was kept and had been closed.
                Failed::Unprocessed { closing, cause } => {
                    AttemptError::Reset { written: false, reused: closing, cause }
                }
                Failed::Reset(cause) => {
                    let written = lease.connection.has_written();
                    // Who has begun to answer didn't close it for being idle.
                    let reused = lease.reused && lease.connection.held().is_none();
                    AttemptError::Reset { written, reused, cause }
                }
            }),
        }
    }

    /// With the time that is left, where the service wants to know. Apart from [`Attempt::run`], whose future is no larger for it.
    fn begin(&self, connection: &mut Carrier) {
        let body = self.body.attempt(self.limits.idle);
        let Some(name) = &self.waiting.errand.service.settings.timeout_header else {
            return connection.begin(self.head, self.host, body);
        };
        let now = Instant::now();
        let until = earliest(now + self.limits.response, self.limits.deadline);
        let head = time_left::told(self.head, name, until.saturating_duration_since(now));
        connection.begin(&head, self.host, body);
    }

    /// How long a body may be that is waited for before the head of its response is passed on. Nobody waits for one when
    /// nothing could be done if it broke off, or when its pieces are what it is read for.
    fn hold_back(&self, response: &Response<()>) -> u64 {
        let retries = &self.waiting.errand.service.settings.retries;
        let may_repeat = retries.attempts > 0
            && retries.on.contains(Failure::Reset)
            && retries.methods.contains(&self.head.method)
            && self.body.is_replayable();
        let kind = response.fields.get(&header::CONTENT_TYPE).unwrap_or_default();
        if may_repeat && !is_read_by_pieces(kind) { retries.buffer_response } else { 0 }
    }

    /// The head that was held back, now that there was no more time for its body.
    fn held(&self, connection: &mut Carrier) -> Option<(Response<()>, decode::Body)> {
        if self.waiting.errand.is_over_in_total() { None } else { connection.take_held() }
    }

    /// Whether the instance has taken too long: it has `limits.response` from the last it was given of the request
    /// on, or from `since`. While the client itself is what is waited for, its body's own limit holds.
    fn is_overdue(&self, wait: &mut Wait, connection: &mut Carrier, cx: &mut Context<'_>) -> bool {
        loop {
            let (due, look) = (self.due_with(wait, connection.held()), self.next_look(wait));
            if !connection.is_over(look.map_or(due, |look| look.min(due)), cx) {
                return false;
            }
            let now = Instant::now();
            if self.body.waits_for_client() {
                *wait = Wait { since: now, looks: 0, ..*wait };
            } else if let Some(at) = self.body.taken_at().filter(|&at| at > wait.since) {
                *wait = Wait { since: at, looks: 0, ..*wait };
            }
            if self.due_with(wait, connection.held()) <= now {
                return true;
            }
            if self.next_look(wait).is_some_and(|look| look <= now) {
                wait.looks += 1;
                self.look(wait, now);
            }
        }
    }

    /// When a head that is held back is passed on without its body; or else as [`Attempt::due`]. While somebody else is asked as well,
    /// there may be something better.
    fn due_with(&self, wait: &Wait, held: Option<Held>) -> Instant {
        let due = self.due(wait);
        let Some(held) = held else { return due };
        let longest = match self.waiting.silence() {
            _ if !held.tells_length => HELD_WITHOUT_LENGTH,
            _ if self.waiting.hope.get() != Hope::Good => return due,
            None => HELD,
            // By then it has been looked whether there is still hope, whoever else answers.
            Some(silence) => silence.saturating_mul(2) + silence / LOOKS,
        };
        // Standing still for longer than a body may is none of this.
        held.since.checked_add(longest.min(self.limits.idle)).map_or(due, |until| until.min(due))
    }

    fn due(&self, wait: &Wait) -> Instant {
        earliest(wait.since + self.limits.response, self.limits.deadline)
    }

    /// When to look whether there is still hope, as long as there is any.
    fn next_look(&self, wait: &Wait) -> Option<Instant> {
        let silence = self.waiting.silence().filter(|_| self.waiting.hope.get() != Hope::None)?;
        let step = (silence / LOOKS).min(self.longest(wait) / 2);
        wait.since.checked_add(step.checked_mul(wait.looks + 1)?)
    }

    fn longest(&self, wait: &Wait) -> Duration {
        match self.limits.deadline {
            None => self.limits.response,
            Some(_) => self.due(wait).saturating_duration_since(wait.since),
        }
    }

    fn look(&self, wait: &Wait, now: Instant) {
        let Waiting { errand, instance, hope, .. } = *self.waiting;
        let found = errand.hope(instance, wait.since, now, self.longest(wait));
        if found == Hope::None {
            instance.silence.begin(Millis::of(now));
        }
        if found != Hope::Good && wait.reused {
            // The network may have forgotten them: nobody else is to wait for that to show.
            self.pool.close_idle();
        }
        hope.set(found);
    }
}

/// Whether whoever reads such a body wants each piece as it comes.
fn is_read_by_pieces(content_type: &[u8]) -> bool {
    const KINDS: [&[u8]; 5] = [
        b"text/event-stream",
        b"application/grpc",
        b"application/x-ndjson",
        b"application/json-seq",
        b"multipart/x-mixed-replace",
    ];
    KINDS
        .iter()
        .any(|kind| content_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind)))
}

pub(super) fn earliest(instant: Instant, deadline: Option<Instant>) -> Instant {
    deadline.map_or(instant, |deadline| instant.min(deadline))
}
