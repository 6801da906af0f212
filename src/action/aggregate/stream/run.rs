//! The calls of a streamed aggregate, which go on while the response is written. It owns all that they need: the request's future
//! has ended by then.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use hyper::body::Frame;
use tokio::time::Instant;

use super::passed::{Opened, Passed};
use crate::action::Attempts;
use crate::action::aggregate::board::Board;
use crate::action::aggregate::part::{PartCall, PartError, Performed, Source, Work};
use crate::action::aggregate::sent::Sent;
use crate::action::aggregate::template::Given;
use crate::action::aggregate::{Aggregate, failed, timing};
use crate::exchange::{Desk, Exchange, UpstreamRecord};
use crate::http::fields::Fields;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::route::Params;
use crate::service::KeyInput;
use crate::telemetry::record::Asked;
use crate::worker::Worker;

pub struct Run {
    pub aggregate: Arc<Aggregate>,
    pub board: Board,
    pub desk: Rc<Desk>,
    worker: Rc<Worker>,
    client: Client,
    sent: Sent,
    running: FuturesUnordered<LocalBoxFuture<'static, Ended>>,
    /// Those that are passed through, until their turn has come.
    opened: Vec<Option<Box<Passed>>>,
    began: Instant,
    /// Moved on by the time for which the client took nothing.
    deadline: Instant,
    attempts: u32,
    took: Option<Duration>,
    /// A required part has failed.
    pub refusal: Option<Refusal>,
}

/// Of the client's request, as far as those of parts are made of it.
struct Client {
    address: IpAddr,
    path: String,
    params: Params,
    identity: Option<Arc<Identity>>,
    /// As they were sent, where instances are chosen by them.
    fields: Fields,
}

struct Ended {
    place: usize,
    outcome: Outcome,
    took: Duration,
    attempts: u32,
}

enum Outcome {
    Held(Performed),
    Passing(Box<Passed>),
}

impl Run {
    pub fn new(aggregate: &Arc<Aggregate>, exchange: &Exchange, request: &mut Request) -> Self {
        let client = Client {
            address: exchange.client,
            path: exchange.path.clone(),
            params: exchange.params,
            identity: exchange.identity.clone(),
            fields: if aggregate.has_wishes() { request.headers.clone() } else { Fields::new() },
        };
        let began = Instant::now();
        Run {
            board: Board::new(aggregate.parts.len()),
            desk: Rc::default(),
            worker: exchange.connection.worker.clone(),
            client,
            sent: Sent::of(&aggregate.parts, exchange, request),
            running: FuturesUnordered::new(),
            opened: aggregate.parts.iter().map(|_| None).collect(),
            began,
            deadline: began + aggregate.timeout,
            attempts: 0,
            took: None,
            refusal: None,
            aggregate: aggregate.clone(),
        }
    }

