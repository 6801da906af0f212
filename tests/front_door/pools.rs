//! Connections to instances: reused, bounded, closed in time, and never trusted too far.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::raw::{RawOrigin, read_until};
use crate::support::{Client, Gateway, Origin, eventually, one_service, origin};

/// The pool's limits are divided among the workers; with one they are what is written.
fn one_worker(instances: &[String], settings: &str) -> String {
    format!("workers: 1\n{}", one_service(instances, settings))
}

/// An origin that answers when the test lets it.
async fn gated() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let origin = Origin::start_slow(move |_| {
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.expect("it is never closed").forget();
            origin::status(200)
        }
    })
    .await;
    (origin, gate)
}

async fn get_in_background(client: &Client) -> tokio::task::JoinHandle<crate::support::Reply> {
    let client = client.clone();
    tokio::spawn(async move { client.get("/").await })
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&one_worker(&[origin.url()], ""));
    let client = Client::new(gateway.http());
    for turn in 0..40 {
        let method = if turn % 2 == 0 { Method::GET } else { Method::POST };
        assert_eq!(client.send(method, "/", "body".into()).await.status, 200);
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn requests_beyond_max_connections_wait_for_one() {
    let (origin, gate) = gated().await;
    let gateway = Gateway::start(&one_worker(
        &[origin.url()],
        "pool: { max_connections: 1 }, timeouts: { connect: 15s }",
    ));
    let client = Client::new(gateway.http());
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(get_in_background(&client).await);
    }
    eventually("the first has come through", || async { (origin.count() == 1).then_some(()) }).await;
    gate.add_permits(5);
    let began = Instant::now();
    for reply in all {
        assert_eq!(reply.await.expect("no panic").status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "somebody was not told of the free connection");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn who_waits_too_long_for_a_connection_is_told() {
    let (origin, gate) = gated().await;
    let gateway = Gateway::start(&one_worker(
        &[origin.url()],
        "pool: { max_connections: 1 }, timeouts: { connect: 200ms }",
    ));
    let client = Client::new(gateway.http());
    let first = get_in_background(&client).await;
    eventually("the first has come through", || async { (origin.count() == 1).then_some(()) }).await;
    let reply = client.get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "pool_exhausted"));
    let breaker = &gateway.instance("users", origin.address).await.expect("it is there")["breaker"];
    assert_eq!(breaker["consecutive_failures"], 0, "it is no failure of the instance");
    gate.add_permits(1);
    assert_eq!(first.await.expect("no panic").status, 200);
}

/// A full pool is no reason to wait while another instance could answer, whatever the rule and the method.
#[tokio::test]
async fn another_instance_answers_when_one_has_no_connection_left() {
    for rule in ["round_robin", "random", "least_requests", "{ consistent_hash: { key: path } }"] {
        let (busy, gate) = gated().await;
        let gateway = Gateway::start(&one_worker(
            &[busy.url()],
            &format!("load_balancing: {rule}, pool: {{ max_connections: 1 }}, timeouts: {{ connect: 15s }}"),
        ));
        let client = Client::new(gateway.http());
        let held = get_in_background(&client).await;
        eventually("it is busy", || async { (busy.count() == 1).then_some(()) }).await;
        let well = Origin::text("well").await;
        gateway
            .reconfigure(&one_worker(
                &[busy.url(), well.url()],
                &format!(
                    "load_balancing: {rule}, pool: {{ max_connections: 1 }}, timeouts: {{ connect: 15s }}"
                ),
            ))
            .await;
        let began = Instant::now();
        for method in [Method::GET, Method::POST] {
            for _ in 0..10 {
                let reply = client.send(method.clone(), "/", "body".into()).await;
                assert_eq!((reply.status, reply.text().as_str()), (200, "well"), "{rule}");
            }
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{rule}: somebody has waited");
        assert_eq!(busy.count(), 1);
        assert_eq!(gateway.service("users").await["retries"], 0, "it is no retry");
        let entry = gateway.log_entry(|entry| entry["method"] == "POST");
        assert_eq!(entry["attempts"], 1, "{entry}");
        assert_eq!(gateway.instance("users", busy.address).await.expect("it is there")["attempts"], 1);
        gate.add_permits(1);
        assert_eq!(held.await.expect("no panic").status, 200);
    }
}

/// With all of them full, one is waited for.
#[tokio::test]
async fn without_a_free_connection_anywhere_one_is_waited_for() {
    let (one, other) = (gated().await, gated().await);
    let gateway = Gateway::start(&one_worker(
        &[one.0.url(), other.0.url()],
        "load_balancing: round_robin, pool: { max_connections: 1 }, timeouts: { connect: 15s }",
    ));
    let client = Client::new(gateway.http());
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(get_in_background(&client).await);
    }
    eventually("both are busy", || async { (one.0.count() == 1 && other.0.count() == 1).then_some(()) })
        .await;
    one.1.add_permits(8);
    other.1.add_permits(8);
    for reply in all {
        assert_eq!(reply.await.expect("no panic").status, 200);
    }
    assert_eq!(one.0.count() + other.0.count(), 8);
    assert_eq!(one.0.connections() + other.0.connections(), 2);
}

