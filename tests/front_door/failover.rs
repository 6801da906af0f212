//! Zones and priorities: which instances are preferred, and when requests go over to the others.

use serde_json::{Value, json};

use crate::support::{Client, Gateway, Origin, eventually};

/// Instances with what else is said of them, and settings of the service.
fn configuration(top: &str, instances: &[(&Origin, &str)], settings: &str) -> String {
    let instances: Vec<String> =
        instances.iter().map(|(origin, more)| format!("{{ url: \"{}\", {more} }}", origin.url())).collect();
    format!(
        "{top}\nservices: {{ users: {{ instances: [{}], {settings} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n",
        instances.join(", ")
    )
}

async fn ask(gateway: &Gateway, requests: usize) {
    let client = Client::new(gateway.http());
    for _ in 0..requests {
        assert_eq!(client.get("/").await.status, 200);
    }
}

async fn ask_with_key(gateway: &Gateway, requests: usize) {
    for number in 0..requests {
        let client = Client::new(gateway.http()).header("x-user", &number.to_string());
        assert_eq!(client.get("/").await.status, 200);
    }
}

/// Asks until the log says so: workers count what of a service is usable only while requests come.
async fn ask_until_told(gateway: &Gateway, text: &str) {
    eventually(text, || async {
        ask_with_key(gateway, 4).await;
        gateway.messages().contains(text).then_some(())
    })
    .await;
}

const RULES: [&str; 6] = [
    "round_robin",
    "weighted",
    "random",
    "least_requests",
    "peak_ewma",
    "{ consistent_hash: { key: header:x-user } }",
];

async fn groups(gateway: &Gateway) -> Value {
    gateway.service("users").await["groups"].clone()
}

#[tokio::test]
async fn the_own_zone_is_preferred_by_every_rule() {
    let origins = [Origin::text("a").await, Origin::text("b").await, Origin::text("c").await];
    let [a, b, c] = &origins;
    for rule in RULES {
        let before = origins.each_ref().map(Origin::count);
        let gateway = Gateway::start(&configuration(
            "zone: b",
            &[(a, "zone: a"), (b, "zone: b"), (c, "zone: c")],
            &format!("load_balancing: {rule}"),
        ));
        ask_with_key(&gateway, 30).await;
        let asked = [0, 1, 2].map(|at| origins[at].count() - before[at]);
        assert_eq!(asked, [0, 30, 0], "{rule}");
    }
}

#[tokio::test]
async fn what_the_own_zone_cannot_carry_goes_to_the_others() {
    let origins = [
        Origin::text("a1").await,
        Origin::text("a2").await,
        Origin::text("b1").await,
        Origin::text("b2").await,
    ];
    let [a1, a2, b1, b2] = &origins;
    let gateway = Gateway::start(&configuration(
        "zone: a",
        &[(a1, "zone: a"), (a2, "zone: a"), (b1, "zone: b"), (b2, "zone: b")],
        "circuit_breaker: { consecutive_failures: 1, open_for: 1h, max_open_for: 1h }",
    ));
    assert_eq!(gateway.api("/api/status").await["zone"], "a");
    let local = json!({ "priority": 0, "zone": "local", "instances": 2, "usable": 2, "percent": 100.0 });
    let other = json!({ "priority": 0, "zone": "other", "instances": 2, "usable": 2, "percent": 0.0 });
    assert_eq!(groups(&gateway).await, json!([local, other]));
    let shown = gateway.instance("users", b1.address).await.expect("it is there");
    assert_eq!((&shown["zone"], &shown["priority"]), (&json!("b"), &json!(0)));
    a2.kill();
    let percent = |value: &Value, at: usize| value[at]["percent"].as_f64().expect("a number");
    let asked = eventually("the share of the zone falls", || async {
        ask(&gateway, 4).await;
        let now = groups(&gateway).await;
        (percent(&now, 0) == 70.0 && percent(&now, 1) == 30.0).then_some(now)
    });
    assert_eq!(asked.await[0]["usable"], 1);
    let metric = gateway.metric("gatehouse_group_share_percent", &["zone=\"other\""]).await;
    assert_eq!(metric, 30.0);
    ask_until_told(&gateway, "service users: 30 % of its requests go over to other zones or priorities")
        .await;
    eventually("the workers have noticed", || async {
        ask(&gateway, 10).await;
        (b1.count() + b2.count() >= 4).then_some(())
    })
    .await;
    let before = (a1.count(), b1.count() + b2.count());
    ask(&gateway, 400).await;
    let (here, there) = (a1.count() - before.0, b1.count() + b2.count() - before.1);
    assert_eq!(here + there, 400);
    assert!((70..=180).contains(&there), "{there} of 400 went to the other zone");
}

#[tokio::test]
async fn a_service_need_not_prefer_the_zone() {
    let origins = [Origin::text("a").await, Origin::text("b").await];
    let [a, b] = &origins;
    let placed = [(a, "zone: a"), (b, "zone: b")];
    let gateway = Gateway::start(&configuration("zone: a", &placed, "failover: { prefer_zone: false }"));
    ask(&gateway, 40).await;
    assert!(a.count() >= 15 && b.count() >= 15, "{} and {}", a.count(), b.count());
    assert_eq!(groups(&gateway).await, Value::Null);
    // The zone of the gateway changes with a reload, and with it what is near.
    gateway.reconfigure(&configuration("zone: b", &placed, "")).await;
    let before = a.count();
    ask(&gateway, 20).await;
    assert_eq!(a.count(), before);
    gateway.reconfigure(&configuration("zone: ${NO_SUCH_ZONE:-}", &placed, "")).await;
    ask(&gateway, 20).await;
    assert!(a.count() > before, "an empty zone is none");
}

