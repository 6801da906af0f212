//! `timeouts.total`: a call with all that belongs to it ends in time, and what is cut short never looks whole.

use std::time::{Duration, Instant};

use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::h2::H2;
use crate::support::raw::{RawOrigin, read_until};
use crate::support::{Client, Gateway, Origin, eventually, one_service, origin};

/// The instance's side may take much longer than a test waits.
fn total(origin: &str, settings: &str) -> Gateway {
    let settings = format!("timeouts: {{ total: 400ms, response: 60s, idle: 60s }}, {settings}");
    Gateway::start(&one_service(&[origin.to_owned()], &settings))
}

async fn silent() -> Origin {
    Origin::start_slow(|_| async {
        std::future::pending::<()>().await;
        origin::status(200)
    })
    .await
}

/// Sends a head, and then a byte of an endless body every few milliseconds, for as long as somebody takes it.
async fn endless(head: &'static str, piece: &'static [u8]) -> RawOrigin {
    RawOrigin::start(move |mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(piece).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn what_is_done_in_time_is_not_touched() {
    let origin = Origin::text("well").await;
    let gateway = total(&origin.url(), "");
    let client = Client::new(gateway.http());
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "well");
    }
}

#[tokio::test]
async fn before_the_head_it_has_a_reason_of_its_own_and_counts_against_the_instance() {
    let origin = silent().await;
    let gateway = total(
        &origin.url(),
        "retries: { attempts: 3, on: [timeout] }, circuit_breaker: { consecutive_failures: 2 }",
    );
    let client = Client::new(gateway.http());
    let began = Instant::now();
    let reply = client.get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "total_timeout"));
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(origin.count(), 1, "there was no time for another attempt");
    assert_eq!(client.get("/").await.code(), "total_timeout");
    assert_eq!(client.get("/").await.code(), "circuit_open");
}

#[tokio::test]
async fn it_spans_all_attempts_and_their_pauses() {
    let origin = Origin::start_slow(|_| async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        origin::status(503)
    })
    .await;
    let gateway = total(
        &origin.url(),
        "retries: { attempts: 10, budget: 100%, backoff: { base: 0s } }, circuit_breaker: { consecutive_failures: 99 }",
    );
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "total_timeout"));
    assert!(origin.count() <= 3, "{} attempts", origin.count());
}

#[tokio::test]
async fn a_body_that_goes_on_too_long_is_broken_off() {
    let chunks = endless(CHUNKED, b"1\r\nx\r\n").await;
    let counted = endless("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", b"x").await;
    let closing = endless("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"x").await;
    for origin in [chunks, counted, closing] {
        let gateway = total(&origin.url(), "circuit_breaker: { consecutive_failures: 1 }");
        for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
            let broken = client.try_send(Method::GET, "/cut", Default::default()).await;
            assert!(broken.is_err(), "a body that was cut short looked whole: {broken:?}");
        }
        let entry = gateway.log_entry(|entry| entry["path"] == "/cut");
        assert_eq!((&entry["status"], &entry["reason"]), (&200.into(), &"total_timeout".into()));
        assert!(entry["bytes_out"].as_u64().is_some_and(|sent| sent > 0));
        let cut = async || gateway.metric("http_errors_total", &["reason=\"total_timeout\""]).await;
        eventually("both are counted", || async { (cut().await == 2.0).then_some(()) }).await;
        assert_eq!(gateway.metric("gatehouse_breaker_state", &[]).await, 0.0, "its head was well");
    }
}

#[tokio::test]
async fn a_body_that_stands_still_is_broken_off_too() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun").await;
        read_until(&mut stream, "never").await;
    })
    .await;
    let gateway = total(&origin.url(), "");
    let broken = Client::new(gateway.http()).try_send(Method::POST, "/", Default::default()).await;
    assert!(broken.is_err(), "{broken:?}");
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/")["reason"], "total_timeout");
}

/// Its connection stays, but nothing at the service waits for it.
#[tokio::test]
async fn a_client_that_reads_nothing_holds_nothing_of_the_service() {
    let piece: &'static [u8] =
        Box::leak(format!("10000\r\n{}\r\n", "x".repeat(65_536)).into_bytes().into_boxed_slice());
    let origin = endless(CHUNKED, piece).await;
    let gateway = total(&origin.url(), "concurrency: { max: 2 }");
    let mut http1 = TcpStream::connect(gateway.http()).await.expect("it listens");
    http1.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
    let http2 = H2::connect(gateway.http()).await;
    let (unread, _) = http2.ready().await.send_request(crate::support::h2::get("/"), true).expect("it may");
    let unread = unread.await.expect("a head comes");
    let in_flight = async || gateway.service("users").await["concurrency"]["in_flight"].as_u64();
    eventually("both are cut off", || async {
        (origin.connections() == 2 && in_flight().await == Some(0)).then_some(())
    })
    .await;
    drop(unread);
}

#[tokio::test]
async fn waiting_for_a_turn_counts() {
    let origin = silent().await;
    let gateway = total(&origin.url(), "concurrency: { max: 1, queue: 5, queue_timeout: 60s }");
    let client = Client::new(gateway.http());
    let (first, second) = tokio::join!(client.get("/"), client.get("/"));
    for reply in [first, second] {
        assert_eq!((reply.status, reply.code().as_str()), (504, "total_timeout"));
    }
    assert_eq!(gateway.metric("gatehouse_concurrency_refused_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_client_that_sends_slowly_says_nothing_about_the_instance() {
    let origin = silent().await;
    let gateway = total(&origin.url(), "circuit_breaker: { consecutive_failures: 1 }");
    let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nb").await.expect("it reads");
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    assert_eq!(gateway.metric("gatehouse_breaker_state", &[]).await, 0.0);
}

#[tokio::test]
async fn a_tunnel_may_last_longer() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let _ = stream.write_all(switch.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        let _ = stream.write_all(b"still there").await;
    })
    .await;
    let gateway = total(&origin.url(), "");
    let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
    let ask = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(ask.as_bytes()).await.expect("it reads");
    assert!(read_until(&mut client, "there").await.ends_with("still there"));
}
