//! A connection to an instance, as a value: who holds it drives it. It carries one request at a time, and
//! none after anything has come that nobody asked for.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::decode::{self, Body, Invalid};
use super::held::Held;
use super::outgoing::Outgoing;
use crate::buffers::{BUFFER_BYTES, Buffers};
use crate::http::body::{AttemptBody, BodyError};
use crate::http::response::Response;
use crate::service::stream::Stream;
use crate::service::{Head, InformationalSink};

/// To one request. An instance may show progress this way (102, 104), so it isn't very few.
pub const MAX_INTERIMS: u32 = 1000;
/// What came with one read and is no longer than this is copied, so that the buffer can go back at once.
const SMALL_READ_BYTES: usize = 4 * 1024;
/// Of a long body, so much is read at once.
const LARGE_READ_BYTES: u64 = 64 * 1024;

/// Why no response came of a request.
#[derive(Debug)]
pub enum Failed {
    /// The connection broke, in an orderly way or not.
    Reset(io::Error),
    Invalid(Invalid),
    /// The instance has not looked at it: because it closes the connection, or for reasons of its own.
    Unprocessed {
        closing: bool,
        cause: io::Error,
    },
    /// The client's side failed, not the instance's.
    Client(BodyError),
}

/// What a worker's connections read and write with; none keeps any of it while it is idle.
#[derive(Default)]
pub struct Workspace {
    buffers: Rc<Buffers>,
    /// The last request's head was written to it.
    scratch: Cell<Vec<u8>>,
}

/// One that a huge head has made larger is not kept.
const MAX_SCRATCH_BYTES: usize = 64 * 1024;

impl Workspace {
    pub fn new(buffers: Rc<Buffers>) -> Self {
        Workspace { buffers, scratch: Cell::default() }
    }

    fn give_scratch(&self, scratch: Vec<u8>) {
        if scratch.capacity() <= MAX_SCRATCH_BYTES {
            self.scratch.set(scratch);
        }
    }
}

pub struct Connection {
    stream: Stream,
    workspace: Rc<Workspace>,
    /// Read and not used yet.
    unread: BytesMut,
    /// So much of `unread` is known to be the beginning of a head and not all of it.
    scanned: usize,
    outgoing: Outgoing,
    interims: u32,
    /// The head of the present response, while its body is waited for.
    held: Option<Box<Held>>,
    /// The present response is to a HEAD.
    to_head: bool,
    /// The instance leaves it open after the present response.
    keeps_alive: bool,
    alarm: Alarm,
}

impl Connection {
    pub fn new(stream: Stream, workspace: Rc<Workspace>) -> Self {
        Connection {
            stream,
            workspace,
            unread: BytesMut::new(),
            scanned: 0,
            outgoing: Outgoing::default(),
            interims: 0,
            held: None,
            to_head: false,
            keeps_alive: false,
            alarm: Alarm::default(),
        }
    }

    /// Whether nothing has come that nobody asked for, the end of the connection included. Asks the runtime, which
    /// knows what its driver saw when it last looked.
    pub fn is_quiet(&mut self) -> bool {
        self.unread.is_empty() && self.stream.is_quiet()
    }

    /// As [`Connection::is_quiet`], as of this very moment: it costs a system call.
    pub fn is_quiet_now(&mut self) -> bool {
        self.unread.is_empty() && self.stream.is_quiet_now()
    }

    /// It is kept for another request.
    pub fn rest(&mut self) {
        self.stream.set_rests(true);
    }

    /// Begins a request. Nothing is written before the response is polled for.
    pub fn begin(&mut self, head: &Head, host: &[u8], body: AttemptBody) {
        self.stream.set_rests(false);
        self.outgoing = Outgoing::new(self.workspace.scratch.take(), head, host, body);
        self.scanned = 0;
        self.interims = 0;
        self.held = None;
        self.to_head = head.method == Method::HEAD;
        self.keeps_alive = false;
    }

    /// Whether the instance may have seen anything of the present request.
    pub fn has_written(&self) -> bool {
        self.outgoing.began
    }

    /// Whether the present request is through, and the instance is ready for another.
    pub fn is_reusable(&self) -> bool {
        self.keeps_alive && self.unread.is_empty() && self.outgoing.is_through()
    }

