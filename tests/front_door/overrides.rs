//! Routes that want something else of a service than others do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::Duration;

use crate::support::{Client, Gateway, Origin, origin};

/// The service `users` with `settings`, and a route for each of `/0`, `/1`, … with these overrides.
fn routes(instances: &[&Origin], settings: &str, overrides: &[&str]) -> Gateway {
    let urls: Vec<_> = instances.iter().map(|origin| format!("\"{}\"", origin.url())).collect();
    let mut text = format!(
        "workers: 1\nservices: {{ users: {{ instances: [{}], load_balancing: round_robin, {settings} }} }}\nroutes:\n",
        urls.join(", ")
    );
    for (number, overrides) in overrides.iter().enumerate() {
        text += &format!(
            "  - {{ name: r{number}, match: {{ path: /{number} }}, forward: {{ service: users, {overrides} }} }}\n"
        );
    }
    Gateway::start(&text)
}

#[tokio::test]
async fn retries_of_one_route_are_not_those_of_another() {
    let bad = Origin::status(503).await;
    let never_opens = "circuit_breaker: { consecutive_failures: 1000, failure_ratio: off }";
    let gateway = routes(
        &[&bad],
        &format!("retries: {{ attempts: 2, on: [503], backoff: {{ base: 0s }} }}, {never_opens}"),
        &[
            "",
            "retries: { attempts: 0 }",
            "retries: { attempts: 1 }",
            "retries: { on: [502] }",
            "retries: { methods: [PUT] }",
        ],
    );
    let client = Client::new(gateway.http());
    let mut before = 0;
    for (path, attempts) in [("/0", 3), ("/1", 1), ("/2", 2), ("/3", 1), ("/4", 1)] {
        assert_eq!(client.get(path).await.status, 503);
        assert_eq!(bad.count() - before, attempts, "{path}");
        before = bad.count();
    }
    let routes = gateway.api("/api/routes").await;
    assert!(routes["routes"][0]["action"]["forward"]["overrides"].is_null());
    assert_eq!(routes["routes"][1]["action"]["forward"]["overrides"], serde_json::json!(["retries"]));
}

#[tokio::test]
async fn timeouts_of_one_route_are_not_those_of_another() {
    let slow = Origin::start_slow(|_| async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        origin::status(200)
    })
    .await;
    let gateway = routes(
        &[&slow],
        "timeouts: { response: 150ms }",
        &[
            "",
            "timeouts: { response: 15s }",
            "timeouts: { response: 15s, total: 150ms }",
            "timeouts: { idle: 1s }",
        ],
    );
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/0").await.code(), "response_timeout");
    assert_eq!(client.get("/1").await.status, 200);
    assert_eq!(client.get("/2").await.code(), "total_timeout");
    assert_eq!(client.get("/3").await.code(), "response_timeout", "what is not given is the service's");
}

#[tokio::test]
async fn one_breaker_opens_by_what_each_route_counts() {
    let erring = Origin::status(500).await;
    let gateway = routes(
        &[&erring],
        "circuit_breaker: { consecutive_failures: 3, failure_ratio: off, open_for: 60s }, retries: { attempts: 0 }",
        &["", "circuit_breaker: { failures: [500] }"],
    );
    let client = Client::new(gateway.http());
    for _ in 0..5 {
        assert_eq!(client.get("/0").await.status, 500);
    }
    for _ in 0..3 {
        assert_eq!(client.get("/1").await.status, 500);
    }
    for path in ["/0", "/1"] {
        assert_eq!(client.get(path).await.code(), "circuit_open", "{path}");
    }
}

/// With more than `failures` of its own a route has a breaker of its own: it opens by the route's requests, for the route alone.
#[tokio::test]
async fn a_breaker_of_its_own_opens_for_the_route_alone() {
    let erring = Origin::status(503).await;
    let of_service = "circuit_breaker: { consecutive_failures: 6, failure_ratio: off, open_for: 60s }, retries: { attempts: 0 }";
    let own = "circuit_breaker: { consecutive_failures: 2, open_for: 60s }";
    let gateway = routes(&[&erring], of_service, &["", own, "circuit_breaker: { consecutive_failures: 50 }"]);
    let client = Client::new(gateway.http());
    for _ in 0..2 {
        assert_eq!(client.get("/1").await.header("proxy-status"), None);
    }
    assert_eq!(client.get("/1").await.code(), "circuit_open");
    // Neither have the others seen anything of it, nor does it see anything of them.
    for _ in 0..6 {
        assert_eq!(client.get("/0").await.header("proxy-status"), None);
    }
    assert_eq!(client.get("/0").await.code(), "circuit_open");
    assert_eq!(client.get("/2").await.header("proxy-status"), None);
    assert_eq!(erring.count(), 2 + 6 + 1);

    let instance = gateway.instance("users", erring.address).await.expect("it is there");
    assert_eq!(instance["breaker"]["state"], "open");
    let own = &instance["route_breakers"];
    assert_eq!((&own[0]["route"], &own[0]["state"]), (&"r1".into(), &"open".into()));
    assert!(own[0]["next_probe_at"].is_string(), "{own}");
    assert_eq!((&own[1]["route"], &own[1]["consecutive_failures"]), (&"r2".into(), &1.into()));
    let labels = ["service=\"users\"", "route=\"r1\""];
    assert_eq!(gateway.metric("gatehouse_route_breaker_state", &labels).await, 2.0);
    assert_eq!(gateway.metric("gatehouse_route_breaker_opened_total", &labels).await, 1.0);
    gateway.wait_for(&format!(
        "service users: {} on route r1 fails: its circuit breaker has opened",
        erring.address
    ));
}

