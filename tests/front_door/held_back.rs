//! Short responses whose head waits for their body: one that breaks off is asked for again, and nothing is kept waiting that is
//! read piece by piece.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::raw::{RawOrigin, read_until, read_until_close};
use crate::support::{Client, Gateway, Origin, eventually, one_service};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nwe\r\n2\r\nll\r\n0\r\nx-sum: 1\r\n\r\n";
const NO_BREAKER: &str = "circuit_breaker: { consecutive_failures: 1000000, failure_ratio: off }";

/// Answers one request of each connection with so many bytes, and closes.
async fn cut_after(answer: &'static str, bytes: usize) -> RawOrigin {
    RawOrigin::answering(&answer.as_bytes()[..bytes]).await
}

/// Round robin over the instances, in one worker.
fn service(instances: &[String], settings: &str) -> Gateway {
    let service = one_service(instances, &format!("load_balancing: round_robin, {settings}"));
    Gateway::start(&format!("workers: 1\n{service}"))
}

/// The replies to two requests, of which one goes to each of two instances first: what is not a whole answer is `None`.
pub async fn two(gateway: &Gateway, method: &Method) -> [Option<(u16, String)>; 2] {
    let client = Client::new(gateway.http());
    let ask = async || {
        let reply = client.try_send(method.clone(), "/", Default::default()).await.ok()?;
        Some((reply.status, reply.text()))
    };
    [ask().await, ask().await]
}

pub fn well() -> Option<(u16, String)> {
    Some((200, "well".to_owned()))
}

#[tokio::test]
async fn an_answer_that_breaks_off_anywhere_is_asked_for_again() {
    // After no byte, after one, and so on.
    let broken = RawOrigin::start(|mut stream, number| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(&ANSWER.as_bytes()[..number - 1]).await;
    })
    .await;
    let origin = Origin::text("well").await;
    let settings = format!("{NO_BREAKER}, retries: {{ backoff: {{ base: 0s }} }}");
    let gateway = service(&[broken.url(), origin.url()], &settings);
    for bytes in 0..ANSWER.len() {
        assert_eq!(two(&gateway, &Method::GET).await, [well(), well()], "after {bytes} bytes");
        assert_eq!(broken.connections(), bytes + 1);
    }
    let all = ANSWER.len() as f64;
    assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, all);
    assert_eq!(gateway.metric("gatehouse_upstream_requests_total", &["outcome=\"reset\""]).await, all);
}

#[tokio::test]
async fn what_is_not_asked_for_again_breaks_off() {
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\nand so on";
    for (answer, method, settings) in [
        (ANSWER, Method::POST, ""),
        (ANSWER, Method::GET, "retries: { buffer_response: 0 }"),
        (ANSWER, Method::GET, "retries: { buffer_response: 3 }"),
        (ANSWER, Method::GET, "retries: { attempts: 0 }"),
        (ANSWER, Method::GET, "retries: { on: [connect_failure] }"),
        (ANSWER, Method::GET, "retries: { methods: [HEAD] }"),
        (long, Method::GET, ""),
    ] {
        let (broken, origin) = (cut_after(answer, answer.len() - 1).await, Origin::text("well").await);
        let gateway = service(&[broken.url(), origin.url()], settings);
        let replies = two(&gateway, &method).await;
        assert!(replies.contains(&None) && replies.contains(&well()), "{method} {settings}: {replies:?}");
        assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 0.0);
    }
}

/// The client is told what happened instead of getting half an answer.
#[tokio::test]
async fn without_a_budget_it_is_a_502() {
    let broken = cut_after(ANSWER, ANSWER.len() - 1).await;
    let gateway = service(&[broken.url()], "retries: { budget: 0% }");
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_reset"));
}

#[tokio::test]
async fn the_breaker_counts_it_once() {
    let (broken, origin) = (cut_after(ANSWER, ANSWER.len() - 2).await, Origin::text("well").await);
    let settings = "circuit_breaker: { consecutive_failures: 3, failure_ratio: off, open_for: 5m }, \
                    retries: { backoff: { base: 0s } }";
    let gateway = service(&[broken.url(), origin.url()], settings);
    for _ in 0..10 {
        assert_eq!(two(&gateway, &Method::GET).await, [well(), well()]);
    }
    assert_eq!(broken.connections(), 3);
    let shown = gateway.instance("users", broken.address).await.expect("it is there");
    assert_eq!((&shown["failures"], &shown["breaker"]["state"]), (&3.into(), &"open".into()), "{shown}");
}

