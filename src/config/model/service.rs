//! Services: where instances come from, and how requests are spread over them and repeated.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::At;
use crate::config::secret::Secret;

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: At<String>,
    pub source: InstanceSource,
    pub load_balancing: LoadBalancing,
    /// How long a new instance takes to get to its share.
    pub slow_start: Option<Duration>,
    pub sticky: Option<Sticky>,
    pub health_check: Option<HealthCheck>,
    pub circuit_breaker: CircuitBreaker,
    pub retries: Retries,
    pub timeouts: Timeouts,
    pub pool: Pool,
    pub fallback: Option<StaticResponse>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InstanceSource {
    Static(Vec<StaticInstance>),
    Dns(DnsSource),
    File(At<PathBuf>),
    /// The built-in registry, under the service's own name.
    Registry,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StaticInstance {
    /// `host:port` of an `http://` URL; the host may be a name, an IPv4 or a bracketed IPv6 address.
    pub authority: At<String>,
    /// 1 or more.
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DnsSource {
    pub name: At<String>,
    /// Absent only with `srv: true`, whose records bring their own.
    pub port: Option<u16>,
    /// Default 10 s.
    pub refresh: Duration,
    pub srv: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadBalancing {
    RoundRobin,
    Weighted,
    Random,
    LeastRequests,
    PeakEwma,
    ConsistentHash(ConsistentHash),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHash {
    pub key: HashKey,
    /// Per cent of the mean load, above 100; `None` for no bound.
    pub max_load: Option<u16>,
}

/// A cookie by which a client stays with an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Sticky {
    pub cookie: String,
    /// Without one, a random key of the process.
    pub secret: Option<Secret>,
}

/// What of a request says which instance it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    Header(HeaderName),
    Cookie(String),
    Claim(String),
    Ip,
    Path,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub healthy_after: u32,
    pub unhealthy_after: u32,
    pub expect_status: Vec<StatusRange>,
    /// Per cent of the instances, 1 to 100: with fewer healthy, all get requests. `None` for never.
    pub panic_threshold: Option<u8>,
}

/// Inclusive at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub from: u16,
    pub to: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    pub consecutive_failures: u32,
    /// Per cent, 1 to 100; `None` when the ratio never opens it.
    pub failure_ratio: Option<u8>,
    pub minimum_requests: u32,
    pub window: Duration,
    pub open_for: Duration,
    pub max_open_for: Duration,
    pub half_open_requests: u32,
    pub failures: Vec<FailureKind>,
}

/// What counts as a failure of an attempt, for breakers and for retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    ConnectFailure,
    Reset,
    Timeout,
    Status(StatusRange),
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker {
            consecutive_failures: 5,
            failure_ratio: Some(50),
            minimum_requests: 20,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            max_open_for: Duration::from_secs(300),
            half_open_requests: 1,
            failures: vec![
                FailureKind::ConnectFailure,
                FailureKind::Reset,
                FailureKind::Timeout,
                FailureKind::Status(StatusRange { from: 502, to: 504 }),
            ],
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retries {
    /// Beyond the first; 0 switches retries off.
    pub attempts: u32,
    pub on: Vec<FailureKind>,
    pub methods: Vec<Method>,
    pub per_attempt_timeout: Option<Duration>,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// Per cent of the service's requests in the last 10 s, 0 to 100.
    pub budget: u8,
}

impl Default for Retries {
    fn default() -> Self {
        Retries {
            attempts: 2,
            on: vec![
                FailureKind::ConnectFailure,
                FailureKind::Reset,
                FailureKind::Status(StatusRange { from: 502, to: 504 }),
            ],
            methods: vec![Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE],
            per_attempt_timeout: None,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_secs(1),
            budget: 20,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From the request's being sent to the response's head.
    pub response: Duration,
    /// Without a byte of a body, in either direction.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(15),
            idle: Duration::from_secs(60),
        }
    }
}

/// Per instance, over all workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub max_connections: usize,
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Pool { max_connections: 1024, max_idle: 128, idle_timeout: Duration::from_secs(60) }
    }
}

/// A response written in the configuration: `respond`, and a service's `fallback`.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticResponse {
    pub status: StatusCode,
    /// Serialised already: `json` as compact JSON, `text` as it is.
    pub body: bytes::Bytes,
    /// `application/json`, `text/plain; charset=utf-8`, or absent when there is no body.
    pub content_type: Option<HeaderValue>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
