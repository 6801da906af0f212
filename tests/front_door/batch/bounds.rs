//! Time, sizes and clients that leave.

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{answers, client, configuration, echoed, gateway, held_echo, reasons, send, statuses};
use crate::support::origin::Seen;
use crate::support::raw::RawOrigin;
use crate::support::{Origin, eventually, origin};

/// Answers `/api/never` not at all, `/api/N` with a list of so many bytes, everything else with what it saw.
async fn various() -> Origin {
    Origin::start_slow(|seen: Seen| async move {
        if seen.target == "/api/never" {
            std::future::pending::<()>().await;
        }
        match seen.target["/api/".len()..].parse::<usize>() {
            Ok(length) => origin::json(format!("\"{}\"", "x".repeat(length - 2))),
            Err(_) => echoed(&seen),
        }
    })
    .await
}

#[tokio::test]
async fn what_is_not_done_in_time_is_told_as_such() {
    let origin = various().await;
    let gateway = gateway(&origin.url(), "timeout: 1s, concurrency: 2", "", "");
    let answers = send(
        &gateway,
        json!([
            { "id": "never", "path": "/api/never" }, { "path": "/api/never" },
            { "path": "/api/late" }, { "path": "/api/behind", "after": ["never"] },
        ]),
    )
    .await;
    assert_eq!(statuses(&answers), [504, 504, 504, 424]);
    assert_eq!(
        reasons(&answers),
        ["batch_timeout", "batch_timeout", "batch_timeout", "batch_dependency_failed"]
    );
    let entry = gateway.log_entry(|entry| entry["path"] == "/api/never");
    assert_eq!((&entry["status"], &entry["reason"]), (&json!(504), &json!("batch_timeout")));
    eventually("the calls are cancelled", || async { (origin.open_connections() == 0).then_some(()) }).await;
    assert!(origin.seen().iter().all(|seen| seen.target != "/api/late"));
}

#[tokio::test]
async fn an_answer_that_stops_is_waited_for_so_long_only() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = gateway(&origin.url(), "timeout: 500ms", "", "");
    assert_eq!(reasons(&send(&gateway, json!([{ "path": "/api/a" }])).await), ["batch_timeout"]);
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/api/a")["reason"], "batch_timeout");
}

#[tokio::test]
async fn answers_are_so_large_only_one_by_one_and_together() {
    let origin = various().await;
    let gateway = gateway(&origin.url(), "max_answer: 1000B, max_answers: 2500B, concurrency: 1", "", "");
    let send = async |sizes: &[usize]| {
        let items: Vec<Value> = sizes.iter().map(|size| json!({ "path": format!("/api/{size}") })).collect();
        let batch = json!({ "sequential": false, "requests": items }).to_string();
        let reply = client(&gateway).post("/batch", batch).await;
        reply.json()["responses"].as_array().expect("a list").clone()
    };
    assert_eq!(statuses(&send(&[1000, 1001, 10]).await), [200, 502, 200]);
    // What did not fit has left its room to others.
    let answers = send(&[1000, 1000, 1000, 100, 1000]).await;
    assert_eq!(statuses(&answers), [200, 200, 502, 200, 502]);
    assert_eq!(reasons(&answers)[2], "batch_answer_too_large");
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/api/1001")["reason"], "batch_answer_too_large");
    // What compresses well becomes no larger either.
    let bomb = Origin::start(|_| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &[b' '; 20_000]).expect("a vector takes all");
        let body = encoder.finish().expect("a vector takes all");
        Response::builder().header("content-encoding", "gzip").body(Full::from(body)).expect("constants")
    })
    .await;
    gateway
        .reconfigure(&configuration(
            &bomb.url(),
            "max_answer: 1000B, max_answers: 2500B, concurrency: 1",
            "",
            "",
        ))
        .await;
    assert_eq!(reasons(&send(&[10]).await), ["batch_answer_too_large"]);
}

#[tokio::test]
async fn one_item_without_an_answer_does_no_harm_to_the_others() {
    let dead = RawOrigin::start(|stream, _| async move { drop(stream) }).await;
    let half = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
    let origin = super::echo().await;
    let top = format!(
        "services: {{ s: {{ instances: ['{}'] }}, dead: {{ instances: ['{}'], retries: {{ attempts: 0 }} }}, half: {{ instances: ['{}'] }} }}",
        origin.url(),
        dead.url(),
        half.url()
    );
    let gateway = crate::support::Gateway::start(&format!(
        "{top}\nroutes:\n- {{ name: batch, match: {{ path: /batch }}, batch: {{}} }}\n\
         - {{ name: api, match: {{ prefix: /api }}, forward: {{ service: s }} }}\n\
         - {{ name: dead, match: {{ path: /dead }}, forward: {{ service: dead }} }}\n\
         - {{ name: half, match: {{ path: /half }}, forward: {{ service: half }} }}\n"
    ));
    let answers =
        send(&gateway, json!([{ "path": "/dead" }, { "path": "/api/a" }, { "path": "/half" }])).await;
    assert_eq!(statuses(&answers), [502, 200, 502]);
    assert_eq!(reasons(&answers), ["upstream_reset", "-", "upstream_reset"]);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_every_item() {
    let origin = various().await;
    let gateway = gateway(&origin.url(), "timeout: 60s", "", "");
    let batch = r#"[{"path":"/api/never"},{"path":"/api/never"},{"path":"/api/never"}]"#;
    let mut client = tokio::net::TcpStream::connect(gateway.http()).await.expect("it listens");
    let head = "POST /batch HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length:";
    let request = format!("{head} {}\r\n\r\n{batch}", batch.len());
    client.write_all(request.as_bytes()).await.expect("it reads");
    eventually("all have come through", || async { (origin.count() == 3).then_some(()) }).await;
    drop(client);
    eventually("all are cancelled", || async { (origin.open_connections() == 0).then_some(()) }).await;
    let entry = gateway.log_entry(|entry| entry["path"] == "/batch");
    assert_eq!((&entry["reason"], &entry["items"]), (&json!("client_gone"), &json!(3)));
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/api/never")["reason"], "client_gone");
    let instance = gateway.instance("s", origin.address).await.expect("it is there");
    assert_eq!(instance["in_flight"], 0);
}

#[tokio::test]
async fn all_items_are_served_by_one_configuration() {
    let (origin, gate) = held_echo().await;
    let gateway = gateway(&origin.url(), "timeout: 60s", "", "");
    let client = client(&gateway);
    let batch = json!([{ "id": "a", "path": "/api/a" }, { "path": "/api/b", "after": "a" }]).to_string();
    let request = tokio::spawn(async move { client.post("/batch", batch).await });
    eventually("the first has come through", || async { (origin.count() == 1).then_some(()) }).await;
    gateway.reconfigure("routes: [{ name: gone, match: {}, respond: { status: 404 } }]").await;
    gate.add_permits(2);
    assert_eq!(statuses(&answers(&request.await.expect("it ends"))), [200, 200]);
    assert_eq!(super::client(&gateway).post("/batch", "[]").await.status, 404);
}
