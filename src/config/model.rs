//! The typed form of a configuration: what [`super::load`] returns once a text has no problem left.
//!
//! Plain data. Nothing here opens a file or a socket, and nothing here is read while a request is
//! served: `snapshot::compile` turns it into the form that requests run against. Equality ignores
//! positions, so "did this block change?" is `==`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use super::secret::Secret;
use super::source::Span;

/// A value and where it was written. Two are equal when their values are, wherever they stand.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// The name of something defined elsewhere in the file. `load` has checked that it exists.
pub type Ref = At<String>;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub workers: Workers,
    pub listeners: Vec<Listener>,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub admin: Option<Admin>,
    pub registry: Option<Registry>,
    pub services: Vec<Service>,
    pub authenticators: Vec<Authenticator>,
    pub rate_limits: Vec<RateLimit>,
    pub defaults: Defaults,
    pub routes: Vec<Route>,
    pub access_log: AccessLog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per core that the process may use.
    Auto,
    Count(usize),
}

// ---------------------------------------------------------------- listeners

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: At<String>,
    pub bind: At<SocketAddr>,
    pub tls: Option<Tls>,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    pub min_version: TlsVersion,
    /// At least one; the first is the default for clients that name no known host.
    pub certificates: Vec<CertificateFiles>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// Paths are absolute: `load` has joined them to the directory of the configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateFiles {
    pub certificate: At<PathBuf>,
    pub private_key: At<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub max_connections: usize,
    /// From the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// Keep-alive without a request.
    pub idle_timeout: Duration,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_uri_bytes: usize,
    /// HTTP/2 concurrent streams per connection.
    pub max_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 20_000,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_uri_bytes: 8 * 1024,
            max_streams: 128,
        }
    }
}

// ---------------------------------------------------------------- admin and registry

/// `token` is present whenever `bind` is not a loopback address.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub bind: At<SocketAddr>,
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Registry {
    pub bind: At<SocketAddr>,
    /// Without a heartbeat for this long an instance leaves the rotation. Default 30 s.
    pub heartbeat_ttl: Duration,
    pub token: Option<Secret>,
}

