//! The operator's interface, as a process serves it.

use crate::support::{Client, Gateway, Origin, raw};

fn configuration(url: &str) -> String {
    format!(
        "services: {{ users: {{ instances: ['{url}'] }}, later: {{ discovery: {{ registry: {{}} }} }} }}\n\
         registry: {{ bind: '127.0.0.1:0' }}\n\
         routes: [{{ name: users, match: {{ prefix: /users, methods: [GET] }}, forward: {{ service: users }} }}]\n"
    )
}

#[tokio::test]
async fn it_tells_what_runs() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&configuration(&origin.url()));
    let admin = Client::new(gateway.admin());
    assert_eq!(admin.get("/health").await.json(), serde_json::json!({ "status": "ok" }));
    assert_eq!(admin.get("/ready").await.json(), serde_json::json!({ "status": "ready" }));
    Client::new(gateway.http()).get("/users").await;

    let status = gateway.api("/api/status").await;
    assert_eq!(status["generation"], 1);
    assert_eq!(status["workers"], 2);
    assert_eq!(status["draining"], false);
    assert_eq!(status["configuration_file"], "gateway.yaml");
    assert!(status["last_reload"].is_null());
    let names: Vec<_> =
        status["listeners"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["http", "admin", "registry"]);
    assert_eq!(status["listeners"][0]["address"], gateway.http().to_string());

    let services = gateway.api("/api/services").await;
    let users = &services["services"][0];
    assert_eq!((&users["name"], &users["source"]["kind"]), (&"users".into(), &"static".into()));
    let instance = &users["instances"][0];
    assert_eq!(instance["address"], origin.address.to_string());
    assert_eq!((&instance["attempts"], &instance["failures"]), (&1.into(), &0.into()));
    assert_eq!((&instance["health"], &instance["breaker"]["state"]), (&"unchecked".into(), &"closed".into()));
    assert_eq!(services["services"][1]["source"]["kind"], "registry");

    let routes = gateway.api("/api/routes").await;
    assert_eq!(routes["routes"][0]["name"], "users");
    assert_eq!(routes["routes"][0]["match"]["prefix"], "/users");
    assert!(routes["routes"][0]["action"].to_string().contains("users"));
}

#[tokio::test]
async fn it_is_for_the_operator_alone() {
    let gateway = Gateway::start("routes: []\n");
    let admin = gateway.admin();
    // A page with a name of its own that leads here (DNS rebinding), and a form on a foreign page.
    assert_eq!(Client::new(admin).host("evil.example").get("/api/status").await.status, 403);
    assert_eq!(
        Client::new(admin).header("origin", "https://evil.example").post("/api/reload", "").await.status,
        403
    );
    assert_eq!(Client::new(admin).get("/api/reload").await.status, 405);
    assert_eq!(Client::new(admin).get("/nowhere").await.code(), "not_found");
    assert!(raw::exchange(admin, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    // None of it is on the public side.
    for path in ["/health", "/metrics", "/api/status"] {
        assert_eq!(Client::new(gateway.http()).get(path).await.status, 404);
    }
}
