//! One try of one request on one instance: a connection, the request, the head of the response.

use std::error::Error;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::Failure;
use super::pool::{ConnectError, InstancePool, Lease};
use super::upstream_io::Interims;
use crate::http::body::{AttemptBody, BodyError, RequestBody, is_malformed};
use crate::reason::Reason;
use crate::telemetry::metrics::Outcome;

/// The head of a request to an instance: origin-form target, end-to-end fields only.
#[derive(Clone)]
pub struct Head {
    pub method: Method,
    pub target: Uri,
    pub headers: HeaderMap,
    pub informational: Option<Arc<dyn InformationalSink>>,
}

/// Where interim (1xx) responses of an instance go (RFC 9110 §15.2).
pub trait InformationalSink: Send + Sync {
    fn interim(&self, status: http::StatusCode, headers: &HeaderMap);
}

/// The limits of one attempt.
#[derive(Clone, Copy)]
pub struct AttemptLimits {
    pub connect: Duration,
    /// To the head of the response.
    pub response: Duration,
    /// Without a byte of the client's body.
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
        cause: hyper::Error,
    },
    #[error("no response in time")]
    TimedOut,
    #[error("the response is not well-formed HTTP")]
    Invalid(#[source] hyper::Error),
    /// The head of the response tells the length of its body in two ways, or in one that nobody understands.
    #[error("the length of the response is ambiguous")]
    AmbiguousLength,
    /// The client's side failed, not the instance's.
    #[error(transparent)]
    Client(BodyError),
}

impl AttemptError {
    pub fn reason(&self) -> Reason {
        match self {
            AttemptError::Connect(ConnectError::TimedOut) => Reason::ConnectTimeout,
            AttemptError::Connect(ConnectError::Exhausted) => Reason::PoolExhausted,
            AttemptError::Connect(_) => Reason::ConnectFailure,
            AttemptError::Reset { .. } => Reason::UpstreamReset,
            AttemptError::TimedOut => Reason::ResponseTimeout,
            AttemptError::Invalid(_) | AttemptError::AmbiguousLength => Reason::InvalidResponse,
            AttemptError::Client(BodyError::TooLarge) => Reason::BodyTooLarge,
            AttemptError::Client(BodyError::Stalled) => Reason::RequestTimeout,
            AttemptError::Client(BodyError::Malformed) => Reason::InvalidRequest,
            AttemptError::Client(BodyError::Broken) => Reason::ClientGone,
        }
    }

    /// How the metrics name it.
    pub fn outcome(&self) -> Outcome {
        match self {
            AttemptError::Connect(ConnectError::TimedOut | ConnectError::Exhausted) => {
                Outcome::ConnectTimeout
            }
            AttemptError::Connect(_) => Outcome::ConnectFailure,
            AttemptError::Reset { .. } => Outcome::Reset,
            AttemptError::TimedOut => Outcome::ResponseTimeout,
            AttemptError::Invalid(_) | AttemptError::AmbiguousLength => Outcome::InvalidResponse,
            AttemptError::Client(_) => Outcome::Cancelled,
        }
    }

    /// What the breaker and the retry rules call it; `None` when it says nothing about the instance.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            AttemptError::Connect(ConnectError::Exhausted) | AttemptError::Client(_) => None,
            AttemptError::Connect(_) => Some(Failure::Connect),
            AttemptError::Reset { .. } | AttemptError::Invalid(_) | AttemptError::AmbiguousLength => {
                Some(Failure::Reset)
            }
            AttemptError::TimedOut => Some(Failure::Timeout),
        }
    }

    /// Whether the instance can't have seen anything of the request.
    pub fn nothing_written(&self) -> bool {
        matches!(self, AttemptError::Connect(_) | AttemptError::Reset { written: false, .. })
    }

    /// Whether it is what a kept-alive connection does that the instance had closed meanwhile.
    pub fn is_stale_connection(&self) -> bool {
        matches!(self, AttemptError::Reset { reused: true, .. })
    }
}

/// Sends `head` and `body` over a connection of `pool` and waits for the head of the response.
pub async fn run(
    pool: &Rc<InstancePool>,
    head: Head,
    body: &Rc<RequestBody>,
    limits: AttemptLimits,
    fresh: bool,
) -> Result<(Response<Incoming>, Lease), AttemptError> {
    let connect_by = earliest(Instant::now() + limits.connect, limits.deadline);
    let mut lease = pool.lease(fresh, connect_by).await?;
    // A request that can't be repeated must not meet a connection that the instance has closed already.
    while lease.reused && !head.method.is_idempotent() && !lease.is_still_open().await {
        lease = pool.lease(fresh, connect_by).await?;
    }
    let reused = lease.reused;
    let request = request(head, body.attempt(limits.idle), lease.interims());
    let sending = lease.sender().try_send_request(request);
    match in_time(sending, body, limits).await {
        None => Err(AttemptError::TimedOut),
        Some(Ok(response)) if has_plain_framing(response.headers()) => Ok((response, lease)),
        Some(Ok(_)) => Err(AttemptError::AmbiguousLength),
        Some(Err(mut failed)) => {
            let written = failed.take_message().is_none();
            Err(classify(failed.into_error(), written, reused))
        }
    }
}

/// A response with both Content-Length and Transfer-Encoding may be an attempt to split it (RFC 9112 §6.3). A coding
/// other than chunked would have to be taken off, for the field that names it ends here.
fn has_plain_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(only), None) => {
            only.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(CONTENT_LENGTH)
        }
        _ => false,
    }
}

/// What comes of `sending`, or `None` when the instance takes too long: it has `limits.response` from the last
/// it was given of the request on. While the client itself is what is waited for, its body's own limit holds.
async fn in_time<T>(
    sending: impl Future<Output = T>,
    body: &RequestBody,
    limits: AttemptLimits,
) -> Option<T> {
    let mut sending = pin!(sending);
    let mut since = Instant::now();
    loop {
        let respond_by = earliest(since + limits.response, limits.deadline);
        if let Ok(sent) = timeout_at(respond_by, &mut sending).await {
            return Some(sent);
        }
        let now = Instant::now();
        since = if body.waits_for_client() { now } else { body.taken_at().map_or(since, |at| at.max(since)) };
        if earliest(since + limits.response, limits.deadline) <= now {
            return None;
        }
    }
}

fn request(head: Head, body: AttemptBody, interims: Arc<Interims>) -> Request<AttemptBody> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.target;
    *request.headers_mut() = head.headers;
    *request.version_mut() = Version::HTTP_11;
    let sink = head.informational;
    hyper::ext::on_informational(&mut request, move |interim| {
        if interims.count()
            && let Some(sink) = &sink
        {
            sink.interim(interim.status(), interim.headers());
        }
    });
    request
}

fn classify(error: hyper::Error, written: bool, reused: bool) -> AttemptError {
    if let Some(client) = error.source().and_then(|cause| cause.downcast_ref::<BodyError>()) {
        return AttemptError::Client(*client);
    }
    if error.is_parse() || is_malformed(&error) {
        return AttemptError::Invalid(error);
    }
    AttemptError::Reset { written, reused, cause: error }
}

fn earliest(instant: Instant, deadline: Option<Instant>) -> Instant {
    deadline.map_or(instant, |deadline| instant.min(deadline))
}
