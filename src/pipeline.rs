//! The life of a request, on one screen. Each step is a function of another module; all that branches
//! is here.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use tokio::time::Instant;

use crate::action;
use crate::exchange::{Content, Exchange, ResponseBody};
use crate::http::response::Response;
use crate::identity::Identity;
use crate::listener::Connection;
use crate::policy::{self, method_override};
use crate::reason::Reason;
use crate::refusal::{Refusal, Stop};
use crate::request::{self, Request};
use crate::route::{Found, Params, Place, Query};
use crate::worker::CurrentRoute;

/// Answers a request, whatever it is: every way out of here is a response and a line in the log.
pub async fn serve(mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let answer = answer(&mut exchange, None).await;
    respond(exchange, answer)
}

/// The same for a request that came within another one: it goes all the way of a request by itself, but for what its
/// client has proved already, until `deadline`. Boxed, for the future of an action can't hold that of a request.
pub fn serve_within(
    mut exchange: Box<Exchange>,
    outer: Rc<Outer>,
) -> Pin<Box<dyn Future<Output = Response<ResponseBody>>>> {
    Box::pin(async move {
        let answer = tokio::time::timeout_at(outer.deadline, answer(&mut exchange, Some(&outer))).await;
        let late = |_| Err(Refusal::new(Reason::BatchTimeout, Reason::BatchTimeout.description()).into());
        respond(exchange, answer.unwrap_or_else(late))
    })
}

/// What requests that came within another one have from it.
pub struct Outer {
    /// Its route, and who was authenticated there.
    pub known: Option<(CurrentRoute, Arc<Identity>)>,
    pub deadline: Instant,
}

// With two callers it is no longer taken into them by itself, and what it moves is large.
#[inline(always)]
fn respond(mut exchange: Box<Exchange>, answer: Result<Response<Content>, Stop>) -> Response<ResponseBody> {
    let mut response = match answer {
        Ok(response) => response,
        Err(Stop::Answer(response)) => *response,
        Err(Stop::Refuse(refusal)) => refusal.respond(&mut exchange),
    };
    policy::on_response(&exchange, &mut response);
    exchange.answered(response.status);
    response.map(|content| ResponseBody::new(content, exchange))
}

async fn answer(exchange: &mut Exchange, outer: Option<&Outer>) -> Result<Response<Content>, Stop> {
    let mut request = request::understand(exchange)?;
    request::check_room(exchange)?;
    let preflight = choose_route(exchange, &mut request)?;
    if let Some(outer) = outer {
        check_within(exchange, &request, outer)?;
    }
    policy::on_request(exchange, &mut request, preflight).await?;
    action::run(exchange, &mut request).await
}

/// What holds for it besides, now that its route is known.
fn check_within(exchange: &mut Exchange, request: &Request, outer: &Outer) -> Result<(), Stop> {
    action::refuse_within(exchange)?;
    policy::refuse_page_within(exchange, request)?;
    if let Some((route, identity)) = &outer.known {
        policy::take_over_identity(exchange, route, identity);
    }
    Ok(())
}

/// Finds the route. Where there is none, the policies of `defaults` apply before the refusal does.
fn choose_route(exchange: &mut Exchange, request: &mut Request) -> Result<policy::Preflight, Stop> {
    let snapshot = exchange.snapshot.clone();
    if let Some((place, params)) = override_method(exchange, request) {
        exchange.routed(place, params);
        request::check_slashes(exchange, request)?;
        return policy::on_override(exchange, request).map(|()| policy::Preflight::No);
    }
    let query = request.route_query(exchange);
    // A browser's preflight is about another request: the route of that one answers, where it has CORS.
    let asked_about = (exchange.method == Method::OPTIONS).then(|| request.preflight_method()).flatten();
    let announced = asked_about.map(|method| snapshot.routes.find_preflight(&query, &method));
    let (found, preflight) = match announced {
        Some(Found::Route { place, params }) if snapshot.routes[place].policies.cors.is_some() => {
            (Found::Route { place, params }, policy::Preflight::Yes)
        }
        _ => (snapshot.routes.find(&query), policy::Preflight::No),
    };
    let refusal = match found {
        Found::Route { place, params } => {
            exchange.routed(place, params);
            request::check_slashes(exchange, request)?;
            return policy::refuse_override(exchange, request).map(|()| preflight);
        }
        _ if request.has_encoded_slash => request::encoded_slash(),
        Found::MethodNotAllowed { allow } => {
            Refusal::new(Reason::MethodNotAllowed, format!("this path does not take {}", exchange.method))
                .with(http::header::ALLOW, allow)
        }
        Found::None => Refusal::new(Reason::RouteNotFound, "no route takes this host and path"),
    };
    policy::on_unrouted(exchange, request)?;
    Err(refusal.into())
}

/// Takes a POST for the method that it asks for, where the route of that method allows it.
fn override_method(exchange: &mut Exchange, request: &Request) -> Option<(Place, Params)> {
    let snapshot = exchange.snapshot.clone();
    if snapshot.override_headers.is_empty() || exchange.method != Method::POST {
        return None;
    }
    for header in &snapshot.override_headers {
        let Some(method) = method_override::asked(&request.headers, header) else { continue };
        let query = Query { method: &method, ..request.route_query(exchange) };
        let Found::Route { place, params } = snapshot.routes.find(&query) else { continue };
        let allows = snapshot.routes[place].policies.method_override.as_ref();
        if allows.is_some_and(|written| written.allows(header, &method)) {
            exchange.method = method;
            return Some((place, params));
        }
    }
    None
}

/// Answers a head that could not be read: there is no request, but it is counted and logged as one.
pub fn refuse_head(
    connection: &Rc<Connection>,
    reason: Reason,
    detail: &'static str,
) -> Response<ResponseBody> {
    let mut exchange = Exchange::unread(connection.clone());
    let mut response = Refusal::new(reason, detail).respond(&mut exchange);
    policy::on_response(&exchange, &mut response);
    exchange.answered(response.status);
    response.map(|content| ResponseBody::new(content, exchange))
}
