//! Streams and connections that fail, and what is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::{Method, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::to;
use crate::support::h2_origin::{Asked, H2Origin};
use crate::support::raw::RawOrigin;
use crate::support::tls_origin::{Authority, TlsOrigin, replace, server};
use crate::support::{Client, Gateway, Origin, PATIENCE, eventually, one_service};

const ONCE: &str = "retries: { attempts: 0 }";

#[tokio::test]
async fn what_was_refused_is_sent_again_whatever_it_is() {
    let count = Arc::new(AtomicUsize::new(0));
    let origin = H2Origin::start(Builder::new(), move |mut asked: Asked| {
        let number = count.fetch_add(1, SeqCst);
        async move {
            if number == 0 {
                asked.respond.send_reset(Reason::REFUSED_STREAM);
                return;
            }
            let (body, _) = asked.read().await;
            asked.answer(body).await;
        }
    })
    .await;
    let gateway = to(&[origin.url()], "");
    let reply = Client::new(gateway.http()).post("/", "order").await;
    assert_eq!((reply.status, &reply.text()[..]), (200, "order"));
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_stream_that_is_reset_is_a_reset() {
    let origin = H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        asked.respond.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let gateway = to(&[origin.url()], "");
    // It may have done something.
    let reply = Client::new(gateway.http()).post("/", "order").await;
    assert_eq!((reply.status, &reply.code()[..]), (502, "upstream_reset"));
    assert_eq!(origin.seen().len(), 1);
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!(reply.code(), "upstream_reset");
    assert!(origin.seen().len() > 2, "a GET is tried again");
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off() {
    let origin = H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        let head = Response::builder().header("content-length", "100").body(()).expect("constants");
        let Ok(mut stream) = asked.respond.send_response(head, false) else { return };
        let _ = stream.send_data(Bytes::from_static(b"a part"), false);
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let gateway = to(&[origin.url()], ONCE);
    let reply = Client::new(gateway.http()).try_send(Method::GET, "/", Bytes::new()).await;
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.code() == "upstream_reset"));
    let entry = gateway.log_entry(|entry| entry["reason"] == "upstream_reset");
    assert_eq!(entry["path"], "/");
}

#[tokio::test]
async fn a_connection_that_breaks_takes_its_requests_and_others_go_on() {
    let hold = Arc::new(Notify::new());
    let gate = hold.clone();
    let origin = H2Origin::start(Builder::new(), move |asked: Asked| {
        let gate = gate.clone();
        async move {
            if asked.head.uri.path() == "/held" {
                gate.notified().await;
            }
            asked.answer("well").await;
        }
    })
    .await;
    let gateway = to(&[origin.url()], "");
    let client = Client::new(gateway.http());
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.post("/held", "order").await })
    };
    eventually("it is with the instance", || async { (origin.seen().len() == 1).then_some(()) }).await;
    origin.reset_connections();
    assert_eq!(waiting.await.expect("no panic").code(), "upstream_reset");
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "well");
    }
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_stream_and_no_other() {
    let (told, mut reset) = tokio::sync::mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let origin = H2Origin::start(Builder::new(), move |mut asked: Asked| {
        let (told, gate) = (told.clone(), gate.clone());
        async move {
            if asked.head.uri.path() == "/leaves" {
                let why = std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await;
                let _ = told.send(why.ok());
                return;
            }
            gate.notified().await;
            asked.answer("well").await;
        }
    })
    .await;
    let gateway = to(&[origin.url()], "");
    let client = Client::new(gateway.http());
    let stays = tokio::spawn(async move { client.get("/stays").await });
    let mut leaves = TcpStream::connect(gateway.http()).await.expect("it listens");
    leaves.write_all(b"GET /leaves HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
    eventually("both are with the instance", || async { (origin.seen().len() == 2).then_some(()) }).await;
    drop(leaves);
    let why = tokio::time::timeout(PATIENCE, reset.recv()).await.expect("it is told");
    assert_eq!(why, Some(Some(Reason::CANCEL)));
    go.notify_one();
    assert_eq!(stays.await.expect("no panic").text(), "well");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn who_does_not_speak_http2_is_found_out() {
    let plain = Origin::text("well").await;
    let gateway = to(&[plain.url()], ONCE);
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!(reply.status, 502, "{reply:?}");
    assert_eq!(plain.count(), 0);
    let closing = RawOrigin::start(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        drop(stream);
    })
    .await;
    let gateway = to(&[closing.url()], ONCE);
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, &reply.code()[..]), (502, "upstream_reset"));
}

