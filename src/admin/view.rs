//! The documents of the admin interface: what may be seen, and nothing secret. `docs/admin-api.md`
//! has the same fields for readers.

mod aggregate;
mod balancing;
mod route;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

pub use aggregate::{AggregateStatus, PartStatus};
pub use balancing::{BalancingStatus, GroupStatus, load_balancing_name};
pub use route::{ActionStatus, MatchStatus, PolicyStatus, RouteStatus};

use crate::config;
use crate::telemetry::rfc3339_milliseconds;

/// A moment, written in RFC 3339 with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub SystemTime);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339_milliseconds(self.0))
    }
}

/// `GET /api/status`
#[derive(Clone, Debug, Serialize)]
pub struct GatewayStatus {
    pub version: &'static str,
    pub started_at: Moment,
    pub uptime_seconds: u64,
    pub configuration_file: PathBuf,
    /// Where it is, as the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// 1 for the configuration of the start, one more with each that was applied.
    pub generation: u64,
    pub workers: usize,
    pub draining: bool,
    pub listeners: Vec<ListenerStatus>,
    /// The files that maintenance depends on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<MaintenanceStatus>,
    /// `null` until there was one.
    pub last_reload: Option<ReloadStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ListenerStatus {
    pub name: String,
    pub address: SocketAddr,
    pub tls: bool,
    /// What it shakes hands with, as long as that is good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct CertificateStatus {
    pub kind: CertificateKind,
    pub file: PathBuf,
    /// The names that a certificate is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    pub expires_at: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateKind {
    Certificate,
    Crl,
}

#[derive(Clone, Debug, Serialize)]
pub struct MaintenanceStatus {
    pub file: PathBuf,
    /// Whether it exists.
    pub active: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct ReloadStatus {
    pub at: Moment,
    #[serde(flatten)]
    pub outcome: ReloadOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// What changed, by name, one line each.
    Applied { changes: Vec<String> },
    /// The file says what it said before.
    Unchanged,
    /// The old configuration keeps serving.
    Refused { problems: Vec<ProblemStatus> },
}

/// Something wrong with a configuration, or with reading it, which has no place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProblemStatus {
    pub severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    pub message: String,
    pub remedy: String,
}

impl From<&config::Problem> for ProblemStatus {
    fn from(problem: &config::Problem) -> Self {
        ProblemStatus {
            severity: match problem.severity {
                config::Severity::Error => "error",
                config::Severity::Warning => "warning",
            },
            line: Some(problem.span.line),
            column: Some(problem.span.column),
            message: problem.message.clone(),
            remedy: problem.remedy.clone(),
        }
    }
}

/// One of `GET /api/services`
#[derive(Clone, Debug, Serialize)]
pub struct ServiceStatus {
    pub name: String,
    pub load_balancing: &'static str,
    pub balancing: BalancingStatus,
    /// How requests are divided among priorities and zones, where there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupStatus>,
    /// So few instances are healthy that unhealthy ones get requests, too.
    pub panicking: bool,
    /// Its instances are spoken to over TLS.
    pub tls: bool,
    pub source: SourceStatus,
    /// What its source tells of it: an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// Attempts after the first, since the start.
    pub retries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedging: Option<HedgingStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyStatus>,
    /// By route and part with `stale_if_error`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<StaleStatus>,
    pub instances: Vec<InstanceStatus>,
}

/// What a route or a part keeps for the time of errors.
#[derive(Clone, Debug, Serialize)]
pub struct StaleStatus {
    pub route: String,
    /// Of an aggregate, where one of its parts keeps them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    pub answers: u64,
    pub bytes: u64,
    pub max_bytes: u64,
}

/// Second attempts while the first is slow.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HedgingStatus {
    /// When they are made; `null` while the percentile is not known.
    pub after_ms: Option<f64>,
    /// Since the start.
    pub hedges: u64,
}

/// How many requests a service has at once, over all workers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ConcurrencyStatus {
    /// Requests that may be in flight now.
    pub max: u32,
    pub in_flight: u32,
    /// Requests that may wait.
    pub queue: u32,
    pub waiting: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveStatus>,
}

