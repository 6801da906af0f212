//! A route of the configuration as `GET /api/routes` shows it.
//!
//! Header and query values, bodies and header edits may hold secrets: only their names are shown.

use std::time::Duration;

use http::{HeaderName, Method};
use serde::Serialize;
use serde_json::{Value, json};

use super::aggregate::AggregateStatus;
use crate::config::{
    self, Action, HeaderEdit, HostPattern, NetworkSource, PathMatch, Rewrite, Template, TemplatePiece,
};

#[derive(Clone, Debug, Serialize)]
pub struct RouteStatus {
    pub name: String,
    /// The line where its name stands in the configuration.
    pub line: u32,
    #[serde(rename = "match")]
    pub matches: MatchStatus,
    /// In the order in which they are applied.
    pub policies: Vec<PolicyStatus>,
    pub action: ActionStatus,
}

/// Empty lists mean "any" and are left out.
#[derive(Clone, Debug, Serialize)]
pub struct MatchStatus {
    #[serde(flatten)]
    pub path: PathStatus,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Names only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Names only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathStatus {
    Path(String),
    Prefix(String),
    Regex(String),
}

#[derive(Clone, Debug, Serialize)]
pub struct PolicyStatus {
    pub policy: &'static str,
    pub settings: Value,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionStatus {
    Forward {
        service: String,
        rewrite: Option<String>,
        host: String,
        /// The blocks of the service that the route overrides.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        overrides: Vec<&'static str>,
        /// For how long a good answer may be given in place of an error.
        #[serde(skip_serializing_if = "Option::is_none")]
        stale_if_error_ms: Option<u64>,
    },
    Aggregate(AggregateStatus),
    Batch {
        max_items: usize,
        concurrency: usize,
        timeout_ms: u64,
        /// Of the batch, of one answer, and of all of them together.
        max_body_bytes: u64,
        max_answer_bytes: u64,
        max_answers_bytes: u64,
    },
    Redirect {
        to: String,
        status: u16,
    },
    Respond {
        status: u16,
    },
}

impl RouteStatus {
    pub fn of(route: &config::Route, defaults: &config::Defaults) -> Self {
        RouteStatus {
            name: route.name.value.clone(),
            line: route.name.span.line,
            matches: matches(&route.matches),
            policies: policies(route, defaults),
            action: action(&route.action),
        }
    }
}

fn matches(written: &config::Match) -> MatchStatus {
    MatchStatus {
        path: match &written.path {
            PathMatch::Path(path) => PathStatus::Path(path.value.clone()),
            PathMatch::Prefix(prefix) => PathStatus::Prefix(prefix.value.clone()),
            PathMatch::Regex(regex) => PathStatus::Regex(regex.value.clone()),
        },
        hosts: written
            .hosts
            .iter()
            .map(|host| match host {
                HostPattern::Exact(host) => host.clone(),
                HostPattern::Wildcard(rest) => format!("*.{rest}"),
            })
            .collect(),
        methods: methods(&written.methods),
        headers: written.headers.iter().map(|(name, _)| name.to_string()).collect(),
        query: written.query.iter().map(|(name, _)| name.clone()).collect(),
    }
}

fn policies(route: &config::Route, defaults: &config::Defaults) -> Vec<PolicyStatus> {
    let mut list = Vec::new();
    let mut add = |policy, settings| list.push(PolicyStatus { policy, settings });
    let text = |networks: &[NetworkSource]| networks.iter().map(network).collect::<Vec<_>>();
    if let Some(maintenance) = route.maintenance.as_ref().or(defaults.maintenance.as_ref()) {
        let file = maintenance.while_file_exists.as_ref().map(|file| file.display().to_string());
        add("maintenance", json!({ "enabled": maintenance.enabled, "while_file_exists": file }));
    }
    for filter in defaults.ip_filter.iter().chain(&route.ip_filter) {
        add("ip_filter", json!({ "allow": text(&filter.allow), "deny": text(&filter.deny) }));
    }
    if let Some(written) = &route.method_override {
        let settings = json!({ "header": written.header.as_str(), "allow": methods(&written.allow) });
        add("method_override", settings);
    }
    if let Some(cors) = &route.cors {
        let origins = match &cors.origins {
            config::CorsOrigins::Any => vec!["*".to_owned()],
            config::CorsOrigins::Exact(origins) => origins.clone(),
        };
        add("cors", json!({ "origins": origins, "credentials": cors.credentials }));
    }
    if let Some(bytes) = route.max_body.or(defaults.max_body) {
        add("max_body", json!({ "bytes": bytes }));
    }
    if let Some(authenticate) = &route.authenticate {
        let with: Vec<_> = authenticate.with.iter().map(|name| &name.value).collect();
        add("authenticate", json!({ "with": with, "methods": methods(&authenticate.methods) }));
    }
    if !route.authorize.is_empty() {
        let claims: serde_json::Map<_, _> =
            route.authorize.iter().map(|rule| (rule.claim.clone(), json!(rule.values))).collect();
        add("authorize", json!({ "claims": claims }));
    }
    let limits: Vec<_> =
        defaults.rate_limits.iter().chain(&route.rate_limits).map(|limit| &limit.value).collect();
    if !limits.is_empty() {
        add("rate_limits", json!({ "limits": limits }));
    }
    if let Some(edits) = edited(&[&route.request_headers]) {
        add("request_headers", edits);
    }
    if let Some(security) = route.security_headers.as_ref().or(defaults.security_headers.as_ref()) {
        let hsts = security.hsts.as_ref().map(|_| "strict-transport-security");
        let set: Vec<_> = security.fields.iter().map(|(name, _)| name.as_str()).chain(hsts).collect();
        add("security_headers", json!({ "set": set, "replace": security.replace }));
    }
    if let Some(edits) = edited(&[&defaults.response_headers, &route.response_headers]) {
        add("response_headers", edits);
    }
    list
}

fn edited(edits: &[&HeaderEdit]) -> Option<Value> {
    let set: Vec<_> = edits.iter().flat_map(|edit| &edit.set).map(|(name, _)| name.as_str()).collect();
    let remove: Vec<_> = edits.iter().flat_map(|edit| &edit.remove).map(HeaderName::as_str).collect();
    (!set.is_empty() || !remove.is_empty()).then(|| json!({ "set": set, "remove": remove }))
}

fn network(source: &NetworkSource) -> String {
    match source {
        NetworkSource::Network(network) => network.to_string(),
        NetworkSource::File(path) => path.display().to_string(),
    }
}

fn action(action: &Action) -> ActionStatus {
    match action {
        Action::Forward(forward) => ActionStatus::Forward {
            service: forward.service.value.clone(),
            rewrite: match &forward.rewrite {
                Rewrite::None => None,
                Rewrite::StripPrefix(prefix) => Some(format!("strip_prefix {prefix}")),
                Rewrite::Template(template) => Some(text(template)),
            },
            host: match &forward.host {
                config::HostHeader::Preserve => "preserve".into(),
                config::HostHeader::Instance => "instance".into(),
                config::HostHeader::Fixed(name) => String::from_utf8_lossy(name.as_bytes()).into(),
            },
            overrides: forward.overrides.as_deref().map(overrides).unwrap_or_default(),
            stale_if_error_ms: forward.stale_if_error.map(|stale| milliseconds(stale.keep_for)),
        },
        Action::Aggregate(aggregate) => ActionStatus::Aggregate(AggregateStatus::of(aggregate)),
        Action::Batch(batch) => ActionStatus::Batch {
            max_items: batch.max_items,
            concurrency: batch.concurrency,
            timeout_ms: milliseconds(batch.timeout),
            max_body_bytes: batch.max_body,
            max_answer_bytes: batch.max_answer,
            max_answers_bytes: batch.max_answers,
        },
        Action::Redirect(redirect) => {
            ActionStatus::Redirect { to: text(&redirect.to), status: redirect.status.as_u16() }
        }
        Action::Respond(response) => ActionStatus::Respond { status: response.status.as_u16() },
    }
}

fn overrides(overrides: &config::Overrides) -> Vec<&'static str> {
    let given = [
        ("retries", overrides.retries != config::RetriesGiven::default()),
        ("timeouts", overrides.timeouts != config::TimeoutsGiven::default()),
        ("hedging", overrides.hedging.is_some()),
        ("circuit_breaker", overrides.circuit_breaker != config::BreakerGiven::default()),
        ("fallback", overrides.fallback.is_some()),
    ];
    given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
}

fn methods(list: &[Method]) -> Vec<String> {
    list.iter().map(Method::to_string).collect()
}

/// A template as it was written.
fn text(template: &Template) -> String {
    let pieces = template.0.iter().map(|piece| match piece {
        TemplatePiece::Literal(text) => text.clone(),
        TemplatePiece::PathParameter(name) | TemplatePiece::QueryParameter(name) => format!("{{{name}}}"),
    });
    pieces.collect()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode, header};

