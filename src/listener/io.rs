//! The transport of a client connection: plain or TLS.

use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, TcpStream as StdStream};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::buffers::Buffers;
use crate::socket::{self, More};

pub enum Transport {
    /// As it was accepted: the runtime doesn't know it yet. Of many connections the only request is there already, and
    /// its response is out at once, so that nothing has to be waited for. Becomes `Plain` when something has.
    Fresh(Fresh),
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Closed, or in other hands.
    Gone,
}

/// A socket that doesn't block, and for which nobody is woken.
pub struct Fresh {
    stream: StdStream,
    /// Once is enough: who sends more is waited for like anybody.
    was_read: bool,
    /// All that had come was read then.
    was_all: bool,
}

/// With less room than this, a read takes another buffer or makes room.
const LEAST_ROOM: usize = 4 * 1024;

/// So much is read of a request at first, as most are shorter.
const FIRST_READ_BYTES: usize = LEAST_ROOM;

macro_rules! either {
    ($transport:expr, $stream:ident => $do:expr, gone => $gone:expr) => {
        match $transport {
            Transport::Plain($stream) => $do,
            Transport::Tls($stream) => $do,
            Transport::Fresh(_) | Transport::Gone => $gone,
        }
    };
}

impl Transport {
    /// A connection that was accepted just now.
    pub fn fresh(stream: StdStream) -> Self {
        Transport::Fresh(Fresh { stream, was_read: false, was_all: false })
    }

    pub fn is_fresh(&self) -> bool {
        matches!(self, Transport::Fresh(_))
    }

    /// Whether something has come that nobody has read, if the client may have sent `more` than it was answered. A
    /// transport that the runtime knows has been read for as long as something came.
    pub fn has_unread(&self, more: bool) -> bool {
        let Transport::Fresh(fresh) = self else { return false };
        (more || !fresh.was_all) && matches!(fresh.stream.peek(&mut [0]), Ok(1..))
    }

    /// Before something is waited for.
    fn make_known(&mut self) -> io::Result<()> {
        if self.is_fresh()
            && let Transport::Fresh(fresh) = self.take()
        {
            *self = Transport::Plain(TcpStream::from_std(fresh.stream)?);
        }
        Ok(())
    }

