//! Requests that no well-behaved client sends. Each is answered with a reason where an answer is possible,
//! its connection ends, and nothing of it reaches a service.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Gateway, Origin, raw};

const LIMITS: &str = "listeners: [{ name: http, bind: \"127.0.0.1:0\", \
     limits: { max_header_bytes: 8KiB, max_headers: 20, max_uri_bytes: 1KiB } }]\n";

struct Place {
    origin: Origin,
    gateway: Gateway,
}

async fn place() -> Place {
    let origin = Origin::text("reached").await;
    let gateway = Gateway::start(&format!(
        "{LIMITS}services: {{ s: {{ instances: [\"{}\"] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}]\n\
         defaults: {{ response_headers: {{ set: {{ x-content-type-options: nosniff }} }} }}\n",
        origin.url()
    ));
    Place { origin, gateway }
}

impl Place {
    /// Sends the bytes; they must be answered with this status and code, and the connection closed.
    async fn refuses(&self, bytes: &[u8], status: u16, code: &str) {
        let told = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let answer = raw::exchange(self.gateway.http(), bytes).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{told:?} → {answer:?}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{told:?} → {answer}");
        let head = head.to_lowercase();
        for field in [
            "content-type: application/problem+json",
            "connection: close",
            "x-content-type-options: nosniff",
            &format!("content-length: {}", body.len()),
        ] {
            assert!(head.lines().any(|line| line == field), "{told:?} → no {field:?} in {answer}");
        }
        let problem: serde_json::Value =
            serde_json::from_str(body).expect("one JSON document and nothing more");
        assert_eq!(problem["code"], code, "{told:?}");
        let id = problem["request_id"].as_str().expect("it is identified");
        assert!(head.contains(&format!("x-request-id: {id}")), "{answer}");
        let entry = self.gateway.log_entry(|entry| entry["request_id"] == id);
        assert_eq!((&entry["status"], &entry["reason"]), (&status.into(), &code.into()), "{told:?}");
        assert_eq!(self.origin.count(), 0, "{told:?} was forwarded: {:?}", self.origin.seen());
    }

    async fn refuses_all(&self, heads: &[&str], code: &str) {
        for head in heads {
            self.refuses(head.as_bytes(), 400, code).await;
        }
    }
}

