//! The orderly end of a connection, which takes no response with it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::io::Transport;

/// How long a client may take for each step of the end.
pub const WITHIN: Duration = Duration::from_secs(2);

/// So much is still read of what a client sends on.
const LINGER_BYTES: usize = 1024 * 1024;

/// Says that nothing more comes. A close while the client `sends_on` would reset the connection and take our last
/// response with it (RFC 9112 §9.6): it is read on for a moment, and up to a limit.
pub async fn close(transport: Transport, sends_on: bool) {
    if let Transport::Plain(_) | Transport::Fresh(_) = transport
        && !sends_on
    {
        // What is dropped is closed by the kernel, which sends what is unsent and then says so itself.
        return;
    }
    // In a box, so that no connection holds the place for it all its life.
    Box::pin(part(transport, sends_on)).await;
}

async fn part(mut transport: Transport, sends_on: bool) {
    let _ = timeout(WITHIN, transport.shutdown()).await;
    if sends_on {
        let _ = timeout(WITHIN, Box::pin(linger(transport))).await;
    }
}

async fn linger(mut transport: Transport) {
    let mut left = LINGER_BYTES;
    let mut scratch = [0u8; 8 * 1024];
    // The end, or a reset: either way there is nobody left to wait for.
    while let Ok(read @ 1..) = transport.read(&mut scratch).await {
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}
