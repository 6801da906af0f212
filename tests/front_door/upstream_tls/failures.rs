//! No agreement on TLS: what the client hears, what the operator hears, and who answers instead.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::{TRUST, in_front_of, trusting, usual};
use crate::support::raw::RawOrigin;
use crate::support::tls_origin::{Authority, Good, TlsOrigin, server};
use crate::support::{Client, Gateway, Reply, eventually};

const ONCE: &str = "retries: { attempts: 0 }";

/// What the operator is told of the only instance.
async fn told(gateway: &Gateway) -> String {
    eventually("the failure is shown", || async {
        gateway.service("users").await["instances"][0]["tls_failure"].as_str().map(str::to_owned)
    })
    .await
}

fn says_nothing_more(reply: &Reply) {
    let text = reply.text().to_lowercase();
    for word in ["certificate", "issuer", "alert", "127.0.0.1", "users.internal"] {
        assert!(!text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted_serves_nobody() {
    let authority = Authority::new("ca");
    let stranger = Authority::new("stranger");
    for (shown, why) in [
        (stranger.issue(&["users.internal"]), "UnknownIssuer"),
        (authority.issue(&["orders.internal"]), "not valid for name \"users.internal\""),
        (authority.issue_for(&["users.internal"], Good::NoLonger), "certificate expired"),
    ] {
        let origin = TlsOrigin::text(server(&shown, None, &[]), "secret").await;
        let gateway = in_front_of(trusting(&authority), &[origin.url()], &format!("{TRUST}, {ONCE}"));
        let reply = Client::new(gateway.http()).get("/").await;
        assert_eq!((reply.status, &reply.code()[..]), (502, "tls_failure"));
        assert!(reply.header("proxy-status").is_some_and(|status| status.contains("tls_protocol_error")));
        says_nothing_more(&reply);
        let told = told(&gateway).await;
        assert!(told.contains(why), "{told}");
        gateway.wait_for(why);
        assert!(origin.seen().is_empty());
        let counted =
            gateway.metric("gatehouse_upstream_requests_total", &["outcome=\"tls_certificate\""]).await;
        assert_eq!(counted, 1.0);
    }
}

#[tokio::test]
async fn another_instance_answers_whatever_the_method() {
    let authority = Authority::new("ca");
    let good = TlsOrigin::text(server(&usual(&authority), None, &[]), "well").await;
    let bad =
        TlsOrigin::text(server(&Authority::new("x").issue(&["users.internal"]), None, &[]), "bad").await;
    let instances = [bad.url(), good.url()];
    let gateway = in_front_of(trusting(&authority), &instances, TRUST);
    let client = Client::new(gateway.http());
    for _ in 0..10 {
        // Nothing of it was sent, so that what can't be repeated can be.
        assert_eq!(client.post("/", "order").await.text(), "well");
        assert_eq!(client.get("/").await.text(), "well");
    }
    assert_eq!(bad.seen().len(), 0);
    eventually("others are preferred", || async {
        let shown = gateway.instance("users", bad.address).await?;
        (shown["passed_over"] == "unreachable").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_instance_is_taken_up_again_once_it_is_trusted() {
    let authority = Authority::new("ca");
    let origin =
        TlsOrigin::text(server(&Authority::new("x").issue(&["users.internal"]), None, &[]), "well").await;
    let breaker = "circuit_breaker: { consecutive_failures: 1, open_for: 10m, max_open_for: 10m }";
    let gateway = in_front_of(trusting(&authority), &[origin.url()], &format!("{TRUST}, {ONCE}, {breaker}"));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.code(), "tls_failure");
    eventually("it counts as a connect_failure", || async {
        (client.get("/").await.code() == "circuit_open").then_some(())
    })
    .await;
    origin.set_config(server(&usual(&authority), None, &[]));
    eventually("it is taken up", || async { (client.get("/").await.status == 200).then_some(()) }).await;
    eventually("nothing is wrong any more", || async {
        gateway.service("users").await["instances"][0]["tls_failure"].is_null().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_certificate_that_is_wanted_and_missing_is_told() {
    let authority = Authority::new("ca");
    let origin =
        TlsOrigin::text(server(&usual(&authority), Some(&Authority::new("clients")), &[]), "well").await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], &format!("{TRUST}, {ONCE}"));
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, &reply.code()[..]), (502, "tls_failure"));
    says_nothing_more(&reply);
    let told = told(&gateway).await;
    assert!(told.contains("it wants a client certificate"), "{told}");
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_client_certificate_that_is_not_accepted_is_told() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let origin = TlsOrigin::text(server(&usual(&authority), Some(&clients), &[]), "well").await;
    let directory = trusting(&authority);
    Authority::new("other").issue(&["gateway.internal"]).write(directory.path(), "gateway");
    let tls = "tls: { trust: ca.crt, server_name: users.internal, certificate: gateway.crt, private_key: gateway.key }";
    let gateway = in_front_of(directory, &[origin.url()], &format!("{tls}, {ONCE}"));
    let reply = Client::new(gateway.http()).post("/", "order").await;
    assert_eq!((reply.status, &reply.code()[..]), (502, "tls_failure"));
    let told = told(&gateway).await;
    assert!(told.contains("refused the TLS handshake with the alert"), "{told}");
}

/// Accepts, and never says anything.
async fn silent() -> (RawOrigin, Arc<Notify>) {
    let end = Arc::new(Notify::new());
    let until = end.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let until = until.clone();
        async move {
            let _ = stream.read(&mut [0; 16]).await;
            until.notified().await;
        }
    })
    .await;
    (origin, end)
}

#[tokio::test]
async fn a_handshake_that_does_not_end_has_its_own_limit() {
    let authority = Authority::new("ca");
    let (hanging, _end) = silent().await;
    let url = hanging.url().replace("http:", "https:");
    let limits = "timeouts: { connect: 15s, tls: 200ms, response: 60s }";
    let gateway =
        in_front_of(trusting(&authority), std::slice::from_ref(&url), &format!("{TRUST}, {ONCE}, {limits}"));
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, &reply.code()[..]), (504, "tls_timeout"));
    assert!(told(&gateway).await.contains("did not end the TLS handshake in time"));
    drop(gateway);

    let good = TlsOrigin::text(server(&usual(&authority), None, &[]), "well").await;
    let limits = "timeouts: { connect: 15s, tls: 1500ms, response: 60s }";
    let gateway = in_front_of(trusting(&authority), &[url, good.url()], &format!("{TRUST}, {limits}"));
    for _ in 0..4 {
        assert_eq!(Client::new(gateway.http()).post("/", "order").await.text(), "well");
    }
}