// ---------------------------------------------------------------- services

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: At<String>,
    pub source: InstanceSource,
    pub load_balancing: LoadBalancing,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancing {
    RoundRobin,
    Weighted,
    Random,
    LeastRequests,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub healthy_after: u32,
    pub unhealthy_after: u32,
    pub expect_status: Vec<StatusRange>,
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

// ---------------------------------------------------------------- authenticators

#[derive(Clone, Debug, PartialEq)]
pub struct Authenticator {
    pub name: At<String>,
    pub jwt: Jwt,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Jwt {
    pub issuer: Option<String>,
    /// Empty: not checked. Otherwise one of them must be in the token's `aud`.
    pub audience: Vec<String>,
    /// Never empty.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Default 30 s.
    pub leeway: Duration,
    /// Never empty.
    pub keys: Vec<JwtKey>,
    /// Never empty; the first one present in a request is the one that counts.
    pub token_from: Vec<TokenSource>,
    pub claim_headers: Vec<(String, HeaderName)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

#[derive(Clone, Debug, PartialEq)]
pub enum JwtKey {
    Secret(At<Secret>),
    PublicKey(At<PathBuf>),
    JwksFile(At<PathBuf>),
    /// `refresh` defaults to 10 min.
    JwksUrl {
        url: At<http::Uri>,
        refresh: Duration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    Bearer,
    Cookie(String),
}

// ---------------------------------------------------------------- rate limits

#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    pub name: At<String>,
    /// Never empty.
    pub key: Vec<KeyPart>,
    pub rate: Rate,
    /// 1 or more; defaults to the number of `rate`.
    pub burst: u32,
    /// Default 100,000.
    pub max_keys: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    Ip,
    Route,
    Header(HeaderName),
    Claim(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// 1 or more.
    pub count: u32,
    /// One second, minute or hour.
    pub per: Duration,
}

// ---------------------------------------------------------------- routes

#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    pub rate_limits: Vec<Ref>,
    /// Default `x-request-id`.
    pub request_id_header: HeaderName,
    pub response_headers: HeaderEdit,
    pub max_body: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdit {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: At<String>,
    pub matches: Match,
    pub authenticate: Option<Authenticate>,
    pub authorize: Vec<ClaimRule>,
    /// In addition to those of `defaults`.
    pub rate_limits: Vec<Ref>,
    pub cors: Option<Cors>,
    pub request_headers: HeaderEdit,
    pub response_headers: HeaderEdit,
    /// Replaces that of `defaults`.
    pub max_body: Option<u64>,
    pub encoded_slashes: EncodedSlashes,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    pub path: PathMatch,
    /// Lower case; empty: any host.
    pub hosts: Vec<HostPattern>,
    /// Empty: any method. GET includes HEAD.
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, ValueMatch)>,
    pub query: Vec<(String, ValueMatch)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// `path:` with literal segments and `{name}` segments.
    Path(At<String>),
    /// `prefix:`, matched on whole segments. `/` matches everything and is what no path key means.
    Prefix(At<String>),
    /// `regex:`, matched against the whole normalised path.
    Regex(At<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Exact(String),
    /// `*.example.com` keeps `example.com` here.
    Wildcard(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatch {
    Exact(String),
    Regex(String),
    /// `{ present: true }` or `{ present: false }`.
    Present(bool),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlashes {
    #[default]
    Refuse,
    /// `%2F` stays as it is and never separates segments.
    Keep,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Authenticate {
    /// Never empty; any one of them suffices.
    pub with: Vec<Ref>,
    /// Empty: every method.
    pub methods: Vec<Method>,
}

/// The claim must hold one of `values` (as itself, in an array, or in a space-separated `scope`).
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimRule {
    pub claim: String,
    pub values: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    pub origins: CorsOrigins,
    pub methods: Vec<Method>,
    /// Request headers that preflights may ask for; empty: those that they do ask for.
    pub headers: Vec<HeaderName>,
    pub expose_headers: Vec<HeaderName>,
    /// Never together with [`CorsOrigins::Any`].
    pub credentials: bool,
    pub max_age: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CorsOrigins {
    Any,
    /// Scheme, host and port as a browser writes them.
    Exact(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Forward(Forward),
    Aggregate(Aggregate),
    Redirect(Redirect),
    Respond(StaticResponse),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    pub service: Ref,
    pub rewrite: Rewrite,
    pub host: HostHeader,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Rewrite {
    None,
    /// `strip_prefix`: whole segments taken off the front. `/` when nothing is left.
    StripPrefix(String),
    /// `rewrite`: a new path with the route's `{name}` parameters; the query is kept.
    Template(Template),
}

#[derive(Clone, Debug, PartialEq)]
pub enum HostHeader {
    Preserve,
    Instance,
    Fixed(HeaderValue),
}

/// Text with `{name}` placeholders, each of which the route's path defines.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(pub Vec<TemplatePiece>);

#[derive(Clone, Debug, PartialEq)]
pub enum TemplatePiece {
    Literal(String),
    /// A parameter in the path half of the template.
    PathParameter(String),
    /// A parameter behind the `?`.
    QueryParameter(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// One deadline for all parts. Default 10 s.
    pub timeout: Duration,
    /// In the order in which they are written. Never empty.
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub name: String,
    pub service: Ref,
    pub path: Template,
    pub required: bool,
    /// Compact JSON; `null` when none is given.
    pub fallback: String,
    /// Of the part's response. Default 1 MiB.
    pub max_body: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub to: Template,
    /// 301, 302, 303, 307 or 308. Default 308.
    pub status: StatusCode,
}

// ---------------------------------------------------------------- observability

#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    pub output: LogOutput,
}

#[derive(Clone, Debug, PartialEq)]
pub enum LogOutput {
    Stdout,
    Off,
    /// Reopened on SIGUSR1.
    File(PathBuf),
}