    /// What `run` made of a fresh transport, unless something has to be waited for: then it is known to the runtime
    /// from here on.
    fn at_once<T>(&mut self, run: impl FnOnce(&mut Fresh) -> io::Result<T>) -> Option<io::Result<T>> {
        let Transport::Fresh(fresh) = self else { return None };
        match run(fresh) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.make_known().err().map(Err),
            done => Some(done),
        }
    }

    /// Closes so that the other side can't take it for an orderly end. TLS says by itself how it ended.
    pub fn reset(self) {
        let _ = match &self {
            Transport::Plain(stream) => stream.set_zero_linger(),
            Transport::Fresh(fresh) => SockRef::from(&fresh.stream).set_linger(Some(Duration::ZERO)),
            Transport::Tls(_) | Transport::Gone => Ok(()),
        };
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
            Transport::Plain(stream) => socket::poll_read_ready(stream, inbound, cx),
            Transport::Tls(stream) => pin!(stream.read_buf(inbound)).poll(cx),
            Transport::Fresh(_) => pin!(self.read_buf(inbound)).poll(cx),
            Transport::Gone => Poll::Ready(Ok(0)),
        }
    }

    /// Writes as much of `slices` as is taken.
    pub fn poll_send(
        &mut self,
        slices: &[IoSlice<'_>],
        more: More,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some(sent) = self.at_once(|fresh| socket::send(&fresh.stream, slices, more)) {
            return Poll::Ready(sent);
        }
        match (self, slices) {
            (Transport::Plain(stream), _) => socket::poll_send(stream, slices, more, cx),
            (Transport::Tls(stream), [slice]) => Pin::new(stream).poll_write(cx, slice),
            (Transport::Tls(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Transport::Fresh(_) | Transport::Gone, _) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl Fresh {
    fn read(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        if std::mem::replace(&mut self.was_read, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let room = FIRST_READ_BYTES.min(buffer.remaining());
        let read = self.stream.read(buffer.initialize_unfilled_to(room))?;
        buffer.advance(read);
        self.was_all = read < room;
        Ok(())
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let transport = self.get_mut();
        if let Some(read) = transport.at_once(|fresh| fresh.read(buffer)) {
            return Poll::Ready(read);
        }
        either!(transport, stream => Pin::new(stream).poll_read(cx, buffer), gone => Poll::Ready(Ok(())))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(&[IoSlice::new(bytes)], More::Unknown, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(slices, More::Unknown, cx)
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored(), gone => self.is_fresh())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx), gone => Poll::Ready(Ok(())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let transport = self.get_mut();
        if let Some(shut) = transport.at_once(|fresh| fresh.stream.shutdown(Shutdown::Write)) {
            return Poll::Ready(shut);
        }
        either!(transport, stream => Pin::new(stream).poll_shutdown(cx), gone => Poll::Ready(Ok(())))
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    /// A client that has sent `bytes`, and its connection as it is accepted.
    fn accepted(bytes: &[u8]) -> (StdStream, Transport) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has ports");
        let mut client = StdStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        client.write_all(bytes).expect("the kernel takes it");
        let (stream, _) = listener.accept().expect("one is waiting");
        if !bytes.is_empty() {
            stream.peek(&mut [0]).expect("it is on its way");
        }
        stream.set_nonblocking(true).expect("a plain option");
        (client, Transport::fresh(stream))
    }

    fn received(mut client: StdStream) -> String {
        let mut all = String::new();
        client.read_to_string(&mut all).expect("the connection ends in order");
        all
    }

    #[tokio::test]
    async fn what_is_there_at_once_is_answered_without_the_runtime() {
        let (client, mut transport) = accepted(b"request");
        let buffers = Buffers::default();
        let mut inbound = BytesMut::new();
        let read = poll_fn(|cx| transport.poll_fill(&mut inbound, &buffers, cx)).await;
        assert_eq!((read.ok(), &inbound[..]), (Some(7), &b"request"[..]));
        for slices in [&[IoSlice::new(b"res")][..], &[IoSlice::new(b"po"), IoSlice::new(b"nse")]] {
            poll_fn(|cx| transport.poll_send(slices, More::End, cx)).await.expect("the client listens");
        }
        assert!(transport.is_fresh() && !transport.has_unread(true));
        drop(transport);
        assert_eq!(received(client), "response");
    }

    #[tokio::test]
    async fn what_has_to_be_waited_for_is_known_to_the_runtime() {
        let buffers = Buffers::default();
        for first in [&b""[..], b"first "] {
            let (mut client, mut transport) = accepted(first);
            let mut inbound = BytesMut::new();
            while poll_fn(|cx| Poll::Ready(transport.poll_fill(&mut inbound, &buffers, cx).is_ready())).await
            {
            }
            assert!(!transport.is_fresh());
            client.write_all(b"second").expect("the connection is open");
            let read = poll_fn(|cx| transport.poll_fill(&mut inbound, &buffers, cx)).await;
            assert_eq!((read.ok(), &inbound[..]), (Some(6), &[first, b"second"].concat()[..]));
            poll_fn(|cx| transport.poll_send(&[IoSlice::new(b"last")], More::End, cx))
                .await
                .expect("it listens");
            drop(transport);
            assert_eq!(received(client), "last");
        }
    }

    #[tokio::test]
    async fn more_than_was_read_at_first_is_noticed() {
        let buffers = Buffers::default();
        for (length, all_said, more_said) in [(10, false, false), (FIRST_READ_BYTES + 1, true, true)] {
            let (_client, mut transport) = accepted(&vec![b'x'; length]);
            let mut inbound = BytesMut::new();
            let read = poll_fn(|cx| transport.poll_fill(&mut inbound, &buffers, cx)).await;
            assert_eq!(read.ok(), Some(length.min(FIRST_READ_BYTES)));
            assert_eq!((transport.has_unread(false), transport.has_unread(true)), (all_said, more_said));
        }
        let (mut client, mut transport) = accepted(b"request");
        let mut inbound = BytesMut::new();
        poll_fn(|cx| transport.poll_fill(&mut inbound, &buffers, cx)).await.expect("it is there");
        client.write_all(b"another").expect("the connection is open");
        assert!(transport.has_unread(true));
    }
}
