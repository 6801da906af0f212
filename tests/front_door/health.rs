//! Active health checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};

use crate::support::{Client, Gateway, Origin, eventually, one_service, origin};

/// An origin whose health the test sets; everything else is answered with 200.
async fn patient() -> (Origin, Arc<AtomicU16>) {
    let health = Arc::new(AtomicU16::new(200));
    let current = health.clone();
    let answer = move |seen: &origin::Seen| {
        origin::status(if seen.target == "/health" { current.load(SeqCst) } else { 200 })
    };
    (Origin::start(answer).await, health)
}

async fn health_becomes(gateway: &Gateway, origin: &Origin, wanted: &str) {
    eventually(&format!("it is {wanted}"), || async {
        let instance = gateway.instance("users", origin.address).await?;
        (instance["health"] == wanted).then_some(())
    })
    .await;
}

fn requests(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| seen.target != "/health").count()
}

const CHECK: &str = "load_balancing: round_robin, health_check: { path: /health, interval: 100ms, timeout: 5s, \
     healthy_after: 2, unhealthy_after: 2 }";

#[tokio::test]
async fn an_unhealthy_instance_leaves_and_comes_back() {
    let ((ill, health), (well, _)) = (patient().await, patient().await);
    let gateway = Gateway::start(&one_service(&[ill.url(), well.url()], CHECK));
    let client = Client::new(gateway.http());
    health_becomes(&gateway, &ill, "healthy").await;
    health_becomes(&gateway, &well, "healthy").await;

    health.store(500, SeqCst);
    health_becomes(&gateway, &ill, "unhealthy").await;
    let before = requests(&ill);
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(requests(&ill), before, "it gets no requests");
    let address = format!("instance=\"{}\"", ill.address);
    assert_eq!(gateway.metric("gatehouse_instance_healthy", &[&address]).await, 0.0);
    let shown = gateway.instance("users", ill.address).await.expect("it is there");
    assert_eq!(shown["last_check"]["failure"], "status 500", "{shown}");
    gateway
        .wait_for(&format!("service users: {} is unhealthy and gets no requests: status 500", ill.address));

    health.store(204, SeqCst);
    health_becomes(&gateway, &ill, "healthy").await;
    let shown = gateway.instance("users", ill.address).await.expect("it is there");
    assert!(shown["last_check"]["at"].is_string() && shown["last_check"]["failure"].is_null(), "{shown}");
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(requests(&ill) >= before + 3, "it has its share again");
    assert_eq!(gateway.metric("gatehouse_instance_healthy", &[&address]).await, 1.0);
    gateway.wait_for(&format!("service users: {} is healthy again", ill.address));
    assert_eq!(gateway.instance("users", well.address).await.expect("it is there")["health"], "healthy");
}

/// An even chance of a tenth: of a hundred requests some five, and hardly ever more than twenty.
#[tokio::test]
async fn with_slow_start_it_comes_back_by_and_by() {
    let ((ill, health), (well, _)) = (patient().await, patient().await);
    let urls = [ill.url(), well.url()];
    let gateway = Gateway::start(&one_service(&urls, &format!("{CHECK}, slow_start: 10m")));
    let client = Client::new(gateway.http());
    let before = gateway.instance("users", ill.address).await.expect("it is there");
    assert!(before["slow_start_percent"].is_null(), "{before}");
    health.store(500, SeqCst);
    health_becomes(&gateway, &ill, "unhealthy").await;
    health.store(200, SeqCst);
    health_becomes(&gateway, &ill, "healthy").await;
    let shown = gateway.instance("users", ill.address).await.expect("it is there");
    assert_eq!(shown["slow_start_percent"], 10, "{shown}");
    let before = requests(&ill);
    for _ in 0..100 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let got = requests(&ill) - before;
    assert!(got <= 20, "{got} of 100");
    gateway.reconfigure(&one_service(&urls, CHECK)).await;
    let before = requests(&ill);
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(requests(&ill) - before >= 8, "without it, it has its share at once");
}

