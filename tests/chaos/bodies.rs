//! What shows: the head of an answer was passed on, and its body goes wrong. Where the body is longer than what a head waits for, that
//! is so whatever the method; otherwise only what may not be sent twice comes to it.

use http::Method;

use crate::faulty::{End, Fault, HEAD_BYTES, Then};
use crate::load::Load;
use crate::scene::{Scene, within_budget};

/// Failures in a row that open a breaker, and what was under way beside them.
const FEW: usize = 5 + 3;

/// No broken body looks whole, and after a few of them the instance gets no more requests.
async fn is_broken_off(what: &str, method: Method, fault: Fault) {
    let scene = Scene::start(3, "timeouts: { idle: 500ms }").await;
    let load = Load::start(scene.http(), &method, 2);
    load.go_on(10).await;
    scene.instances[0].does(fault);
    load.go_on(40).await;
    scene.instances[0].does(Fault::None);
    load.go_on(10).await;
    let all = load.end(what).await;
    for notes in &all {
        for failure in notes.failures().keys() {
            assert!(failure.starts_with("broken off"), "{what}: {}", notes.summary());
        }
        // A probe may be one of them, too.
        assert!(notes.failed() <= FEW + 2, "{what}: {}", notes.summary());
        within_budget(&scene, &method, notes).await;
    }
    assert!(all.iter().any(|notes| notes.failed() > 0), "{what}: nothing was broken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_or_reset_in_the_body() {
    let fault = Fault::Cut(HEAD_BYTES + 7, End::Close);
    is_broken_off("POST: closed in the midst of the body", Method::POST, fault).await;
    let long = b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\nall twenty are here.";
    is_broken_off("less than was said, and that was much", Method::GET, Fault::Say(long, Then::Close)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_in_the_body() {
    let fault = Fault::Cut(HEAD_BYTES + 7, End::Hang);
    is_broken_off("POST: hung in the midst of the body", Method::POST, fault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_last_chunk() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n14\r\nall twenty are here.\r\n";
    is_broken_off("POST: no last chunk", Method::POST, Fault::Say(chunked, Then::Close)).await;
}
