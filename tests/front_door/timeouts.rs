//! How long an instance may take for what, and what is said when it takes longer.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::raw::{RawOrigin, read_until, read_until_close, unreachable};
use crate::support::{Client, Gateway, Origin, one_service, origin};

/// Answers nothing, ever.
async fn silent() -> Origin {
    Origin::start_slow(|_| async {
        std::future::pending::<()>().await;
        origin::status(200)
    })
    .await
}

#[tokio::test]
async fn connecting() {
    let (url, _held) = unreachable().await;
    let gateway =
        Gateway::start(&one_service(&[url], "timeouts: { connect: 200ms }, retries: { attempts: 0 }"));
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "connect_timeout"));
    assert_eq!(
        gateway.metric("gatehouse_upstream_requests_total", &["outcome=\"connect_timeout\""]).await,
        1.0
    );
}

#[tokio::test]
async fn nobody_listens() {
    let origin = Origin::text("").await;
    let gateway = Gateway::start(&one_service(&[origin.url()], "retries: { attempts: 0 }"));
    origin.kill();
    let client = Client::new(gateway.http());
    let reply = crate::support::eventually("the port is closed", || async {
        let reply = client.get("/").await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "connect_failure"));
    assert!(!reply.text().contains(&origin.address.to_string()), "{}", reply.text());
}

#[tokio::test]
async fn the_head_of_the_response() {
    let origin = silent().await;
    let gateway = Gateway::start(&one_service(&[origin.url()], "timeouts: { response: 200ms }"));
    let client = Client::new(gateway.http());
    for method in [http::Method::GET, http::Method::POST] {
        let reply = client.send(method, "/", "a body".into()).await;
        assert_eq!((reply.status, reply.code().as_str()), (504, "response_timeout"));
    }
    assert_eq!(origin.count(), 2, "a slow answer is not asked for again by default");
    crate::support::eventually("its connections are closed", || async {
        (origin.open_connections() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pause_in_the_body() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun").await;
        read_until(&mut stream, "never").await;
    })
    .await;
    let gateway = Gateway::start(&one_service(&[origin.url()], "timeouts: { idle: 200ms }"));
    let broken = Client::new(gateway.http()).try_send(http::Method::GET, "/", Default::default()).await;
    assert!(broken.is_err(), "a body that stopped looked whole: {broken:?}");
    let entry = gateway.log_entry(|entry| entry["path"] == "/");
    assert_eq!((&entry["status"], &entry["reason"]), (&200.into(), &"idle_timeout".into()));
    assert_eq!(entry["bytes_out"], 5);
}

/// A body that comes slowly but steadily may take as long as it likes.
#[tokio::test]
async fn a_slow_body_is_not_a_pause() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = stream.write_all(b"x").await;
        }
    })
    .await;
    let gateway = Gateway::start(&one_service(&[origin.url()], "timeouts: { idle: 700ms, response: 700ms }"));
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "xxxxxxxxxx");
}

/// The instance's time begins when it has got the request: a client that uploads slowly is not its fault.
#[tokio::test]
async fn a_slow_upload_takes_none_of_the_instances_time() {
    let origin = Origin::text("received").await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "timeouts: { response: 500ms }, retries: { per_attempt_timeout: 500ms }, \
         circuit_breaker: { consecutive_failures: 1 }",
    ));
    let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
    let head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\n";
    client.write_all(head).await.expect("it reads");
    for byte in b"0123456789" {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.write_all(&[*byte]).await.expect("it reads");
    }
    let reply = read_until_close(&mut client).await;
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("received"), "{reply}");
    assert_eq!(origin.only().body, "0123456789");
}

#[tokio::test]
async fn an_instance_that_does_not_take_the_upload() {
    let origin = RawOrigin::start(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let gateway = Gateway::start(&one_service(&[origin.url()], "timeouts: { response: 300ms }"));
    let began = Instant::now();
    let reply = Client::new(gateway.http()).post("/", vec![b'x'; 20_000_000]).await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "response_timeout"));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_client_that_stops_uploading_is_not_the_instances_fault() {
    let origin = Origin::text("").await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "timeouts: { response: 100ms, idle: 400ms }, circuit_breaker: { consecutive_failures: 1 }",
    ));
    let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01").await.expect("it reads");
    let reply = read_until_close(&mut client).await;
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    let instance = gateway.instance("users", origin.address).await.expect("it is there");
    assert_eq!(instance["breaker"]["state"], "closed");
    assert_eq!(instance["failures"], 0);
}

#[tokio::test]
async fn a_fallback_takes_the_place_of_a_failure() {
    let origin = silent().await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "timeouts: { response: 100ms }, circuit_breaker: { consecutive_failures: 1, open_for: 60s }, \
         fallback: { status: 200, json: { users: [] } }",
    ));
    let client = Client::new(gateway.http());
    for reason in ["response_timeout", "circuit_open"] {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"users":[]}"#));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let why = reply.header("proxy-status").expect("it says why");
        assert!(
            why.starts_with("gatehouse; error=") && why.ends_with(&format!("details=\"{reason}\"")),
            "{why}"
        );
        let entry = gateway.log_entry(|entry| entry["reason"] == reason);
        assert_eq!(entry["status"], 200);
    }
    assert_eq!(gateway.metric("gatehouse_fallbacks_total", &["service=\"users\""]).await, 2.0);
}

/// What the service itself answers is never replaced.
#[tokio::test]
async fn a_fallback_replaces_no_answer() {
    let origin = Origin::status(503).await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "retries: { attempts: 0 }, fallback: { status: 200, text: instead }",
    ));
    assert_eq!(Client::new(gateway.http()).get("/").await.status, 503);
}
