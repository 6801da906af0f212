//! What a scrape needs to know besides the counters: the state of things at that moment, gathered by
//! whoever owns them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[derive(Clone, Debug)]
pub struct Gauges {
    pub configuration: ConfigurationGauges,
    pub services: Vec<ServiceGauges>,
    pub rate_limits: Vec<RateLimitGauges>,
    pub stale: Vec<StaleGauges>,
    /// Of listeners with TLS.
    pub certificates: Vec<CertificateGauges>,
    /// The files that maintenance depends on, and whether they exist.
    pub maintenance: Vec<(String, bool)>,
    /// Where there is a registry.
    pub registry: Option<RegistryGauges>,
    pub access_log: AccessLogGauges,
    pub draining: bool,
    /// New requests are refused for `max_memory`.
    pub out_of_memory: bool,
}

#[derive(Clone, Debug)]
pub struct ConfigurationGauges {
    /// 1 for the configuration of the start, one more with each that was applied.
    pub generation: u64,
    /// True before the first reload.
    pub last_reload_ok: bool,
    /// When the configuration that is in force was applied.
    pub applied_at: SystemTime,
    pub reloads_applied: u64,
    pub reloads_unchanged: u64,
    pub reloads_refused: u64,
}

#[derive(Clone, Debug)]
pub struct ServiceGauges {
    pub name: Arc<str>,
    /// How long the source of instances has been silent or failing, while the last set is kept.
    pub stale_for: Option<Duration>,
    /// Where the service has a limit.
    pub concurrency: Option<ConcurrencyGauges>,
    /// So few instances are healthy that unhealthy ones get requests, too.
    pub panicking: bool,
    /// Where there is more than one.
    pub groups: Vec<GroupGauges>,
    pub instances: Vec<InstanceGauges>,
}

/// Instances of one priority, in the gateway's zone or not.
#[derive(Clone, Copy, Debug)]
pub struct GroupGauges {
    pub priority: u8,
    pub zone: &'static str,
    /// Of the requests of the service that it gets.
    pub percent: f64,
}

/// A file of a listener that is good until some moment.
#[derive(Clone, Debug)]
pub struct CertificateGauges {
    pub listener: String,
    pub file: String,
    /// Whether it is a certificate, or else a revocation list.
    pub is_certificate: bool,
    pub until: SystemTime,
}

#[derive(Clone, Copy, Debug)]
pub struct ConcurrencyGauges {
    /// Requests that may be in flight.
    pub limit: u32,
    pub in_flight: u32,
    pub waiting: u32,
}

#[derive(Clone, Debug)]
pub struct InstanceGauges {
    pub address: SocketAddr,
    pub healthy: bool,
    /// It can't be reached, or answers nobody while others answer.
    pub passed_over: bool,
    pub breaker: Breaker,
    /// Of routes that have one of their own: the route, its state, and how many times it opened.
    pub route_breakers: Vec<(Arc<str>, Breaker, u64)>,
    /// How many times it opened.
    pub breaker_opens: u64,
    /// Where the service has outlier detection.
    pub ejected: Option<bool>,
    /// How many times it was ejected, by reason.
    pub ejections: [(&'static str, u64); 3],
    /// Requests that wait for the instance or receive from it.
    pub in_flight: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    Closed,
    HalfOpen,
    Open,
}

impl Breaker {
    pub(super) fn number(self) -> i64 {
        match self {
            Breaker::Closed => 0,
            Breaker::HalfOpen => 1,
            Breaker::Open => 2,
        }
    }
}

#[derive(Clone, Debug)]
pub struct RateLimitGauges {
    pub name: Arc<str>,
    /// Keys with a state of their own.
    pub keys: u64,
}

/// What a route keeps for the time of errors.
#[derive(Clone, Debug)]
pub struct StaleGauges {
    pub route: Arc<str>,
    /// Of an aggregate, where one of its parts keeps them.
    pub part: Option<Arc<str>>,
    pub answers: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct RegistryGauges {
    pub instances: u64,
    pub watchers: u64,
    /// Since the start.
    pub expired: u64,
}

/// [`AccessLog::written`](crate::telemetry::access_log::AccessLog::written) and `dropped`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessLogGauges {
    pub written: u64,
    pub dropped: u64,
}
