//! One document out of many services' answers. Each part begins as soon as what it needs is there; they stand in the
//! document in the order and under the names of the configuration, whichever came first.

mod board;
mod body;
mod compile;
mod document;
mod join;
mod json;
mod order;
mod part;
mod select;
mod sent;
mod shape;
mod template;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use self::board::Board;
use self::part::{PartError, Performed, Source, Told};
use self::sent::Sent;
use self::template::Given;
use crate::exchange::{Content, Exchange};
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::reason::Reason;
use crate::refusal::{Refusal, Stop};
use crate::request::Request;

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
}

impl Aggregate {
    pub async fn run(
        &self,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Response<Content>, Stop> {
        let as_sent = if self.has_wishes() { request.headers.clone() } else { Fields::new() };
        let sent = Sent::of(&self.parts, exchange, request);
        let board = self.fetch(exchange, &as_sent, &sent).await?;
        Ok(document::respond(self, &board))
    }

    /// Whether a service chooses instances by something of the request.
    fn has_wishes(&self) -> bool {
        self.parts.iter().filter_map(Part::call).any(|call| call.service.has_wishes())
    }

    /// All parts. A required one that fails ends it there and then, and cancels the rest.
    async fn fetch(&self, exchange: &mut Exchange, as_sent: &Fields, sent: &Sent) -> Result<Board, Stop> {
        let worker = exchange.connection.worker.clone();
        let began = Instant::now();
        let deadline = began + self.timeout;
        exchange.upstream.began = Some(began);
        let mut board = Board::new(self.parts.len());
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
                    board: &board,
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
                    Err(error) => {
                        self.settle(&mut board, place, Performed::of(Err(error)), Duration::ZERO)?
                    }
                }
            }
            let Some((place, performed, took, attempts)) = running.next().await else { break };
            exchange.upstream.attempts += attempts;
            exchange.upstream.took = Some(began.elapsed());
            self.settle(&mut board, place, performed, took)?;
        }
        Ok(board)
    }

    fn settle(
        &self,
        board: &mut Board,
        place: usize,
        performed: Performed,
        took: Duration,
    ) -> Result<(), Stop> {
        let part = &self.parts[place];
        if let (true, Err(error)) = (part.required, &performed.result) {
            return Err(failed(part, error).into());
        }
        board.settle(place, performed, took, &self.parts);
        Ok(())
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
