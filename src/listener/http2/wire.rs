//! The transport under an HTTP/2 connection. What the protocol writes is gathered and leaves with the end of the
//! connection's turn: one write, and with TLS one record, for everything that all of its streams had to say.
//!
//! It says that it can't write several slices at once, although it does: the protocol copies what is short into its own
//! buffer then, and hands over many frames together.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::inbound::{End, Inbound};
use crate::buffers::Buffers;

/// So much is gathered before it is written without waiting for the end of the turn. It is what a TLS record holds.
const GATHERED_BYTES: usize = 16 * 1024;

/// One handle is the protocol's, the other its connection's.
pub struct Wire<T>(Rc<RefCell<Gathering<T>>>);

struct Gathering<T> {
    transport: T,
    /// What has not been written yet. Without anything in it, there is no buffer.
    out: BytesMut,
    buffers: Rc<Buffers>,
    /// There was nothing left to read: the reader will be woken when there is.
    dry: bool,
    /// Some of what was written may still be with the transport, encrypted.
    unflushed: bool,
    /// There are turns, at the end of which somebody calls [`Wire::poll_write_out`].
    gathers: bool,
    inbound: Inbound,
    /// Nothing more is read, for this reason.
    end: Option<End>,
}

impl<T> Clone for Wire<T> {
    fn clone(&self) -> Self {
        Wire(self.0.clone())
    }
}

impl<T: AsyncWrite + Unpin> Wire<T> {
    pub fn new(transport: T, buffers: Rc<Buffers>) -> Self {
        let out = BytesMut::new();
        let gathering = Gathering {
            transport,
            out,
            buffers,
            dry: false,
            unflushed: false,
            gathers: false,
            inbound: Inbound::new(),
            end: None,
        };
        Wire(Rc::new(RefCell::new(gathering)))
    }

    /// From here on nothing is written before the end of a turn, unless there is much of it.
    pub fn gather(&self) {
        self.0.borrow_mut().gathers = true;
    }

    /// Something may have come. Once nothing has, the transport is not asked again before this is called.
    pub fn look_again(&self) {
        self.0.borrow_mut().dry = false;
    }

    /// Why the connection has to end for what has come on it.
    pub fn end(&self) -> Option<End> {
        self.0.borrow().end
    }

    /// The streams send so many frames of DATA.
    pub fn sends(&self, frames: u32) {
        self.0.borrow_mut().inbound.sent(frames);
    }

    /// Takes away those streams of which `reset` says that it has reset them, of all whose requests are malformed.
    pub fn reset_malformed(&self, reset: impl FnMut(u32) -> bool) {
        let malformed = &mut *self.0.borrow_mut();
        let malformed = malformed.inbound.malformed();
        if !malformed.is_empty() {
            let mut reset = reset;
            malformed.retain(|stream| !reset(*stream));
        }
    }

    /// Writes what was gathered.
    pub fn poll_write_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_write_out(cx)
    }
}

