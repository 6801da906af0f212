//! How a pool's connections come to be: connected, over TLS where the service says so, and agreed on what is spoken.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{InstancePool, Lease, OpenSlot};
use crate::service::InstanceRef;
use crate::service::attempt::{AttemptLimits, earliest};
use crate::service::carrier::Carrier;
use crate::service::http1::Connection;
use crate::service::stream::Stream;
use crate::service::tls::{Channel, Protocol, TlsFailure, UpstreamTls};

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the connection was refused or broke off")]
    Failed(#[source] io::Error),
    #[error("connecting took too long")]
    TimedOut,
    #[error("TLS could not be agreed on")]
    Tls(#[source] TlsFailure),
    #[error("the TLS handshake took too long")]
    TlsTimedOut,
    #[error("all connections, or what the machine has for them, are in use")]
    Exhausted,
    /// Another instance may have one that is free.
    #[error("all connections to this instance are in use")]
    Full { waited: bool },
}

impl ConnectError {
    /// What this machine is short of says nothing about the instance.
    fn of(error: io::Error) -> Self {
        use rustix::io::Errno;
        let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
        match Errno::from_io_error(&error) {
            Some(errno) if short.contains(&errno) => ConnectError::Exhausted,
            _ => ConnectError::Failed(error),
        }
    }
}

/// How a pool's connections become TLS ones.
pub(super) struct Secure {
    pub tls: Arc<UpstreamTls>,
    pub channel: Channel,
}

/// By when a new connection is to be there.
#[derive(Clone, Copy)]
pub struct ConnectBy<'a> {
    /// When the attempt began.
    pub began: Instant,
    pub limits: &'a AttemptLimits,
}

impl ConnectBy<'_> {
    pub(super) fn connected(self) -> Instant {
        earliest(self.began + self.limits.connect, self.limits.deadline)
    }

    /// The end of a handshake that begins at `start`.
    pub(super) fn agreed(self, start: Instant) -> Instant {
        earliest(start + self.limits.tls, self.limits.deadline)
    }
}

impl InstancePool {
    pub(super) async fn connect(self: &Rc<Self>, by: ConnectBy<'_>) -> Result<Lease, ConnectError> {
        let slot = OpenSlot::take(self);
        let stream = open_stream(self.instance.address, by.connected()).await?;
        if self.secure.is_none() && self.shared.is_none() {
            return Ok(self.own(Stream::Plain(stream), slot));
        }
        // Boxed, so that requests over plain connections are no larger for it.
        Box::pin(self.agree(stream, slot, by)).await
    }

    pub(super) fn own(&self, stream: Stream, slot: OpenSlot) -> Lease {
        let connection = Carrier::Http1(Connection::new(stream, self.workspace.clone()));
        Lease { connection: Box::new(connection), reused: false, slot: Some(slot) }
    }

    /// Agrees on TLS, if that is wanted, and on what is spoken.
    pub(super) async fn agree(
        self: &Rc<Self>,
        stream: TcpStream,
        slot: OpenSlot,
        by: ConnectBy<'_>,
    ) -> Result<Lease, ConnectError> {
        let (stream, is_http2) = match &self.secure {
            None => (Stream::Plain(stream), true),
            Some(secure) => self.secured(secure, stream, by).await?,
        };
        match &self.shared {
            Some(shared) if is_http2 => self.share(shared, stream, slot, by).await,
            Some(shared) => {
                shared.is_http1.set(true);
                Ok(self.own(stream, slot))
            }
            None => Ok(self.own(stream, slot)),
        }
    }

    async fn secured(
        &self,
        secure: &Secure,
        stream: TcpStream,
        by: ConnectBy<'_>,
    ) -> Result<(Stream, bool), ConnectError> {
        match timeout_at(by.agreed(Instant::now()), secure.channel.secure(stream)).await {
            Ok(Ok((stream, is_http2))) => Ok((Stream::secured(stream), is_http2)),
            Ok(Err(failure)) => {
                self.instance.set_tls_failure(&failure);
                Err(ConnectError::Tls(failure))
            }
            Err(_) => {
                self.instance.set_tls_failure(&TlsFailure::timed_out());
                Err(ConnectError::TlsTimedOut)
            }
        }
    }
}

impl Secure {
    pub fn new(tls: &Arc<UpstreamTls>, protocol: Protocol, instance: &InstanceRef) -> Self {
        // It was made of text.
        let authority = std::str::from_utf8(instance.authority().as_bytes()).unwrap_or_default();
        Secure { tls: tls.clone(), channel: tls.channel(authority, protocol) }
    }
}

async fn open_stream(address: SocketAddr, deadline: Instant) -> Result<TcpStream, ConnectError> {
    let stream = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectError::TimedOut)?
        .map_err(ConnectError::of)?;
    stream.set_nodelay(true).map_err(ConnectError::Failed)?;
    Ok(stream)
}
