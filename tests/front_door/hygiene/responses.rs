//! Services that lie about where an answer ends, or say what nobody asked for (RFC 9112 §6.3, §9.2, §11.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::io::AsyncWriteExt;

use crate::support::raw::{self, RawOrigin, read_head};
use crate::support::{Client, Gateway};

const CLOSE: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn to(url: &str) -> Gateway {
    Gateway::start(&format!(
        "workers: 1\nservices: {{ s: {{ instances: [\"{url}\"], retries: {{ attempts: 0 }}, \
         circuit_breaker: {{ consecutive_failures: 1000 }} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}]\n"
    ))
}

/// Each of these answers is one for nobody: 502, with the reason, and nothing of it.
async fn unusable(answers: &[&str]) {
    let next = Arc::new(AtomicUsize::new(0));
    let all: Arc<Vec<String>> = Arc::new(answers.iter().map(|&answer| answer.to_owned()).collect());
    let (number, told) = (next.clone(), all.clone());
    let origin = RawOrigin::start(move |mut stream, _| {
        let answer = told[number.load(Relaxed)].clone();
        async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            raw::closed(&mut stream).await;
        }
    })
    .await;
    let gateway = to(&origin.url());
    for (at, answer) in all.iter().enumerate() {
        next.store(at, Relaxed);
        let got = raw::exchange(gateway.http(), CLOSE).await;
        assert!(got.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer:?} → {got}");
        assert!(got.contains("\"code\":\"invalid_response\"") && !got.contains("evil"), "{answer:?} → {got}");
    }
}

#[tokio::test]
async fn responses_with_both_lengths_are_unusable() {
    unusable(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nevil",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn responses_with_repeated_or_malformed_lengths_are_unusable() {
    unusable(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nevil!",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nevil!",
        "HTTP/1.1 200 OK\r\nContent-Length: 4,\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nContent-Length: 4 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551620\r\n\r\nevil",
    ])
    .await;
}

#[tokio::test]
async fn header_injection_by_a_response_is_unusable() {
    unusable(&[
        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\x7fevil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nevil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\u{e9}: evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 O\rX: evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\nX: evil\r\nContent-Length: 0\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn status_lines_of_another_form_are_unusable() {
    unusable(&[
        "HTTP/1.1 99 evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 1000 evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 -200 evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2x0 evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1  200 evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.2 200 evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 evil\r\nContent-Length: 0\r\n\r\n",
        "http/1.1 200 evil\r\nContent-Length: 0\r\n\r\n",
        "ICY 200 evil\r\n\r\n",
        "\r\nHTTP/1.1 200 evil\r\nContent-Length: 0\r\n\r\n",
        "<html>evil</html>",
    ])
    .await;
}

#[tokio::test]
async fn huge_heads_of_responses_are_unusable() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: evil\r\n".repeat(300));
    unusable(&[&long, &many]).await;
}

#[tokio::test]
async fn floods_of_interim_responses_are_unusable() {
    let flood =
        "HTTP/1.1 102 Processing\r\n\r\n".repeat(2000) + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let origin = RawOrigin::answering(flood).await;
    let got = raw::exchange(to(&origin.url()).http(), CLOSE).await;
    // Those that came before are passed on, up to a bound; the answer behind them is not.
    let (_, last) = got.rsplit_once("HTTP/1.1 ").expect("it is answered");
    assert!(
        last.starts_with("502 Bad Gateway\r\n") && last.contains("\"code\":\"invalid_response\""),
        "{last}"
    );
    assert!(!got.contains("evil"));
}

#[tokio::test]
async fn an_unsolicited_101_is_unusable() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade:";
    unusable(&[&format!("{switch} websocket\r\n\r\nevil"), &format!("{switch} h2c\r\n\r\nevil")]).await;
}

/// Cut short, an answer never looks whole.
#[tokio::test]
async fn short_bodies_do_not_look_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshortx\r\n0\r\n\r\n",
    ] {
        let origin = RawOrigin::answering(answer).await;
        let gateway = to(&origin.url());
        let got = raw::exchange(gateway.http(), CLOSE).await;
        let (head, body) = got.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?} → {got:?}"));
        let head = head.to_lowercase();
        let is_short = head.contains("content-length: 100") && body.len() < 100;
        let is_open = head.contains("transfer-encoding: chunked") && !body.ends_with("0\r\n\r\n");
        assert!(is_short || is_open || head.starts_with("http/1.1 502 "), "{answer:?} → {got}");
    }
}

