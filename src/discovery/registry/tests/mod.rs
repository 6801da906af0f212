//! The registry as its clients see it: over HTTP, on a port of its own.

mod api;
mod client;
mod state_file;
mod store;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Announcement, Store};
use crate::config::Secret;

/// A registry that serves until the test ends.
pub struct Served {
    pub address: SocketAddr,
    pub store: Arc<Store>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Served {
    pub async fn start(heartbeat_ttl: Duration, token: Option<&str>) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(listener, heartbeat_ttl, token)
    }

    pub fn on(listener: TcpListener, heartbeat_ttl: Duration, token: Option<&str>) -> Served {
        let address = listener.local_addr().expect("bound");
        let store = Arc::new(Store::new(heartbeat_ttl));
        let (served, expiring) = (store.clone(), store.clone());
        let token = token.map(Secret::new);
        let tasks = vec![
            tokio::spawn(super::api::serve(listener, served, Arc::new(token.map(Arc::new).into()))),
            tokio::spawn(async move { expiring.expire().await }),
        ];
        Served { address, store, tasks }
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.expect("connected");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    }

    pub async fn answer(&self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.send(request).await.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
        Answer { status: head.status, headers: head.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.answer(request("GET", path).body(Full::default()).expect("a request")).await
    }

    pub async fn post(&self, verb: &str, body: Value) -> Answer {
        let request = request("POST", &format!("/registry/{verb}"));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        self.answer(request.body(body.to_string().into()).expect("a request")).await
    }
}

pub fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, "localhost:8500")
}

pub fn users(port: u16) -> Value {
    json!({ "service_name": "users", "host": "127.0.0.1", "port": port })
}

pub fn announce(service_name: &str, port: u16) -> Announcement {
    Announcement::new(service_name, "127.0.0.1", port).expect("valid")
}