    /// Sends the request, as far as it goes, and takes the head of the response. Interim responses go to `sink`. Where its
    /// body is not there as well, the head is held back for one of as many bytes as `hold_back` says.
    pub fn poll_response(
        &mut self,
        sink: Option<&dyn InformationalSink>,
        hold_back: impl Fn(&Response<()>) -> u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Response<()>, Body), Failed>> {
        self.poll_request(cx).map_err(Failed::Client)?;
        if self.held.is_some() {
            return self.poll_held(cx);
        }
        loop {
            while let Some(head) = self.take_head().map_err(Failed::Invalid)? {
                let status = head.response.status;
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    self.pass_interim(sink, &head.response).map_err(Failed::Invalid)?;
                    continue;
                }
                // What follows would be taken for the beginning of the other protocol.
                if status == StatusCode::SWITCHING_PROTOCOLS && !self.outgoing.is_through() {
                    return Poll::Ready(Err(Failed::Invalid(Invalid::Switch)));
                }
                let body = head.body(self.to_head).map_err(Failed::Invalid)?;
                self.keeps_alive = head.keeps_alive && !matches!(body, Body::UntilClose);
                if body.is_within(&self.unread) {
                    return Poll::Ready(Ok((head.response, body)));
                }
                let most = hold_back(&head.response);
                return match Held::new(head.response, body, most) {
                    Ok(held) => {
                        self.held = Some(held);
                        self.poll_held(cx)
                    }
                    Err(passed_on) => Poll::Ready(Ok(passed_on)),
                };
            }
            if let Err(error) = ready!(self.poll_more(0, cx)) {
                return Poll::Ready(Err(Failed::Reset(error)));
            }
        }
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Response<()>, Body), Failed>> {
        while let Some(held) = &mut self.held {
            if held.is_ready(&mut self.unread).map_err(Failed::Invalid)? {
                break;
            }
            let expected = held.expected(self.unread.len());
            ready!(self.poll_more(expected, cx)).map_err(Failed::Reset)?;
        }
        let passed_on =
            self.take_held().expect("it is there: whoever takes it asks for no response any more");
        Poll::Ready(Ok(passed_on))
    }

    /// The head that is held back, if one is.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_deref()
    }

    /// Likewise, to be passed on whatever becomes of its body.
    pub fn take_held(&mut self) -> Option<(Response<()>, Body)> {
        self.held.take().map(|held| held.into_parts())
    }

    /// Sends on what is left of the request. An error is the client's.
    pub fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if self.outgoing.is_over() {
            return Ok(());
        }
        if self.outgoing.poll(&mut self.stream, cx)?.is_ready() {
            self.workspace.give_scratch(self.outgoing.take_buffer());
        }
        Ok(())
    }

    /// Reads what has come, where `expected` bytes are known to be still to come, if any are. The end of the connection
    /// is an error, of the kind `UnexpectedEof`.
    pub fn poll_more(&mut self, expected: u64, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_came(cx))?;
        let buffers = &self.workspace.buffers;
        let mut buffer = if expected > BUFFER_BYTES as u64 {
            // One byte more: a read that fills its buffer would have to be followed by another to see that it was all.
            BytesMut::with_capacity(expected.min(LARGE_READ_BYTES) as usize + 1)
        } else {
            buffers.take()
        };
        let polled = self.stream.poll_fill(&mut buffer, cx);
        let came = match polled {
            Poll::Ready(Ok(length)) if length > SMALL_READ_BYTES => buffer,
            Poll::Ready(Ok(1..)) => {
                let came = BytesMut::from(&buffer[..]);
                buffers.give(buffer);
                came
            }
            none => {
                buffers.give(buffer);
                ready!(none)?;
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        if self.unread.is_empty() {
            self.unread = came;
        } else {
            self.unread.extend_from_slice(&came);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is more here than a body that told its length, and so either was told wrong.
    pub fn has_more_than(&self, body: &Body) -> bool {
        body.length().is_some_and(|length| length > 0 && self.unread.len() as u64 > length)
    }

    /// What was read and belongs to the body of the response, or to nobody.
    pub fn unread(&mut self) -> &mut BytesMut {
        &mut self.unread
    }

    /// Whether `due` has passed. When it has not, the task is woken then at the latest.
    pub fn is_over(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        self.alarm.is_over(due, cx)
    }

    /// The connection after a switch of protocols, with what has come of the other protocol already.
    pub fn into_stream(self) -> (Stream, Bytes) {
        (self.stream, self.unread.freeze())
    }

    fn take_head(&mut self) -> Result<Option<decode::Head>, Invalid> {
        if self.unread.is_empty() {
            return Ok(None);
        }
        // Parsing anew with every byte of a head that drips in would take the square of its length.
        if self.scanned > 0
            && self.unread.len() <= decode::MAX_HEAD_BYTES
            && !decode::may_end(&self.unread, self.scanned)
        {
            self.scanned = self.unread.len();
            return Ok(None);
        }
        let head = decode::take_head(&mut self.unread)?;
        self.scanned = if head.is_some() { 0 } else { self.unread.len() };
        Ok(head)
    }

    fn pass_interim(
        &mut self,
        sink: Option<&dyn InformationalSink>,
        response: &Response<()>,
    ) -> Result<(), Invalid> {
        self.interims += 1;
        if self.interims > MAX_INTERIMS {
            return Err(Invalid::Interims);
        }
        if let Some(sink) = sink {
            sink.interim(response.status, &response.fields);
        }
        Ok(())
    }
}
