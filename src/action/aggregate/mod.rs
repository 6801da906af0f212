//! One document out of many services' answers. Each part begins as soon as what it needs is there; they stand in the
//! document in the order and under the names of the configuration, whichever came first.

mod board;
pub mod body;
mod compile;
mod document;
pub mod join;
pub mod json;
mod kept;
pub mod order;
pub(super) mod part;
pub mod select;
mod sent;
pub mod shape;
mod stream;
pub(super) mod template;
mod timing;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use self::board::Board;
use self::part::{PartError, Performed, Source, Told};
use self::sent::Sent;
use self::stream::Stream;
use self::template::Given;
use self::timing::ServerTiming;
use crate::exchange::{Content, Exchange};
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::reason::Reason;
use crate::refusal::{Refusal, Stop};
use crate::request::Request;
use crate::telemetry::record::Asked;

pub use self::compile::Ground;
pub use self::part::Part;

pub struct Aggregate {
    parts: Vec<Part>,
    /// What stands in the document, in order.
    layout: Vec<document::Slot>,
    /// For each part the joins whose answers stand in its elements.
    attached: Vec<Vec<usize>>,
    /// Whether parts are merged into the root.
    merges: bool,
    /// For all parts together.
    timeout: Duration,
    server_timing: Option<ServerTiming>,
    /// The parts go out as they come.
    stream: Option<Stream>,
}

impl Aggregate {
    pub async fn run(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Response<Content>, Stop> {
        if let Some(stream) = self.stream {
            return Box::pin(stream::run(self, stream, exchange, request)).await;
        }
        let server_timing = self.server_timing.as_ref();
        let tells_times = server_timing.is_some_and(|timing| timing.is_asked(&mut request.headers));
        let as_sent = if self.has_wishes() { request.headers.clone() } else { Fields::new() };
        let sent = Sent::of(&self.parts, exchange, request);
        let mut board = Board::new(self.parts.len());
        let fetched = self.fetch(&mut board, exchange, &as_sent, &sent).await;
        if exchange.connection.worker.log.enabled() {
            exchange.upstream.asked = Asked::Parts(timing::object(&self.parts, &board));
        }
        fetched?;
        let mut response = document::respond(self, &board);
        if tells_times
            && let Some(times) =
                timing::field(&self.parts, &board, exchange.upstream.took.unwrap_or_default())
        {
            response.fields.append(timing::SERVER_TIMING, times);
        }
        Ok(response)
    }

    /// Whether a service chooses instances by something of the request.
    fn has_wishes(&self) -> bool {
        self.parts.iter().filter_map(Part::call).any(|call| call.service.has_wishes())
    }

    /// All parts. A required one that fails ends it there and then, and cancels the rest.
    async fn fetch(
        &self,
        board: &mut Board,
        exchange: &mut Exchange,
        as_sent: &Fields,
        sent: &Sent,
    ) -> Result<(), Stop> {
        let worker = exchange.connection.worker.clone();
        let began = Instant::now();
        let deadline = began + self.timeout;
        exchange.upstream.began = Some(began);
        let mut running = FuturesUnordered::new();
        loop {
            while let Some(place) = board.begin_next(&self.parts) {
                let part = &self.parts[place];
                let call = match &part.source {
                    Source::Call(call) => call,
                    Source::Static(value) => {
                        board.settle(place, Performed::of(Ok(value.clone())), Duration::ZERO, &self.parts);
                        continue;
                    }
                };
                let given = Given {
                    path: &exchange.path,
                    params: &exchange.params,
                    identity: exchange.identity.as_deref(),
                    board,
                    asker: sent.asker.as_ref(),
                    item: None,
                };
                let wish = |target: &str| super::wish(&call.service, exchange, target, as_sent);
                match call.work(&given, || sent.of_part(place), wish) {
                    Ok(work) => {
                        let (begins, caller) = (Instant::now(), worker.caller());
                        running.push(async move {
                            let mut attempts = 0;
                            let asks = (part.required, &mut attempts);
                            let performed = call.perform(caller, work, deadline, asks).await;
                            (place, performed, begins.elapsed(), attempts)
                        });
                    }
                    Err(error) => self.settle(board, place, Performed::of(Err(error)), Duration::ZERO)?,
                }
            }
            let Some((place, performed, took, attempts)) = running.next().await else { break };
            exchange.upstream.attempts += attempts;
            exchange.upstream.took = Some(began.elapsed());
            self.settle(board, place, performed, took)?;
        }
        Ok(())
    }

    fn settle(
        &self,
        board: &mut Board,
        place: usize,
        performed: Performed,
        took: Duration,
    ) -> Result<(), Stop> {
        let part = &self.parts[place];
        let refusal = match &performed.result {
            Err(error) if part.required => Some(failed(part, error)),
            _ => None,
        };
        board.settle(place, performed, took, &self.parts);
        refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
    }
}

fn failed(part: &Part, error: &PartError) -> Refusal {
    let detail = match error {
        PartError::Status(status) | PartError::Told(Told { status, reason: Reason::PartFailed }) => {
            format!("the required part {} was answered with {}", part.name, status.as_u16())
        }
        other => format!("the required part {} failed: {}", part.name, other.reason().code()),
    };
    Refusal::new(error.reason_of_whole(), detail)
}
