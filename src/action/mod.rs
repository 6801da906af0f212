//! What answers a request in the end.

pub mod aggregate;
mod batch;
mod forward;
mod redirect;
mod respond;
mod stale;
mod tunnel;
mod upstream_request;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::exchange::{Content, Exchange};
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::reason::Reason;
use crate::refusal::{Refusal, Stop};
use crate::request::Request;
use crate::service::{KeyInput, Progress, Service, Wish};

pub use aggregate::{Aggregate, Ground as AggregateGround};
pub use batch::{Batch, ItemBody, read as read_batch};
pub use forward::{Forward, HostHeader, Rewrite};
pub use redirect::Redirect;
pub use respond::Respond;

pub enum Action {
    Forward(Forward),
    Aggregate(Arc<Aggregate>),
    Batch(Box<Batch>),
    Redirect(Box<Redirect>),
    Respond(Box<Respond>),
}

/// Runs the action of the exchange's route.
pub async fn run(exchange: &mut Exchange, request: &mut Request) -> Result<Response<Content>, Stop> {
    let route = exchange.route.clone().expect("the pipeline has chosen a route before it runs an action");
    match &*route.action {
        Action::Forward(forward) => forward.run(exchange, request).await,
        Action::Aggregate(aggregate) => aggregate.run(exchange, request).await,
        // Boxed, for the requests of other routes are no larger for it then.
        Action::Batch(batch) => Box::pin(batch.run(exchange, request)).await,
        Action::Redirect(redirect) => redirect.run(exchange),
        Action::Respond(respond) => Ok(respond.run()),
    }
}

/// Of a request that came within a batch: batches of batches would have no bound.
pub fn refuse_within(exchange: &Exchange) -> Result<(), Stop> {
    match exchange.route.as_ref().map(|route| &*route.action) {
        Some(Action::Batch(_)) => {
            Err(Refusal::new(Reason::BatchNested, "an item of a batch can't be a batch").into())
        }
        _ => Ok(()),
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