#[tokio::test]
async fn two_ways_to_tell_the_length_of_a_body_are_refused() {
    let place = place().await;
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chu\0nked",
        "Transfer-Encoding:\r\n chunked",
        "Content-Length: 6\r\nContent-Length: 6",
        "Content-Length: 6\r\nContent-Length: 5",
        "Content-Length: 6, 6",
        "Content-Length: 6, 5",
        "Content-Length: -1",
        "Content-Length: +6",
        "Content-Length: 0x6",
        "Content-Length: 6 ;",
        "Content-Length: 6a",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Content-Length: 18446744073709551615",
        "Content-Length : 6",
        "Content-Length\t: 6",
        " Content-Length: 6",
    ] {
        let request = format!(
            "POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        place.refuses(request.as_bytes(), 400, "invalid_request").await;
    }
    place
        .refuses_all(
            &["POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
            "invalid_request",
        )
        .await;
}

#[tokio::test]
async fn a_malformed_chunked_body_is_refused() {
    let place = place().await;
    for body in [
        "x\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3;\0\r\nabc\r\n0\r\n\r\n",
        "0\r\n x: folded\r\n\r\n",
        "0\r\nx: 1\n\r\n",
        &format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000)),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        place.refuses(request.as_bytes(), 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn lines_end_with_cr_lf_and_nothing_else() {
    let place = place().await;
    place
        .refuses_all(
            &[
                "GET / HTTP/1.1\nHost: a\n\n",
                "GET / HTTP/1.1\r\nHost: a\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n",
                "GET / HTTP/1.1\rHost: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfolded\r\n\r\n",
                "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n\n",
            ],
            "invalid_request",
        )
        .await;
}

#[tokio::test]
async fn names_and_values_of_fields_have_no_odd_bytes() {
    let place = place().await;
    for field in [
        "X: a\0b",
        "X: a\x01b",
        "X: a\x7fb",
        "X: \x1b[31m",
        "X\0: a",
        "X Y: a",
        "X : a",
        "X\t: a",
        ": a",
        "X",
        "X;: a",
        "(X): a",
        "X\u{e9}: a",
        "\"X\": a",
        "X{}: a",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        place.refuses(request.as_bytes(), 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn a_request_line_has_a_method_a_target_and_a_version_of_http_1() {
    let place = place().await;
    place
        .refuses_all(
            &[
                "GET /\r\n",
                "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
                "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
                "GET / HTTP/1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
                "GET / http/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
                "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
                " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /#top HTTP/1.1\r\nHost: a\r\n\r\n",
                "get / HTTP/1.1\r\nHost: a\r\n\r\n",
                "Get / HTTP/1.1\r\nHost: a\r\n\r\n",
                "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
                "/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
                "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
            ],
            "invalid_request",
        )
        .await;
    place.refuses(b"GET * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400, "invalid_path").await;
    place
        .refuses(b"TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405, "method_not_allowed")
        .await;
    place
        .refuses(
            b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n",
            405,
            "method_not_allowed",
        )
        .await;
}

#[tokio::test]
async fn there_is_one_host_and_the_target_agrees_with_it() {
    let place = place().await;
    for head in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n",
        "GET / HTTP/1.1\r\nHost: a,b\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n",
        "GET / HTTP/1.1\r\nHost: a:port\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n",
        "GET / HTTP/1.1\r\nHost: ..\r\n",
        "GET / HTTP/1.1\r\nHost: \u{fc}ber\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n",
        "GET http://user@a/ HTTP/1.1\r\nHost: user@a\r\n",
    ] {
        place.refuses(format!("{head}\r\n").as_bytes(), 400, "invalid_host").await;
    }
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused_without_waiting_for_their_end() {
    let place = place().await;
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: 1\r\n".repeat(30));
    place.refuses(many.as_bytes(), 431, "headers_too_large").await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "1".repeat(9000));
    place.refuses(long.as_bytes(), 431, "headers_too_large").await;
    // More than the connection's buffers hold at once.
    let longer = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "1".repeat(900_000));
    place.refuses(longer.as_bytes(), 431, "headers_too_large").await;
    place.refuses(format!("GET /{}", "a".repeat(2000)).as_bytes(), 414, "uri_too_long").await;
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1024));
    place.refuses(target.as_bytes(), 414, "uri_too_long").await;
}

#[tokio::test]
async fn what_is_unusual_and_right_is_served() {
    let place = place().await;
    for (number, request) in [
        "\r\n\r\nGET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost:a\r\nConnection:close\r\nX-Empty:\r\nX:\t \t1 \t\r\n\r\n",
        "GET http://a/ok HTTP/1.1\r\nHost: A\r\nConnection: close\r\n\r\n",
        "GET HTTP://a/ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "M-SEARCH /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\nConnection: close\r\n\r\n1;a=\"b\"\r\nx\r\n0\r\n\r\n",
        "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 0001\r\nConnection: close\r\n\r\nx",
        "GET /ok HTTP/1.0\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: a\r\nX: caf\u{e9}\r\nConnection: close\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let answer = raw::exchange(place.gateway.http(), request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") || answer.starts_with("HTTP/1.0 200 OK\r\n"), "{request:?} → {answer}");
        assert_eq!(place.origin.count(), number + 1, "{request:?}");
        assert_eq!(place.origin.seen()[number].target, "/ok");
    }
}

#[tokio::test]
async fn a_bad_request_behind_a_good_one_is_answered_after_it() {
    let place = place().await;
    for bad in
        ["GET / HTTP/3.0\r\n\r\n", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", "get / HTTP/1.1\r\nHost: a\r\n\r\n"]
    {
        let before = place.origin.count();
        let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = raw::exchange(place.gateway.http(), format!("{good}{bad}{good}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("reached").count(), 1, "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 4").count(), 1, "{answer}");
        assert!(answer.contains("reachedHTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("\"code\":\"invalid_request\""), "{answer}");
        assert_eq!(place.origin.count(), before + 1);
    }
}

#[tokio::test]
async fn it_makes_no_difference_how_the_bytes_are_cut() {
    let place = place().await;
    let request = "POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n\
                   GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(place.gateway.http()).await.expect("it listens");
    stream.set_nodelay(true).expect("a plain option");
    for byte in request.as_bytes() {
        stream.write_all(&[*byte]).await.expect("it reads");
        tokio::task::yield_now().await;
    }
    let answer = raw::read_until_close(&mut stream).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
    let seen = place.origin.seen();
    assert_eq!((seen[0].target.as_str(), &seen[0].body[..]), ("/cut", &b"hello world"[..]));
    assert_eq!(seen[1].target, "/next");
}
