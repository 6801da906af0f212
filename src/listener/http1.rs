//! One HTTP/1.1 connection: hyper reads and writes it, the watchdog times it, draining ends it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::accept;
use super::drain::Drained;
use super::framing::{HeadLimits, Malformed};
use super::http1_io::Http1Io;
use super::io::{Rewound, Transport};
use super::state::{ConnectionState, Overdue, Patience};
use super::watchdog::Watchdog;
use super::{Connection, HTTP1_DEFAULT_MAX_HEADERS};
use crate::exchange::Arrived;
use crate::http::body::ClientBody;
use crate::http::problem;
use crate::pipeline;
use crate::reason::Reason;

enum End {
    Closed,
    /// In the middle of a response, by the failure of its body.
    BrokeOff,
    Overdue(Overdue),
}

pub async fn serve(io: Rewound<Transport>, connection: Rc<Connection>, drained: Drained) {
    let state = Arc::new(ConnectionState::new());
    let limits = &connection.settings.limits;
    let patience = Patience { head: limits.header_timeout, idle: limits.idle_timeout };
    let mut builder = Builder::new();
    builder.max_buf_size(limits.max_header_bytes.max(8192) + 16 * 1024);
    builder.max_header_size(limits.max_header_bytes);
    if limits.max_headers != HTTP1_DEFAULT_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    let service = {
        let (state, connection, drain) = (state.clone(), connection.clone(), drained.drain().clone());
        service_fn(move |request: Request<Incoming>| {
            state.request_began(request.version());
            let arrived = arrived(request, &state);
            let (connection, drain) = (connection.clone(), drain.clone());
            async move {
                let mut response = pipeline::serve(connection, arrived).await;
                if drain.has_begun() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let head = HeadLimits {
        bytes: limits.max_header_bytes,
        fields: limits.max_headers,
        target_bytes: limits.max_uri_bytes,
    };
    let io = TokioIo::new(Http1Io::new(io, state.clone(), head));
    let mut hyper = builder.serve_connection(io, service).with_upgrades();
    let mut watchdog = Watchdog::new(patience);
    let mut ending = Box::pin(accept::last_call(&drained));
    let mut ended = false;
    let end = poll_fn(|cx| {
        state.set_task(cx.waker());
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut hyper).poll(cx) {
                let broke_off = ended.is_err_and(|error| error.is_user());
                return Poll::Ready(if broke_off { End::BrokeOff } else { End::Closed });
            }
            // After hyper has looked: a request that has come by now, or is on its way, is answered first. Its
            // head has its own limit of time.
            if ended || state.is_amid_head() || ending.as_mut().poll(cx).is_pending() {
                break;
            }
            ended = true;
            Pin::new(&mut hyper).graceful_shutdown();
        }
        watchdog.poll(&state, cx).map(End::Overdue)
    })
    .await;
    let Some(io) = hyper.into_parts().map(|parts| parts.io.into_inner()) else { return };
    let refused = match end {
        End::Closed => io.refused(),
        End::Overdue(Overdue::Head) if state.is_amid_head() => Some(HEAD_TOO_SLOW),
        // Only the end of the connection tells HTTP/1.0 that a body is whole: this end must not look like it.
        End::BrokeOff if state.is_http10() => return io.reset(),
        End::BrokeOff | End::Overdue(_) => None,
    };
    if let Some(refused) = refused {
        refuse(io, &connection, refused).await;
    }
}

const HEAD_TOO_SLOW: Malformed =
    Malformed { reason: Reason::RequestTimeout, detail: "the head of the request did not come in time" };

/// Answers a head that no request came of, and closes the connection.
async fn refuse(mut io: Http1Io, connection: &Rc<Connection>, refused: Malformed) {
    let response = pipeline::refuse_head(connection, refused.reason, refused.detail);
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await else { return };
    let answer = problem::http1_bytes(&head, &body.to_bytes());
    let _ = tokio::time::timeout(ANSWER_WITHIN, io.write_answer(answer)).await;
    let _ = tokio::time::timeout(ANSWER_WITHIN, io.close()).await;
}

/// A client that is refused gets so long to take the answer, and again to stop sending.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

fn arrived(request: Request<Incoming>, state: &Arc<ConnectionState>) -> Arrived {
    let declared = request.body().size_hint().exact();
    let mut request = request;
    let upgrade = (request.version() == Version::HTTP_11
        && crate::http::hop_by_hop::is_upgrade(request.headers(), request.version()).is_some())
    .then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    // RFC 9110 §15.2: HTTP/1.0 knows no interim responses.
    let interim = (head.version == Version::HTTP_11).then(|| state.clone() as _);
    let body = if body.is_end_stream() { ClientBody::Empty } else { ClientBody::Http1(body) };
    Arrived { head, body, declared, upgrade, interim, http1: Some(state.clone()) }
}
