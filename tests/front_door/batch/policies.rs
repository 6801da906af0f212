//! The policies of the routes that items take: all of them hold, as for requests by themselves.

use serde_json::json;

use super::{answers, client, echo, gateway, reasons, send, statuses};
use crate::support::tokens::{SECRET, hs256};
use crate::support::{Client, Gateway, eventually};

/// Two authenticators: `shop` takes the tokens of the tests, `other` takes none of them.
fn authenticators() -> String {
    let one = |name: &str, issuer: &str| {
        format!(
            "{name}: {{ jwt: {{ algorithms: [HS256], issuer: {issuer}, audience: [shop], keys: [{{ secret: \"{SECRET}\" }}], \
             claim_headers: {{ sub: x-user-id }} }} }}"
        )
    };
    format!("authenticators: {{ {}, {} }}", one("shop", "joe"), one("other", "mallory"))
}

fn guarded(origin: &str) -> Gateway {
    Gateway::start(&format!(
        "services: {{ s: {{ instances: [\"{origin}\"] }} }}\n{}\nroutes:\n\
         - {{ name: batch, match: {{ path: /batch }}, authenticate: {{ with: [shop] }}, batch: {{}} }}\n\
         - {{ name: open, match: {{ path: /open }}, batch: {{}} }}\n\
         - {{ name: public, match: {{ path: /public }}, forward: {{ service: s }} }}\n\
         - {{ name: same, match: {{ path: /same }}, authenticate: {{ with: [shop] }}, forward: {{ service: s }} }}\n\
         - {{ name: post, match: {{ path: /post }}, authenticate: {{ with: [shop], methods: [POST] }}, forward: {{ service: s }} }}\n\
         - {{ name: other, match: {{ path: /other }}, authenticate: {{ with: [other] }}, forward: {{ service: s }} }}\n\
         - {{ name: either, match: {{ path: /either }}, authenticate: {{ with: [other, shop] }}, forward: {{ service: s }} }}\n\
         - {{ name: admin, match: {{ path: /admin }}, authenticate: {{ with: [shop] }}, authorize: {{ claims: {{ role: [admin] }} }}, forward: {{ service: s }} }}\n",
        authenticators()
    ))
}

const ALL: &str = r#"[{"path":"/public"},{"path":"/same"},{"path":"/post"},{"method":"POST","path":"/post"},
    {"path":"/other"},{"path":"/either"},{"path":"/admin"}]"#;

#[tokio::test]
async fn each_route_asks_for_its_own_proof_of_the_same_credentials() {
    let origin = echo().await;
    let gateway = guarded(&origin.url());
    for path in ["/batch", "/open"] {
        let before = origin.count();
        let reply = client(&gateway).bearer(&hs256(json!({ "role": "user" }))).post(path, ALL).await;
        let answers = answers(&reply);
        assert_eq!(statuses(&answers), [200, 200, 200, 200, 401, 200, 403], "{path}");
        assert_eq!(reasons(&answers).concat(), "----token_issuer-not_authorized", "{path}");
        assert!(answers[4]["headers"]["www-authenticate"].is_string());
        let seen = origin.seen().split_off(before);
        let mut users: Vec<_> = seen
            .iter()
            .map(|seen| (format!("{} {}", seen.method, seen.target), seen.header("x-user-id")))
            .collect();
        users.sort();
        // Nobody is told who asks where nobody asked for it.
        assert_eq!(
            users,
            [
                ("GET /either".to_owned(), Some("u1")),
                ("GET /post".to_owned(), None),
                ("GET /public".to_owned(), None),
                ("GET /same".to_owned(), Some("u1")),
                ("POST /post".to_owned(), Some("u1")),
            ],
            "{path}"
        );
    }
    let entry = gateway.log_entry(|entry| entry["route"] == "same");
    assert_eq!(entry["subject"], "u1");
    assert_eq!(gateway.log_entry(|entry| entry["route"] == "public").get("subject"), None);
}

