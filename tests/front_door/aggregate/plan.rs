//! Parts that wait for others, and the values that they take from them.

use http::{Method, Response};
use http_body_util::Full;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{gateway, various, without_times};
use crate::support::origin::Seen;
use crate::support::tokens::hs256;
use crate::support::{Client, Gateway, Origin, eventually, origin};

/// Answers `/user` with this, and everything else with the request's target.
async fn user(document: &'static str) -> Origin {
    Origin::start(move |seen| match seen.target.as_str() {
        "/user" => origin::json(document),
        target => origin::json(json!(target).to_string()),
    })
    .await
}

#[tokio::test]
async fn a_part_takes_values_of_another_and_waits_for_it() {
    let origin = user(r#"{"id":12345678901234567890,"address":{"city":"São Paulo"},"tags":["a/b"]}"#).await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "weather: { service: parts, path: \"/w/{user.address.city}?id={user.id}&tag={user.tags[0]}&r={id}\" }, \
         user: { service: parts, path: /user }",
    );
    assert_eq!(
        Client::new(gateway.http()).get("/all/7").await.text(),
        r#"{"weather":"/w/S%C3%A3o%20Paulo?id=12345678901234567890&tag=a%2Fb&r=7","user":{"id":12345678901234567890,"address":{"city":"São Paulo"},"tags":["a/b"]}}"#
    );
    let targets: Vec<String> = origin.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets[0], "/user");
    assert_eq!(gateway.log_entry(|entry| entry["route"] == "all")["attempts"], 2);
}

#[tokio::test]
async fn what_needs_nothing_begins_at_once_and_the_rest_as_soon_as_it_can() {
    let gate = std::sync::Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let origin = Origin::start_slow(move |seen: Seen| {
        let gate = held.clone();
        async move {
            if seen.target == "/slow" {
                gate.acquire().await.expect("it is never closed").forget();
            }
            origin::json("1")
        }
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "20s",
        "last: { service: parts, path: /last, after: [slow, second] }, second: { service: parts, path: /second, after: [first] }, \
         first: { service: parts, path: /first }, slow: { service: parts, path: /slow }",
    );
    let client = Client::new(gateway.http());
    let request = tokio::spawn(async move { client.get("/all/1").await.text() });
    eventually("all but the last have come through", || async { (origin.count() == 3).then_some(()) }).await;
    assert!(origin.seen().iter().all(|seen| seen.target != "/last"));
    gate.add_permits(1);
    assert_eq!(request.await.expect("it ends"), r#"{"last":1,"second":1,"first":1,"slow":1}"#);
}

#[tokio::test]
async fn no_value_changes_the_request() {
    for (value, path, query) in [
        ("../admin", "..%2Fadmin", "..%2Fadmin"),
        ("a?b=c&d", "a%3Fb%3Dc%26d", "a%3Fb%3Dc%26d"),
        ("a#b", "a%23b", "a%23b"),
        ("%2f", "%252f", "%252f"),
        ("a\r\nx-evil: 1", "a%0D%0Ax-evil%3A%201", "a%0D%0Ax-evil%3A%201"),
        ("+ ;", "%2B%20%3B", "%2B%20%3B"),
        ("\u{0}", "%00", "%00"),
    ] {
        let document = json!({ "v": value }).to_string();
        let origin = Origin::start(move |seen| match seen.target.as_str() {
            "/user" => origin::json(document.clone()),
            target => origin::json(json!(target).to_string()),
        })
        .await;
        let gateway = gateway(
            &origin.url(),
            "",
            "10s",
            "user: { service: parts, path: /user, hidden: true }, p: { service: parts, path: \"/p/{user.v}/x\" }, q: { service: parts, path: \"/q?a={user.v}&z=1\" }",
        );
        let wanted = json!({ "p": format!("/p/{path}/x"), "q": format!("/q?a={query}&z=1") });
        assert_eq!(Client::new(gateway.http()).get("/all/1").await.json(), wanted, "{value:?}");
    }
}

#[tokio::test]
async fn a_value_that_is_not_there_fails_the_part_and_no_request_is_made() {
    let document =
        r#"{"null":null,"object":{},"list":[],"empty":"","up":"..","half":"\ud800","dot":{"a":"."}}"#;
    for value in
        ["nowhere", "null", "object", "list", "list[0]", "empty", "up", "half", "dot.a", "null.a", "empty.a"]
    {
        let origin = user(document).await;
        let parts = format!(
            "user: {{ service: parts, path: /user, hidden: true }}, p: {{ service: parts, path: \"/p/{{user.{value}}}/x\", fallback: 7 }}"
        );
        let gateway = gateway(&origin.url(), "", "10s", &parts);
        let reply = Client::new(gateway.http()).get("/all/1").await;
        assert_eq!(
            without_times(&reply),
            r#"{"p":7,"_errors":[{"part":"p","reason":"part_missing_value","status":502}]}"#,
            "{value}"
        );
        assert_eq!(origin.count(), 1, "{value}");
    }
    let origin = user(document).await;
    let parts = "user: { service: parts, path: /user }, p: { service: parts, path: \"/p/{user.null}\", required: true }";
    let gateway = gateway(&origin.url(), "", "10s", parts);
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "part_missing_value"));
}

