//! What answers in the place of etcd or Consul and is neither: the last good set stays, whatever it says and
//! however much, and the source is followed again once it is back.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;

use crate::support::source::{answers, until, until_well};
use crate::support::told::Told;
use crate::support::{Client, Gateway, Origin};

/// A source, an origin that it names, and a gateway that has found it.
struct Found {
    source: Told,
    origin: Origin,
    gateway: Gateway,
    client: Client,
}

impl Found {
    async fn through(source: Told) -> Found {
        let origin = Origin::text("a").await;
        source.add(origin.address).await;
        let gateway = Gateway::start(&source.configuration("load_balancing: round_robin"));
        let client = Client::new(gateway.http());
        answers(&client, "a").await;
        Found { source, origin, gateway, client }
    }

    fn address(&self) -> SocketAddr {
        self.source.address().expect("it listens")
    }

    /// Something else answers in the place of the source, until this has been told; then the source is back.
    async fn lied_to<T>(&mut self, liar: impl AsyncFnOnce(SocketAddr) -> T, told: &str) {
        self.source.process().kill();
        let lying = liar(self.address()).await;
        until(&self.gateway, &self.client, "failing", told).await;
        drop(lying);
        self.source.process().restart().await;
        until_well(&self.gateway, &self.client).await;
        assert!(self.gateway.instance("users", self.origin.address).await.is_some());
    }
}

/// The same reply to everything.
fn reply(status: u16, field: (&'static str, &'static str), body: &'static str) -> Response<Full<Bytes>> {
    let response =
        Response::builder().status(status).header("x-consul-index", INDEX).header(field.0, field.1);
    response.body(Full::from(body)).expect("constants")
}

/// What a liar does with a connection once it has read something.
struct Raw(AbortHandle);

impl Raw {
    fn start<F>(address: SocketAddr, answer: impl Fn(TcpStream) -> F + Send + 'static) -> Raw
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let socket = TcpSocket::new_v4().expect("the loopback is IPv4");
        socket.set_reuseaddr(true).expect("a plain option");
        socket.bind(address).expect("the source has left");
        let listener = socket.listen(64).expect("it is bound");
        let serving = async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
                    tokio::spawn(answer(stream));
                }
            }
        };
        Raw(tokio::spawn(serving).abort_handle())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// None that a Consul of a few changes can have come to: with one that the gateway knows, nothing would be new, and
/// nothing read.
const INDEX: &str = "987654321";
/// The same, for what writes it itself.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-consul-index: 987654321\r\n\
    transfer-encoding: chunked\r\n\r\n";

/// As many bytes as the other side takes.
async fn endless(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(HEAD).await?;
    let piece = [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat();
    loop {
        stream.write_all(&piece).await?;
    }
}

/// A byte now and then, which never comes to an end.
async fn trickling(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(HEAD).await?;
    loop {
        stream.write_all(b"1\r\n \r\n").await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A head that never ends.
async fn all_head(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await?;
    loop {
        stream.write_all(&[b'x'; 4096]).await?;
    }
}

async fn broken_off(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(HEAD).await?;
    stream.write_all(b"5\r\n[{\"No").await
}

async fn no_http(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"-ERR unknown command 'POST'\r\n").await
}

async fn lies(source: Told, too_large: &'static str) {
    let mut found = Found::through(source).await;
    for (status, field, body, told) in [
        (
            500,
            ("x", ""),
            "rpc error: No cluster leader",
            "500 Internal Server Error: rpc error: No cluster leader",
        ),
        (503, ("x", ""), "", "it answered 503"),
        (404, ("x", ""), "404 page not found", "404 Not Found: 404 page not found"),
        (301, ("location", "http://127.0.0.1:9/elsewhere"), "", "it answered 301"),
        (204, ("x", ""), "", "it answered 204"),
        (200, ("x", ""), r#"[{"Node":{"Address":7},"Service":{"Port":"x"}}]"#, "can't be understood"),
        (200, ("x", ""), r#"{"header":{"revision":[]},"kvs":{}}"#, "can't be understood"),
        (200, ("content-encoding", "gzip"), "\u{1f}\u{8b}", "can't be understood"),
    ] {
        found.lied_to(async |at| Origin::start_at(at, move |_| reply(status, field, body)).await, told).await;
    }
    found.lied_to(async |at| Raw::start(at, endless), too_large).await;
    found.lied_to(async |at| Raw::start(at, all_head), "the connection failed").await;
    found.lied_to(async |at| Raw::start(at, broken_off), "the answer broke off").await;
    found.lied_to(async |at| Raw::start(at, no_http), "the connection failed").await;
}

#[tokio::test]
async fn whatever_is_in_the_place_of_etcd_changes_nothing() {
    lies(Told::etcd().await, "the answer is larger than 16777216 bytes").await;
}

#[tokio::test]
async fn whatever_is_in_the_place_of_consul_changes_nothing() {
    let Some(consul) = Told::consul().await else { return };
    lies(consul, "the answer is larger than 67108864 bytes").await;
}

#[tokio::test]
async fn an_answer_that_trickles_for_ever_is_given_up() {
    let mut found = Found::through(Told::etcd().await).await;
    found.lied_to(async |at| Raw::start(at, trickling), "no answer within 30s").await;
}
