//! One health check of one instance, on a connection of its own, and why it failed.
//!
//! Everything that an instance can do to a check (refuse, accept and never answer, answer garbage, close, answer without
//! end) ends it within the timeout and with a reason. The connection ends with the check, and so does all that reads from it.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use http::StatusCode;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::get::{get, get_http2};
use super::grpc::{self, NotServing};
use crate::service::stream::Stream;
use crate::service::{HealthProbe, HealthSettings, Instance, Protocol, TlsFailure, UpstreamTls};

/// The most bytes of a response head that a check reads.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// And of a body, where something is to be in it.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Of a reason, which may quote the instance.
const MAX_REASON_CHARS: usize = 300;

/// Why a check failed. For operators only: it names inner addresses' troubles.
#[derive(Debug, Error)]
pub enum CheckError {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    #[error("no secure connection")]
    Tls(#[from] TlsFailure),
    #[error("no end of the TLS handshake within {0:?}")]
    TlsTimeout(Duration),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("no usable answer")]
    Exchange(#[source] hyper::Error),
    #[error("no usable answer in HTTP/2")]
    Http2(#[source] h2::Error),
    #[error("the check's request cannot be made")]
    Request(#[source] http::Error),
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("the body broke off")]
    Body(#[source] hyper::Error),
    #[error("the body does not have the expected text")]
    Unexpected,
    #[error("the first 64 KiB of the body do not have the expected text")]
    UnexpectedSoFar,
    #[error(transparent)]
    NotServing(#[from] NotServing),
}

impl CheckError {
    /// Whether there was not even a connection.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            CheckError::Connect(_)
                | CheckError::ConnectTimeout(_)
                | CheckError::Tls(_)
                | CheckError::TlsTimeout(_)
        )
    }

    /// This error and its causes on one line.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let more = error.to_string();
            // hyper and h2 repeat some of their causes.
            if !text.ends_with(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect()
    }
}

/// Whether the instance is well: over `tls`, if its service is spoken to that way. Then an instance that nobody can
/// agree with on TLS is not well, whatever it is asked.
pub async fn check(
    instance: &Instance,
    tls: Option<&UpstreamTls>,
    settings: &HealthSettings,
) -> Result<(), CheckError> {
    let limit = settings.timeout;
    let deadline = Instant::now() + limit;
    let stream = timeout_at(deadline, TcpStream::connect(instance.address))
        .await
        .map_err(|_| CheckError::ConnectTimeout(limit))?
        .map_err(CheckError::Connect)?;
    let (stream, is_http2) = match tls {
        None => (Stream::Plain(stream), settings.protocol == Protocol::Http2),
        Some(tls) => timeout_at(deadline, secured(instance, tls, settings, stream))
            .await
            .map_err(|_| CheckError::TlsTimeout(limit))?
            .inspect_err(|failure| instance.set_tls_failure(failure))?,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let asked = async {
        match &settings.probe {
            HealthProbe::Tcp => Ok(()),
            HealthProbe::Http(expected) if is_http2 => {
                get_http2(stream, scheme, &instance.authority, expected).await
            }
            HealthProbe::Http(expected) => get(stream, &instance.authority, expected).await,
            HealthProbe::Grpc { service } => {
                grpc::ask(stream, scheme, &instance.authority, service, limit).await
            }
        }
    };
    timeout_at(deadline, asked).await.map_err(|_| CheckError::Timeout(limit))??;
    instance.agreed_on_tls();
    Ok(())
}

async fn secured(
    instance: &Instance,
    tls: &UpstreamTls,
    settings: &HealthSettings,
    stream: TcpStream,
) -> Result<(Stream, bool), TlsFailure> {
    let protocol = match settings.probe {
        HealthProbe::Tcp | HealthProbe::Http(_) => settings.protocol,
        HealthProbe::Grpc { .. } => Protocol::Http2,
    };
    let authority = std::str::from_utf8(instance.authority.as_bytes()).unwrap_or_default();
    tls.once(authority, protocol)
        .secure(stream)
        .await
        .map(|(stream, is_http2)| (Stream::secured(stream), is_http2))
}

/// What comes of an exchange while its connection is driven.
pub async fn beside<T>(exchange: impl Future<Output = T>, connection: impl Future) -> T {
    let mut exchange = pin!(exchange);
    tokio::select! {
        came = &mut exchange => came,
        // An instance that closes at once has often answered before: the exchange knows.
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests;
