//! What hyper reads and writes of a connection to an instance.
//!
//! hyper goes through interim responses (1xx) without end and, as long as more of them come, without a pause:
//! an instance that sends nothing else would have the worker for itself. So they are counted, and when there
//! are too many the connection breaks.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// To one request. An instance may show progress this way (102, 104), so it isn't very few.
const MAX_INTERIMS: u32 = 1000;

/// The interim responses to the request that a connection carries. Atomic because hyper asks it of what it is
/// given; one thread only uses it.
#[derive(Default)]
pub struct Interims(AtomicU32);

impl Interims {
    pub fn restart(&self) {
        self.0.store(0, Relaxed);
    }

    /// Counts one, and says whether it may still be passed on.
    pub fn count(&self) -> bool {
        self.0.fetch_add(1, Relaxed) < MAX_INTERIMS
    }

    fn are_too_many(&self) -> bool {
        self.0.load(Relaxed) > MAX_INTERIMS
    }
}

pub struct UpstreamIo {
    stream: TcpStream,
    interims: Arc<Interims>,
}

impl UpstreamIo {
    pub fn new(stream: TcpStream, interims: Arc<Interims>) -> Self {
        UpstreamIo { stream, interims }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.interims.are_too_many() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "too many interim responses");
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
