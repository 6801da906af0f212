//! One HTTP/2 connection, on `h2` itself: interim responses, resets and trailers pass through it as they are.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Reset, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Body;
use tokio::sync::mpsc;

use super::Connection;
use super::drain::Drained;
use super::io::{Rewound, Transport};
use crate::clock::{self, Millis};
use crate::exchange::{Arrived, ResponseBody};
use crate::http::body::{ClientBody, Http2Body};
use crate::pipeline;
use crate::service::InformationalSink;

/// Per stream; what a reader that is not reading can make us hold.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const SEND_BUFFER: usize = 256 * 1024;
/// Interim responses that wait for one request at most.
const INTERIM_QUEUE: usize = 16;

pub async fn serve(io: Rewound<Transport>, connection: Rc<Connection>, drained: Drained) {
    let limits = &connection.settings.limits;
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .handshake::<_, Bytes>(io);
    let Ok(Ok(mut h2)) = tokio::time::timeout(limits.header_timeout, handshake).await else { return };
    let streams = Rc::new(Streams::default());
    let mut idle = Box::pin(tokio::time::sleep(limits.idle_timeout));
    let mut draining = false;
    loop {
        let accepted = poll_fn(|cx| {
            if !draining && drained.poll(cx).is_ready() {
                draining = true;
                h2.graceful_shutdown();
            }
            if let Poll::Ready(accepted) = h2.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
            let mut closing = false;
            while idle.as_mut().poll(cx).is_ready() {
                // A stream in progress counts as use, however long it takes.
                let left = limits.idle_timeout.saturating_sub(streams.idle_for());
                closing = left.is_zero();
                let wait = if closing { Duration::from_secs(1) } else { left };
                idle.as_mut().reset(tokio::time::Instant::now() + wait);
                if closing {
                    break;
                }
            }
            if closing {
                if draining {
                    return Poll::Ready(None);
                }
                draining = true;
                h2.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        let Some(Ok((request, respond))) = accepted else { return };
        let (connection, open) = (connection.clone(), streams.open());
        tokio::task::spawn_local(async move {
            let _open = open;
            stream(connection, request, respond).await;
        });
    }
}

/// The streams of a connection that are open, and since when there are none.
struct Streams {
    open: Cell<usize>,
    last_ended: Cell<Millis>,
}

struct OpenStream(Rc<Streams>);

impl Default for Streams {
    fn default() -> Self {
        Streams { open: Cell::new(0), last_ended: Cell::new(clock::now()) }
    }
}

impl Streams {
    fn open(self: &Rc<Self>) -> OpenStream {
        self.open.set(self.open.get() + 1);
        OpenStream(self.clone())
    }

    fn idle_for(&self) -> Duration {
        if self.open.get() > 0 { Duration::ZERO } else { clock::now().since(self.last_ended.get()) }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.last_ended.set(clock::now());
    }
}

async fn stream(connection: Rc<Connection>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (sink, mut interim) = Interim::channel();
    let is_head = request.method() == http::Method::HEAD;
    let stall = connection.settings.limits.idle_timeout;
    let answering = pipeline::serve(connection, arrived(request, sink));
    tokio::pin!(answering);
    let response = poll_fn(|cx| {
        // The client took it back: dropping the answer cancels what it set off.
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        let answered = answering.as_mut().poll(cx);
        // After that: they may have come together with the answer, and go before it.
        while let Poll::Ready(Some((status, headers))) = interim.poll_recv(cx) {
            let mut response = Response::new(());
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            let _ = respond.send_informational(response);
        }
        answered.map(Some)
    })
    .await;
    if let Some(response) = response {
        send(response, respond, is_head, stall).await;
    }
}

fn arrived(request: Request<RecvStream>, sink: Arc<Interim>) -> Arrived {
    let (mut head, stream) = request.into_parts();
    head.version = Version::HTTP_2;
    join_cookies(&mut head.headers);
    let declared = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    let expects = head.headers.get(header::EXPECT);
    let on_wanted =
        expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")).then(|| {
            let sink = sink.clone();
            Box::new(move || sink.go_on()) as Box<dyn FnOnce()>
        });
    let body = if stream.is_end_stream() {
        ClientBody::Empty
    } else {
        ClientBody::Http2(Http2Body { stream, on_wanted })
    };
    Arrived { head, body, declared, upgrade: None, interim: Some(sink) }
}

/// HTTP/2 may split the cookies into several fields; anywhere else there is one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let joined = headers.get_all(header::COOKIE).iter().map(|crumb| crumb.as_bytes()).collect::<Vec<_>>();
    let joined = joined.join(&b"; "[..]);
    if let Ok(value) = http::HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}

