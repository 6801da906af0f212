//! What a service's configuration comes to while requests run: a compiled copy, so that nothing on
//! the request path reads configuration types.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::affinity::{Affinity, HashKey};
use super::balance::Rule;
use super::bulkhead::{Bounds, BulkheadLimits, Max};
use super::ejection::EjectionTime;
use super::tls::Protocol;
use crate::config;

/// Everything about a service but its instances. A reload replaces it as a whole.
#[derive(Clone, Debug)]
pub struct Settings {
    pub rule: Rule,
    pub protocol: Protocol,
    /// With [`Rule::ConsistentHash`].
    pub affinity: Option<Affinity>,
    /// How long an instance that begins takes to get to its share; `None` when it has it at once.
    pub slow_start: Option<Duration>,
    /// How much more than its usual part of the requests the rest of a priority, or of a zone, is expected to take; 1 or more.
    pub overprovisioning: f64,
    pub breaker: BreakerSettings,
    /// What the breaker counts as a failure.
    pub breaker_failures: FailureSet,
    pub retries: RetrySettings,
    pub connect_timeout: Duration,
    /// For the handshake behind that.
    pub tls_timeout: Duration,
    /// From the request's being sent to the response's head, over all attempts. A request body that is still
    /// on its way from the client takes none of it.
    pub response_timeout: Duration,
    /// Without a byte of a body, in either direction.
    pub idle_timeout: Duration,
    /// From the beginning of a call to the end of its response's body.
    pub total_timeout: Option<Duration>,
    /// In which instances are told how long they have.
    pub timeout_header: Option<HeaderName>,
    /// How long an instance may answer nobody while others do, before those are asked as well.
    pub silence: Option<Duration>,
    pub hedging: Option<Hedging>,
    pub pool: PoolSettings,
    pub concurrency: Option<Concurrency>,
    pub health_check: Option<HealthSettings>,
    pub outlier_detection: Option<OutlierSettings>,
    pub fallback: Option<Fallback>,
}

/// Small and plain, so that a verdict can carry it to the end of a body.
#[derive(Clone, Copy, Debug)]
pub struct BreakerSettings {
    /// 1 or more.
    pub consecutive_failures: u32,
    /// Per cent, 1 to 100; `None` when the ratio never opens it.
    pub failure_ratio: Option<u8>,
    pub minimum_requests: u32,
    pub window: Duration,
    pub open_for: Duration,
    pub max_open_for: Duration,
    /// 1 or more.
    pub half_open_requests: u32,
    pub of: BreakerOf,
}

/// Whose breaker it is that an instance has: the service's, or that of a route which has one of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BreakerOf(u32);

impl BreakerOf {
    pub const SERVICE: BreakerOf = BreakerOf(0);

    /// Another route's than any before.
    pub fn another_route() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        BreakerOf(NEXT.fetch_add(1, Relaxed))
    }
}

#[derive(Clone, Debug)]
pub struct RetrySettings {
    /// Beyond the first; 0 switches retries off.
    pub attempts: u32,
    pub on: FailureSet,
    pub methods: Vec<Method>,
    pub per_attempt_timeout: Option<Duration>,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// Per cent of the service's requests in the last 10 s, 0 to 100.
    pub budget: u8,
    /// So many bytes of a request's body are kept to be sent again.
    pub keep_body: u64,
    /// A response's head is held back for a body of so many bytes.
    pub buffer_response: u64,
}

/// Per instance, over all workers.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    pub max_connections: usize,
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

/// A second attempt when the first is slow.
#[derive(Clone, Copy, Debug)]
pub struct Hedging {
    pub after: HedgeAfter,
    /// Per cent of the service's requests in the last 10 s, 1 to 100.
    pub budget: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    Time(Duration),
    /// What 95 of 100 first attempts come to within.
    Percentile95,
}

/// Of the whole service, over all workers.
#[derive(Clone, Copy, Debug)]
pub struct Concurrency {
    pub limits: BulkheadLimits,
    /// How long a request may wait for others to end.
    pub queue_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HealthSettings {
    pub probe: HealthProbe,
    /// What the service's requests are spoken in, and so the checks that ask for a path.
    pub protocol: Protocol,
    pub interval: Duration,
    /// By how much of it an interval is longer or shorter, 0 to 1.
    pub jitter: f64,
    pub timeout: Duration,
    /// Good checks in a row that bring an unhealthy instance back; 1 or more.
    pub healthy_after: u32,
    /// Bad checks in a row that take an instance out; 1 or more.
    pub unhealthy_after: u32,
    /// Per cent of the instances, 1 to 100: with fewer healthy, all get requests. `None` for never.
    pub panic_threshold: Option<u8>,
}

/// How an instance is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthProbe {
    /// A connection is enough.
    Tcp,
    Http(HttpProbe),
    /// The gRPC health protocol; an empty name asks for the server as a whole.
    Grpc {
        service: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Path and query of the request.
    pub path: String,
    pub status: Vec<RangeInclusive<u16>>,
    /// What is to be in the body; it is not read without.
    pub body: Option<String>,
}

/// When an instance does so much worse than the others that it is ejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierSettings {
    /// 1 or more; `None` when that is not asked.
    pub consecutive_failures: Option<u32>,
    /// Share of failures above what is usual among the others, 0 to 1.
    pub failure_ratio: Option<f64>,
    /// Times as long as what is usual among the others, above 1.
    pub latency: Option<f64>,
    /// In an interval, below which share and latency say nothing.
    pub minimum_requests: u32,
    pub interval: Duration,
    pub time: EjectionTime,
    /// Per cent of the instances, 1 to 100.
    pub max_ejected: u8,
}

