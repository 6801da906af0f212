//! Watching one service: a long poll, or a stream of server-sent events.
//!
//! Both begin from the version that the client has, so no change falls between two requests. What is told is
//! always the whole set, written once for all who watch. A client that reads slowly misses sets in between:
//! nothing is kept for it but the one that it is reading. The number of clients that wait at one time is bounded.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;

use super::problem::ApiError;
use super::store::{Store, Subscription};
use crate::http::small_server::{self, SmallBody};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// A comment in a silent stream, so that neither side takes the other for gone.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

pub async fn answer(
    store: &Arc<Store>,
    name: &Arc<str>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response<SmallBody>, ApiError> {
    let query = Query::parse(query.unwrap_or_default())?;
    let slot = store.watcher().ok_or(ApiError::TooManyWatchers)?;
    let subscription = store.subscribe(name)?;
    if wants_events(headers) {
        let views = subscription.after(last_event_id(headers).or(query.version));
        return Ok(event_stream(Watch { views, _slot: slot }));
    }
    let mut views = subscription.after(query.version);
    // Without a change within that time, what there is is the answer too.
    let _ = tokio::time::timeout(query.timeout, views.changed()).await;
    Ok(small_server::reply(StatusCode::OK, "application/json", views.look().document()))
}

/// One client's view of one service.
struct Watch {
    views: Subscription,
    _slot: OwnedSemaphorePermit,
}

impl Watch {
    /// The next pieces of an event stream, the last one first.
    async fn next(&mut self) -> Vec<Bytes> {
        if tokio::time::timeout(KEEP_ALIVE, self.views.changed()).await.is_err() {
            return vec![Bytes::from_static(b": nothing new\n\n")];
        }
        let view = self.views.look();
        let head = format!("id: {}\nevent: instances\ndata: ", view.version);
        // JSON without line breaks: one `data` line holds all of it.
        vec![Bytes::from_static(b"\n\n"), view.document(), head.into()]
    }
}

struct Query {
    version: Option<u64>,
    timeout: Duration,
}

impl Query {
    fn parse(text: &str) -> Result<Query, ApiError> {
        let mut query = Query { version: None, timeout: DEFAULT_TIMEOUT };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("version", value) => {
                    let version = value.parse();
                    let complaint = |_| ApiError::InvalidQuery("\"version\" must be a whole number".into());
                    query.version = Some(version.map_err(complaint)?);
                }
                ("timeout", value) => query.timeout = timeout(value)?,
                _ => {
                    let complaint = "only \"version\" and \"timeout\" can be asked for".to_owned();
                    return Err(ApiError::InvalidQuery(complaint));
                }
            }
        }
        Ok(query)
    }
}

/// `30s`, `500ms`, `1m`; a number alone is seconds. At most [`MAX_TIMEOUT`].
fn timeout(text: &str) -> Result<Duration, ApiError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: Option<u64> = number.parse().ok();
    let duration = match (number, unit) {
        (Some(number), "ms") => Some(Duration::from_millis(number)),
        (Some(number), "s" | "") => Some(Duration::from_secs(number)),
        (Some(number), "m") => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    };
    let complaint = || ApiError::InvalidQuery("\"timeout\" must be a time of at most 5m, such as 30s".into());
    duration.filter(|duration| *duration <= MAX_TIMEOUT).ok_or_else(complaint)
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepts.flat_map(|value| value.split(','));
    types.any(|accepted| {
        accepted.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
    })
}

/// What a client that reconnects has seen last, as event streams define it.
fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

fn event_stream(watch: Watch) -> Response<SmallBody> {
    let mut response = Response::new(Events::new(watch).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of an event stream: it looks for what is next when the last piece was taken, and ends with its
/// connection.
struct Events {
    /// Those of an event that were not taken yet, the last one first.
    pieces: Vec<Bytes>,
    next: Pin<Box<dyn Future<Output = (Watch, Vec<Bytes>)> + Send>>,
}

impl Events {
    fn new(watch: Watch) -> Self {
        Events { pieces: Vec::new(), next: Box::pin(Self::after(watch)) }
    }

    async fn after(mut watch: Watch) -> (Watch, Vec<Bytes>) {
        let pieces = watch.next().await;
        (watch, pieces)
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(piece) = self.pieces.pop() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let (watch, pieces) = ready!(self.next.as_mut().poll(context));
            self.pieces = pieces;
            self.next = Box::pin(Self::after(watch));
        }
    }
}
