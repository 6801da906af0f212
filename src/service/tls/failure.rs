//! Why an instance and the gateway could not agree on TLS. In the words of operators: clients are told that it failed,
//! and no more.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, InvalidMessage};

use super::Protocol;

/// Of what an instance, or a library, says by itself.
const MAX_CHARS: usize = 300;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct TlsFailure {
    what: Arc<str>,
    /// It is the instance's certificate that isn't accepted.
    pub is_about_certificate: bool,
}

impl TlsFailure {
    pub fn of(error: &io::Error, protocol: Protocol) -> Self {
        let told = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match told {
            Some(error @ rustls::Error::InvalidCertificate(_)) => {
                TlsFailure { is_about_certificate: true, ..Self::said(&error.to_string()) }
            }
            Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                Self::said("what it answers to a TLS handshake is not TLS")
            }
            Some(rustls::Error::AlertReceived(alert)) => Self::alerted(*alert, protocol),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::said("it closed the connection in the TLS handshake")
            }
            _ => Self::said(&with_causes(error)),
        }
    }

    /// What the instance says of a handshake that was over already on this side, as it may with TLS 1.3: that it doesn't
    /// take what it was shown. Nothing of a request was looked at then.
    pub fn of_refusal(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?;
        let is_it = |alert: &&AlertDescription| match inner.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::AlertReceived(received)) => received == *alert,
            Some(_) => false,
            // h2 keeps the words alone.
            None => inner.to_string() == rustls::Error::AlertReceived(**alert).to_string(),
        };
        REFUSALS.iter().find(is_it).map(|alert| Self::alerted(*alert, Protocol::Auto))
    }

    /// The host of the instance is nothing that a certificate can be for.
    pub fn name(host: &str) -> Self {
        Self::said(&format!("no certificate can be for the name {host:?}: set `server_name`"))
    }

    pub fn timed_out() -> Self {
        Self::said("it did not end the TLS handshake in time")
    }

    pub fn no_http2() -> Self {
        Self::said("it does not speak HTTP/2 over TLS")
    }

    fn alerted(alert: AlertDescription, protocol: Protocol) -> Self {
        let hint = match alert {
            AlertDescription::CertificateRequired => ": it wants a client certificate",
            AlertDescription::NoApplicationProtocol => match protocol {
                Protocol::Http1 => ": it does not speak HTTP/1.1 over TLS",
                Protocol::Http2 => ": it does not speak HTTP/2 over TLS",
                Protocol::Auto => ": it speaks no HTTP over TLS",
            },
            AlertDescription::UnrecognisedName => ": it serves nothing under this name",
            _ => "",
        };
        Self::said(&format!("it refused the TLS handshake with the alert {alert:?}{hint}"))
    }

    fn said(what: &str) -> Self {
        let what: String = what.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect();
        TlsFailure { what: what.into(), is_about_certificate: false }
    }
}

/// What an instance says of a client that it doesn't take.
const REFUSALS: [AlertDescription; 11] = [
    AlertDescription::CertificateRequired,
    AlertDescription::NoCertificate,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
    AlertDescription::HandshakeFailure,
];

fn with_causes(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
