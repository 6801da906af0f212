//! Many requests in one.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::origin::Seen;
use crate::support::{Client, Gateway, Origin, Reply, origin};

mod answers;
mod bounds;
mod items;
mod policies;
mod refusals;
mod sequences;

/// A gateway with a batch at `/batch`, with these settings, and a service behind `/api`. `more` are further routes,
/// `top` are further blocks.
fn gateway(origin: &str, batch: &str, more: &str, top: &str) -> Gateway {
    Gateway::start(&configuration(origin, batch, more, top))
}

fn configuration(origin: &str, batch: &str, more: &str, top: &str) -> String {
    format!(
        "services: {{ s: {{ instances: [\"{origin}\"] }} }}\n{top}\nroutes:\n\
         - {{ name: batch, match: {{ path: /batch }}, batch: {{ {batch} }} }}\n\
         - {{ name: api, match: {{ prefix: /api }}, forward: {{ service: s }} }}\n{more}\n"
    )
}

fn client(gateway: &Gateway) -> Client {
    Client::new(gateway.http()).header("content-type", "application/json")
}

async fn send(gateway: &Gateway, batch: Value) -> Vec<Value> {
    answers(&client(gateway).post("/batch", batch.to_string()).await)
}

/// The items of an answer to a batch.
fn answers(reply: &Reply) -> Vec<Value> {
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{reply:?}");
    reply.json().as_array().expect("the answers are a list").clone()
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|answer| answer["status"].as_u64().expect("each answer has a status")).collect()
}

/// The reason of each answer of the gateway's own, `-` for the others.
fn reasons(answers: &[Value]) -> Vec<String> {
    let reason = |answer: &Value| answer["body"]["code"].as_str().unwrap_or("-").to_owned();
    answers.iter().map(reason).collect()
}

/// Answers with what it saw.
async fn echo() -> Origin {
    Origin::start(|seen: &Seen| echoed(seen)).await
}

/// The same, which answers once there is a permit for it.
async fn held_echo() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let origin = Origin::start_slow(move |seen: Seen| {
        let gate = held.clone();
        async move {
            gate.acquire().await.expect("it is never closed").forget();
            echoed(&seen)
        }
    });
    (origin.await, gate)
}

fn echoed(seen: &Seen) -> Response<Full<Bytes>> {
    if let Some(status) = seen.target.strip_prefix("/api/status/") {
        return origin::status(status.parse().unwrap_or(500));
    }
    let body = String::from_utf8_lossy(&seen.body);
    let method = seen.method.as_str();
    origin::json(json!({ "method": method, "target": seen.target, "body": body }).to_string())
}

#[tokio::test]
async fn items_are_answered_in_their_order_by_their_own_routes() {
    let origin = echo().await;
    let more = "- { name: hello, match: { path: /hello }, respond: { text: hi } }";
    let gateway = gateway(&origin.url(), "", more, "");
    let answers = send(
        &gateway,
        json!([
            { "id": "one", "path": "/api/a?b=c" },
            { "path": "/hello" },
            { "id": "two", "method": "POST", "path": "/api/x", "body": { "n": 1 } },
            { "path": "/api/status/404" },
        ]),
    )
    .await;
    assert_eq!(statuses(&answers), [200, 200, 200, 404]);
    assert_eq!((&answers[0]["id"], &answers[2]["id"]), (&json!("one"), &json!("two")));
    assert_eq!(answers[1].get("id"), None);
    assert_eq!(answers[0]["body"], json!({ "method": "GET", "target": "/api/a?b=c", "body": "" }));
    assert_eq!(answers[1]["body"], "hi");
    assert_eq!(answers[2]["body"], json!({ "method": "POST", "target": "/api/x", "body": "{\"n\":1}" }));
    assert_eq!(answers[0]["headers"]["content-type"], "application/json");
    let entry = gateway.log_entry(|entry| entry["route"] == "batch");
    assert_eq!((&entry["items"], &entry["status"]), (&json!(4), &json!(200)));
    let item = gateway.log_entry(|entry| entry["path"] == "/api/status/404");
    assert_eq!((&item["route"], &item["status"]), (&json!("api"), &json!(404)));
    assert_eq!((&item["request_id"], &item["trace_id"]), (&entry["request_id"], &entry["trace_id"]));
    for (route, count) in [("batch", 1.0), ("api", 3.0), ("hello", 1.0)] {
        let label = format!("route=\"{route}\"");
        assert_eq!(gateway.metric("http_requests_total", &[&label]).await, count, "{route}");
    }
}

