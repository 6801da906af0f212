//! A bound on the requests of a service at once: exact over all workers, with a queue in the order of arrival.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::raw::{RawOrigin, read_until};
use crate::support::{Client, Gateway, Origin, Reply, eventually, one_service, origin};

/// An origin that answers when the test lets it, with the target of the request.
async fn gated() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let origin = Origin::start_slow(move |seen| {
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.expect("it is never closed").forget();
            http::Response::new(http_body_util::Full::from(seen.target))
        }
    })
    .await;
    (origin, gate)
}

fn limited(origin: &str, workers: usize, concurrency: &str) -> String {
    let settings = format!("concurrency: {concurrency}, retries: {{ attempts: 0 }}");
    format!("workers: {workers}\n{}", one_service(&[origin.to_owned()], &settings))
}

fn get(client: &Client, target: &str) -> JoinHandle<Reply> {
    let (client, target) = (client.clone(), target.to_owned());
    tokio::spawn(async move { client.get(&target).await })
}

/// Waits until the service has so many requests in flight and waiting.
async fn until_load(gateway: &Gateway, in_flight: u64, waiting: u64) {
    eventually(&format!("{in_flight} are in flight and {waiting} wait"), || async {
        let service = gateway.service("users").await;
        let load = &service["concurrency"];
        (load["in_flight"] == in_flight && load["waiting"] == waiting).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_too_many_waits_and_one_more_is_refused_at_once() {
    let (origin, gate) = gated().await;
    let gateway = Gateway::start(&limited(&origin.url(), 2, "{ max: 2, queue: 1, queue_timeout: 15s }"));
    let client = Client::new(gateway.http());
    let mut admitted = vec![get(&client, "/1"), get(&client, "/2")];
    until_load(&gateway, 2, 0).await;
    admitted.push(get(&client, "/3"));
    until_load(&gateway, 2, 1).await;
    let refused = client.get("/4").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "concurrency_limit"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    for (name, value) in [("limit", 2.0), ("active", 2.0), ("waiting", 1.0)] {
        let name = format!("gatehouse_concurrency_{name}");
        assert_eq!(gateway.metric(&name, &["service=\"users\""]).await, value, "{name}");
    }
    assert_eq!(origin.count(), 2);
    gate.add_permits(3);
    for reply in admitted {
        assert_eq!(reply.await.expect("no panic").status, 200);
    }
    until_load(&gateway, 0, 0).await;
    let name = "gatehouse_concurrency_refused_total";
    assert_eq!(gateway.metric(name, &["reason=\"concurrency_limit\""]).await, 1.0);
    let breaker = &gateway.instance("users", origin.address).await.expect("it is there")["breaker"];
    assert_eq!(breaker["consecutive_failures"], 0, "it is no failure of the instance");
}

#[tokio::test]
async fn who_waits_too_long_is_told() {
    let (origin, gate) = gated().await;
    let gateway = Gateway::start(&limited(&origin.url(), 2, "{ max: 1, queue: 9, queue_timeout: 200ms }"));
    let client = Client::new(gateway.http());
    let first = get(&client, "/1");
    until_load(&gateway, 1, 0).await;
    let late = client.get("/2").await;
    assert_eq!((late.status, late.code().as_str()), (503, "queue_timeout"));
    assert_eq!(late.header("retry-after"), Some("1"));
    assert_eq!(
        gateway.metric("gatehouse_concurrency_refused_total", &["reason=\"queue_timeout\""]).await,
        1.0
    );
    assert_eq!(origin.count(), 1, "what waited too long was sent after all");
    gate.add_permits(1);
    assert_eq!(first.await.expect("no panic").status, 200);
}

/// Over four workers: whichever has the next in line, it comes next.
#[tokio::test]
async fn they_come_in_the_order_in_which_they_came() {
    let (origin, gate) = gated().await;
    let gateway = Gateway::start(&limited(&origin.url(), 4, "{ max: 1, queue: 20, queue_timeout: 15s }"));
    let client = Client::new(gateway.http());
    let mut all = Vec::new();
    for number in 0..=12 {
        all.push(get(&client, &format!("/{number}")));
        until_load(&gateway, 1, number).await;
    }
    gate.add_permits(all.len());
    for reply in all {
        assert_eq!(reply.await.expect("no panic").status, 200);
    }
    let seen: Vec<String> = origin.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, (0..=12).map(|number| format!("/{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_bound_is_exact_over_all_workers() {
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counter, peak) = (inside.clone(), most.clone());
    let origin = Origin::start_slow(move |_| {
        peak.fetch_max(counter.fetch_add(1, SeqCst) + 1, SeqCst);
        let counter = counter.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            counter.fetch_sub(1, SeqCst);
            origin::status(200)
        }
    })
    .await;
    let gateway = Gateway::start(&limited(&origin.url(), 4, "{ max: 3, queue: 100, queue_timeout: 15s }"));
    let client = Client::new(gateway.http());
    let mut clients = JoinSet::new();
    for _ in 0..24 {
        let client = client.clone();
        clients.spawn(async move {
            for _ in 0..10 {
                assert_eq!(client.get("/").await.status, 200);
            }
        });
    }
    clients.join_all().await;
    let most = most.load(SeqCst);
    assert_eq!(most, 3, "the origin had {most} at once");
    until_load(&gateway, 0, 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_makes_way() {
    let (origin, gate) = gated().await;
    let gateway = Gateway::start(&limited(&origin.url(), 2, "{ max: 1, queue: 1, queue_timeout: 15s }"));
    let client = Client::new(gateway.http());
    let ask = async || {
        let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
        stream.write_all(b"GET /left HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
        stream
    };
    // One that is inside, and one that waits.
    let inside = ask().await;
    until_load(&gateway, 1, 0).await;
    let waits = ask().await;
    until_load(&gateway, 1, 1).await;
    drop(waits);
    until_load(&gateway, 1, 0).await;
    let next = get(&client, "/next");
    until_load(&gateway, 1, 1).await;
    drop(inside);
    until_load(&gateway, 1, 0).await;
    gate.add_permits(2);
    assert_eq!(next.await.expect("no panic").text(), "/next");
    until_load(&gateway, 0, 0).await;
}

/// The body of the response counts, and so does a tunnel.
#[tokio::test]
async fn a_place_is_held_to_the_end_of_the_body_or_tunnel() {
    let go_on = Arc::new(Semaphore::new(0));
    let waits = go_on.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let waits = waits.clone();
        async move {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            let begin = if head.starts_with("GET /tunnel") {
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegun"
            };
            let _ = stream.write_all(begin.as_bytes()).await;
            waits.acquire().await.expect("it is never closed").forget();
            // The end of a body; or one that breaks off, when it is asked for.
            let rest: &[u8] = if head.starts_with("GET /broken") { b"" } else { b"ended" };
            let _ = stream.write_all(rest).await;
        }
    })
    .await;
    let gateway = Gateway::start(&limited(&origin.url(), 2, "{ max: 1 }"));
    let client = Client::new(gateway.http());
    for target in ["/whole", "/broken", "/tunnel"] {
        let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
        let upgrade = if target == "/tunnel" { "connection: upgrade\r\nupgrade: websocket\r\n" } else { "" };
        let ask = format!("GET {target} HTTP/1.1\r\nhost: a\r\n{upgrade}\r\n");
        stream.write_all(ask.as_bytes()).await.expect("it reads");
        read_until(&mut stream, if target == "/tunnel" { "\r\n\r\n" } else { "begun" }).await;
        assert_eq!(client.get("/").await.code(), "concurrency_limit", "{target}");
        go_on.add_permits(1);
        // A tunnel lasts until both sides have ended.
        read_until(&mut stream, "ended").await;
        drop(stream);
        until_load(&gateway, 0, 0).await;
    }
}

#[tokio::test]
async fn retries_of_a_request_keep_its_place() {
    let (bad, good) = (Origin::status(503).await, Origin::text("well").await);
    let settings = "load_balancing: round_robin, concurrency: { max: 1 }, retries: { backoff: { base: 0s } }";
    let gateway = Gateway::start(&format!("workers: 1\n{}", one_service(&[bad.url(), good.url()], settings)));
    let client = Client::new(gateway.http());
    for _ in 0..4 {
        assert_eq!(client.get("/").await.text(), "well");
    }
    assert!(bad.count() > 0);
    until_load(&gateway, 0, 0).await;
}

#[tokio::test]
async fn a_reload_changes_the_bound_for_those_who_wait() {
    let (origin, gate) = gated().await;
    let with = |concurrency: &str| limited(&origin.url(), 2, concurrency);
    let gateway = Gateway::start(&with("{ max: 1, queue: 2, queue_timeout: 15s }"));
    let client = Client::new(gateway.http());
    let mut all = Vec::new();
    for number in 0..3 {
        all.push(get(&client, "/"));
        until_load(&gateway, 1, number).await;
    }
    gateway.reconfigure(&with("{ max: 2, queue: 2, queue_timeout: 15s }")).await;
    until_load(&gateway, 2, 1).await;
    gateway.reconfigure(&with("{ max: 1, queue: 0 }")).await;
    until_load(&gateway, 2, 1).await;
    assert_eq!(client.get("/").await.code(), "concurrency_limit");
    gate.add_permits(3);
    for reply in all {
        assert_eq!(reply.await.expect("no panic").status, 200);
    }
    until_load(&gateway, 0, 0).await;
    gateway.reconfigure(&one_service(&[origin.url()], "")).await;
    assert!(gateway.service("users").await["concurrency"].is_null());
}

#[tokio::test]
async fn a_fallback_stands_in_for_what_is_refused() {
    let (origin, gate) = gated().await;
    let gateway =
        Gateway::start(&one_service(&[origin.url()], "concurrency: { max: 1 }, fallback: { text: later }"));
    let client = Client::new(gateway.http());
    let first = get(&client, "/");
    until_load(&gateway, 1, 0).await;
    assert_eq!(client.get("/full").await.text(), "later");
    let entry = gateway.log_entry(|entry| entry["path"] == "/full");
    assert_eq!(entry["reason"], "concurrency_limit");
    gate.add_permits(1);
    assert_eq!(first.await.expect("no panic").text(), "/");
}

/// Four at once, 25 ms each; what comes beyond waits inside.
async fn of_fixed_capacity() -> Origin {
    let servers = Arc::new(Semaphore::new(4));
    Origin::start_slow(move |_| {
        let servers = servers.clone();
        async move {
            let _server = servers.acquire().await.expect("it is never closed");
            tokio::time::sleep(Duration::from_millis(25)).await;
            origin::status(200)
        }
    })
    .await
}

/// How good it is at this is held to numbers on simulated time, in `service/bulkhead/overload.rs`.
#[tokio::test]
async fn an_adaptive_bound_comes_down_to_what_the_service_can_do_and_up_again() {
    let origin = of_fixed_capacity().await;
    let gateway = Gateway::start(&limited(&origin.url(), 2, "{ max: adaptive, floor: 2, ceiling: 50 }"));
    let client = Client::new(gateway.http());
    let state = async || gateway.service("users").await["concurrency"].clone();
    let first = state().await;
    assert_eq!(
        (&first["max"], &first["adaptive"]["floor"], &first["adaptive"]["ceiling"]),
        (&20.into(), &2.into(), &50.into())
    );
    assert!(first["adaptive"]["baseline_ms"].is_null());
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        let client = client.clone();
        clients.spawn(async move {
            loop {
                let reply = client.get("/").await;
                if reply.status != 200 {
                    assert_eq!((reply.status, reply.code().as_str()), (503, "concurrency_limit"));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
    }
    eventually("it has come down", || async {
        let state = state().await;
        let found = state["max"].as_u64().is_some_and(|max| (2..=10).contains(&max));
        (found && state["adaptive"]["baseline_ms"].as_f64().is_some_and(|baseline| baseline < 60.0))
            .then_some(())
    })
    .await;
    let limit = gateway.metric("gatehouse_concurrency_limit", &["service=\"users\""]).await;
    assert!((1.0..20.0).contains(&limit), "{limit}");
    // A number instead, and back: what was learnt is kept.
    gateway.reconfigure(&limited(&origin.url(), 2, "{ max: 30 }")).await;
    let fixed = state().await;
    assert_eq!((&fixed["max"], fixed["adaptive"].is_null()), (&30.into(), true));
    gateway.reconfigure(&limited(&origin.url(), 2, "{ max: adaptive, floor: 12, ceiling: 50 }")).await;
    eventually("it keeps to the floor", || async { (state().await["max"] == 12).then_some(()) }).await;
    clients.shutdown().await;
    until_load(&gateway, 0, 0).await;
}

#[tokio::test]
async fn failures_are_not_taken_for_quick_answers() {
    let origin = Origin::status(500).await;
    let gateway = Gateway::start(&limited(&origin.url(), 1, "{ max: adaptive }"));
    let client = Client::new(gateway.http());
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 500);
    }
    let state = &gateway.service("users").await["concurrency"];
    assert_eq!((&state["max"], state["adaptive"]["baseline_ms"].is_null()), (&20.into(), true));
}