impl<T: AsyncWrite + Unpin> Gathering<T> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.out))?;
            self.written(written)?;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unflushed = true;
        self.inbound.wrote(count);
        self.out.advance(count);
        if self.out.is_empty() {
            self.buffers.give(std::mem::take(&mut self.out));
        }
        Ok(())
    }

    fn poll_write(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if self.out.len() + bytes.len() <= GATHERED_BYTES {
                if self.out.capacity() == 0 {
                    self.out = self.buffers.take();
                }
                self.out.extend_from_slice(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            // Too much to be copied: it leaves now, behind what was gathered.
            let all = [IoSlice::new(&self.out), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.transport).poll_write_vectored(cx, &all))?;
            self.unflushed = true;
            let gathered = self.out.len();
            if gathered > 0 {
                self.written(written.min(gathered))?;
            }
            self.inbound.wrote(written.saturating_sub(gathered));
            if written > gathered || gathered == 0 {
                return Poll::Ready(Ok(written - gathered));
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gathering = &mut *self.0.borrow_mut();
        // Who ends the connection looks for that, and need not be woken.
        if gathering.dry || gathering.end.is_some() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut gathering.transport).poll_read(cx, buffer);
        gathering.dry = gathering.gathers && polled.is_pending();
        if let Err((at, end)) = gathering.inbound.see(&buffer.filled()[before..]) {
            gathering.end = Some(end);
            // Only what stands before it is read.
            buffer.set_filled(before + at);
            if at == 0 {
                return Poll::Pending;
            }
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(bytes, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gathering = &mut *self.0.borrow_mut();
        if gathering.gathers { Poll::Ready(Ok(())) } else { gathering.poll_write_out(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gathering = &mut *self.0.borrow_mut();
        ready!(gathering.poll_write_out(cx))?;
        Pin::new(&mut gathering.transport).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn wire(room: usize) -> (Wire<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(room);
        (Wire::new(near, Rc::default()), far)
    }

    #[tokio::test]
    async fn what_is_little_waits_for_the_end_of_the_turn() {
        let (mut near, mut far) = wire(1024);
        near.write_all(b"settings").await.expect("room");
        near.flush().await.expect("room");
        let mut read = [0; 64];
        assert_eq!(far.read(&mut read).await.expect("open"), 8);
        near.gather();
        for piece in [&b"one "[..], b"two"] {
            near.write_all(piece).await.expect("room");
            near.flush().await.expect("nothing to wait for");
        }
        assert!(futures_util::future::poll_immediate(far.read(&mut read)).await.is_none());
        poll_fn(|cx| near.poll_write_out(cx)).await.expect("room");
        assert_eq!(far.read(&mut read).await.expect("open"), 7);
        assert_eq!(near.0.borrow().out.capacity(), 0, "the buffer was given back");
    }

    #[tokio::test]
    async fn a_dry_transport_is_asked_again_when_something_may_have_come() {
        let (mut near, mut far) = wire(1024);
        near.gather();
        let mut read = [0; 4];
        assert!(futures_util::future::poll_immediate(near.read(&mut read)).await.is_none());
        far.write_all(b"more").await.expect("room");
        assert!(futures_util::future::poll_immediate(near.read(&mut read)).await.is_none());
        near.look_again();
        assert_eq!((near.read(&mut read).await.expect("open"), &read), (4, b"more"));
    }

    /// As TLS does: it takes what it can't write yet.
    #[tokio::test]
    async fn what_the_transport_has_kept_is_written_later() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Wire::new(tokio::io::BufWriter::new(near), Rc::default());
        near.gather();
        near.write_all(b"response").await.expect("room");
        let mut written = std::pin::pin!(poll_fn(|cx| near.poll_write_out(cx)));
        assert!(futures_util::future::poll_immediate(&mut written).await.is_none());
        let mut read = [0; 8];
        let (written, reading) = tokio::join!(written, far.read_exact(&mut read));
        written.expect("it was read");
        assert_eq!((reading.expect("open"), &read), (8, b"response"));
    }

    #[tokio::test]
    async fn everything_arrives_in_order_however_small_the_room_is() {
        for room in [1, 7, 1000, 20_000, 200_000] {
            let (mut near, mut far) = wire(room);
            near.gather();
            let pieces: Vec<Vec<u8>> =
                [10, 16_000, 400, 70_000, 1, 16_384, 16_385].map(|length| vec![length as u8; length]).into();
            let all = pieces.concat();
            let writing = async move {
                for piece in &pieces {
                    near.write_all(piece).await.expect("open");
                    assert!(near.0.borrow().out.len() <= GATHERED_BYTES);
                }
                near.shutdown().await.expect("open");
            };
            let mut read = Vec::new();
            let (_, reading) = tokio::join!(writing, far.read_to_end(&mut read));
            reading.expect("an orderly end");
            assert!(read == all, "{room}: {} bytes of {}", read.len(), all.len());
        }
    }
}
