//! An instance whose last answers were failures: requests that would be seen to fail there go elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use http::{Method, Response};
use http_body_util::Full;
use tokio::io::AsyncWriteExt;

use crate::support::raw::{RawOrigin, read_until};
use crate::support::{Client, Gateway, Origin, eventually, one_service};

/// Breakers out of the way.
const NO_BREAKER: &str = "circuit_breaker: { consecutive_failures: 1000000, failure_ratio: off }";

const NONE: [u16; 0] = [];

/// Round robin over the instances, in one worker.
fn service(instances: &[String], settings: &str) -> Gateway {
    let service = one_service(instances, &format!("load_balancing: round_robin, {NO_BREAKER}, {settings}"));
    Gateway::start(&format!("workers: 1\n{service}"))
}

/// The statuses of so many requests that were not 200, and how many of them may be such that tried the instance again.
async fn failures(gateway: &Gateway, method: Method, requests: usize) -> (Vec<u16>, usize) {
    let (client, began) = (Client::new(gateway.http()), Instant::now());
    let mut failed = Vec::new();
    for _ in 0..requests {
        let status = client.send(method.clone(), "/", Default::default()).await.status;
        if status != 200 {
            failed.push(status);
        }
    }
    (failed, began.elapsed().as_secs() as usize / 5)
}

async fn passed_over(gateway: &Gateway, address: std::net::SocketAddr) -> serde_json::Value {
    gateway.instance("users", address).await.expect("it is there")["passed_over"].clone()
}

/// Reads a request and breaks off while it is told to, or else answers; how many POSTs it has answered.
async fn breaking() -> (RawOrigin, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (breaks, posts) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (told, counted) = (breaks.clone(), posts.clone());
    let origin = RawOrigin::start(move |mut stream, _| {
        let (told, counted) = (told.clone(), counted.clone());
        async move {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            if !told.load(SeqCst) {
                counted.fetch_add(usize::from(head.starts_with("POST")), SeqCst);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwell";
                let _ = stream.write_all(answer).await;
            }
        }
    })
    .await;
    (origin, breaks, posts)
}

/// An origin whose status the test sets.
async fn switchable(status: u16) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let current = status.clone();
    let answer = move |_: &_| Response::builder().status(current.load(SeqCst)).body(Full::from("said"));
    (Origin::start(move |seen| answer(seen).expect("constants")).await, status)
}

#[tokio::test]
async fn posts_avoid_what_broke_off_until_a_get_was_answered() {
    let ((broken, breaks, posts), well) = (breaking().await, Origin::text("well").await);
    let gateway = service(&[broken.url(), well.url()], "");
    let (failed, tries) = failures(&gateway, Method::POST, 20).await;
    assert!(failed.contains(&502) && failed.len() <= 1 + tries, "{failed:?}");
    assert_eq!(passed_over(&gateway, broken.address).await, "failing");
    // They are tried again elsewhere, so nobody need spare them.
    let before = broken.connections();
    assert_eq!(failures(&gateway, Method::GET, 6).await.0, NONE);
    assert!(broken.connections() >= before + 3, "{} of six GETs were there", broken.connections() - before);

    breaks.store(false, SeqCst);
    assert_eq!(failures(&gateway, Method::GET, 2).await.0, NONE);
    assert_eq!(passed_over(&gateway, broken.address).await, serde_json::Value::Null);
    assert_eq!(failures(&gateway, Method::POST, 4).await.0, NONE);
    assert!(posts.load(SeqCst) >= 2);
}

#[tokio::test]
async fn after_two_errors_that_no_breaker_counts_others_get_the_requests() {
    let ((broken, _), well) = (switchable(500).await, Origin::text("well").await);
    for method in [Method::GET, Method::POST] {
        let gateway = service(&[broken.url(), well.url()], "");
        let (failed, tries) = failures(&gateway, method.clone(), 30).await;
        assert!(failed.len() >= 2 && failed.len() <= 2 + tries, "{method}: {failed:?}");
    }
}

/// 503 is counted and tried again, for a GET: its breaker would have opened.
#[tokio::test]
async fn who_is_tried_again_finds_out_for_the_breaker() {
    let ((busy, _), well) = (switchable(503).await, Origin::text("well").await);
    let gateway = service(&[busy.url(), well.url()], "");
    assert_eq!(failures(&gateway, Method::GET, 20).await.0, NONE);
    assert!(busy.count() >= 10);
    let (failed, tries) = failures(&gateway, Method::POST, 20).await;
    assert!(failed.len() <= tries, "what the GETs have seen is known: {failed:?}");
}

#[tokio::test]
async fn where_all_fail_all_are_asked() {
    let (one, _) = switchable(500).await;
    let (other, _) = switchable(500).await;
    for instances in [vec![one.url()], vec![one.url(), other.url()]] {
        let gateway = service(&instances, "");
        assert_eq!(failures(&gateway, Method::POST, 10).await.0, [500; 10]);
    }
    assert!(other.count() >= 4, "both are used: {}", other.count());
}

/// A request that nobody sees to fail finds out within a second or so.
#[tokio::test]
async fn it_is_used_again_when_it_answers() {
    let ((broken, status), well) = (switchable(500).await, Origin::text("well").await);
    let gateway = service(&[broken.url(), well.url()], "retries: { on: [connect_failure, reset, 500-599] }");
    assert_eq!(failures(&gateway, Method::GET, 10).await.0, NONE);
    let before = broken.count();
    status.store(200, SeqCst);
    eventually("it gets requests again", || async {
        assert_eq!(failures(&gateway, Method::GET, 2).await.0, NONE);
        (broken.count() >= before + 3).then_some(())
    })
    .await;
    assert_eq!(passed_over(&gateway, broken.address).await, serde_json::Value::Null);
}

/// Who stays with an instance has something there.
#[tokio::test]
async fn clients_that_stay_with_it_stay() {
    let ((one, status), other) = (switchable(200).await, Origin::text("well").await);
    let gateway = service(&[one.url(), other.url()], "sticky: { cookie: at }");
    let client = Client::new(gateway.http());
    let cookie = async || {
        let reply = client.get("/").await;
        (reply.text() == "said").then(|| reply.header("set-cookie").expect("it is new").to_owned())
    };
    let cookie = eventually("one of them is there", cookie).await;
    let stays = Client::new(gateway.http()).header("cookie", cookie.split(';').next().unwrap_or_default());
    status.store(500, SeqCst);
    for _ in 0..5 {
        assert_eq!(stays.get("/").await.status, 500);
    }
}

#[tokio::test]
async fn the_first_retry_goes_elsewhere_at_once() {
    let ((busy, _), well) = (switchable(503).await, Origin::text("well").await);
    let patient = "retries: { backoff: { base: 14s, max: 14s } }";
    let gateway = service(&[busy.url(), well.url()], patient);
    let began = Instant::now();
    assert_eq!(failures(&gateway, Method::GET, 8).await.0, NONE);
    // At random, up to 14 seconds each.
    assert!(began.elapsed().as_secs() < 14, "four of them have waited");
    assert!(busy.count() >= 4);
}
