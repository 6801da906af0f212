//! Short responses over HTTP/2 whose head waits for their body, as over HTTP/1.1: one that breaks off is asked for again, and nothing
//! is kept waiting that is read piece by piece.

use std::sync::Arc;

use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::to;
use crate::held_back::{two, well};
use crate::support::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, block};
use crate::support::h2_origin::H2Origin;
use crate::support::raw::{RawOrigin, read_until, read_until_close};
use crate::support::{Client, Gateway, eventually};

const NO_BREAKER: &str = "circuit_breaker: { consecutive_failures: 1000000, failure_ratio: off }";
const AT_ONCE: &str = "retries: { backoff: { base: 0s } }";
/// Longer than a busy machine holds anybody up.
const PATIENT: &str = "timeouts: { silence: 1m }";
const LENGTH: (&str, &str) = ("content-length", "4");

/// What an instance says of an answer.
#[derive(Clone)]
struct Answer {
    fields: Vec<(&'static str, &'static str)>,
    body: &'static str,
    /// How it goes on after that.
    then: Then,
    /// Not before the gateway has read what came first.
    afterwards: bool,
}

#[derive(Clone, Copy)]
enum Then {
    Reset,
    Close,
    End,
}

impl Answer {
    /// With its length; all of it would be "well".
    fn cut(bytes: usize, then: Then, afterwards: bool) -> Answer {
        Answer { fields: vec![(":status", "200"), LENGTH], body: &"well"[..bytes], then, afterwards }
    }

    /// Says it; whether the connection goes on.
    async fn say(&self, frames: &mut Frames, stream: u32) -> bool {
        frames.send(HEADERS, END_HEADERS, stream, &block(&self.fields)).await;
        if !self.body.is_empty() {
            frames.send(DATA, 0, stream, self.body.as_bytes()).await;
        }
        if self.afterwards {
            frames.until_read().await;
        }
        const INTERNAL_ERROR: [u8; 4] = [0, 0, 0, 2];
        match self.then {
            Then::Reset => frames.send(RST_STREAM, 0, stream, &INTERNAL_ERROR).await,
            Then::End => frames.send(DATA, END_STREAM, stream, b"").await,
            Then::Close => false,
        }
    }
}

/// An instance that gives the answer that `answer` names for its request of that number, from 1 on each connection.
async fn instance(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> RawOrigin {
    let answer = Arc::new(answer);
    RawOrigin::start(move |stream, _| {
        let answer = answer.clone();
        async move {
            let mut frames = Frames::accept(stream).await;
            for number in 1.. {
                let Some(stream) = frames.asked().await else { return };
                if !answer(number).say(&mut frames, stream).await {
                    return;
                }
            }
        }
    })
    .await
}

/// Round robin over the instances, in one worker.
fn service(instances: &[String], settings: &str) -> Gateway {
    to(instances, &format!("load_balancing: round_robin, {settings}"))
}

#[tokio::test]
async fn an_answer_that_breaks_off_anywhere_is_asked_for_again() {
    for then in [Then::Reset, Then::Close] {
        for afterwards in [false, true] {
            let broken = instance(move |number| Answer::cut((number - 1) % 5, then, afterwards)).await;
            let good = H2Origin::text("well").await;
            let settings = format!("{NO_BREAKER}, {AT_ONCE}, {PATIENT}");
            let gateway = service(&[broken.url(), good.url()], &settings);
            for _ in 0..5 {
                assert_eq!(two(&gateway, &Method::GET).await, [well(), well()]);
            }
            assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 5.0);
            let resets = gateway.metric("gatehouse_upstream_requests_total", &["outcome=\"reset\""]).await;
            assert_eq!(resets, 5.0);
        }
    }
}

/// It is no connection that the instance had closed for being idle: it had begun to answer.
#[tokio::test]
async fn a_connection_that_breaks_off_in_an_answer_is_a_failure_of_its_instance() {
    let broken = instance(|number| match number {
        1 => Answer::cut(4, Then::End, false),
        _ => Answer::cut(2, Then::Close, true),
    })
    .await;
    let good = H2Origin::text("well").await;
    let gateway = service(&[broken.url(), good.url()], &format!("{AT_ONCE}, {PATIENT}"));
    for _ in 0..2 {
        assert_eq!(two(&gateway, &Method::GET).await, [well(), well()]);
    }
    let shown = gateway.instance("users", broken.address).await.expect("it is there");
    assert_eq!((&shown["attempts"], &shown["failures"]), (&2.into(), &1.into()), "{shown}");
    assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 1.0);
}

