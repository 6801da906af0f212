//! A plain HTTP/1.1 server for the control side (admin, registry, demo services): small bodies in,
//! small bodies out. Traffic never passes through here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::stalling::Stalling;

/// What a handler answers with. Boxed bodies allow event streams beside plain documents.
pub type SmallBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// The most bytes of a request body that a handler is given.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
const MAX_CONNECTIONS: usize = 512;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long of what it asked for is cut off.
const STALL: Duration = Duration::from_secs(20);

/// Serves until the future is dropped, which cuts the open connections off.
pub async fn serve<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(SocketAddr, Request<Bytes>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<SmallBody>> + Send + 'static,
{
    serve_up_to(MAX_CONNECTIONS, listener, handler).await
}

/// As [`serve`], with a bound of the caller's for the connections. Of the last quarter none is kept for a next
/// request: clients that stay connected and rarely ask don't shut out others.
pub async fn serve_up_to<H, F>(max_connections: usize, listener: TcpListener, handler: H)
where
    H: Fn(SocketAddr, Request<Bytes>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<SmallBody>> + Send + 'static,
{
    let handler = Arc::new(handler);
    let slots = Arc::new(Semaphore::new(max_connections));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors: wait for some to come back rather than spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Short answers would wait for the acknowledgement of those before.
        let _ = stream.set_nodelay(true);
        // Of a client that vanished nothing is heard: what is sent to it would wait for a quarter of an hour.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(STALL));
        let stream = Stalling::new(stream, STALL);
        let (handler, slots) = (handler.clone(), slots.clone());
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request| {
                let (handler, slots) = (handler.clone(), slots.clone());
                async move {
                    let mut response = match read(request).await {
                        Ok(request) => handler(peer, request).await,
                        Err(status) => text(status, status.canonical_reason().unwrap_or("error")),
                    };
                    if slots.available_permits() < max_connections / 4 {
                        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(response)
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .max_buf_size(32 * 1024)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn read(request: Request<Incoming>) -> Result<Request<Bytes>, StatusCode> {
    let (head, body) = request.into_parts();
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect())
        .await
        .map_err(|_| StatusCode::REQUEST_TIMEOUT)?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            }
        })?;
    Ok(Request::from_parts(head, collected.to_bytes()))
}

/// A whole body of the given type.
pub fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<SmallBody> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<SmallBody> {
    reply(status, "application/json", value.to_string())
}

pub fn text(status: StatusCode, body: impl Into<String>) -> Response<SmallBody> {
    reply(status, "text/plain; charset=utf-8", body.into() + "\n")
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::{Body, Frame};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::mpsc::UnboundedSender;

    use super::*;

    /// Never ends, and tells when it is dropped.
    struct Endless(UnboundedSender<()>);

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 64 * 1024])))))
        }
    }

    impl Drop for Endless {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    async fn start<H, F>(max_connections: usize, handler: H) -> SocketAddr
    where
        H: Fn(SocketAddr, Request<Bytes>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<SmallBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(serve_up_to(max_connections, listener, handler));
        address
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_is_cut_off() {
        let (dropped, mut dropping) = tokio::sync::mpsc::unbounded_channel();
        let address = start(4, move |_, _| {
            let body = Endless(dropped.clone()).boxed_unsync();
            async move { Response::new(body) }
        })
        .await;
        let begun = tokio::time::Instant::now();
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        dropping.recv().await.expect("it is let go");
        assert!(begun.elapsed() >= STALL, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn of_the_last_connections_none_is_kept_for_a_next_request() {
        let address = start(8, |_, _| async { text(StatusCode::OK, "here") }).await;
        let mut clients = Vec::new();
        for number in 1..=12 {
            let mut client = TcpStream::connect(address).await.expect("connected");
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
            let mut answer = [0; 1024];
            let size = client.read(&mut answer).await.expect("answered");
            let closes = String::from_utf8_lossy(&answer[..size]).contains("connection: close");
            // One more than are open counts, for the next that may come.
            assert_eq!(closes, number >= 6, "the connection {number}");
            clients.push(client);
        }
    }
}