#[tokio::test]
async fn the_next_priority_takes_over_and_gives_back() {
    for rule in RULES {
        let first = Origin::text("first").await;
        let second = Origin::text("second").await;
        let address = first.address;
        let gateway = Gateway::start(&configuration(
            "",
            &[(&second, "priority: 1"), (&first, "weight: 3")],
            &format!(
                "load_balancing: {rule}, circuit_breaker: {{ consecutive_failures: 1, open_for: 200ms }}"
            ),
        ));
        ask_with_key(&gateway, 20).await;
        assert_eq!((first.count(), second.count()), (20, 0), "{rule}");
        first.kill();
        ask_with_key(&gateway, 40).await;
        assert_eq!(second.count(), 40, "{rule}: every one was tried again there, or went there at once");
        ask_until_told(&gateway, "service users: 100 % of its requests go over to other zones or priorities")
            .await;
        let back = Origin::start_at(address, |_| crate::support::origin::status(200)).await;
        eventually("the first is back", || async {
            ask_with_key(&gateway, 1).await;
            let now = groups(&gateway).await;
            (now[0]["percent"] == 100.0).then_some(())
        })
        .await;
        eventually("every worker gives back", || async {
            let before = second.count();
            ask_with_key(&gateway, 20).await;
            (second.count() == before).then_some(())
        })
        .await;
        ask_until_told(&gateway, "service users: its preferred instances get all requests again").await;
        let before = (back.count(), second.count());
        ask_with_key(&gateway, 20).await;
        assert_eq!((back.count(), second.count()), (before.0 + 20, before.1), "{rule}");
    }
}

/// A client that stays with an instance stays there when a better one is back.
#[tokio::test]
async fn sticky_clients_stay_where_they_went() {
    let first = Origin::text("first").await;
    let second = Origin::text("second").await;
    let gateway = Gateway::start(&configuration(
        "zone: a",
        &[(&first, "zone: a"), (&second, "zone: b")],
        "sticky: { cookie: at }",
    ));
    let reply = Client::new(gateway.http()).get("/").await;
    assert_eq!(reply.text(), "first");
    let cookie = reply.header("set-cookie").and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
    let cookie = cookie.expect("it has a cookie");
    gateway
        .reconfigure(&configuration(
            "zone: b",
            &[(&first, "zone: a"), (&second, "zone: b")],
            "sticky: { cookie: at }",
        ))
        .await;
    let client = Client::new(gateway.http()).header("cookie", &cookie);
    assert_eq!(client.get("/").await.text(), "first");
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "second");
}

#[tokio::test]
async fn sources_bring_zones_and_priorities() {
    let origins = [Origin::text("a").await, Origin::text("b").await, Origin::text("c").await];
    let [a, b, c] = &origins;
    let list = |first: &Origin| {
        format!(
            "- {{ url: \"{}\", zone: a, priority: 1 }}\n- {{ url: \"{}\", zone: b }}\n- {{ url: \"{}\", zone: c }}\n",
            c.url(),
            first.url(),
            a.url()
        )
    };
    let directory = tempfile::tempdir().expect("a directory can be made");
    std::fs::write(directory.path().join("users.yaml"), list(b)).expect("it can be written");
    let gateway = Gateway::start_in(
        directory,
        "zone: b\nservices: { users: { discovery: { file: { path: users.yaml } } } }\n\
         routes: [{ name: all, match: { prefix: / }, forward: { service: users } }]\n",
        &[],
    );
    ask(&gateway, 20).await;
    assert_eq!(origins.each_ref().map(Origin::count), [0, 20, 0]);
    let shown = gateway.instance("users", c.address).await.expect("it is there");
    assert_eq!((&shown["zone"], &shown["priority"]), (&json!("a"), &json!(1)));
    // Only the place of an instance changes, and it is the same instance all the same.
    let moved = list(b).replace("zone: b", "zone: d").replace("zone: c", "zone: b");
    let file = gateway.file("users.yaml");
    std::fs::write(&file, moved).expect("it can be written");
    eventually("the zones have changed", || async {
        let shown = gateway.instance("users", a.address).await?;
        (shown["zone"] == "b").then_some(())
    })
    .await;
    let before = origins.each_ref().map(Origin::count);
    ask(&gateway, 20).await;
    assert_eq!(origins.each_ref().map(Origin::count), [before[0] + 20, before[1], before[2]]);
    let kept = gateway.instance("users", b.address).await.expect("it is there");
    assert_eq!(kept["attempts"], 20);
}

#[tokio::test]
async fn the_settings_of_balancing_are_shown() {
    let origin = Origin::text("a").await;
    let gateway = Gateway::start(&configuration(
        "zone: a",
        &[(&origin, "weight: 1")],
        "load_balancing: { consistent_hash: { key: header:X-User, max_load: off } }, slow_start: 30s, \
         sticky: { cookie: at, secret: sixteen-or-more-of-it }, failover: { overprovisioning: 120% }, \
         health_check: { path: /, panic_threshold: 40% }",
    ));
    let shown = gateway.service("users").await;
    assert_eq!(shown["load_balancing"], "consistent_hash");
    let settings = json!({
        "consistent_hash": { "key": "header:x-user", "max_load_percent": null },
        "slow_start_ms": 30_000,
        "sticky_cookie": "at",
        "local_zone": "a",
        "overprovisioning_percent": 120,
        "panic_threshold_percent": 40,
    });
    assert_eq!(shown["balancing"], settings);
    assert!(!shown.to_string().contains("sixteen"), "{shown}");
}
