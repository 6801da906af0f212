//! What is no batch.

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{client, echo, gateway};
use crate::support::raw::{exchange, read_until};
use crate::support::{Client, Reply};

fn told(reply: &Reply) -> (u16, String, String) {
    let detail = reply.json()["detail"].as_str().expect("a problem has a detail").to_owned();
    (reply.status, reply.code(), detail)
}

#[tokio::test]
async fn what_is_no_list_of_requests_is_refused_as_a_whole() {
    let origin = echo().await;
    let gateway = gateway(&origin.url(), "max_items: 3", "", "");
    let client = client(&gateway);
    for (batch, detail) in [
        ("", "the body is not JSON: line 1, column 0"),
        ("[{\n\"path\": }]", "the body is not JSON: line 2, column 9"),
        ("[{\"path\":\"/\"}] x", "the body is not JSON: line 1, column 16"),
        ("7", "a batch is a list of requests, or an object with one in `requests`"),
        ("[]", "the batch has no items"),
        ("{}", "the batch has no `requests`"),
        (r#"{"requests":{}}"#, "`requests` is not a list"),
        (r#"{"requests":[],"requests":[]}"#, "`requests` or `sequential` is there twice"),
        (r#"{"requests":[],"sequential":1}"#, "`sequential` is neither true nor false"),
        (r#"{"items":[]}"#, "a batch has `requests` and `sequential`, and nothing else"),
        (r#"[{"path":"/"},7]"#, "item 2: it is not an object"),
        (r#"[{}]"#, "item 1: it has no `path`"),
        (r#"[{"path":7}]"#, "item 1: `path` is not a text"),
        (r#"[{"path":"\ud800"}]"#, "item 1: `path` is not a text"),
        (r#"[{"path":"/","path":"/a"}]"#, "item 1: `path` is there twice"),
        (r#"[{"path":"/","id":7}]"#, "item 1: `id` is not a text"),
        (r#"[{"path":"/","id":"a.b"}]"#, "item 1: `id` has 1 to 64 letters, digits, - and _"),
        (r#"[{"path":"/","id":""}]"#, "item 1: `id` has 1 to 64 letters, digits, - and _"),
        (r#"[{"path":"/","method":[]}]"#, "item 1: `method` is not a text"),
        (r#"[{"path":"/","headers":[]}]"#, "item 1: `headers` is not an object"),
        (
            r#"[{"path":"/","headers":{"a":1}}]"#,
            "item 1: a value in `headers` is neither a text nor a list of them",
        ),
        (r#"[{"path":"/","after":[1]}]"#, "item 1: `after` is neither an id nor a list of them"),
        (
            r#"[{"path":"/","url":"/"}]"#,
            "item 1: it has a key that is none of id, method, path, headers, body, body_template, body_base64, after",
        ),
        (
            r#"[{"path":"/","body":1,"body_base64":""}]"#,
            "item 1: it has more than one of `body`, `body_template` and `body_base64`",
        ),
        (
            r#"[{"path":"/","id":"a"},{"path":"/"},{"path":"/","id":"\u0061"}]"#,
            "items 1 and 3 both have the id a",
        ),
        (
            r#"[{"path":"/"},{"path":"/"},{"path":"/"},{"path":"/"}]"#,
            "the batch has more than the 3 items that are allowed",
        ),
    ] {
        let reply = client.post("/batch", batch).await;
        assert_eq!(told(&reply), (400, "invalid_batch".to_owned(), detail.to_owned()), "{batch}");
    }
    // Nothing of it was done, and the gateway lives.
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    assert_eq!(client.post("/batch", deep).await.code(), "invalid_batch");
    assert_eq!(client.post("/batch", Bytes::from_static(b"[\"\xff\"]")).await.code(), "invalid_batch");
    assert_eq!(origin.count(), 0);
    let entry = gateway.log_entry(|entry| entry["reason"] == "invalid_batch");
    assert_eq!((&entry["route"], entry.get("items")), (&json!("batch"), None));
}

#[tokio::test]
async fn a_batch_is_a_post_of_json_of_so_many_bytes() {
    let origin = echo().await;
    let gateway = gateway(&origin.url(), "max_body: 100B", "", "");
    let reply = client(&gateway).get("/batch").await;
    assert_eq!((reply.code().as_str(), reply.header("allow")), ("method_not_allowed", Some("POST")));
    let batch = r#"[{"path":"/api/a"}]"#;
    let plain = || Client::new(gateway.http());
    for (client, status) in [
        (plain(), 415),
        (plain().header("content-type", "text/plain"), 415),
        (plain().header("content-type", "application/jsonp"), 415),
        (plain().header("content-type", "application/json").header("content-encoding", "gzip"), 415),
        (plain().header("content-type", "application/json").header("content-type", "text/plain"), 415),
        (plain().header("content-type", "Application/JSON; charset=utf-8"), 200),
        (
            plain().header("content-type", "application/batch+json").header("content-encoding", "identity"),
            200,
        ),
    ] {
        let reply = client.post("/batch", batch).await;
        assert_eq!(reply.status, status);
        assert!(status == 200 || reply.code() == "batch_media_type");
    }
    let asked = origin.count();
    for (length, status) in [(100, 200), (101, 413)] {
        let batch = format!("{batch:length$}");
        assert_eq!(client(&gateway).post("/batch", batch.clone()).await.status, status, "{length}");
        // Without a length that is known before.
        let http2 = client(&gateway).http2().send(Method::POST, "/batch", batch.into()).await;
        assert_eq!(http2.status, status, "{length}");
    }
    assert_eq!(origin.count(), asked + 2);
}

#[tokio::test]
async fn a_batch_is_waited_for_as_any_body() {
    let origin = echo().await;
    let gateway = gateway(&origin.url(), "", "", "");
    let head = "POST /batch HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let batch = r#"[{"path":"/api/a"}]"#;
    // Its client is told to go on.
    let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
    let length = batch.len();
    let waiting = format!("{head}content-length: {length}\r\nexpect: 100-continue\r\n\r\n");
    stream.write_all(waiting.as_bytes()).await.expect("it reads");
    let told = read_until(&mut stream, "\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 100 "), "{told}");
    stream.write_all(batch.as_bytes()).await.expect("it reads");
    let answer = read_until(&mut stream, "}]").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("/api/a"), "{answer}");
    // In pieces as well.
    let chunked = format!(
        "{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n7\r\n[{{\"path\r\nc\r\n\":\"/api/b\"}}]\r\n0\r\n\r\n"
    );
    let answer = exchange(gateway.http(), chunked).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("/api/b"), "{answer}");
    // One that breaks off is logged.
    let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
    stream.write_all(format!("{head}content-length: 100\r\n\r\n[{{").as_bytes()).await.expect("it reads");
    drop(stream);
    assert_eq!(gateway.log_entry(|entry| entry["reason"] == "client_gone")["path"], "/batch");
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_batch_that_stops_coming_is_answered_in_the_end() {
    let top = "listeners: [{ name: http, bind: '127.0.0.1:0', limits: { idle_timeout: 300ms } }]";
    let gateway = gateway("http://127.0.0.1:9", "", "", top);
    let half =
        "POST /batch HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n[{";
    let told = exchange(gateway.http(), half).await;
    assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("request_timeout"), "{told}");
}
