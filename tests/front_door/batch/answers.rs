//! What of an answer stands in the document.

use std::io::Write;

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{answers, client, gateway, send, statuses};
use crate::support::origin::Seen;
use crate::support::{Origin, origin};

fn answered(content_type: &str, body: &'static [u8]) -> Response<Full<bytes::Bytes>> {
    Response::builder().header("content-type", content_type).body(Full::from(body)).expect("constants")
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

async fn various() -> Origin {
    Origin::start(|seen: &Seen| match seen.target.as_str() {
        "/api/exact" => answered("application/json", b" {\"a\": 1.0e2, \"a\":12345678901234567890}\n"),
        "/api/plus" => answered("application/vnd.shop+json; charset=utf-8", b"[1]"),
        "/api/lie" => answered("application/json", b"\"<html>"),
        "/api/text" => answered("text/plain", "é\"\n".as_bytes()),
        "/api/image" => answered("image/png", b"\x89PNG\0"),
        "/api/empty" => origin::status(204),
        "/api/gzip" => Response::builder()
            .header("content-type", "application/json")
            .header("content-encoding", "gzip")
            .body(Full::from(gzip(b"{\"z\":1}")))
            .expect("constants"),
        "/api/broken" => Response::builder()
            .header("content-encoding", "gzip")
            .body(Full::from(&b"nonsense"[..]))
            .expect("constants"),
        "/api/coded" => Response::builder()
            .header("content-encoding", "zstd")
            .body(Full::from(&b"abc"[..]))
            .expect("constants"),
        _ => Response::builder()
            .header("set-cookie", "session=secret")
            .header("access-control-allow-origin", "*")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("x-a", "1")
            .header("x-a", "2")
            .header("x-b", &b"\xe9"[..])
            .body(Full::from("x"))
            .expect("constants"),
    })
    .await
}

#[tokio::test]
async fn bodies_come_as_what_they_are() {
    let origin = various().await;
    let gateway = gateway(&origin.url(), "", "", "");
    let paths = ["exact", "plus", "lie", "text", "image", "empty", "gzip", "broken", "coded"];
    let items: Vec<Value> = paths.iter().map(|path| json!({ "path": format!("/api/{path}") })).collect();
    let reply = client(&gateway).post("/batch", json!(items).to_string()).await;
    assert!(reply.text().contains(r#","body":{"a": 1.0e2, "a":12345678901234567890}}"#), "{}", reply.text());
    let answers = answers(&reply);
    assert_eq!(statuses(&answers), [200, 200, 200, 200, 200, 204, 200, 200, 200]);
    let body =
        |place: usize| (answers[place].get("body").cloned(), answers[place].get("body_base64").cloned());
    assert_eq!(body(1), (Some(json!([1])), None));
    assert_eq!(body(2), (None, Some(json!("Ijxo dG1sPg==".replace(' ', "")))));
    assert_eq!(body(3), (Some(json!("é\"\n")), None));
    assert_eq!(body(4), (None, Some(json!("iVBORwA="))));
    assert_eq!(body(5), (None, None));
    assert_eq!(body(6), (Some(json!({ "z": 1 })), None));
    assert_eq!(answers[6]["headers"].get("content-encoding"), None);
    // What can't be read stays as it came, and says so.
    assert_eq!(body(7), (None, Some(json!("bm9uc2Vuc2U="))));
    assert_eq!(answers[7]["headers"]["content-encoding"], "gzip");
    assert_eq!(
        (body(8), &answers[8]["headers"]["content-encoding"]),
        ((None, Some(json!("YWJj"))), &json!("zstd"))
    );
}

#[tokio::test]
async fn fields_come_through_but_for_those_of_connections_and_cookies() {
    let origin = various().await;
    let security = "- { name: safe, match: { path: /safe }, respond: { text: x }, security_headers: true }";
    let gateway = gateway(&origin.url(), "", security, "");
    let answers = send(&gateway, json!([{ "path": "/api/x" }, { "path": "/safe" }])).await;
    let headers = answers[0]["headers"].as_object().expect("an object");
    assert_eq!((&headers["x-a"], &headers["x-b"]), (&json!(["1", "2"]), &json!("é")));
    for name in
        ["set-cookie", "access-control-allow-origin", "connection", "x-hop", "content-length", "x-request-id"]
    {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(answers[1]["headers"]["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn head_and_bodiless_answers_have_none() {
    let origin = various().await;
    let more = "- { name: hello, match: { path: /hello }, respond: { text: hi } }";
    let gateway = gateway(&origin.url(), "", more, "");
    let answers = send(
        &gateway,
        json!([
            { "method": "HEAD", "path": "/api/exact" }, { "method": "HEAD", "path": "/hello" },
            { "method": "HEAD", "path": "/nowhere" },
        ]),
    )
    .await;
    assert_eq!(statuses(&answers), [200, 200, 404]);
    assert!(answers.iter().all(|answer| answer.get("body").is_none() && answer.get("body_base64").is_none()));
}
