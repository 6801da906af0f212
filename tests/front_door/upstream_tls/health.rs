//! Health checks of instances that are spoken to over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::Full;

use super::{TRUST, in_front_of, trusting, usual};
use crate::support::raw::RawOrigin;
use crate::support::tls_origin::{Authority, TlsOrigin, server};
use crate::support::{Gateway, eventually};

fn check(how: &str) -> String {
    format!(
        "{TRUST}, health_check: {{ {how}, interval: 100ms, timeout: 5s, healthy_after: 1, unhealthy_after: 2 }}"
    )
}

async fn becomes(gateway: &Gateway, address: SocketAddr, health: &str) -> serde_json::Value {
    eventually(&format!("it is {health}"), || async {
        gateway.instance("users", address).await.filter(|instance| instance["health"] == health)
    })
    .await
}

/// Waits until the instance is out, and gives the reason.
async fn out(gateway: &Gateway, address: SocketAddr) -> String {
    let shown = becomes(gateway, address, "unhealthy").await;
    shown["last_check"]["failure"].as_str().expect("it says why").to_owned()
}

#[tokio::test]
async fn a_path_is_asked_for_over_tls() {
    let authority = Authority::new("ca");
    let is_well = Arc::new(AtomicBool::new(true));
    let well = is_well.clone();
    let origin = TlsOrigin::answering(server(&usual(&authority), None, &["http/1.1"]), move |_| {
        let status = if well.load(SeqCst) { 200 } else { 503 };
        Response::builder().status(status).body(Full::default()).expect("constants")
    })
    .await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], &check("path: /health"));
    becomes(&gateway, origin.address, "healthy").await;
    assert_eq!(origin.seen()[0].target, "/health");
    is_well.store(false, SeqCst);
    assert_eq!(out(&gateway, origin.address).await, "status 503");
    is_well.store(true, SeqCst);
    becomes(&gateway, origin.address, "healthy").await;
    // Its certificate is looked at with each check.
    origin.set_config(server(&Authority::new("stranger").issue(&["users.internal"]), None, &[]));
    let why = out(&gateway, origin.address).await;
    assert!(why.starts_with("no secure connection: ") && why.contains("UnknownIssuer"), "{why}");
    assert!(origin.handshakes().iter().all(|handshake| !handshake.resumed));
}

#[tokio::test]
async fn connecting_means_the_handshake_too() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::text(server(&usual(&authority), None, &[]), "well").await;
    let plain = RawOrigin::start(|stream, _| async move { drop(stream) }).await;
    let instances = [origin.url(), plain.url().replace("http:", "https:")];
    let gateway = in_front_of(trusting(&authority), &instances, &check("tcp: {}"));
    becomes(&gateway, origin.address, "healthy").await;
    let why = out(&gateway, plain.address).await;
    assert!(why.starts_with("no secure connection: "), "{why}");
    assert!(origin.seen().is_empty(), "nothing is asked");
}

#[tokio::test]
async fn grpc_is_asked_over_tls() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::start(server(&usual(&authority), None, &["h2"]), |stream, _| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.uri().scheme_str(), Some("https"));
            let head = Response::builder().header("content-type", "application/grpc").body(());
            let mut body = respond.send_response(head.expect("constants"), false).expect("it is open");
            let _ = body.send_data(Bytes::from_static(b"\0\0\0\0\x02\x08\x01"), false);
            let status = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            let _ = body.send_trailers(status);
        }
    })
    .await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], &check("grpc: {}"));
    becomes(&gateway, origin.address, "healthy").await;
    assert_eq!(origin.last_handshake().protocol.as_deref(), Some("h2"));
}
