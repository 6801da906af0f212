//! Circuit breakers: when they open, what they let through, and what they live through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::support::raw::{RawOrigin, read_until};
use crate::support::{Client, Gateway, Origin, eventually, one_service, origin};

/// An origin whose status the test sets.
async fn switchable(status: u16) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let current = status.clone();
    (Origin::start(move |_| origin::status(current.load(SeqCst))).await, status)
}

async fn breaker(gateway: &Gateway, origin: &Origin) -> serde_json::Value {
    gateway.instance("users", origin.address).await.expect("it is there")["breaker"].clone()
}

#[tokio::test]
async fn it_opens_and_closes_and_says_so() {
    let (origin, status) = switchable(500).await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "retries: { attempts: 0 }, \
         circuit_breaker: { consecutive_failures: 3, open_for: 1s, failures: [500-599] }",
    ));
    let client = Client::new(gateway.http());
    for _ in 0..3 {
        assert_eq!(breaker(&gateway, &origin).await["state"], "closed");
        assert_eq!(client.get("/").await.status, 500);
    }
    let open = breaker(&gateway, &origin).await;
    assert_eq!(open["state"], "open");
    assert!(open["opened_at"].is_string() && open["next_probe_at"].is_string(), "{open}");
    assert_eq!(gateway.metric("gatehouse_breaker_state", &["service=\"users\""]).await, 2.0);
    let refused = client.get("/").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "circuit_open"));
    assert_eq!(origin.count(), 3, "an open breaker lets nothing through");
    gateway.wait_for(&format!("service users: {} fails: its circuit breaker has opened", origin.address));

    status.store(200, SeqCst);
    eventually("a probe closes it", || async { (client.get("/").await.status == 200).then_some(()) }).await;
    assert_eq!(breaker(&gateway, &origin).await["state"], "closed");
    assert_eq!(gateway.metric("gatehouse_breaker_state", &["service=\"users\""]).await, 0.0);
    assert_eq!(gateway.metric("gatehouse_breaker_opened_total", &["service=\"users\""]).await, 1.0);
    gateway.wait_for(&format!("service users: {} answers: its circuit breaker has closed", origin.address));
}

#[tokio::test]
async fn only_the_failures_that_it_names_count() {
    for (answer, failures, opens) in [
        (404, "", false),
        (204, "", false),
        (500, "", false),
        (503, "", true),
        (500, ", failures: [connect_failure, 500]", true),
        (503, ", failures: [connect_failure]", false),
    ] {
        let origin = Origin::status(answer).await;
        let gateway = Gateway::start(&one_service(
            &[origin.url()],
            &format!("retries: {{ attempts: 0 }}, circuit_breaker: {{ consecutive_failures: 2{failures} }}"),
        ));
        let client = Client::new(gateway.http());
        for _ in 0..2 {
            assert_eq!(client.get("/").await.status, answer);
        }
        let state = breaker(&gateway, &origin).await["state"].clone();
        assert_eq!(state, if opens { "open" } else { "closed" }, "{answer}{failures}");
    }
}

#[tokio::test]
async fn a_ratio_over_the_window_opens_it() {
    let (origin, status) = switchable(200).await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "retries: { attempts: 0 }, circuit_breaker: { consecutive_failures: 1000, failure_ratio: 50%, \
         minimum_requests: 10, window: 60s, open_for: 60s }",
    ));
    let client = Client::new(gateway.http());
    for turn in 0..10 {
        assert_eq!(breaker(&gateway, &origin).await["state"], "closed", "after {turn}");
        status.store(if turn % 2 == 0 { 200 } else { 503 }, SeqCst);
        client.get("/").await;
    }
    assert_eq!(breaker(&gateway, &origin).await["state"], "open");
}

#[tokio::test]
async fn half_open_lets_exactly_so_many_through() {
    let gate = Arc::new(Semaphore::new(0));
    let (waiting, (status, current)) = (gate.clone(), {
        let status = Arc::new(AtomicU16::new(503));
        (status.clone(), status)
    });
    let origin = Origin::start_slow(move |_| {
        let (waiting, status) = (waiting.clone(), current.load(SeqCst));
        async move {
            if status == 200 {
                let _ = waiting.acquire().await;
            }
            origin::status(status)
        }
    })
    .await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "retries: { attempts: 0 }, \
         circuit_breaker: { consecutive_failures: 2, open_for: 300ms, half_open_requests: 3 }",
    ));
    let client = Client::new(gateway.http());
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status, 503);
    }
    status.store(200, SeqCst);
    let mut probes = tokio::task::JoinSet::new();
    eventually("the time has come", || async {
        let next = &breaker(&gateway, &origin).await["next_probe_at"];
        (now_milliseconds() > milliseconds(next) + 5).then_some(())
    })
    .await;
    for _ in 0..20 {
        let client = client.clone();
        probes.spawn(async move { client.get("/").await });
    }
    for _ in 0..17 {
        let reply = probes.join_next().await.expect("some are left").expect("no panic");
        assert_eq!((reply.status, reply.code().as_str()), (503, "circuit_open"));
    }
    eventually("the probes have come through", || async { (origin.count() >= 2 + 3).then_some(()) }).await;
    assert_eq!(breaker(&gateway, &origin).await["state"], "half_open");
    assert_eq!(gateway.metric("gatehouse_breaker_state", &["service=\"users\""]).await, 1.0);
    gate.add_permits(1000);
    while let Some(reply) = probes.join_next().await {
        assert_eq!(reply.expect("no panic").status, 200);
    }
    assert_eq!(origin.count(), 2 + 3, "three probes and no more");
    assert_eq!(breaker(&gateway, &origin).await["state"], "closed");
}

