//! Services: where instances come from, and how requests are spread over them and repeated.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method, Uri};

use super::{At, ServiceTls, StaticResponse};
use crate::config::secret::Secret;

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: At<String>,
    pub source: InstanceSource,
    pub protocol: Protocol,
    /// How its instances are spoken to over TLS; `None` for plain connections.
    pub tls: Option<ServiceTls>,
    pub load_balancing: LoadBalancing,
    /// How long a new instance takes to get to its share.
    pub slow_start: Option<Duration>,
    pub sticky: Option<Sticky>,
    pub failover: Failover,
    pub health_check: Option<HealthCheck>,
    pub outlier_detection: Option<OutlierDetection>,
    pub circuit_breaker: CircuitBreaker,
    pub retries: Retries,
    pub hedging: Option<Hedging>,
    pub timeouts: Timeouts,
    pub pool: Pool,
    pub concurrency: Option<Concurrency>,
    pub fallback: Option<StaticResponse>,
}

/// What is spoken with instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    H2,
    /// By ALPN; HTTP/1.1 where there is no TLS.
    Auto,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InstanceSource {
    Static(Vec<StaticInstance>),
    Dns(DnsSource),
    File(At<PathBuf>),
    /// The built-in registry, under the service's own name.
    Registry,
    /// That of another gateway, likewise.
    SharedRegistry(RegistrySource),
    Etcd(EtcdSource),
    Consul(ConsulSource),
}