    use super::*;
    use crate::config::*;

    fn at<T>(value: T) -> At<T> {
        At { value, span: Span { line: 7, column: 9, length: 1 } }
    }

    fn defaults() -> Defaults {
        Defaults {
            rate_limits: vec![at("per-client".into())],
            request_id_header: HeaderName::from_static("x-request-id"),
            response_headers: HeaderEdit { set: vec![], remove: vec![header::SERVER] },
            max_body: Some(1024),
            maintenance: None,
            ip_filter: None,
            security_headers: None,
        }
    }

    fn route() -> Route {
        let secret = || HeaderValue::from_static("Bearer hush");
        Route {
            name: at("users".into()),
            matches: Match {
                path: PathMatch::Path(at("/users/{id}".into())),
                hosts: vec![HostPattern::Exact("a.b".into()), HostPattern::Wildcard("c.d".into())],
                methods: vec![Method::GET],
                headers: vec![(HeaderName::from_static("x-key"), ValueMatch::Exact("hush".into()))],
                query: vec![],
            },
            authenticate: Some(Authenticate { with: vec![at("shop".into())], methods: vec![Method::POST] }),
            authorize: vec![ClaimRule { claim: "role".into(), values: vec!["admin".into()] }],
            rate_limits: vec![at("per-user".into())],
            cors: None,
            request_headers: HeaderEdit { set: vec![(header::AUTHORIZATION, secret())], remove: vec![] },
            response_headers: HeaderEdit::default(),
            max_body: None,
            encoded_slashes: EncodedSlashes::Refuse,
            maintenance: None,
            ip_filter: None,
            method_override: None,
            security_headers: None,
            action: Action::Aggregate(Aggregate {
                timeout: Duration::from_secs(2),
                parts: vec![Part {
                    name: "orders".into(),
                    source: PartSource::Call(Box::new(PartCall {
                        method: Method::GET,
                        body: None,
                        forward_headers: None,
                        is_text: false,
                        service: at("order-service".into()),
                        path: PartTemplate(vec![
                            PartPiece::Literal("/orders?user=".into()),
                            PartPiece::Value(ValueOf::Parameter("id".into())),
                        ]),
                        headers: vec![(
                            HeaderName::from_static("x-key"),
                            PartTemplate(vec![PartPiece::Literal("hush".into())]),
                        )],
                        accept_status: vec![],
                        timeout: None,
                        max_body: Some(1),
                        stale_if_error: Some(StaleIfError {
                            keep_for: Duration::from_secs(60),
                            max_bytes: 1 << 20,
                        }),
                        retries: RetriesGiven { attempts: Some(0), ..RetriesGiven::default() },
                        hedging: None,
                    })),
                    needs: vec![],
                    required: false,
                    fallback: PartFallback::Value("[\"hush\"]".into()),
                    shape: PartShape::default(),
                    for_each: None,
                    hidden: false,
                }],
                append: vec![],
                server_timing: None,
                stream: crate::config::Stream::Off,
            }),
        }
    }

