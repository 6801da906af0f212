//! How many requests of whom are let through, exactly, and what they are told.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::support::client::Reply;
use crate::support::tokens::{encode, hs256, secret_authenticator};
use crate::support::{Client, Gateway, Origin, eventually};

/// One limit `few` on a route for everything, with more keys of the route in `more`.
fn limited(limit: &str, more: &str) -> String {
    format!(
        "rate_limits: {{ few: {{ {limit} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, rate_limits: [few]{more}, respond: {{ text: in }} }}]\n"
    )
}

/// How many of these many requests of this client got through, one after the other.
async fn passed(client: &Client, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        passed += usize::from(client.get("/").await.status == 200);
    }
    passed
}

fn count(replies: &[Reply]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for reply in replies {
        *counts.entry(reply.status).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_burst_is_exact_over_all_workers() {
    let gateway = Gateway::start(&limited("key: ip, rate: 1/h, burst: 50", ""));
    let address = gateway.http();
    let eight = (0..8).map(|_| async move {
        let mut replies = Vec::new();
        for _ in 0..20 {
            replies.push(Client::new(address).get("/").await);
        }
        replies
    });
    let replies: Vec<Reply> = futures_util::future::join_all(eight).await.into_iter().flatten().collect();
    assert_eq!(count(&replies), BTreeMap::from([(200, 50), (429, 110)]));
    let mut left: Vec<u32> = Vec::new();
    for reply in &replies {
        assert_eq!(reply.header("ratelimit-policy"), Some("\"few\";q=50;w=180000"));
        let field = reply.header("ratelimit").expect("every response has it");
        let rest = field.strip_prefix("\"few\";r=").expect("it begins with the name");
        let (remaining, reset) = rest.split_once(";t=").expect("it has both parts");
        assert!(reset.parse::<u64>().is_ok_and(|reset| reset <= 180_000), "{field}");
        if reply.status == 200 {
            left.push(remaining.parse().expect("a number"));
            assert!(reply.header("retry-after").is_none());
            continue;
        }
        assert_eq!((remaining, reply.code().as_str()), ("0", "rate_limited"));
        let retry: u64 = reply.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
        assert!((3500..=3600).contains(&retry), "{retry}");
        assert!(reply.header("proxy-status").is_some_and(|status| status.contains("rate_limited")));
    }
    left.sort_unstable();
    assert_eq!(left, (0..50).collect::<Vec<u32>>(), "each was told what it left");
    assert_eq!(gateway.log_entry(|entry| entry["status"] == 429)["reason"], "rate_limited");
}

#[tokio::test]
async fn it_fills_up_again_at_its_rate() {
    let gateway = Gateway::start(&limited("key: ip, rate: 5/s, burst: 2", ""));
    let client = Client::new(gateway.http());
    let began = Instant::now();
    let mut passed = 0;
    // Whatever the machine's pace, no more than the burst and what has come back since.
    while passed < 6 {
        passed += usize::from(client.get("/").await.status == 200);
        let bound = 2.0 + began.elapsed().as_secs_f64() * 5.0;
        assert!(passed as f64 <= bound, "{passed} in {:?}", began.elapsed());
        assert!(began.elapsed().as_secs() < 20, "it never filled up");
    }
}

#[tokio::test]
async fn what_is_counted_together() {
    let gateway = Gateway::start(&format!(
        "{}rate_limits:\n\
         \x20 by-route: {{ key: route, rate: 1/h, burst: 2 }}\n\
         \x20 by-field: {{ key: \"header:x-tenant\", rate: 1/h, burst: 2 }}\n\
         \x20 by-claim: {{ key: \"claim:sub\", rate: 1/h, burst: 2 }}\n\
         \x20 by-both: {{ key: [\"claim:sub\", route], rate: 1/h, burst: 2 }}\n\
         routes:\n\
         \x20 - {{ name: a, match: {{ path: /a }}, rate_limits: [by-route], respond: {{}} }}\n\
         \x20 - {{ name: b, match: {{ path: /b }}, rate_limits: [by-route], respond: {{}} }}\n\
         \x20 - {{ name: field, match: {{ path: /field }}, rate_limits: [by-field], respond: {{}} }}\n\
         \x20 - {{ name: claim, match: {{ path: /claim }}, authenticate: {{ with: [shop] }}, rate_limits: [by-claim], respond: {{}} }}\n\
         \x20 - {{ name: both1, match: {{ path: /both1 }}, authenticate: {{ with: [shop] }}, rate_limits: [by-both], respond: {{}} }}\n\
         \x20 - {{ name: both2, match: {{ path: /both2 }}, authenticate: {{ with: [shop] }}, rate_limits: [by-both], respond: {{}} }}\n",
        secret_authenticator()
    ));
    let plain = Client::new(gateway.http());
    let three = async |client: &Client, target: &str| {
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(client.get(target).await.status);
        }
        statuses
    };
    let limited = [200, 200, 429];
    for target in ["/a", "/b"] {
        assert_eq!(three(&plain, target).await, limited, "{target}");
    }
    for tenant in ["one", "two", "ONE"] {
        assert_eq!(three(&plain.clone().header("x-tenant", tenant), "/field").await, limited, "{tenant}");
    }
    let twice = plain.clone().header("x-tenant", "one").header("x-tenant", "two");
    assert_eq!(three(&twice, "/field").await, limited, "a list is a value of its own");
    assert_eq!(three(&plain, "/field").await, limited, "without the field: one client");
    for sub in ["u1", "u2"] {
        let holder = plain.clone().bearer(&hs256(json!({ "sub": sub })));
        let other_token = plain.clone().bearer(&hs256(json!({ "sub": sub, "jti": "2" })));
        assert_eq!(three(&holder, "/claim").await, limited, "{sub}");
        assert_eq!(other_token.get("/claim").await.status, 429, "the claim counts, not the token");
        assert_eq!(three(&holder, "/both1").await, limited);
        assert_eq!(three(&holder, "/both2").await, limited);
    }
    assert_eq!(plain.get("/claim").await.status, 401, "who has no token takes nobody's allowance");
}

#[tokio::test]
async fn defaults_and_the_routes_own_hold_together() {
    let gateway = Gateway::start(
        "rate_limits:\n\
         \x20 wide: { key: ip, rate: 1/h, burst: 5 }\n\
         \x20 narrow: { key: [ip, route], rate: 1/h, burst: 2 }\n\
         defaults: { rate_limits: [wide] }\n\
         routes:\n\
         \x20 - { name: a, match: { path: /a }, rate_limits: [narrow], respond: {} }\n\
         \x20 - { name: b, match: { path: /b }, respond: {} }\n",
    );
    let client = Client::new(gateway.http());
    let first = client.get("/a").await;
    assert_eq!(first.header("ratelimit-policy"), Some("\"wide\";q=5;w=18000, \"narrow\";q=2;w=7200"));
    assert_eq!(first.header("ratelimit"), Some("\"wide\";r=4;t=3600, \"narrow\";r=1;t=3600"));
    assert_eq!(client.get("/a").await.status, 200);
    let refused = client.get("/a").await;
    assert_eq!(refused.status, 429);
    assert!(
        refused.header("ratelimit").is_some_and(|f| f.starts_with("\"wide\";r=2;")),
        "it was counted there"
    );
    assert_eq!(client.get("/b").await.status, 200, "the narrow one is not its");
    assert_eq!(client.get("/b").await.status, 200);
    assert_eq!(client.get("/b").await.status, 429);
    let refused = client.get("/a").await;
    assert_eq!(
        refused.header("ratelimit-policy"),
        Some("\"wide\";q=5;w=18000"),
        "the first to refuse ends it"
    );
}

#[tokio::test]
async fn guessing_tokens_is_limited_before_any_signature_is_checked() {
    let gateway = Gateway::start(&format!(
        "{}{}",
        secret_authenticator(),
        limited("key: ip, rate: 1/h, burst: 5", ", authenticate: { with: [shop] }")
    ));
    let mut statuses = Vec::new();
    for guess in 0..8 {
        let token =
            format!("{}.{}.{}", encode(r#"{"alg":"HS256"}"#), encode("{}"), encode(guess.to_string()));
        statuses.push(Client::new(gateway.http()).bearer(&token).get("/").await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
    let honest = Client::new(gateway.http()).bearer(&hs256(json!({})));
    assert_eq!(honest.get("/").await.status, 429, "the address is what counts");
}

#[tokio::test]
async fn a_client_cannot_choose_its_address() {
    let spoofed = |gateway: &Gateway, number: usize| {
        let address = format!("10.0.0.{number}");
        Client::new(gateway.http())
            .header("x-forwarded-for", &address)
            .header("forwarded", &format!("for={address}"))
            .header("x-real-ip", &address)
            .header("true-client-ip", &address)
    };
    let gateway = Gateway::start(&limited("key: ip, rate: 1/h, burst: 3", ""));
    let mut statuses = Vec::new();
    for number in 0..5 {
        statuses.push(spoofed(&gateway, number).get("/").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);

    let config = limited("key: ip, rate: 1/h, burst: 3", "");
    let gateway = Gateway::start(&format!("trusted_proxies: [127.0.0.0/8]\n{config}"));
    for number in 0..5 {
        let through = Client::new(gateway.http()).header("x-forwarded-for", &format!("10.0.0.{number}"));
        assert_eq!(passed(&through, 4).await, 3, "each client behind the proxy by itself");
        // What the client had written before the proxy added the truth.
        let lying =
            Client::new(gateway.http()).header("x-forwarded-for", &format!("1.2.3.4, 10.0.0.{number}"));
        assert_eq!(passed(&lying, 1).await, 0);
    }
    let entry = gateway.log_entry(|entry| entry["client"] == "10.0.0.4");
    assert_eq!(entry["route"], "all");
}

#[tokio::test]
async fn more_keys_than_there_is_room_for_share_one_allowance() {
    let gateway = Gateway::start(&limited("key: \"header:x-tenant\", rate: 1/h, burst: 2, max_keys: 10", ""));
    let tenant = |number: usize| Client::new(gateway.http()).header("x-tenant", &format!("t{number}"));
    for number in 0..10 {
        assert_eq!(passed(&tenant(number), 1).await, 1);
    }
    let mut flood = 0;
    for number in 10..40 {
        flood += passed(&tenant(number), 1).await;
    }
    assert_eq!(flood, 2, "thirty more tenants are one client");
    for number in 0..10 {
        assert_eq!(passed(&tenant(number), 2).await, 1, "known ones keep what they have");
    }
}

#[tokio::test]
async fn counts_outlive_a_reload_unless_the_limit_changes() {
    let gateway = Gateway::start(&limited("key: ip, rate: 1/h, burst: 3", ""));
    let client = Client::new(gateway.http());
    assert_eq!(passed(&client, 4).await, 3);
    gateway.reconfigure(&limited("key: ip, rate: 1/h, burst: 3", ", max_body: 1KiB")).await;
    assert_eq!(passed(&client, 3).await, 0, "another part of the file changed");
    gateway.reconfigure(&limited("key: ip, rate: 1/h, burst: 4", "")).await;
    assert_eq!(passed(&client, 6).await, 4, "a new limit starts full");
}

#[tokio::test]
async fn a_refused_request_goes_nowhere_and_costs_no_body() {
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&format!(
        "rate_limits: {{ few: {{ key: ip, rate: 1/h, burst: 1 }} }}\n\
         services: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, rate_limits: [few], forward: {{ service: all }} }}]\n",
        origin.url()
    ));
    for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
        let _ = client.post("/", vec![b'x'; 100_000]).await;
        let head = client.send(Method::HEAD, "/", Bytes::new()).await;
        assert_eq!((head.status, head.body.len()), (429, 0));
    }
    assert_eq!(origin.count(), 1);
    eventually("the metric has them", || async {
        (gateway.metric("http_errors_total", &["rate_limited"]).await >= 3.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_services_own_fields_are_passed_on_beside() {
    let origin = Origin::start(|_| {
        let mut response = crate::support::origin::status(200);
        response.headers_mut().insert("ratelimit", "\"inner\";r=1;t=1".parse().expect("a constant"));
        response
    })
    .await;
    let gateway = Gateway::start(&format!(
        "rate_limits: {{ few: {{ key: ip, rate: 1/h, burst: 1 }} }}\n\
         services: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, rate_limits: [few], forward: {{ service: all }} }}]\n",
        origin.url()
    ));
    let reply = Client::new(gateway.http()).get("/").await;
    let fields: Vec<_> = reply.headers.get_all("ratelimit").iter().collect();
    assert_eq!(fields, ["\"inner\";r=1;t=1", "\"few\";r=0;t=3600"]);
}
