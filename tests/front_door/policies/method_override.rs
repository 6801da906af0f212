//! A POST that asks to be taken for another method.

use super::*;
use crate::support::tokens::{self, secret_authenticator};

async fn start() -> (Gateway, Origin) {
    let origin = Origin::text("ok").await;
    let config = format!(
        "{}services: {{ all: {{ instances: [\"{url}\"] }} }}\n\
         routes:\n\
         \x20 - {{ name: users, match: {{ path: /users }}, method_override: {{ allow: [PUT, DELETE] }}, \
               authenticate: {{ with: [shop], methods: [DELETE] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: read, match: {{ path: /split, methods: [GET, POST] }}, method_override: {{ allow: [DELETE] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: drop, match: {{ path: /split, methods: [DELETE] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: only, match: {{ path: /only, methods: [PATCH] }}, method_override: {{ header: X-Verb, allow: [PATCH] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: page, match: {{ path: /page }}, method_override: {{ allow: [PUT, DELETE] }}, \
               cors: {{ origins: [https://shop.example.com], methods: [POST, PUT] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: plain, match: {{ path: /plain }}, forward: {{ service: all }} }}\n",
        secret_authenticator(),
        url = origin.url()
    );
    (Gateway::start(&config), origin)
}

fn asking(gateway: &Gateway, method: &str) -> Client {
    Client::new(gateway.http()).header("X-HTTP-Method-Override", method)
}

fn is_gone(seen: &crate::support::origin::Seen) -> bool {
    ["x-http-method-override", "x-http-method", "x-method-override", "x_http_method_override", "x-verb"]
        .iter()
        .all(|name| !seen.headers.contains_key(*name))
}

#[tokio::test]
async fn it_is_what_it_asks_to_be() {
    let (gateway, origin) = start().await;
    for client in [asking(&gateway, "PUT"), asking(&gateway, "put").http2()] {
        assert_eq!(client.post("/users", "body").await.status, 200);
        let seen = origin.seen().pop().expect("it came");
        assert_eq!((seen.method, &seen.body[..]), (http::Method::PUT, &b"body"[..]));
        assert!(is_gone(&origin.seen().pop().expect("it came")));
    }
    let entry = gateway.log_entry(|entry| entry["route"] == "users");
    assert_eq!(entry["method"], "PUT", "the log has what was done");
    // A route that takes nothing but the other method.
    let client = Client::new(gateway.http());
    assert_eq!(client.post("/only", "").await.status, 405);
    assert_eq!(client.header("x-verb", "PATCH").post("/only", "").await.status, 200);
    assert!(is_gone(&origin.seen().pop().expect("it came")));
}

#[tokio::test]
async fn nothing_is_got_around() {
    let (gateway, origin) = start().await;
    // Authentication goes by the method that counts.
    let reply = asking(&gateway, "DELETE").post("/users", "").await;
    assert_eq!((reply.status, reply.code().as_str()), (401, "token_missing"));
    // So does the match: the route of the DELETE has no override, whatever that of the POST says.
    let reply = asking(&gateway, "DELETE").post("/split", "").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "method_override_refused"));
    assert_eq!(origin.count(), 0);
    let token = tokens::hs256(serde_json::json!({}));
    assert_eq!(asking(&gateway, "DELETE").bearer(&token).post("/users", "").await.status, 200);
    assert_eq!(origin.only().method, http::Method::DELETE);
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_and_not_sent_as_a_post() {
    let (gateway, origin) = start().await;
    for method in ["PATCH", "GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "", "DELETE, PUT", "PUT /x", "POST"]
    {
        let reply = asking(&gateway, method).post("/users", "").await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "method_override_refused"), "{method:?}");
    }
    let twice = asking(&gateway, "PUT").header("X-HTTP-Method-Override", "DELETE");
    assert_eq!(twice.post("/users", "").await.code(), "method_override_refused");
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn the_field_goes_nowhere_else() {
    let (gateway, origin) = start().await;
    for name in
        ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_HTTP_Method_Override", "X-Verb"]
    {
        let client = Client::new(gateway.http()).header(name, "DELETE");
        // No route of these paths allows it for that method, or in that field.
        assert_eq!(client.post("/plain", "").await.status, 200, "{name}");
        assert_eq!(client.get("/users").await.status, 200, "only a POST asks: {name}");
    }
    for seen in origin.seen() {
        assert!(is_gone(&seen), "{seen:?}");
        assert!(matches!(seen.method.as_str(), "POST" | "GET"));
    }
    assert_eq!(origin.count(), 10);
}

#[tokio::test]
async fn pages_of_other_origins_use_the_methods_that_cors_allows() {
    let (gateway, origin) = start().await;
    let from = |page: &str, method: &str| asking(&gateway, method).header("origin", page);
    let shop = "https://shop.example.com";
    assert_eq!(from(shop, "PUT").post("/page", "").await.status, 200);
    let reply = from(shop, "DELETE").post("/page", "").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "method_override_refused"));
    assert_eq!(reply.header("access-control-allow-origin"), Some(shop), "the page may read why");
    // A page of the gateway's own host is none of another origin.
    let own = from(shop, "DELETE").host("shop.example.com");
    assert_eq!(own.post("/page", "").await.status, 200);
    assert_eq!(origin.count(), 2);
}
