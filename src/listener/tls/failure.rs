//! Why a handshake failed, for the count and the log.

use std::io;

use rustls::Error;

use crate::telemetry::metrics::TlsFailure;

/// What kind of failure it was.
pub fn kind(error: &io::Error) -> TlsFailure {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return TlsFailure::Closed;
    };
    match error {
        Error::NoCertificatesPresented
        | Error::InvalidCertificate(_)
        | Error::InvalidCertRevocationList(_) => TlsFailure::ClientCertificate,
        Error::NoApplicationProtocol => TlsFailure::Protocol,
        Error::PeerIncompatible(_) => TlsFailure::Unsupported,
        Error::AlertReceived(_) => TlsFailure::RefusedByClient,
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::DecryptError
        | Error::PeerSentOversizedRecord => TlsFailure::Malformed,
        _ => TlsFailure::Other,
    }
}
