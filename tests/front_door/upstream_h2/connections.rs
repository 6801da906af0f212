//! How many connections there are, and which requests are on them.

use std::sync::Arc;

use h2::server::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::to;
use crate::support::h2_origin::{Asked, H2Origin};
use crate::support::{Client, Gateway, eventually};

/// Nobody is to be told to go elsewhere because the machine is busy.
const PATIENT: &str = "timeouts: { connect: 15s }";

/// An origin that answers when `go` says so.
async fn held(builder: Builder) -> (H2Origin, watch::Sender<bool>) {
    let (go, gate) = watch::channel(false);
    let origin = H2Origin::start(builder, move |asked: Asked| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|go| *go).await;
            let text = format!("{} on {}", asked.head.uri.path(), asked.connection);
            asked.answer(text).await;
        }
    })
    .await;
    (origin, go)
}

fn ask(gateway: &Gateway, count: usize) -> JoinSet<String> {
    let mut asking = JoinSet::new();
    for number in 0..count {
        let client = Client::new(gateway.http());
        asking.spawn(async move { client.get(&format!("/{number}")).await.text() });
    }
    asking
}

#[tokio::test]
async fn requests_share_a_connection() {
    let (origin, go) = held(Builder::new()).await;
    let gateway = to(&[origin.url()], PATIENT);
    let asking = ask(&gateway, 100);
    eventually("all are with the instance", || async { (origin.seen().len() == 100).then_some(()) }).await;
    assert_eq!(origin.connections(), 1);
    go.send_replace(true);
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|answer| answer.ends_with(" on 1")), "{answers:?}");
}

#[tokio::test]
async fn another_connection_is_opened_when_those_there_are_full() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(3);
    let (origin, go) = held(builder).await;
    let gateway = to(&[origin.url()], PATIENT);
    let asking = ask(&gateway, 10);
    eventually("all are with the instance", || async { (origin.seen().len() == 10).then_some(()) }).await;
    assert_eq!(origin.connections(), 4);
    go.send_replace(true);
    assert_eq!(asking.join_all().await.len(), 10);
}

#[tokio::test]
async fn no_more_than_the_pool_may_have() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let (origin, go) = held(builder).await;
    let gateway = to(&[origin.url()], &format!("pool: {{ max_connections: 2 }}, {PATIENT}"));
    let asking = ask(&gateway, 9);
    eventually("there is no place left", || async { (origin.seen().len() == 4).then_some(()) }).await;
    go.send_replace(true);
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|answer| answer.contains(" on ")), "{answers:?}");
    assert_eq!((answers.len(), origin.connections()), (9, 2));
}

#[tokio::test]
async fn who_finds_no_place_in_time_is_told() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(1);
    let (origin, go) = held(builder).await;
    let settings = "pool: { max_connections: 1 }, timeouts: { connect: 1500ms }, retries: { attempts: 0 }";
    let gateway = to(&[origin.url()], settings);
    let mut asking = ask(&gateway, 1);
    eventually("it is with the instance", || async { (origin.seen().len() == 1).then_some(()) }).await;
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, &reply.code()[..]), (503, "pool_exhausted"));
    go.send_replace(true);
    assert_eq!(asking.join_next().await.expect("one").expect("no panic"), "/0 on 1");
    assert_eq!(Client::new(gateway.http()).get("/later").await.text(), "/later on 1");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_another_opened() {
    let (origin, go) = held(Builder::new()).await;
    go.send_replace(true);
    let gateway = to(&[origin.url()], "pool: { idle_timeout: 100ms }");
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/a").await.text(), "/a on 1");
    eventually("it is closed", || async { (origin.open_connections() == 0).then_some(()) }).await;
    assert_eq!(client.get("/b").await.text(), "/b on 2");
}

#[tokio::test]
async fn requests_begin_elsewhere_when_a_connection_goes_away() {
    let (origin, go) = held(Builder::new()).await;
    let gateway = to(&[origin.url()], "");
    let before = ask(&gateway, 5);
    eventually("all are with the instance", || async { (origin.seen().len() == 5).then_some(()) }).await;
    origin.go_away();
    // Told or not: nobody is lost.
    let client = Arc::new(Client::new(gateway.http()));
    go.send_replace(true);
    for answer in before.join_all().await {
        assert!(answer.ends_with(" on 1"), "what was begun is answered: {answer}");
    }
    eventually("another connection is used", || async {
        let reply = client.post("/", "order").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text().ends_with(" on 2").then_some(())
    })
    .await;
}