#[tokio::test]
async fn who_may_do_nothing_alone_may_do_nothing_in_a_batch() {
    let origin = echo().await;
    let gateway = guarded(&origin.url());
    assert_eq!(client(&gateway).post("/batch", ALL).await.code(), "token_missing");
    let reply = client(&gateway).post("/open", ALL).await;
    assert_eq!(statuses(&answers(&reply)), [200, 401, 200, 401, 401, 401, 401]);
    let admin = client(&gateway).bearer(&hs256(json!({ "role": "admin" })));
    let reply = admin.post("/batch", r#"[{"path":"/admin"}]"#).await;
    assert_eq!(statuses(&answers(&reply)), [200]);
}

#[tokio::test]
async fn limits_count_each_item() {
    let origin = echo().await;
    let more = "- { name: few, match: { path: /few }, rate_limits: [few], forward: { service: s } }\n\
        - { name: closed, match: { path: /closed }, ip_filter: { deny: [127.0.0.0/8] }, respond: { text: x } }\n\
        - { name: shut, match: { path: /shut }, maintenance: { enabled: true }, respond: { text: x } }\n\
        - { name: small, match: { path: /small }, max_body: 4B, forward: { service: s } }";
    let gateway = gateway(&origin.url(), "", more, "rate_limits: { few: { key: ip, rate: 2/h } }");
    let answers = send(
        &gateway,
        json!([
            { "path": "/few" }, { "path": "/few" }, { "path": "/few" },
            { "path": "/closed" }, { "path": "/shut" },
            { "path": "/small", "method": "POST", "body": 1234 }, { "path": "/small", "method": "POST", "body": 12345 },
        ]),
    )
    .await;
    assert_eq!(statuses(&answers), [200, 200, 429, 403, 503, 200, 413]);
    assert_eq!(reasons(&answers).concat(), "--rate_limitedip_deniedmaintenance-body_too_large");
    assert!(answers[2]["headers"]["retry-after"].is_string(), "{}", answers[2]);
    assert_eq!(Client::new(gateway.http()).get("/few").await.code(), "rate_limited");
    assert_eq!(gateway.log_entry(|entry| entry["reason"] == "rate_limited")["route"], "few");
}

#[tokio::test]
async fn a_page_reads_through_a_batch_what_it_could_read_without() {
    let origin = echo().await;
    let cors = |name: &str, more: &str| {
        format!(
            "- {{ name: {name}, match: {{ path: /{name} }}, forward: {{ service: s }}, cors: {{ {more} }} }}"
        )
    };
    let more = [
        cors("shop", "origins: ['https://shop.example'], methods: [GET, DELETE]"),
        cors("any", "origins: ['*']"),
        cors("elsewhere", "origins: ['https://elsewhere.example']"),
        cors("own", "origins: ['https://shop.example'], credentials: true"),
    ];
    let gateway = gateway(&origin.url(), "", &more.join("\n"), "");
    let batch = json!([
        { "path": "/shop" }, { "path": "/shop", "method": "DELETE" }, { "path": "/shop", "method": "PUT" },
        { "path": "/any" }, { "path": "/elsewhere" }, { "path": "/api/plain" }, { "path": "/own" },
    ])
    .to_string();
    let ask = async |client: Client| statuses(&answers(&client.post("/batch", batch.clone()).await));
    let page = || client(&gateway).header("origin", "https://shop.example");
    assert_eq!(ask(page()).await, [200, 200, 403, 200, 403, 403, 200]);
    // What goes with cookies is for those pages alone that may send them.
    assert_eq!(ask(page().header("cookie", "a=b")).await, [403, 403, 403, 403, 403, 403, 200]);
    let all = [200; 7];
    assert_eq!(ask(page().host("shop.example")).await, all);
    assert_eq!(ask(page().header("sec-fetch-site", "same-origin")).await, all);
    assert_eq!(ask(client(&gateway)).await, all);
    let reply = page().post("/batch", r#"[{"path":"/elsewhere"}]"#).await;
    assert_eq!(reasons(&answers(&reply)), ["batch_origin_denied"]);
}

#[tokio::test]
async fn who_asks_is_found_out_once() {
    let origin = echo().await;
    let gateway = guarded(&origin.url());
    // Too long to be remembered: whoever asks again checks again.
    let token = hs256(json!({ "note": "x".repeat(5000) }));
    let batch = json!(vec![json!({ "path": "/same" }); 5]).to_string();
    let reply = client(&gateway).bearer(&token).post("/batch", batch.clone()).await;
    assert_eq!(statuses(&answers(&reply)), [200; 5]);
    assert!(origin.seen().iter().all(|seen| seen.header("x-user-id") == Some("u1")));
    let checked = async || gateway.metric("gatehouse_token_cache_misses_total", &[]).await;
    eventually("the count is told", async || (checked().await == 1.0).then_some(())).await;
    // Where the batch asks for nothing, each item has to.
    let reply = client(&gateway).bearer(&token).post("/open", batch).await;
    assert_eq!(statuses(&answers(&reply)), [200; 5]);
    eventually("the count is told", async || (checked().await == 6.0).then_some(())).await;
}
