//! One document out of many answers.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use tokio::io::AsyncWriteExt;
use tokio::sync::Barrier;

use crate::support::origin::Seen;
use crate::support::raw::{RawOrigin, read_until};
use crate::support::{Client, Gateway, Origin, Reply, eventually, origin};

mod bodies;
mod hostile;
mod joins;
mod kept;
mod known;
mod plan;
mod shape;
mod stream;
mod time;

/// The document, each entry of `_errors` without its time, which there must be.
fn without_times(reply: &Reply) -> String {
    let text = reply.text();
    let time = regex::Regex::new(r#","time_ms":[0-9]+"#).expect("a good pattern");
    assert_eq!(time.find_iter(&text).count(), text.matches("\"reason\":").count(), "{text}");
    time.replace_all(&text, "").into_owned()
}

/// A gateway whose route `/all/{id}` has these parts; all of them come from one service.
fn gateway(origin: &str, service: &str, timeout: &str, parts: &str) -> Gateway {
    Gateway::start(&format!(
        "services: {{ parts: {{ instances: [\"{origin}\"], {service} }} }}\n\
         routes:\n- name: all\n  match: {{ path: \"/all/{{id}}\" }}\n  aggregate:\n    timeout: {timeout}\n    \
         parts: {{ {parts} }}\n"
    ))
}

async fn slowly(milliseconds: u64, response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    response
}

/// Answers `/fast` at once, `/slow` after 300 ms, `/never` not at all, and `/<status>` with that.
async fn various() -> Origin {
    Origin::start_slow(|seen: Seen| async move {
        let path = seen.target.split('?').next().unwrap_or_default().to_owned();
        match path.as_str() {
            "/fast" => origin::json(r#"{"fast":1}"#),
            "/slow" => slowly(300, origin::json(r#"{"slow":2}"#)).await,
            "/never" => std::future::pending().await,
            "/html" => Response::new(Full::from("<html>")),
            "/large" => origin::json(format!("\"{}\"", "x".repeat(5000))),
            "/empty" => Response::new(Full::default()),
            "/gzip" => Response::builder()
                .header("content-encoding", "gzip")
                .body(Full::from(&b"\x1f\x8b\x08\0\0\0\0\0"[..]))
                .expect("constants"),
            status => origin::status(status[1..].parse().unwrap_or(404)),
        }
    })
    .await
}

#[tokio::test]
async fn parts_stand_as_written_whatever_comes_first() {
    // Nobody is answered before all have asked, and one of them sooner than the others.
    let all = Arc::new(Barrier::new(3));
    let origin = Origin::start_slow(move |seen: Seen| {
        let all = all.clone();
        async move {
            all.wait().await;
            match seen.target.as_str() {
                "/fast" => origin::json(r#"{"fast":1}"#),
                _ => slowly(20, origin::json(r#"{"slow":2}"#)).await,
            }
        }
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "60s",
        "zeta: { service: parts, path: /slow }, alpha: { service: parts, path: /fast }, \
         \"mid \\\"dle\\\"\": { service: parts, path: /slow }",
    );
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(reply.text(), r#"{"zeta":{"slow":2},"alpha":{"fast":1},"mid \"dle\"":{"slow":2}}"#);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_eq!(gateway.log_entry(|entry| entry["route"] == "all")["attempts"], 3);
}

#[tokio::test]
async fn parts_are_passed_on_byte_by_byte() {
    const ODD: &str =
        "{ \"b\" : 123456789012345678901234567890.10, \"a\":1e400 ,\n\"a\":[ ], \"\\u00e9\":\"é\" }";
    let origin = Origin::start(|_| origin::json(format!(" \r\n{ODD}\n"))).await;
    let gateway = gateway(&origin.url(), "", "10s", "odd: { service: parts, path: / }");
    assert_eq!(Client::new(gateway.http()).get("/all/1").await.text(), format!("{{\"odd\":{ODD}}}"));
}

#[tokio::test]
async fn a_required_part_decides_the_status() {
    for (path, status, code) in [
        ("/404", 404, "part_not_found"),
        ("/500", 502, "part_failed"),
        ("/403", 502, "part_failed"),
        ("/503", 502, "part_failed"),
        ("/302", 502, "part_failed"),
        ("/never", 504, "part_timeout"),
        ("/html", 502, "part_not_json"),
        ("/empty", 502, "part_not_json"),
        ("/gzip", 502, "part_not_json"),
        ("/large", 502, "part_too_large"),
    ] {
        let origin = various().await;
        let gateway = gateway(
            &origin.url(),
            "",
            "500ms",
            &format!(
                "ok: {{ service: parts, path: /fast }}, \
                      bad: {{ service: parts, path: {path}, required: true, max_body: 4KiB }}"
            ),
        );
        let reply = Client::new(gateway.http()).get("/all/1").await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}");
        assert!(reply.json()["detail"].as_str().is_some_and(|text| text.contains("bad")), "{}", reply.text());
    }
}

#[tokio::test]
async fn an_optional_part_leaves_its_fallback_and_an_entry() {
    let origin = various().await;
    let gateway = gateway(
        &origin.url(),
        "retries: { attempts: 0 }",
        "700ms",
        "a: { service: parts, path: /500, fallback: [] }, b: { service: parts, path: /404 }, \
         c: { service: parts, path: /never, fallback: { late: true } }, d: { service: parts, path: /fast }, \
         e: { service: parts, path: /html }, f: { service: parts, path: /204 }, \
         g: { service: parts, path: /large, max_body: 1KiB }",
    );
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(reply.status, 200);
    let text = without_times(&reply);
    let document =
        r#"{"a":[],"b":null,"c":{"late":true},"d":{"fast":1},"e":null,"f":null,"g":null,"_errors":"#;
    assert!(text.starts_with(document), "{text}");
    let errors: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(
        errors["_errors"],
        serde_json::json!([
            { "part": "a", "reason": "part_failed", "status": 500 },
            { "part": "b", "reason": "part_not_found", "status": 404 },
            { "part": "c", "reason": "response_timeout", "status": 504 },
            { "part": "e", "reason": "part_not_json", "status": 502 },
            { "part": "g", "reason": "part_too_large", "status": 502 },
        ])
    );
}

#[tokio::test]
async fn a_part_that_breaks_off_is_no_part() {
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"a\":1}").await;
    let gateway = gateway(&origin.url(), "", "10s", "a: { service: parts, path: / }");
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(
        without_times(&reply),
        r#"{"a":null,"_errors":[{"part":"a","reason":"upstream_reset","status":502}]}"#
    );
}

#[tokio::test]
async fn a_failed_required_part_ends_the_wait_and_cancels_the_rest() {
    let origin = various().await;
    let gateway = gateway(
        &origin.url(),
        "",
        "20s",
        "a: { service: parts, path: /never }, b: { service: parts, path: /404, required: true }",
    );
    let began = Instant::now();
    assert_eq!(Client::new(gateway.http()).get("/all/1").await.status, 404);
    assert!(began.elapsed() < Duration::from_secs(10));
    eventually("the other part is cancelled", || async { (origin.open_connections() <= 1).then_some(()) })
        .await;
    let instance = gateway.instance("parts", origin.address).await.expect("it is there");
    assert_eq!(instance["in_flight"], 0);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_every_part() {
    let origin = various().await;
    let gateway = gateway(
        &origin.url(),
        "",
        "20s",
        "a: { service: parts, path: /never }, b: { service: parts, path: /never }, c: { service: parts, path: /never }",
    );
    let mut client = tokio::net::TcpStream::connect(gateway.http()).await.expect("it listens");
    client.write_all(b"GET /all/1 HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
    eventually("all have come through", || async { (origin.count() == 3).then_some(()) }).await;
    drop(client);
    eventually("all are cancelled", || async { (origin.open_connections() == 0).then_some(()) }).await;
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/all/1")["reason"], "client_gone");
}

#[tokio::test]
async fn each_part_is_retried_and_each_breaker_counts() {
    let (busy, well) = (Origin::status(503).await, Origin::json("1").await);
    let gateway = Gateway::start(&format!(
        "services:\n  both: {{ instances: [\"{}\", \"{}\"], load_balancing: round_robin, \
         circuit_breaker: {{ consecutive_failures: 2, open_for: 60s }} }}\n  \
         ill: {{ instances: [\"{}\"], circuit_breaker: {{ consecutive_failures: 1, open_for: 60s }}, \
         retries: {{ attempts: 0 }} }}\n\
         routes: [{{ name: all, match: {{ path: /all }}, aggregate: {{ timeout: 10s, parts: {{ \
         a: {{ service: both, path: / }}, b: {{ service: both, path: / }}, c: {{ service: ill, path: / }} }} }} }}]\n",
        busy.url(),
        well.url(),
        busy.url()
    ));
    let client = Client::new(gateway.http());
    let first = client.get("/all").await.json();
    assert_eq!((&first["a"], &first["b"], &first["c"]), (&1.into(), &1.into(), &serde_json::Value::Null));
    assert_eq!(first["_errors"][0]["reason"], "part_failed");
    for _ in 0..4 {
        let next = client.get("/all").await;
        let next: serde_json::Value = serde_json::from_str(&without_times(&next)).expect("it is JSON");
        assert_eq!((&next["a"], &next["b"]), (&1.into(), &1.into()), "{next}");
        assert_eq!(
            next["_errors"],
            serde_json::json!([{ "part": "c", "reason": "circuit_open", "status": 503 }])
        );
    }
}

#[tokio::test]
async fn parameters_cannot_leave_their_place() {
    let origin = Origin::json("1").await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "a: { service: parts, path: \"/users/{id}/orders\" }, b: { service: parts, path: \"/find?user={id}&all=1\" }",
    );
    let client = Client::new(gateway.http());
    for (asked, path, query) in [
        ("42", "42", "42"),
        ("a%20b", "a%20b", "a%20b"),
        ("x%26all=0", "x&all=0", "x%26all%3D0"),
        ("x%3Fy", "x%3Fy", "x%3Fy"),
        ("x%23y", "x%23y", "x%23y"),
        ("%25", "%25", "%25"),
        ("a+b", "a+b", "a%2Bb"),
        ("%C3%A9", "%C3%A9", "%C3%A9"),
    ] {
        let before = origin.count();
        assert_eq!(client.get(&format!("/all/{asked}")).await.status, 200);
        let targets: Vec<String> = origin.seen().into_iter().skip(before).map(|seen| seen.target).collect();
        let decode = |text: &str| text.replace("%26", "&").replace("%3D", "=").replace("%2B", "+");
        let (in_path, in_query): (Vec<_>, Vec<_>) =
            targets.into_iter().partition(|target| target.starts_with("/users"));
        assert_eq!(decode(&in_path[0]), format!("/users/{}/orders", decode(path)), "{asked}");
        assert_eq!(in_query[0], format!("/find?user={query}&all=1"), "{asked}");
    }
    for refused in ["a%2Fb", "a%5Cb", "a%00b"] {
        assert_eq!(client.get(&format!("/all/{refused}")).await.code(), "invalid_path");
    }
}

#[tokio::test]
async fn parts_get_what_was_said_of_the_client_and_not_of_the_whole() {
    let origin = Origin::json("1").await;
    let gateway = gateway(&origin.url(), "", "10s", "a: { service: parts, path: /p }");
    let client = Client::new(gateway.http())
        .host("shop.example.com")
        .header("accept", "text/html")
        .header("accept-language", "de")
        .header("accept-encoding", "gzip, br")
        .header("authorization", "Basic eDp5")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("content-type", "text/plain")
        .header("expect", "100-continue")
        .header("if-none-match", "\"v1\"")
        .header("if-modified-since", "Wed, 21 Oct 2015 07:28:00 GMT")
        .header("range", "bytes=0-1")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("x-request-id", "mine-0001");
    let reply = client.send(Method::GET, "/all/1?a=b", "a body".into()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let part = origin.only();
    assert_eq!((part.method.as_str(), part.target.as_str()), ("GET", "/p"));
    assert!(part.body.is_empty());
    for gone in [
        "content-length",
        "content-type",
        "expect",
        "if-none-match",
        "if-modified-since",
        "range",
        "x-hop",
        "accept-encoding",
        "transfer-encoding",
    ] {
        assert_eq!(part.header(gone), None, "{gone}");
    }
    assert_eq!(part.header("accept"), Some("application/json"));
    assert_eq!(part.header("accept-language"), Some("de"));
    assert_eq!(part.header("authorization"), Some("Basic eDp5"));
    assert_eq!(part.header("host"), Some(origin.address.to_string().as_str()));
    assert_eq!(part.header("x-forwarded-host"), Some("shop.example.com"));
    assert_eq!(part.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(part.header("x-request-id"), reply.header("x-request-id"));
    let trace = part.header("traceparent").unwrap_or_default();
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{trace}");
}

#[tokio::test]
async fn a_head_request_is_answered_without_a_body() {
    let origin = Origin::json("[1]").await;
    let gateway = gateway(&origin.url(), "", "10s", "a: { service: parts, path: / }");
    for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
        let reply = client.send(Method::HEAD, "/all/1", Bytes::new()).await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(matches!(reply.header("content-length"), None | Some("9")), "{reply:?}");
        assert_eq!(client.get("/all/1").await.text(), r#"{"a":[1]}"#);
    }
    assert!(origin.seen().iter().all(|seen| seen.method == Method::GET));
}

#[tokio::test]
async fn twenty_parts() {
    let all = Arc::new(Barrier::new(20));
    let origin = Origin::start_slow(move |seen: Seen| {
        let all = all.clone();
        async move {
            all.wait().await;
            origin::json(format!("\"{}\"", seen.target))
        }
    })
    .await;
    let (mut parts, mut wanted) = (String::new(), String::new());
    for number in 0..20 {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(parts, "{comma} p{number}: {{ service: parts, path: /{number} }}");
        let _ = write!(wanted, "{comma}\"p{number}\":\"/{number}\"");
    }
    let gateway = gateway(&origin.url(), "", "60s", &parts);
    assert_eq!(Client::new(gateway.http()).get("/all/1").await.text(), format!("{{{wanted}}}"));
}

#[tokio::test]
async fn a_slow_body_counts_against_the_deadline() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n[1,").await;
        read_until(&mut stream, "never").await;
    })
    .await;
    let gateway = gateway(&origin.url(), "", "300ms", "a: { service: parts, path: / }");
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(
        without_times(&reply),
        r#"{"a":null,"_errors":[{"part":"a","reason":"part_timeout","status":504}]}"#
    );
}
