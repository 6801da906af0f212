//! `discovery: { etcd: … }` on a real etcd, which is killed, stopped, wiped and started again while requests
//! go on.

use std::time::{Duration, Instant};

use http::Response;

use crate::support::prompt::Promptness;
use crate::support::source::{answers, until, until_stale, until_well};
use crate::support::{Client, Etcd, Gateway, Origin, eventually};

const ROUTES: &str = "routes: [{ name: all, match: { prefix: / }, forward: { service: users } }]\n";

fn configuration(etcd: &Etcd, more: &str) -> String {
    let source = format!("{{ endpoints: [\"{}\"], prefix: /services/users/{more} }}", etcd.url());
    format!("services: {{ users: {{ discovery: {{ etcd: {source} }} }} }}\n{ROUTES}")
}

/// Etcd, an origin that it names, and a gateway that has found it.
async fn found() -> (Etcd, Origin, Gateway, Client) {
    let (etcd, origin) = (Etcd::start().await, Origin::text("a").await);
    etcd.put("/services/users/a", &origin.url()).await;
    let gateway = Gateway::start(&configuration(&etcd, ""));
    let client = Client::new(gateway.http());
    answers(&client, "a").await;
    (etcd, origin, gateway, client)
}

#[tokio::test]
async fn instances_come_and_go_with_their_keys() {
    let (etcd, a, gateway, client) = found().await;
    let source = gateway.service("users").await["source"].clone();
    assert_eq!((&source["kind"], &source["of"]), (&"etcd".into(), &"/services/users/".into()));
    let b = Origin::text("b").await;
    let mut promptness = Promptness::default();
    // In turn one key is put and the other deleted, and the time until requests follow is taken.
    for turn in 0..10 {
        let (new, old, text, origin) = match turn % 2 {
            0 => ("b", "a", "b", &b),
            _ => ("a", "b", "a", &a),
        };
        etcd.put(&format!("/services/users/{new}"), &origin.url()).await;
        etcd.delete(&format!("/services/users/{old}")).await;
        promptness.until(async || client.get("/").await.text() == text).await;
    }
    promptness.assert_within(Duration::from_millis(100));

    etcd.put("/services/usersx/c", &b.url()).await;
    etcd.delete("/services/users/a").await;
    eventually("an explicit end", || async { (client.get("/").await.status == 503).then_some(()) }).await;
    let service = gateway.service("users").await;
    assert_eq!(service["source"]["state"], "ok");
    assert_eq!(service["instances"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn values_are_read_in_all_their_forms_and_garbage_keeps_the_last() {
    let (etcd, origin, gateway, client) = found().await;
    let more = [Origin::text("a").await, Origin::text("a").await, Origin::text("a").await];
    let [json, registry, names] = more.each_ref().map(|origin| origin.address);
    etcd.put("/services/users/b", &format!(r#"{{"url":"http://{json}","weight":7,"owner":"x"}}"#)).await;
    let form = format!(r#"{{"service_name":"users","host":"{}","port":{}}}"#, registry.ip(), registry.port());
    etcd.put("/services/users/c", &form).await;
    etcd.put("/services/users/d", &format!(r#"{{"Op":0,"Addr":"{names}","Metadata":null}}"#)).await;
    etcd.put("/services/users/e", "http://localhost:no").await;
    etcd.put("/services/users/a", "{ broken").await;
    let service = eventually("all are there", || async {
        let service = gateway.service("users").await;
        let faults = service["source"]["error"].as_str().unwrap_or_default().contains("/services/users/a");
        (faults && service["instances"].as_array().is_some_and(|list| list.len() == 4)).then_some(service)
    })
    .await;
    let list = service["instances"].as_array().expect("a list");
    let expected =
        [(origin.address, 1), (json, 7), (registry, 1), (names, 1)].map(|(a, w)| (a.to_string(), w));
    let read =
        list.iter().map(|one| (one["address"].as_str().expect("text").to_owned(), one["weight"].as_u64()));
    assert_eq!(read.collect::<Vec<_>>(), expected.map(|(address, weight)| (address, Some(weight))));
    let error = service["source"]["error"].as_str().expect("text");
    assert_eq!(
        error,
        "the key /services/users/a: its value is not a JSON object with \"url\", or with \"host\" and \"port\", \
         the key /services/users/e: its value is not http://host:port"
    );
    assert_eq!(client.get("/").await.text(), "a");
    etcd.put("/services/users/a", &origin.url()).await;
    etcd.delete("/services/users/e").await;
    until_well(&gateway, &client).await;
}

#[tokio::test]
async fn a_lease_that_nobody_renews_takes_its_instance_along() {
    let (etcd, _origin, gateway, client) = found().await;
    let leased = Origin::text("a").await;
    etcd.put_for_seconds("/services/users/leased", &leased.url(), 1).await;
    let count = || async { gateway.service("users").await["instances"].as_array().map_or(0, Vec::len) };
    eventually("it is there", || async { (count().await == 2).then_some(()) }).await;
    eventually("it has gone", || async { (count().await == 1).then_some(()) }).await;
    assert_eq!(client.get("/").await.text(), "a");
    assert_eq!(gateway.service("users").await["source"]["state"], "ok");
}

#[tokio::test]
async fn a_killed_etcd_leaves_the_last_good_set_and_is_followed_again() {
    let (mut etcd, _origin, gateway, client) = found().await;
    etcd.process.kill();
    until_stale(&gateway, &client, "refused").await;
    etcd.process.restart().await;
    until_well(&gateway, &client).await;
    let second = Origin::text("second").await;
    etcd.put("/services/users/a", &second.url()).await;
    answers(&client, "second").await;
}

#[tokio::test]
async fn an_etcd_that_is_not_there_yet_holds_nothing_up() {
    let (mut etcd, origin) = (Etcd::start().await, Origin::text("a").await);
    etcd.put("/services/users/a", &origin.url()).await;
    etcd.process.kill();
    let gateway = Gateway::start(&configuration(&etcd, ""));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.code(), "no_instance");
    let why = gateway.wait_for("its instances can't be asked for");
    assert!(why.contains(&etcd.url()) && why.contains("refused"), "{why}");
    etcd.process.restart().await;
    answers(&client, "a").await;
    until_well(&gateway, &client).await;
}

#[tokio::test]
async fn an_etcd_that_hangs_is_noticed() {
    let (etcd, _origin, gateway, client) = found().await;
    etcd.process.signal("STOP");
    until_stale(&gateway, &client, "no answer within 5s").await;
    etcd.process.signal("CONT");
    until_well(&gateway, &client).await;
    let second = Origin::text("second").await;
    etcd.put("/services/users/a", &second.url()).await;
    answers(&client, "second").await;
}

/// Nobody can renew a lease while etcd stands still, and all of them run out in the moment in which it goes on.
#[tokio::test]
async fn leases_that_ran_out_while_it_hung_empty_nothing_at_once() {
    let etcd = Etcd::start().await;
    let origins = [Origin::text("a").await, Origin::text("a").await, Origin::text("a").await];
    let gateway = Gateway::start(&configuration(&etcd, ""));
    for origin in &origins {
        etcd.put_for_seconds(&format!("/services/users/{}", origin.address), &origin.url(), 5).await;
    }
    let client = Client::new(gateway.http());
    let count = || async { gateway.service("users").await["instances"].as_array().map_or(0, Vec::len) };
    eventually("all are there", || async { (count().await == 3).then_some(()) }).await;
    etcd.process.signal("STOP");
    until_stale(&gateway, &client, "no answer within 5s").await;
    etcd.process.signal("CONT");
    until_stale(&gateway, &client, "it is back, but names less than half of the instances").await;
    assert_eq!(count().await, 3);
    for origin in &origins {
        etcd.put(&format!("/services/users/{}", origin.address), &origin.url()).await;
    }
    until_well(&gateway, &client).await;
    assert_eq!(count().await, 3);
}

#[tokio::test]
async fn garbage_in_place_of_etcd_changes_nothing() {
    let (mut etcd, _origin, gateway, client) = found().await;
    for garbage in ["<html>It works!</html>", "{}", r#"{"header":{"revision":"9"},"kvs":[{"key":"%"}]}"#] {
        etcd.process.kill();
        let liar = Origin::start_at(etcd.address, move |_| Response::new(garbage.into())).await;
        until_stale(&gateway, &client, "its answer can't be understood").await;
        drop(liar);
        etcd.process.restart().await;
        until_well(&gateway, &client).await;
    }
}

#[tokio::test]
async fn what_was_compacted_is_read_anew() {
    let (etcd, _origin, gateway, client) = found().await;
    let (watches, ranges) = etcd.watches_and_ranges().await;
    // The revision that the gateway stands at is soon no longer kept.
    for _ in 0..5 {
        etcd.put("/elsewhere", "x").await;
    }
    etcd.compact().await;
    // A watch that was silent is opened anew: it is cancelled, all is read, and a third one is opened.
    let deadline = Instant::now() + Duration::from_secs(45);
    loop {
        let (now, read) = etcd.watches_and_ranges().await;
        if now >= watches + 2 {
            assert!(read >= ranges + 2, "it counted, and then read all");
            break;
        }
        assert!(Instant::now() < deadline, "{now} watches, {watches} before");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let second = Origin::text("second").await;
    etcd.put("/services/users/a", &second.url()).await;
    answers(&client, "second").await;
    assert!(!gateway.messages().contains("can't be asked for"), "it is no failure: {}", gateway.messages());
}

#[tokio::test]
async fn another_endpoint_takes_over_without_a_word() {
    let (mut first, second) = (Etcd::start().await, Etcd::start().await);
    let origin = Origin::text("a").await;
    let dead = crate::support::companion::local(crate::support::companion::port());
    first.put("/services/users/a", &origin.url()).await;
    second.put("/services/users/a", &origin.url()).await;
    let endpoints = format!("[\"http://{dead}\", \"{}\", \"{}\"]", first.url(), second.url());
    let gateway = Gateway::start(&format!(
        "services: {{ users: {{ discovery: {{ etcd: {{ endpoints: {endpoints}, prefix: /services/users/ }} }} }} }}\n{ROUTES}",
    ));
    let client = Client::new(gateway.http());
    answers(&client, "a").await;
    first.process.kill();
    let moved = Origin::text("moved").await;
    second.put("/services/users/a", &moved.url()).await;
    answers(&client, "moved").await;
    assert_eq!(gateway.service("users").await["source"]["state"], "ok");
    assert!(!gateway.messages().contains("can't be asked for"), "{}", gateway.messages());
}

#[tokio::test]
async fn an_etcd_that_lost_its_memory_empties_nothing_at_once() {
    let (mut etcd, origin, gateway, client) = found().await;
    etcd.process.kill();
    etcd.wipe();
    etcd.process.restart().await;
    until_stale(&gateway, &client, "it is back, but names less than half of the instances").await;
    etcd.put("/services/users/anew", &origin.url()).await;
    until_well(&gateway, &client).await;
}

#[tokio::test]
async fn authentication_is_done_and_its_secrets_are_kept() {
    let etcd = Etcd::start().await;
    let origin = Origin::text("a").await;
    etcd.put("/services/users/a", &origin.url()).await;
    for (path, question) in [
        ("/v3/auth/user/add", serde_json::json!({ "name": "root", "password": "open-sesame" })),
        ("/v3/auth/role/add", serde_json::json!({ "name": "root" })),
        ("/v3/auth/user/grant", serde_json::json!({ "user": "root", "role": "root" })),
        ("/v3/auth/enable", serde_json::json!({})),
    ] {
        etcd.ask(path, question).await;
    }
    let gateway = Gateway::start(&configuration(&etcd, ", username: root, password: not-this-one"));
    let client = Client::new(gateway.http());
    let why = gateway.wait_for("its instances can't be asked for");
    assert!(why.contains("authentication failed"), "{why}");
    assert_eq!(client.get("/").await.status, 503);
    gateway.reconfigure(&configuration(&etcd, ", username: root, password: open-sesame")).await;
    answers(&client, "a").await;
    gateway.reconfigure(&configuration(&etcd, "")).await;
    until(&gateway, &client, "failing", "user name is empty").await;
    let told = format!("{}{}", gateway.messages(), gateway.api("/api/services").await);
    assert!(!told.contains("sesame") && !told.contains("not-this-one"), "{told}");
}

#[tokio::test]
async fn ten_thousand_instances_are_a_set_and_the_next_is_left_out() {
    let etcd = Etcd::start().await;
    let origin = Origin::text("a").await;
    let address = |number: usize| format!("127.{}.{}.1:9", 1 + number / 250, number % 250);
    let key = |number: usize| format!("/services/users/{number:05}");
    let follower = Gateway::start(&configuration(&etcd, ""));
    let count =
        async |gateway: &Gateway| gateway.metric("gatehouse_service_instances", &["service=\"users\""]).await;
    // It follows while they come, faster than it could take them one by one.
    etcd.put_all((0..9_999).map(|number| (key(number), address(number)))).await;
    eventually("all are there", || async { (count(&follower).await == 9_999.0).then_some(()) }).await;
    drop(follower);

    let gateway = Gateway::start(&configuration(&etcd, ""));
    gateway.wait_for("0 → 9999 instances");
    let lines = || gateway.messages().matches(" instances").count();
    let before = lines();
    let mut promptness = Promptness::default();
    for turn in 1..=5 {
        match turn % 2 {
            0 => etcd.delete(&key(9_999)).await,
            _ => etcd.put(&key(9_999), &origin.url()).await,
        }
        let is_there = async || {
            tokio::time::sleep(Duration::from_millis(1)).await;
            lines() >= before + turn
        };
        promptness.until(is_there).await;
    }
    // Unoptimised, ten thousand take ten times as long to look through.
    promptness.assert_within(Duration::from_millis(if cfg!(debug_assertions) { 800 } else { 100 }));
    assert_eq!(count(&gateway).await, 10_000.0);
    assert!(!gateway.messages().contains("can't be asked for"), "{}", gateway.messages());
    etcd.put(&key(10_000), &address(10_000)).await;
    let why = gateway.wait_for("its instances can't be asked for");
    assert!(why.contains("1 keys beyond the first 10000 are left out"), "{why}");
    assert_eq!(count(&gateway).await, 10_000.0);
    etcd.delete(&key(10_000)).await;
    gateway.wait_for("its instances can be asked for again");
}
