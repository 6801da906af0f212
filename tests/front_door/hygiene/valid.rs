//! What is unusual and right: none of it is refused, and it arrives as it was meant.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::place;
use crate::support::raw;

fn post(fields: &str, body: &str) -> String {
    format!("POST /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n\r\n{body}")
}

#[tokio::test]
async fn unusual_request_lines_pass() {
    let place = place().await;
    for method in [
        "PATCH",
        "PURGE",
        "M-SEARCH",
        "PROPFIND",
        "VERSION-CONTROL",
        "X",
        "x",
        "Custom",
        "A!#$%&'*+-.^_`|~",
        "GET",
    ] {
        let seen =
            place.passes(format!("{method} /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/ok"));
    }
    for before in ["\r\n", "\r\n\r\n"] {
        let seen =
            place.passes(format!("{before}GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(seen.target, "/ok");
    }
    let answer =
        raw::exchange(place.gateway.http(), "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
}

#[tokio::test]
async fn unusual_targets_pass() {
    let place = place().await;
    let long = format!("/{}", "a".repeat(1000));
    for target in [
        "/",
        "/a;b=c;d/e",
        "/%E2%82%AC/%F0%9F%98%80",
        "/%C3%BC",
        "/%E9",
        "/a:b@c!$&'()*+,;=",
        "/~a/.b/...",
        "/a/",
        "/a?",
        "/?a=b&c=d&&=",
        "/?a=%2F..%00%0d",
        "/?{}|\\^[]",
        "/?a?b/c",
        "/a+b%20c",
        "/a%3Bb",
        "/-",
        &long,
    ] {
        let seen =
            place.passes(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(seen.target, target);
    }
}

#[tokio::test]
async fn unusual_hosts_pass() {
    let place = place().await;
    for host in [
        "a",
        "A.Example",
        "a.example.",
        "a:80",
        "a:",
        "a:65535",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:8080",
        "[2001:DB8::1]",
        "my_service",
        "xn--bcher-kva.example",
        "1",
        "a-b.c-d",
    ] {
        let seen =
            place.passes(format!("GET /ok HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(seen.all("host"), [host]);
    }
    for request in ["GET /ok HTTP/1.0\r\n\r\n", "GET /ok HTTP/1.0\r\nHost: a\r\n\r\n"] {
        assert_eq!(place.passes(request).await.all("host").len(), 1);
    }
}

#[tokio::test]
async fn unusual_fields_pass() {
    let place = place().await;
    for (field, value) in [
        ("X-Empty:", ""),
        ("X-Empty: \t ", ""),
        ("X:1", "1"),
        ("X:\t \t1 \t", "1"),
        ("X: a\tb  c", "a\tb  c"),
        ("X: caf\u{e9}", "caf\u{e9}"),
        ("X: \u{1f600}", "\u{1f600}"),
        ("X: \"a, b\"; c=d: e", "\"a, b\"; c=d: e"),
        ("X: :", ":"),
        ("!#$%&'*+-.^_`|~09aZ: 1", "1"),
        ("Content-Type: text/plain; charset=\"utf-8\"", "text/plain; charset=\"utf-8\""),
        ("Range: bytes=0-0,-1", "bytes=0-0,-1"),
        ("If-None-Match: W/\"x\", \"\"", "W/\"x\", \"\""),
        ("Accept:", ""),
        ("Cookie: a=b; c=\"d\"; e", "a=b; c=\"d\"; e"),
    ] {
        let seen = place.passes_with(&format!("{field}\r\n")).await;
        let name = field.split(':').next().expect("a name");
        assert_eq!(seen.all(name), [value], "{field:?}");
    }
    let latin = [&b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: caf\xe9\r\n\r\n"[..]].concat();
    let seen = place.passes(latin).await;
    assert!(seen.fields.iter().any(|(name, value)| name == "x" && value == b"caf\xe9"));
    let long = "v".repeat(7500);
    assert_eq!(place.passes_with(&format!("X: {long}\r\n")).await.all("x"), [long]);
    let cookies = "Cookie: a=b\r\n".repeat(15);
    assert_eq!(place.passes_with(&cookies).await.all("cookie").len(), 15);
    let repeated = place.passes_with("X: 1\r\nx: 2\r\nX: \r\n").await;
    assert_eq!(repeated.all("x"), ["1", "2", ""]);
}

#[tokio::test]
async fn unusual_bodies_pass() {
    let place = place().await;
    let zeros = format!("{}5\r\nhello\r\n{}\r\n\r\n", "0".repeat(14), "0".repeat(15));
    for (fields, body, content) in [
        ("Content-Length: 5", "hello", "hello"),
        ("Content-Length: 0", "", ""),
        ("Transfer-Encoding: CHUNKED", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("transfer-encoding:\tchunked\t", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "0\r\n\r\n", ""),
        ("Transfer-Encoding: chunked", "0;last\r\n\r\n", ""),
        ("Transfer-Encoding: chunked", "5;a\r\nhello\r\n0\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "5;a=b;c=\"d;e\"\r\nhello\r\n0;x\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "5; a = b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "5 ;a\r\nhello\r\n0\t ;b=\"\\\"\"\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "5;a;b;c=d\r\nhello\r\n00000;e\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 7\r\nY:\r\n\r\n", "hello"),
        (
            "Transfer-Encoding: chunked",
            "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
            "01234567890123456789",
        ),
        ("Transfer-Encoding: chunked", &zeros, "hello"),
        ("Expect: 100-continue\r\nContent-Length: 5", "hello", "hello"),
        (
            "Trailer: X-Sum\r\nTE: trailers\r\nTransfer-Encoding: chunked",
            "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            "hello",
        ),
    ] {
        let seen = place.passes(post(fields, body)).await;
        assert_eq!(String::from_utf8_lossy(&seen.body), content, "{fields:?}");
    }
    // A GET may have one, and a POST need not.
    let seen = place
        .passes("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    assert_eq!(&seen.body[..], b"hello");
    assert!(place.passes(post("X: 1", "")).await.body.is_empty());
}

#[tokio::test]
async fn unusual_connections_are_kept() {
    let place = place().await;
    // HTTP/1.0 may keep a connection, and the second request of a connection may be pipelined.
    let first = "GET /1 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
    let answer = raw::exchange(place.gateway.http(), format!("{first}GET /2 HTTP/1.0\r\n\r\n")).await;
    assert_eq!(answer.matches("HTTP/1.0 200 OK\r\n").count(), 2, "{answer}");
    let many = "GET /many HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
    let last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n";
    let answer = raw::exchange(place.gateway.http(), format!("{many}{last}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 51, "{answer}");
    // An empty line behind a body, as old clients sent it.
    let answer = raw::exchange(
        place.gateway.http(),
        format!("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\n{last}"),
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
    assert_eq!(place.origin.last().target, "/last");
    // The last request, by a client that has no more to say.
    let mut stream = TcpStream::connect(place.gateway.http()).await.expect("it listens");
    stream.write_all(b"HEAD /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("it reads");
    let answer = raw::read_until_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

/// All methods but those that are refused may have a body, and none need have one.
#[tokio::test]
async fn unusual_bodies_of_methods_pass() {
    let place = place().await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PROPFIND"] {
        for (framing, body, content) in [
            ("Content-Length: 5", "hello", "hello"),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("Content-Length: 0", "", ""),
            ("X: 1", "", ""),
        ] {
            let seen = place
                .passes(format!(
                    "{method} /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n{body}"
                ))
                .await;
            assert_eq!((&seen.method[..], &seen.body[..]), (method, content.as_bytes()), "{framing}");
        }
    }
}

/// Fields that look like others, and options of a connection that nobody knows.
#[tokio::test]
async fn unusual_fields_of_a_hop_pass() {
    let place = place().await;
    for fields in [
        "Connection: foo\r\nFoo: 1\r\n",
        "Connection: , ,foo,\r\n",
        "Connection:\r\n",
        "Connection: keep-alive, Keep-Alive\r\nKeep-Alive: timeout=5, max=100\r\n",
        "TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n",
        "Upgrade: foo/2\r\n",
        "Max-Forwards: x\r\n",
        "Trailer: X-Sum\r\n",
        "Via: 1.0 fred, 1.1 p.example.net (Apache/1.1)\r\n",
        "Date: yesterday\r\n",
        "Content-Encoding: gzip, x\r\n",
        "Content-Type: \r\n",
        "Content-Lengthy: 5\r\n",
        "Accept-Encoding: *;q=0\r\n",
        "Authorization: Unknown a=b, c=\"d\"\r\n",
        "Sec-WebSocket-Key: x\r\n",
        "Early-Data: 1\r\n",
        "Priority: u=1, i\r\n",
    ] {
        let seen = place.passes_with(&format!("{fields}X-Last: 1\r\n")).await;
        assert!(seen.has("x-last") && !seen.has("foo"), "{fields:?} → {}", seen.head);
    }
}
