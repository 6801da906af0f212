//! A client that asks one thing at a time over one connection.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::PATIENCE;

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    host: String,
    headers: Vec<(String, String)>,
    http2: bool,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The `code` of a problem document.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        self.json()["code"].as_str().expect("a problem has a code").to_owned()
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        Client { address, host: address.to_string(), headers: Vec::new(), http2: false }
    }

    /// HTTP/2 with prior knowledge.
    pub fn http2(mut self) -> Client {
        self.http2 = true;
        self
    }

    pub fn host(mut self, host: &str) -> Client {
        self.host = host.to_owned();
        self
    }

    /// Sends this field with every request.
    pub fn header(mut self, name: &str, value: &str) -> Client {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, token: &str) -> Client {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub async fn get(&self, target: &str) -> Reply {
        self.send(Method::GET, target, Bytes::new()).await
    }

    pub async fn post(&self, target: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, target, body.into()).await
    }

    pub async fn send(&self, method: Method, target: &str, body: Bytes) -> Reply {
        self.try_send(method, target, body)
            .await
            .unwrap_or_else(|error| panic!("no answer to {target}: {error}"))
    }

    /// An error is a connection that did not give a whole response.
    pub async fn try_send(&self, method: Method, target: &str, body: Bytes) -> Result<Reply, String> {
        tokio::time::timeout(PATIENCE, self.exchange(method, target, body))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| format!("{error:?}"))
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        let mut request = Request::builder().method(method);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = if self.http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let request = request.uri(format!("http://{}{target}", self.host)).body(Full::new(body))?;
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let request = request.uri(target).header("host", &self.host).body(Full::new(body))?;
            sender.send_request(request).await?
        };
        let (head, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        Ok(Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }
}
