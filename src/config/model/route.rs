//! Routes: what they match, the policies on the way, and what answers.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{Aggregate, At, IpFilter, Maintenance, MethodOverride, Overrides, Ref, SecurityHeaders};

#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    pub rate_limits: Vec<Ref>,
    /// Default `x-request-id`.
    pub request_id_header: HeaderName,
    pub response_headers: HeaderEdit,
    pub max_body: Option<u64>,
    pub maintenance: Option<Maintenance>,
    pub ip_filter: Option<IpFilter>,
    pub security_headers: Option<SecurityHeaders>,
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
    /// Replaces that of `defaults`.
    pub maintenance: Option<Maintenance>,
    /// In addition to that of `defaults`.
    pub ip_filter: Option<IpFilter>,
    pub method_override: Option<MethodOverride>,
    /// Replaces those of `defaults`.
    pub security_headers: Option<SecurityHeaders>,
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
    Batch(BatchAction),
    Redirect(Redirect),
    Respond(StaticResponse),
}

/// Many requests in one, each answered by its own route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchAction {
    /// Default 20.
    pub max_items: usize,
    /// Default 8.
    pub concurrency: usize,
    /// For all items together. Default 10 s.
    pub timeout: Duration,
    /// Of the batch. Default 1 MiB.
    pub max_body: u64,
    /// The body of one answer. Default 1 MiB.
    pub max_answer: u64,
    /// Those of all answers together. Default 8 MiB.
    pub max_answers: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    pub service: Ref,
    pub rewrite: Rewrite,
    pub host: HostHeader,
    /// Absent when the route has none.
    pub overrides: Option<Box<Overrides>>,
    pub stale_if_error: Option<StaleIfError>,
}

impl Forward {
    /// Whether requests of both come to the same: what one was answered, the other would have been.
    pub fn is_same_target(&self, other: &Forward) -> bool {
        self.service.value == other.service.value && self.rewrite == other.rewrite && self.host == other.host
    }
}

/// The last good answers are kept, to be given in place of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleIfError {
    pub keep_for: Duration,
    /// Of all of them, over all workers. Default 16 MiB.
    pub max_bytes: usize,
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
pub struct Redirect {
    pub to: Template,
    /// 301, 302, 303, 307 or 308. Default 308.
    pub status: StatusCode,
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
