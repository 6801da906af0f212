//! Reading from and writing to a socket that the runtime watches, asking the runtime as little as possible.
//!
//! The sockets are watched edge-triggered, so an operation that was cut short has used up what there was: the runtime is
//! told so, as if the next one had been refused, and nobody makes a system call to hear that.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what has come into the room that `buffer` has. Ready with zero at the end.
pub fn poll_read(stream: &TcpStream, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        match read(stream, buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Poll::Ready(read),
        }
    }
}

/// As [`poll_read`], where the socket has just been found to be ready.
pub fn poll_read_ready(
    stream: &TcpStream,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    match read(stream, buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => poll_read(stream, buffer, cx),
        read => Poll::Ready(read),
    }
}

/// Writes as much of `slices` as is taken.
pub fn poll_send(
    stream: &TcpStream,
    slices: &[IoSlice<'_>],
    more: More,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let length: usize = slices.iter().map(|slice| slice.len()).sum();
    loop {
        let all_or_none = || send(stream, slices, more).map(|sent| (sent, sent >= length));
        match once(stream, Interest::WRITABLE, all_or_none) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
        ready!(stream.poll_write_ready(cx))?;
    }
}

/// What the kernel is told of what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// Nothing that is known.
    Unknown,
    /// The end of the connection, at once: the last packet waits for it, so that both are one.
    End,
}

/// Sends as much of `slices` as is taken, without waiting.
pub fn send(socket: impl AsFd, slices: &[IoSlice<'_>], more: More) -> io::Result<usize> {
    let flags = match more {
        More::Unknown => SendFlags::NOSIGNAL,
        More::End => SendFlags::NOSIGNAL | SendFlags::MORE,
    };
    let sent = match slices {
        [slice] => rustix::net::send(socket, slice, flags),
        _ => rustix::net::sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags),
    };
    sent.map_err(io::Error::from)
}

fn read(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    let room = buffer.capacity() - buffer.len();
    once(stream, Interest::READABLE, || {
        let length = stream.try_read_buf(buffer)?;
        Ok((length, length == 0 || length >= room))
    })
}

/// Runs `operation` unless the socket isn't ready for it. It says how many bytes it has moved, and whether it could
/// have moved more.
fn once(
    stream: &TcpStream,
    interest: Interest,
    operation: impl FnOnce() -> io::Result<(usize, bool)>,
) -> io::Result<usize> {
    let mut moved = None;
    let done = stream.try_io(interest, || match operation()? {
        (length, true) => Ok(length),
        (length, false) => {
            moved = Some(length);
            Err(io::ErrorKind::WouldBlock.into())
        }
    });
    match moved {
        Some(length) => Ok(length),
        None => done,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has ports");
        let address = listener.local_addr().expect("it was bound");
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.expect("it listens"), other.expect("one connects").0)
    }

    #[tokio::test]
    async fn everything_is_read_however_it_comes_and_then_the_end() {
        let (mut client, stream) = pair().await;
        let mut buffer = BytesMut::with_capacity(8);
        for sent in ["abc", "0123456789abcdef", "x"] {
            client.write_all(sent.as_bytes()).await.expect("it is read");
            let mut got = Vec::new();
            while got.len() < sent.len() {
                let length = poll_fn(|cx| poll_read(&stream, &mut buffer, cx)).await.expect("it is open");
                assert!(length > 0);
                got.extend_from_slice(&buffer.split());
                buffer.reserve(8);
            }
            assert_eq!(got, sent.as_bytes());
            let now = poll_fn(|cx| Poll::Ready(poll_read(&stream, &mut buffer, cx).is_ready())).await;
            assert!(!now, "nothing more has come");
        }
        client.write_all(b"last").await.expect("it is read");
        drop(client);
        let last = poll_fn(|cx| poll_read(&stream, &mut buffer, cx)).await;
        assert_eq!((last.ok(), &buffer[..]), (Some(4), &b"last"[..]));
        assert_eq!(poll_fn(|cx| poll_read(&stream, &mut buffer, cx)).await.ok(), Some(0));
    }

    #[tokio::test]
    async fn everything_is_written_however_slowly_it_is_taken() {
        let (mut client, stream) = pair().await;
        let bytes: Vec<u8> = (0..6_000_000u32).map(|n| (n % 251) as u8).collect();
        let writing = async {
            let mut left = &bytes[..];
            let mut vectored = false;
            while !left.is_empty() {
                vectored = !vectored;
                let (first, second) = left.split_at(left.len() / 2);
                let (two, one) = ([IoSlice::new(first), IoSlice::new(second)], [IoSlice::new(left)]);
                let slices = if vectored { &two[..] } else { &one };
                let written = poll_fn(|cx| poll_send(&stream, slices, More::Unknown, cx)).await;
                left = &left[written.expect("it is read")..];
            }
        };
        let mut got = vec![0; bytes.len()];
        let (_, read) = tokio::join!(writing, client.read_exact(&mut got));
        read.expect("it is written");
        assert!(got == bytes);
        drop(client);
        let mut broken = Ok(1);
        while broken.is_ok() {
            broken = poll_fn(|cx| poll_send(&stream, &[IoSlice::new(b"more")], More::Unknown, cx)).await;
        }
    }
}