#[tokio::test]
async fn the_time_for_all_of_it_ends_a_handshake_too() {
    let authority = Authority::new("ca");
    let (hanging, _end) = silent().await;
    let url = hanging.url().replace("http:", "https:");
    let limits = "timeouts: { tls: 60s, total: 200ms }";
    let gateway = in_front_of(trusting(&authority), &[url], &format!("{TRUST}, {limits}"));
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, &reply.code()[..]), (504, "total_timeout"));
}

#[tokio::test]
async fn what_is_not_tls_is_told_apart() {
    let authority = Authority::new("ca");
    let plain = RawOrigin::start(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let url = plain.url().replace("http:", "https:");
    let gateway = in_front_of(trusting(&authority), &[url], &format!("{TRUST}, {ONCE}"));
    assert_eq!(Client::new(gateway.http()).get("/").await.code(), "tls_failure");
    let told = told(&gateway).await;
    assert!(told.contains("is not TLS"), "{told}");
    drop(gateway);

    let closing = RawOrigin::start(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let url = closing.url().replace("http:", "https:");
    let gateway = in_front_of(trusting(&authority), &[url], &format!("{TRUST}, {ONCE}"));
    assert_eq!(Client::new(gateway.http()).get("/").await.code(), "tls_failure");
    let told = self::told(&gateway).await;
    assert!(told.contains("closed the connection in the TLS handshake"), "{told}");
}

#[tokio::test]
async fn who_speaks_no_http1_over_tls_is_told() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::text(server(&usual(&authority), None, &["h2"]), "well").await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], &format!("{TRUST}, {ONCE}"));
    assert_eq!(Client::new(gateway.http()).get("/").await.code(), "tls_failure");
    let told = told(&gateway).await;
    assert!(told.contains("does not speak HTTP/1.1"), "{told}");
}