#[tokio::test]
async fn without_a_healthy_instance_there_is_none() {
    let (only, health) = patient().await;
    health.store(404, SeqCst);
    let gateway = Gateway::start(&one_service(&[only.url()], CHECK));
    health_becomes(&gateway, &only, "unhealthy").await;
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "no_instance"));
}

#[tokio::test]
async fn with_too_few_healthy_ones_all_get_requests() {
    let ((one, one_health), (other, other_health)) = (patient().await, patient().await);
    let urls = [one.url(), other.url()];
    let check = |threshold: &str| {
        CHECK.replace("path: /health,", &format!("path: /health, panic_threshold: {threshold},"))
    };
    let gateway = Gateway::start(&one_service(&urls, &check("50%")));
    let client = Client::new(gateway.http());
    let both_get_requests = async || {
        let before = [&one, &other].map(requests);
        for _ in 0..20 {
            assert_eq!(client.get("/").await.status, 200);
        }
        [&one, &other].map(requests).iter().zip(before).all(|(after, before)| after - before >= 8)
    };
    one_health.store(500, SeqCst);
    health_becomes(&gateway, &one, "unhealthy").await;
    assert_eq!(gateway.service("users").await["panicking"], false);
    assert!(!both_get_requests().await, "a half is not less than a half");

    other_health.store(500, SeqCst);
    health_becomes(&gateway, &other, "unhealthy").await;
    assert_eq!(gateway.service("users").await["panicking"], true);
    assert_eq!(gateway.metric("gatehouse_service_panicking", &["service=\"users\""]).await, 1.0);
    gateway.wait_for("service users: too few instances are healthy: unhealthy ones get requests, too");
    assert!(both_get_requests().await);
    // What can't be reached is left to the breakers and the retries.
    one.kill();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }

    gateway.reconfigure(&one_service(&urls, &check("off"))).await;
    let reply = client.get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "no_instance"));
    gateway.reconfigure(&one_service(&urls, &check("50%"))).await;
    eventually("they are used again", || async { (client.get("/").await.status == 200).then_some(()) }).await;
    other_health.store(200, SeqCst);
    health_becomes(&gateway, &other, "healthy").await;
    gateway.wait_for("service users: enough instances are healthy again");
    assert_eq!(gateway.metric("gatehouse_service_panicking", &["service=\"users\""]).await, 0.0);
}

#[tokio::test]
async fn health_lives_on_over_reloads_and_ends_with_the_checks() {
    let (only, health) = patient().await;
    health.store(500, SeqCst);
    let with = |check: &str, routes: &str| {
        one_service(&[only.url()], check).replace("routes: [", &format!("routes: [{routes}"))
    };
    let gateway = Gateway::start(&with(CHECK, ""));
    health_becomes(&gateway, &only, "unhealthy").await;
    gateway.reconfigure(&with(CHECK, "{ name: x, match: { path: /x }, respond: { status: 204 } }, ")).await;
    assert_eq!(gateway.instance("users", only.address).await.expect("it is there")["health"], "unhealthy");
    gateway.reconfigure(&with("", "")).await;
    assert_eq!(gateway.instance("users", only.address).await.expect("it is there")["health"], "unchecked");
    assert_eq!(Client::new(gateway.http()).get("/").await.status, 200);
}

#[tokio::test]
async fn only_the_expected_statuses_are_good() {
    let (only, health) = patient().await;
    health.store(418, SeqCst);
    let gateway = Gateway::start(&one_service(
        &[only.url()],
        "health_check: { path: /health, interval: 100ms, expect_status: [200, 418] }",
    ));
    health_becomes(&gateway, &only, "healthy").await;
    let check = only.seen().into_iter().find(|seen| seen.target == "/health").expect("it was checked");
    assert_eq!(check.header("host"), Some(only.address.to_string().as_str()));
}
