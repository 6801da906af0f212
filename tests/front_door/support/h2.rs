//! An HTTP/2 connection with prior knowledge, for what needs several streams, resets or windows.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::PATIENCE;

pub struct H2 {
    pub sender: SendRequest<Bytes>,
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

impl H2 {
    pub async fn connect(address: SocketAddr) -> H2 {
        // One stream until the gateway has said how many it takes; more would be refused if that comes late.
        let mut builder = h2::client::Builder::new();
        builder.initial_max_send_streams(1);
        Self::over(TcpStream::connect(address).await.expect("it listens"), builder).await
    }

    pub async fn over<T>(stream: T, builder: h2::client::Builder) -> H2
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = builder.handshake(stream).await.expect("it speaks HTTP/2");
        H2 { sender, connection: tokio::spawn(connection) }
    }

    /// A stream may be opened.
    pub async fn ready(&self) -> SendRequest<Bytes> {
        self.sender.clone().ready().await.expect("the connection is open")
    }

    /// Sends a request without a body; its response, with the whole body and the trailers.
    pub async fn get(
        &self,
        target: &str,
    ) -> Result<(http::response::Parts, Bytes, Option<HeaderMap>), h2::Error> {
        let (response, _) = self.ready().await.send_request(get(target), true)?;
        let (head, mut body) =
            tokio::time::timeout(PATIENCE, response).await.expect("an answer in time")?.into_parts();
        let mut all = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            all.extend_from_slice(&data);
        }
        Ok((head, all.into(), body.trailers().await?))
    }
}

pub fn get(target: &str) -> Request<()> {
    Request::get(format!("http://a{target}")).body(()).expect("a plain request")
}
