//! A second attempt while the first is slow: who gets one, whose answer is taken, and how many there may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::Method;
use tokio::task::JoinSet;

use crate::support::{Client, Gateway, Origin, eventually, one_service, origin};

/// In turn, so that the first instance gets the first request and the second a hedge of it.
fn in_turn(origins: &[&Origin], settings: &str) -> Gateway {
    let urls: Vec<String> = origins.iter().map(|origin| origin.url()).collect();
    let settings = format!("load_balancing: round_robin, {settings}");
    Gateway::start(&format!("workers: 1\n{}", one_service(&urls, &settings)))
}

async fn after(wait: Duration, status: u16) -> Origin {
    Origin::start_slow(move |_| async move {
        tokio::time::sleep(wait).await;
        origin::status(status)
    })
    .await
}

async fn silent() -> Origin {
    after(Duration::from_secs(3600), 200).await
}

const SOON: Duration = Duration::from_millis(400);

#[tokio::test]
async fn the_second_answers_while_the_first_hangs() {
    let (hanging, well) = (silent().await, Origin::text("well").await);
    let gateway = in_turn(&[&hanging, &well], "hedging: { after: 50ms, budget: 100% }");
    let client = Client::new(gateway.http());
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(client.get("/").await.text(), "well");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "the hanging one was waited for");
    let hedged = hanging.count();
    assert!(hedged > 0);
    for name in ["gatehouse_hedges_total", "gatehouse_hedges_won_total"] {
        assert_eq!(gateway.metric(name, &["service=\"users\""]).await, hedged as f64, "{name}");
    }
    assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 0.0);
    eventually("the others are cancelled", || async { (hanging.open_connections() == 0).then_some(()) })
        .await;
    assert_eq!(
        gateway.metric("gatehouse_upstream_requests_total", &["outcome=\"cancelled\""]).await,
        hedged as f64
    );
    let entry = gateway.log_entry(|entry| entry["attempts"] == 2);
    assert_eq!((&entry["status"], &entry["instance"]), (&200.into(), &well.address.to_string().into()));
    let hedging = &gateway.service("users").await["hedging"];
    assert_eq!((&hedging["after_ms"], &hedging["hedges"]), (&50.0.into(), &hedged.into()));
}

#[tokio::test]
async fn the_first_answers_after_all() {
    let (slow, hanging) = (after(SOON, 200).await, silent().await);
    let gateway = in_turn(&[&slow, &hanging], "hedging: { after: 50ms, budget: 100% }");
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.status, 200);
    // The first request may have gone to either of them.
    assert_eq!((slow.count(), hanging.count()), (1, 1));
    let entry = gateway.log_entry(|entry| entry["attempts"] == 2);
    assert_eq!(entry["instance"], slow.address.to_string());
    eventually("the other is cancelled", || async { (hanging.open_connections() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn what_is_quick_or_may_not_be_sent_twice_is_not_hedged() {
    let (one, two) = (after(SOON, 200).await, after(SOON, 200).await);
    let seen = || one.count() + two.count();
    let gateway = in_turn(&[&one, &two], "hedging: { after: 50ms, budget: 100% }");
    let client = Client::new(gateway.http());
    for (method, body, attempts) in [
        (Method::POST, "", 1),
        (Method::POST, "body", 1),
        (Method::PUT, "body", 1),
        (Method::PUT, "", 2),
        (Method::GET, "", 2),
    ] {
        let before = seen();
        assert_eq!(client.send(method.clone(), "/", body.into()).await.status, 200);
        assert_eq!(seen() - before, attempts, "{method} {body}");
    }
    let upgrade = client.header("connection", "upgrade").header("upgrade", "websocket");
    let before = seen();
    assert_eq!(upgrade.get("/").await.status, 200);
    assert_eq!(seen() - before, 1, "two tunnels would have been begun");
    let quick = Origin::text("x").await;
    let other = Origin::text("x").await;
    let gateway = in_turn(&[&quick, &other], "hedging: { after: 15s, budget: 100% }");
    for _ in 0..5 {
        Client::new(gateway.http()).get("/").await;
    }
    assert_eq!(gateway.metric("gatehouse_hedges_total", &[]).await, 0.0);
}

#[tokio::test]
async fn one_instance_gets_no_company_and_three_no_more_than_one() {
    let (one, two, three) = (silent().await, silent().await, silent().await);
    let settings = "hedging: { after: 20ms, budget: 100% }, \
                    retries: { attempts: 1, on: [timeout], per_attempt_timeout: 200ms, backoff: { base: 0s } }";
    let alone = in_turn(&[&one], settings);
    assert_eq!(Client::new(alone.http()).get("/").await.code(), "response_timeout");
    assert_eq!(
        (one.count(), alone.metric("gatehouse_hedges_total", &[]).await),
        (2, 0.0),
        "tried and retried"
    );
    let gateway = in_turn(&[&one, &two, &three], settings);
    assert_eq!(Client::new(gateway.http()).get("/").await.code(), "response_timeout");
    assert_eq!(one.count() + two.count() + three.count() - 2, 3, "tried, hedged and retried");
    let services = gateway.service("users").await;
    assert_eq!(services["hedging"]["hedges"], 1);
}

#[tokio::test]
async fn a_bad_answer_waits_for_a_better_one_and_still_counts() {
    let (slow, failing) = (after(SOON, 200).await, Origin::status(503).await);
    let settings = "hedging: { after: 50ms, budget: 100% }, retries: { attempts: 0 }, \
                    circuit_breaker: { consecutive_failures: 100, failure_ratio: off }";
    let gateway = in_turn(&[&slow, &failing], settings);
    let client = Client::new(gateway.http());
    // Both orders, as long as the failing one is the second.
    let mut hedged = 0;
    for _ in 0..4 {
        let before = slow.count();
        let status = client.get("/").await.status;
        let was_first = slow.count() > before;
        assert_eq!(status, if was_first { 200 } else { 503 }, "alone it is passed on at once");
        hedged += usize::from(was_first);
    }
    assert!(hedged > 0);
    let breaker = &gateway.instance("users", failing.address).await.expect("it is there")["breaker"];
    assert_eq!(breaker["consecutive_failures"], failing.count(), "what was not passed on counts as well");
    assert_eq!(gateway.metric("gatehouse_hedges_won_total", &[]).await, 0.0);
}

#[tokio::test]
async fn when_both_fail_it_is_tried_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let mut origins = Vec::new();
    for _ in 0..3 {
        let broken = broken.clone();
        origins.push(
            Origin::start_slow(move |_| {
                let broken = broken.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    origin::status(if broken.load(SeqCst) { 503 } else { 200 })
                }
            })
            .await,
        );
    }
    let all: Vec<&Origin> = origins.iter().collect();
    let settings = "hedging: { after: 20ms, budget: 100% }, retries: { attempts: 1, backoff: { base: 400ms, max: 400ms } }";
    let gateway = in_turn(&all, settings);
    let count = || origins.iter().map(Origin::count).sum::<usize>();
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.status, 503);
    assert_eq!(count(), 3, "two at once, and one again");
    assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 1.0);
    assert_eq!(gateway.metric("gatehouse_hedges_total", &[]).await, 1.0);
    broken.store(false, SeqCst);
    assert_eq!(client.get("/").await.status, 200);
}

