//! The end: SIGTERM and SIGINT, what still finishes, and what is cut off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::reload::{echo_tunnel, echoed};
use crate::support::raw::{RawOrigin, read_until};
use crate::support::{Client, Gateway, Origin, Session, eventually, origin};

fn forwards(url: &str) -> String {
    format!(
        "services: {{ s: {{ instances: [\"{url}\"] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}]\n"
    )
}

fn with_arguments(configuration: &str, arguments: &[&str]) -> Gateway {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    Gateway::start_in(directory, configuration, arguments)
}

/// An origin that answers when a permit is there.
async fn gated() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let origin = Origin::start_slow(move |_| {
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.expect("it is never closed").forget();
            origin::json("{}")
        }
    })
    .await;
    (origin, gate)
}

async fn begun(origin: &Origin, requests: usize) {
    eventually("the requests have begun", || async { (origin.count() == requests).then_some(()) }).await;
}

/// The process may have ended before the test has read all that it wrote.
async fn logged(gateway: &Gateway, requests: usize) {
    eventually("each is in the log", || async { (gateway.log_lines().len() >= requests).then_some(()) })
        .await;
    assert_eq!(gateway.log_lines().len(), requests);
}

async fn is_refused(address: SocketAddr) {
    eventually("new connections are refused", || async {
        Session::try_open(address).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn slow_requests_finish_and_new_ones_are_refused() {
    for signal in ["TERM", "INT"] {
        let (origin, gate) = gated().await;
        let mut gateway = Gateway::start(&forwards(&origin.url()));
        let address = gateway.http();
        let (mut http1, mut http2) = (Session::open(address).await, Session::open_http2(address).await);
        let ending = async {
            begun(&origin, 2).await;
            gateway.signal(signal);
            is_refused(address).await;
            let ready = Client::new(gateway.admin()).get("/ready").await;
            assert_eq!((ready.status, &ready.json()["reasons"][0]), (503, &"draining".into()));
            assert_eq!(Client::new(gateway.admin()).get("/health").await.status, 200);
            assert_eq!(gateway.metric("gatehouse_draining", &[]).await, 1.0);
            assert_eq!(gateway.ask_to_reload().await.status, 422);
            gate.add_permits(2);
        };
        let (one, two, ()) = tokio::join!(http1.get("/1"), http2.get("/2"), ending);
        assert_eq!((one.status, one.header("connection")), (200, Some("close")));
        assert_eq!((two.status, two.header("connection")), (200, None));
        http1.closed().await;
        http2.closed().await;
        assert_eq!(gateway.ended().await.code(), Some(0));
        gateway.wait_for("stopped");
        logged(&gateway, 2).await;
    }
}

#[tokio::test]
async fn a_request_on_its_way_when_the_signal_comes_is_answered() {
    let mut gateway = Gateway::start("routes: [{ name: x, match: { path: / }, respond: { text: x } }]\n");
    let mut idle = Session::open(gateway.http()).await;
    idle.get("/").await;
    let mut fresh = Session::open(gateway.http()).await;
    gateway.signal("TERM");
    tokio::join!(idle.until_told_to_close("/"), fresh.until_told_to_close("/"));
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn what_takes_longer_than_the_drain_timeout_is_cut_off() {
    let (origin, _gate) = gated().await;
    let mut gateway = with_arguments(&forwards(&origin.url()), &["--drain-timeout", "300ms"]);
    let mut session = Session::open(gateway.http()).await;
    let started = Instant::now();
    let ending = async {
        begun(&origin, 1).await;
        gateway.signal("TERM");
    };
    let (cut, ()) = tokio::join!(session.try_get("/"), ending);
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(started.elapsed() > Duration::from_millis(300));
    gateway.wait_for("1 connections were cut off at the end of the drain timeout");
    let entry = gateway.log_entry(|entry| entry["path"] == "/");
    assert_eq!(entry["attempts"], 1);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (origin, _gate) = gated().await;
    let mut gateway = with_arguments(&forwards(&origin.url()), &["--drain-timeout", "10m"]);
    let mut session = Session::open(gateway.http()).await;
    let ending = async {
        begun(&origin, 1).await;
        gateway.signal("TERM");
        gateway.wait_for("stopping");
        gateway.signal("INT");
    };
    let (cut, ()) = tokio::join!(session.try_get("/"), ending);
    assert!(cut.is_err());
    assert_eq!(gateway.ended().await.code(), Some(130));
}

#[tokio::test]
async fn a_tunnel_may_end_by_itself() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        use tokio::io::AsyncWriteExt;
        read_until(&mut stream, "\r\n\r\n").await;
        let accepted = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        let _ = stream.write_all(accepted.as_bytes()).await;
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let mut gateway = Gateway::start(&forwards(&origin.url()));
    let mut tunnel = echo_tunnel(gateway.http()).await;
    gateway.signal("TERM");
    is_refused(gateway.http()).await;
    assert_eq!(echoed(&mut tunnel, "still there\n").await, "still there\n");
    assert!(gateway.is_running());
    drop(tunnel);
    assert_eq!(gateway.ended().await.code(), Some(0));
    gateway.wait_for("stopped");
    assert!(!gateway.messages().contains("cut off"));
}

/// Clients ask without a pause and start a new connection only when they are told to, or refused.
#[tokio::test]
async fn no_request_is_lost_under_load() {
    let origin = Origin::json("{}").await;
    let mut gateway = Gateway::start(&forwards(&origin.url()));
    let address = gateway.http();
    let answered = Arc::new(AtomicU32::new(0));
    let mut clients = JoinSet::new();
    for number in 0..24 {
        let answered = answered.clone();
        clients.spawn(async move {
            // Some use a connection for each request: they meet the closing of the queue.
            let keeps = number % 3 != 0;
            while let Ok(mut session) = Session::try_open(address).await {
                loop {
                    let reply =
                        session.try_get("/").await.map_err(|error| format!("client {number}: {error}"))?;
                    assert_eq!(reply.status, 200);
                    answered.fetch_add(1, Relaxed);
                    if !keeps || reply.header("connection") == Some("close") {
                        break;
                    }
                }
            }
            Ok::<_, String>(())
        });
    }
    eventually("they are under way", || async { (answered.load(Relaxed) > 500).then_some(()) }).await;
    gateway.signal("TERM");
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client panicked").expect("no request was lost");
    }
    assert_eq!(gateway.ended().await.code(), Some(0));
    logged(&gateway, answered.load(Relaxed) as usize).await;
}