/// The answer when no instance could give one.
#[derive(Clone, Debug)]
pub struct Fallback {
    pub status: StatusCode,
    /// `content-type` among them, when there is a body.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// How an attempt at an instance went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection was made, TLS included, or not in time.
    Connect,
    /// The connection ended, or spoke something that is not HTTP, before the response was complete.
    Reset,
    /// The response's head did not come in time.
    Timeout,
    /// A response came, with this status.
    Status(StatusCode),
}

/// Which failures count: for a breaker, or as a cause to try again.
#[derive(Clone, Debug, Default)]
pub struct FailureSet {
    connect: bool,
    reset: bool,
    timeout: bool,
    statuses: Vec<RangeInclusive<u16>>,
}

impl FailureSet {
    pub fn contains(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect => self.connect,
            Failure::Reset => self.reset,
            Failure::Timeout => self.timeout,
            Failure::Status(status) => self.contains_status(status.as_u16()),
        }
    }

    pub fn contains_status(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }

    fn compile(kinds: &[config::FailureKind]) -> Self {
        let mut set = FailureSet::default();
        for kind in kinds {
            match kind {
                config::FailureKind::ConnectFailure => set.connect = true,
                config::FailureKind::Reset => set.reset = true,
                config::FailureKind::Timeout => set.timeout = true,
                config::FailureKind::Status(range) => set.statuses.push(range.from..=range.to),
            }
        }
        set
    }
}

impl From<config::Protocol> for Protocol {
    fn from(protocol: config::Protocol) -> Self {
        match protocol {
            config::Protocol::Http1 => Protocol::Http1,
            config::Protocol::H2 => Protocol::Http2,
            config::Protocol::Auto => Protocol::Auto,
        }
    }
}

impl Settings {
    pub(super) fn compile(config: &config::Service) -> Self {
        Settings {
            rule: match &config.load_balancing {
                config::LoadBalancing::RoundRobin => Rule::RoundRobin,
                config::LoadBalancing::Weighted => Rule::Weighted,
                config::LoadBalancing::Random => Rule::Random,
                config::LoadBalancing::LeastRequests => Rule::LeastRequests,
                config::LoadBalancing::PeakEwma => Rule::PeakEwma,
                config::LoadBalancing::ConsistentHash(_) => Rule::ConsistentHash,
            },
            protocol: config.protocol.into(),
            affinity: Affinity::compile(&config.load_balancing),
            slow_start: config.slow_start,
            overprovisioning: f64::from(config.failover.overprovisioning) / 100.0,
            breaker: BreakerSettings::compile(&config.circuit_breaker),
            breaker_failures: FailureSet::compile(&config.circuit_breaker.failures),
            retries: RetrySettings::compile(&config.retries),
            connect_timeout: config.timeouts.connect,
            tls_timeout: config.timeouts.tls,
            response_timeout: config.timeouts.response,
            idle_timeout: config.timeouts.idle,
            total_timeout: config.timeouts.total,
            timeout_header: config.timeouts.header.clone(),
            silence: config.timeouts.silence,
            pool: PoolSettings {
                max_connections: config.pool.max_connections,
                max_idle: config.pool.max_idle,
                idle_timeout: config.pool.idle_timeout,
            },
            hedging: config.hedging.map(Hedging::compile),
            concurrency: config.concurrency.as_ref().map(Concurrency::compile),
            health_check: config
                .health_check
                .as_ref()
                .map(|check| HealthSettings::compile(check, config.protocol.into())),
            outlier_detection: config.outlier_detection.as_ref().map(OutlierSettings::compile),
            fallback: config.fallback.as_ref().map(Fallback::compile),
        }
    }
}

impl Settings {
    /// Whether somebody wants to know how long answers take.
    pub(super) fn times_answers(&self) -> bool {
        self.rule.times_answers() || self.outlier_detection.is_some_and(|outliers| outliers.latency.is_some())
    }
}