/// Over two workers: what is slow everywhere costs five in a hundred more, not twice as much.
#[tokio::test]
async fn the_budget_holds_when_everything_is_slow() {
    let (one, two) =
        (after(Duration::from_millis(40), 200).await, after(Duration::from_millis(40), 200).await);
    let settings = "hedging: { after: 5ms, budget: 5% }";
    let gateway = Gateway::start(&format!("workers: 2\n{}", one_service(&[one.url(), two.url()], settings)));
    let client = Client::new(gateway.http());
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        clients.spawn(async move {
            for _ in 0..10 {
                assert_eq!(client.get("/").await.status, 200);
            }
        });
    }
    clients.join_all().await;
    let hedges = gateway.metric("gatehouse_hedges_total", &[]).await;
    assert!((1.0..=10.0).contains(&hedges), "{hedges} hedges for 200 requests");
    assert!(gateway.metric("gatehouse_hedges_refused_total", &[]).await > 100.0);
    assert!(one.count() + two.count() <= 210);
}

#[tokio::test]
async fn the_percentile_is_the_services_own() {
    let hangs = Arc::new(AtomicBool::new(false));
    let switch = hangs.clone();
    let sometimes = Origin::start_slow(move |_| {
        let hangs = switch.clone();
        async move {
            if hangs.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            origin::status(200)
        }
    })
    .await;
    let well = Origin::status(200).await;
    let gateway = in_turn(&[&sometimes, &well], "hedging: { after: p95, budget: 100% }");
    let client = Client::new(gateway.http());
    let known = async || gateway.service("users").await["hedging"]["after_ms"].as_f64();
    assert_eq!((client.get("/").await.status, known().await), (200, None));
    eventually("it is known", || async {
        client.get("/").await;
        known().await
    })
    .await;
    hangs.store(true, SeqCst);
    let (before, began) = (sometimes.count(), Instant::now());
    for _ in 0..4 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(sometimes.count() > before && began.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn a_route_has_its_own_and_a_hedged_request_one_place() {
    let (hanging, well) = (silent().await, Origin::text("well").await);
    let gateway = Gateway::start(&format!(
        "workers: 1\nservices: {{ users: {{ instances: [\"{}\", \"{}\"], load_balancing: round_robin, \
         timeouts: {{ response: 300ms, silence: off }}, concurrency: {{ max: 1 }} }} }}\nroutes:\n  \
         - {{ name: plain, match: {{ path: /plain }}, forward: {{ service: users }} }}\n  \
         - {{ name: hedged, match: {{ path: /hedged }}, forward: {{ service: users, hedging: {{ after: 20ms, budget: 100% }} }} }}\n",
        hanging.url(),
        well.url()
    ));
    let client = Client::new(gateway.http());
    let mut plain = [client.get("/plain").await.status, client.get("/plain").await.status];
    plain.sort_unstable();
    assert_eq!(plain, [200, 504]);
    for _ in 0..2 {
        assert_eq!(client.get("/hedged").await.text(), "well");
    }
}

#[tokio::test]
async fn parts_of_an_aggregate_are_hedged_as_well() {
    let (hanging, well) = (silent().await, Origin::json("{\"a\":1}").await);
    let gateway = Gateway::start(&format!(
        "workers: 1\nservices: {{ users: {{ instances: [\"{}\", \"{}\"], load_balancing: round_robin, \
         hedging: {{ after: 20ms, budget: 100% }} }} }}\nroutes:\n  \
         - {{ name: both, match: {{ path: /both }}, aggregate: {{ timeout: 15s, parts: {{ \
         x: {{ service: users, path: /x, required: true }}, y: {{ service: users, path: /y, required: true }} }} }} }}\n",
        hanging.url(),
        well.url()
    ));
    let reply = Client::new(gateway.http()).get("/both").await;
    assert_eq!(reply.json(), serde_json::json!({ "x": { "a": 1 }, "y": { "a": 1 } }));
    assert_eq!(gateway.metric("gatehouse_hedges_won_total", &[]).await, hanging.count() as f64);
    assert!(hanging.count() > 0);
}