#[tokio::test]
async fn an_item_is_a_request_of_the_batch_s_client() {
    let origin = echo().await;
    let gateway = gateway(&origin.url(), "", "", "");
    let client = client(&gateway)
        .host("shop.example:81")
        .header("accept-language", "de")
        .header("x-tenant", "a")
        .header("cookie", "c=d")
        .header("x-request-id", "r-7")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip")
        .header("idempotency-key", "k")
        .header("if-none-match", "\"e\"")
        .header("x-http-method-override", "DELETE")
        .header("connection", "x-hop")
        .header("x-hop", "1");
    let batch = json!([
        { "path": "/api/plain" },
        { "path": "/api/own", "method": "PUT", "body_base64": "AP8=",
          "headers": { "X-Tenant": "b", "accept": "image/png", "x-list": ["1", "2"], "if-match": "\"f\"" } },
    ]);
    let reply = client.post("/batch", batch.to_string()).await;
    assert_eq!(statuses(&answers(&reply)), [200, 200]);
    assert_eq!(reply.header("x-request-id"), Some("r-7"));
    let seen = origin.seen();
    let of = |target: &str| seen.iter().find(|seen| seen.target == target).expect("it was asked").clone();
    let (plain, own) = (of("/api/plain"), of("/api/own"));
    for seen in [&plain, &own] {
        let same = [
            ("host", "shop.example:81"),
            ("accept-language", "de"),
            ("cookie", "c=d"),
            ("x-request-id", "r-7"),
        ];
        for (name, value) in same {
            assert_eq!(seen.header(name), Some(value), "{name}");
        }
        let gone = ["accept-encoding", "idempotency-key", "if-none-match", "x-http-method-override", "x-hop"];
        for name in gone {
            assert_eq!(seen.header(name), None, "{name}");
        }
        assert_eq!(seen.headers.get_all("via").iter().count(), 1);
    }
    assert_eq!((plain.header("x-tenant"), plain.header("accept")), (Some("a"), None));
    assert_eq!((plain.header("content-type"), plain.header("content-length")), (None, None));
    assert_eq!((own.method.clone(), own.body.as_ref()), (Method::PUT, &b"\0\xff"[..]));
    let header = |name: &str| own.headers.get_all(name).iter().cloned().collect::<Vec<_>>();
    assert_eq!(header("x-tenant"), ["b"]);
    assert_eq!(header("x-list"), ["1", "2"]);
    assert_eq!(
        (header("if-match"), header("accept")),
        (vec!["\"f\"".parse().unwrap()], vec!["image/png".parse().unwrap()])
    );
    assert_eq!(header("content-length"), ["2"]);
    // Their spans are of one trace, and none is another's.
    let trace = |seen: &Seen| seen.header("traceparent").expect("there is one").to_owned();
    assert_eq!(trace(&plain)[..35], trace(&own)[..35]);
    assert_ne!(trace(&plain), trace(&own));
}

#[tokio::test]
async fn bodies_are_sent_as_they_were_written() {
    let origin = echo().await;
    let gateway = gateway(&origin.url(), "", "", "");
    let written = r#"[{"method":"POST","path":"/api/a","body":{"n": 1.0, "n":12345678901234567890, "t":"{x.body}\u0041"}},
        {"method":"POST","path":"/api/b","body":"text\n","headers":{"content-type":"text/plain"}},
        {"method":"POST","path":"/api/c","body":"text"},
        {"method":"POST","path":"/api/d","body":null}]"#;
    let reply = client(&gateway).post("/batch", written).await;
    let bodies: Vec<_> = answers(&reply).iter().map(|answer| answer["body"]["body"].clone()).collect();
    let kept = r#"{"n": 1.0, "n":12345678901234567890, "t":"{x.body}\u0041"}"#;
    assert_eq!(bodies, [kept, "text\n", "\"text\"", ""]);
    for (target, kind) in [
        ("/api/a", Some("application/json")),
        ("/api/b", Some("text/plain")),
        ("/api/c", Some("application/json")),
        ("/api/d", None),
    ] {
        let seen = origin.seen().into_iter().find(|seen| seen.target == target).expect("it was asked");
        assert_eq!(seen.header("content-type"), kind, "{target}");
    }
}

#[tokio::test]
async fn a_list_in_an_object_is_answered_with_one_and_over_http_2_as_well() {
    let origin = echo().await;
    let gateway = gateway(&origin.url(), "", "", "");
    let batch = json!({ "requests": [{ "path": "/api/a" }] }).to_string();
    for client in [client(&gateway), client(&gateway).http2()] {
        let reply = client.post("/batch", batch.clone()).await;
        assert_eq!(reply.json()["responses"][0]["body"]["target"], "/api/a", "{reply:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    let seen = origin.seen();
    assert_eq!(seen[1].header("host"), Some(gateway.http().to_string().as_str()));
}

#[tokio::test]
async fn its_bounds_are_shown() {
    let origin = echo().await;
    let gateway = gateway(&origin.url(), "max_items: 7, timeout: 2s", "", "");
    let routes = gateway.api("/api/routes").await;
    let action = &routes["routes"][0]["action"];
    assert_eq!(
        action,
        &json!({ "batch": {
            "max_items": 7, "concurrency": 8, "timeout_ms": 2000, "max_body_bytes": 1_048_576,
            "max_answer_bytes": 1_048_576, "max_answers_bytes": 8_388_608,
        } })
    );
    let explain = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        let file = gateway.file("gateway.yaml");
        command.args(["check", "--explain", "batch", "-c"]).arg(file).args(more);
        String::from_utf8(command.output().expect("the binary was built with the tests").stdout)
            .expect("text")
    };
    assert_eq!(explain(&[]), "batch: a batch of up to 7 requests, 8 at once, within 2000ms\n");
    let told: Value = serde_json::from_str(&explain(&["--json"])).expect("it is JSON");
    assert_eq!(&told["route"]["action"], action);
}

#[tokio::test]
async fn behind_a_proxy_items_come_from_the_proxy_s_client() {
    let origin = echo().await;
    let more = "- { name: near, match: { path: /near }, ip_filter: { allow: [192.0.2.0/24] }, forward: { service: s } }";
    let gateway = gateway(&origin.url(), "", more, "trusted_proxies: [127.0.0.0/8]");
    let ask = async |address: &str| {
        let client = client(&gateway).header("x-forwarded-for", address);
        statuses(&answers(&client.post("/batch", json!([{ "path": "/near" }]).to_string()).await))
    };
    assert_eq!(ask("192.0.2.7").await, [200]);
    assert_eq!(ask("198.51.100.7").await, [403]);
    assert_eq!(origin.only().header("x-forwarded-for"), Some("192.0.2.7, 127.0.0.1"));
    let entry = gateway.log_entry(|entry| entry["route"] == "near" && entry["status"] == 200);
    assert_eq!(entry["client"], "192.0.2.7");
}
