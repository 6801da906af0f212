//! Instances in HTTP/2: how requests share connections, and that everything else is as over HTTP/1.1.

mod bodies;
mod connections;
mod failures;
mod grpc;
mod held_back;

use h2::server::Builder;
use http::Response;

use crate::support::h2_origin::{Asked, H2Origin};
use crate::support::tls_origin::{Authority, TlsOrigin, replace, server};
use crate::support::{Client, Gateway, Origin, eventually, one_service, raw};

/// A gateway of one worker in front of `users`, which is spoken to in HTTP/2.
fn to(instances: &[String], settings: &str) -> Gateway {
    Gateway::start(&format!("workers: 1\n{}", one_service(instances, &format!("protocol: h2, {settings}"))))
}

#[tokio::test]
async fn heads_are_those_of_http2() {
    let origin = H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        asked.read().await;
        let head = Response::builder().status(201).header("x-from", "origin");
        let _ = asked.respond.send_response(head.body(()).expect("constants"), true);
    })
    .await;
    let gateway = to(&[origin.url()], "");
    for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
        let client = client.host("shop.example").header("x-a", "1").header("cookie", "a=1; b=2");
        let reply = client.post("/users?id=1", "body").await;
        assert_eq!((reply.status, reply.header("x-from")), (201, Some("origin")));
        assert_eq!(reply.header("content-length"), Some("0"));
    }
    let seen = origin.seen();
    for seen in &seen {
        assert_eq!((seen.method().as_str(), seen.uri().path()), ("POST", "/users"));
        assert_eq!(seen.uri().query(), Some("id=1"));
        assert_eq!(seen.uri().scheme_str(), Some("http"));
        assert_eq!(seen.uri().authority().map(|authority| authority.as_str()), Some("shop.example"));
        let field = |name: &str| seen.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!((field("x-a"), field("cookie")), (Some("1"), Some("a=1; b=2")));
        assert_eq!(field("content-length"), Some("4"));
        assert!(field("via").is_some() && field("x-forwarded-for").is_some());
        for name in ["host", "connection", "te", "transfer-encoding", "upgrade", "keep-alive"] {
            assert_eq!(field(name), None, "{name}");
        }
    }
    assert_eq!((seen.len(), origin.connections()), (2, 1));
}

#[tokio::test]
async fn interim_responses_are_passed_on() {
    let origin = H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        let hints = Response::builder().status(103).header("link", "</a.css>").body(()).expect("constants");
        let _ = asked.respond.send_informational(hints);
        asked.answer("well").await;
    })
    .await;
    let gateway = to(&[origin.url()], "");
    let answer =
        raw::exchange(gateway.http(), "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let (interim, rest) = answer.split_once("\r\n\r\n").expect("two heads");
    assert!(interim.starts_with("HTTP/1.1 103 ") && interim.contains("</a.css>"), "{answer}");
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.contains("\r\nwell\r\n"), "{answer}");
}

#[tokio::test]
async fn head_and_not_modified_have_no_body() {
    let origin = H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        let status = if asked.head.method == "HEAD" { 200 } else { 304 };
        let head = Response::builder().status(status).header("content-length", "1000");
        let _ = asked.respond.send_response(head.body(()).expect("constants"), true);
    })
    .await;
    let gateway = to(&[origin.url()], "");
    for (method, status, length) in [("HEAD", 200, true), ("GET", 304, false)] {
        let asked = format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = raw::exchange(gateway.http(), asked).await.to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
        assert_eq!(answer.contains("\r\ncontent-length: 1000\r\n"), length, "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn auto_is_what_the_instance_prefers() {
    let authority = Authority::new("ca");
    let shown = || authority.issue(&["127.0.0.1"]);
    let second =
        H2Origin::secure(server(&shown(), None, &["h2", "http/1.1"]), |asked: Asked| asked.answer("two"))
            .await;
    let first = TlsOrigin::text(server(&shown(), None, &["http/1.1"]), "one").await;
    let silent = TlsOrigin::text(server(&shown(), None, &[]), "one").await;
    for (url, answer) in [(second.url(), "two"), (first.url(), "one"), (silent.url(), "one")] {
        let directory = tempfile::tempdir().expect("a directory");
        replace(directory.path(), "ca.crt", &authority.pem);
        let service =
            one_service(&[url], "protocol: auto, tls: { trust: ca.crt }, health_check: { path: /well }");
        let gateway = Gateway::start_in(directory, &format!("workers: 1\n{service}"), &[]);
        for _ in 0..5 {
            assert_eq!(Client::new(gateway.http()).get("/").await.text(), answer);
        }
        eventually("it is well", || async {
            (gateway.service("users").await["instances"][0]["health"] == "healthy").then_some(())
        })
        .await;
    }
    // Requests, one of a check at least, and for all of the former a single connection.
    let requests = second.seen().iter().filter(|seen| seen.uri().path() == "/").count();
    assert_eq!(requests, 5);
    assert_eq!(second.seen()[0].uri().scheme_str(), Some("https"));
    let plain = Origin::text("plain").await;
    let gateway = Gateway::start(&one_service(&[plain.url()], "protocol: auto"));
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "plain");
}

#[tokio::test]
async fn checks_are_spoken_in_http2_too() {
    let origin = H2Origin::text("well").await;
    let check = "health_check: { path: /health, interval: 100ms, expect_body: well }";
    let gateway = to(&[origin.url()], check);
    eventually("it is well", || async {
        (gateway.service("users").await["instances"][0]["health"] == "healthy").then_some(())
    })
    .await;
    assert_eq!(origin.seen()[0].uri().path(), "/health");
}
