//! The transport of a client connection: plain or TLS.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::buffers::Buffers;

pub enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Closed, or in other hands.
    Gone,
}

/// With less room than this, a read takes another buffer or makes room.
const LEAST_ROOM: usize = 4 * 1024;

macro_rules! either {
    ($transport:expr, $stream:ident => $do:expr, gone => $gone:expr) => {
        match $transport {
            Transport::Plain($stream) => $do,
            Transport::Tls($stream) => $do,
            Transport::Gone => $gone,
        }
    };
}

impl Transport {
    /// Closes so that the other side can't take it for an orderly end. TLS says by itself how it ended.
    pub fn reset(self) {
        if let Transport::Plain(stream) = self {
            let _ = stream.set_zero_linger();
        }
    }

    /// Takes it away from whoever else holds the connection.
    pub fn take(&mut self) -> Transport {
        std::mem::replace(self, Transport::Gone)
    }

    /// Reads more behind what is in `inbound`, which is given a buffer for that when it has none and there is something
    /// to read. Ready with zero at the end.
    pub fn poll_fill(
        &mut self,
        inbound: &mut BytesMut,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Transport::Plain(stream) = self
            && let Poll::Pending = stream.poll_read_ready(cx)?
        {
            return Poll::Pending;
        }
        if inbound.capacity() - inbound.len() < LEAST_ROOM {
            make_room(inbound, buffers);
        }
        match self {
            Transport::Plain(stream) => pin!(stream.read_buf(inbound)).poll(cx),
            Transport::Tls(stream) => pin!(stream.read_buf(inbound)).poll(cx),
            Transport::Gone => Poll::Ready(Ok(0)),
        }
    }

    /// As `poll_write_vectored`, of the last bytes before the end. The kernel lets the last packet of them wait for it,
    /// so that both are one; the end has to follow at once.
    pub fn poll_write_last(
        &mut self,
        slices: &[IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Transport::Plain(stream) = self else { return Pin::new(self).poll_write_vectored(cx, slices) };
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let send = || match slices {
            [slice] => rustix::net::send(&*stream, slice, flags).map_err(io::Error::from),
            _ => rustix::net::sendmsg(&*stream, slices, &mut SendAncillaryBuffer::default(), flags)
                .map_err(io::Error::from),
        };
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer), gone => Poll::Ready(Ok(())))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes), gone => broken_pipe())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices), gone => broken_pipe())
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored(), gone => false)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx), gone => Poll::Ready(Ok(())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx), gone => Poll::Ready(Ok(())))
    }
}

fn make_room(inbound: &mut BytesMut, buffers: &Buffers) {
    if !inbound.is_empty() {
        return inbound.reserve(inbound.len().max(2 * LEAST_ROOM));
    }
    if inbound.capacity() > 0 {
        buffers.give(std::mem::take(inbound));
    }
    *inbound = buffers.take();
}

fn broken_pipe() -> Poll<io::Result<usize>> {
    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
}
