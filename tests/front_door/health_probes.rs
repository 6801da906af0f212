//! What active health checks ask, and what is told of those that fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Client, Gateway, Origin, eventually, one_service};

fn check(how: &str) -> String {
    format!("health_check: {{ {how}, interval: 100ms, timeout: 5s, healthy_after: 1, unhealthy_after: 2 }}")
}

async fn becomes(gateway: &Gateway, address: SocketAddr, health: &str) -> serde_json::Value {
    eventually(&format!("it is {health}"), || async {
        gateway.instance("users", address).await.filter(|instance| instance["health"] == health)
    })
    .await
}

/// Waits until the instance is out, and gives the reason.
async fn out(gateway: &Gateway, address: SocketAddr) -> String {
    let shown = becomes(gateway, address, "unhealthy").await;
    shown["last_check"]["failure"].as_str().expect("it says why").to_owned()
}

#[tokio::test]
async fn the_body_must_have_the_text() {
    let body = Arc::new(Mutex::new("{\"status\":\"UP\"}"));
    let current = body.clone();
    let origin = Origin::start(move |_| {
        Response::new(Full::from(*current.lock().unwrap_or_else(PoisonError::into_inner)))
    })
    .await;
    let how = "path: /health, expect_status: [200, 204-206], expect_body: '\"status\":\"UP\"'";
    let gateway = Gateway::start(&one_service(&[origin.url()], &check(how)));
    becomes(&gateway, origin.address, "healthy").await;
    *body.lock().expect("nobody panicked") = "{\"status\":\"DOWN\"}";
    assert_eq!(out(&gateway, origin.address).await, "the body does not have the expected text");
    *body.lock().expect("nobody panicked") = "{\"status\":\"UP\"}";
    becomes(&gateway, origin.address, "healthy").await;
}

#[tokio::test]
async fn connecting_may_be_enough() {
    let origin = Origin::status(500).await;
    let gateway = Gateway::start(&one_service(&[origin.url()], &check("tcp: {}")));
    becomes(&gateway, origin.address, "healthy").await;
    assert_eq!(origin.count(), 0, "nothing is asked");
    origin.kill();
    let why = out(&gateway, origin.address).await;
    assert!(why.starts_with("cannot connect: "), "{why}");
}

/// A gRPC server whose health is the number of a serving status, or 12 for one without a health service.
async fn grpc_server(health: Arc<AtomicU8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let health = health.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let head = Response::builder().header("content-type", "application/grpc");
                    let health = health.load(SeqCst);
                    if health == 12 {
                        let head = head.header("grpc-status", "12").body(()).expect("constants");
                        let _ = respond.send_response(head, true);
                        continue;
                    }
                    let mut body =
                        respond.send_response(head.body(()).expect("constants"), false).expect("it is open");
                    let message = vec![0, 0, 0, 0, 2, 8, health];
                    body.send_data(Bytes::from(message), false).expect("it is open");
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    body.send_trailers(trailers).expect("it is open");
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_grpc_server_is_asked_by_the_protocol_for_that() {
    let health = Arc::new(AtomicU8::new(1));
    let address = grpc_server(health.clone()).await;
    let how = check("grpc: { service: users.v1.Users }");
    let gateway = Gateway::start(&one_service(&[format!("http://{address}")], &how));
    becomes(&gateway, address, "healthy").await;
    health.store(2, SeqCst);
    assert_eq!(out(&gateway, address).await, "it says NOT_SERVING");
    health.store(1, SeqCst);
    becomes(&gateway, address, "healthy").await;
    health.store(12, SeqCst);
    assert_eq!(out(&gateway, address).await, "it has no gRPC health service (UNIMPLEMENTED)");
    health.store(1, SeqCst);
    becomes(&gateway, address, "healthy").await;
    // An HTTP/1.1 server is none.
    let other = Origin::status(200).await;
    gateway.reconfigure(&one_service(&[other.url()], &how)).await;
    let why = out(&gateway, other.address).await;
    assert!(why.starts_with("no usable answer in HTTP/2: "), "{why}");
}

/// Says this to whoever connects, and closes or hangs.
async fn saying(text: &'static str, hangs: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(text.as_bytes()).await;
                if hangs {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn one_that_hangs_closes_or_talks_nonsense_is_out_and_the_reason_is_told() {
    let well = Origin::status(200).await;
    let (hangs, closes) = (saying("", true).await, saying("", false).await);
    let (nonsense, slow) = (saying("220 ready\r\n", false).await, saying("HTTP/1.1 200 OK\r\nx", true).await);
    let ill = [hangs, closes, nonsense, slow].map(|address| format!("http://{address}"));
    let urls: Vec<String> = ill.into_iter().chain([well.url()]).collect();
    let how = check("path: /health").replace("timeout: 5s", "timeout: 1s");
    let gateway = Gateway::start(&one_service(&urls, &how));
    assert_eq!(out(&gateway, hangs).await, "no answer within 1s");
    assert_eq!(out(&gateway, slow).await, "no answer within 1s");
    for address in [closes, nonsense] {
        let why = out(&gateway, address).await;
        assert!(why.starts_with("no usable answer: "), "{why}");
        gateway.wait_for(&format!("service users: {address} is unhealthy and gets no requests: {why}"));
    }
    let client = Client::new(gateway.http());
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
}
