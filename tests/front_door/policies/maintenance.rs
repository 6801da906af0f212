//! A reply for everyone while something is being done.

use std::fs;

use super::*;
use crate::support::client::Reply;
use crate::support::eventually;

async fn until(client: &Client, target: &str, status: u16) -> Reply {
    eventually(&format!("{status} at {target}"), || async {
        let reply = client.get(target).await;
        (reply.status == status).then_some(reply)
    })
    .await
}

#[tokio::test]
async fn a_file_turns_it_on_and_off() {
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&forwarding(
        &origin,
        "defaults: { maintenance: { while_file_exists: __maintenance__, retry_after: 90s } }",
        "",
    ));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.status, 200);
    fs::write(gateway.file("__maintenance__"), "").expect("writable");
    let reply = until(&client, "/", 503).await;
    assert_eq!(reply.code(), "maintenance");
    assert_eq!(reply.header("retry-after"), Some("90"));
    gateway.wait_for("maintenance begins: ");
    // Not even what no route takes, nor a preflight, tells that someone is there.
    let before = origin.count();
    assert_eq!(client.get("/nowhere").await.status, 503);
    let preflight = Client::new(gateway.http())
        .header("origin", "https://a.example")
        .header("access-control-request-method", "GET");
    assert_eq!(preflight.send(http::Method::OPTIONS, "/", Bytes::new()).await.status, 503);
    assert_eq!(client.post("/", vec![b'x'; 100_000]).await.status, 503);
    assert_eq!(origin.count(), before);
    // The operator's side goes on.
    let admin = Client::new(gateway.admin());
    assert_eq!(admin.get("/health").await.status, 200);
    assert_eq!(admin.get("/ready").await.status, 200);
    assert_eq!(gateway.api("/api/status").await["maintenance"][0]["active"], true);
    assert_eq!(gateway.metric("gatehouse_maintenance", &["__maintenance__"]).await, 1.0);
    assert_eq!(gateway.log_entry(|entry| entry["status"] == 503)["reason"], "maintenance");

    fs::remove_file(gateway.file("__maintenance__")).expect("it is there");
    until(&client, "/", 200).await;
    gateway.wait_for("maintenance ends: ");
    assert_eq!(gateway.api("/api/status").await["maintenance"][0]["active"], false);
}

#[tokio::test]
async fn it_is_on_from_the_first_request_and_over_reloads() {
    let origin = Origin::text("ok").await;
    let config = |more: &str| {
        forwarding(&origin, &format!("defaults: {{ maintenance: {{ while_file_exists: down }}{more} }}"), "")
    };
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    fs::write(directory.path().join("down"), "").expect("writable");
    let gateway = Gateway::start_in(directory, &config(""), &[]);
    let client = Client::new(gateway.http());
    let reply = client.get("/").await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("120")));
    gateway.reconfigure(&config(", max_body: 1MiB")).await;
    assert_eq!(client.get("/").await.status, 503);
    fs::remove_file(gateway.file("down")).expect("it is there");
    until(&client, "/", 200).await;
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn routes_have_one_of_their_own() {
    let gateway = Gateway::start(
        "trusted_proxies: [127.0.0.0/8]\n\
         defaults: { maintenance: { enabled: true, except: [10.0.0.0/8] } }\n\
         routes:\n\
         \x20 - { name: all, match: { path: /all }, respond: {} }\n\
         \x20 - { name: open, match: { path: /open }, maintenance: { enabled: false }, respond: {} }\n\
         \x20 - { name: own, match: { path: /own }, maintenance: { enabled: true, retry_after: 1500ms }, respond: {} }\n",
    );
    let status = async |target: &str, from: &str| {
        Client::new(gateway.http()).header("x-forwarded-for", from).get(target).await.status
    };
    assert_eq!(status("/all", "192.0.2.1").await, 503);
    assert_eq!(status("/nowhere", "192.0.2.1").await, 503);
    assert_eq!(status("/open", "192.0.2.1").await, 200);
    assert_eq!(status("/all", "10.1.2.3").await, 200);
    assert_eq!(status("/all", "::ffff:10.1.2.3").await, 200);
    assert_eq!(status("/nowhere", "10.1.2.3").await, 404);
    assert_eq!(status("/own", "10.1.2.3").await, 503, "the route's own block stands alone");
    let reply = Client::new(gateway.http()).get("/own").await;
    assert_eq!(reply.header("retry-after"), Some("2"), "in whole seconds");
}
