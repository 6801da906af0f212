//! What browsers are told about other origins.

use http::Method;

use super::*;
use crate::support::client::Reply;
use crate::support::tokens::secret_authenticator;

const SHOP: &str = "https://shop.example.com";

/// A route for everyone and one for the shop with all there is; behind them a service with an opinion.
async fn start() -> (Gateway, Origin) {
    let origin = Origin::start(|_| {
        let response = Response::builder()
            .header("access-control-allow-origin", "*")
            .header("access-control-allow-private-network", "true")
            .header("vary", "accept");
        response.body(Full::new(Bytes::from_static(b"ok"))).expect("constants")
    })
    .await;
    let config = format!(
        "{}rate_limits: {{ few: {{ key: route, rate: 1/h, burst: 1 }} }}\n\
         services: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes:\n\
         \x20 - name: shop\n\
         \x20   match: {{ path: /shop }}\n\
         \x20   cors: {{ origins: [{SHOP}, \"http://localhost:3000\"], methods: [GET, PUT], headers: [content-type, x-tenant], expose_headers: [x-request-id, ratelimit], credentials: true, max_age: 10m }}\n\
         \x20   forward: {{ service: all }}\n\
         \x20 - {{ name: any, match: {{ path: /any }}, cors: {{ origins: [\"*\"] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: plain, match: {{ path: /plain }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: read, match: {{ path: /read, methods: [GET, DELETE] }}, cors: {{ origins: [{SHOP}] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: guarded, match: {{ path: /guarded }}, authenticate: {{ with: [shop] }}, cors: {{ origins: [{SHOP}] }}, respond: {{}} }}\n\
         \x20 - {{ name: limited, match: {{ path: /limited }}, rate_limits: [few], cors: {{ origins: [{SHOP}] }}, respond: {{}} }}\n\
         \x20 - {{ name: gone, match: {{ path: /gone }}, cors: {{ origins: [{SHOP}] }}, respond: {{ status: 404 }} }}\n",
        secret_authenticator(),
        origin.url()
    );
    (Gateway::start(&config), origin)
}

