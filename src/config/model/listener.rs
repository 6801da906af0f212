//! Listeners: addresses, TLS and the limits on what a client may use up.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{At, Rate};

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: At<String>,
    pub bind: At<SocketAddr>,
    pub tls: Option<Tls>,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    pub min_version: TlsVersion,
    /// At least one; the first is the default for clients that name no known host.
    pub certificates: Vec<CertificateFiles>,
    pub client_certificates: Option<ClientCertificates>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClientCertificates {
    /// The authorities whose certificates are believed.
    pub trust: At<PathBuf>,
    pub mode: ClientCertificateMode,
    /// Certificates that are believed no more.
    pub crl: Option<At<PathBuf>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificateMode {
    /// Whoever shows none is let in; whoever shows a bad one is not.
    Optional,
    Required,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// Paths are absolute: `load` has joined them to the directory of the configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateFiles {
    pub certificate: At<PathBuf>,
    pub private_key: At<PathBuf>,
    /// What its issuer says about it.
    pub ocsp: Option<At<PathBuf>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub max_connections: usize,
    /// From the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// Keep-alive without a request.
    pub idle_timeout: Duration,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_uri_bytes: usize,
    /// HTTP/2 concurrent streams per connection.
    pub max_streams: u32,
    /// Connections of one address, or of one /64 of IPv6.
    pub max_connections_per_client: Option<u32>,
    /// How fast it may begin them.
    pub connection_rate_per_client: Option<Rate>,
    /// Bytes a second that a client has to send of a body; 0 for none.
    pub min_upload_rate: u64,
    /// The same of a response that it takes.
    pub min_download_rate: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 20_000,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_uri_bytes: 8 * 1024,
            max_streams: 128,
            max_connections_per_client: None,
            connection_rate_per_client: None,
            min_upload_rate: 100,
            min_download_rate: 100,
        }
    }
}