/// What stands behind an answer is nobody's, and its connection carries no further request.
#[tokio::test]
async fn a_connection_with_unread_bytes_is_never_reused() {
    for (request, answer) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n"),
    ] {
        let origin = RawOrigin::start(move |mut stream, _| async move {
            loop {
                if read_head(&mut stream).await.is_empty() {
                    return;
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let gateway = to(&origin.url());
        for number in 1..=3 {
            let ask = format!("{request} /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let got = raw::exchange(gateway.http(), ask).await;
            assert!(!got.contains("evil") && !got.starts_with("HTTP/1.1 5"), "{answer:?} → {got}");
            assert_eq!(origin.connections(), number, "{answer:?}");
        }
    }
}

/// An answer before all of the request has come: the rest of that is no request.
#[tokio::test]
async fn a_premature_final_response_ends_the_connection() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        raw::closed(&mut stream).await;
    })
    .await;
    let gateway = to(&origin.url());
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let before = origin.connections();
        let mut stream = tokio::net::TcpStream::connect(gateway.http()).await.expect("it listens");
        let head = format!("POST /x HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        let told = read_head(&mut stream).await.to_lowercase();
        assert!(told.starts_with("http/1.1 403 "), "{told}");
        // In the place of the body's rest.
        let _ = stream.write_all(b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let rest = raw::read_until_close(&mut stream).await;
        assert!(rest.starts_with("no") && !rest.contains("HTTP/1.1"), "{rest}");
        assert_eq!(origin.connections(), before + 1, "{framing}");
    }
}

#[tokio::test]
async fn response_fields_that_connection_names_are_dropped() {
    let origin = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\nConnection: close, X-Hop, Content-Length, Set-Cookie\r\nX-Hop: evil\r\nKeep-Alive: evil\r\n\
         Proxy-Connection: evil\r\nProxy-Authenticate: evil\r\nUpgrade: evil\r\nTE: evil\r\nSet-Cookie: a=b\r\n\
         X-Other: kept\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let gateway = to(&origin.url());
    let got = raw::exchange(gateway.http(), CLOSE).await;
    assert!(!got.contains("evil"), "{got}");
    for kept in ["\r\nset-cookie: a=b\r\n", "\r\nx-other: kept\r\n", "\r\ncontent-length: 2\r\n"] {
        assert!(got.contains(kept), "{kept:?} in {got}");
    }
    assert!(got.ends_with("\r\n\r\nok"), "{got}");
}

/// A length that is not the body's would let the next answer begin in the middle of nowhere.
#[tokio::test]
async fn a_204_has_no_length() {
    let origin = RawOrigin::answering("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n").await;
    let gateway = to(&origin.url());
    let got = raw::exchange(gateway.http(), CLOSE).await.to_lowercase();
    assert!(got.starts_with("http/1.1 204 ") && !got.contains("content-length"), "{got}");
    let reply = Client::new(gateway.http()).http2().get("/x").await;
    assert!(reply.status == 204 && !reply.headers.contains_key("content-length"), "{:?}", reply.headers);
}

#[tokio::test]
async fn unusual_and_right_responses_pass() {
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 Sehr sch\u{f6}n\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\ncontent-length:2\r\nX:\r\nX: caf\u{e9}\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "ok"),
        ("HTTP/1.0 200 OK\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=\"y\"\r\nok\r\n0\r\nX: 1\r\n\r\n", "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0002  \r\nok\r\n000\r\n\r\n", "ok"),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
        ),
        ("HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    ] {
        let origin = RawOrigin::answering(answer).await;
        let gateway = to(&origin.url());
        let reply = Client::new(gateway.http()).get("/x").await;
        assert!((200..300).contains(&reply.status), "{answer:?} → {}", reply.status);
        assert_eq!(reply.text(), body, "{answer:?}");
    }
}
