//! The body of an instance's response: passed on as it comes, timed while it is silent, and the moment
//! at which its connection is free again.
//!
//! Most bodies have come whole with their head. Then the connection is free at once, and the body is one frame that
//! is known to be the last.

use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::InFlight;
use super::attempt::AttemptError;
use super::bulkhead::Slot;
use super::http1::decode::{self, Step};
use super::pool::{Lease, OpenSlot};
use super::verdict::Verdict;
use crate::clock::Millis;
use crate::http::body::RequestBody;
use crate::http::fields::Fields;
use crate::http::hop_by_hop;
use crate::reason::Reason;

pub struct UpstreamBody(State);

enum State {
    /// Nothing is left to be told.
    Ended,
    /// All of it is here; never empty.
    Whole {
        data: Bytes,
        length_was_told: bool,
    },
    Flowing(Box<Flowing>),
    /// It was broken off while the reader took nothing, and the reader is yet to hear of it.
    Failed(Reason),
    /// Busy for as long as it is kept.
    Tunnel((InFlight, OpenSlot, Option<Slot>)),
}

/// What an attempt holds on to until its response is through.
pub struct Held {
    pub lease: Lease,
    pub in_flight: InFlight,
    pub verdict: Option<Verdict>,
    pub sent: Rc<RequestBody>,
    /// The request's place at the service, where that has a limit.
    pub slot: Option<Slot>,
}

/// How long a body may take.
#[derive(Clone, Copy)]
pub struct BodyLimits {
    /// Without a byte of it.
    pub idle: Duration,
    /// When all of it is to be through.
    pub total: Option<Instant>,
}

/// A body that is still on its way.
struct Flowing {
    body: decode::Body,
    held: Held,
    /// What came with the head.
    first: Option<Result<Step, Reason>>,
    limits: BodyLimits,
    /// Nothing has come since.
    silent_since: Option<Instant>,
    /// Something was told, the head at least, without a pause in which the reader would send it on.
    told: bool,
    /// The body broke off, and the reader is yet to hear of it.
    failed: Option<Reason>,
}

impl UpstreamBody {
    /// The body that `body` tells how to read from the connection. `now`: the head has just come.
    pub fn new(mut body: decode::Body, mut held: Held, limits: BodyLimits, now: Millis) -> Self {
        let length_was_told = body.length().is_some();
        let first = held.lease.connection.first_step(&mut body);
        match first {
            Ok(Step::End) => {
                held.ended(now);
                UpstreamBody(State::Ended)
            }
            Ok(Step::Data(data)) if body.is_end() => {
                held.ended(now);
                UpstreamBody(State::Whole { data, length_was_told })
            }
            first => {
                let flowing = Flowing {
                    body,
                    held,
                    first: Some(first),
                    limits,
                    silent_since: None,
                    told: true,
                    failed: None,
                };
                UpstreamBody(State::Flowing(Box::new(flowing)))
            }
        }
    }

    /// The empty body of a 101: the instance stays busy for as long as it is kept.
    pub fn of_tunnel(in_flight: InFlight, slot: OpenSlot) -> Self {
        UpstreamBody(State::Tunnel((in_flight, slot, None)))
    }
}

impl UpstreamBody {
    /// Keeps the request's place at the service until the body has ended, in whichever way. One that has come
    /// whole has ended already.
    pub fn hold(&mut self, slot: Slot) {
        match &mut self.0 {
            State::Ended | State::Whole { .. } | State::Failed(_) => drop(slot),
            State::Flowing(flowing) => flowing.held.slot = Some(slot),
            State::Tunnel((.., kept)) => *kept = Some(slot),
        }
    }

    /// Whether all that tells the end of the body is that of the connection.
    pub fn ends_with_connection(&self) -> bool {
        matches!(&self.0, State::Flowing(flowing) if matches!(flowing.body, decode::Body::UntilClose))
    }

    /// Sends on what is left of the request, for a reader that can't take more of the response now: a client may
    /// read nothing before it has sent everything.
    pub fn send_on(&mut self, cx: &mut Context<'_>) {
        if let State::Flowing(flowing) = &mut self.0
            && flowing.failed.is_none()
            && let Err(error) = flowing.held.lease.connection.poll_request(cx)
        {
            flowing.failed = Some(AttemptError::Client(error).reason());
        }
        // What the instance's side holds is free in time, even when the client takes nothing for ever.
        if let State::Flowing(flowing) = &mut self.0
            && let Some(total) = flowing.limits.total
            && flowing.held.lease.connection.is_over(total, cx)
        {
            self.0 = State::Failed(Reason::TotalTimeout);
        }
    }
}

