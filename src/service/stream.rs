//! The transport of a connection to an instance: plain, or TLS.
//!
//! Plain ones pay a branch for it. The state of a TLS connection is made once for all its requests and lies elsewhere.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::socket::{self, More};

pub enum Stream {
    Plain(TcpStream),
    Tls(Box<Secured>),
}

/// A connection behind its handshake.
pub struct Secured {
    stream: TlsStream<TcpStream>,
    /// Nothing is on its way, so that the other side may be told when the connection ends.
    rests: bool,
}

impl Stream {
    pub fn secured(stream: TlsStream<TcpStream>) -> Self {
        Stream::Tls(Box::new(Secured { stream, rests: false }))
    }

    /// Whether something has come, or TLS would have to be asked.
    pub fn poll_came(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(stream) => stream.poll_read_ready(cx),
            Stream::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// Reads what has just [come](Self::poll_came) into the room that `buffer` has. Ready with zero at the end, which in TLS is one that the
    /// other side has told (RFC 8446 §6.1): anybody on the way could end a connection.
    pub fn poll_fill(&mut self, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(stream) => socket::poll_read_ready(stream, buffer, cx),
            Stream::Tls(secured) => secured.poll_fill(buffer, cx),
        }
    }

    /// Writes as much of `slices` as is taken. What TLS takes may need a [`flush`](Self::poll_sent) to be sent.
    pub fn poll_send(&mut self, slices: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match (self, slices) {
            (Stream::Plain(stream), _) => socket::poll_send(stream, slices, More::Unknown, cx),
            (Stream::Tls(secured), _) => secured.poll_send(slices, cx),
        }
    }

    /// Ready when all that was taken is with the kernel.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(secured) => secured.poll_sent(cx),
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Whether nothing has come that nobody asked for, the end of the connection included. Asks the runtime, which
    /// knows what its driver saw when it last looked. What TLS says to itself, as new tickets, is nothing.
    pub fn is_quiet(&mut self) -> bool {
        match self {
            Stream::Plain(stream) => would_block(stream.try_read(&mut [0])),
            Stream::Tls(secured) => {
                let mut byte = [0];
                let mut buffer = ReadBuf::new(&mut byte);
                let read = poll_fn(|cx| Pin::new(&mut secured.stream).poll_read(cx, &mut buffer));
                // A task that has done much already would be told that there is nothing, whatever there is.
                let read = pin!(tokio::task::unconstrained(read));
                read.poll(&mut Context::from_waker(Waker::noop())).is_pending()
            }
        }
    }

    /// As [`Stream::is_quiet`], as of this very moment: it costs a system call.
    pub fn is_quiet_now(&mut self) -> bool {
        if !self.is_quiet() {
            return false;
        }
        let socket = match self {
            Stream::Plain(stream) => &*stream,
            Stream::Tls(secured) => secured.stream.get_ref().0,
        };
        would_block(socket2::SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]))
    }

    /// The connection has nothing to do until it is used again, or closed.
    pub fn set_rests(&mut self, rests: bool) {
        if let Stream::Tls(secured) = self {
            secured.rests = rests;
        }
    }
}

impl Secured {
    fn poll_send(&mut self, slices: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let sent = match slices {
            [slice] => stream.poll_write(cx, slice),
            _ => stream.poll_write_vectored(cx, slices),
        };
        sent.map_err(|error| self.why(error))
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| self.why(error))
    }

    /// Nothing can be written any more. Who has closed the connection may have said why before, which the kernel still
    /// has; the runtime has not heard of it yet, and is not asked.
    fn why(&mut self, error: io::Error) -> io::Error {
        let (socket, session) = self.stream.get_mut();
        let socket = socket2::SockRef::from(&*socket);
        while let Ok(1..) = session.read_tls(&mut &*socket) {
            if let Err(said) = session.process_new_packets() {
                return io::Error::new(io::ErrorKind::InvalidData, said);
            }
        }
        error
    }

    fn poll_fill(&mut self, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = ready!(pin!(self.stream.read_buf(buffer)).poll(cx));
        Poll::Ready(read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::ConnectionAborted, error),
            _ => error,
        }))
    }
}

impl Drop for Secured {
    /// Says that this is the end, as far as that can be said without waiting. Were it said of a request that is cut short,
    /// it would look whole.
    fn drop(&mut self) {
        if self.rests {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
        }
    }
}

fn would_block(looked: io::Result<usize>) -> bool {
    looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(secured) => Pin::new(&mut secured.stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Stream::Tls(secured) => secured.poll_send(bytes, cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(secured) => secured.poll_sent(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(secured) => Pin::new(&mut secured.stream).poll_shutdown(cx),
        }
    }
}
