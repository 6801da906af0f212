//! Registries that stand still (SIGSTOP) for less time than it takes to call that a failure. When they go on,
//! they take for dead whoever could not reach them meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::support::companion::Companion;
use crate::support::source::{answers, until_stale, until_well};
use crate::support::{Client, Consul, Etcd, Gateway, Origin, eventually};

const ROUTES: &str = "routes: [{ name: all, match: { prefix: / }, forward: { service: users } }]\n";

async fn origins() -> [Origin; 3] {
    [Origin::text("a").await, Origin::text("a").await, Origin::text("a").await]
}

async fn until_count(gateway: &Gateway, count: usize) {
    eventually("all are there", || async {
        let service = gateway.service("users").await;
        (service["instances"].as_array().map(Vec::len) == Some(count)).then_some(())
    })
    .await;
}

/// For longer than leases and TTLs last, and for less than a server may be silent.
async fn stands_still(process: &Companion) {
    process.signal("STOP");
    tokio::time::sleep(Duration::from_secs(6)).await;
    process.signal("CONT");
}

/// All of them are said to have gone, and are still asked.
async fn stay(gateway: &Gateway, client: &Client) {
    until_stale(gateway, client, "it is back, but names less than half of the instances").await;
    until_count(gateway, 3).await;
    let failures = gateway.messages().matches("no answer within").count();
    assert_eq!(failures, 0, "it was no failure: {}", gateway.messages());
}

#[tokio::test]
async fn leases_that_ran_out_while_etcd_stood_still_empty_nothing_at_once() {
    let (etcd, origins) = (Etcd::start().await, origins().await);
    let source = format!("{{ etcd: {{ endpoints: [\"{}\"], prefix: /users/ }} }}", etcd.url());
    let gateway = Gateway::start(&format!("services: {{ users: {{ discovery: {source} }} }}\n{ROUTES}"));
    let client = Client::new(gateway.http());
    for origin in &origins {
        etcd.put_for_seconds(&format!("/users/{}", origin.address), &origin.url(), 5).await;
    }
    until_count(&gateway, 3).await;
    answers(&client, "a").await;
    stands_still(&etcd.process).await;
    stay(&gateway, &client).await;
    for origin in &origins {
        etcd.put(&format!("/users/{}", origin.address), &origin.url()).await;
    }
    until_well(&gateway, &client).await;
}

#[tokio::test]
async fn ttls_that_ran_out_while_consul_stood_still_empty_nothing_at_once() {
    let Some(consul) = Consul::start().await else { return };
    let origins = origins().await;
    let id = |address: SocketAddr| format!("users-{}", address.port());
    for origin in &origins {
        let service = json!({ "ID": id(origin.address), "Name": "users", "Address": "127.0.0.1",
                              "Port": origin.address.port(), "Check": { "TTL": "5s", "Status": "passing" } });
        consul.put("/v1/agent/service/register", service).await;
    }
    let source = format!("{{ consul: {{ address: \"{}\", service: users }} }}", consul.url());
    let gateway = Gateway::start(&format!("services: {{ users: {{ discovery: {source} }} }}\n{ROUTES}"));
    let client = Client::new(gateway.http());
    let alive = async || {
        for origin in &origins {
            let check = format!("/v1/agent/check/pass/service:{}", id(origin.address));
            consul.put(&check, json!({})).await;
        }
    };
    alive().await;
    until_count(&gateway, 3).await;
    answers(&client, "a").await;
    stands_still(&consul.process).await;
    stay(&gateway, &client).await;
    alive().await;
    until_well(&gateway, &client).await;
}