#[tokio::test]
async fn it_stays_open_twice_as_long_each_time() {
    let (origin, well) = (Origin::status(503).await, Origin::status(200).await);
    let gateway = Gateway::start(&one_service(
        &[origin.url(), well.url()],
        "retries: { attempts: 0 }, \
         circuit_breaker: { consecutive_failures: 1, open_for: 100ms, max_open_for: 300ms }",
    ));
    let client = Client::new(gateway.http());
    for (openings, length) in [100, 200, 300, 300].into_iter().enumerate() {
        eventually("the next request is let through", || async {
            client.get("/").await;
            (origin.count() == openings + 1).then_some(())
        })
        .await;
        let open = breaker(&gateway, &origin).await;
        let (opened, next) = (milliseconds(&open["opened_at"]), milliseconds(&open["next_probe_at"]));
        assert!((next - opened).rem_euclid(86_400_000).abs_diff(length) <= 3, "{length} ms expected: {open}");
    }
}

/// The longer times are for an instance whose work others do.
#[tokio::test]
async fn while_all_are_open_each_is_tried_after_open_for() {
    let (origin, status) = switchable(503).await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "retries: { attempts: 0 }, \
         circuit_breaker: { consecutive_failures: 1, open_for: 100ms, max_open_for: 1h }",
    ));
    let client = Client::new(gateway.http());
    // Doubled each time, this would take more than three minutes.
    for openings in 1..=12 {
        eventually("the next request is let through", || async {
            client.get("/").await;
            (origin.count() == openings).then_some(())
        })
        .await;
    }
    status.store(200, SeqCst);
    eventually("a probe closes it", || async { (client.get("/").await.status == 200).then_some(()) }).await;
}

/// Of a moment such as `2026-11-21T08:31:00.123Z`, the milliseconds of the day.
fn milliseconds(moment: &serde_json::Value) -> i64 {
    let text = moment.as_str().expect("a moment");
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().expect("digits");
    ((number(11, 13) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1000 + number(20, 23)
}

fn now_milliseconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is past 1970");
    now.as_millis() as i64 % 86_400_000
}

#[tokio::test]
async fn all_open_is_answered_at_once() {
    let origins = [Origin::status(503).await, Origin::status(503).await];
    let gateway = Gateway::start(&one_service(
        &[origins[0].url(), origins[1].url()],
        "circuit_breaker: { consecutive_failures: 1, open_for: 60s }, retries: { backoff: { base: 300ms, max: 300ms } }",
    ));
    let client = Client::new(gateway.http());
    let deadline = Instant::now() + Duration::from_secs(15);
    while origins.iter().any(|origin| origin.count() == 0) {
        assert!(Instant::now() < deadline);
        client.get("/").await;
    }
    let began = Instant::now();
    let reply = client.get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "circuit_open"));
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(gateway.metric("http_errors_total", &["reason=\"circuit_open\""]).await, 1.0);
}

#[tokio::test]
async fn it_lives_on_over_reloads() {
    let origin = Origin::status(503).await;
    let with = |retries: u32| {
        let settings = format!(
            "retries: {{ attempts: {retries} }}, circuit_breaker: {{ consecutive_failures: 1, open_for: 60s }}"
        );
        one_service(&[origin.url()], &settings)
    };
    let gateway = Gateway::start(&with(0));
    let client = Client::new(gateway.http());
    client.get("/").await;
    let open = breaker(&gateway, &origin).await;
    assert_eq!(open["state"], "open");
    let another_route =
        with(0).replace("routes: [", "routes: [{ name: x, match: { path: /x }, respond: { status: 204 } }, ");
    gateway.reconfigure(&another_route).await;
    assert_eq!(breaker(&gateway, &origin).await["state"], "open");
    gateway.reconfigure(&with(1)).await;
    let after = breaker(&gateway, &origin).await;
    assert_eq!(after["state"], "open");
    assert_eq!(client.get("/").await.code(), "circuit_open");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn bodies_that_break_off_open_it() {
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "circuit_breaker: { consecutive_failures: 3, open_for: 60s }",
    ));
    let client = Client::new(gateway.http());
    for _ in 0..3 {
        let broken = client.try_send(http::Method::POST, "/", Default::default()).await;
        assert!(broken.is_err(), "a body that broke off looked whole: {broken:?}");
    }
    eventually("it opens", || async {
        let instance = gateway.instance("users", origin.address).await?;
        (instance["breaker"]["state"] == "open").then_some(())
    })
    .await;
    assert_eq!(client.get("/").await.code(), "circuit_open");
}

/// A probe that is answered with an endless body has succeeded, and holds no place.
#[tokio::test]
async fn a_long_body_holds_no_probes_place() {
    let origin = RawOrigin::start(|mut stream, number| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let head: &[u8] = if number == 1 {
            b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegun"
        };
        let _ = stream.write_all(head).await;
        if number > 1 {
            read_until(&mut stream, "never").await;
        }
    })
    .await;
    let gateway = Gateway::start(&one_service(
        &[origin.url()],
        "retries: { attempts: 0 }, circuit_breaker: { consecutive_failures: 1, open_for: 100ms }",
    ));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.status, 503);
    let mut stream = tokio::net::TcpStream::connect(gateway.http()).await.expect("it listens");
    eventually("the probe's answer has begun", || async {
        let mut one = tokio::net::TcpStream::connect(gateway.http()).await.ok()?;
        one.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.ok()?;
        let head = read_until(&mut one, "\r\n\r\n").await;
        head.starts_with("HTTP/1.1 200").then_some(one)
    })
    .await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}
