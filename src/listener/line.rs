//! The part of an HTTP/1.1 connection that its task shares with whoever reads the body of the present request.
//!
//! Only one of them reads at a time: the reader for as long as the body lasts, the connection before and after.
//! A transport wakes only the last one who asked.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::Frame;

use super::framing::{BodyFraming, Malformed, malformed};
use super::head::{self, HeadLimits};
use super::interims::Interims;
use super::io::Transport;
use crate::buffers::Buffers;
use crate::http::body::{BodyError, Http1Body, Http1Source};

/// A rest of a body that is so short is read on the side, so that the connection can go on.
const SHORT_REST_BYTES: u64 = 16 * 1024;

/// So much of what comes behind a request is read before that is answered, or as much as a head may have.
pub const READ_AHEAD_BYTES: usize = 8 * 1024;

pub struct Line {
    pub io: RefCell<Io>,
    pub buffers: Rc<Buffers>,
    pub limits: HeadLimits,
    pub interims: Rc<Interims>,
    /// The connection is having its turn: it will look at everything afterwards without being woken.
    pub in_turn: Cell<bool>,
}

pub struct Io {
    pub transport: Transport,
    /// What has come and has not been looked at yet. An idle connection has none.
    pub inbound: BytesMut,
    pub body: IncomingBody,
}

/// The body of the present request.
pub struct IncomingBody {
    framing: BodyFraming,
    /// Counts the requests, so that nobody reads the body of a later one.
    request: u64,
    /// The client waits for a 100 before it sends anything.
    expects_continue: bool,
    /// Somebody has begun to read it.
    was_wanted: bool,
    trailers: Vec<u8>,
}

impl Line {
    pub fn new(transport: Transport, buffers: Rc<Buffers>, limits: HeadLimits) -> Rc<Self> {
        let body = IncomingBody {
            framing: BodyFraming::length(0),
            request: 0,
            expects_continue: false,
            was_wanted: false,
            trailers: Vec::new(),
        };
        Rc::new(Line {
            io: RefCell::new(Io { transport, inbound: BytesMut::new(), body }),
            buffers,
            limits,
            interims: Rc::default(),
            in_turn: Cell::new(false),
        })
    }

    /// The body of a request whose head has just been read.
    pub fn body(self: &Rc<Self>, framing: BodyFraming, expects_continue: bool) -> Http1Body {
        let body = &mut self.io.borrow_mut().body;
        body.request += 1;
        body.framing = framing;
        body.expects_continue = expects_continue;
        body.was_wanted = false;
        body.trailers.clear();
        Http1Body::new(self.clone(), body.request)
    }

    /// Does something in the connection's turn.
    pub fn in_turn<T>(&self, run: impl FnOnce() -> T) -> T {
        self.in_turn.set(true);
        let done = run();
        self.in_turn.set(false);
        done
    }

    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let io = &mut *self.io.borrow_mut();
        io.body.was_wanted = true;
        loop {
            match io.body.take(&mut io.inbound, &self.limits) {
                Ok(None) if io.body.framing.is_end() => return Poll::Ready(None),
                Ok(None) => {}
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Err(_) => return Poll::Ready(Some(Err(BodyError::Malformed))),
            }
            if std::mem::take(&mut io.body.expects_continue) && io.inbound.is_empty() {
                self.interims.go_on();
            }
            match io.transport.poll_fill(&mut io.inbound, &self.buffers, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Some(Err(BodyError::Broken))),
                Poll::Pending => {
                    io.rest(&self.buffers);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Drop for Line {
    /// The connection may have ended while its buffer was in use. It is warm, and the next one may have it.
    fn drop(&mut self) {
        self.buffers.give_back(&mut self.io.get_mut().inbound);
    }
}

impl Http1Source for Line {
    fn poll_frame(
        &self,
        request: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.io.borrow().body.request != request {
            return Poll::Ready(Some(Err(BodyError::Broken)));
        }
        let polled = self.poll_body(cx);
        if !self.in_turn.get() && self.io.borrow().body.framing.is_end() {
            // From here on it is the connection that reads: it has to notice when the client leaves.
            self.interims.wake();
        }
        polled
    }

    fn left(&self, request: u64) -> Option<u64> {
        let body = &self.io.borrow().body;
        if body.request == request { body.framing.left() } else { Some(0) }
    }

    fn is_end(&self, request: u64) -> bool {
        let body = &self.io.borrow().body;
        body.request != request || (body.framing.is_end() && body.trailers.is_empty())
    }
}

impl Io {
    /// Gives the buffer back when there is nothing in it, and nobody knows how long that will be so.
    pub fn rest(&mut self, buffers: &Buffers) {
        if self.inbound.is_empty() {
            buffers.give_back(&mut self.inbound);
        }
    }

    /// What comes next is no part of the request that is being answered.
    pub fn is_request_over(&self) -> bool {
        self.body.framing.is_end()
    }

    /// Whether the connection can go on although nobody reads the rest of the body: it is short, and it comes.
    pub fn is_rest_short(&self) -> bool {
        let body = &self.body;
        let is_short = body.framing.left().is_some_and(|left| left <= SHORT_REST_BYTES);
        // RFC 9110 §10.1.1: who is not asked for the body may leave it out.
        !body.expects_continue && (is_short || body.framing.ends_within(&self.inbound))
    }

    /// Whether it is clear already, before the response, that somebody leaves too much of the body unread.
    pub fn is_body_unwanted(&self) -> bool {
        !self.is_request_over() && !self.body.was_wanted && !self.is_rest_short()
    }

    /// From here on nobody reads the body but the connection.
    pub fn disown_body(&mut self) {
        self.body.request += 1;
    }

    /// Reads the rest of the body and forgets it. Ready when the next request can begin.
    pub fn poll_skip(
        &mut self,
        limits: &HeadLimits,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.body.take(&mut self.inbound, limits).map_err(|_| io::ErrorKind::InvalidData)?.is_some()
            {
            }
            if self.is_request_over() {
                return Poll::Ready(Ok(()));
            }
            match self.transport.poll_fill(&mut self.inbound, buffers, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.rest(buffers);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl IncomingBody {
    fn take(
        &mut self,
        inbound: &mut BytesMut,
        limits: &HeadLimits,
    ) -> Result<Option<Frame<Bytes>>, Malformed> {
        if let Some(data) = self.framing.take(inbound, &mut self.trailers)? {
            return Ok(Some(Frame::data(data)));
        }
        if !self.framing.is_end() || self.trailers.is_empty() {
            return Ok(None);
        }
        let section = Bytes::from(std::mem::take(&mut self.trailers));
        let trailers =
            head::trailers(section, limits).map_err(|_| malformed("the trailers are malformed"))?;
        Ok(Some(Frame::trailers(trailers)))
    }
}
