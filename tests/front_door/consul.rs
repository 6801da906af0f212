//! `discovery: { consul: … }` on a real Consul, which is killed, stopped, wiped and started again while
//! requests go on.

use std::time::Duration;

use http::Response;
use serde_json::json;

use crate::support::consul::MASTER_TOKEN;
use crate::support::prompt::Promptness;
use crate::support::source::{answers, until, until_stale, until_well};
use crate::support::{Client, Consul, Gateway, Origin, eventually};

const ROUTES: &str = "routes: [{ name: all, match: { prefix: / }, forward: { service: users } }]\n";

fn configuration(consul: &Consul, more: &str) -> String {
    let source = format!("{{ address: \"{}\", service: users{more} }}", consul.url());
    format!("services: {{ users: {{ discovery: {{ consul: {source} }} }} }}\n{ROUTES}")
}

/// Consul, an origin that it names, and a gateway that has found it.
async fn found() -> Option<(Consul, Origin, Gateway, Client)> {
    let consul = Consul::start().await?;
    let origin = Origin::text("a").await;
    consul.register("a", origin.address).await;
    let gateway = Gateway::start(&configuration(&consul, ""));
    let client = Client::new(gateway.http());
    answers(&client, "a").await;
    Some((consul, origin, gateway, client))
}

/// Addresses and weights.
async fn instances(gateway: &Gateway) -> Vec<(String, u64)> {
    let service = gateway.service("users").await;
    let list = service["instances"].as_array().expect("a list").clone();
    let one = |one: &serde_json::Value| {
        Some((one["address"].as_str()?.to_owned(), one["weight"].as_u64().unwrap_or_default()))
    };
    list.iter().filter_map(one).collect()
}

async fn until_instances(gateway: &Gateway, expected: &[(String, u64)]) {
    eventually("these instances", || async { (instances(gateway).await == expected).then_some(()) }).await;
}

#[tokio::test]
async fn instances_come_and_go_as_they_are_registered() {
    let Some((consul, a, gateway, client)) = found().await else { return };
    let source = gateway.service("users").await["source"].clone();
    assert_eq!((&source["kind"], &source["of"]), (&"consul".into(), &"users".into()));
    let b = Origin::text("b").await;
    let mut promptness = Promptness::default();
    // In turn one is registered and the other deregistered, and the time until requests follow is taken.
    for turn in 0..10 {
        let (new, old, origin) = if turn % 2 == 0 { ("b", "a", &b) } else { ("a", "b", &a) };
        consul.register(new, origin.address).await;
        consul.deregister(old).await;
        promptness.until(async || client.get("/").await.text() == new).await;
    }
    promptness.assert_within(Duration::from_millis(100));

    consul.deregister("a").await;
    eventually("an explicit end", || async { (client.get("/").await.status == 503).then_some(()) }).await;
    assert_eq!(gateway.service("users").await["source"]["state"], "ok");
}

#[tokio::test]
async fn addresses_weights_and_checks_are_those_of_the_catalog() {
    let Some((consul, a, gateway, _)) = found().await else { return };
    let (b, c) = (Origin::text("b").await, Origin::text("c").await);
    let shown = |origin: &Origin, weight| (origin.address.to_string(), weight);
    let sorted = |mut list: Vec<(String, u64)>| {
        list.sort();
        list
    };
    // Without an address of its own, it has its node's.
    let weights = json!({ "Weights": { "Passing": 7, "Warning": 1 } });
    consul.register_as("b", b.address, weights).await;
    consul.register_as("c", c.address, json!({ "Address": "localhost" })).await;
    eventually("all three", || async {
        let expected = sorted(vec![shown(&a, 1), shown(&b, 7), shown(&c, 1)]);
        (sorted(instances(&gateway).await) == expected).then_some(())
    })
    .await;
    for (status, there) in [("critical", false), ("passing", true), ("warning", false), ("passing", true)] {
        consul.check("b", b.address, status).await;
        eventually(status, || async {
            (instances(&gateway).await.contains(&shown(&b, 7)) == there).then_some(())
        })
        .await;
    }
    assert_eq!(gateway.service("users").await["source"]["state"], "ok");
}

