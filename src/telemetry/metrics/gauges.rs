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
    /// Where there is a registry.
    pub registry: Option<RegistryGauges>,
    pub access_log: AccessLogGauges,
    pub draining: bool,
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
    pub instances: Vec<InstanceGauges>,
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
    pub breaker: Breaker,
    /// How many times it opened.
    pub breaker_opens: u64,
    /// Requests that wait for the instance or receive from it.
    pub in_flight: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    Closed,
    HalfOpen,
    Open,
}

#[derive(Clone, Debug)]
pub struct RateLimitGauges {
    pub name: Arc<str>,
    /// Keys with a state of their own.
    pub keys: u64,
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