/// However alike two routes are.
#[tokio::test]
async fn routes_that_say_the_same_have_each_its_own() {
    let erring = Origin::status(503).await;
    let own = "circuit_breaker: { consecutive_failures: 2, open_for: 60s }, stale_if_error: 10m";
    let gateway = routes(&[&erring], "retries: { attempts: 0 }", &[own, own]);
    let client = Client::new(gateway.http());
    for _ in 0..2 {
        client.get("/0").await;
    }
    assert_eq!(client.get("/0").await.code(), "circuit_open");
    assert_eq!(client.get("/1").await.header("proxy-status"), None);
    let kept = gateway.service("users").await["stale"].clone();
    assert_eq!((&kept[0]["route"], &kept[1]["route"]), (&"r0".into(), &"r1".into()));
}

#[tokio::test]
async fn a_breaker_of_its_own_closes_again_and_lives_on_over_reloads() {
    let status = Arc::new(AtomicU16::new(503));
    let current = status.clone();
    let origin = Origin::start(move |_| origin::status(current.load(SeqCst))).await;
    let own = |more: &str| {
        format!("circuit_breaker: {{ consecutive_failures: 1, open_for: 500ms, max_open_for: 500ms{more} }}")
    };
    let text = |overrides: &str| {
        format!(
            "services: {{ users: {{ instances: [\"{}\"], retries: {{ attempts: 0 }} }} }}\n\
             routes: [{{ name: own, match: {{ path: /own }}, forward: {{ service: users, {overrides} }} }}]\n",
            origin.url()
        )
    };
    let gateway = Gateway::start(&text(&own("")));
    let client = Client::new(gateway.http());
    let state = async || {
        gateway.instance("users", origin.address).await.expect("it is there")["route_breakers"][0]["state"]
            .clone()
    };
    client.get("/own").await;
    assert_eq!(state().await, "open");
    gateway.reconfigure(&text(&own(", window: 20s"))).await;
    assert_eq!(state().await, "open", "the reload has not forgotten it");
    status.store(200, SeqCst);
    crate::support::eventually("it closes", || async {
        (client.get("/own").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(state().await, "closed");
    gateway.wait_for("on route own answers: its circuit breaker has closed");
    // A route that has none any more goes by the service's.
    gateway.reconfigure(&text("host: preserve")).await;
    assert!(
        gateway.instance("users", origin.address).await.expect("it is there").get("route_breakers").is_none()
    );
    status.store(503, SeqCst);
    for _ in 0..5 {
        assert_eq!(client.get("/own").await.header("proxy-status"), None);
    }
    assert_eq!(client.get("/own").await.code(), "circuit_open");
}

/// All workers go by one breaker of the route, at every instance.
#[tokio::test]
async fn a_breaker_of_its_own_leads_to_the_other_instance() {
    let (bad, well) = (Origin::status(503).await, Origin::text("well").await);
    let text = format!(
        "workers: 4\nservices: {{ users: {{ instances: [\"{}\", \"{}\"], load_balancing: round_robin }} }}\n\
         routes: [{{ name: own, match: {{ prefix: / }}, forward: {{ service: users, \
         circuit_breaker: {{ consecutive_failures: 3, failure_ratio: off, open_for: 60s }} }} }}]\n",
        bad.url(),
        well.url()
    );
    let gateway = Gateway::start(&text);
    for _ in 0..60 {
        assert_eq!(Client::new(gateway.http()).get("/").await.text(), "well");
    }
    assert_eq!(bad.count(), 3);
}

#[tokio::test]
async fn a_fallback_of_its_own_and_the_services_for_the_others() {
    let gone = Origin::text("").await;
    gone.kill();
    let gateway = routes(
        &[&gone],
        "fallback: { text: of the service }, retries: { attempts: 0 }",
        &["", "fallback: { status: 200, json: [] }"],
    );
    let client = Client::new(gateway.http());
    crate::support::eventually("the port is closed", || async {
        (client.get("/0").await.text() == "of the service").then_some(())
    })
    .await;
    let reply = client.get("/1").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "[]"));
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/1")["reason"], "connect_failure");
}

/// Instances, the bound on requests at once and what is counted are the service's.
#[tokio::test]
async fn what_a_service_has_is_one_for_all_its_routes() {
    let origin = Origin::text("x").await;
    let gateway = routes(&[&origin], "concurrency: { max: 5 }", &["", "timeouts: { total: 5s }"]);
    let client = Client::new(gateway.http());
    for path in ["/0", "/1", "/0", "/1"] {
        assert_eq!(client.get(path).await.text(), "x");
    }
    assert_eq!(origin.connections(), 1, "routes don't have connections of their own");
    assert_eq!(gateway.instance("users", origin.address).await.expect("it is there")["attempts"], 4);
    assert_eq!(gateway.service("users").await["concurrency"]["max"], 5);
    let services = gateway.api("/api/services").await;
    assert_eq!(services["services"].as_array().map(Vec::len), Some(1));
}