async fn send(
    response: Response<ResponseBody>,
    mut respond: SendResponse<Bytes>,
    is_head: bool,
    stall: Duration,
) {
    let (mut head, body) = response.into_parts();
    tokio::pin!(body);
    // RFC 9113 §8.2.2: these have no meaning in HTTP/2 and make a response malformed.
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        head.headers.remove(name);
    }
    if !head.headers.contains_key(header::CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact()
        && !is_head
        && head.status != StatusCode::NO_CONTENT
        && head.status != StatusCode::NOT_MODIFIED
    {
        head.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    write_request_id(&mut head.headers, &body);
    head.headers.entry(header::DATE).or_insert_with(crate::http::date::now);
    head.version = Version::HTTP_2;
    let ends = is_head || body.is_end_stream();
    let Ok(mut out) = respond.send_response(Response::from_parts(head, ()), ends) else { return };
    if ends {
        return;
    }
    loop {
        let frame = poll_fn(|cx| {
            if out.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            body.as_mut().poll_frame(cx).map(Some)
        })
        .await;
        let frame = match frame {
            None => return,
            Some(None) => {
                let _ = out.send_data(Bytes::new(), true);
                return;
            }
            Some(Some(Err(_))) => {
                out.send_reset(Reset::INTERNAL_ERROR);
                return;
            }
            Some(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                let ends = body.is_end_stream();
                // A client that opens no window for this long isn't reading any more.
                let sent = tokio::time::timeout(stall, send_data(&mut out, data, ends, &mut body)).await;
                let Ok(Ok(())) = sent else {
                    out.send_reset(Reset::CANCEL);
                    return;
                };
                if ends {
                    return;
                }
            }
            Err(frame) => {
                let _ = out.send_trailers(frame.into_trailers().unwrap_or_default());
                return;
            }
        }
    }
}

fn write_request_id(headers: &mut HeaderMap, body: &ResponseBody) {
    if let Some((name, id)) = body.request_id()
        && let Ok(id) = HeaderValue::from_bytes(id)
    {
        headers.insert(name, id);
    }
}

/// Sends as the client's window allows: the next frame of the body is taken only after that.
async fn send_data(
    out: &mut SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
    body: &mut ResponseBody,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        out.reserve_capacity(data.len());
        let room = poll_fn(|cx| {
            body.send_on(cx);
            capacity(out, cx)
        })
        .await?;
        let piece = data.split_to(room.min(data.len()));
        let last = ends && data.is_empty();
        out.send_data(piece, last)?;
        if last {
            return Ok(());
        }
    }
    if ends { out.send_data(Bytes::new(), true) } else { Ok(()) }
}

fn capacity(out: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<usize, h2::Error>> {
    if let Poll::Ready(reset) = out.poll_reset(cx) {
        return Poll::Ready(Err(reset.map_or_else(|error| error, h2::Error::from)));
    }
    loop {
        match ready!(out.poll_capacity(cx)) {
            Some(Ok(0)) => continue,
            Some(room) => return Poll::Ready(room),
            None => return Poll::Ready(Err(Reset::CANCEL.into())),
        }
    }
}

/// Interim responses on their way to the stream's task; what the queue can't hold is left out.
struct Interim {
    queue: mpsc::Sender<(StatusCode, HeaderMap)>,
}

impl Interim {
    fn channel() -> (Arc<Self>, mpsc::Receiver<(StatusCode, HeaderMap)>) {
        let (queue, receiver) = mpsc::channel(INTERIM_QUEUE);
        (Arc::new(Interim { queue }), receiver)
    }

    /// The body is wanted now.
    fn go_on(&self) {
        let _ = self.queue.try_send((StatusCode::CONTINUE, HeaderMap::new()));
    }
}

impl InformationalSink for Interim {
    fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        if crate::http::interim::may_pass(status) {
            let _ = self.queue.try_send((status, crate::http::interim::end_to_end(headers)));
        }
    }
}
