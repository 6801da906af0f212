//! One of three instances does something wrong: no GET fails, whatever it is and whichever rule balances.

use std::time::Duration;

use http::Method;

use crate::faulty::{ANSWER, End, Fault, HEAD_BYTES, Then};
use crate::load::Load;
use crate::scene::{Scene, within_budget};

/// An answer takes no time here. So long is far more than the gateway takes to see that none will come, on a machine
/// that is busy, and far less than the 15 s that an instance may take.
const SOON: Duration = Duration::from_secs(6);

/// With the defaults of every setting.
async fn no_get_fails(what: &str, fault: Fault) {
    none_fails(what, Method::GET, fault).await;
}

async fn none_fails(what: &str, method: Method, fault: Fault) {
    let scene = Scene::start(3, "").await;
    let load = Load::start(scene.http(), &method, 2);
    load.go_on(10).await;
    scene.instances[0].does(fault);
    load.go_on(40).await;
    scene.instances[0].does(Fault::None);
    load.go_on(10).await;
    for notes in load.end(what).await {
        assert_eq!(notes.failed(), 0, "{what}: {}", notes.summary());
        assert!(notes.per_mille(1000) < SOON, "{what}: {}", notes.summary());
        within_budget(&scene, &method, &notes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused() {
    no_get_fails("connections are refused", Fault::Refuse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_before_an_answer() {
    no_get_fails("reset before an answer", Fault::Cut(0, End::Reset)).await;
    no_get_fails("closed before an answer", Fault::Cut(0, End::Close)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_in_the_head() {
    no_get_fails("reset at the first byte of the head", Fault::Cut(1, End::Reset)).await;
    no_get_fails("closed before the last byte of the head", Fault::Cut(HEAD_BYTES - 1, End::Close)).await;
}

/// Nothing of a short answer is passed on before all of it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_in_the_body() {
    no_get_fails("closed behind the head", Fault::Cut(HEAD_BYTES, End::Close)).await;
    no_get_fails("reset before the last byte", Fault::Cut(ANSWER.len() - 1, End::Reset)).await;
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\nall twenty are here.";
    no_get_fails("less than was said", Fault::Say(short, Then::Close)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_anywhere() {
    no_get_fails("reset at any byte", Fault::CutAnywhere(End::Reset)).await;
    no_get_fails("closed at any byte", Fault::CutAnywhere(End::Close)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_in_the_body() {
    no_get_fails("hung in the midst of the body", Fault::Cut(HEAD_BYTES + 7, End::Hang)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung() {
    no_get_fails("hung before connections are accepted", Fault::Deaf).await;
    no_get_fails("hung before the head", Fault::Cut(0, End::Hang)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_in_the_head() {
    no_get_fails("hung in the midst of the head", Fault::Cut(20, End::Hang)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dripping() {
    no_get_fails("a byte in 100 ms", Fault::Drip(Duration::from_millis(100))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage() {
    no_get_fails("no HTTP", Fault::Say(b"\x16\x03\x01 what?\r\n\r\n", Then::Stay)).await;
    let two = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx";
    no_get_fails("two lengths", Fault::Say(two, Then::Stay)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_was_asked_for() {
    let more = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nall twenty are here.and more";
    no_get_fails("bytes beyond the length", Fault::Say(more, Then::Stay)).await;
    let two = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nall twenty are here.\
                HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    no_get_fails("two answers", Fault::Say(two, Then::Stay)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_and_gone() {
    no_get_fails("an answer before the question", Fault::Early).await;
    no_get_fails("kept connections are closed", Fault::CloseIdle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_without_warning() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nall twenty are here.";
    no_get_fails("closed after each answer", Fault::Say(answer, Then::Close)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unwell() {
    let busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
    no_get_fails("503", Fault::Say(busy, Then::Stay)).await;
}

/// What holds for a GET holds for whatever may be sent twice, with a body (of a PUT, here) or without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_methods() {
    none_fails("DELETE: reset before an answer", Method::DELETE, Fault::Cut(0, End::Reset)).await;
    none_fails("PUT: hung before the head", Method::PUT, Fault::Cut(0, End::Hang)).await;
    none_fails("PUT: hung before connections are accepted", Method::PUT, Fault::Deaf).await;
    none_fails("PUT: reset at any byte", Method::PUT, Fault::CutAnywhere(End::Reset)).await;
}
