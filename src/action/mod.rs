//! What answers a request in the end.

pub mod aggregate;
mod forward;
mod redirect;
mod respond;
mod stale;
mod tunnel;
mod upstream_request;

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::exchange::{Content, Exchange};
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::refusal::Stop;
use crate::request::Request;
use crate::service::{KeyInput, Progress, Service, Wish};

pub use aggregate::{Aggregate, Ground as AggregateGround};
pub use forward::{Forward, HostHeader, Rewrite};
pub use redirect::Redirect;
pub use respond::Respond;

pub enum Action {
    Forward(Forward),
    Aggregate(Box<Aggregate>),
    Redirect(Box<Redirect>),
    Respond(Box<Respond>),
}

/// Runs the action of the exchange's route.
pub async fn run(exchange: &mut Exchange, request: &mut Request) -> Result<Response<Content>, Stop> {
    let route = exchange.route.clone().expect("the pipeline has chosen a route before it runs an action");
    match &*route.action {
        Action::Forward(forward) => forward.run(exchange, request).await,
        Action::Aggregate(aggregate) => aggregate.run(exchange, request).await,
        Action::Redirect(redirect) => redirect.run(exchange),
        Action::Respond(respond) => Ok(respond.run()),
    }
}

/// Which instance a request would like to go to. `path` is as the instance gets it, `headers`
/// are as the client sent them.
fn wish(service: &Service, exchange: &Exchange, path: &str, headers: &Fields) -> Wish {
    service.wish(|| KeyInput {
        client: exchange.client,
        path,
        headers,
        claims: exchange.identity.as_ref().map(|identity| &identity.claims),
    })
}

/// Counts the attempts of one part.
#[derive(Default)]
struct Attempts {
    count: u32,
}

impl Progress for Attempts {
    fn attempt(&mut self, _instance: SocketAddr, _at: Instant) {
        self.count += 1;
    }

    fn withdrawn(&mut self) {
        self.count -= 1;
    }
}