#[tokio::test]
async fn fields_of_a_part_take_the_place_of_the_clients() {
    let origin = user(r#"{"tenant":"blue","evil":"a\r\nx-evil: 1"}"#).await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "user: { service: parts, path: /user, hidden: true }, \
         p: { service: parts, path: /p, headers: { x-tenant: \"{user.tenant}/{id}\", x-request-id: mine, x-brace: \"{{}}\" } }, \
         q: { service: parts, path: /q, headers: { x-tenant: \"{user.evil}\" } }",
    );
    let reply = Client::new(gateway.http()).header("x-tenant", "red").get("/all/a%20b").await;
    assert_eq!(
        without_times(&reply),
        r#"{"p":"/p","q":null,"_errors":[{"part":"q","reason":"part_missing_value","status":502}]}"#
    );
    let seen = origin.seen();
    let part = seen.iter().find(|seen| seen.target == "/p").expect("it was asked");
    for (name, value) in [("x-tenant", "blue/a b"), ("x-request-id", "mine"), ("x-brace", "{}")] {
        let values: Vec<_> = part.headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }
    assert!(part.header("via").is_some() && part.header("x-forwarded-for").is_some());
    assert_eq!(
        seen.iter().find(|seen| seen.target == "/user").and_then(|seen| seen.header("x-tenant")),
        Some("red")
    );
}

#[tokio::test]
async fn claims_are_those_of_the_verified_token() {
    let origin = user("{}").await;
    let gateway = Gateway::start(&format!(
        "services: {{ parts: {{ instances: [\"{}\"] }} }}\n\
         authenticators: {{ shop: {{ jwt: {{ algorithms: [HS256], keys: [{{ secret: \"{}\" }}] }} }} }}\n\
         routes:\n- name: all\n  match: {{ path: /all }}\n  authenticate: {{ with: [shop] }}\n  aggregate:\n    \
         parts: {{ a: {{ service: parts, path: \"/u/{{claims.sub}}?t={{claims.org.tenant}}\" }}, \
         b: {{ service: parts, path: \"/{{claims.none}}\" }} }}\n",
        origin.url(),
        crate::support::tokens::SECRET
    ));
    let token = hs256(json!({ "sub": "a/../b", "org": { "tenant": 7 } }));
    let reply = Client::new(gateway.http()).bearer(&token).get("/all").await;
    assert_eq!(
        without_times(&reply),
        r#"{"a":"/u/a%2F..%2Fb?t=7","b":null,"_errors":[{"part":"b","reason":"part_missing_value","status":502}]}"#
    );
    assert_eq!(Client::new(gateway.http()).get("/all").await.code(), "token_missing");
}

#[tokio::test]
async fn others_take_values_of_what_stands_in() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/broken" => origin::status(500),
        "/other" => origin::json(r#"{"id":2}"#),
        target => origin::json(json!(target).to_string()),
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "retries: { attempts: 0 }",
        "10s",
        "a: { service: parts, path: /broken, fallback: { id: 1 } }, b: { service: parts, path: \"/b/{a.id}\" }, \
         c: { service: parts, path: /broken, fallback: { part: other } }, d: { service: parts, path: \"/d/{c.id}\" }, \
         other: { service: parts, path: /other, hidden: true }",
    );
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(
        without_times(&reply),
        r#"{"a":{"id":1},"b":"/b/1","c":{"id":2},"d":"/d/2","_errors":[{"part":"a","reason":"part_failed","status":500},{"part":"c","reason":"part_failed","status":500}]}"#
    );
    assert_eq!(reply.header("gatehouse-missing-parts"), Some("a, c"));
}

#[tokio::test]
async fn a_spare_part_is_asked_only_when_it_is_needed() {
    let origin = various().await;
    for (path, document) in [
        ("/fast", r#"{"a":{"fast":1}}"#),
        ("/500", r#"{"a":{"slow":2},"_errors":[{"part":"a","reason":"part_failed","status":500}]}"#),
    ] {
        let before = origin.count();
        let gateway = gateway(
            &origin.url(),
            "retries: { attempts: 0 }",
            "10s",
            &format!(
                "a: {{ service: parts, path: {path}, fallback: {{ part: b }} }}, b: {{ service: parts, path: /slow, hidden: true }}"
            ),
        );
        assert_eq!(without_times(&Client::new(gateway.http()).get("/all/1").await), document);
        assert_eq!(origin.count() - before, if path == "/fast" { 1 } else { 2 });
    }
}

#[tokio::test]
async fn the_statuses_of_success_are_those_of_the_configuration() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/404" => Response::builder().status(404).body(Full::from(r#"{"none":true}"#)).expect("constants"),
        target => origin::status(target[1..].parse().unwrap_or(500)),
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "retries: { attempts: 0 }",
        "10s",
        "a: { service: parts, path: /404, accept_status: [200, 404] }, b: { service: parts, path: /410, accept_status: [400-499] }, \
         c: { service: parts, path: /204, accept_status: [200] }, d: { service: parts, path: /204, accept_status: [200, 204] }, \
         e: { service: parts, path: /200, accept_status: [200] }",
    );
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        r#"{"a":{"none":true},"b":null,"c":null,"d":null,"e":null,"_errors":[{"part":"c","reason":"part_failed","status":204},{"part":"e","reason":"part_not_json","status":502}]}"#
    );
}

