//! Where instances come from, seen from outside: what the source says is where requests go.

mod cluster;
mod dns;
mod large;
mod late;
mod liars;
mod rolling;
mod secure;
mod standstill;

use std::time::{Duration, Instant};

use crate::support::{Client, Gateway, Origin, eventually};

const ROUTES: &str = "routes: [{ name: all, match: { prefix: / }, forward: { service: users } }]\n";

#[tokio::test]
async fn a_name_that_cannot_be_resolved_holds_nothing_up() {
    let well = Origin::text("well").await;
    let gateway = Gateway::start(&format!(
        "services:\n  users: {{ instances: [\"http://no-such-host.invalid:80\"] }}\n  \
         other: {{ instances: [\"http://no-such-host.invalid:80\", \"{}\"] }}\n\
         routes:\n- {{ name: users, match: {{ prefix: /users }}, forward: {{ service: users }} }}\n\
         - {{ name: other, match: {{ prefix: /other }}, forward: {{ service: other }} }}\n",
        well.url()
    ));
    let client = Client::new(gateway.http());
    let reply = client.get("/users").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "no_instance"));
    assert_eq!(client.get("/other").await.text(), "well");
    let status = eventually("it says so", || async {
        let service = gateway.service("users").await;
        (service["source"]["state"] == "failing").then_some(service)
    })
    .await;
    assert!(
        status["source"]["error"].as_str().is_some_and(|why| why.contains("no-such-host.invalid")),
        "{status}"
    );
    assert_eq!(gateway.metric("gatehouse_discovery_up", &["service=\"users\""]).await, 0.0);
}

fn from_file(directory: &tempfile::TempDir, list: &str) -> String {
    std::fs::write(directory.path().join("users.yaml"), list).expect("writable");
    format!("services: {{ users: {{ discovery: {{ file: {{ path: users.yaml }} }} }} }}\n{ROUTES}")
}

fn replace(gateway: &Gateway, list: &str) {
    std::fs::write(gateway.file("users.new"), list).expect("writable");
    std::fs::rename(gateway.file("users.new"), gateway.file("users.yaml")).expect("writable");
}

#[tokio::test]
async fn a_changed_file_is_followed() {
    let (first, second) = (Origin::text("first").await, Origin::text("second").await);
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let configuration = from_file(&directory, &format!("- {}\n", first.url()));
    let gateway = Gateway::start_in(directory, &configuration, &[]);
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.text(), "first");
    let began = Instant::now();
    replace(&gateway, &format!("- {}\n", second.url()));
    eventually("requests follow", || async { (client.get("/").await.text() == "second").then_some(()) })
        .await;
    assert!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
    // In place, as a careless script does it.
    std::fs::write(gateway.file("users.yaml"), format!("instances: [\"{}\"]\n", first.url()))
        .expect("writable");
    eventually("requests follow", || async { (client.get("/").await.text() == "first").then_some(()) }).await;
    replace(&gateway, "[]\n");
    eventually("it is empty", || async {
        let reply = client.get("/").await;
        (reply.status == 503).then(|| assert_eq!(reply.code(), "no_instance"))
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_told_of() {
    let origin = Origin::text("still").await;
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let configuration = from_file(&directory, &format!("- {}\n", origin.url()));
    let gateway = Gateway::start_in(directory, &configuration, &[]);
    let client = Client::new(gateway.http());
    replace(&gateway, "- { ulr: http://127.0.0.1:1 }\n");
    let message = gateway.wait_for("service users: its instances can't be asked for, the last known stay");
    assert!(message.contains("users.yaml:1:5") && message.contains("did you mean \"url\"?"), "{message}");
    let source = &gateway.service("users").await["source"];
    assert_eq!(source["state"], "failing");
    assert!(source["error"].as_str().is_some_and(|why| why.contains("users.yaml:1:5")), "{source}");
    assert_eq!(gateway.metric("gatehouse_discovery_up", &["service=\"users\""]).await, 0.0);
    assert_eq!(client.get("/").await.text(), "still");

    replace(&gateway, &format!("- {}\n", origin.url()));
    gateway.wait_for("service users: its instances can be asked for again");
    assert_eq!(gateway.service("users").await["source"]["state"], "ok");
    assert_eq!(gateway.metric("gatehouse_discovery_up", &["service=\"users\""]).await, 1.0);
    assert_eq!(origin.connections(), 1, "an instance that stays keeps its connections");
}

#[tokio::test]
async fn a_missing_file_holds_nothing_up() {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let configuration = from_file(&directory, "[]");
    std::fs::remove_file(directory.path().join("users.yaml")).expect("it was there");
    let gateway = Gateway::start_in(directory, &configuration, &[]);
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.code(), "no_instance");
    let origin = Origin::text("here now").await;
    replace(&gateway, &format!("- {}\n", origin.url()));
    eventually("it is found", || async { (client.get("/").await.text() == "here now").then_some(()) }).await;
}

#[tokio::test]
async fn a_static_name_is_resolved() {
    let origin = Origin::text("by name").await;
    let gateway = Gateway::start(&format!(
        "services: {{ users: {{ instances: [\"http://localhost:{}\"] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users, host: instance }} }}]\n",
        origin.address.port()
    ));
    let client = Client::new(gateway.http());
    eventually("it is resolved", || async { (client.get("/").await.text() == "by name").then_some(()) })
        .await;
    let host = format!("localhost:{}", origin.address.port());
    assert_eq!(origin.seen()[0].header("host"), Some(host.as_str()));
}
