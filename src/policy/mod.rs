//! The policies of a route and, here alone, their order:
//!
//! request id and trace → maintenance → IP filter → CORS preflight → size limits → rate limits that need no identity →
//! authentication → authorisation → rate limits by identity → request transforms → action →
//! security fields → response transforms → CORS fields.
//!
//! What is cheap and refuses most comes first; nothing learns who asks before the limits that protect
//! the check itself. The response side runs on every reply, the gateway's own included.

pub mod authenticate;
pub mod authorize;
pub mod cors;
pub mod headers;
pub mod ip_filter;
pub mod maintenance;
pub mod method_override;
pub mod rate_limit;
pub mod security_headers;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;

use crate::clock;
use crate::exchange::{Content, Exchange};
use crate::http::fields::Fields;
use crate::http::forwarded::Scheme;
use crate::http::pace::Demand;
use crate::http::response::Response;
use crate::identity::{self, Identity};
use crate::reason::Reason;
use crate::refusal::{Refusal, Stop};
use crate::request::Request;
use crate::snapshot::Route;
use authenticate::Authentication;
use authorize::Authorization;
use cors::{Cors, PreflightAnswer};
use headers::HeaderEdit;
use ip_filter::IpFilter;
use maintenance::Maintenance;
use method_override::MethodOverride;
use rate_limit::{KeyInput, RateLimiter};
use security_headers::SecurityHeaders;

/// The policies of one route, compiled, those of `defaults` included.
#[derive(Default)]
pub struct Policies {
    pub keeps_encoded_slashes: bool,
    pub maintenance: Option<Maintenance>,
    /// All of them must let the client in.
    pub ip_filters: Box<[Arc<IpFilter>]>,
    pub method_override: Option<MethodOverride>,
    pub cors: Option<Cors>,
    pub max_body: Option<u64>,
    /// Rate limits whose key is known before anyone is authenticated.
    pub limits: Box<[Arc<RateLimiter>]>,
    pub authenticate: Option<Authentication>,
    pub authorize: Option<Authorization>,
    pub limits_by_identity: Box<[Arc<RateLimiter>]>,
    /// Without edits that change nothing, as are those of responses.
    pub request_headers: Box<[HeaderEdit]>,
    pub security_headers: Option<SecurityHeaders>,
    pub response_headers: Box<[HeaderEdit]>,
}

/// Whether the request asks a browser's question about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preflight {
    No,
    Yes,
}

/// The policies before the action, in their order.
pub async fn on_request(
    exchange: &mut Exchange,
    request: &mut Request,
    preflight: Preflight,
) -> Result<(), Stop> {
    let Some(route) = exchange.route.clone() else { return Ok(()) };
    let policies = &route.policies;
    refuse_in_maintenance(exchange, policies)?;
    filter_address(exchange, policies)?;
    answer_preflight(exchange, policies, preflight, request)?;
    limit_body(exchange, request, policies.max_body)?;
    limit_rate(exchange, &policies.limits, route.name(), &request.headers)?;
    if let Some(authenticate) = &policies.authenticate
        && authenticate.applies_to(&exchange.method)
    {
        // Known already is only who came with a request around this one: see `take_over_identity`.
        let identity = if let Some(known) = exchange.identity.take() {
            Ok(known)
        } else if let Some(decided) = authenticate.by_certificate(exchange.connection.client_names.get()) {
            decided
        } else {
            let tokens = &exchange.connection.worker.tokens;
            authenticate.authenticate(&request.headers, tokens, clock::recent_wall()).await
        };
        let identity = identity.map_err(refused)?;
        if let Some(authorize) = &policies.authorize {
            authorize.check(Some(&identity)).map_err(refused)?;
        }
        exchange.identity = Some(identity);
    }
    limit_rate(exchange, &policies.limits_by_identity, route.name(), &request.headers)
}

