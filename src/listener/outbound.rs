//! Bytes on their way to an HTTP/1.1 client: heads and short pieces of bodies in one buffer, and behind them at
//! most one long piece, which is not copied. All of it leaves with one write where the client takes it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::io::Transport;
use crate::buffers::{BUFFER_BYTES, Buffers};
use crate::socket::More;

/// A piece that is not longer is copied behind what is there already.
const SHORT_PIECE_BYTES: usize = 8 * 1024;

/// Holds no buffer while there is nothing to write.
#[derive(Default)]
pub struct Outbound {
    buffer: BytesMut,
    written: usize,
    piece: Bytes,
    /// What stands behind the piece.
    tail: &'static [u8],
    /// TLS has taken all, and may not have passed all of it on.
    unflushed: bool,
    /// The connection ends behind what is here.
    is_last: bool,
}

impl Outbound {
    pub fn is_empty(&self) -> bool {
        self.is_written() && !self.unflushed
    }

    /// Bytes that are still to be written.
    pub fn left(&self) -> usize {
        self.buffer.len() - self.written + self.piece.len() + self.tail.len()
    }

    fn is_written(&self) -> bool {
        self.left() == 0
    }

    /// Whether another piece may be added before anything is written.
    pub fn has_room(&self) -> bool {
        self.piece.is_empty()
            && self.tail.is_empty()
            && self.buffer.len() < BUFFER_BYTES / 2 - SHORT_PIECE_BYTES
    }

    /// What is appended here is written behind what is there. Only while it [has room](Self::has_room), or is empty.
    pub fn buffer(&mut self, buffers: &Buffers) -> &mut BytesMut {
        if self.buffer.capacity() == 0 {
            self.buffer = buffers.take();
        }
        &mut self.buffer
    }

    /// A piece, and what follows it. Only while it has room.
    pub fn push(&mut self, piece: Bytes, tail: &'static [u8], buffers: &Buffers) {
        if piece.len() > SHORT_PIECE_BYTES {
            self.piece = piece;
            self.tail = tail;
            return;
        }
        let buffer = self.buffer(buffers);
        buffer.extend_from_slice(&piece);
        buffer.extend_from_slice(tail);
    }

    /// Nothing comes behind what is here, and as soon as it is written, the transport is closed.
    pub fn mark_last(&mut self) {
        self.is_last = true;
    }

    /// Ready when everything has been handed to the kernel.
    pub fn poll_write(
        &mut self,
        transport: &mut Transport,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_written() {
            let slices = [&self.buffer[self.written..], &self.piece, self.tail].map(IoSlice::new);
            let slices = if self.piece.is_empty() && self.tail.is_empty() { &slices[..1] } else { &slices };
            let more = if self.is_last { More::End } else { More::Unknown };
            let written = ready!(transport.poll_send(slices, more, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            self.unflushed = true;
        }
        if self.buffer.capacity() > 0 {
            self.written = 0;
            buffers.give(std::mem::take(&mut self.buffer));
        }
        ready!(Pin::new(transport).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        let of_buffer = written.min(self.buffer.len() - self.written);
        self.written += of_buffer;
        written -= of_buffer;
        let of_piece = written.min(self.piece.len());
        self.piece.advance(of_piece);
        self.tail = &self.tail[written - of_piece..];
        if self.piece.is_empty() {
            // A long piece may be a piece of a longer buffer.
            self.piece = Bytes::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (Transport, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has ports");
        let address = listener.local_addr().expect("it was bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Transport::Plain(accepted.expect("one connects").0), client.expect("it listens"))
    }

    #[tokio::test]
    async fn everything_comes_in_order_however_much_is_taken_at_once() {
        let (mut transport, mut client) = pair().await;
        let buffers = Buffers::default();
        let mut out = Outbound::default();
        assert!(out.is_empty() && out.has_room());
        let long = Bytes::from((0..8_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>());
        out.buffer(&buffers).extend_from_slice(b"head ");
        out.push(Bytes::from_static(b"short"), b"; ", &buffers);
        assert!(out.has_room());
        out.push(long.clone(), b" end", &buffers);
        assert!(!out.has_room() && !out.is_empty());
        let mut got = vec![0; 12 + long.len() + 4];
        let writing = std::future::poll_fn(|cx| out.poll_write(&mut transport, &buffers, cx));
        let (written, read) = tokio::join!(writing, client.read_exact(&mut got));
        written.expect("it is read");
        read.expect("it is written");
        assert!(out.is_empty() && out.buffer.capacity() == 0);
        assert!(got.starts_with(b"head short; ") && got.ends_with(b" end"));
        assert_eq!(got[12..12 + long.len()], long);
    }
}
