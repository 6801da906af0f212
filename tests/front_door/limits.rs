//! What a client may use up: time, connections, streams; and that the end of a connection takes no reply with it.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Client, Gateway, Origin, PATIENCE, eventually, raw};

fn gateway(limits: &str, service: &str, url: &str) -> Gateway {
    Gateway::start(&format!(
        "workers: 1\nlisteners: [{{ name: http, bind: \"127.0.0.1:0\", limits: {{ {limits} }} }}]\n\
         services: {{ s: {{ instances: [\"{url}\"]{service} }} }}\n\
         routes:\n\
         - {{ name: limited, match: {{ prefix: /limited }}, forward: {{ service: s }}, max_body: 1KiB }}\n\
         - {{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}\n"
    ))
}

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.http()).await.expect("it listens")
}

/// Sends a request that leaves the connection open, and takes the answer.
async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    let answer = raw::read_until(stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_answered_with_408() {
    let origin = Origin::text("hello").await;
    let gateway = gateway("header_timeout: 300ms", "", &origin.url());
    for kept_alive in [false, true] {
        let mut stream = connect(&gateway).await;
        if kept_alive {
            ask(&mut stream).await;
        }
        let began = Instant::now();
        let (mut reader, mut writer) = stream.split();
        let dripping = async {
            // One byte now and then does not prolong it.
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: ".iter().chain(b"x".iter().cycle()) {
                if writer.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let reading = async {
            let mut answer = Vec::new();
            let _ = reader.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        let answer = tokio::select! {
            () = dripping => panic!("it took bytes for ever"),
            answer = reading => answer,
        };
        assert!(
            answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "kept alive {kept_alive}: {answer:?}"
        );
        assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
        assert!(began.elapsed() >= Duration::from_millis(290), "too early: {:?}", began.elapsed());
    }
    gateway.log_entry(|entry| entry["reason"] == "request_timeout" && entry["status"] == 408);
}

#[tokio::test]
async fn a_pipelined_half_of_a_head_is_timed_too() {
    let origin = Origin::text("hello").await;
    let gateway = gateway("header_timeout: 300ms, idle_timeout: 1h", "", &origin.url());
    let answer = raw::exchange(gateway.http(), "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTT").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("helloHTTP/1.1 408 Request Timeout\r\n"), "{answer}");
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed_without_a_word() {
    let origin = Origin::text("hello").await;
    let gateway = gateway("header_timeout: 300ms, idle_timeout: 300ms", "", &origin.url());
    let mut silent = connect(&gateway).await;
    assert_eq!(raw::read_until_close(&mut silent).await, "");
    let mut idle = connect(&gateway).await;
    ask(&mut idle).await;
    assert_eq!(raw::read_until_close(&mut idle).await, "");
    // An empty line behind a request is no beginning of another.
    let mut old = connect(&gateway).await;
    ask(&mut old).await;
    old.write_all(b"\r\n").await.expect("it reads");
    assert_eq!(raw::read_until_close(&mut old).await, "");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_answered_with_408() {
    let origin = Origin::text("hello").await;
    let gateway = gateway("header_timeout: 5s", ", timeouts: { idle: 300ms }", &origin.url());
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345";
    let answer = raw::exchange(gateway.http(), request).await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let origin = Origin::text("hello").await;
    let gateway = gateway("max_connections: 2", "", &origin.url());
    let (mut first, mut second) = (connect(&gateway).await, connect(&gateway).await);
    ask(&mut first).await;
    ask(&mut second).await;
    let mut third = connect(&gateway).await;
    third
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .expect("the kernel takes it");
    eventually("the refusal is counted", || async {
        (gateway.metric("gatehouse_connections_refused_total", &[]).await > 0.0).then_some(())
    })
    .await;
    // Those that have a place go on being served, and the third is not.
    ask(&mut first).await;
    assert_eq!(origin.count(), 3);
    drop(second);
    let answer = raw::read_until_close(&mut third).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn an_early_reply_survives_what_the_client_is_still_sending() {
    let origin = Origin::text("hello").await;
    let gateway = gateway("", "", &origin.url());
    for (framing, body) in [
        ("Content-Length: 800000", vec![b'x'; 800_000]),
        ("Transfer-Encoding: chunked", b"C3500\r\n".iter().copied().chain(vec![b'x'; 800_000]).collect()),
    ] {
        let mut stream = connect(&gateway).await;
        let head = format!("POST /limited HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        // The client sends all that it has before it looks at the answer.
        stream.write_all(&body).await.expect("what is sent is taken");
        let answer = raw::read_until_close(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{framing}: {answer:?}");
        assert!(answer.contains("\"code\":\"body_too_large\""), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    }
    assert_eq!(origin.count(), 0);
}

/// The gateway answers by itself, and nobody reads what the client sends.
#[tokio::test]
async fn a_short_body_that_nobody_reads_is_read_on_the_side() {
    let gateway = Gateway::start("routes: [{ name: x, match: { path: / }, respond: { text: hello } }]\n");
    let next = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for (fields, body) in [
        ("Content-Length: 5", "12345"),
        ("Content-Length: 16384", &"x".repeat(16384)),
        // It ends with what has come together with the head.
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nX: 1\r\n\r\n"),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}{next}");
        let answer = raw::exchange(gateway.http(), request).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{fields}: {answer}");
        assert_eq!(answer.matches("connection: close\r\n").count(), 1, "{fields}: {answer}");
    }
    // It may come after the answer.
    let mut stream = connect(&gateway).await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n1").await.expect("it reads");
    raw::read_until(&mut stream, "hello").await;
    stream.write_all(format!("2345{next}").as_bytes()).await.expect("it reads");
    assert!(raw::read_until_close(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn a_long_body_that_nobody_reads_ends_the_connection() {
    let gateway = Gateway::start("routes: [{ name: x, match: { path: / }, respond: { text: hello } }]\n");
    for fields in [
        "Content-Length: 16385",
        "Transfer-Encoding: chunked",
        // Who was not asked for it may not send it.
        "Content-Length: 5\r\nExpect: 100-continue",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let mut stream = connect(&gateway).await;
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let answer = raw::read_until(&mut stream, "hello").await;
        assert!(answer.contains("\r\nconnection: close\r\n"), "{fields}: {answer}");
        // It is told by the answer, and not cut off while it sends on.
        stream.write_all(&[b'x'; 5000]).await.expect("it reads");
        assert_eq!(raw::read_until_close(&mut stream).await, "");
    }
    // A rest that does not come is not waited for longer than a head would be.
    let gateway = Gateway::start(
        "listeners: [{ name: http, bind: \"127.0.0.1:0\", limits: { header_timeout: 300ms } }]\n\
         routes: [{ name: x, match: { path: / }, respond: { text: hello } }]\n",
    );
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n1";
    assert!(raw::exchange(gateway.http(), request).await.ends_with("hello"));
}

/// A client that sends requests without reading answers does not make the gateway read all of them.
#[tokio::test]
async fn what_is_pipelined_is_read_ahead_only_so_far() {
    let origin = Origin::start_slow(|_| async {
        std::future::pending::<()>().await;
        crate::support::origin::status(200)
    })
    .await;
    let gateway = gateway("", "", &origin.url());
    let mut stream = connect(&gateway).await;
    let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10_000);
    let sending = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_millis(500), sending).await.is_err(), "it is stopped");
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_given_up() {
    let origin = Origin::start(|_| {
        http::Response::new(http_body_util::Full::new(bytes::Bytes::from(vec![b'x'; 32 * 1024 * 1024])))
    })
    .await;
    let gateway = gateway("idle_timeout: 300ms", "", &origin.url());
    let mut stream = connect(&gateway).await;
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    let entry = gateway.log_entry(|entry| entry["path"] == "/big");
    assert_eq!(entry["reason"], "client_gone", "{entry}");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it closed");
    assert!(read.is_err() || rest.len() < 32 * 1024 * 1024);
}

#[tokio::test]
async fn limits_of_a_listener_change_with_the_configuration() {
    let origin = Origin::text("hello").await;
    let gateway = gateway("max_headers: 50", "", &origin.url());
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n", "x: 1\r\n".repeat(30));
    assert!(raw::exchange(gateway.http(), &request).await.starts_with("HTTP/1.1 200 OK\r\n"));
    gateway
        .reconfigure(&format!(
            "workers: 1\nlisteners: [{{ name: http, bind: \"127.0.0.1:0\", limits: {{ max_headers: 20 }} }}]\n\
             services: {{ s: {{ instances: [\"{}\"] }} }}\n\
             routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}]\n",
            origin.url()
        ))
        .await;
    eventually("the new limit holds", || async {
        raw::exchange(gateway.http(), &request).await.starts_with("HTTP/1.1 431 ").then_some(())
    })
    .await;
    assert_eq!(Client::new(gateway.http()).get("/").await.status, 200);
}
