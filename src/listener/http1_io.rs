//! What hyper reads and writes of an HTTP/1.1 connection.
//!
//! Reading, it lets one request through at a time, and only whole heads that [`framing`](super::framing) finds
//! unambiguous; so hyper never holds the beginning of a next request, and a client that leaves is noticed
//! however much it has pipelined. Writing, it puts interim responses in front of final ones. A refused head
//! looks to hyper like the end of the connection: the answer to it is the caller's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{BodyFraming, HeadLimits, HeadScan, Malformed};
use super::io::{Rewound, Transport};
use super::state::{ConnectionState, Phase};
use crate::reason::Reason;

pub struct Http1Io {
    inner: Rewound<Transport>,
    state: Arc<ConnectionState>,
    limits: HeadLimits,
    part: Part,
    /// Bytes that hyper does not get yet; the first `released` of them it may have.
    held: BytesMut,
    released: usize,
    /// A next request waits for the response before it to be written out.
    waits_for_flush: bool,
    refused: Option<Malformed>,
    bad_body: Option<&'static str>,
    /// Interim responses that go out before anything else.
    ahead: Bytes,
    /// All that hyper wrote has been flushed: a new message would begin here.
    at_boundary: bool,
    lingering: Option<Lingering>,
}

/// Where the next byte from the client belongs.
enum Part {
    Head(HeadScan),
    Body(BodyFraming, AfterBody),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterBody {
    Request,
    /// The request asks for an upgrade: nobody knows before its response.
    Unknown,
}

struct Lingering {
    left: usize,
    until: Pin<Box<tokio::time::Sleep>>,
}

/// A close while the client still sends would reset the connection and take our last response with it
/// (RFC 9112 §9.6): read on for a moment, and up to so much.
const LINGER_FOR: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

const READ_SIZE: usize = 8 * 1024;

impl Http1Io {
    pub fn new(inner: Rewound<Transport>, state: Arc<ConnectionState>, limits: HeadLimits) -> Self {
        Http1Io {
            inner,
            state,
            limits,
            part: Part::Head(HeadScan::default()),
            held: BytesMut::new(),
            released: 0,
            waits_for_flush: false,
            refused: None,
            bad_body: None,
            ahead: Bytes::new(),
            at_boundary: true,
            lingering: None,
        }
    }

    /// Why the head of a request was refused, if it was. Nothing has been answered to it.
    pub fn refused(&self) -> Option<Malformed> {
        self.refused
    }

    /// How many of these bytes, which begin where the last ones passed on ended, hyper may have now.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let passed = self.passing(bytes);
        if passed < bytes.len() {
            self.state.bytes_held();
        }
        passed
    }