/// Who waits does so for whichever instance has a connection first: one that hangs keeps nobody.
#[tokio::test]
async fn nobody_waits_for_an_instance_that_hangs_while_another_goes_on() {
    let (hung, going) = (gated().await, gated().await);
    for rule in ["round_robin", "random", "least_requests", "peak_ewma"] {
        let (before, permits) = (going.0.count(), &going.1);
        let gateway = Gateway::start(&one_worker(
            &[hung.0.url(), going.0.url()],
            &format!(
                "load_balancing: {rule}, pool: {{ max_connections: 1 }}, timeouts: {{ connect: 15s, response: 60s }}"
            ),
        ));
        let client = Client::new(gateway.http());
        let taken = hung.0.count();
        let all = tokio::sync::Mutex::new(tokio::task::JoinSet::new());
        eventually("the one hangs", || async {
            let client = client.clone();
            all.lock().await.spawn(async move { client.get("/").await.status });
            tokio::time::sleep(Duration::from_millis(20)).await;
            permits.add_permits(1);
            (hung.0.count() > taken).then_some(())
        })
        .await;
        let mut all = all.into_inner();
        for _ in 0..8 {
            let client = client.clone();
            all.spawn(async move { client.get("/").await.status });
        }
        permits.add_permits(100);
        let asked = all.len();
        let began = Instant::now();
        for _ in 1..asked {
            assert_eq!(all.join_next().await.expect("one hangs").expect("no panic"), 200, "{rule}");
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{rule}");
        assert_eq!((hung.0.count() - taken, going.0.count() - before), (1, asked - 1), "{rule}");
    }
}

/// For as long as connecting may take, all in all.
#[tokio::test]
async fn who_waits_for_several_instances_is_told_in_time() {
    let (one, other) = (gated().await, gated().await);
    let gateway = Gateway::start(&one_worker(
        &[one.0.url(), other.0.url()],
        "load_balancing: round_robin, pool: { max_connections: 1 }, timeouts: { connect: 300ms }",
    ));
    let client = Client::new(gateway.http());
    let _held = [get_in_background(&client).await, get_in_background(&client).await];
    eventually("both are busy", || async { (one.0.count() == 1 && other.0.count() == 1).then_some(()) })
        .await;
    let began = Instant::now();
    let reply = client.get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "pool_exhausted"));
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(5));
    gateway
        .reconfigure(&one_worker(
            &[one.0.url(), other.0.url()],
            "load_balancing: round_robin, pool: { max_connections: 1 }, timeouts: { connect: 30s, total: 200ms }",
        ))
        .await;
    assert_eq!(client.get("/").await.code(), "total_timeout", "that holds for the waiting, too");
}

#[tokio::test]
async fn no_more_than_max_idle_are_kept() {
    let (origin, gate) = gated().await;
    let gateway = Gateway::start(&one_worker(&[origin.url()], "pool: { max_idle: 2 }"));
    let client = Client::new(gateway.http());
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(get_in_background(&client).await);
    }
    eventually("all have come through", || async { (origin.count() == 6).then_some(()) }).await;
    assert_eq!(origin.open_connections(), 6);
    gate.add_permits(6);
    for reply in all {
        assert_eq!(reply.await.expect("no panic").status, 200);
    }
    eventually("four are closed", || async { (origin.open_connections() == 2).then_some(()) }).await;
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&one_worker(&[origin.url()], "pool: { idle_timeout: 200ms }"));
    assert_eq!(Client::new(gateway.http()).get("/").await.status, 200);
    eventually("it is closed", || async { (origin.open_connections() == 0).then_some(()) }).await;
    assert_eq!(Client::new(gateway.http()).get("/").await.status, 200);
}

#[tokio::test]
async fn the_connections_of_an_instance_that_left_are_closed() {
    let (gone, stays) = (Origin::text("x").await, Origin::text("y").await);
    let both = [gone.url(), stays.url()];
    let gateway = Gateway::start(&one_worker(&both, "load_balancing: round_robin"));
    let client = Client::new(gateway.http());
    client.get("/").await;
    client.get("/").await;
    assert_eq!((gone.open_connections(), stays.open_connections()), (1, 1));
    gateway.reconfigure(&one_worker(&both[1..], "load_balancing: round_robin")).await;
    eventually("it is closed", || async { (gone.open_connections() == 0).then_some(()) }).await;
    assert_eq!(stays.open_connections(), 1, "a reload closes no connection that it need not");
    client.get("/").await;
    assert_eq!(stays.connections(), 1);
}