/// How `max` is found.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AdaptiveStatus {
    pub floor: u32,
    pub ceiling: u32,
    /// What an answer takes while the service has time for it; `null` until that is known.
    pub baseline_ms: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// `static`, `dns`, `file`, `registry`, `etcd` or `consul`.
    pub kind: &'static str,
    /// What it asks for: a DNS name, a file, a prefix of keys, a service of Consul; of a registry elsewhere its
    /// address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    pub state: SourceState,
    /// Why the source does not answer, when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Since when the instances may be out of date, while it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Moment>,
    /// When it last gave a set of instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Moment>,
}

impl SourceStatus {
    /// The part that the configuration tells, in state [`SourceState::Ok`].
    pub fn of(source: &config::InstanceSource) -> Self {
        let (kind, of) = match source {
            config::InstanceSource::Static(_) => ("static", None),
            config::InstanceSource::Dns(dns) => ("dns", Some(dns.name.value.clone())),
            config::InstanceSource::File(path) => ("file", Some(path.display().to_string())),
            config::InstanceSource::Registry => ("registry", None),
            config::InstanceSource::SharedRegistry(shared) => {
                ("registry", Some(shared.address.to_string().trim_end_matches('/').to_owned()))
            }
            config::InstanceSource::Etcd(etcd) => ("etcd", Some(etcd.prefix.clone())),
            config::InstanceSource::Consul(consul) => ("consul", Some(consul.service.clone())),
        };
        SourceStatus { kind, of, state: SourceState::Ok, error: None, failing_since: None, updated_at: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    Ok,
    /// It has not answered yet.
    Waiting,
    /// It failed or fell silent: the last good set is kept.
    Failing,
}

#[derive(Clone, Debug, Serialize)]
pub struct InstanceStatus {
    pub address: SocketAddr,
    pub weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    pub priority: u8,
    /// Of the program that it runs, where its source tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What else its source tells of it: an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// Per cent of its share of the requests that it is to have at present; absent when that is all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start_percent: Option<u8>,
    pub health: Health,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_check: Option<CheckStatus>,
    /// While it is ejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection: Option<EjectionStatus>,
    /// How often it was ejected; absent without outlier detection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejections: Option<u64>,
    pub breaker: BreakerStatus,
    /// Of routes that have one of their own, once they had a request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route_breakers: Vec<RouteBreakerStatus>,
    /// Why others are preferred; absent when they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<PassedOver>,
    /// Why no TLS connection can be made to it; absent when none has failed since the last that worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_failure: Option<String>,
    /// How long it takes to answer, where the balancing rule goes by that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Requests that wait for the instance or receive from it.
    pub in_flight: u64,
    /// Attempts that were begun, since the start.
    pub attempts: u64,
    /// Those of them that came to no response, to one with a 5xx, or to one that broke off.
    pub failures: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Healthy,
    Unhealthy,
    /// No health check is configured, or none has ended yet.
    Unchecked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PassedOver {
    /// The last try to connect failed.
    Unreachable,
    /// It answers nobody, while others answer.
    Silent,
    /// Its last answers were failures, and requests that would be seen to fail go elsewhere.
    Failing,
}

/// How the last health check of an instance ended.
#[derive(Clone, Debug, Serialize)]
pub struct CheckStatus {
    pub at: Moment,
    pub took_ms: u64,
    /// Why it failed; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Why an instance gets requests only where no other can take them.
#[derive(Clone, Debug, Serialize)]
pub struct EjectionStatus {
    /// `consecutive_failures`, `failure_ratio` or `latency`.
    pub reason: &'static str,
    /// In words and numbers.
    pub why: String,
    pub at: Moment,
    pub until: Moment,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct BreakerStatus {
    pub state: BreakerState,
    pub consecutive_failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Moment>,
    /// When a request will be let through to try the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_probe_at: Option<Moment>,
}

#[derive(Clone, Debug, Serialize)]
pub struct RouteBreakerStatus {
    pub route: String,
    #[serde(flatten)]
    pub breaker: BreakerStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    Closed,
    HalfOpen,
    Open,
}
