//! Items that can't be sent, and what an item may not do.

use serde_json::{Value, json};

use super::{client, echo, gateway, reasons, send, statuses};
use crate::support::tokens::hs256;

#[tokio::test]
async fn what_is_wrong_with_one_item_is_its_own_affair() {
    let origin = echo().await;
    let gateway = gateway(&origin.url(), "max_items: 50", "", "");
    let wrong = [
        (json!({ "path": "/api/a", "method": "G T" }), "batch_item_invalid"),
        (json!({ "path": "/api/a", "method": "" }), "batch_item_invalid"),
        (json!({ "path": "/api/a", "method": "get" }), "invalid_request"),
        (json!({ "path": "/api/a", "method": "CONNECT" }), "method_not_allowed"),
        (json!({ "path": "/api/a", "method": "TRACE" }), "method_not_allowed"),
        (json!({ "path": "api/a" }), "batch_item_invalid"),
        (json!({ "path": "http://elsewhere.example/api/a" }), "batch_item_invalid"),
        (json!({ "path": "*", "method": "OPTIONS" }), "batch_item_invalid"),
        (json!({ "path": "/api/a#b" }), "batch_item_invalid"),
        (json!({ "path": "/api/a b" }), "batch_item_invalid"),
        (json!({ "path": "/api/\r\nx: y" }), "batch_item_invalid"),
        (json!({ "path": "/api/%2f" }), "invalid_path"),
        (json!({ "path": "/api/%" }), "invalid_path"),
        (json!({ "path": "/nowhere" }), "route_not_found"),
        (json!({ "path": "/api/../nowhere" }), "route_not_found"),
        (json!({ "path": "/batch", "method": "POST", "body": [{ "path": "/api/a" }] }), "batch_nested"),
        (json!({ "path": "/x/../batch" }), "batch_nested"),
        (json!({ "path": "/api/a", "headers": { "x y": "1" } }), "batch_item_invalid"),
        (json!({ "path": "/api/a", "headers": { "x-a": "1\r\nx-b: 2" } }), "batch_missing_value"),
        (json!({ "path": "/api/a", "body_base64": "%" }), "batch_item_invalid"),
        (
            json!({ "path": "/api/a", "headers": { "content-type": ["text/plain", "text/css"] } }),
            "batch_item_invalid",
        ),
        (
            json!({ "path": "/api/a", "body": {}, "headers": { "content-type": "text/plain" } }),
            "batch_item_invalid",
        ),
        (json!({ "path": format!("/api/{}", "a".repeat(9000)) }), "uri_too_long"),
        (json!({ "path": "/api/a", "headers": { "x-a": "a".repeat(40_000) } }), "headers_too_large"),
        (json!({ "path": "/api/a", "headers": { "x-a": vec!["a"; 200] } }), "headers_too_large"),
    ];
    let items: Vec<Value> =
        wrong.iter().map(|(item, _)| item.clone()).chain([json!({ "path": "/api/good" })]).collect();
    let answers = send(&gateway, json!(items)).await;
    let reasons = reasons(&answers);
    for ((item, reason), told) in wrong.iter().zip(&reasons) {
        assert_eq!(told, reason, "{item}");
    }
    assert_eq!(answers.last().expect("there is one")["status"], 200);
    assert_eq!(origin.only().target, "/api/good");
    assert!(answers.iter().all(|answer| answer["headers"].get("connection").is_none()));
}

#[tokio::test]
async fn an_item_says_nothing_about_who_asks_and_how() {
    let origin = echo().await;
    let top = "authenticators: { shop: { jwt: { algorithms: [HS256], issuer: joe, \
        keys: [{ secret: 0123456789abcdef0123456789abcdef }], claim_headers: { sub: x-user-id } } } }";
    let gateway = gateway(&origin.url(), "max_items: 50", "", top);
    let names = [
        "Host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "proxy",
        "proxy-authorization",
        "content-length",
        "Expect",
        "max-forwards",
        "Authorization",
        "cookie",
        "Origin",
        "sec-fetch-site",
        "via",
        "traceparent",
        "tracestate",
        "x-request-id",
        "X-Forwarded-For",
        "x-forwarded-host",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x-user-id",
        "x_user_id",
        "X-User_Id",
        "x_request_id",
    ];
    let items: Vec<Value> =
        names.iter().map(|name| json!({ "path": "/api/a", "headers": { (*name): "1" } })).collect();
    for (name, answer) in names.iter().zip(send(&gateway, json!(items)).await) {
        assert_eq!(
            (&answer["status"], &answer["body"]["code"]),
            (&json!(400), &json!("batch_item_invalid")),
            "{name}"
        );
        let detail = answer["body"]["detail"].as_str().expect("there is one");
        assert!(detail.ends_with(&format!("the field {}", name.to_lowercase())), "{detail}");
    }
    assert_eq!(origin.count(), 0);
    // What the batch says of it is said of no item either.
    let client = client(&gateway).header("x-user-id", "root").bearer(&hs256(json!({})));
    let reply = client.post("/batch", json!([{ "path": "/api/a" }]).to_string()).await;
    assert_eq!(statuses(&super::answers(&reply)), [200]);
    assert_eq!(origin.only().header("x-user-id"), None);
}

#[tokio::test]
async fn an_instance_can_switch_no_item_to_another_protocol() {
    let origin = crate::support::raw::RawOrigin::answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )
    .await;
    let gateway = gateway(&origin.url(), "", "", "");
    let answers = send(&gateway, json!([{ "path": "/api/a" }])).await;
    assert_eq!(reasons(&answers), ["invalid_response"]);
}
