//! The registry as a source, on a paused clock.

use super::registries::{Announcement, Store};
use super::*;

fn announce(host: &str, port: u16) -> Announcement {
    Announcement::new("users", host, port).expect("valid")
}

fn start_registry(resolver: Arc<dyn Resolve>) -> (Arc<Store>, Arc<Sink>, [Running; 2]) {
    let store = Arc::new(Store::new(Duration::from_secs(30)));
    let sink = Sink::new();
    let shared = Sources { resolver, registry: Some(store.clone()) };
    let source = start_with(InstanceSource::Registry, &sink, shared);
    let expiry = store.clone();
    let expiry = Running(tokio::spawn(async move { expiry.expire().await }));
    (store, sink, [source, expiry])
}

#[tokio::test(start_paused = true)]
async fn nobody_registered_is_an_answer_and_registration_shows_at_once() {
    let (store, sink, _running) = start_registry(Fake::new());
    sink.until_set(&[]).await;
    store.register(announce("127.0.0.1", 8001)).expect("room");
    store.register(announce("127.0.0.1", 8001).with_weight(3).expect("valid")).expect("room");
    sink.until_set(&["127.0.0.1:8001*3"]).await;
    store.register(announce("::1", 8001)).expect("room");
    sink.until_set(&["127.0.0.1:8001*3", "[::1]:8001*1"]).await;
    store.deregister(&announce("127.0.0.1", 8001).key).expect("known");
    sink.until_set(&["[::1]:8001*1"]).await;
    assert!(sink.said().faults.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_instance_leaves_within_a_second_of_the_ttl() {
    let (store, sink, _running) = start_registry(Fake::new());
    store.register(announce("10.0.0.1", 1)).expect("room");
    store.register(announce("10.0.0.2", 1)).expect("room");
    sink.until_set(&["10.0.0.1:1*1", "10.0.0.2:1*1"]).await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        store.heartbeat(announce("10.0.0.2", 1)).expect("known");
    }
    tokio::time::sleep(Duration::from_millis(5900)).await;
    assert_eq!(sink.set().map(|set| set.len()), Some(2), "29.9 s of silence are not yet 30");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sink.set(), Some(vec!["10.0.0.2:1*1".to_owned()]));
    assert!(store.heartbeat(announce("10.0.0.1", 1)).is_err(), "it has to register again");
    sink.until_set(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registered_name_is_resolved_and_its_failure_told() {
    let resolver = Fake::new();
    let (store, sink, _running) = start_registry(resolver.clone());
    store.register(announce("users-1", 1)).expect("room");
    store.register(announce("10.0.0.2", 1)).expect("room");
    sink.until_set(&["10.0.0.2:1*1"]).await;
    sink.until("the failure was not told", |said| said.faults == [Some("users-1: no such name".into())])
        .await;
    resolver.answers("users-1", &["10.0.0.1"]);
    while sink.set().is_some_and(|set| set.len() < 2) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = store.heartbeat(announce("users-1", 1));
        let _ = store.heartbeat(announce("10.0.0.2", 1));
    }
    assert_eq!(sink.set(), Some(vec!["10.0.0.1:1*1".to_owned(), "10.0.0.2:1*1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_source_without_a_registry_says_so() {
    let sink = Sink::new();
    let _running = start(InstanceSource::Registry, &sink, Fake::new());
    let fault = Some("the configuration has no \"registry\"".to_owned());
    sink.until("it was not told", |said| said.faults == [fault.clone()]).await;
    assert!(sink.said().sets.is_empty());
}