async fn preflight(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> Reply {
    let client =
        fields.iter().fold(Client::new(gateway.http()), |client, (name, value)| client.header(name, value));
    client.send(Method::OPTIONS, target, Bytes::new()).await
}

fn asks(method: &'static str) -> [(&'static str, &'static str); 2] {
    [("origin", SHOP), ("access-control-request-method", method)]
}

fn allowed(reply: &Reply) -> Vec<String> {
    let is_answer = |name: &str| name.starts_with("access-control-");
    let mut names: Vec<_> =
        reply.headers.keys().map(|name| name.to_string()).filter(|name| is_answer(name)).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_good_preflight_is_answered_and_never_forwarded() {
    let (gateway, origin) = start().await;
    let fields =
        [asks("PUT").as_slice(), &[("access-control-request-headers", "content-type,x-tenant")]].concat();
    let reply = preflight(&gateway, "/shop", &fields).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(reply.header("access-control-allow-origin"), Some(SHOP));
    assert_eq!(reply.header("access-control-allow-methods"), Some("GET, PUT"));
    assert_eq!(reply.header("access-control-allow-headers"), Some("content-type, x-tenant"));
    assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(reply.header("access-control-max-age"), Some("600"));
    let vary = reply.header("vary").expect("it depends on what was asked");
    assert!(vary.to_ascii_lowercase().contains("origin"), "{vary}");

    let reply = preflight(&gateway, "/any", &asks("DELETE")).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some("*")));
    assert!(reply.header("access-control-allow-credentials").is_none());
    for target in ["/guarded", "/limited", "/limited", "/limited"] {
        let reply = preflight(&gateway, target, &asks("GET")).await;
        assert_eq!(
            (reply.status, reply.header("access-control-allow-origin")),
            (204, Some(SHOP)),
            "{target}"
        );
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_bad_preflight_gets_no_permission() {
    let (gateway, origin) = start().await;
    let from = |origin: &'static str| [("origin", origin), ("access-control-request-method", "GET")];
    for origin in [
        "https://evil.example",
        "null",
        "https://shop.example.com:444",
        "http://shop.example.com",
        "https://shop.example.com.evil.example",
        "https://SHOP.example.com",
        "https://shop.example.com/",
        "",
    ] {
        let reply = preflight(&gateway, "/shop", &from(origin)).await;
        assert_eq!((reply.status, allowed(&reply)), (204, vec![]), "{origin:?}");
    }
    for fields in [
        asks("DELETE").as_slice(),
        asks("put").as_slice(),
        &[asks("GET").as_slice(), &[("access-control-request-headers", "x-other")]].concat(),
        &[asks("GET").as_slice(), &[("access-control-request-headers", "content-type, x-other")]].concat(),
    ] {
        let reply = preflight(&gateway, "/shop", fields).await;
        assert_eq!((reply.status, allowed(&reply)), (204, vec![]), "{fields:?}");
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_preflight_belongs_to_the_route_of_the_request_to_come() {
    let (gateway, origin) = start().await;
    for method in ["GET", "DELETE"] {
        let reply = preflight(&gateway, "/read", &asks(method)).await;
        assert_eq!(reply.status, 204);
        assert_eq!(reply.header("access-control-allow-methods"), Some("GET, DELETE"), "those of the match");
    }
    let reply = preflight(&gateway, "/read", &asks("POST")).await;
    assert_eq!((reply.status, reply.header("allow").is_some()), (405, true));
    assert_eq!(preflight(&gateway, "/nowhere", &asks("GET")).await.status, 404);
    assert_eq!(origin.count(), 0);
    // Without CORS, and without the two fields, OPTIONS is the service's.
    assert_eq!(preflight(&gateway, "/plain", &asks("GET")).await.status, 200);
    assert_eq!(preflight(&gateway, "/shop", &[]).await.status, 200);
    assert_eq!(preflight(&gateway, "/shop", &asks("GET")[..1]).await.status, 200);
    assert_eq!(preflight(&gateway, "/shop", &asks("GET")[1..]).await.status, 200);
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn the_gateways_word_replaces_the_services() {
    let (gateway, _origin) = start().await;
    let get = async |target: &str, origin: &str| {
        Client::new(gateway.http()).header("origin", origin).get(target).await
    };
    let reply = get("/shop", SHOP).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        allowed(&reply),
        ["access-control-allow-credentials", "access-control-allow-origin", "access-control-expose-headers"]
    );
    assert_eq!(reply.headers.get_all("access-control-allow-origin").iter().collect::<Vec<_>>(), [SHOP]);
    assert_eq!(reply.header("access-control-expose-headers"), Some("x-request-id, ratelimit"));
    assert_eq!(reply.headers.get_all("vary").iter().collect::<Vec<_>>(), ["accept", "origin"]);

    let reply = get("/shop", "https://evil.example").await;
    assert_eq!((reply.status, allowed(&reply)), (200, vec![]), "served, but no script may read it");
    assert!(reply.headers.get_all("vary").iter().any(|vary| vary == "origin"));
    let reply = Client::new(gateway.http()).get("/shop").await;
    assert_eq!(allowed(&reply), Vec::<String>::new());
    assert!(reply.headers.get_all("vary").iter().any(|vary| vary == "origin"), "caches must know");
    let reply = get("/any", "https://anyone.example").await;
    assert_eq!(allowed(&reply), ["access-control-allow-origin"]);
    assert_eq!(reply.headers.get_all("vary").iter().collect::<Vec<_>>(), ["accept"]);
    let reply = get("/plain", SHOP).await;
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("*"),
        "a route without CORS stays out of it"
    );
}

#[tokio::test]
async fn the_gateways_own_replies_can_be_read_too() {
    let (gateway, _origin) = start().await;
    let client = Client::new(gateway.http()).header("origin", SHOP);
    for (target, status) in [("/guarded", 401), ("/limited", 200), ("/limited", 429), ("/gone", 404)] {
        let reply = client.get(target).await;
        assert_eq!(reply.status, status, "{target}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(SHOP), "{target}");
        assert!(reply.headers.get_all("vary").iter().any(|vary| vary == "origin"), "{target}");
    }
    let refused = client.get("/shop%2Fx").await;
    assert_eq!((refused.status, allowed(&refused)), (400, vec![]), "there is no route to say so");
}