    #[test]
    fn a_route_is_shown_whole_but_without_values_that_may_be_secret() {
        let shown = serde_json::to_value(RouteStatus::of(&route(), &defaults())).unwrap();
        assert_eq!(
            shown,
            json!({
                "name": "users",
                "line": 7,
                "match": {
                    "path": "/users/{id}", "hosts": ["a.b", "*.c.d"], "methods": ["GET"], "headers": ["x-key"],
                },
                "policies": [
                    { "policy": "max_body", "settings": { "bytes": 1024 } },
                    { "policy": "authenticate", "settings": { "with": ["shop"], "methods": ["POST"] } },
                    { "policy": "authorize", "settings": { "claims": { "role": ["admin"] } } },
                    { "policy": "rate_limits", "settings": { "limits": ["per-client", "per-user"] } },
                    { "policy": "request_headers", "settings": { "set": ["authorization"], "remove": [] } },
                    { "policy": "response_headers", "settings": { "set": [], "remove": ["server"] } },
                ],
                "action": { "aggregate": { "timeout_ms": 2000, "parts": [
                    { "name": "orders", "service": "order-service", "path": "/orders?user={id}", "required": false,
                      "overrides": ["retries"], "stale_if_error_ms": 60_000 },
                ], "stages": [["orders"]] } },
            })
        );
        assert!(!shown.to_string().contains("hush"));
    }

    #[test]
    fn the_other_actions() {
        let shown = |action| serde_json::to_value(super::action(&action)).unwrap();
        let forward = Forward {
            service: at("s".into()),
            rewrite: Rewrite::StripPrefix("/api".into()),
            host: HostHeader::Preserve,
            overrides: Some(Box::new(Overrides {
                circuit_breaker: BreakerGiven { failures: Some(Vec::new()), ..BreakerGiven::default() },
                ..Overrides::default()
            })),
            stale_if_error: Some(StaleIfError { keep_for: Duration::from_secs(60), max_bytes: 1 << 20 }),
        };
        assert_eq!(
            shown(Action::Forward(forward)),
            json!({ "forward": { "service": "s", "rewrite": "strip_prefix /api", "host": "preserve", "overrides": ["circuit_breaker"],
                "stale_if_error_ms": 60_000 } })
        );
        let batch = BatchAction {
            max_items: 20,
            concurrency: 8,
            timeout: Duration::from_secs(10),
            max_body: 1,
            max_answer: 2,
            max_answers: 3,
        };
        assert_eq!(
            shown(Action::Batch(batch)),
            json!({ "batch": { "max_items": 20, "concurrency": 8, "timeout_ms": 10_000, "max_body_bytes": 1,
                "max_answer_bytes": 2, "max_answers_bytes": 3 } })
        );
        let to = Template(vec![TemplatePiece::Literal("/new".into())]);
        assert_eq!(
            shown(Action::Redirect(Redirect { to, status: StatusCode::PERMANENT_REDIRECT })),
            json!({ "redirect": { "to": "/new", "status": 308 } })
        );
    }
}
