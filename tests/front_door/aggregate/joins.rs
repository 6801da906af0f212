//! Parts that are asked for each element of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{gateway, without_times};
use crate::support::origin::Seen;
use crate::support::{Client, Gateway, Origin, eventually, origin};

const ORDERS: &str = r#"[{"id":1,"product":7,"n":1.0},{"id":2,"product":"a b"},{"id":3,"product":7},{"id":4},{"id":5,"product":404}]"#;

/// `/orders` is a list, `/products/ID` the product of that id, `/products?ids=…` several.
async fn shop(orders: &'static str) -> Origin {
    Origin::start(move |seen| {
        let target = seen.target.as_str();
        if target == "/orders" {
            return origin::json(orders);
        }
        if let Some((_, ids)) = target.split_once("?ids=") {
            let found: Vec<Value> = ids
                .split(',')
                .filter(|id| *id != "404")
                .rev()
                .map(|id| json!({ "id": id.replace("%20", " "), "by": 1 }))
                .collect();
            return origin::json(json!({ "data": found }).to_string());
        }
        match target.strip_prefix("/products/") {
            Some("404") | None => origin::status(404),
            Some(id) => origin::json(format!("{{\"p\":\"{id}\",\"x\":1e400}}")),
        }
    })
    .await
}

fn targets(origin: &Origin) -> Vec<String> {
    let mut targets: Vec<String> = origin.seen().into_iter().map(|seen| seen.target).collect();
    targets.sort();
    targets
}

#[tokio::test]
async fn each_element_is_asked_for_and_equal_ones_once() {
    let origin = shop(ORDERS).await;
    let gateway = gateway(
        &origin.url(),
        "retries: { attempts: 0 }",
        "10s",
        "orders: { service: parts, path: /orders }, \
         products: { service: parts, path: \"/products/{item.product}\", for_each: \"$.orders[*]\", deny: [x], fallback: {} }",
    );
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(
        without_times(&reply),
        format!(
            "{{\"orders\":{ORDERS},\"products\":[{{\"p\":\"7\"}},{{\"p\":\"a%20b\"}},{{\"p\":\"7\"}},{{}},{{}}],\
             \"_errors\":[{{\"items\":[3,4],\"part\":\"products\",\"reason\":\"part_missing_value\",\"status\":502}}]}}"
        )
    );
    assert_eq!(targets(&origin), ["/orders", "/products/404", "/products/7", "/products/a%20b"]);
    assert_eq!(reply.header("gatehouse-missing-parts"), Some("products"));
    assert_eq!(gateway.log_entry(|entry| entry["route"] == "all")["attempts"], 4);
}

#[tokio::test]
async fn answers_stand_in_their_elements() {
    let origin =
        shop(r#"{"list": [ {"product":7,"d":{"old":1} , "n":1.0}, {"product":8}, {}, 5 ], "total": 1e400}"#)
            .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "orders: { service: parts, path: /orders, deny: [none] }, \
         products: { service: parts, path: \"/products/{item.product}\", for_each: \"$.orders.list[*]\", into: d, allow: [p] }, \
         more: { service: parts, path: \"/products/{item.product}\", for_each: \"$.orders.list[*]\", into: \"e\\\"\", allow: [x] }",
    );
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        "{\"orders\":{\"list\":[ {\"product\":7,\"d\":{\"p\":\"7\"} , \"n\":1.0,\"e\\\"\":{\"x\":1e400}}, \
         {\"product\":8,\"d\":{\"p\":\"8\"},\"e\\\"\":{\"x\":1e400}}, {\"d\":null,\"e\\\"\":null}, 5 ],\"total\":1e400},\
         \"_errors\":[{\"items\":[2,3],\"part\":\"products\",\"reason\":\"part_missing_value\",\"status\":502},\
         {\"items\":[2,3],\"part\":\"more\",\"reason\":\"part_missing_value\",\"status\":502}]}"
    );
}

#[tokio::test]
async fn joins_go_two_deep_and_more() {
    let origin = Origin::start(|seen| {
        origin::json(match seen.target.as_str() {
            "/orders" => r#"[{"lines":[{"p":1},{"p":2}]},{"lines":[]},{"lines":[{"p":1}]}]"#.to_owned(),
            target => match target.split_once("/product/") {
                Some((_, id)) => format!("{{\"id\":{id},\"maker\":\"m{id}\"}}"),
                None => json!({ "of": target }).to_string(),
            },
        })
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "orders: { service: parts, path: /orders }, \
         products: { service: parts, path: \"/product/{item.p}\", for_each: \"$.orders[*].lines[*]\", into: product }, \
         makers: { service: parts, path: \"/{item.maker}\", for_each: \"$.products[*]\", into: maker-of, concurrency: 1 }",
    );
    assert_eq!(
        Client::new(gateway.http()).get("/all/1").await.text(),
        r#"{"orders":[{"lines":[{"p":1,"product":{"id":1,"maker":"m1","maker-of":{"of":"/m1"}}},{"p":2,"product":{"id":2,"maker":"m2","maker-of":{"of":"/m2"}}}]},{"lines":[]},{"lines":[{"p":1,"product":{"id":1,"maker":"m1","maker-of":{"of":"/m1"}}}]}]}"#
    );
    assert_eq!(targets(&origin), ["/m1", "/m2", "/orders", "/product/1", "/product/2"]);
}

#[tokio::test]
async fn many_elements_go_into_one_call_and_come_back_by_their_keys() {
    let origin = shop(ORDERS).await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "orders: { service: parts, path: /orders }, \
         products: { service: parts, path: /products, for_each: \"$.orders[*]\", select: \"$.data\", deny: [by], fallback: 0, \
         batch: { parameter: ids, value: product, key: id, size: 2 } }",
    );
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(
        without_times(&reply),
        format!(
            "{{\"orders\":{ORDERS},\"products\":[{{\"id\":\"7\"}},{{\"id\":\"a b\"}},{{\"id\":\"7\"}},0,0],\
             \"_errors\":[{{\"items\":[3,4],\"part\":\"products\",\"reason\":\"part_missing_value\",\"status\":502}}]}}"
        )
    );
    assert_eq!(targets(&origin), ["/orders", "/products?ids=404", "/products?ids=7,a%20b"]);
}