/// Of a request that came within one to `outer`: where its own route asks the same of the same credentials, the answer
/// would be the same again. Any other route asks anew.
pub fn take_over_identity(exchange: &mut Exchange, outer: &Route, identity: &Arc<Identity>) {
    let asked = |route: &Route| match (&route.policies.authenticate, &outer.policies.authenticate) {
        (Some(own), Some(outer)) => own.applies_to(&exchange.method) && own.asks_the_same(outer),
        _ => false,
    };
    if exchange.route.as_ref().is_some_and(|route| asked(route)) {
        exchange.identity = Some(identity.clone());
    }
}

/// Of a request that came within another one. The answer to a request of its own a browser would show to the pages of
/// other origins only where the route allows them; here it can't tell one answer from another.
pub fn refuse_page_within(exchange: &Exchange, request: &Request) -> Result<(), Stop> {
    let Some((origin, route)) = exchange.origin.as_ref().zip(exchange.route.as_ref()) else { return Ok(()) };
    let lets = match &route.policies.cors {
        Some(cors) => cors.lets_read(origin, &request.headers, request.host.as_deref(), &exchange.method),
        None => cors::is_own_page(origin, &request.headers, request.host.as_deref()),
    };
    match lets {
        true => Ok(()),
        false => Err(Refusal::new(
            Reason::BatchOriginDenied,
            "pages of this origin may not read what this route answers",
        )
        .into()),
    }
}

/// Whether there are any request transforms.
pub fn edits_upstream_request(exchange: &Exchange) -> bool {
    exchange.route.as_ref().is_some_and(|route| !route.policies.request_headers.is_empty())
}

/// The request transforms, on the fields as they go to an instance. They come after all that a client's
/// `Connection` could take away, and have the last word over what the gateway writes by itself.
pub fn on_upstream_request(exchange: &Exchange, headers: &mut Fields) {
    for edit in exchange.route.iter().flat_map(|route| &route.policies.request_headers) {
        edit.apply(headers);
    }
}

/// The policies of `defaults` for a request that no route takes.
pub fn on_unrouted(exchange: &mut Exchange, request: &mut Request) -> Result<(), Stop> {
    let snapshot = exchange.snapshot.clone();
    refuse_in_maintenance(exchange, &snapshot.defaults)?;
    filter_address(exchange, &snapshot.defaults)?;
    limit_body(exchange, request, snapshot.defaults.max_body)?;
    limit_rate(exchange, &snapshot.defaults.limits, "", &request.headers)
}

/// The policies after the action, on whatever the answer is.
pub fn on_response(exchange: &Exchange, response: &mut Response<Content>) {
    let policies = exchange.route.as_ref().map_or(&exchange.snapshot.defaults, |route| &*route.policies);
    let fields = &mut response.fields;
    if !exchange.spent.is_empty() {
        let spent: Vec<_> =
            exchange.spent.iter().map(|(limiter, decision)| (&**limiter, *decision)).collect();
        rate_limit::write_headers(fields, &spent);
    }
    if let Some(security) = &policies.security_headers {
        security.apply(fields, exchange.connection.facts.scheme() == Scheme::Https);
    }
    for edit in &policies.response_headers {
        edit.apply(fields);
    }
    // Whoever writes the response out writes the request's id. What an instance says in its place goes.
    let name = &exchange.snapshot.request_id_header;
    if exchange.request_id.is_some() {
        fields.remove(name);
    }
    match &policies.cors {
        // A preflight's answer says all that there is to say already.
        Some(cors) if !exchange.is_preflight => cors.decorate(exchange.origin.as_ref(), fields),
        _ => {}
    }
}

fn refuse_in_maintenance(exchange: &Exchange, policies: &Policies) -> Result<(), Stop> {
    match &policies.maintenance {
        Some(maintenance) if maintenance.is_on_for(exchange.client) => {
            let refusal = Refusal::new(Reason::Maintenance, "this is being worked on; try again later");
            Err(refusal.with(http::header::RETRY_AFTER, maintenance.retry_after().clone()).into())
        }
        _ => Ok(()),
    }
}

