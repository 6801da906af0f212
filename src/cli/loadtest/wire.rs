//! A connection to the target, and one request on it.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::outcome::{Fault, Outcome};
use super::plan::Endpoint;

/// Of a problem document that is read for its reason; what comes after it is counted and dropped.
const MAX_PROBLEM_BYTES: usize = 16 * 1024;

type Failure = (Fault, String);

/// Sends one request at a time, on a connection that it opens when it needs one.
pub enum Lane {
    Http1(Option<http1::SendRequest<Full<Bytes>>>),
    /// A connection that several lanes share.
    Http2(Rc<Mutex<Option<http2::SendRequest<Full<Bytes>>>>>),
}

impl Lane {
    /// Those of one connection, with nothing opened yet.
    pub fn of_one_connection(endpoint: &Endpoint, streams: usize) -> Vec<Lane> {
        if !endpoint.http2 {
            return vec![Lane::Http1(None)];
        }
        let shared = Rc::new(Mutex::new(None));
        (0..streams.max(1)).map(|_| Lane::Http2(shared.clone())).collect()
    }

    /// Sends, and reads the answer to its end. When this is dropped half-way, call [`Lane::abandon`].
    pub async fn send(&mut self, endpoint: &Endpoint, request: Request<Full<Bytes>>) -> Outcome {
        let answered = match self {
            Lane::Http1(connection) => send_http1(connection, endpoint, request).await,
            Lane::Http2(shared) => send_http2(shared, endpoint, request).await,
        };
        let outcome = match answered {
            Ok(response) => read(response).await,
            Err(failure) => Err(failure),
        };
        outcome.unwrap_or_else(|(fault, said)| {
            self.abandon();
            Outcome::Failed(fault, said)
        })
    }

    /// Gives up the connection when an answer on it may still be under way. One that is shared goes on: the
    /// stream alone was reset.
    pub fn abandon(&mut self) {
        if let Lane::Http1(connection) = self {
            *connection = None;
        }
    }
}

async fn send_http1(
    connection: &mut Option<http1::SendRequest<Full<Bytes>>>,
    endpoint: &Endpoint,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Failure> {
    let kept = connection.as_ref().is_some_and(|connection| !connection.is_closed());
    for is_kept in [kept, false] {
        if !is_kept {
            *connection = Some(open_http1(endpoint).await?);
        }
        let Some(sender) = connection.as_mut() else { break };
        if let Err(error) = sender.ready().await {
            if is_kept {
                continue;
            }
            return Err(failure(&error));
        }
        match sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            // The server closed a connection that was idle: nothing of the request has left.
            Err(mut error) => match error.take_message() {
                Some(unsent) if is_kept => request = unsent,
                _ => return Err(failure(error.error())),
            },
        }
    }
    Err((Fault::Reset, "a new connection was closed before the request was sent".into()))
}

async fn send_http2(
    shared: &Mutex<Option<http2::SendRequest<Full<Bytes>>>>,
    endpoint: &Endpoint,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Failure> {
    let mut sender = {
        let mut shared = shared.lock().await;
        match shared.as_ref().filter(|sender| !sender.is_closed()) {
            Some(open) => open.clone(),
            None => shared.insert(open_http2(endpoint).await?).clone(),
        }
    };
    sender.ready().await.map_err(|error| failure(&error))?;
    sender.send_request(request).await.map_err(|error| failure(&error))
}

/// Reads to the end and keeps nothing but the size, and the reason of a problem.
async fn read(response: Response<Incoming>) -> Result<Outcome, Failure> {
    let status = response.status().as_u16();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_problem = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    let mut body = response.into_body();
    let mut bytes = 0;
    let mut problem = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failure(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        bytes += data.len() as u64;
        if is_problem && problem.len() + data.len() <= MAX_PROBLEM_BYTES {
            problem.extend_from_slice(data);
        }
    }
    let reason = is_problem.then(|| reason(&problem)).flatten();
    Ok(Outcome::Answered { status, bytes, reason })
}

fn reason(problem: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(problem).ok()?;
    Some(problem.get("code")?.as_str()?.to_owned())
}

async fn open_http1(endpoint: &Endpoint) -> Result<http1::SendRequest<Full<Bytes>>, Failure> {
    let (sender, driver) =
        http1::handshake(TokioIo::new(connect(endpoint).await?)).await.map_err(|error| failure(&error))?;
    // How it ended shows in the requests on it.
    tokio::task::spawn_local(async move { drop(driver.await) });
    Ok(sender)
}

async fn open_http2(endpoint: &Endpoint) -> Result<http2::SendRequest<Full<Bytes>>, Failure> {
    let (sender, driver) = http2::Builder::new(OnThisThread)
        .initial_connection_window_size(16 * 1024 * 1024)
        .initial_stream_window_size(2 * 1024 * 1024)
        .handshake(TokioIo::new(connect(endpoint).await?))
        .await
        .map_err(|error| failure(&error))?;
    tokio::task::spawn_local(async move { drop(driver.await) });
    Ok(sender)
}

trait Stream: AsyncRead + AsyncWrite {}
impl<S: AsyncRead + AsyncWrite> Stream for S {}

async fn connect(endpoint: &Endpoint) -> Result<std::pin::Pin<Box<dyn Stream>>, Failure> {
    let stream = dial(endpoint).await.map_err(|error| (Fault::Connect, error.to_string()))?;
    let Some((config, name)) = &endpoint.tls else { return Ok(Box::pin(stream)) };
    let connector = tokio_rustls::TlsConnector::from(config.clone());
    let stream = connector.connect(name.clone(), stream).await;
    let stream = stream.map_err(|error| (Fault::Tls, error.to_string()))?;
    if endpoint.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err((Fault::Tls, "the server did not choose HTTP/2".into()));
    }
    Ok(Box::pin(stream))
}

async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &endpoint.addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn failure(error: &hyper::Error) -> Failure {
    let fault = if error.is_parse() { Fault::Protocol } else { Fault::Reset };
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said += &format!(": {error}");
        cause = error.source();
    }
    (fault, said)
}

#[derive(Clone)]
struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
