//! The network between the gateway and an instance loses what it carries: no GET fails.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::faulty::{Faulty, HEAD_BYTES};
use crate::load::{Load, Notes};
use crate::relay::{Network, Relay};
use crate::scene::{RULES, Scene, configuration, within_budget};
use crate::support::raw::unreachable;
use crate::support::{Gateway, eventually};

const SOON: Duration = Duration::from_secs(6);

async fn no_get_fails(what: &str, network: Network) {
    for notes in under(what, network, Method::GET).await {
        assert_eq!(notes.failed(), 0, "{what}: {}", notes.summary());
        assert!(notes.per_mille(1000) < SOON, "{what}: {}", notes.summary());
    }
}

async fn under(what: &str, network: Network, method: Method) -> Vec<Arc<Notes>> {
    let mut instances = Vec::new();
    let mut relays = Vec::new();
    for _ in 0..3 {
        let instance = Faulty::start().await;
        relays.push(Relay::start(instance.address).await);
        instances.push(instance);
    }
    let urls: Vec<String> = relays.iter().map(Relay::url).collect();
    let settings = "timeouts: { response: 4s }";
    let scene = Scene { gateway: Gateway::start(&configuration(&urls, settings)), instances };
    let load = Load::start(scene.http(), &method, 3);
    load.go_on(10).await;
    relays[0].is(network);
    load.go_on(50).await;
    relays[0].is(Network::Whole);
    load.go_on(10).await;
    let all = load.end(what).await;
    for notes in &all {
        within_budget(&scene, &method, notes).await;
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parted() {
    no_get_fails("nothing is delivered, either way", Network::Parted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaf() {
    no_get_fails("answers are lost", Network::Deaf).await;
}

/// What was sent is lost behind its first bytes, and everything after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parted_in_the_request() {
    no_get_fails("parted in the head of a request", Network::PartedInRequest(10)).await;
}

/// Its head has come, and nothing of it was passed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parted_in_the_answer() {
    no_get_fails("parted in the head of an answer", Network::PartedInAnswer(20)).await;
    no_get_fails("parted in the body of an answer", Network::PartedInAnswer(HEAD_BYTES + 7)).await;
}

/// Connecting gets no answer, either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parted_before_anything_is_connected() {
    let what = "connecting takes for ever";
    let ((lost, _held), one, other) = (unreachable().await, Faulty::start().await, Faulty::start().await);
    let gateway = Gateway::start(&configuration(&[lost, one.url(), other.url()], ""));
    let scene = Scene { gateway, instances: vec![one, other] };
    let load = Load::start(scene.http(), &Method::GET, 2);
    load.go_on(40).await;
    for notes in load.end(what).await {
        assert_eq!(notes.failed(), 0, "{what}: {}", notes.summary());
        assert!(notes.per_mille(1000) < SOON, "{what}: {}", notes.summary());
        within_budget(&scene, &Method::GET, &notes).await;
    }
}

/// The health checks are lost as well as the requests, find it out without any, and take the instance up again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parted_under_health_checks() {
    let what = "health checks are lost";
    let (one, other) = (Faulty::start().await, Faulty::start().await);
    let relay = Relay::start(one.address).await;
    let settings = "health_check: { path: /health, interval: 200ms, timeout: 1s }";
    let gateway = Gateway::start(&configuration(&[relay.url(), other.url()], settings));
    let scene = Scene { gateway, instances: vec![one, other] };
    let until = async |state: &str| {
        for (rule, _) in RULES {
            eventually(&format!("{rule} finds it {state}"), || async {
                let seen = scene.gateway.instance(rule, relay.address).await.expect("it is configured");
                (seen["health"] == state).then_some(())
            })
            .await;
        }
    };
    until("healthy").await;
    let load = Load::start(scene.http(), &Method::GET, 2);
    load.go_on(10).await;
    relay.is(Network::Parted);
    until("unhealthy").await;
    load.go_on(20).await;
    relay.is(Network::Whole);
    until("healthy").await;
    load.go_on(20).await;
    for notes in load.end(what).await {
        assert_eq!(notes.failed(), 0, "{what}: {}", notes.summary());
        assert!(notes.per_mille(1000) < SOON, "{what}: {}", notes.summary());
    }
}

/// As when a firewall between them was restarted: the instance answers on new connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten() {
    no_get_fails("connections are forgotten", Network::Forgotten).await;
}

/// What was written to a connection that is forgotten is lost. But each such connection is not found out by a request of its
/// own: after the first, all that are idle are closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_shows_it_once() {
    let what = "POST: connections are forgotten";
    for notes in under(what, Network::Forgotten, Method::POST).await {
        let failures = notes.failures();
        assert!(failures.keys().all(|reason| reason == "response_timeout"), "{what}: {failures:?}");
        // As many as there are clients, that were on their way together.
        assert!(notes.failed() <= 3, "{what}: {}", notes.summary());
        assert!(notes.per_mille(1000) < SOON, "{what}: {}", notes.summary());
    }
}