    fn passing(&mut self, bytes: &[u8]) -> usize {
        let answering = matches!(self.state.phase(), Phase::Parsing | Phase::Busy);
        if !answering && matches!(self.part, Part::Body(framing, _) if framing.is_end()) {
            self.part = Part::Head(HeadScan::default());
        }
        let mut passed = 0;
        if let Part::Head(scan) = &mut self.part {
            if !bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                self.state.received_bytes();
            }
            if answering || !self.at_boundary {
                self.waits_for_flush = !answering;
                return 0;
            }
            let end = match scan.find_end(bytes, &self.limits) {
                Ok(Some(end)) => end,
                Ok(None) => return 0,
                Err(malformed) => {
                    self.refused = Some(malformed);
                    return 0;
                }
            };
            let after = if end.upgrade { AfterBody::Unknown } else { AfterBody::Request };
            self.part = Part::Body(end.body, after);
            self.state.head_passed();
            passed = end.at;
        }
        if let Part::Body(framing, after) = &mut self.part {
            match framing.take(&bytes[passed..]) {
                Ok(taken) => passed += taken,
                Err(malformed) => self.bad_body = Some(malformed.detail),
            }
            if framing.is_end() && *after == AfterBody::Request {
                self.part = Part::Head(HeadScan::default());
            }
        }
        passed
    }

    /// Gives hyper what it may have of the bytes held back.
    fn hand_over(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        if self.released == 0 && !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.released = self.judge(&held);
            self.held = held;
        }
        let length = self.released.min(buffer.remaining());
        buffer.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.released -= length;
        length > 0
    }

    /// Reads into `buffer` what may pass at once, and holds the rest back. Ready with `false` when nothing passed.
    fn poll_pass(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if buffer.filled().len() == before {
            return Poll::Ready(Ok(true));
        }
        let passed = self.judge(&buffer.filled()[before..]);
        self.held.extend_from_slice(&buffer.filled()[before + passed..]);
        buffer.set_filled(before + passed);
        Poll::Ready(Ok(passed > 0))
    }

    /// Reads more of what is held back. Ready with `true` at the end of the stream.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.held.len() > self.limits.bytes.max(READ_SIZE) {
            // Enough of what is to come after the response. The connection's task is woken when that is there.
            return Poll::Pending;
        }
        let mut scratch = [0u8; READ_SIZE];
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
        self.held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().is_empty()))
    }

    /// After 101, bytes are only bytes.
    fn poll_read_tunnel(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let length = self.held.len().min(buffer.remaining());
        buffer.put_slice(&self.held[..length]);
        self.held.advance(length);
        Poll::Ready(Ok(()))
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // The next ones only after these: the buffer may hold half of one.
            if self.ahead.is_empty() {
                if !self.at_boundary {
                    return Poll::Ready(Ok(()));
                }
                let Some(interim) = self.state.take_interim() else { return Poll::Ready(Ok(())) };
                self.ahead = Bytes::from(interim);
            }
            let polled = Pin::new(&mut self.inner).poll_write(cx, &self.ahead);
            self.state.write_blocked(polled.is_pending());
            let written = ready!(polled)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ahead.advance(written);
        }
    }

    /// hyper answers a head that it can't parse by itself, with a status and nothing more. No request is
    /// running then, so such bytes are known for what they are, and are not written.
    fn is_bare_refusal(&mut self, bytes: &[u8]) -> bool {
        if self.refused.is_some() {
            return true;
        }
        if self.state.phase() != Phase::Parsing || !self.at_boundary {
            return false;
        }
        let (reason, detail) = match bytes.get(9..12) {
            Some(b"400") => (Reason::InvalidRequest, "the request line or a field is malformed"),
            Some(b"414") => (Reason::UriTooLong, "the request target is longer than allowed"),
            Some(b"431") => (Reason::HeadersTooLarge, "the head of the request is larger than allowed"),
            _ => return false,
        };
        self.refused = Some(Malformed { reason, detail });
        true
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            left: LINGER_BYTES,
            until: Box::pin(tokio::time::sleep(LINGER_FOR)),
        });
        let mut scratch = [0u8; READ_SIZE];
        while lingering.left > 0 && lingering.until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    lingering.left = lingering.left.saturating_sub(buffer.filled().len());
                }
                // The end, or a reset: either way there is nobody left to wait for.
                _ => break,
            }
        }
        Poll::Ready(())
    }

    /// Ends the connection after the answer to a head that was refused or did not come.
    pub async fn close(mut self) {
        let _ = std::future::poll_fn(|cx| Pin::new(&mut self.inner).poll_shutdown(cx)).await;
        std::future::poll_fn(|cx| self.poll_linger(cx)).await;
    }

    /// Ends the connection in a way that nobody takes for the end of a response.
    pub fn reset(self) {
        self.inner.reset();
    }

    /// Writes an answer of our own, past hyper.
    pub async fn write_answer(&mut self, mut answer: Bytes) -> io::Result<()> {
        while !answer.is_empty() {
            let write = |cx: &mut Context<'_>| Pin::new(&mut self.inner).poll_write(cx, &answer);
            let written = std::future::poll_fn(write).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            answer.advance(written);
        }
        std::future::poll_fn(|cx| Pin::new(&mut self.inner).poll_flush(cx)).await
    }
}

impl AsyncRead for Http1Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.state.is_tunnel() {
                return this.poll_read_tunnel(cx, buffer);
            }
            if this.hand_over(buffer) || this.refused.is_some() {
                return Poll::Ready(Ok(()));
            }
            if let Some(detail) = this.bad_body {
                // The parser behind would find it as well, a few bytes later.
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, detail)));
            }
            let done = if this.held.is_empty() {
                ready!(this.poll_pass(cx, buffer))?
            } else {
                ready!(this.poll_hold(cx))?
            };
            if done {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Http1Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_bare_refusal(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_ahead(cx))?;
        self.at_boundary = false;
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.state.write_blocked(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        if self.is_bare_refusal(first) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        ready!(self.poll_ahead(cx))?;
        self.at_boundary = false;
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.state.write_blocked(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ahead(cx))?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.at_boundary = true;
        if std::mem::take(&mut self.waits_for_flush) {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.refused.is_some() {
            return Poll::Ready(Ok(()));
        }
        if this.lingering.is_none() {
            ready!(this.poll_ahead(cx))?;
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if !this.state.left_body_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        this.poll_linger(cx).map(Ok)
    }
}
