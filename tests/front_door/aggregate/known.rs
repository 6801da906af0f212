//! Known answers: what well-known tasks of an aggregate come to, to the byte. The tasks are those that KrakenD's documentation
//! has for its aggregation; where its answer depends on which response came first, or loses a number, ours does not.

use crate::support::{Client, Gateway, Origin, origin};

const USER: &str = r#"{"id":1,"name":"Ada","email":"ada@example.com","token":"s3cret","balance":12345678901234567890.10,
  "address":{"city":"London","geo":{"lat":51.50,"lng":-0.13}},"tags":[{"name":"a","internal":true},{"name":"b","internal":false}]}"#;
const POSTS: &str =
    r#"[{"id":9007199254740993,"title":"One","userId":1},{"title":"Two","id":1e2,"userId":1}]"#;
const ENVELOPE: &str =
    r#"{"apiVersion":"2.0","data":{"updated":"2026-11-22","items":[{"sku":"x","price":10.0}]},"error":null}"#;
const HOTEL: &str = r#"{"hotel_id":25,"name":"Hotel California","destination_id":"1034/x"}"#;
const KINDERGARTEN: &str = r#"{"kindergarten":["Liam","Emma"],"primary":["Noah"]}"#;

async fn services() -> Origin {
    Origin::start(|seen| match seen.target.as_str() {
        "/users/1" => origin::json(USER),
        "/posts?user=1" => origin::json(POSTS),
        "/envelope" => origin::json(ENVELOPE),
        "/hotels/1" => origin::json(HOTEL),
        "/destinations/1034%2Fx" => origin::json(r#"{"destinations":["LA"]}"#),
        "/school" => origin::json(KINDERGARTEN),
        "/a" => origin::json(r#"{"shared":"a","only_a":1}"#),
        "/b" => origin::json(r#"{"shared":"b","only_b":2}"#),
        "/xml" => origin::json("<user id=\"1\">Ada &amp; Bob</user>"),
        "/down" => origin::status(500),
        _ => origin::status(404),
    })
    .await
}

/// Each with what stands below `aggregate`, and the document.
const TASKS: [(&str, &str, &str); 16] = [
    (
        "merging",
        "parts: { user: { service: s, path: \"/users/{id}\", allow: [id, name], merge: true }, hotel: { service: s, path: /hotels/1, allow: [hotel_id], merge: true } }",
        r#"{"id":1,"name":"Ada","hotel_id":25}"#,
    ),
    (
        "conflicts: who is declared last gives the value, where the name stood first",
        "parts: { a: { service: s, path: /a, merge: true }, b: { service: s, path: /b, merge: true } }",
        r#"{"shared":"b","only_a":1,"only_b":2}"#,
    ),
    (
        "and the other way round",
        "parts: { b: { service: s, path: /b, merge: true }, a: { service: s, path: /a, merge: true } }",
        r#"{"shared":"a","only_b":2,"only_a":1}"#,
    ),
    (
        "deny, also in objects and arrays",
        "parts: { user: { service: s, path: \"/users/{id}\", merge: true, deny: [token, email, address.geo.lng, \"tags[*].internal\", balance] } }",
        r#"{"id":1,"name":"Ada","address":{"city":"London","geo":{"lat":51.50}},"tags":[{"name":"a"},{"name":"b"}]}"#,
    ),
    (
        "allow, also in objects and arrays",
        "parts: { user: { service: s, path: \"/users/{id}\", merge: true, allow: [balance, address.geo.lat, \"tags[*].name\"] } }",
        r#"{"balance":12345678901234567890.10,"address":{"geo":{"lat":51.50}},"tags":[{"name":"a"},{"name":"b"}]}"#,
    ),
    (
        "grouping",
        "parts: { last_post: { service: s, path: \"/posts?user={id}\", select: \"$[0]\" }, user: { service: s, path: \"/users/{id}\", allow: [name], merge: true } }",
        r#"{"last_post":{"id":9007199254740993,"title":"One","userId":1},"name":"Ada"}"#,
    ),
    (
        "mapping",
        "parts: { user: { service: s, path: \"/users/{id}\", merge: true, allow: [email, address.city], rename: { email: personal_email, address.city: town } } }",
        r#"{"personal_email":"ada@example.com","address":{"town":"London"}}"#,
    ),
    (
        "target",
        "parts: { list: { service: s, path: /envelope, select: \"$.data\", merge: true } }",
        r#"{"updated":"2026-11-22","items":[{"sku":"x","price":10.0}]}"#,
    ),
    (
        "collections",
        "parts: { posts: { service: s, path: \"/posts?user={id}\", wrap: collection, merge: true } }",
        r#"{"collection":[{"id":9007199254740993,"title":"One","userId":1},{"title":"Two","id":1e2,"userId":1}]}"#,
    ),
    (
        "collections with rules for their elements",
        "parts: { posts: { service: s, path: \"/posts?user={id}\", allow: [\"[*].title\", \"[*].id\"], rename: { \"[*].id\": post_id } } }",
        r#"{"posts":[{"post_id":9007199254740993,"title":"One"},{"title":"Two","post_id":1e2}]}"#,
    ),
    (
        "appending collections",
        "parts: { kindergarten: { service: s, path: /school, select: \"$.kindergarten\" }, primary: { service: s, path: /school, select: \"$.primary\" } }, append: { students: { of: [kindergarten, primary] } }",
        r#"{"students":["Liam","Emma","Noah"]}"#,
    ),
    (
        "sequential calls",
        "parts: { hotel: { service: s, path: \"/hotels/{id}\", merge: true }, destination: { service: s, path: \"/destinations/{hotel.destination_id}\", merge: true } }",
        r#"{"hotel_id":25,"name":"Hotel California","destination_id":"1034/x","destinations":["LA"]}"#,
    ),
    (
        "a part that is down",
        "parts: { user: { service: s, path: \"/users/{id}\", allow: [name], merge: true }, ads: { service: s, path: /down, retries: { attempts: 0 }, merge: true, fallback: { ads: [] } } }",
        r#"{"name":"Ada","ads":[],"_errors":[{"part":"ads","reason":"part_failed","status":500}]}"#,
    ),
    (
        "static data",
        "parts: { version: { static: { version: 1.0, released: null }, merge: true }, a: { service: s, path: /a, select: \"$.only_a\" } }",
        r#"{"version":1.0,"released":null,"a":1}"#,
    ),
    (
        "text",
        "parts: { xml: { service: s, path: /xml, as: text, wrap: content, merge: true } }",
        r#"{"content":"<user id=\"1\">Ada &amp; Bob</user>"}"#,
    ),
    (
        "a list joined with another service",
        "parts: { posts: { service: s, path: \"/posts?user={id}\", allow: [\"[*].title\", \"[*].userId\"] }, author: { service: s, path: \"/users/{item.userId}\", for_each: \"$.posts[*]\", into: author, select: \"$.name\" } }",
        r#"{"posts":[{"title":"One","userId":1,"author":"Ada"},{"title":"Two","userId":1,"author":"Ada"}]}"#,
    ),
];

#[tokio::test]
async fn well_known_tasks() {
    let origin = services().await;
    let mut configuration = format!("services: {{ s: {{ instances: [\"{}\"] }} }}\nroutes:\n", origin.url());
    for (number, (_, aggregate, _)) in TASKS.iter().enumerate() {
        configuration += &format!(
            "- {{ name: t{number}, match: {{ path: \"/{number}/{{id}}\" }}, aggregate: {{ {aggregate} }} }}\n"
        );
    }
    let gateway = Gateway::start(&configuration);
    for (number, (task, _, wanted)) in TASKS.iter().enumerate() {
        for _ in 0..3 {
            let reply = Client::new(gateway.http()).get(&format!("/{number}/1")).await;
            assert_eq!((reply.status, super::without_times(&reply).as_str()), (200, *wanted), "{task}");
        }
    }
}

/// Whichever comes first: one answer of two is held back until the other has come, and then the other way round.
#[tokio::test]
async fn the_order_of_arrival_changes_nothing() {
    for first in ["/a", "/b"] {
        let (passed, pass) = tokio::sync::watch::channel(false);
        let origin = Origin::start_slow(move |seen| {
            let (passed, mut pass) = (passed.clone(), pass.clone());
            async move {
                if seen.target == first {
                    let _ = passed.send(true);
                } else {
                    let _ = pass.wait_for(|passed| *passed).await;
                    // The other's answer is on its way; that it arrives first is likely, not sure.
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                origin::json(format!(r#"{{"shared":"{0}","{0}":[{0:?}]}}"#, seen.target))
            }
        })
        .await;
        let gateway = super::gateway(
            &origin.url(),
            "",
            "20s",
            "a: { service: parts, path: /a, merge: true }, b: { service: parts, path: /b, merge: true }, \
             c: { service: parts, path: /a, select: \"$['/a']\" }, d: { service: parts, path: /b, select: \"$['/b']\" }",
        );
        assert_eq!(
            Client::new(gateway.http()).get("/all/1").await.text(),
            r#"{"shared":"/b","/a":["/a"],"/b":["/b"],"c":["/a"],"d":["/b"]}"#
        );
    }
}
