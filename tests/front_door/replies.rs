//! What the gateway answers by itself: redirects, responses from the configuration, and problems; and that
//! nothing of what it keeps to itself shows in any of them.

use bytes::Bytes;
use http::Method;

use crate::support::tokens::{SECRET, secret_authenticator};
use crate::support::{Client, Gateway, raw};

#[tokio::test]
async fn redirects_go_where_the_configuration_says() {
    let gateway = Gateway::start(
        "routes:\n\
         \x20 - { name: home, match: { path: / }, redirect: { to: \"https://www.example.com/\" } }\n\
         \x20 - { name: user, match: { path: \"/u/{id}/{what}\" }, redirect: { to: \"/users/{id}?tab={what}\", status: 301 } }\n\
         \x20 - { name: away, match: { path: \"/away/{id}\" }, redirect: { to: \"https://other.example/x/{id}\", status: 302 } }\n",
    );
    let client = Client::new(gateway.http());
    for (target, status, location) in [
        ("/", 308, "https://www.example.com/"),
        ("/u/7/orders", 301, "/users/7?tab=orders"),
        ("/u/a%3Fb/x&y=z", 301, "/users/a%3Fb?tab=x%26y%3Dz"),
        ("/u/%0d%0aset-cookie:x/y", 301, "/users/%0D%0Aset-cookie:x?tab=y"),
        ("/away/@evil.example", 302, "https://other.example/x/@evil.example"),
        ("/away/..;", 400, ""),
    ] {
        let reply = client.get(target).await;
        assert_eq!(
            (reply.status, reply.header("location").unwrap_or_default()),
            (status, location),
            "{target}"
        );
    }
    assert_eq!(client.post("/", "body").await.status, 308);
    assert_eq!(
        client.send(Method::HEAD, "/", Bytes::new()).await.header("location"),
        Some("https://www.example.com/")
    );
}

#[tokio::test]
async fn responses_are_what_the_configuration_says() {
    let gateway = Gateway::start(
        "routes:\n\
         \x20 - { name: json, match: { path: /json }, respond: { json: { status: ok, list: [1, 2.50, ~] } } }\n\
         \x20 - { name: text, match: { path: /text }, respond: { status: 418, text: \"tea\\n\", headers: { content-type: text/markdown, x-a: b } } }\n\
         \x20 - { name: none, match: { path: /none }, respond: { status: 204 } }\n",
    );
    let client = Client::new(gateway.http());
    let reply = client.get("/json").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_eq!(reply.text(), r#"{"status":"ok","list":[1,2.50,null]}"#);
    let reply = client.post("/text", "body").await;
    assert_eq!((reply.status, reply.text().as_str()), (418, "tea\n"));
    assert_eq!((reply.header("content-type"), reply.header("x-a")), (Some("text/markdown"), Some("b")));
    let reply = client.get("/none").await;
    assert_eq!((reply.status, reply.body.len(), reply.header("content-length")), (204, 0, None));
}

#[tokio::test]
async fn a_problem_is_complete_in_either_protocol() {
    let gateway = Gateway::start("routes: []\n");
    for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
        let reply = client.header("x-request-id", "abc-1").get("/a/../nowhere?secret=1").await;
        let problem = reply.json();
        assert_eq!(reply.code(), "route_not_found");
        assert_eq!(
            (problem["status"].as_u64(), problem["title"].as_str()),
            (Some(404), Some("No such route"))
        );
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        assert_eq!(problem["request_id"].as_str(), reply.header("x-request-id"));
        assert!(reply.header("proxy-status").is_some_and(|status| status.starts_with("gatehouse; error=")));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert!(!reply.text().contains("nowhere"), "what was asked for is not echoed");
    }
}

#[tokio::test]
async fn no_secret_shows_anywhere() {
    let token = "the-admin's-own-token-0123456789";
    let gateway = Gateway::start(&format!(
        "{}admin: {{ bind: \"127.0.0.1:0\", token: \"{token}\" }}\n\
         services: {{ gone: {{ instances: [\"http://127.0.0.1:1\"] }} }}\n\
         routes:\n\
         \x20 - {{ name: in, match: {{ prefix: / }}, authenticate: {{ with: [shop] }}, request_headers: {{ set: {{ authorization: \"Bearer inner-credential\" }} }}, respond: {{}} }}\n\
         \x20 - {{ name: gone, match: {{ path: /gone }}, forward: {{ service: gone }} }}\n",
        secret_authenticator()
    ));
    let mut outputs = Vec::new();
    for target in ["/", "/gone", "/%00", "/api/config"] {
        let (_, body) = raw::get(
            gateway.http(),
            target,
            "authorization: Bearer a.secret-guess.c\r\ncookie: s=secret-guess\r\n",
        )
        .await;
        outputs.push(body);
    }
    let admin = Client::new(gateway.admin()).bearer(token);
    for path in
        ["/api/status", "/api/routes", "/api/services", "/api/config", "/metrics", "/health", "/ready"]
    {
        outputs.push(admin.get(path).await.text());
        outputs.push(Client::new(gateway.admin()).get(path).await.text());
    }
    gateway.write(&format!("{}rutes: []\n", secret_authenticator()));
    gateway.wait_for("did you mean");
    gateway.log_entry(|entry| entry["path"] == "/api/config");
    outputs.push(gateway.messages());
    outputs.extend(gateway.log_lines());
    for secret in [SECRET, token, "inner-credential", "secret-guess"] {
        for output in &outputs {
            assert!(!output.contains(secret), "{secret:?} in {output}");
        }
    }
    // Where instances are is for operators to know, and not for clients.
    for reply in &outputs[..4] {
        assert!(!reply.contains("127.0.0.1:1"), "{reply}");
    }
    assert!(outputs[1].contains("connect_failure") && !outputs[1].contains("127.0.0.1"), "{}", outputs[1]);
}
