//! The body of an instance's response: passed on as it comes, timed while it is silent, and the moment
//! at which its connection is free again.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::InFlight;
use super::pool::{Lease, OpenSlot};
use super::verdict::Verdict;
use crate::http::body::{RequestBody, silent_too_long};
use crate::reason::Reason;

pub struct UpstreamBody {
    incoming: Incoming,
    hold: Hold,
    in_flight: Option<InFlight>,
    verdict: Option<Verdict>,
    /// What the client sent, which may still be on its way when the response is already here.
    sent: Rc<RequestBody>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What keeps the connection open.
enum Hold {
    /// Given back at the end; dropped, and so closed, when the body is cut short.
    Lease(Lease),
    Tunnel(#[expect(dead_code, reason = "it counts the connection for as long as it is kept")] OpenSlot),
    Nothing,
}

/// What an attempt holds on to until its response is through.
pub struct Held {
    pub lease: Lease,
    pub in_flight: InFlight,
    pub verdict: Option<Verdict>,
    pub sent: Rc<RequestBody>,
}

impl UpstreamBody {
    pub fn new(incoming: Incoming, held: Held, idle: Duration) -> Self {
        let Held { lease, in_flight, verdict, sent } = held;
        let hold = Hold::Lease(lease);
        let mut body =
            UpstreamBody { incoming, hold, in_flight: Some(in_flight), verdict, sent, idle, timer: None };
        if body.incoming.is_end_stream() {
            body.ended();
        }
        body
    }

    /// The empty body of a 101: the instance stays busy for as long as it is kept.
    pub fn of_tunnel(incoming: Incoming, held: Held) -> Self {
        let Held { lease, in_flight, sent, .. } = held;
        let hold = Hold::Tunnel(lease.into_tunnel());
        let idle = Duration::MAX;
        UpstreamBody { incoming, hold, in_flight: Some(in_flight), verdict: None, sent, idle, timer: None }
    }

    fn ended(&mut self) {
        self.in_flight = None;
        self.verdict = None;
        // While the request is still on its way nobody else can use the connection, and the instance, which
        // has said all it had to say, may never read the rest (RFC 9112 §9.3).
        if let Hold::Lease(lease) = std::mem::replace(&mut self.hold, Hold::Nothing)
            && self.sent.is_finished()
        {
            lease.give_back();
        }
    }

    fn broken(&mut self, reason: Reason) -> Reason {
        self.in_flight = None;
        self.hold = Hold::Nothing;
        match self.verdict.take() {
            // A client that broke off its request took the connection, and so the response, with it.
            Some(verdict) if self.sent.failure().is_none() => {
                verdict.broken(reason == Reason::ResponseTimeout);
            }
            _ => {}
        }
        reason
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = Reason;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let this = &mut *self;
        let Poll::Ready(polled) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            if !silent_too_long(&mut this.timer, this.idle, cx) {
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(this.broken(Reason::ResponseTimeout))));
        };
        this.timer = None;
        if matches!(polled, None | Some(Ok(_))) && (polled.is_none() || this.incoming.is_end_stream()) {
            this.ended();
        }
        Poll::Ready(polled.map(|frame| match frame {
            Ok(frame) => Ok(clean_trailers(frame)),
            Err(error) if is_malformed(&error) => Err(this.broken(Reason::InvalidResponse)),
            Err(_) => Err(this.broken(Reason::UpstreamReset)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

fn is_malformed(error: &hyper::Error) -> bool {
    error.is_parse() || crate::http::body::is_malformed(error)
}

fn clean_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    if frame.is_data() {
        return frame;
    }
    let mut trailers = frame.into_trailers().unwrap_or_default();
    crate::http::hop_by_hop::strip_trailers(&mut trailers);
    Frame::trailers(trailers)
}
