//! Documents over HTTP and HTTPS, for the control side: key sets, and what discovery asks for.
//!
//! A fetch is bounded in every direction: one deadline over all of it, a largest body, a few redirects
//! that never leave HTTPS for HTTP. An exchange is a single request that the caller bounds. Traffic never
//! passes through here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;

const MAX_REDIRECTS: usize = 3;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the URL has no host, or another scheme than http or https")]
    Url,
    #[error("no trusted root certificates were found on this system")]
    NoRoots,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection failed")]
    Connection(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the answer has status {0}")]
    Status(StatusCode),
    #[error("the answer redirects too often, to nowhere, or away from https")]
    Redirect,
}

impl FetchError {
    /// This error and its causes on one line, for logs and for the admin API.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// Fetches documents. Cheap to clone: clones share the trusted roots.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    any_roots: bool,
    timeout: Duration,
    max_body_bytes: usize,
}

impl Fetcher {
    /// Trusts what the system trusts. Without any root, plain HTTP still works. `timeout` is for a
    /// fetch as a whole, redirects included.
    pub fn new(timeout: Duration, max_body_bytes: usize) -> Fetcher {
        Fetcher::with_roots(system_roots(), timeout, max_body_bytes)
    }

    /// Trusts only `roots`. Fetches are minutes apart: nothing is worth keeping open.
    pub fn with_roots(roots: RootCertStore, timeout: Duration, max_body_bytes: usize) -> Fetcher {
        Self::with(roots, timeout, max_body_bytes, 0)
    }

    /// For exchanges that come again and again: a connection to each server stays open between them.
    pub fn staying_connected(roots: RootCertStore, timeout: Duration) -> Fetcher {
        Self::with(roots, timeout, 0, 1)
    }

    fn with(roots: RootCertStore, timeout: Duration, max_body_bytes: usize, kept_open: usize) -> Fetcher {
        let any_roots = !roots.is_empty();
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has suites for the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        // Divided among the addresses that a name has: one that swallows connections doesn't hide the others.
        http.set_connect_timeout(Some(timeout));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(kept_open)
            .build(connector);
        Fetcher { client, any_roots, timeout, max_body_bytes }
    }

    /// The body of a 200 answer to a GET of `uri`.
    pub async fn get(&self, uri: Uri) -> Result<Bytes, FetchError> {
        tokio::time::timeout(self.timeout, self.follow(uri))
            .await
            .unwrap_or(Err(FetchError::Timeout(self.timeout)))
    }

    async fn follow(&self, mut uri: Uri) -> Result<Bytes, FetchError> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.request(uri.clone()).await?;
            match response.status() {
                StatusCode::OK => return self.body(response).await,
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => uri = redirected(&uri, &response)?,
                status => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::Redirect)
    }

    async fn request(&self, uri: Uri) -> Result<Response<Incoming>, FetchError> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        self.send(request).await
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, FetchError> {
        let uri = request.uri();
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        if uri.host().is_none() || !(secure || uri.scheme() == Some(&Scheme::HTTP)) {
            return Err(FetchError::Url);
        }
        if secure && !self.any_roots {
            return Err(FetchError::NoRoots);
        }
        let headers = request.headers_mut();
        let any = HeaderValue::from_static("application/json, */*;q=0.5");
        headers.entry(header::ACCEPT).or_insert(any);
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("gatehouse/", env!("CARGO_PKG_VERSION"))),
        );
        self.client.request(request).await.map_err(FetchError::Connection)
    }

    /// Sends one request and waits for the head of its answer, whatever that is: statuses and redirects are
    /// the caller's.
    pub async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Response<Incoming>, FetchError> {
        tokio::time::timeout(within, self.send(request)).await.unwrap_or(Err(FetchError::Timeout(within)))
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, FetchError> {
        whole(response.into_body(), self.max_body_bytes).await
    }
}

/// What the system trusts, or none at all.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// All of a body, if it isn't larger than this.
pub async fn whole(body: Incoming, max_bytes: usize) -> Result<Bytes, FetchError> {
    match Limited::new(body, max_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge(max_bytes)),
        Err(error) => Err(FetchError::Body(error)),
    }
}

