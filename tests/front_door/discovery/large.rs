//! Ten thousand instances in a set: how long it takes from what the source says to the set that requests use,
//! and what other requests notice of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::relay::Relay;
use crate::support::told::Told;
use crate::support::{Client, Gateway, Session};

const ALL: u16 = 10_000;
const TURNS: usize = 7;
const CALM_REQUESTS: usize = 50;
/// Between what the source has said and the set, on a machine that has nothing else to do, for the quickest of some changes, which says how fast it is and not how busy
/// the machine is. An unoptimised build takes ten times as long as the one that is released.
const BOUND: Duration = Duration::from_millis(if cfg!(debug_assertions) { 800 } else { 100 });

fn address(number: u16) -> SocketAddr {
    ([127, 1, (number / 250) as u8, (number % 250) as u8], 9).into()
}

/// What each of some changes took, in order: until the set was there, the slowest other request meanwhile, and the slowest of some
/// before it, when nothing changed.
struct Took {
    until_set: Vec<Duration>,
    slowest: Vec<Duration>,
    calm: Vec<Duration>,
}

async fn changes(source: Told, settings: &str, is_it: fn(usize, &[u8]) -> bool) -> Took {
    source.add_all((0..ALL - 1).map(address)).await;
    let relay = match source.address() {
        Some(server) => Some(Relay::to(server, is_it).await),
        None => None,
    };
    let discovery = source.discovery(relay.as_ref().map(|relay| relay.address));
    let gateway = Gateway::start(&format!(
        "workers: 1\nservices: {{ users: {{ discovery: {discovery}, {settings} }} }}\n\
         routes:\n- {{ name: ping, match: {{ path: /ping }}, respond: {{ status: 200, json: {{}} }} }}\n\
         - {{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}\n"
    ));
    if relay.is_some() {
        gateway.wait_for("0 → 9999 instances");
    }
    let lines = || gateway.messages().matches(" instances").count();
    let before = lines();
    let mut session = Session::open(gateway.http()).await;
    let (mut until_set, mut slowest, mut calm) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        let mut worst = Duration::ZERO;
        for _ in 0..CALM_REQUESTS {
            let asked = Instant::now();
            assert_eq!(session.get("/ping").await.status, 200);
            worst = worst.max(asked.elapsed());
        }
        calm.push(worst);
        relay.iter().for_each(Relay::listen_anew);
        let told = Instant::now();
        match turn % 2 {
            0 => source.remove(address(ALL - 1)).await,
            _ => source.add(address(ALL - 1)).await,
        }
        let told = relay.is_none().then(|| told + told.elapsed());
        let mut worst = Duration::ZERO;
        let mut taken_at = Instant::now();
        while lines() < before + turn {
            let asked = Instant::now();
            assert_eq!(session.get("/ping").await.status, 200);
            worst = worst.max(asked.elapsed());
            taken_at = Instant::now();
            assert!(told.unwrap_or(asked).elapsed() < Duration::from_secs(20), "it never took effect");
        }
        // With what the source says it wakes up the gateway, which may be quicker than this.
        let said = told.or_else(|| relay.as_ref()?.said()).expect("it has said it");
        until_set.push(taken_at.saturating_duration_since(said));
        slowest.push(worst);
    }
    until_set.sort();
    slowest.sort();
    calm.sort();
    Took { until_set, slowest, calm }
}

async fn is_quick(source: Told, settings: &str, is_it: fn(usize, &[u8]) -> bool) {
    let kind = match source {
        Told::File(_) => "a file",
        Told::Etcd(_) => "etcd",
        Told::Consul(_) => "Consul",
    };
    let took = changes(source, settings, is_it).await;
    // Shown with --nocapture, and when it fails.
    let Took { until_set, slowest, calm } = &took;
    eprintln!(
        "{kind} {settings}: the set after {until_set:?}, slowest others {slowest:?}, {calm:?} otherwise"
    );
    // A machine on which requests are late when nothing changes makes everything late.
    let late = calm[calm.len() / 2];
    assert!(until_set[0] < BOUND + late * 20, "{until_set:?}, {calm:?} otherwise");
    assert!(slowest[0] < BOUND / 10 + late * 4, "{slowest:?}, {calm:?} otherwise");
}

/// Somebody looks at all of them all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_at_ten_thousand_holds_up_no_change() {
    let source = Told::file();
    source.add_all((0..ALL - 1).map(address)).await;
    let gateway = Gateway::start(&source.configuration("load_balancing: round_robin"));
    let admin = gateway.admin();
    let watching = tokio::spawn(async move {
        loop {
            for path in ["/api/services", "/metrics"] {
                assert_eq!(Client::new(admin).get(path).await.status, 200);
            }
        }
    });
    let lines = || gateway.messages().matches(" instances").count();
    let mut took = Vec::new();
    for turn in 1..=TURNS {
        let (before, told) = (lines(), Instant::now());
        match turn % 2 {
            0 => source.remove(address(ALL - 1)).await,
            _ => source.add(address(ALL - 1)).await,
        }
        while lines() == before {
            assert!(told.elapsed() < Duration::from_secs(20), "it never took effect");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(told.elapsed());
    }
    took.sort();
    assert!(!watching.is_finished(), "whoever looks is answered");
    watching.abort();
    eprintln!("looked at by somebody: the set after {took:?}");
    assert!(took[0] < BOUND * 4, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_ten_thousand_is_followed_at_once() {
    is_quick(Told::file(), "load_balancing: round_robin", |_, _| true).await;
}

/// Thousands of tasks and the points of a ring are made beside the requests as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_of_ten_thousand_hold_up_no_change() {
    let settings = "health_check: { path: /, interval: 10s }";
    is_quick(Told::file(), settings, |_, _| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_in_etcd_are_followed_at_once() {
    let changed = |_, bytes: &[u8]| memchr::memmem::find(bytes, b"\"events\"").is_some();
    is_quick(Told::etcd().await, "load_balancing: round_robin", changed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_in_consul_are_followed_at_once() {
    let Some(consul) = Told::consul().await else { return };
    // All of them, each time.
    is_quick(consul, "load_balancing: round_robin", |so_far, _| so_far > 1024 * 1024).await;
}