    /// Until `is_done`, or until nothing more can come of the calls.
    pub async fn until(&mut self, is_done: impl Fn(&Run) -> bool) {
        poll_fn(|cx| {
            let rests = self.poll_calls(cx).is_ready();
            if rests || is_done(self) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether a required part has yet to be answered.
    pub fn waits_for_required(&self) -> bool {
        let mut parts = self.aggregate.parts.iter().enumerate();
        self.refusal.is_none()
            && parts
                .any(|(place, part)| part.required && !part.is_spare && self.board.outcome(place).is_none())
    }

    /// Whether all is there that stands under the part's name, or the beginning of it.
    pub fn is_ready(&self, place: usize) -> bool {
        self.refusal.is_some()
            || self.opened[place].is_some()
            || self.board.value(place).is_some()
                && self.aggregate.attached[place].iter().all(|join| self.is_ready(*join))
    }

    /// The answer that is to be passed through; what it holds of the instance is the caller's then.
    pub fn take_opened(&mut self, place: usize) -> Option<Box<Passed>> {
        self.opened[place].take()
    }

    /// It has failed after all.
    pub fn fail(&mut self, place: usize, error: PartError) {
        self.settle(place, Performed::of(Err(error)), self.began.elapsed());
        self.note();
    }

    /// The next piece of an answer whose turn it is.
    pub async fn next(&mut self, passed: &mut Passed) -> Result<Option<Bytes>, PartError> {
        let mut late = pin!(tokio::time::sleep_until(self.deadline));
        let mut next = pin!(passed.next(false));
        poll_fn(|cx| {
            let _ = self.poll_calls(cx);
            match next.as_mut().poll(cx) {
                Poll::Pending => late.as_mut().poll(cx).map(|()| Err(PartError::TimedOut)),
                polled => polled,
            }
        })
        .await
    }

    /// Hands a piece to the client, and waits until it has been taken.
    pub async fn put(&mut self, piece: Bytes) {
        let since = Instant::now();
        self.desk.lay(Frame::data(piece));
        poll_fn(|cx| {
            let _ = self.poll_calls(cx);
            if self.desk.is_free() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.deadline += since.elapsed();
    }

    /// How far it is.
    pub fn record(&self) -> UpstreamRecord {
        let asked = match self.worker.log.enabled() {
            true => Asked::Parts(timing::object(&self.aggregate.parts, &self.board)),
            false => Asked::Nobody,
        };
        UpstreamRecord {
            service: None,
            asked,
            attempts: self.attempts,
            began: Some(self.began),
            took: self.took,
        }
    }

    pub fn took(&self) -> Duration {
        self.took.unwrap_or_default()
    }

    fn note(&self) {
        self.desk.note(self.record());
    }

    /// Takes what has come, and begins what can begin by it. Ready when no call is left.
    fn poll_calls(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for passed in self.opened.iter_mut().flatten() {
            passed.wait(cx);
        }
        loop {
            self.begin();
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(ended)) => self.ended(ended),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn begin(&mut self) {
        let aggregate = self.aggregate.clone();
        while let Some(place) = self.board.begin_next(&aggregate.parts) {
            let call = match &aggregate.parts[place].source {
                Source::Call(call) => call,
                Source::Static(value) => {
                    self.settle(place, Performed::of(Ok(value.clone())), Duration::ZERO);
                    continue;
                }
            };
            match self.work(place, call) {
                Ok(work) => self.running.push(self.call(place, work)),
                Err(error) => self.settle(place, Performed::of(Err(error)), Duration::ZERO),
            }
        }
    }

    fn work(&self, place: usize, call: &PartCall) -> Result<Work, PartError> {
        let client = &self.client;
        let given = Given {
            path: &client.path,
            params: &client.params,
            identity: client.identity.as_deref(),
            board: &self.board,
            asker: self.sent.asker.as_ref(),
            item: None,
        };
        let wish = |target: &str| {
            call.service.wish(|| KeyInput {
                client: client.address,
                path: target,
                headers: &client.fields,
                claims: client.identity.as_ref().map(|identity| &identity.claims),
            })
        };
        call.work(&given, || self.sent.of_part(place), wish)
    }

    fn call(&self, place: usize, work: Work) -> LocalBoxFuture<'static, Ended> {
        let (aggregate, worker, deadline) = (self.aggregate.clone(), self.worker.clone(), self.deadline);
        let began = Instant::now();
        Box::pin(async move {
            let part = &aggregate.parts[place];
            let (mut counted, mut attempts) = (Attempts::default(), 0);
            let caller = worker.caller();
            let passes = part.call().and_then(|call| call.passes);
            let outcome = match (part.call(), work, passes) {
                (Some(call), Work::One(request), Some(passes)) => {
                    match call.open(caller, request, deadline, &mut counted, passes).await {
                        Ok(Opened::Longer(passed)) => Outcome::Passing(passed),
                        Ok(Opened::Whole(value)) => Outcome::Held(Performed::of(Ok(value))),
                        Err(error) => Outcome::Held(Performed::of(Err(error))),
                    }
                }
                (Some(call), work, _) => {
                    let asks = (part.required, &mut attempts);
                    Outcome::Held(call.perform(caller, work, deadline, asks).await)
                }
                (None, ..) => Outcome::Held(Performed::of(Err(PartError::WrongShape))),
            };
            Ended { place, outcome, took: began.elapsed(), attempts: attempts + counted.count }
        })
    }

    fn ended(&mut self, ended: Ended) {
        let Ended { place, outcome, took, attempts } = ended;
        self.attempts += attempts;
        self.took = Some(self.began.elapsed());
        let performed = match outcome {
            Outcome::Held(performed) => performed,
            Outcome::Passing(passed) => {
                self.opened[place] = Some(passed);
                // Nobody takes values from it, and it stands in for no other.
                Performed::of(Ok(Bytes::new()))
            }
        };
        self.settle(place, performed, took);
        self.note();
    }

    fn settle(&mut self, place: usize, performed: Performed, took: Duration) {
        let part = &self.aggregate.parts[place];
        if let Err(error) = &performed.result
            && part.required
        {
            self.refusal.get_or_insert(failed(part, error));
        }
        self.board.settle(place, performed, took, &self.aggregate.parts);
    }
}
