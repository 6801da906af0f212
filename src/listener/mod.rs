//! Where clients come in: accepting, TLS, HTTP/1.1 and HTTP/2 connections, their limits and their end.

mod accept;
mod answering;
mod bind;
mod clients;
mod closing;
pub mod descriptors;
mod drain;
mod encode;
mod framing;
mod head;
mod http1;
mod http2;
mod interims;
mod io;
mod line;
mod listening;
mod outbound;
mod sending;
mod state;
mod tls;
mod upgrade;
mod watchdog;

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::http::forwarded::ConnFacts;
use crate::identity::ClientNames;
use crate::telemetry::metrics::ListenerMetrics;
use crate::worker::Worker;

pub use accept::{Acceptor, accept};
pub use bind::{BindError, bind};
pub use clients::{Clients, PerClient};
pub use drain::Drain;
pub use framing::BodyFraming;
pub use head::{HeadLimits, HeadReader, trailers};
pub use listening::Listening;
pub use tls::{Expiry, ServerTls, Tickets, server_tls};
pub use upgrade::Upgrade;

/// For how long after draining has begun a connection without a request is kept: a client that hasn't been
/// told yet may be sending its next one. Requests that come are served, and told that they are the last.
pub const LAST_CALL: Duration = Duration::from_millis(500);

/// What a client of a listener may use up.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Of one worker.
    pub max_connections: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_uri_bytes: usize,
    pub max_streams: u32,
    /// Of all workers.
    pub per_client: Option<PerClient>,
    /// Bytes a second; 0 for none.
    pub min_upload_rate: u64,
    pub min_download_rate: u64,
}

impl Limits {
    /// `max_connections` is divided among the workers, for the kernel spreads connections evenly. There are never
    /// more than the process has file descriptors for.
    pub fn compile(limits: &config::Limits, workers: usize) -> Self {
        let all = limits.max_connections.min(descriptors::client_connections());
        Limits {
            max_connections: all.div_ceil(workers.max(1)),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            max_header_bytes: limits.max_header_bytes,
            max_headers: limits.max_headers,
            max_uri_bytes: limits.max_uri_bytes,
            max_streams: limits.max_streams,
            per_client: per_client(limits),
            min_upload_rate: limits.min_upload_rate,
            min_download_rate: limits.min_download_rate,
        }
    }
}

fn per_client(limits: &config::Limits) -> Option<PerClient> {
    let rate = limits.connection_rate_per_client.map(|rate| (rate.count, rate.per));
    let most = limits.max_connections_per_client;
    (most.is_some() || rate.is_some()).then(|| PerClient { most: most.unwrap_or(u32::MAX), rate })
}

/// What a listener's connections begin with. A reload replaces it as a whole.
#[derive(Clone)]
pub struct Settings {
    pub name: Arc<str>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub limits: Limits,
    pub metrics: Arc<ListenerMetrics>,
    /// Who has how many connections; it lives on over reloads.
    pub clients: Arc<Clients>,
}

/// What all requests of a connection have in common.
pub struct Connection {
    pub worker: Rc<Worker>,
    pub settings: Rc<Settings>,
    pub facts: ConnFacts,
    /// Of the certificate that the client showed, if it did, once hands are shaken.
    pub client_names: OnceCell<ClientNames>,
}

impl Drop for Connection {
    /// However it ended, and be it by a panic.
    fn drop(&mut self) {
        self.settings.metrics.closed(self.worker.id);
    }
}