#[tokio::test]
async fn what_is_not_asked_for_again_breaks_off() {
    let cut = Answer::cut(3, Then::Reset, true);
    let long = Answer { fields: vec![(":status", "200"), ("content-length", "20000")], ..cut.clone() };
    let calls = vec![(":status", "200"), LENGTH, ("content-type", "application/grpc")];
    let call = Answer { fields: calls, ..cut.clone() };
    for (answer, method, settings) in [
        (&cut, Method::POST, ""),
        (&cut, Method::GET, "retries: { buffer_response: 0 }"),
        (&cut, Method::GET, "retries: { buffer_response: 3 }"),
        (&cut, Method::GET, "retries: { attempts: 0 }"),
        (&cut, Method::GET, "retries: { on: [connect_failure] }"),
        (&cut, Method::GET, "retries: { methods: [HEAD] }"),
        (&long, Method::GET, ""),
        (&call, Method::GET, ""),
    ] {
        let said = answer.clone();
        let (broken, good) = (instance(move |_| said.clone()).await, H2Origin::text("well").await);
        let gateway = service(&[broken.url(), good.url()], settings);
        let replies = two(&gateway, &method).await;
        assert!(replies.contains(&None) && replies.contains(&well()), "{method} {settings}: {replies:?}");
        assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 0.0);
    }
}

/// The client is told what happened instead of getting half an answer.
#[tokio::test]
async fn without_a_budget_it_is_a_502() {
    let broken = instance(|_| Answer::cut(3, Then::Reset, true)).await;
    let gateway = service(&[broken.url()], &format!("retries: {{ budget: 0% }}, {PATIENT}"));
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_reset"));
}

/// However its frames come, and with or without its length.
#[tokio::test]
async fn a_whole_answer_is_passed_on_whole() {
    for afterwards in [false, true] {
        for fields in [vec![(":status", "200"), LENGTH], vec![(":status", "200")]] {
            let answer = Answer { fields: fields.clone(), ..Answer::cut(4, Then::End, afterwards) };
            let whole = instance(move |_| answer.clone()).await;
            let gateway = service(&[whole.url()], "");
            for _ in 0..3 {
                assert_eq!(two(&gateway, &Method::GET).await, [well(), well()]);
            }
            assert_eq!(whole.connections(), 1, "{fields:?}");
        }
    }
}

/// Without a length it is waited for only a little, which may be too little on a busy machine.
#[tokio::test]
async fn one_without_a_length_is_waited_for_as_well() {
    let answer = Answer { fields: vec![(":status", "200")], ..Answer::cut(2, Then::Reset, false) };
    let (broken, good) = (instance(move |_| answer.clone()).await, H2Origin::text("well").await);
    let settings = format!("{NO_BREAKER}, retries: {{ backoff: {{ base: 0s }}, budget: 100% }}");
    let gateway = service(&[broken.url(), good.url()], &settings);
    eventually("both are answered", || async {
        (two(&gateway, &Method::GET).await == [well(), well()]).then_some(())
    })
    .await;
    assert!(gateway.metric("gatehouse_upstream_retries_total", &[]).await >= 1.0);
}

/// Says the first half of "well", and the rest when it is let.
async fn in_halves(fields: Vec<(&'static str, &'static str)>) -> (RawOrigin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let (told, head) = (gate.clone(), block(&fields));
    let origin = RawOrigin::start(move |stream, _| {
        let (told, head) = (told.clone(), head.clone());
        async move {
            let mut frames = Frames::accept(stream).await;
            while let Some(stream) = frames.asked().await {
                frames.send(HEADERS, END_HEADERS, stream, &head).await;
                frames.send(DATA, 0, stream, b"we").await;
                told.acquire().await.expect("it is never closed").forget();
                frames.send(DATA, END_STREAM, stream, b"ll").await;
            }
        }
    })
    .await;
    (origin, gate)
}

/// A client that waits for each piece is not kept waiting for the rest.
#[tokio::test]
async fn a_body_that_takes_long_is_passed_on_as_it_comes() {
    let events = ("content-type", "text/event-stream");
    for (fields, settings) in [
        (vec![LENGTH], "timeouts: { silence: 50ms }"),
        (vec![LENGTH], "timeouts: { silence: off }"),
        (vec![LENGTH], "timeouts: { idle: 100ms }"),
        (vec![], ""),
        (vec![LENGTH, events], PATIENT),
    ] {
        let (origin, gate) = in_halves([vec![(":status", "200")], fields].concat()).await;
        let gateway = service(&[origin.url()], settings);
        let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("it reads");
        let begun = read_until(&mut client, "we").await;
        assert!(begun.starts_with("HTTP/1.1 200"), "{settings}: {begun}");
        gate.add_permits(1);
        let rest = read_until_close(&mut client).await;
        assert!(rest.contains("ll"), "{settings}: {rest}");
    }
}

/// As one that stands still before the head is.
#[tokio::test]
async fn an_instance_that_stands_still_in_the_body_is_silent() {
    let (stuck, gate) = in_halves(vec![(":status", "200"), LENGTH]).await;
    let good = H2Origin::text("well").await;
    let gateway = service(&[stuck.url(), good.url()], "timeouts: { silence: 200ms }");
    gate.add_permits(1);
    for _ in 0..4 {
        assert_eq!(two(&gateway, &Method::GET).await, [well(), well()]);
    }
    let shown = gateway.instance("users", stuck.address).await.expect("it is there");
    assert_eq!(shown["passed_over"], "silent");
}