impl Affinity {
    fn compile(config: &config::LoadBalancing) -> Option<Self> {
        let config::LoadBalancing::ConsistentHash(config) = config else { return None };
        Some(Affinity {
            key: match &config.key {
                config::HashKey::Ip => HashKey::Ip,
                config::HashKey::Path => HashKey::Path,
                config::HashKey::Header(name) => HashKey::Header(name.clone()),
                config::HashKey::Cookie(name) => HashKey::Cookie(name.as_str().into()),
                config::HashKey::Claim(name) => HashKey::Claim(name.as_str().into()),
            },
            max_load: config.max_load.map(|percent| f64::from(percent) / 100.0),
        })
    }
}

impl BreakerSettings {
    fn compile(config: &config::CircuitBreaker) -> Self {
        BreakerSettings {
            consecutive_failures: config.consecutive_failures.max(1),
            failure_ratio: config.failure_ratio,
            minimum_requests: config.minimum_requests,
            window: config.window,
            open_for: config.open_for,
            max_open_for: config.max_open_for,
            half_open_requests: config.half_open_requests.max(1),
            of: BreakerOf::SERVICE,
        }
    }
}

impl RetrySettings {
    fn compile(config: &config::Retries) -> Self {
        let mut on = FailureSet::compile(&config.on);
        // What else would be the use of cutting an attempt short?
        on.timeout |= config.per_attempt_timeout.is_some();
        RetrySettings {
            attempts: config.attempts,
            on,
            methods: config.methods.clone(),
            per_attempt_timeout: config.per_attempt_timeout,
            backoff_base: config.backoff_base,
            backoff_max: config.backoff_max,
            budget: config.budget,
            keep_body: config.keep_body,
            buffer_response: config.buffer_response,
        }
    }
}

impl Hedging {
    fn compile(config: config::Hedging) -> Self {
        let after = match config.after {
            config::HedgeAfter::Time(after) => HedgeAfter::Time(after),
            config::HedgeAfter::Percentile95 => HedgeAfter::Percentile95,
        };
        Hedging { after, budget: config.budget }
    }
}

impl Concurrency {
    fn compile(config: &config::Concurrency) -> Self {
        let max = match config.max {
            config::ConcurrencyLimit::Fixed(max) => Max::Fixed(max.max(1)),
            config::ConcurrencyLimit::Adaptive { floor, ceiling } => {
                Max::Adaptive(Bounds { floor: floor.max(1), ceiling: ceiling.max(floor).max(1) })
            }
        };
        Concurrency {
            limits: BulkheadLimits { max, queue: config.queue },
            queue_timeout: config.queue_timeout,
        }
    }
}

impl HealthSettings {
    fn compile(config: &config::HealthCheck, protocol: Protocol) -> Self {
        HealthSettings {
            probe: HealthProbe::compile(&config.probe),
            protocol,
            interval: config.interval,
            jitter: f64::from(config.jitter) / 100.0,
            timeout: config.timeout,
            healthy_after: config.healthy_after.max(1),
            unhealthy_after: config.unhealthy_after.max(1),
            panic_threshold: config.panic_threshold,
        }
    }
}

impl HealthProbe {
    fn compile(config: &config::HealthProbe) -> Self {
        match config {
            config::HealthProbe::Tcp => HealthProbe::Tcp,
            config::HealthProbe::Http(http) => HealthProbe::Http(HttpProbe {
                path: http.path.clone(),
                status: http.expect_status.iter().map(|range| range.from..=range.to).collect(),
                body: http.expect_body.clone(),
            }),
            config::HealthProbe::Grpc { service } => HealthProbe::Grpc { service: service.clone() },
        }
    }
}

impl OutlierSettings {
    fn compile(config: &config::OutlierDetection) -> Self {
        OutlierSettings {
            consecutive_failures: config.consecutive_failures,
            failure_ratio: config.failure_ratio.map(|percent| f64::from(percent) / 100.0),
            latency: config.latency.map(|percent| f64::from(percent) / 100.0),
            minimum_requests: config.minimum_requests.max(1),
            interval: config.interval,
            time: EjectionTime { base: config.base_ejection_time, max: config.max_ejection_time },
            max_ejected: config.max_ejected,
        }
    }
}

impl Fallback {
    fn compile(config: &config::StaticResponse) -> Self {
        let mut fields = config.headers.clone();
        if let Some(content_type) = &config.content_type
            && fields.iter().all(|(name, _)| name != header::CONTENT_TYPE)
        {
            fields.push((header::CONTENT_TYPE, content_type.clone()));
        }
        Fallback { status: config.status, fields, body: config.body.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_counts_as_a_failure() {
        let set = FailureSet::compile(&config::CircuitBreaker::default().failures);
        let status = |code| Failure::Status(StatusCode::from_u16(code).unwrap());
        for failure in [Failure::Connect, Failure::Reset, Failure::Timeout, status(502), status(504)] {
            assert!(set.contains(failure), "{failure:?}");
        }
        for failure in [status(200), status(204), status(404), status(500), status(505)] {
            assert!(!set.contains(failure), "{failure:?}");
        }
        let retries = FailureSet::compile(&config::Retries::default().on);
        assert!(!retries.contains(Failure::Timeout), "a slow answer is not repeated by default");
    }
}
