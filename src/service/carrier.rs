//! What carries a request to an instance: a connection of its own, or a stream of one that it shares with others.

use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::time::Instant;

use super::http1::decode::{Body, Step};
use super::http1::{self, Failed};
use super::http2;
use super::stream::Stream;
use super::{Head, InformationalSink};
use crate::http::body::{AttemptBody, BodyError};
use crate::http::response::Response;
use crate::reason::Reason;

#[allow(clippy::large_enum_variant, reason = "it is always boxed, and nearly always the large one")]
pub enum Carrier {
    Http1(http1::Connection),
    Http2(Box<http2::Exchange>),
}

/// A head that waits for its body.
#[derive(Clone, Copy)]
pub struct Held {
    pub since: Instant,
    /// How long the body is was told.
    pub tells_length: bool,
}

impl Carrier {
    /// Begins a request. Nothing is written before the response is polled for.
    pub fn begin(&mut self, head: &Head, host: &[u8], body: AttemptBody) {
        match self {
            Carrier::Http1(connection) => connection.begin(head, host, body),
            Carrier::Http2(exchange) => exchange.begin(head, host, body),
        }
    }

    /// Whether the instance may have seen anything of the request.
    pub fn has_written(&self) -> bool {
        match self {
            Carrier::Http1(connection) => connection.has_written(),
            Carrier::Http2(exchange) => exchange.has_written,
        }
    }

    /// Sends the request, as far as it goes, and takes the head of the response. Interim responses go to `sink`. A
    /// head is held back for a body of as many bytes as `hold_back` says.
    pub fn poll_response(
        &mut self,
        sink: Option<&dyn InformationalSink>,
        hold_back: impl Fn(&Response<()>) -> u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Response<()>, Body), Failed>> {
        match self {
            Carrier::Http1(connection) => connection.poll_response(sink, hold_back, cx),
            Carrier::Http2(exchange) => exchange.poll_response(sink, hold_back, cx),
        }
    }

    /// Whether there is more here than a body that told its length. In HTTP/2 that is an error of the stream.
    pub fn has_more_than(&self, body: &Body) -> bool {
        match self {
            Carrier::Http1(connection) => connection.has_more_than(body),
            Carrier::Http2(_) => false,
        }
    }

    /// The head that is held back, if one is.
    pub fn held(&self) -> Option<Held> {
        match self {
            Carrier::Http1(connection) => {
                let held = connection.held()?;
                Some(Held { since: held.since(), tells_length: held.tells_length() })
            }
            Carrier::Http2(exchange) => {
                let held = exchange.held()?;
                Some(Held { since: held.since, tells_length: held.length.is_some() })
            }
        }
    }

    /// Likewise, to be passed on whatever becomes of its body.
    pub fn take_held(&mut self) -> Option<(Response<()>, Body)> {
        match self {
            Carrier::Http1(connection) => connection.take_held(),
            Carrier::Http2(exchange) => exchange.take_held(),
        }
    }

    /// Sends on what is left of the request. An error is the client's.
    pub fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        match self {
            Carrier::Http1(connection) => connection.poll_request(cx),
            Carrier::Http2(exchange) => exchange.poll_request(cx),
        }
    }

    /// What of the body has come with the head.
    pub fn first_step(&mut self, body: &mut Body) -> Result<Step, Reason> {
        match self {
            Carrier::Http1(connection) => body.next(connection.unread()).map_err(|_| Reason::InvalidResponse),
            Carrier::Http2(exchange) => {
                match exchange.poll_step(body, &mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(step) => step.map_err(broken),
                    Poll::Pending => Ok(Step::More),
                }
            }
        }
    }

    /// The next piece of the body, of which `first` has been taken already.
    pub fn poll_step(
        &mut self,
        body: &mut Body,
        first: Option<Result<Step, Reason>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Step, Reason>> {
        match first {
            None | Some(Ok(Step::More)) => {}
            Some(first) => return Poll::Ready(first),
        }
        let connection = match self {
            Carrier::Http1(connection) => connection,
            Carrier::Http2(exchange) => return exchange.poll_step(body, cx).map_err(broken),
        };
        loop {
            match body.next(connection.unread()).map_err(|_| Reason::InvalidResponse)? {
                Step::More => {}
                step => return Poll::Ready(Ok(step)),
            }
            let expected = body.length().unwrap_or(0);
            match ready!(connection.poll_more(expected, cx)) {
                Ok(()) => {}
                Err(error) if body.ends_with(&error) => return Poll::Ready(Ok(Step::End)),
                Err(_) => return Poll::Ready(Err(Reason::UpstreamReset)),
            }
        }
    }

    /// Whether `due` has passed. When it has not, the task is woken then at the latest.
    pub fn is_over(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        match self {
            Carrier::Http1(connection) => connection.is_over(due, cx),
            Carrier::Http2(exchange) => exchange.is_over(due, cx),
        }
    }

    /// The connection after a switch of protocols, with what has come of the other protocol already. There is no such
    /// switch in HTTP/2.
    pub fn into_stream(self) -> Option<(Stream, Bytes)> {
        match self {
            Carrier::Http1(connection) => Some(connection.into_stream()),
            Carrier::Http2(_) => None,
        }
    }
}

/// The response ended before its body did.
fn broken(failed: Failed) -> Reason {
    match failed {
        Failed::Invalid(_) => Reason::InvalidResponse,
        Failed::Reset(_) | Failed::Unprocessed { .. } | Failed::Client(_) => Reason::UpstreamReset,
    }
}