#[derive(Clone, Debug, PartialEq)]
pub struct StaticInstance {
    /// `host:port` of an `http://` or `https://` URL; the host may be a name, an IPv4 or a bracketed IPv6 address.
    pub authority: At<String>,
    /// 1 or more.
    pub weight: u32,
    pub zone: Option<String>,
    /// 0 to 9; 0 for those that are used first.
    pub priority: u8,
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

#[derive(Clone, Debug, PartialEq)]
pub struct RegistrySource {
    /// `http://host:port` or `https://host:port`.
    pub address: At<Uri>,
    /// Can be sent in a header.
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EtcdSource {
    /// `http://host:port` or `https://host:port`; one or more, each once.
    pub endpoints: Vec<At<Uri>>,
    /// Not empty.
    pub prefix: String,
    pub login: Option<EtcdLogin>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EtcdLogin {
    pub username: String,
    pub password: Secret,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConsulSource {
    /// `http://host:port` or `https://host:port`.
    pub address: At<Uri>,
    pub service: String,
    pub tag: Option<String>,
    pub datacenter: Option<String>,
    /// Can be sent in a header.
    pub token: Option<Secret>,
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

/// How requests go over to other zones and priorities.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// Per cent, 100 or more: what the rest of a zone, or of a priority, is expected to take of its usual part.
    pub overprovisioning: u16,
    /// The zone whose instances are preferred; `None` where zones play no part.
    pub local_zone: Option<String>,
}

impl Default for Failover {
    fn default() -> Self {
        Failover { overprovisioning: 140, local_zone: None }
    }
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
    pub probe: HealthProbe,
    pub interval: Duration,
    /// Per cent of the interval, 0 to 100.
    pub jitter: u8,
    pub timeout: Duration,
    pub healthy_after: u32,
    pub unhealthy_after: u32,
    /// Per cent of the instances, 1 to 100: with fewer healthy, all get requests. `None` for never.
    pub panic_threshold: Option<u8>,
}

/// How an instance is asked whether it is well.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthProbe {
    /// A connection is enough.
    Tcp,
    Http(HttpProbe),
    /// The gRPC health protocol; an empty name asks for the server as a whole.
    Grpc {
        service: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    pub path: String,
    pub expect_status: Vec<StatusRange>,
    /// A part of the body; not empty.
    pub expect_body: Option<String>,
}

/// When an instance is ejected for doing worse than the others.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// `None` when failures in a row never do it.
    pub consecutive_failures: Option<u32>,
    /// Percentage points above what is usual among the others, 1 to 100; `None` for never.
    pub failure_ratio: Option<u8>,
    /// Per cent of what is usual among the others, above 100; `None` for never.
    pub latency: Option<u16>,
    pub minimum_requests: u32,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    /// Not shorter than that.
    pub max_ejection_time: Duration,
    /// Per cent of the instances, 1 to 100.
    pub max_ejected: u8,
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
    /// So many bytes of a request's body are kept to be sent again; 0 for none.
    pub keep_body: u64,
    /// The head of a response waits for its body, where that has so many bytes at most; 0 for none.
    pub buffer_response: u64,
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
            keep_body: 64 << 10,
            buffer_response: 16 << 10,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    pub connect: Duration,
    /// For the TLS handshake behind that.
    pub tls: Duration,
    /// From the request's being sent to the response's head.
    pub response: Duration,
    /// Without a byte of a body, in either direction.
    pub idle: Duration,
    /// The whole of it: waiting, attempts, and the body of the response.
    pub total: Option<Duration>,
    /// The request's field in which an instance is told how long its answer may take.
    pub header: Option<HeaderName>,
    /// Without an answer of an instance to anybody, while others answer: then others are asked as well. `None` for never.
    pub silence: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(1),
            tls: Duration::from_secs(2),
            response: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            total: None,
            header: None,
            silence: Some(Duration::from_secs(1)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedging {
    pub after: HedgeAfter,
    /// Per cent of the service's requests in the last 10 s, 1 to 100.
    pub budget: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    Time(Duration),
    Percentile95,
}

/// What a route says differently than its service. What is `None` is the service's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    pub retries: RetriesGiven,
    pub timeouts: TimeoutsGiven,
    pub hedging: Option<Hedging>,
    pub circuit_breaker: BreakerGiven,
    pub fallback: Option<StaticResponse>,
}

/// The keys of [`CircuitBreaker`] that are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BreakerGiven {
    pub consecutive_failures: Option<u32>,
    /// `Some(None)` when the ratio is never to open it.
    pub failure_ratio: Option<Option<u8>>,
    pub minimum_requests: Option<u32>,
    pub window: Option<Duration>,
    pub open_for: Option<Duration>,
    pub max_open_for: Option<Duration>,
    pub half_open_requests: Option<u32>,
    pub failures: Option<Vec<FailureKind>>,
}

impl BreakerGiven {
    /// Whether more is said than what counts as a failure: then one state can't be right for both.
    pub fn is_own(&self) -> bool {
        *self != BreakerGiven { failures: self.failures.clone(), ..BreakerGiven::default() }
    }

    /// The rest is as in `usual`.
    pub fn over(self, usual: &CircuitBreaker) -> CircuitBreaker {
        // Of the two bounds, the one that is written has its way.
        let (open_for, max_open_for) = match (self.open_for, self.max_open_for) {
            (None, Some(max)) => (usual.open_for.min(max), max),
            (open_for, max) => {
                let open_for = open_for.unwrap_or(usual.open_for);
                (open_for, max.unwrap_or(usual.max_open_for).max(open_for))
            }
        };
        CircuitBreaker {
            consecutive_failures: self.consecutive_failures.unwrap_or(usual.consecutive_failures),
            failure_ratio: self.failure_ratio.unwrap_or(usual.failure_ratio),
            minimum_requests: self.minimum_requests.unwrap_or(usual.minimum_requests),
            window: self.window.unwrap_or(usual.window),
            open_for,
            max_open_for,
            half_open_requests: self.half_open_requests.unwrap_or(usual.half_open_requests),
            failures: self.failures.unwrap_or_else(|| usual.failures.clone()),
        }
    }
}

/// The keys of [`Retries`] that are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetriesGiven {
    pub attempts: Option<u32>,
    pub on: Option<Vec<FailureKind>>,
    pub methods: Option<Vec<Method>>,
    pub per_attempt_timeout: Option<Duration>,
    pub backoff_base: Option<Duration>,
    pub backoff_max: Option<Duration>,
    pub budget: Option<u8>,
    pub keep_body: Option<u64>,
    pub buffer_response: Option<u64>,
}

/// The keys of [`Timeouts`] that are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeoutsGiven {
    pub connect: Option<Duration>,
    pub tls: Option<Duration>,
    pub response: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
    pub header: Option<HeaderName>,
    pub silence: Option<Option<Duration>>,
}

impl RetriesGiven {
    /// The rest is as in `usual`.
    pub fn over(self, usual: &Retries) -> Retries {
        // Of the two bounds, the one that is written has its way.
        let (base, max) = match (self.backoff_base, self.backoff_max) {
            (None, Some(max)) => (usual.backoff_base.min(max), max),
            (base, max) => {
                let base = base.unwrap_or(usual.backoff_base);
                (base, max.unwrap_or(usual.backoff_max).max(base))
            }
        };
        Retries {
            attempts: self.attempts.unwrap_or(usual.attempts),
            on: self.on.unwrap_or_else(|| usual.on.clone()),
            methods: self.methods.unwrap_or_else(|| usual.methods.clone()),
            per_attempt_timeout: self.per_attempt_timeout.or(usual.per_attempt_timeout),
            backoff_base: base,
            backoff_max: max,
            budget: self.budget.unwrap_or(usual.budget),
            keep_body: self.keep_body.unwrap_or(usual.keep_body),
            buffer_response: self.buffer_response.unwrap_or(usual.buffer_response),
        }
    }
}

impl TimeoutsGiven {
    /// The rest is as in `usual`.
    pub fn over(self, usual: &Timeouts) -> Timeouts {
        Timeouts {
            connect: self.connect.unwrap_or(usual.connect),
            tls: self.tls.unwrap_or(usual.tls),
            response: self.response.unwrap_or(usual.response),
            idle: self.idle.unwrap_or(usual.idle),
            total: self.total.or(usual.total),
            header: self.header.or_else(|| usual.header.clone()),
            silence: self.silence.unwrap_or(usual.silence),
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

/// Of the whole service, over all workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Concurrency {
    pub max: ConcurrencyLimit,
    /// Requests that wait; 0 for none.
    pub queue: u32,
    pub queue_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcurrencyLimit {
    /// 1 or more.
    Fixed(u32),
    /// Found from the time that answers take, and never outside these.
    Adaptive { floor: u32, ceiling: u32 },
}
