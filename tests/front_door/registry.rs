//! The built-in registry: what registers there gets requests, for as long as it sends heartbeats.

use std::net::SocketAddr;
use std::path::Path;
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
    assert_eq!(gateway.metric("gatehouse_registry_expired_total", &[]).await, 1.0);
    assert_eq!(gateway.metric("gatehouse_registry_instances", &[]).await, 1.0);
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
async fn what_instances_tell_of_themselves_is_shown() {
    let gateway = Gateway::start(&configuration(""));
    let follower = format!(
        "services: {{ users: {{ discovery: {{ registry: {{ address: \"http://{}\" }} }} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n",
        gateway.address("registry")
    );
    let follower = Gateway::start(&follower);
    let registry = Registry::of(&gateway);
    let origin = Origin::text("x").await;
    let mut told = serde_json::json!({
        "service_name": "users", "host": "127.0.0.1", "port": origin.address.port(), "version": "1.4.2",
        "metadata": { "commit": "f00" }, "service_metadata": { "team": "accounts", "tags": ["a", "b"] },
    });
    assert_eq!(registry.0.post("/registry/register", told.to_string()).await.status, 200);
    let shown_by = async |gateway: &Gateway, version: &str| {
        eventually("it is shown", || async {
            let service = gateway.service("users").await;
            let instance = service["instances"].get(0).filter(|one| one["version"] == version)?;
            assert_eq!(instance["metadata"], serde_json::json!({ "commit": "f00" }));
            assert_eq!(service["metadata"], serde_json::json!({ "team": "accounts", "tags": ["a", "b"] }));
            Some(())
        })
        .await;
    };
    shown_by(&gateway, "1.4.2").await;
    shown_by(&follower, "1.4.2").await;
    let listed = registry.0.get("/registry/services/users").await.json();
    assert_eq!(listed["metadata"]["team"], "accounts");
    assert_eq!(listed["instances"][0]["version"], "1.4.2");

    // A heartbeat changes the instance, and leaves the service to those who register.
    told["version"] = "1.4.3".into();
    told["service_metadata"] = serde_json::json!({ "team": "others" });
    assert_eq!(registry.0.post("/registry/heartbeat", told.to_string()).await.status, 200);
    shown_by(&gateway, "1.4.3").await;
    shown_by(&follower, "1.4.3").await;
    let instance = gateway.instance("users", origin.address).await.unwrap();
    assert_eq!(instance["attempts"], 0, "it is the same instance");

    told["metadata"] = serde_json::json!({ "x": "y".repeat(2048) });
    let refused = registry.0.post("/registry/heartbeat", told.to_string()).await;
    assert_eq!((refused.status, refused.code()), (400, "invalid_member".to_owned()));
    assert_eq!(registry.0.get("/registry/services/nobody").await.code(), "no_service");
}

/// A registry that keeps its state in this file.
fn kept_in(file: &Path) -> String {
    configuration(&format!("heartbeat_ttl: 3s, state_file: {}", file.display()))
}

#[tokio::test]
async fn a_restart_forgets_nobody_and_heartbeats_still_decide() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registry.json");
    let (lively, dead) = (Origin::text("lively").await, Origin::text("dead").await);
    let mut gateway = Gateway::start(&kept_in(&file));
    let registry = Registry::of(&gateway);
    registry.tell("register", "users", lively.address).await;
    registry.tell("register", "users", dead.address).await;
    eventually("both are kept", || async {
        let text = std::fs::read_to_string(&file).ok()?;
        [&lively, &dead].iter().all(|one| text.contains(&one.address.port().to_string())).then_some(())
    })
    .await;
    gateway.signal("KILL");
    gateway.ended().await;

    let gateway = Gateway::start(&kept_in(&file));
    gateway.wait_for("registry: 2 instances were restored from");
    let (client, registry) = (Client::new(gateway.http()), Registry::of(&gateway));
    assert_eq!(client.get("/").await.status, 200, "without anybody's having said a word");
    assert_eq!(registry.tell("heartbeat", "users", lively.address).await.status, 200, "it is known");
    eventually("the dead one is out", || async {
        assert_eq!(registry.tell("heartbeat", "users", lively.address).await.status, 200);
        gateway.instance("users", dead.address).await.is_none().then_some(())
    })
    .await;
    assert_eq!(client.get("/").await.text(), "lively");
}

#[tokio::test]
async fn what_changed_last_is_kept_by_a_gateway_that_stops_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registry.json");
    let mut gateway = Gateway::start(&kept_in(&file));
    let registry = Registry::of(&gateway);
    for port in 1..=20 {
        registry.tell("register", "users", ([127, 0, 0, 1], port).into()).await;
    }
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["instances"].as_array().map(Vec::len), Some(20));
}

#[tokio::test]
async fn a_damaged_state_file_is_told_set_aside_and_holds_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registry.json");
    std::fs::write(&file, "{\"format\":1,\"insta").unwrap();
    let gateway = Gateway::start(&kept_in(&file));
    let told = gateway.wait_for("registry: nobody was restored from");
    assert!(told.contains("EOF while parsing") && told.contains("registry.json.damaged"), "{told}");
    let aside = std::fs::read_to_string(directory.path().join("registry.json.damaged")).unwrap();
    assert_eq!(aside, "{\"format\":1,\"insta");
    let origin = Origin::text("x").await;
    Registry::of(&gateway).tell("register", "users", origin.address).await;
    eventually("it is kept again", || async {
        let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
        (kept["instances"].as_array()?.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_state_file_that_cannot_be_written_is_told_and_one_can_come_by_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&kept_in(&directory.path().join("nowhere/registry.json")));
    let told = gateway.wait_for("can't be written");
    assert!(told.contains("No such file or directory"), "{told}");
    Registry::of(&gateway).tell("register", "users", origin.address).await;
    let file = directory.path().join("registry.json");
    gateway.reconfigure(&kept_in(&file)).await;
    eventually("it is kept", || async {
        std::fs::read_to_string(&file).ok()?.contains(&origin.address.port().to_string()).then_some(())
    })
    .await;
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "x");
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
