//! Services whose instances are spoken to over TLS.

use std::path::PathBuf;

use super::{At, CertificateFiles, TlsVersion};
use crate::config::source::Span;

/// TLS to the instances of a service, all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceTls {
    /// Where TLS is asked for.
    pub at: At<()>,
    /// Certificates that are trusted; `None` for those of the system.
    pub trust: Option<At<PathBuf>>,
    /// A domain name or an IP address. Without one, the host of each instance counts.
    pub server_name: Option<String>,
    /// What the gateway shows where it is asked for a certificate.
    pub client: Option<CertificateFiles>,
    pub min_version: TlsVersion,
    /// Whether certificates are checked at all.
    pub verify: bool,
}

impl ServiceTls {
    pub fn usual(span: Span) -> Self {
        let min_version = TlsVersion::Tls12;
        let at = At { value: (), span };
        ServiceTls { at, trust: None, server_name: None, client: None, min_version, verify: true }
    }
}