fn filter_address(exchange: &Exchange, policies: &Policies) -> Result<(), Stop> {
    match policies.ip_filters.iter().all(|filter| filter.lets_in(exchange.client)) {
        true => Ok(()),
        false => Err(Refusal::new(Reason::IpDenied, "this address may not call").into()),
    }
}

/// Of a POST that is to be taken for another method. A page of another origin asked its browser's preflight about a
/// POST: what CORS has to say about the method that it got instead is said here.
pub fn on_override(exchange: &Exchange, request: &Request) -> Result<(), Stop> {
    let Some(route) = &exchange.route else { return Ok(()) };
    let lets =
        |cors: &Cors| cors.lets_use(exchange.origin.as_ref(), request.host.as_deref(), &exchange.method);
    match route.policies.cors.as_ref().is_none_or(lets) {
        true => Ok(()),
        false => Err(override_refused("pages of this origin may not use this method").into()),
    }
}

/// Whether a POST that is taken for one asks in vain to be taken for something else.
pub fn refuse_override(exchange: &Exchange, request: &Request) -> Result<(), Stop> {
    let Some(route) = exchange.route.as_ref().filter(|_| exchange.method == Method::POST) else {
        return Ok(());
    };
    match &route.policies.method_override {
        Some(written) if written.is_asked_for(&request.headers) => {
            Err(override_refused("a POST can't be taken for that method here").into())
        }
        _ => Ok(()),
    }
}

fn override_refused(detail: &'static str) -> Refusal {
    Refusal::new(Reason::MethodOverrideRefused, detail)
}

fn answer_preflight(
    exchange: &mut Exchange,
    policies: &Policies,
    preflight: Preflight,
    request: &Request,
) -> Result<(), Stop> {
    match &policies.cors {
        Some(cors) if preflight == Preflight::Yes => {
            exchange.is_preflight = true;
            Err(Stop::Answer(Box::new(preflight_response(cors.preflight(&request.headers)))))
        }
        _ => Ok(()),
    }
}

/// A declared length is refused before a byte of it is read; an undeclared one is counted as it comes.
fn limit_body(exchange: &mut Exchange, request: &mut Request, limit: Option<u64>) -> Result<(), Stop> {
    let limits = &exchange.connection.settings.limits;
    let demand = Demand { least: limits.min_upload_rate, grace: limits.idle_timeout };
    exchange.body = Some(request.take_body(limit, demand));
    match (request.declared, limit) {
        (Some(declared), Some(limit)) if declared > limit => Err(Refusal::new(
            Reason::BodyTooLarge,
            format!("the request body has {declared} bytes; {limit} are allowed"),
        )
        .into()),
        _ => Ok(()),
    }
}

/// Takes from all limits; the first that has nothing left refuses.
fn limit_rate(
    exchange: &mut Exchange,
    limiters: &[Arc<RateLimiter>],
    route: &str,
    headers: &Fields,
) -> Result<(), Stop> {
    for limiter in limiters {
        let decision = limiter.check(&KeyInput {
            client: exchange.client,
            route,
            headers,
            claims: exchange.identity.as_ref().map(|identity| &identity.claims),
        });
        exchange.spent.push((limiter.clone(), decision));
        if !decision.allowed {
            return Err(Refusal::new(
                Reason::RateLimited,
                format!("the limit {} allows no more for now", limiter.name()),
            )
            .into());
        }
    }
    Ok(())
}

fn preflight_response(answer: PreflightAnswer) -> Response<Content> {
    Response { fields: answer.headers, ..Response::new(answer.status, Content::Whole(Bytes::new())) }
}

fn refused(refusal: identity::Refusal) -> Stop {
    let challenge = refusal.challenge;
    let refusal = Refusal::new(refusal.reason, refusal.detail);
    match challenge {
        Some(challenge) => refusal.with(http::header::WWW_AUTHENTICATE, challenge).into(),
        None => refusal.into(),
    }
}
