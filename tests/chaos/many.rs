//! More of the instances fail than not: the budget is enough, because those that fail are soon left alone.

use std::time::Duration;

use http::Method;

use crate::faulty::{End, Fault, Then};
use crate::load::Load;
use crate::scene::{Scene, within_budget};

/// Shorter than a request may take. One that nobody else shows the way to goes from one instance to the next.
const SOON: Duration = Duration::from_secs(14);

/// Four of six instances, at once.
async fn two_are_enough(what: &str, faults: [Fault; 4], clients: usize) {
    let scene = Scene::start(6, "").await;
    let load = Load::start(scene.http(), &Method::GET, clients);
    load.go_on(15).await;
    for (instance, fault) in scene.instances.iter().zip(faults) {
        instance.does(fault);
    }
    load.go_on(60).await;
    for notes in load.end(what).await {
        assert_eq!(notes.failed(), 0, "{what}: {}", notes.summary());
        assert!(notes.per_mille(1000) < SOON, "{what}: {}", notes.summary());
        within_budget(&scene, &Method::GET, &notes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_of_six_refuse() {
    two_are_enough("four of six refuse", [Fault::Refuse; 4], 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_of_six_hang() {
    two_are_enough("four of six hang", [Fault::Cut(0, End::Hang); 4], 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_of_six_fail_in_four_ways() {
    let faults = [
        Fault::Refuse,
        Fault::Deaf,
        Fault::Cut(0, End::Reset),
        Fault::Say(b"HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n", Then::Stay),
    ];
    two_are_enough("four of six fail in four ways", faults, 4).await;
}

/// When nobody answers, what the instances are asked more is what the budget allows, and nobody waits for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_fail() {
    for (what, fault) in [
        ("all reset", Fault::Cut(0, End::Reset)),
        ("all hang", Fault::Cut(0, End::Hang)),
        ("all answer 503", Fault::Say(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", Then::Stay)),
    ] {
        let scene = Scene::start(3, "timeouts: { response: 2s }").await;
        let load = Load::start(scene.http(), &Method::GET, 4);
        load.go_on(10).await;
        for instance in &scene.instances {
            instance.does(fault);
        }
        load.go_on(30).await;
        for notes in load.end(what).await {
            assert!(notes.failed() > 0, "{what}: {}", notes.summary());
            assert!(notes.per_mille(1000) < SOON, "{what}: {}", notes.summary());
            within_budget(&scene, &Method::GET, &notes).await;
        }
    }
}