#[tokio::test]
async fn an_instance_that_says_nothing_is_timed_out_and_another_answers() {
    let end = Arc::new(Notify::new());
    let until = end.clone();
    let silent = RawOrigin::start(move |mut stream, _| {
        let until = until.clone();
        async move {
            let _ = stream.read(&mut [0; 1024]).await;
            until.notified().await;
        }
    })
    .await;
    let gateway = to(&[silent.url()], &format!("{ONCE}, timeouts: {{ response: 200ms }}"));
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, &reply.code()[..]), (504, "response_timeout"));
    drop(gateway);
    let good = H2Origin::text("well").await;
    let settings = "retries: { per_attempt_timeout: 1500ms }, \
                    circuit_breaker: { consecutive_failures: 1, open_for: 10m, max_open_for: 10m }";
    let gateway = to(&[silent.url(), good.url()], settings);
    for _ in 0..4 {
        assert_eq!(Client::new(gateway.http()).get("/").await.text(), "well");
    }
}

#[tokio::test]
async fn an_instance_that_is_gone_is_a_failure_to_connect() {
    let origin = H2Origin::text("well").await;
    let url = origin.url();
    drop(origin);
    let gateway = to(&[url], ONCE);
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, &reply.code()[..]), (502, "connect_failure"));
}

#[tokio::test]
async fn a_client_certificate_that_is_missing_is_told_as_over_http1() {
    let authority = Authority::new("ca");
    let config = server(&authority.issue(&["127.0.0.1"]), Some(&Authority::new("clients")), &["h2"]);
    let origin = H2Origin::secure(config, |asked: Asked| asked.answer("well")).await;
    let directory = tempfile::tempdir().expect("a directory");
    replace(directory.path(), "ca.crt", &authority.pem);
    let service = one_service(&[origin.url()], &format!("protocol: h2, tls: {{ trust: ca.crt }}, {ONCE}"));
    let gateway = Gateway::start_in(directory, &format!("workers: 1\n{service}"), &[]);
    let reply = Client::new(gateway.http()).post("/", "order").await;
    assert_eq!((reply.status, &reply.code()[..]), (502, "tls_failure"));
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn who_does_not_agree_on_http2_over_tls_is_told() {
    let authority = Authority::new("ca");
    for (alpn, why) in [(&["http/1.1"][..], "NoApplicationProtocol"), (&[], "does not speak HTTP/2")] {
        let origin = TlsOrigin::text(server(&authority.issue(&["127.0.0.1"]), None, alpn), "well").await;
        let directory = tempfile::tempdir().expect("a directory");
        replace(directory.path(), "ca.crt", &authority.pem);
        let service =
            one_service(&[origin.url()], &format!("protocol: h2, tls: {{ trust: ca.crt }}, {ONCE}"));
        let gateway = Gateway::start_in(directory, &format!("workers: 1\n{service}"), &[]);
        assert_eq!(Client::new(gateway.http()).get("/").await.code(), "tls_failure");
        gateway.wait_for(why);
    }
}

/// As many fields as over HTTP/1.1, and a length that has one meaning behind the gateway as well.
#[tokio::test]
async fn heads_that_nobody_could_pass_on_are_unusable() {
    let origin = H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        let mut head = Response::builder();
        match asked.head.uri.path() {
            "/many" => {
                for number in 0..300 {
                    head = head.header(format!("x-{number}"), "1");
                }
            }
            "/most" => {
                for number in 0..80 {
                    head = head.header(format!("x-{number}"), "1");
                }
            }
            "/twice" => head = head.header("content-length", "0").header("content-length", "5"),
            "/alike" => head = head.header("content-length", "0").header("content-length", "0"),
            "/signed" => head = head.header("content-length", "+0"),
            _ => head = head.header("content-length", "0"),
        }
        let _ = asked.respond.send_response(head.body(()).expect("constants"), true);
    })
    .await;
    let gateway = to(&[origin.url()], ONCE);
    for path in ["/many", "/twice", "/alike", "/signed"] {
        assert_eq!(Client::new(gateway.http()).get(path).await.status, 502, "{path}");
    }
    for path in ["/most", "/plain"] {
        assert_eq!(Client::new(gateway.http()).get(path).await.status, 200, "{path}");
    }
}
