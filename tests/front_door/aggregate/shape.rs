//! What of the answers stands in the document, and how.

use serde_json::json;
use tokio::sync::Semaphore;

use super::{gateway, without_times};
use crate::support::origin::Seen;
use crate::support::{Client, Gateway, Origin, eventually, origin};

/// Answers each path with its document.
async fn documents(list: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::start(move |seen| match list.iter().find(|(path, _)| *path == seen.target) {
        Some((_, document)) => origin::json(*document),
        None => origin::status(500),
    })
    .await
}

#[tokio::test]
async fn the_example_of_the_documents() {
    let origin = documents(&[
        ("/products/p1", r#"{"id":"p1","name":"Lamp","supplier":{"name":"S","terms":"net 30"}}"#),
        (
            "/reviews?product=p1",
            r#"{"data":{"reviews":[{"stars":5,"author":{"name":"Ada","mail":"a@b.example"}}]}}"#,
        ),
        ("/near/offers/p1", r#"[{"price":12.50}]"#),
        ("/far/offers/p1", r#"[{"price":9.00},{"price":1e2}]"#),
    ])
    .await;
    let example = include_str!("../../../examples/aggregate-shape.yaml");
    let (_, routes) = example.split_once("\nroutes:").expect("it has routes");
    let gateway = Gateway::start(&format!(
        "services: {{ user-service: {{ instances: [\"{0}\"] }}, order-service: {{ instances: [\"{0}\"] }} }}\nroutes:{routes}",
        origin.url()
    ));
    assert_eq!(
        Client::new(gateway.http()).get("/pages/p1").await.text(),
        r#"{"id":"p1","name":"Lamp","supplier":{"name":"S"},"reviews":[{"stars":5,"by":{"name":"Ada"}}],"offers":[{"price":9.00},{"price":12.50}]}"#
    );
}

#[tokio::test]
async fn what_is_selected_is_as_it_was_written() {
    let origin = documents(&[(
        "/",
        "{\"data\":{\"items\":[{\"id\":1.0,\"p\":1e400, \"x\":null},{\"p\":2,\"id\":12345678901234567890}]},\"n\": { \"b\":1,\"a\":[ ] }}",
    )])
    .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "a: { service: parts, path: /, select: \"$.data.items\", deny: [\"[*].x\"] }, b: { service: parts, path: /, select: \"$.n\" }, \
         c: { service: parts, path: /, select: \"$.data.items[?@.p > 2].id\" }, d: { service: parts, path: /, select: \"$.none\", fallback: [] }, \
         e: { service: parts, path: /, select: \"$.none[*]\", wrap: list }, f: { service: parts, path: \"/?id={a[1].id}\" }",
    );
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        "{\"a\":[{\"id\":1.0,\"p\":1e400},{\"p\":2,\"id\":12345678901234567890}],\"b\":{ \"b\":1,\"a\":[ ] },\"c\":[1.0],\"d\":[],\
         \"e\":{\"list\":[]},\"f\":null,\"_errors\":[{\"part\":\"d\",\"reason\":\"part_wrong_shape\",\"status\":502},\
         {\"part\":\"f\",\"reason\":\"part_failed\",\"status\":500}]}"
    );
    assert!(origin.seen().iter().any(|seen| seen.target == "/?id=12345678901234567890"));
}

#[tokio::test]
async fn the_order_of_the_configuration_decides_what_a_merge_comes_to() {
    for last in ["/a", "/b", "/c"] {
        let gate = std::sync::Arc::new(Semaphore::new(0));
        let held = gate.clone();
        let origin = Origin::start_slow(move |seen: Seen| {
            let gate = held.clone();
            async move {
                if seen.target == last {
                    gate.acquire().await.expect("it is never closed").forget();
                }
                origin::json(match seen.target.as_str() {
                    "/a" => r#"{"id":1,"a":1e400,"_errors":"forged","x":{"a":1}}"#,
                    "/b" => r#"{"b":2,"i\u0064":2,"x":{"b":2}}"#,
                    _ => "3",
                })
            }
        })
        .await;
        let gateway = gateway(
            &origin.url(),
            "",
            "20s",
            "one: { service: parts, path: /a, merge: true }, b: { service: parts, path: /c }, two: { service: parts, path: /b, merge: true }",
        );
        let client = Client::new(gateway.http());
        let request = tokio::spawn(async move { client.get("/all/1").await.text() });
        eventually("all have come through", || async { (origin.count() == 3).then_some(()) }).await;
        gate.add_permits(1);
        assert_eq!(request.await.expect("it ends"), r#"{"i\u0064":2,"a":1e400,"x":{"b":2},"b":2}"#, "{last}");
    }
}

#[tokio::test]
async fn a_merged_part_is_an_object() {
    let origin = documents(&[("/list", "[1]"), ("/object", r#"{"a":1}"#)]).await;
    let gateway = gateway(
        &origin.url(),
        "retries: { attempts: 0 }",
        "10s",
        "a: { service: parts, path: /list, merge: true, fallback: { stood: in } }, b: { service: parts, path: /list, merge: true }, \
         c: { service: parts, path: /object, merge: true }, d: { service: parts, path: /object, wrap: d, merge: true }",
    );
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        r#"{"stood":"in","a":1,"d":{"a":1},"_errors":[{"part":"a","reason":"part_wrong_shape","status":502},{"part":"b","reason":"part_wrong_shape","status":502}]}"#
    );
}

#[tokio::test]
async fn lists_of_several_parts_are_one() {
    let origin = documents(&[
        ("/a", r#"[{"p":{"v":10},"n":"a1"},{"p":{"v":"x"},"n":"a2"},{"n":"a3"},{"p":{"v":2},"n":"a4"}]"#),
        ("/b", r#"[{"p":{"v":12345678901234567891},"n":"b1"},{"p":{"v":12345678901234567890},"n":"b2"},{"p":{"v":2.0},"n":"b3"}]"#),
        ("/object", "{}"),
    ])
    .await;
    let names = |reply: crate::support::Reply, list: &str| -> Vec<String> {
        let list = reply.json()[list].as_array().expect("a list").clone();
        list.iter().map(|one| one["n"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for (more, wanted) in [
        ("", "b1 b2 b3 a1 a2 a3 a4"),
        (", limit: 2", "b1 b2"),
        (", sort_by: p.v", "b3 a4 a1 b2 b1 a2 a3"),
        (", sort_by: p.v, descending: true, limit: 3", "a2 b1 b2"),
        (", sort_by: n", "a1 a2 a3 a4 b1 b2 b3"),
    ] {
        let gateway = Gateway::start(&format!(
            "services: {{ parts: {{ instances: [\"{}\"] }} }}\n\
             routes:\n- name: all\n  match: {{ path: /all }}\n  aggregate:\n    parts: {{ a: {{ service: parts, path: /a }}, \
             z: {{ service: parts, path: /object }}, b: {{ service: parts, path: /b }} }}\n    append: {{ both: {{ of: [b, a]{more} }} }}\n",
            origin.url()
        ));
        let reply = Client::new(gateway.http()).get("/all").await;
        assert!(
            reply.text().starts_with("{\"both\":[") && reply.text().ends_with("],\"z\":{}}"),
            "{}",
            reply.text()
        );
        assert_eq!(names(reply, "both").join(" "), wanted, "{more}");
    }
    let gateway = Gateway::start(&format!(
        "services: {{ parts: {{ instances: [\"{}\"] }} }}\n\
         routes:\n- name: all\n  match: {{ path: /all }}\n  aggregate:\n    parts: {{ a: {{ service: parts, path: /object }}, \
         b: {{ service: parts, path: /object, fallback: [1] }}, c: {{ service: parts, path: /object, required: true }} }}\n    append: {{ both: {{ of: [a, b] }} }}\n",
        origin.url()
    ));
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all").await),
        r#"{"both":[1],"c":{},"_errors":[{"part":"a","reason":"part_wrong_shape","status":502},{"part":"b","reason":"part_wrong_shape","status":502}]}"#
    );
}

#[tokio::test]
async fn hostile_answers_cost_nothing_but_their_part() {
    let deep = || "[".repeat(200_000) + &"]".repeat(200_000);
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/deep" => origin::json(deep()),
        "/members" => origin::json("{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000)),
        "/twice" => origin::json(r#"{"k":1,"k":2,"\u006b":3,"secret":1,"s\u0065cret":2}"#),
        "/number" => origin::json(format!("{{\"n\":1{}e-{}}}", "0".repeat(50_000), "9".repeat(50_000))),
        "/utf8" => http::Response::new(http_body_util::Full::from(&b"{\"a\":\"\xff\xfe\"}"[..])),
        _ => origin::status(500),
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "20s",
        "deep: { service: parts, path: /deep, allow: [a] }, asked: { service: parts, path: /deep, select: \"$..a\" }, \
         members: { service: parts, path: /members, allow: [a.a.b] }, twice: { service: parts, path: /twice, deny: [secret] }, \
         utf8: { service: parts, path: /utf8, deny: [b] }, number: { service: parts, path: /number, select: \"$.n\", hidden: true }",
    );
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        r#"{"deep":[],"asked":null,"members":{"a":{"a":{}}},"twice":{"k":1,"k":2,"\u006b":3},"utf8":null,"_errors":[{"part":"asked","reason":"part_wrong_shape","status":502},{"part":"utf8","reason":"part_not_json","status":502}]}"#
    );
    assert_eq!(json!(Client::new(gateway.http()).get("/all/1").await.status), json!(200));
}

#[tokio::test]
async fn no_content_is_null_whatever_the_rules_are() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/null" => origin::json(" null "),
        "/list" => origin::json("[1]"),
        _ => origin::status(204),
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "a: { service: parts, path: /204, select: \"$.data\", allow: [x], wrap: w }, b: { service: parts, path: /null, merge: true }, \
         list: { service: parts, path: /list, hidden: true }, \
         c: { service: parts, path: /204, for_each: \"$.list[*]\", select: \"$.data\", batch: { parameter: ids, key: id } }",
    );
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        r#"{"a":null,"c":[null],"_errors":[{"items":[0],"part":"c","reason":"part_not_found","status":404}]}"#
    );
}