#[tokio::test]
async fn a_ttl_check_that_nobody_updates_takes_its_instance_out() {
    let Some((consul, a, gateway, _)) = found().await else { return };
    let b = Origin::text("b").await;
    let shown = |origin: &Origin| (origin.address.to_string(), 1);
    let service = json!({ "ID": "b", "Name": "users", "Address": "127.0.0.1", "Port": b.address.port(),
                          "Check": { "TTL": "2s" } });
    consul.put("/v1/agent/service/register", service).await;
    until_instances(&gateway, &[shown(&a)]).await;
    consul.put("/v1/agent/check/pass/service:b", json!({})).await;
    eventually("both", || async {
        let both = instances(&gateway).await;
        (both.len() == 2 && both.contains(&shown(&b))).then_some(())
    })
    .await;
    until_instances(&gateway, &[shown(&a)]).await;
}

#[tokio::test]
async fn a_tag_and_a_datacenter_narrow_it_down() {
    let Some(consul) = Consul::start().await else { return };
    let (v1, v2) = (Origin::text("v1").await, Origin::text("v2").await);
    consul.register_as("one", v1.address, json!({ "Tags": ["v1", "x"] })).await;
    consul.register_as("two", v2.address, json!({ "Tags": ["x", "v2"] })).await;
    let gateway = Gateway::start(&configuration(&consul, ", tag: v2, datacenter: dc1"));
    let client = Client::new(gateway.http());
    answers(&client, "v2").await;
    assert_eq!(instances(&gateway).await, [(v2.address.to_string(), 1)]);
    gateway.reconfigure(&configuration(&consul, ", tag: v1")).await;
    answers(&client, "v1").await;
    gateway.reconfigure(&configuration(&consul, ", datacenter: nowhere")).await;
    let why = gateway.wait_for("its instances can't be asked for");
    assert!(why.contains("No path to datacenter"), "{why}");
    assert_eq!(client.get("/").await.text(), "v1");
}

#[tokio::test]
async fn another_datacenter_is_asked_through_the_own_one_and_may_be_lost() {
    let Some([own, mut other]) = Consul::start_two().await else { return };
    let (here, there) = (Origin::text("here").await, Origin::text("a").await);
    own.register("a", here.address).await;
    other.register("a", there.address).await;
    let gateway = Gateway::start(&configuration(&own, ", datacenter: dc2"));
    let client = Client::new(gateway.http());
    answers(&client, "a").await;
    assert_eq!(instances(&gateway).await, [(there.address.to_string(), 1)]);
    other.process.kill();
    until_stale(&gateway, &client, "500 Internal Server Error").await;
    other.process.restart().await;
    until_well(&gateway, &client).await;
    let moved = Origin::text("moved").await;
    other.register("a", moved.address).await;
    answers(&client, "moved").await;
}

#[tokio::test]
async fn a_killed_consul_leaves_the_last_good_set_and_is_followed_again() {
    let Some((mut consul, _origin, gateway, client)) = found().await else { return };
    consul.process.kill();
    until_stale(&gateway, &client, "refused").await;
    consul.process.restart().await;
    until_well(&gateway, &client).await;
    let second = Origin::text("second").await;
    consul.register("a", second.address).await;
    answers(&client, "second").await;
}

#[tokio::test]
async fn a_consul_that_hangs_is_noticed() {
    let Some((consul, _origin, gateway, client)) = found().await else { return };
    consul.process.signal("STOP");
    until_stale(&gateway, &client, "no answer within").await;
    consul.process.signal("CONT");
    until_well(&gateway, &client).await;
    let second = Origin::text("second").await;
    consul.register("a", second.address).await;
    answers(&client, "second").await;
}