#[tokio::test]
async fn a_part_has_a_time_of_its_own() {
    let origin = various().await;
    let gateway = gateway(
        &origin.url(),
        "",
        "60s",
        "a: { service: parts, path: /never, timeout: 200ms }, b: { service: parts, path: /fast, after: [a] }",
    );
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(reply.status, 200);
    let document = reply.json();
    assert_eq!(document["b"], json!({ "fast": 1 }));
    let error = &document["_errors"][0];
    assert_eq!((&error["part"], &error["status"]), (&json!("a"), &json!(504)));
    assert!(error["time_ms"].as_u64().is_some_and(|time| (200..30_000).contains(&time)), "{error}");
}

#[tokio::test]
async fn an_answer_without_all_its_parts_says_so() {
    let origin = various().await;
    let gateway = gateway(
        &origin.url(),
        "retries: { attempts: 0 }",
        "10s",
        "ok: { service: parts, path: /fast }, \"a \\\"b\\\"\": { service: parts, path: /500 }, \"é\": { service: parts, path: /404 }",
    );
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(reply.header("gatehouse-missing-parts"), Some("\"a \\\"b\\\"\", %\"%c3%a9\""));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let gateway = super::gateway(&origin.url(), "", "10s", "ok: { service: parts, path: /fast }");
    let reply = Client::new(gateway.http()).send(Method::GET, "/all/1", bytes::Bytes::new()).await;
    assert_eq!((reply.header("gatehouse-missing-parts"), reply.header("cache-control")), (None, None));
}

