//! What reaches a service, and what comes back: bodies as streams, fields, interim responses; and services that lie.

mod fields;
mod services;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::raw::{RawOrigin, read_bytes, read_head, read_until, read_until_close};
use crate::support::{Client, Gateway, Origin, PATIENCE, eventually, raw};

/// Everything goes to the service; `more` is appended to the configuration.
fn to(url: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "workers: 1\nservices: {{ s: {{ instances: [\"{url}\"], retries: {{ attempts: 0 }} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}]\n{more}"
    ))
}

const CLOSE: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.http()).await.expect("it listens")
}

/// Memory that the gateway has in use, in MiB.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Waits until the count has stopped rising.
async fn settled(count: &AtomicU64) -> u64 {
    let mut last = (count.load(Relaxed), 0);
    eventually("it stops", || {
        let now = count.load(Relaxed);
        last = if now == last.0 && now > 0 { (now, last.1 + 1) } else { (now, 0) };
        let done = (last.1 == 30).then_some(now);
        async move { done }
    })
    .await
}

const BIG: u64 = 200 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_response_goes_no_faster_than_its_reader() {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let counter = counter.clone();
        async move {
            read_head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let block = vec![b'x'; 64 * 1024];
            while counter.load(Relaxed) < BIG && stream.write_all(&block).await.is_ok() {
                counter.fetch_add(block.len() as u64, Relaxed);
            }
        }
    })
    .await;
    let gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    let before = resident(&gateway);
    stream.write_all(CLOSE.as_bytes()).await.expect("it reads");
    // Nothing is read: what the origin can send is what the sockets between hold.
    let stopped_at = settled(&sent).await;
    assert!(stopped_at < BIG / 4, "{stopped_at} bytes were taken for a client that reads none");
    read_head(&mut stream).await;
    let mut buffer = vec![0; 256 * 1024];
    let (mut received, mut most) = (0, 0);
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        received += length as u64;
        if received % (1 << 24) < length as u64 {
            most = most.max(resident(&gateway));
        }
    }
    assert_eq!(received, BIG);
    assert!(most < before + 24, "memory went from {before} to {most} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_no_faster_than_the_service_reads() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let received = Arc::new(AtomicU64::new(0));
    let counter = received.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let (mut gate, counter) = (gate.clone(), counter.clone());
        async move {
            read_head(&mut stream).await;
            let _ = gate.wait_for(|go| *go).await;
            let mut buffer = vec![0; 256 * 1024];
            while counter.load(Relaxed) < BIG {
                let Ok(length @ 1..) = stream.read(&mut buffer).await else { return };
                counter.fetch_add(length as u64, Relaxed);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gateway = to(&origin.url(), "");
    let before = resident(&gateway);
    let (mut reader, mut writer) = connect(&gateway).await.into_split();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let sending = tokio::spawn(async move {
        let head =
            format!("POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {BIG}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.expect("it reads");
        let block = vec![b'x'; 64 * 1024];
        while counter.load(Relaxed) < BIG {
            writer.write_all(&block).await.expect("it reads");
            counter.fetch_add(block.len() as u64, Relaxed);
        }
        writer
    });
    let stopped_at = settled(&sent).await;
    assert!(stopped_at < BIG / 4, "{stopped_at} bytes were taken for a service that reads none");
    assert!(resident(&gateway) < before + 24, "memory went from {before} to {} MiB", resident(&gateway));
    go.send(true).expect("the origin waits");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, reader.read_to_string(&mut answer)).await.expect("in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok"), "{answer}");
    assert_eq!(received.load(Relaxed), BIG);
    assert!(resident(&gateway) < before + 24);
    drop(sending.await);
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        let head = read_head(&mut stream).await.to_lowercase();
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        assert!(head.contains("\r\nte: trailers\r\n"), "{head}");
        let body = read_until(&mut stream, "\r\n\r\n").await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum, Connection\r\nTransfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\nX-Sum: 7\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Undeclared: 1\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let gateway = to(&origin.url(), "");
    let answer = raw::exchange(
        gateway.http(),
        "POST /x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\nTrailer: X-Check\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Check: 9\r\nContent-Length: 3\r\nHost: evil\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // What the service saw of the request's body is in the answer.
    assert!(answer.contains("5\r\nhello\r\n0\r\nx-check: 9\r\n\r\n"), "{answer}");
    assert!(!answer.contains("evil"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn trailers_are_kept_from_clients_that_do_not_ask_for_them() {
    let origin = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    let gateway = to(&origin.url(), "");
    let answer = raw::exchange(gateway.http(), CLOSE).await;
    assert!(answer.ends_with("2\r\nok\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn trailers_pass_between_the_versions_of_http() {
    let origin = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\n",
    )
    .await;
    let gateway = to(&origin.url(), "");
    let trailers = Client::new(gateway.http()).http2().get("/x").await.trailers.expect("HTTP/2 takes them");
    assert_eq!((trailers.len(), trailers["x-sum"].as_bytes()), (1, &b"7"[..]));

    let origin = Origin::text("ok").await;
    let gateway = to(&origin.url(), "");
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTrailer: X-Check\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Check: 9\r\nX-Undeclared: 1\r\n\r\n";
    assert!(raw::exchange(gateway.http(), request).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let trailers = origin.only().trailers.expect("it was declared");
    assert_eq!((trailers.len(), trailers["x-check"].as_bytes()), (1, &b"9"[..]));
}

#[tokio::test]
async fn early_hints_come_before_the_response() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let origin = RawOrigin::start(move |mut stream, _| {
        let mut gate = gate.clone();
        async move {
            read_head(&mut stream).await;
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n";
            let _ = stream.write_all(format!("HTTP/1.1 100 Continue\r\n\r\n{hints}{hints}").as_bytes()).await;
            let _ = gate.wait_for(|go| *go).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    stream.write_all(CLOSE.as_bytes()).await.expect("it reads");
    // They come while the service still thinks.
    for _ in 0..2 {
        assert_eq!(read_head(&mut stream).await, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
    }
    go.send(true).expect("the origin waits");
    let rest = read_until_close(&mut stream).await;
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("\r\n\r\nok"), "{rest}");
    // HTTP/1.0 has no interim responses.
    let old = raw::exchange(gateway.http(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "{old}");
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_is_wanted() {
    let origin = Origin::text("hello").await;
    let gateway = Gateway::start(&format!(
        "services: {{ s: {{ instances: [\"{}\"] }} }}\n\
         authenticators: {{ j: {{ jwt: {{ algorithms: [HS256], keys: [ {{ secret: \"0123456789012345678901234567890123\" }} ] }} }} }}\n\
         routes:\n\
         - {{ name: open, match: {{ prefix: /open }}, forward: {{ service: s }}, max_body: 1KiB }}\n\
         - {{ name: closed, match: {{ prefix: /closed }}, authenticate: {{ with: [j] }}, forward: {{ service: s }} }}\n",
        origin.url()
    ));
    let head = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )
    };
    for (path, length, status) in [("/closed", 5, "401"), ("/open", 5000, "413"), ("/nowhere", 5, "404")] {
        let answer = raw::exchange(gateway.http(), head(path, length)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let mut stream = connect(&gateway).await;
    stream.write_all(head("/open", 5).as_bytes()).await.expect("it reads");
    assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.expect("it reads");
    let answer = read_until_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let seen = origin.only();
    assert_eq!((&seen.body[..], seen.header("expect")), (&b"hello"[..], None));
}

#[tokio::test]
async fn responses_without_a_body_have_none() {
    for (answer, request, expected) in [
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "GET", "HTTP/1.1 204 No Content"),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: \"x\"\r\n\r\n", "GET", "etag: \"x\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD", "content-length: 9"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD", "HTTP/1.1 200 OK"),
        // A service that sends one nevertheless.
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789", "HEAD", "content-length: 9"),
        ("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "GET", "HTTP/1.1 204 No Content"),
    ] {
        let origin = RawOrigin::answering(answer).await;
        let gateway = to(&origin.url(), "");
        let request = format!("{request} /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let got = raw::exchange(gateway.http(), request).await;
        let (head, body) = got.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?} → {got:?}"));
        assert!(head.lines().any(|line| line == expected), "{answer:?} → {got}");
        assert_eq!(body, "", "{answer:?}");
        let entry = gateway.log_entry(|entry| entry["path"] == "/x");
        assert_eq!(entry["reason"], serde_json::Value::Null, "{entry}");
    }
}

#[tokio::test]
async fn http_1_0_clients_get_what_they_understand() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        loop {
            if read_head(&mut stream).await.is_empty() {
                return;
            }
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
                .await;
        }
    })
    .await;
    let gateway = to(&origin.url(), "");
    let answer = raw::exchange(gateway.http(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");

    let sized = Origin::text("sized").await;
    let gateway = to(&sized.url(), "");
    let mut stream = connect(&gateway).await;
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await.expect("it stays open");
        let answer = read_until(&mut stream, "sized").await;
        assert!(answer.to_lowercase().contains("connection: keep-alive\r\n"), "{answer}");
    }
    let seen = sized.seen();
    assert_eq!(seen[0].header("via"), Some("1.0 gatehouse"));
    assert_eq!(seen[0].header("host"), Some(sized.address.to_string().as_str()), "{seen:?}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start_slow(|seen| async move {
        if seen.target == "/0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Response::new(Full::from(format!("[{}]", seen.target)))
    })
    .await;
    let gateway = to(&origin.url(), "");
    let mut requests = String::new();
    for number in 0..40 {
        requests += &if number % 3 == 0 {
            format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")
        } else {
            format!(
                "POST /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            )
        };
    }
    requests += "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = raw::exchange(gateway.http(), requests).await;
    let bodies: Vec<_> = answer.split('[').skip(1).filter_map(|rest| rest.split(']').next()).collect();
    let expected: Vec<_> = (0..40).map(|n| format!("/{n}")).chain(["/last".to_owned()]).collect();
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn options_asterisk_is_answered_by_the_gateway() {
    let origin = Origin::text("hello").await;
    let gateway = to(&origin.url(), "");
    let answer =
        raw::exchange(gateway.http(), "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
    assert!(answer.contains("\r\nallow: GET, HEAD,"), "{answer}");
    assert_eq!(origin.count(), 0);
}

/// Pieces of every size, copied together or sent from where they are, taken by a service that reads in bites.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_arrive_as_they_were_sent() {
    let origin = Origin::start(|seen| Response::new(Full::from(seen.body.clone()))).await;
    let gateway = to(&origin.url(), "");
    let sizes = [1, 4095, 4096, 4097, 20_000, 2, 100_000, 3, 3, 1_000_000, 16 * 1024, 7, 2_000_000];
    let mut body = Vec::new();
    let mut chunks = Vec::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let piece: Vec<u8> = (0..size).map(|at: usize| (at * 31 + number) as u8).collect();
        chunks.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        chunks.extend_from_slice(&piece);
        chunks.extend_from_slice(b"\r\n");
        body.extend_from_slice(&piece);
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    let length = format!("Content-Length: {}", body.len());
    for (framing, sent) in [("Transfer-Encoding: chunked", &chunks), (length.as_str(), &body)] {
        let head = format!("POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n");
        let (mut reader, mut writer) = connect(&gateway).await.into_split();
        let sent = [head.as_bytes(), sent].concat();
        let sending = tokio::spawn(async move {
            writer.write_all(&sent).await.expect("it reads");
            writer
        });
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, reader.read_to_end(&mut answer))
            .await
            .expect("in time")
            .expect("whole");
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(answer.ends_with(&body), "{framing}: what came back is not what was sent");
        drop(sending.await);
    }
    assert!(origin.seen().iter().all(|seen| seen.body == body));
}

/// RFC 9110 §9.3.1 gives such a body no meaning; an intermediary has no business dropping it.
#[tokio::test]
async fn a_get_may_have_a_body() {
    for framing in
        ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    {
        let origin = Origin::text("ok").await;
        let gateway = to(&origin.url(), "");
        let request = format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}");
        let answer = raw::exchange(gateway.http(), request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(origin.only().body, "hello");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_upstream_request_with_it() {
    for body in ["", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome"] {
        let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
        let origin = RawOrigin::start(move |mut stream, _| {
            let told = told.clone();
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(body.as_bytes()).await;
                let _ = told.send("began");
                raw::closed(&mut stream).await;
                let _ = told.send("closed");
            }
        })
        .await;
        let gateway = to(&origin.url(), "");
        let mut stream = connect(&gateway).await;
        // With another request behind it, which must not hide the end.
        stream
            .write_all(b"GET /left HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .expect("it reads");
        let mut next = async || tokio::time::timeout(PATIENCE, ends.recv()).await.expect("in time");
        assert_eq!(next().await, Some("began"));
        if !body.is_empty() {
            read_until(&mut stream, "some").await;
        }
        drop(stream);
        assert_eq!(next().await, Some("closed"));
        let entry = gateway.log_entry(|entry| entry["path"] == "/left");
        assert_eq!(entry["reason"], "client_gone");
        assert_eq!(entry["status"], if body.is_empty() { 499 } else { 200 });
        assert_eq!(entry["bytes_out"], if body.is_empty() { 0 } else { 4 });
    }
}

#[tokio::test]
async fn streams_are_passed_on_as_they_come() {
    let (go, gate) = tokio::sync::watch::channel(0);
    let origin = RawOrigin::start(move |mut stream, _| {
        let mut gate = gate.clone();
        async move {
            read_head(&mut stream).await;
            let first = read_bytes(&mut stream, 8).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let _ = stream.write_all(&first).await;
            for number in 1..4 {
                let _ = gate.wait_for(|go| *go >= number).await;
                let _ = stream.write_all(format!("1\r\n{number}\r\n").as_bytes()).await;
            }
            let _ = stream.write_all(b"0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    // The request's body isn't over either while the response comes.
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await
        .expect("it reads");
    read_until(&mut stream, "\r\n\r\n3\r\nabc\r\n").await;
    for number in 1..4 {
        go.send(number).expect("the origin waits");
        read_until(&mut stream, &format!("1\r\n{number}\r\n")).await;
    }
    assert_eq!(read_until(&mut stream, "0\r\n\r\n").await, "0\r\n\r\n");
}
