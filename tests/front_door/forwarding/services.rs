//! Services that answer in ways of their own, well and badly.

use super::*;

/// RFC 9110 §2.5: an intermediary speaks its own version, whatever the instance speaks.
#[tokio::test]
async fn an_instance_of_http_1_0_is_answered_for_in_1_1() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        // Its body ends with the connection.
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nold body").await;
    })
    .await;
    let gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it stays open");
        let answer = read_until(&mut stream, "\r\n0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("old body") && !answer.contains("connection: close"), "{answer}");
    }
    let old = raw::exchange(gateway.http(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n") && old.ends_with("\r\n\r\nold body"), "{old}");
}

/// They come without a pause: that must not keep the worker from everything else.
#[tokio::test]
async fn a_service_that_sends_nothing_but_interim_responses_is_given_up() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000);
        while stream.write_all(hints.as_bytes()).await.is_ok() {}
    })
    .await;
    let gateway = to(&origin.url(), "");
    // One that is passed interim responses, and one that is not.
    for version in ["1.1", "1.0"] {
        let get = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = raw::exchange(gateway.http(), get).await;
        assert!(answer.contains(" 502 Bad Gateway\r\n"), "{answer}");
        assert!(answer.contains("\"code\":\"invalid_response\""), "{answer}");
    }
}

#[tokio::test]
async fn the_length_of_a_response_is_one_number() {
    for length in ["Content-Length: 2, 2", "Content-Length: 2\r\nContent-Length: 2"] {
        let origin = RawOrigin::answering(format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\nok")).await;
        let gateway = to(&origin.url(), "");
        let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = raw::exchange(gateway.http(), get).await;
        assert_eq!(answer.matches("content-length: 2\r\n").count(), 1, "{answer}");
        assert_eq!(answer.matches("content-length").count(), 1, "{answer}");
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
}

#[tokio::test]
async fn a_response_may_have_many_fields() {
    for (count, status) in [(250, "HTTP/1.1 200 OK\r\n"), (257, "HTTP/1.1 502 Bad Gateway\r\n")] {
        let fields: String = (0..count).map(|number| format!("X-{number}: {number}\r\n")).collect();
        let origin =
            RawOrigin::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n")).await;
        let gateway = to(&origin.url(), "");
        let answer = raw::exchange(gateway.http(), CLOSE).await;
        assert!(answer.starts_with(status), "{answer}");
        assert_eq!(answer.contains("x-249: 249\r\n"), count == 250, "{answer}");
    }
}

#[tokio::test]
async fn a_reason_phrase_of_the_service_is_passed_on() {
    let origin = RawOrigin::answering("HTTP/1.1 200 Everything is fine\r\nContent-Length: 0\r\n\r\n").await;
    let gateway = to(&origin.url(), "");
    let answer = raw::exchange(gateway.http(), CLOSE).await;
    assert!(answer.starts_with("HTTP/1.1 200 Everything is fine\r\n"), "{answer}");
}

#[tokio::test]
async fn services_that_answer_nonsense_are_answered_for() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(80_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(2000));
    for (answer, code) in [
        ("", "upstream_reset"),
        ("HTTP/1.1 200 O", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "upstream_reset"),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", "upstream_reset"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "invalid_response"),
        ("HTTP/1.1 OK\r\n\r\n", "invalid_response"),
        ("HTTP/1.1 99 Low\r\n\r\n", "invalid_response"),
        ("HTTP/2.0 200 OK\r\n\r\n", "invalid_response"),
        ("HTTP/1.1 200 OK\r\nX\r\n\r\n", "invalid_response"),
        ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "invalid_response"),
        ("HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n", "invalid_response"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n", "invalid_response"),
        ("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "invalid_response"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "invalid_response"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc", "invalid_response"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nabc", "invalid_response"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "invalid_response",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "invalid_response",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", "invalid_response"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "invalid_response",
        ),
        (&long, "invalid_response"),
        (&many, "invalid_response"),
    ] {
        let told = &answer[..answer.len().min(80)];
        let origin = RawOrigin::answering(answer).await;
        let gateway = to(&origin.url(), "");
        let reply = Client::new(gateway.http()).get("/x").await;
        assert_eq!((reply.status, reply.code().as_str()), (502, code), "{told:?}");
        assert!(!reply.text().contains("127.0.0.1"), "{}", reply.text());
        assert_eq!(gateway.log_entry(|entry| entry["path"] == "/x")["reason"], code, "{told:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    for (answer, code) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\nzz\r\n", "invalid_response"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsomething", "invalid_response"),
    ] {
        let origin = RawOrigin::answering(answer).await;
        let gateway = to(&origin.url(), "");
        let got = raw::exchange(gateway.http(), CLOSE).await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?} → {got:?}");
        assert!(!got.ends_with("\r\n0\r\n\r\n"), "{answer:?} → {got:?}");
        let entry = gateway.log_entry(|entry| entry["path"] == "/x");
        assert_eq!((&entry["status"], &entry["reason"]), (&200.into(), &code.into()), "{answer:?}");

        let over_http2 = Client::new(gateway.http()).http2().try_send(Method::GET, "/x", Bytes::new()).await;
        let error = over_http2.expect_err("the stream is reset");
        assert!(error.contains("INTERNAL_ERROR"), "{error}");

        // HTTP/1.0 knows no end but the connection's: it must not be an orderly one.
        let mut stream = connect(&gateway).await;
        stream.write_all(b"GET /x HTTP/1.0\r\n\r\n").await.expect("it reads");
        let mut all = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it ends");
        let text = String::from_utf8_lossy(&all);
        assert!(ended.is_err() || text.contains("content-length: 100"), "{answer:?} → {text:?}");
    }
}

#[tokio::test]
async fn bytes_behind_a_response_are_nobody_s() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        while !read_head(&mut stream).await.is_empty() {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let gateway = to(&origin.url(), "");
    for _ in 0..5 {
        let reply = Client::new(gateway.http()).get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    }
    assert_eq!(origin.connections(), 5, "a connection with something left on it was used again");
}

#[tokio::test]
async fn kept_connections_to_a_service_are_used_again() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        while !read_head(&mut stream).await.is_empty() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gateway = to(&origin.url(), "");
    for _ in 0..5 {
        assert_eq!(Client::new(gateway.http()).get("/").await.text(), "ok");
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_service_may_answer_before_it_has_read_the_request() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        raw::closed(&mut stream).await;
    })
    .await;
    let gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome")
        .await
        .expect("it reads");
    let answer = read_until(&mut stream, "\r\n\r\nno").await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    // The rest may still be sent.
    let _ = stream.write_all(&vec![b'x'; 999_996]).await;
    drop(stream);
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/x")["status"], 403);
}
