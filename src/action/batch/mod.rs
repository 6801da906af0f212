//! Many requests in one: each goes the way of a request by itself, through its own route and its policies, and what it
//! was answered stands in one document, in the order of the requests.
//!
//! Nothing comes through here that would not come through the front door: an item is a request of the batch's client, with
//! its credentials, and says nothing by itself about who asks, from where, or of which host.

mod answer;
mod board;
mod compile;
mod document;
mod item;
mod plan;
mod read;
mod text;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::Instant;

use self::answer::{Answer, Room};
use self::board::Board;
use self::item::Ground;
use self::read::Requests;
use crate::exchange::{Content, Exchange};
use crate::http::body::BodyError;
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::pipeline::{self, Outer};
use crate::reason::Reason;
use crate::refusal::{Refusal, Stop};
use crate::request::Request;
use crate::telemetry::record::Asked;

pub use self::read::{ItemBody, read};

pub struct Batch {
    /// Of one batch.
    max_items: usize,
    /// Items that are under way at the same time.
    concurrency: usize,
    /// For all items together, from when the batch has been read.
    timeout: Duration,
    /// Of the batch, in bytes.
    max_body: u64,
    /// The body of one answer, and all that is kept of all of them.
    max_answer: u64,
    max_answers: u64,
}

impl Batch {
    pub async fn run(
        &self,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Response<Content>, Stop> {
        if exchange.method != Method::POST {
            let refusal = Refusal::new(Reason::MethodNotAllowed, "a batch is a POST");
            return Err(refusal.with(header::ALLOW, HeaderValue::from_static("POST")).into());
        }
        check_media_type(&request.headers)?;
        let body = self.receive(exchange, request.declared).await?;
        let is_taken = |name: &http::HeaderName| item::is_taken(name, &exchange.snapshot);
        let requests = read(&body, self.max_items, &is_taken)
            .map_err(|detail| Refusal::new(Reason::InvalidBatch, detail))?;
        let count = requests.items.len();
        exchange.upstream.asked = Asked::Items(u32::try_from(count).unwrap_or(u32::MAX));
        let began = Instant::now();
        exchange.upstream.began = Some(began);
        let ground = Ground::of(exchange, request, self.max_body);
        let board = self.fetch(&requests, &ground, began + self.timeout).await;
        exchange.upstream.took = Some(began.elapsed());
        let mut response =
            Response::new(StatusCode::OK, Content::Whole(document::document(&requests, &board)));
        response.fields.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.fields.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// The whole body: nobody knows which item needs which before its end.
    async fn receive(&self, exchange: &Exchange, declared: Option<u64>) -> Result<Bytes, Stop> {
        let too_large = || {
            let detail = format!("a batch has {} bytes at most", self.max_body);
            Stop::from(Refusal::new(Reason::BodyTooLarge, detail))
        };
        if declared.is_some_and(|declared| declared > self.max_body) {
            return Err(too_large());
        }
        let body = exchange.body.clone().expect("the size limits of every route have taken the body");
        let mut incoming = body.attempt(exchange.connection.settings.limits.idle_timeout);
        let mut whole = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(not_received)?.into_data() else { continue };
            if (whole.len() + data.len()) as u64 > self.max_body {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
        body.answered();
        Ok(whole.freeze())
    }

    /// All items, each as soon as those that it waits for have been answered. Dropping the future cancels what is under way.
    async fn fetch(&self, requests: &Requests, ground: &Ground<'_>, deadline: Instant) -> Board {
        let known = ground.exchange.route.clone().zip(ground.exchange.identity.clone());
        let outer = Rc::new(Outer { known, deadline });
        let left = Rc::new(Cell::new(self.max_answers));
        let room = || Room { of_one: self.max_answer, left: left.clone(), taken: 0 };
        let mut board = Board::new(&requests.items);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.concurrency
                && let Some(place) = board.begin_next()
            {
                match ground.exchange_of(&requests.items, place, &board, deadline) {
                    Ok(exchange) => {
                        let (outer, room) = (outer.clone(), room());
                        let id = ground.request_id();
                        running.push(async move {
                            let is_head = exchange.method == Method::HEAD;
                            let response = pipeline::serve_within(exchange, outer).await;
                            (place, Answer::receive(response, is_head, deadline, room, id).await)
                        });
                    }
                    Err(fault) => board.settle(place, Answer::refused(&fault, ground.request_id())),
                }
            }
            let Some((place, answer)) = running.next().await else { return board };
            board.settle(place, answer);
        }
    }
}

/// A page of another origin can have its browser send a body of another type without asking (Fetch §2.2.2), with the
/// cookies of whoever looks at it.
fn check_media_type(headers: &Fields) -> Result<(), Stop> {
    let refuse = |detail: &'static str| Err(Refusal::new(Reason::BatchMediaType, detail).into());
    if !headers.only(&header::CONTENT_TYPE).is_some_and(answer::is_json) {
        return refuse("a batch has the Content-Type application/json");
    }
    let mut codings = headers.get_all(&header::CONTENT_ENCODING);
    if codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return refuse("the body of a batch is sent as it is, without a Content-Encoding");
    }
    Ok(())
}

fn not_received(error: BodyError) -> Stop {
    let (reason, detail) = match error {
        BodyError::TooLarge => (Reason::BodyTooLarge, "the request body is larger than allowed"),
        BodyError::Stalled => (Reason::RequestTimeout, "the body of the request did not come in time"),
        BodyError::Malformed => (Reason::InvalidRequest, "the request body is malformed"),
        BodyError::Broken => (Reason::ClientGone, "the client broke off"),
    };
    Refusal::new(reason, detail).into()
}
