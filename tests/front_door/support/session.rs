//! One connection that is kept, to see what becomes of it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{PATIENCE, Reply};

pub struct Session {
    sender: Sender,
    pub local: SocketAddr,
    connection: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Session {
    pub async fn open(address: SocketAddr) -> Session {
        Self::try_open(address).await.expect("the gateway accepts")
    }

    pub async fn try_open(address: SocketAddr) -> std::io::Result<Session> {
        let stream = TcpStream::connect(address).await?;
        let local = stream.local_addr()?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Session { sender: Sender::Http1(sender), local, connection })
    }

    pub async fn open_http2(address: SocketAddr) -> Session {
        let stream = TcpStream::connect(address).await.expect("the gateway accepts");
        let local = stream.local_addr().expect("it is connected");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("the gateway speaks it");
        let connection = tokio::spawn(async move { drop(connection.await) });
        Session { sender: Sender::Http2(sender), local, connection }
    }

    pub async fn get(&mut self, target: &str) -> Reply {
        self.try_get(target).await.unwrap_or_else(|error| panic!("no answer to {target}: {error}"))
    }

    pub async fn try_get(&mut self, target: &str) -> Result<Reply, String> {
        self.try_send(Request::get(target), Bytes::new()).await
    }

    pub async fn try_send(&mut self, head: http::request::Builder, body: Bytes) -> Result<Reply, String> {
        let asked = tokio::time::timeout(PATIENCE, self.exchange(head, body)).await;
        asked.map_err(|_| "no answer in time".to_owned())?.map_err(|error| format!("{error:?}"))
    }

    async fn exchange(&mut self, head: http::request::Builder, body: Bytes) -> Result<Reply, hyper::Error> {
        let body = Full::new(body);
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                let request = head.header("host", "gateway.test").body(body).expect("a good head");
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                let mut request = head.body(body).expect("a good head");
                let uri = format!("http://gateway.test{}", request.uri());
                *request.uri_mut() = uri.parse().expect("a good target");
                sender.send_request(request).await?
            }
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

    /// Asks again and again, and is answered each time, until an answer says that it is the last.
    pub async fn until_told_to_close(&mut self, target: &str) {
        loop {
            let reply = self.get(target).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            if reply.header("connection") == Some("close") {
                return self.closed().await;
            }
        }
    }

    /// Waits until the gateway has closed the connection.
    pub async fn closed(&mut self) {
        let closed = tokio::time::timeout(PATIENCE, &mut self.connection).await;
        assert!(closed.is_ok(), "the gateway did not close the connection");
    }

    pub fn is_open(&self) -> bool {
        !self.connection.is_finished()
    }
}