impl Held {
    fn ended(self, now: Millis) {
        if let Some(verdict) = self.verdict {
            verdict.good(now);
        }
        // While the request is still on its way nobody else can use the connection, and the instance, which
        // has said all it had to say, may never read the rest (RFC 9112 §9.3).
        if self.sent.is_finished() {
            self.lease.give_back(now);
        }
    }

    fn broken(self, reason: Reason) {
        match self.verdict {
            // A body may have no time left because its client reads slowly.
            Some(_) if reason == Reason::TotalTimeout => {}
            // A client that broke off its request took the connection, and so the response, with it.
            Some(verdict) if self.sent.failure().is_none() => {
                verdict.broken(reason == Reason::IdleTimeout);
            }
            _ => {}
        }
    }
}

impl Flowing {
    /// The next piece. A failure comes after a pause: what was told before it is worth sending on.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Reason>> {
        let polled = match self.failed.take() {
            Some(reason) => return Poll::Ready(Err(reason)),
            None => self.poll_step(cx),
        };
        match polled {
            Poll::Ready(Err(reason)) if self.told => {
                self.failed = Some(reason);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => {
                self.told = polled.is_ready();
                polled
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Reason>> {
        if self.limits.total.is_some_and(|total| total <= Instant::now()) {
            return Poll::Ready(Err(Reason::TotalTimeout));
        }
        let connection = &mut self.held.lease.connection;
        if let Err(error) = connection.poll_request(cx) {
            return Poll::Ready(Err(AttemptError::Client(error).reason()));
        }
        if let Poll::Ready(step) = connection.poll_step(&mut self.body, self.first.take(), cx) {
            self.silent_since = None;
            return Poll::Ready(step);
        }
        let silent = *self.silent_since.get_or_insert_with(Instant::now) + self.limits.idle;
        let (due, reason) = match self.limits.total {
            Some(total) if total < silent => (total, Reason::TotalTimeout),
            _ => (silent, Reason::IdleTimeout),
        };
        if connection.is_over(due, cx) { Poll::Ready(Err(reason)) } else { Poll::Pending }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = Reason;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let flowing = match &mut self.0 {
            State::Ended | State::Tunnel(_) => return Poll::Ready(None),
            State::Whole { data, .. } => {
                let data = mem::take(data);
                self.0 = State::Ended;
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            State::Failed(reason) => {
                let reason = *reason;
                self.0 = State::Ended;
                return Poll::Ready(Some(Err(reason)));
            }
            State::Flowing(flowing) => flowing,
        };
        let step = match ready!(flowing.poll_next(cx)) {
            Ok(Step::Data(data)) if !flowing.body.is_end() => {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            last => last,
        };
        let State::Flowing(flowing) = mem::replace(&mut self.0, State::Ended) else {
            return Poll::Ready(None);
        };
        Poll::Ready(match step {
            Err(reason) => {
                flowing.held.broken(reason);
                Some(Err(reason))
            }
            Ok(step) => {
                flowing.held.ended(Millis::of(Instant::now()));
                last_frame(step).map(Ok)
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, State::Ended | State::Tunnel(_))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Ended | State::Tunnel(_) => SizeHint::with_exact(0),
            State::Whole { data, length_was_told: true } => SizeHint::with_exact(data.len() as u64),
            State::Failed(_) => SizeHint::default(),
            // Whether a length is told doesn't depend on how the bytes happened to come.
            State::Whole { .. } => SizeHint::default(),
            State::Flowing(flowing) => match flowing.length() {
                Some(length) => SizeHint::with_exact(length),
                None => SizeHint::default(),
            },
        }
    }
}

impl Flowing {
    /// How much is still to be told, where that is known.
    fn length(&self) -> Option<u64> {
        let here = match &self.first {
            Some(Ok(Step::Data(data))) => data.len() as u64,
            _ => 0,
        };
        self.body.length().map(|length| length + here)
    }
}

fn last_frame(step: Step) -> Option<Frame<Bytes>> {
    match step {
        Step::Data(data) => Some(Frame::data(data)),
        Step::Trailers(trailers) => {
            let mut trailers = Fields::from(trailers);
            hop_by_hop::strip_trailers(&mut trailers);
            Some(Frame::trailers(trailers.to_map()))
        }
        Step::End | Step::More => None,
    }
}
