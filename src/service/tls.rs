//! TLS to the instances of a service: whom to trust, what to show, and which name counts.
//!
//! What a configuration says is made into one object, which a reload takes over as long as nothing that it is made
//! of has changed, the contents of files included. Connections belong to the object that they were made with: none
//! that was made with another serves a request.

mod compile;
mod failure;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use compile::SystemRoots;
pub use failure::TlsFailure;

/// Sessions with an instance that a worker may go on with: as many as it mostly hands out.
const TICKETS: usize = 8;

/// How the instances of a service are spoken to over TLS.
pub struct UpstreamTls {
    /// Unique for the life of the process.
    pub id: u64,
    /// What is spoken over it.
    pub protocol: Protocol,
    /// Resumes nothing and names no protocol.
    config: ClientConfig,
    /// What certificates must be for, whatever the instance is called.
    server_name: Option<ServerName<'static>>,
    /// Of all that it is made of.
    digest: [u8; 32],
    /// The id of the one that the service has now, which its successors share.
    present: Arc<AtomicU64>,
}

/// What is spoken with instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
    /// What the instance prefers, where it can say so: over TLS. HTTP/1.1 otherwise.
    Auto,
}

impl Protocol {
    /// As ALPN names them (RFC 7301).
    fn names(self) -> Vec<Vec<u8>> {
        match self {
            Protocol::Http1 => vec![HTTP1.to_vec()],
            Protocol::Http2 => vec![HTTP2.to_vec()],
            Protocol::Auto => vec![HTTP2.to_vec(), HTTP1.to_vec()],
        }
    }

    /// Whether HTTP/2 may be spoken.
    pub fn may_share(self, over_tls: bool) -> bool {
        match self {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => over_tls,
        }
    }
}

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

impl UpstreamTls {
    /// Connections that are made from now on are made with this one.
    pub fn take_effect(&self) {
        self.present.store(self.id, Relaxed);
    }

    /// Whether another has taken its place.
    pub fn is_over(&self) -> bool {
        self.present.load(Relaxed) != self.id
    }

    /// For connections to the instance that is written as `authority`. They resume sessions among themselves.
    pub fn channel(&self, authority: &str, protocol: Protocol) -> Channel {
        self.with(authority, protocol, Resumption::in_memory_sessions(TICKETS))
    }

    /// For a single connection to it, which is to show what the instance's certificate is now.
    pub fn once(&self, authority: &str, protocol: Protocol) -> Channel {
        self.with(authority, protocol, Resumption::disabled())
    }

    fn with(&self, authority: &str, protocol: Protocol, resumption: Resumption) -> Channel {
        let mut config = self.config.clone();
        config.alpn_protocols = protocol.names();
        config.resumption = resumption;
        let name = self.server_name.clone().ok_or(()).or_else(|()| name_in(authority));
        Channel { connector: TlsConnector::from(Arc::new(config)), name, protocol }
    }
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How connections to one instance become TLS ones.
pub struct Channel {
    connector: TlsConnector,
    /// Without a name that a certificate can be for, there is nobody to speak to.
    name: Result<ServerName<'static>, TlsFailure>,
    protocol: Protocol,
}

impl Channel {
    /// The handshake, and whether HTTP/2 was agreed on. Ends when the instance has shown who it is; whether it takes what it
    /// was shown, it may say later.
    pub async fn secure(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, bool), TlsFailure> {
        let name = self.name.clone()?;
        let stream = self.connector.connect(name, stream).await;
        let stream = stream.map_err(|error| TlsFailure::of(&error, self.protocol))?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        // RFC 9113 §3.3: who says nothing doesn't speak it.
        if self.protocol == Protocol::Http2 && !is_http2 {
            return Err(TlsFailure::no_http2());
        }
        Ok((stream, is_http2))
    }
}

/// The host of `host:port`, as a certificate names it.
fn name_in(authority: &str) -> Result<ServerName<'static>, TlsFailure> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|_| TlsFailure::name(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_instance_is_the_name_that_counts() {
        let name = |authority| name_in(authority).map(|name| name.to_str().into_owned());
        for (authority, expected) in [
            ("users.internal:8443", "users.internal"),
            ("users.internal.:443", "users.internal"),
            ("users_1:443", "users_1"),
            ("127.0.0.1:8443", "127.0.0.1"),
            ("[::1]:8443", "::1"),
            ("[::ffff:10.0.0.1]:8443", "10.0.0.1"),
        ] {
            assert_eq!(name(authority).as_deref(), Ok(expected), "{authority}");
        }
        for wrong in ["a..b:443", ":443", "-:443"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