/// Writes the first piece of an answer, and the rest when it is let.
async fn in_pieces(pieces: [&'static str; 2]) -> (RawOrigin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let told = gate.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let told = told.clone();
        async move {
            loop {
                if read_until(&mut stream, "\r\n\r\n").await.is_empty()
                    || stream.write_all(pieces[0].as_bytes()).await.is_err()
                {
                    return;
                }
                told.acquire().await.expect("it is never closed").forget();
                if stream.write_all(pieces[1].as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (origin, gate)
}

/// A client that waits for each piece is not kept waiting for the rest.
#[tokio::test]
async fn a_body_that_takes_long_is_passed_on_as_it_comes() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
    let [one, other] =
        ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nwe\r\n", "2\r\nll\r\n0\r\n\r\n"];
    let events = "HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream; a=b\r\ncontent-length: 4\r\n\r\nwe";
    for (pieces, first, settings) in [
        ([head, "well"], "\r\n\r\n", "timeouts: { silence: 50ms }"),
        ([head, "well"], "\r\n\r\n", "timeouts: { silence: off }"),
        ([head, "well"], "\r\n\r\n", "timeouts: { idle: 100ms }"),
        ([one, other], "we", ""),
        ([events, "ll"], "we", "timeouts: { silence: 1m }"),
    ] {
        let (origin, gate) = in_pieces(pieces).await;
        let gateway = service(&[origin.url()], settings);
        let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("it reads");
        let begun = read_until(&mut client, first).await;
        assert!(begun.starts_with("HTTP/1.1 200"), "{settings}: {begun}");
        gate.add_permits(1);
        let rest = read_until_close(&mut client).await;
        assert!(rest.contains("ll"), "{settings}: {rest}");
    }
}

/// As one that stands still before the head is.
#[tokio::test]
async fn an_instance_that_stands_still_in_the_body_is_silent() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwe";
    let ((stuck, gate), origin) = (in_pieces([head, "ll"]).await, Origin::text("well").await);
    let gateway = service(&[stuck.url(), origin.url()], "timeouts: { silence: 200ms }");
    gate.add_permits(1);
    assert_eq!(two(&gateway, &Method::GET).await, [well(), well()]);
    for _ in 0..3 {
        assert_eq!(two(&gateway, &Method::GET).await, [well(), well()]);
    }
    let shown = || async { gateway.instance("users", stuck.address).await.expect("it is there") };
    assert_eq!(shown().await["passed_over"], "silent");
}

#[tokio::test]
async fn chunks_that_come_soon_are_waited_for() {
    let origin = Origin::text("well").await;
    // The head alone is passed on only when nothing follows it for a while, which can happen to a busy machine.
    for (cut, then) in [(CHUNKED.len() - 1, ""), (CHUNKED.len() - 30, ""), (CHUNKED.len() - 24, "what?")] {
        let broken = RawOrigin::answering(format!("{}{then}", &CHUNKED[..cut])).await;
        let settings = format!("{NO_BREAKER}, retries: {{ backoff: {{ base: 0s }}, budget: 100% }}");
        let gateway = service(&[broken.url(), origin.url()], &settings);
        eventually("both are answered", || async {
            (two(&gateway, &Method::GET).await == [well(), well()]).then_some(())
        })
        .await;
        assert!(gateway.metric("gatehouse_upstream_retries_total", &[]).await >= 1.0, "{then:?}");
    }
    let (whole, gate) = in_pieces([CHUNKED.split_at(60).0, CHUNKED.split_at(60).1]).await;
    gate.add_permits(100);
    let gateway = service(&[whole.url()], "");
    for _ in 0..4 {
        assert_eq!(two(&gateway, &Method::GET).await, [well(), well()]);
    }
    assert_eq!(whole.connections(), 1, "it is kept as it would be otherwise");
}

/// Its length may be told wrong. Where nobody else answers, or nobody else may be asked, what was told is taken for it.
#[tokio::test]
async fn an_answer_longer_than_it_says_is_asked_for_elsewhere() {
    let wrong = || RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell, that is not all");
    let (long, origin) = (wrong().await, Origin::text("well?").await);
    let gateway = service(&[long.url(), origin.url()], "retries: { backoff: { base: 0s } }");
    let other = Some((200, "well?".to_owned()));
    assert_eq!(two(&gateway, &Method::GET).await, [other.clone(), other.clone()]);
    assert_eq!(long.connections(), 1);
    let posted = two(&gateway, &Method::POST).await;
    assert!(posted.contains(&well()) && posted.contains(&other), "{posted:?}");
    let alone = service(&[long.url()], "retries: { backoff: { base: 0s } }");
    for _ in 0..5 {
        assert_eq!(two(&alone, &Method::GET).await, [well(), well()]);
    }
    let shown = alone.instance("users", long.address).await.expect("it is there");
    assert_eq!((&shown["breaker"]["state"], &shown["attempts"]), (&"closed".into(), &10.into()), "{shown}");
}

/// What is past its time is told in the words of that time.
#[tokio::test]
async fn the_time_for_all_of_it_ends_it() {
    let (stuck, _gate) = in_pieces(["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwe", "ll"]).await;
    let gateway = service(&[stuck.url()], "timeouts: { total: 300ms }");
    let began = std::time::Instant::now();
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "total_timeout"));
    assert!(began.elapsed() >= Duration::from_millis(290));
}
