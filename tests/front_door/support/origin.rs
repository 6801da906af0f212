//! Services for the gateway to call: what they answer is the test's, what they saw is recorded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{AbortHandle, JoinSet};

/// A request as the origin received it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An HTTP/1.1 server on a port of its own. Dropping it closes everything at once, as a crash would.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Connections>,
    task: AbortHandle,
    /// Keeps the port when nobody listens there any more: whoever was given it would get this origin's requests.
    _port: TcpSocket,
}

#[derive(Default)]
struct Connections {
    accepted: AtomicUsize,
    closed: AtomicUsize,
}

impl Origin {
    /// Answers every request with what `answer` makes of it.
    pub async fn start(answer: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Origin {
        Self::start_at("127.0.0.1:0".parse().expect("a constant"), answer).await
    }

    pub async fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Origin {
        let answer = Arc::new(answer);
        Self::start_slow_at(address, move |seen| {
            let response = answer(&seen);
            async move { response }
        })
        .await
    }

    /// As `start`, with an answer that may take its time.
    pub async fn start_slow<F>(answer: impl Fn(Seen) -> F + Send + Sync + 'static) -> Origin
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::start_slow_at("127.0.0.1:0".parse().expect("a constant"), answer).await
    }

    pub async fn start_slow_at<F>(
        address: SocketAddr,
        answer: impl Fn(Seen) -> F + Send + Sync + 'static,
    ) -> Origin
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let port = bound(address);
        let address = port.local_addr().expect("it was bound");
        let listener = bound(address).listen(1024).expect("it was bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Connections::default());
        let task = tokio::spawn(serve(listener, Arc::new(answer), seen.clone(), connections.clone()));
        Origin { address, seen, connections, task: task.abort_handle(), _port: port }
    }

    /// Answers 200 with `text` to everything.
    pub async fn text(text: &'static str) -> Origin {
        Self::start(move |_| Response::new(Full::from(text))).await
    }

    /// Answers 200 with the JSON text, whatever is asked.
    pub async fn json(text: &'static str) -> Origin {
        Self::start(move |_| json(text)).await
    }

    /// Answers with the status alone.
    pub async fn status(status: u16) -> Origin {
        Self::start(move |_| self::status(status)).await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no handler panicked").clone()
    }

    /// The only request so far.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "the origin saw {seen:#?}");
        seen.into_iter().next().expect("there is one")
    }

    pub fn count(&self) -> usize {
        self.seen.lock().expect("no handler panicked").len()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.accepted.load(Relaxed)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        // In this order, so that the difference is never negative.
        let closed = self.connections.closed.load(Relaxed);
        self.connections.accepted.load(Relaxed) - closed
    }

    /// Closes every connection at once, and refuses new ones.
    pub fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A socket that others of our own may be bound beside.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("the loopback is IPv4");
    socket.set_reuseaddr(true).expect("a plain option");
    socket.set_reuseport(true).expect("a plain option");
    socket.bind(address).expect("the port is free");
    socket
}

pub fn json(text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder().header("content-type", "application/json");
    response.body(Full::new(text.into())).expect("constants")
}

pub fn status(status: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

async fn serve<F, A>(
    listener: TcpListener,
    answer: Arc<A>,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: Arc<Connections>,
) where
    A: Fn(Seen) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        count.accepted.fetch_add(1, Relaxed);
        let count = count.clone();
        let (answer, seen) = (answer.clone(), seen.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (answer, seen) = (answer.clone(), seen.clone());
            async move {
                let (head, body) = request.into_parts();
                let Ok(collected) = body.collect().await else {
                    return Ok::<_, Infallible>(status(400));
                };
                let trailers = collected.trailers().cloned();
                let request = Seen {
                    method: head.method,
                    target: head.uri.to_string(),
                    headers: head.headers,
                    body: collected.to_bytes(),
                    trailers,
                };
                seen.lock().expect("no handler panicked").push(request.clone());
                Ok(answer(request).await)
            }
        });
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            count.closed.fetch_add(1, Relaxed);
        });
    }
}
