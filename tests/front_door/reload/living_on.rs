//! What a reload keeps: requests under way, connections, streams, and what was learned of clients and instances.

use super::*;

#[tokio::test]
async fn a_request_ends_under_the_configuration_that_it_began_with() {
    let (origin, gate) = gated().await;
    let version = |n: u32| {
        format!(
            "{}defaults: {{ response_headers: {{ set: {{ x-version: '{n}' }} }} }}\n",
            forwards(&origin.url())
        )
    };
    let gateway = Gateway::start(&version(1));
    let mut session = Session::open(gateway.http()).await;
    let change = async {
        eventually("it has begun", || async { (origin.count() == 1).then_some(()) }).await;
        gateway.reconfigure(&version(2)).await;
        assert_eq!(Client::new(gateway.http()).get("/").await.header("x-version"), Some("2"));
        gate.add_permits(1);
    };
    let (reply, ()) = tokio::join!(session.get("/slow"), change);
    assert_eq!((reply.status, reply.header("x-version")), (200, Some("1")));
    assert_eq!(reply.header("connection"), None);
    let local = session.local;
    let reply = session.get("/").await;
    assert_eq!((reply.header("x-version"), session.local), (Some("2"), local));
}

#[tokio::test]
async fn connections_to_instances() {
    let origin = RawOrigin::start(|mut stream, number| async move {
        use tokio::io::AsyncWriteExt;
        while read_until(&mut stream, "\r\n\r\n").await.ends_with("\r\n\r\n") {
            let answer = format!("HTTP/1.1 200 OK\r\nx-connection: {number}\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
    })
    .await;
    // One worker has one pool.
    let version = |name: &str| format!("workers: 1\n{}", forwards(&origin.url()).replace("all", name));
    let gateway = Gateway::start(&version("one"));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.header("x-connection"), Some("1"));
    for name in ["two", "three"] {
        gateway.reconfigure(&version(name)).await;
        assert_eq!(client.get("/").await.header("x-connection"), Some("1"));
    }
}

#[tokio::test]
async fn open_streams() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        use tokio::io::AsyncWriteExt;
        let request = read_until(&mut stream, "\r\n\r\n").await;
        assert!(request.contains("upgrade: echo"), "{request}");
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
            .await;
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let gateway = Gateway::start(&forwards(&origin.url()));
    let mut tunnel = echo_tunnel(gateway.http()).await;
    gateway.reconfigure(&says("none of it left")).await;
    assert_eq!(echoed(&mut tunnel, "after the reload\n").await, "after the reload\n");
}

#[tokio::test]
async fn rate_limits_breakers_and_health() {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let broken = Arc::new(AtomicBool::new(true));
    let fails = broken.clone();
    let origin = Origin::start(move |seen| match &*seen.target {
        "/health" => origin::status(500),
        _ if fails.load(Relaxed) => origin::status(503),
        _ => origin::status(200),
    })
    .await;
    let configuration = |route: &str| {
        let url = origin.url();
        format!(
            "services:\n  broken: {{ instances: ['{url}'], circuit_breaker: {{ consecutive_failures: 2, \
             open_for: 10m }}, retries: {{ attempts: 0 }} }}\n  ill: {{ instances: ['{url}'], \
             health_check: {{ path: /health, interval: 50ms, unhealthy_after: 2 }} }}\n\
             rate_limits: {{ three: {{ key: route, rate: 1/m, burst: 3 }} }}\n\
             routes:\n  - {{ name: limited, match: {{ path: /limited }}, rate_limits: [three], respond: \
             {{ text: x }} }}\n  - {{ name: {route}, match: {{ path: /broken }}, forward: {{ service: broken }} }}\n  \
             - {{ name: ill, match: {{ path: /ill }}, forward: {{ service: ill }} }}\n"
        )
    };
    let gateway = Gateway::start(&configuration("one"));
    let client = Client::new(gateway.http());
    for status in [200, 200] {
        assert_eq!(client.get("/limited").await.status, status);
    }
    for _ in 0..2 {
        assert_eq!(client.get("/broken").await.status, 503);
    }
    assert_eq!(client.get("/broken").await.code(), "circuit_open");
    eventually("health checks have failed", || async {
        (client.get("/ill").await.status == 503).then_some(())
    })
    .await;
    broken.store(false, Relaxed);
    for name in ["two", "three"] {
        gateway.reconfigure(&configuration(name)).await;
        assert_eq!(client.get("/broken").await.code(), "circuit_open");
        assert_eq!(client.get("/ill").await.code(), "no_instance");
    }
    let statuses = [client.get("/limited").await.status, client.get("/limited").await.status];
    assert_eq!(statuses, [200, 429]);
    let services = gateway.api("/api/services").await;
    assert_eq!(services["services"][0]["instances"][0]["breaker"]["state"], "open");
}