/// Reads `requests` and answers each, then closes without having said so. The number is that of closed connections.
async fn closing_after(requests: usize) -> (RawOrigin, Arc<AtomicUsize>) {
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = closed.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let counter = counter.clone();
        async move {
            for _ in 0..requests {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                if head.is_empty() {
                    break;
                }
                if head.contains("content-length: 4\r\n") {
                    read_until(&mut stream, "body").await;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
            let _ = stream.shutdown().await;
            until_end_is_known(&stream).await;
            drop(stream);
            counter.fetch_add(1, SeqCst);
        }
    })
    .await;
    (origin, closed)
}

/// Waits until the other side's kernel has acknowledged the end of the stream: on a busy machine that takes a while,
/// and before it nobody there can know.
async fn until_end_is_known(stream: &TcpStream) {
    let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else { return };
    let ports = [local, peer].map(|address| format!(":{:04X}", address.port()));
    let waits = |line: &str| {
        let words: Vec<_> = line.split_whitespace().take(4).collect();
        // FIN_WAIT1, as the kernel numbers the states of connections.
        matches!(words[..], [_, from, to, "04"] if from.ends_with(&*ports[0]) && to.ends_with(&*ports[1]))
    };
    while std::fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.lines().any(waits)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_instance_that_closes_after_a_few_requests_fails_none() {
    for requests in [1, 3] {
        let (origin, _) = closing_after(requests).await;
        let gateway = Gateway::start(&one_service(&[origin.url()], "retries: { attempts: 0 }"));
        let client = Client::new(gateway.http());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let client = client.clone();
            tasks.spawn(async move {
                for _ in 0..60 {
                    assert_eq!(client.get("/").await.text(), "ok");
                }
            });
        }
        tasks.join_all().await;
    }
}

/// A POST can't be repeated once it is written, nor any other request once its body is taken from the client: they
/// must not meet a connection that was closed before.
#[tokio::test]
async fn a_body_meets_no_connection_that_was_closed_before() {
    let (origin, closed) = closing_after(1).await;
    let gateway = Gateway::start(&one_service(&[origin.url()], "retries: { attempts: 0 }"));
    let client = Client::new(gateway.http());
    for sent in 1..=60 {
        let method = if sent % 2 == 0 { Method::PUT } else { Method::POST };
        assert_eq!(client.send(method, "/", "body".into()).await.text(), "ok");
        while closed.load(SeqCst) < sent {
            tokio::task::yield_now().await;
        }
    }
}

/// The instance closes a kept connection at the moment at which the next request arrives there.
async fn closing_on_the_second() -> RawOrigin {
    RawOrigin::start(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        read_until(&mut stream, "\r\n\r\n").await;
    })
    .await
}

#[tokio::test]
async fn a_connection_closed_under_a_get_is_replaced_at_once() {
    let origin = closing_on_the_second().await;
    let gateway = Gateway::start(&one_worker(&[origin.url()], "retries: { attempts: 0 }"));
    let client = Client::new(gateway.http());
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert_eq!(origin.connections(), 5);
    let breaker = &gateway.instance("users", origin.address).await.expect("it is there")["breaker"];
    assert_eq!(breaker["consecutive_failures"], 0, "closing a kept connection is everybody's right");
    assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_connection_closed_under_a_post_fails_it() {
    let origin = closing_on_the_second().await;
    let gateway = Gateway::start(&one_worker(&[origin.url()], ""));
    let client = Client::new(gateway.http());
    assert_eq!(client.post("/", "").await.text(), "ok");
    let reply = client.post("/", "").await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_reset"));
    assert_eq!(client.post("/", "").await.text(), "ok");
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_answer_nobody() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        while !read_until(&mut stream, "\r\n\r\n").await.is_empty() {
            let two = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok\
                       HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
            if stream.write_all(two.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&one_worker(&[origin.url()], ""));
    let client = Client::new(gateway.http());
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn a_client_that_leaves_closes_the_connection() {
    let (origin, _gate) = gated().await;
    let gateway = Gateway::start(&one_worker(&[origin.url()], ""));
    let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
    eventually("it has come through", || async { (origin.count() == 1).then_some(()) }).await;
    drop(client);
    eventually("it is closed", || async { (origin.open_connections() == 0).then_some(()) }).await;
    let instance = gateway.instance("users", origin.address).await.expect("it is there");
    assert_eq!(instance["in_flight"], 0);
}

/// An instance that answers early and never reads the rest must not keep connections busy for ever.
#[tokio::test]
async fn a_request_that_the_instance_does_not_want_is_not_sent_to_its_end() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = closed.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let counter = counter.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await;
            read_until(&mut stream, "never").await;
            counter.fetch_add(1, SeqCst);
        }
    })
    .await;
    let gateway = Gateway::start(&one_worker(
        &[origin.url()],
        "pool: { max_connections: 1 }, timeouts: { connect: 5s }",
    ));
    for turn in 1..=3 {
        let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
        client
            .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\nbegun")
            .await
            .expect("it reads");
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 413"), "{head}");
        eventually("the connection is closed", || async { (closed.load(SeqCst) == turn).then_some(()) })
            .await;
    }
}
