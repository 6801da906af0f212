//! The main path: a request to a service and back, and how the process starts and ends.

use crate::support::{Client, Gateway, Origin};

fn one_service(url: &str) -> String {
    format!(
        "services: {{ users: {{ instances: [\"{url}\"] }} }}\n\
         routes: [{{ name: users, match: {{ prefix: /api }}, forward: {{ service: users }} }}]\n"
    )
}

#[tokio::test]
async fn a_request_reaches_the_service_and_its_answer_the_client() {
    let origin = Origin::text("hello").await;
    let gateway = Gateway::start(&one_service(&origin.url()));
    let reply = Client::new(gateway.http()).get("/api/things?x=1").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    assert_eq!(origin.only().target, "/api/things?x=1");
    let entry = gateway.log_entry(|entry| entry["path"] == "/api/things");
    assert_eq!(entry["status"], 200);
    assert_eq!(entry["service"], "users");
}

#[tokio::test]
async fn a_path_without_a_route_is_a_problem_with_a_reason() {
    let gateway = Gateway::start("routes: []\n");
    let reply = Client::new(gateway.http()).get("/nowhere").await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "route_not_found"));
}

#[tokio::test]
async fn sigterm_ends_it_in_order() {
    let mut gateway = Gateway::start("routes: []\n");
    gateway.signal("TERM");
    assert_eq!(gateway.wait_for_end().code(), Some(0));
}