#[tokio::test]
async fn no_key_of_a_batch_asks_for_more() {
    let origin = shop(r#"["1,2","3&ids=4","5#","404",null,{},"6"]"#).await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "orders: { service: parts, path: /orders, hidden: true }, \
         products: { service: parts, path: \"/products?a=b\", for_each: \"$.orders[*]\", batch: { parameter: \"i d\", key: id } }",
    );
    Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(targets(&origin), ["/orders", "/products?a=b&i%20d=3%26ids%3D4,5%23,404,6"]);
}

#[tokio::test]
async fn only_so_many_are_asked_for_at_once_and_in_all() {
    let (gate, most, now) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (held, highest, present) = (gate.clone(), most.clone(), now.clone());
    let origin = Origin::start_slow(move |seen: Seen| {
        let (gate, most, now) = (held.clone(), highest.clone(), present.clone());
        async move {
            if seen.target == "/list" {
                return origin::json(json!((0..10).collect::<Vec<u32>>()).to_string());
            }
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            gate.acquire().await.expect("it is never closed").forget();
            now.fetch_sub(1, SeqCst);
            origin::json(json!(seen.target).to_string())
        }
    })
    .await;
    let parts = |more: &str| {
        format!(
            "list: {{ service: parts, path: /list, hidden: true }}, each: {{ service: parts, path: \"/{{item}}\", for_each: \"$.list[*]\", {more} }}"
        )
    };
    let few = gateway(&origin.url(), "", "20s", &parts("concurrency: 3"));
    let client = Client::new(few.http());
    let request = tokio::spawn(async move { client.get("/all/1").await.text() });
    eventually("three have come through", || async { (now.load(SeqCst) == 3).then_some(()) }).await;
    gate.add_permits(10);
    assert_eq!(
        request.await.expect("it ends"),
        r#"{"each":["/0","/1","/2","/3","/4","/5","/6","/7","/8","/9"]}"#
    );
    assert_eq!(most.load(SeqCst), 3);
    let bounded = gateway(&origin.url(), "", "20s", &parts("max_items: 9"));
    let reply = Client::new(bounded.http()).get("/all/1").await;
    assert_eq!(
        without_times(&reply),
        r#"{"each":[],"_errors":[{"part":"each","reason":"part_too_many_items","status":502}]}"#
    );
    assert_eq!(origin.count(), 12);
}

#[tokio::test]
async fn a_required_join_needs_every_element() {
    for (orders, status, code) in [
        (r#"[{"product":7},{"product":404}]"#, 404, "part_not_found"),
        (r#"[{"product":7},{}]"#, 502, "part_missing_value"),
        (r#"[]"#, 200, ""),
    ] {
        let origin = shop(orders).await;
        let gateway = gateway(
            &origin.url(),
            "",
            "10s",
            "orders: { service: parts, path: /orders }, \
             products: { service: parts, path: \"/products/{item.product}\", for_each: \"$.orders[*]\", required: true }",
        );
        let reply = Client::new(gateway.http()).get("/all/1").await;
        assert_eq!(reply.status, status, "{orders}");
        if status == 200 {
            assert_eq!(reply.text(), r#"{"orders":[],"products":[]}"#);
        } else {
            assert_eq!(reply.code(), code, "{orders}");
        }
    }
}

#[tokio::test]
async fn all_answers_together_have_one_bound() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/list" => origin::json("[1,2,3,4]"),
        _ => origin::json(format!("\"{}\"", "x".repeat(400))),
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "list: { service: parts, path: /list, hidden: true }, \
         each: { service: parts, path: \"/{item}\", for_each: \"$.list[*]\", max_body: 1KiB }",
    );
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        r#"{"each":[],"_errors":[{"part":"each","reason":"part_too_large","status":502}]}"#
    );
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_calls_for_elements() {
    let origin = Origin::start_slow(|seen: Seen| async move {
        match seen.target.as_str() {
            "/list" => origin::json("[1,2,3,4]"),
            _ => std::future::pending().await,
        }
    })
    .await;
    let gateway: Gateway = gateway(
        &origin.url(),
        "",
        "60s",
        "list: { service: parts, path: /list }, each: { service: parts, path: \"/{item}\", for_each: \"$.list[*]\" }",
    );
    let client = Client::new(gateway.http());
    let request = tokio::spawn(async move { client.get("/all/1").await.status });
    eventually("all have come through", || async { (origin.count() == 5).then_some(()) }).await;
    request.abort();
    eventually("all are cancelled", || async { (origin.open_connections() <= 1).then_some(()) }).await;
}
