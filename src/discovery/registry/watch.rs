//! Watching one service: a long poll, or a stream of server-sent events.
//!
//! Both begin from the version that the client has, so no change falls between two requests. The
//! number of clients that wait at one time is bounded.

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
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::problem::ApiError;
use super::store::{Store, View};
use crate::http::small_server::{self, SmallBody};

/// Below the number of connections that the server takes: watchers can't shut heartbeats out.
const MAX_WATCHERS: usize = 256;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// A comment in a silent stream, so that neither side takes the other for gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub struct Watchers {
    store: Arc<Store>,
    slots: Arc<Semaphore>,
}

impl Watchers {
    pub fn new(store: Arc<Store>) -> Self {
        Watchers { store, slots: Arc::new(Semaphore::new(MAX_WATCHERS)) }
    }

    pub async fn answer(
        &self,
        name: &Arc<str>,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Response<SmallBody>, ApiError> {
        let query = Query::parse(query.unwrap_or_default())?;
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| ApiError::TooManyWatchers)?;
        let views = self.store.subscribe(name)?;
        if wants_events(headers) {
            let seen = last_event_id(headers).or(query.version);
            return Ok(event_stream(Watch { name: name.clone(), views, seen, _slot: slot }));
        }
        let mut watch = Watch { name: name.clone(), views, seen: query.version, _slot: slot };
        let document = match tokio::time::timeout(query.timeout, watch.next()).await {
            Ok(document) => document,
            Err(_) => watch.now(),
        };
        Ok(small_server::json(StatusCode::OK, &document))
    }
}

/// One client's view of one service.
struct Watch {
    name: Arc<str>,
    views: watch::Receiver<Arc<View>>,
    /// The version that the client has. `None`: it has nothing yet.
    seen: Option<u64>,
    _slot: OwnedSemaphorePermit,
}

impl Watch {
    /// The next set that the client doesn't have.
    async fn next(&mut self) -> Value {
        let seen = self.seen;
        let view = self.views.wait_for(|view| Some(view.version) != seen).await.map(|view| view.clone());
        match view {
            Ok(view) => self.show(&view),
            // The service was forgotten together with its last instance, long ago.
            Err(_) => self.now(),
        }
    }

    fn now(&mut self) -> Value {
        let view = self.views.borrow().clone();
        self.show(&view)
    }

    fn show(&mut self, view: &View) -> Value {
        self.seen = Some(view.version);
        let instances: Vec<Value> = view.instances.iter().map(|instance| instance.to_json()).collect();
        json!({ "service_name": &*self.name, "version": view.version, "instances": instances })
    }

    /// The next piece of an event stream, or `None` at its end.
    async fn next_event(&mut self) -> Option<Bytes> {
        if self.views.has_changed().is_err() {
            return None;
        }
        let document = match tokio::time::timeout(KEEP_ALIVE, self.next()).await {
            Ok(document) => document,
            Err(_) => return Some(Bytes::from_static(b": nothing new\n\n")),
        };
        // JSON without line breaks: one `data` line holds all of it.
        let id = self.seen.unwrap_or_default();
        Some(format!("id: {id}\nevent: instances\ndata: {document}\n\n").into())
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

/// The body of an event stream: it makes the next piece when the last one was taken, and ends with
/// its connection.
struct Events {
    piece: Pin<Box<dyn Future<Output = (Watch, Option<Bytes>)> + Send>>,
}

impl Events {
    fn new(watch: Watch) -> Self {
        Events { piece: Box::pin(Self::make(watch)) }
    }

    async fn make(mut watch: Watch) -> (Watch, Option<Bytes>) {
        let piece = watch.next_event().await;
        (watch, piece)
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (watch, piece) = ready!(self.piece.as_mut().poll(context));
        // After the end the new future is never polled.
        self.piece = Box::pin(Self::make(watch));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}
