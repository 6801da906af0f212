//! What may not be sent twice: a POST fails only where the instance may have done what it asks, and says what happened.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::Method;

use crate::faulty::{End, Fault, HEAD_BYTES, Then};
use crate::load::Load;
use crate::scene::{Scene, within_budget};

/// With time limits that end within the test.
const SETTINGS: &str = "timeouts: { response: 3s, idle: 3s }";
/// Failures in a row that open a breaker, and what was under way beside them.
const FEW: usize = 5 + 3;

/// How POSTs fail under a fault at one of three instances: by the name of the reason, over all rules.
async fn failures(what: &str, fault: Fault) -> BTreeMap<String, usize> {
    let scene = Scene::start(3, SETTINGS).await;
    let load = Load::start(scene.http(), &Method::POST, 2);
    load.go_on(10).await;
    scene.instances[0].does(fault);
    let began = Instant::now();
    load.go_on(40).await;
    // A breaker's probe may find out that it is not over, at most twice in this time.
    let probes = 1 + began.elapsed().as_secs() as usize / 5;
    scene.instances[0].does(Fault::None);
    load.go_on(10).await;
    let mut all = BTreeMap::new();
    for notes in load.end(what).await {
        assert!(notes.failed() <= FEW + probes, "{what}: {}", notes.summary());
        assert!(notes.per_mille(1000) < Duration::from_secs(6), "{what}: {}", notes.summary());
        within_budget(&scene, &Method::POST, &notes).await;
        // Each was sent to one instance only.
        let seen = scene.seen("POST", notes.rule);
        assert!(seen <= notes.asked(), "{what}: {seen} for {}", notes.summary());
        for (failure, count) in notes.failures() {
            *all.entry(failure).or_default() += count;
        }
    }
    all
}

fn only(failures: &BTreeMap<String, usize>, reason: &str) {
    let all: Vec<&str> = failures.keys().map(String::as_str).collect();
    assert_eq!(all, [reason], "{failures:?}");
}

/// Nothing of it was sent: it goes elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_shows_of_a_refused_connection() {
    let failures = failures("POST: connections are refused", Fault::Refuse).await;
    // Those that were on their way when the instance went.
    assert!(failures.is_empty() || failures.keys().eq(["upstream_reset"]), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_shows_of_what_comes_beside_the_answer() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nall twenty are here.";
    let more = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nall twenty are here.and more";
    for (what, fault) in [
        ("POST: closed after each answer", Fault::Say(answer, Then::Close)),
        ("POST: bytes beyond the length", Fault::Say(more, Then::Stay)),
        ("POST: an answer before the question", Fault::Early),
    ] {
        assert_eq!(failures(what, fault).await, BTreeMap::new(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_shows() {
    only(&failures("POST: reset before an answer", Fault::Cut(0, End::Reset)).await, "upstream_reset");
    let in_the_head = Fault::Cut(HEAD_BYTES - 3, End::Close);
    only(&failures("POST: closed in the head", in_the_head).await, "upstream_reset");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_http_shows() {
    let garbage = Fault::Say(b"\x16\x03\x01 what?\r\n\r\n", Then::Stay);
    only(&failures("POST: no HTTP", garbage).await, "invalid_response");
}

/// It waits until its time is over: the instance may still do it. Others don't go there meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_shows_after_its_time() {
    only(&failures("POST: hung before the head", Fault::Cut(0, End::Hang)).await, "response_timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_503_is_passed_on() {
    let busy = Fault::Say(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", Then::Stay);
    only(&failures("POST: 503", busy).await, "status 503");
}