#[tokio::test]
async fn the_plan_can_be_seen() {
    let gateway = gateway(
        "http://127.0.0.1:1",
        "",
        "2s",
        "orders: { service: parts, path: \"/o?c={user.city}\", timeout: 500ms, fallback: { part: old } }, \
         user: { service: parts, path: \"/u/{id}\", required: true }, old: { service: parts, path: /old, hidden: true }",
    );
    let routes = gateway.api("/api/routes").await;
    assert_eq!(
        routes["routes"][0]["action"]["aggregate"],
        json!({
            "timeout_ms": 2000,
            "parts": [
                { "name": "orders", "service": "parts", "path": "/o?c={user.city}", "required": false, "after": ["user"],
                  "timeout_ms": 500, "fallback_part": "old" },
                { "name": "user", "service": "parts", "path": "/u/{id}", "required": true },
                { "name": "old", "service": "parts", "path": "/old", "required": false, "hidden": true, "spare": true },
            ],
            "stages": [["user", "old"], ["orders"]],
        })
    );
    let explain = |route: &str, more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        let command =
            command.args(["check", "--explain", route, "-c"]).arg(gateway.file("gateway.yaml")).args(more);
        command.output().expect("the binary was built with the tests")
    };
    assert_eq!(
        String::from_utf8_lossy(&explain("all", &[]).stdout),
        "all: an aggregate of 3 parts within 2000ms\n  \
         stage 1\n    user    parts /u/{id}  required\n  \
         stage 2\n    orders  parts /o?c={user.city}  optional, after user, else old, within 500ms\n  \
         only when needed\n    old     parts /old  optional, hidden\n"
    );
    let told: serde_json::Value =
        serde_json::from_slice(&explain("all", &["--json"]).stdout).expect("it is JSON");
    assert_eq!(told["route"]["action"], routes["routes"][0]["action"]);
    let unknown = explain("nowhere", &[]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("has no route \"nowhere\""));
}

#[tokio::test]
async fn times_are_in_the_log_and_told_to_whom_may_know() {
    let origin = Origin::json("1").await;
    let gateway = Gateway::start(&format!(
        "services: {{ parts: {{ instances: [\"{}\"] }} }}\n\
         routes:\n- name: all\n  match: {{ path: /all }}\n  aggregate:\n    server_timing: {{ header: x-debug, value: hush }}\n    \
         parts: {{ user: {{ service: parts, path: /u }}, \"é x\": {{ service: parts, path: /x, after: [user] }}, fixed: {{ static: 1 }} }}\n",
        origin.url()
    ));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/all").await.header("server-timing"), None);
    for wrong in ["", "hus", "hush!", "HUSH"] {
        let reply = Client::new(gateway.http()).header("x-debug", wrong).get("/all").await;
        assert_eq!((reply.status, reply.header("server-timing")), (200, None), "{wrong}");
    }
    let reply = Client::new(gateway.http()).header("x-debug", "hush").get("/all").await;
    let told = regex::Regex::new(
        r#"^user;dur=\d+\.\d{3}, part-1;desc="\? x";dur=\d+\.\d{3}, total;dur=\d+\.\d{3}$"#,
    );
    let told = told.expect("a good pattern");
    assert!(told.is_match(reply.header("server-timing").unwrap_or_default()), "{reply:?}");
    assert!(origin.seen().iter().all(|seen| seen.header("x-debug").is_none()));
    let entry = gateway.log_entry(|entry| entry["route"] == "all");
    let timings = entry["timings"].as_object().expect("an object");
    assert_eq!(timings.keys().collect::<Vec<_>>(), ["user", "é x"]);
    assert!(timings.values().all(serde_json::Value::is_number) && entry.get("instance").is_none(), "{entry}");
}