#[tokio::test]
async fn garbage_in_place_of_consul_changes_nothing() {
    let Some((mut consul, _origin, gateway, client)) = found().await else { return };
    for (index, garbage) in
        [("9", "<html>It works!</html>"), ("", "[]"), ("x", "[]"), ("9", r#"[{"Node":7}]"#)]
    {
        consul.process.kill();
        let liar = Origin::start_at(consul.address, move |_| {
            let reply = Response::builder().header("x-consul-index", index);
            reply.body(garbage.into()).expect("constants")
        })
        .await;
        until_stale(&gateway, &client, "its answer can't be understood").await;
        drop(liar);
        consul.process.restart().await;
        until_well(&gateway, &client).await;
    }
}

#[tokio::test]
async fn a_consul_that_lost_its_memory_empties_nothing_at_once() {
    let Some((mut consul, origin, gateway, client)) = found().await else { return };
    consul.process.kill();
    consul.wipe();
    consul.process.restart().await;
    until_stale(&gateway, &client, "it is back, but names less than half of the instances").await;
    consul.register("anew", origin.address).await;
    until_well(&gateway, &client).await;
}

/// Its index goes back, and what is waited for would not come for a long time.
#[tokio::test]
async fn a_consul_that_was_set_back_is_followed_to_where_it_is() {
    let Some((consul, a, gateway, client)) = found().await else { return };
    let snapshot = consul.snapshot().await;
    let others = [Origin::text("b").await, Origin::text("c").await];
    for turn in 0..20 {
        for (id, origin) in ["b", "c"].iter().zip(&others) {
            consul.register_as(id, origin.address, json!({ "Tags": [turn.to_string()] })).await;
        }
    }
    eventually("all three", || async { (instances(&gateway).await.len() == 3).then_some(()) }).await;
    let before = consul.index().await;
    consul.restore(snapshot).await;
    until_instances(&gateway, &[(a.address.to_string(), 1)]).await;
    let after = consul.index().await;
    assert!(after < before, "from {before} to {after}");
    consul.register("a", others[0].address).await;
    answers(&client, "b").await;
    assert!(!gateway.messages().contains("can't be asked for"), "it is no failure: {}", gateway.messages());
}

#[tokio::test]
async fn the_token_is_sent_and_shown_nowhere() {
    let Some(consul) = Consul::start_guarded().await else { return };
    let origin = Origin::text("a").await;
    eventually("the token is known", || async {
        let client = Client::new(consul.address).header("x-consul-token", MASTER_TOKEN);
        (client.get("/v1/acl/token/self").await.status == 200).then_some(())
    })
    .await;
    consul.register("a", origin.address).await;
    let gateway = Gateway::start(&configuration(&consul, &format!(", token: \"{MASTER_TOKEN}\"")));
    let client = Client::new(gateway.http());
    answers(&client, "a").await;
    let wrong = "00000000-5ca1-ab1e-0000-000000000bad";
    gateway.reconfigure(&configuration(&consul, &format!(", token: {wrong}"))).await;
    let source = until(&gateway, &client, "failing", "403 Forbidden").await;
    assert!(source["error"].as_str().is_some_and(|error| error.ends_with("ACL not found")), "{source}");
    let told = format!("{}{}", gateway.messages(), gateway.api("/api/services").await);
    assert!(!told.contains(MASTER_TOKEN) && !told.contains(wrong), "{told}");
}

#[tokio::test]
async fn ten_thousand_instances_are_a_set() {
    let Some(consul) = Consul::start().await else { return };
    let address = |number: u16| ([127, 1, (number / 250) as u8, (number % 250) as u8], 9).into();
    consul.register_all((0..9_999).map(address)).await;
    let gateway = Gateway::start(&configuration(&consul, ""));
    let count = || gateway.metric("gatehouse_service_instances", &["service=\"users\""]);
    eventually("all are there", || async { (count().await == 9_999.0).then_some(()) }).await;
    consul.register("one-more", address(9_999)).await;
    eventually("one more", || async { (count().await == 10_000.0).then_some(()) }).await;
    consul.register("too-many", address(10_000)).await;
    let why = gateway.wait_for("its instances can't be asked for");
    assert!(why.contains("1 instances beyond the first 10000 are left out"), "{why}");
    consul.deregister("too-many").await;
    gateway.wait_for("its instances can be asked for again");
}