/// Where `Location` points to (RFC 9110 §10.2.2): a whole URL, or a path on the same server.
fn redirected(from: &Uri, response: &Response<Incoming>) -> Result<Uri, FetchError> {
    let location = response
        .headers()
        .get(header::LOCATION)
        .and_then(|value| Uri::try_from(value.as_bytes()).ok())
        .ok_or(FetchError::Redirect)?;
    let mut parts = location.into_parts();
    if parts.scheme.is_none() {
        parts.scheme = from.scheme().cloned();
        parts.authority = from.authority().cloned();
    }
    let to = Uri::from_parts(parts).map_err(|_| FetchError::Redirect)?;
    let downgraded = from.scheme() == Some(&Scheme::HTTPS) && to.scheme() != Some(&Scheme::HTTPS);
    if downgraded { Err(FetchError::Redirect) } else { Ok(to) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::http::small_server::{self, SmallBody};

    const LIMIT: usize = 1000;

    fn fetcher(timeout: Duration) -> Fetcher {
        Fetcher::with_roots(RootCertStore::empty(), timeout, LIMIT)
    }

    async fn answer(_: SocketAddr, request: Request<Bytes>) -> Response<SmallBody> {
        let redirect = |to: &str| {
            let mut response = small_server::text(StatusCode::FOUND, "");
            response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(to).expect("ASCII"));
            response
        };
        match request.uri().path() {
            "/keys" => small_server::reply(StatusCode::OK, "application/json", "{}"),
            "/limit" => small_server::reply(StatusCode::OK, "text/plain", vec![b'x'; LIMIT]),
            "/large" => small_server::reply(StatusCode::OK, "text/plain", vec![b'x'; LIMIT + 1]),
            "/moved" => redirect("/keys"),
            "/loop" => redirect("/loop"),
            "/away" => redirect("ftp://127.0.0.1/keys"),
            "/nowhere" => small_server::text(StatusCode::FOUND, ""),
            "/slow" => std::future::pending().await,
            _ => small_server::text(StatusCode::NOT_FOUND, "no"),
        }
    }

    /// A server on a port of its own, and the beginning of its URLs.
    async fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(small_server::serve(listener, answer));
        format!("http://{address}")
    }

    async fn get(fetcher: &Fetcher, url: String) -> Result<Bytes, FetchError> {
        fetcher.get(url.parse().expect("a test's own URL")).await
    }

    #[tokio::test]
    async fn documents_come_within_bounds_or_not_at_all() {
        let (server, fetcher) = (server().await, fetcher(Duration::from_secs(20)));
        let get = |path: &str| get(&fetcher, format!("{server}{path}"));
        assert_eq!(get("/keys").await.expect("fetched"), "{}");
        assert_eq!(get("/moved").await.expect("followed"), "{}");
        assert_eq!(get("/limit").await.expect("just small enough").len(), LIMIT);
        assert!(matches!(get("/large").await, Err(FetchError::TooLarge(LIMIT))));
        assert!(matches!(get("/gone").await, Err(FetchError::Status(StatusCode::NOT_FOUND))));
        assert!(matches!(get("/loop").await, Err(FetchError::Redirect)));
        assert!(matches!(get("/nowhere").await, Err(FetchError::Redirect)));
        assert!(matches!(get("/away").await, Err(FetchError::Url)));
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up() {
        let (server, fetcher) = (server().await, fetcher(Duration::from_millis(50)));
        assert!(matches!(get(&fetcher, format!("{server}/slow")).await, Err(FetchError::Timeout(_))));
    }

    #[tokio::test]
    async fn unusable_urls_and_dead_servers_are_told_apart() {
        let fetcher = fetcher(Duration::from_secs(20));
        assert!(matches!(get(&fetcher, "/keys".into()).await, Err(FetchError::Url)));
        assert!(matches!(get(&fetcher, "ftp://127.0.0.1/".into()).await, Err(FetchError::Url)));
        assert!(matches!(get(&fetcher, "https://127.0.0.1/".into()).await, Err(FetchError::NoRoots)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dead = listener.local_addr().expect("bound");
        drop(listener);
        let error = get(&fetcher, format!("http://{dead}/")).await.expect_err("nobody there");
        assert!(matches!(error, FetchError::Connection(_)));
        assert!(error.with_causes().to_lowercase().contains("refused"), "{}", error.with_causes());
    }

    /// A server with a certificate for `localhost`, which answers everything with `head`.
    async fn tls_server(head: &'static [u8]) -> (u16, RootCertStore) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("they belong together");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(tls));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 1024];
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(head).await;
                let _ = stream.shutdown().await;
            }
        });
        (port, roots)
    }

    #[tokio::test]
    async fn https_is_checked_and_never_left() {
        let (port, roots) = tls_server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        let trusting = Fetcher::with_roots(roots.clone(), Duration::from_secs(20), LIMIT);
        assert_eq!(get(&trusting, format!("https://localhost:{port}/")).await.expect("trusted"), "{}");
        let wrong_name = get(&trusting, format!("https://127.0.0.1:{port}/")).await;
        assert!(matches!(wrong_name, Err(FetchError::Connection(_))));

        let (port, other_roots) =
            tls_server(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n")
                .await;
        let url = format!("https://localhost:{port}/");
        assert!(matches!(get(&trusting, url.clone()).await, Err(FetchError::Connection(_))), "not trusted");
        let trusting = Fetcher::with_roots(other_roots, Duration::from_secs(20), LIMIT);
        assert!(matches!(get(&trusting, url).await, Err(FetchError::Redirect)));
    }
}
