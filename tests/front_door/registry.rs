//! The built-in registry: what registers there gets requests, for as long as it sends heartbeats.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{Client, Gateway, Origin, Reply, eventually};

fn configuration(registry: &str) -> String {
    format!(
        "registry: {{ bind: \"127.0.0.1:0\", {registry} }}\n\
         services: {{ users: {{ discovery: {{ registry: {{}} }}, load_balancing: round_robin }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    )
}

struct Registry(Client);

impl Registry {
    fn of(gateway: &Gateway) -> Registry {
        Registry(Client::new(gateway.address("registry")).header("content-type", "application/json"))
    }

    async fn tell(&self, what: &str, service: &str, address: SocketAddr) -> Reply {
        let body =
            format!(r#"{{"service_name":"{service}","host":"{}","port":{}}}"#, address.ip(), address.port());
        self.0.post(&format!("/registry/{what}"), body).await
    }
}

#[tokio::test]
async fn registering_and_leaving_steers_requests_within_a_second() {
    let (first, second) = (Origin::text("first").await, Origin::text("second").await);
    let gateway = Gateway::start(&configuration(""));
    let (client, registry) = (Client::new(gateway.http()), Registry::of(&gateway));
    assert_eq!(client.get("/").await.code(), "no_instance");

    let began = Instant::now();
    let reply = registry.tell("register", "users", first.address).await;
    assert_eq!((reply.status, &reply.json()["created"]), (200, &true.into()), "{}", reply.text());
    eventually("requests go there", || async { (client.get("/").await.status == 200).then_some(()) }).await;
    assert!(began.elapsed() < Duration::from_secs(1));

    registry.tell("register", "users", second.address).await;
    eventually("requests go there too", || async {
        (client.get("/").await.text() == "second").then_some(())
    })
    .await;
    assert_eq!(registry.tell("register", "users", second.address).await.json()["created"], false);
    assert_eq!(gateway.service("users").await["instances"].as_array().map(Vec::len), Some(2));

    let began = Instant::now();
    assert_eq!(registry.tell("deregister", "users", first.address).await.status, 200);
    eventually("it has left", || async {
        gateway.instance("users", first.address).await.is_none().then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(1));
    for _ in 0..4 {
        assert_eq!(client.get("/").await.text(), "second");
    }
    assert_eq!(registry.tell("heartbeat", "users", first.address).await.code(), "instance_unknown");
}

#[tokio::test]
async fn who_falls_silent_is_taken_out() {
    let (lively, silent) = (Origin::text("lively").await, Origin::text("silent").await);
    let gateway = Gateway::start(&configuration("heartbeat_ttl: 1s"));
    let registry = Registry::of(&gateway);
    registry.tell("register", "users", lively.address).await;
    registry.tell("register", "users", silent.address).await;
    eventually("both are there", || async {
        (gateway.service("users").await["instances"].as_array()?.len() == 2).then_some(())
    })
    .await;
    eventually("the silent one is out", || async {
        assert_eq!(registry.tell("heartbeat", "users", lively.address).await.status, 200);
        gateway.instance("users", silent.address).await.is_none().then_some(())
    })
    .await;
    assert!(gateway.instance("users", lively.address).await.is_some());
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "lively");
}

#[tokio::test]
async fn it_answers_who_is_there() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&configuration(""));
    let registry = Registry::of(&gateway);
    let client = Client::new(gateway.address("registry"));
    assert_eq!(client.get("/registry/discover/users").await.code(), "no_instance");
    registry.tell("register", "users", origin.address).await;
    registry.tell("register", "others", origin.address).await;
    let one = client.get("/registry/discover/users").await;
    assert_eq!(one.status, 200);
    assert_eq!(one.json()["port"], origin.address.port());
    let all = client.get("/registry/services").await.text();
    assert!(all.contains("\"users\"") && all.contains("\"others\""), "{all}");
    let version = client.get("/registry/watch/users?version=0&timeout=5s").await.json()["version"].clone();
    let waiting = format!("/registry/watch/users?version={version}&timeout=15s");
    let (changed, _) =
        tokio::join!(client.get(&waiting), registry.tell("deregister", "users", origin.address));
    assert_eq!(changed.json()["instances"], serde_json::json!([]));
}

#[tokio::test]
async fn a_token_is_asked_for() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&configuration("token: let-me-register-here"));
    let registry = Registry::of(&gateway);
    assert_eq!(registry.tell("register", "users", origin.address).await.code(), "token_missing");
    let wrong = Registry(registry.0.clone().bearer("let-me-register-there"));
    assert_eq!(wrong.tell("register", "users", origin.address).await.code(), "token_wrong");
    let right = Registry(registry.0.clone().bearer("let-me-register-here"));
    assert_eq!(right.tell("register", "users", origin.address).await.status, 200);
    assert!(!gateway.messages().contains("let-me-register"));
}
