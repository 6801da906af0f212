//! Parts that are sent something, and parts that are no JSON when they come.

use std::io::Write;

use http::Response;
use http_body_util::Full;
use serde_json::json;

use super::{gateway, without_times};
use crate::support::{Client, Gateway, Origin, origin};

/// Answers `/user` with this, everything else with the request's body.
async fn echo(document: &'static str) -> Origin {
    Origin::start(move |seen| match seen.target.as_str() {
        "/user" => origin::json(document),
        _ => Response::new(Full::from(seen.body.clone())),
    })
    .await
}

#[tokio::test]
async fn a_body_is_made_of_values_of_others() {
    let origin = echo(r#"{"id":12345678901234567890,"name":"a\"b\\c\nd{","tags":[ 1.0 ],"none":null}"#).await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "user: { service: parts, path: /user, hidden: true }, \
         search: { service: parts, path: /search, body: { id: \"{user.id}\", note: \"of {user.name} in {{{id}}}\", all: \"{user.tags}\", \
         none: \"{user.none}\", fixed: [1.0, null, \"x\", {}, []], \"k\\\"\": \"{id}\" } }, \
         put: { service: parts, path: /put, method: PUT, body: \"{user}\", headers: { content-type: application/x-user+json } }, \
         lost: { service: parts, path: /lost, body: { id: \"{user.nobody}\" } }",
    );
    let reply = Client::new(gateway.http()).get("/all/a%20b").await;
    assert_eq!(
        without_times(&reply),
        "{\"search\":{\"id\":12345678901234567890,\"note\":\"of a\\\"b\\\\c\\nd{ in {a b}\",\"all\":[ 1.0 ],\"none\":null,\
         \"fixed\":[1.0,null,\"x\",{},[]],\"k\\\"\":\"a b\"},\
         \"put\":{\"id\":12345678901234567890,\"name\":\"a\\\"b\\\\c\\nd{\",\"tags\":[ 1.0 ],\"none\":null},\"lost\":null,\
         \"_errors\":[{\"part\":\"lost\",\"reason\":\"part_missing_value\",\"status\":502}]}"
    );
    for (target, method, kind) in
        [("/search", "POST", "application/json"), ("/put", "PUT", "application/x-user+json")]
    {
        let seen = origin.seen().into_iter().find(|seen| seen.target == target).expect("it was asked");
        assert_eq!((seen.method.as_str(), seen.header("content-type")), (method, Some(kind)));
        assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
    }
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn a_body_for_each_element() {
    let origin = echo(r#"[{"a":1,"b":2},{"a":1,"b":3},{"a":1,"b":4,"c":2}]"#).await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "user: { service: parts, path: /user, hidden: true }, \
         each: { service: parts, path: /x, for_each: \"$.user[?@.b > 2]\", body: [\"{item.a}\", \"{item.b}\"] }, \
         same: { service: parts, path: /y, for_each: \"$.user[*]\", body: { a: \"{item.a}\" } }",
    );
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(reply.text(), r#"{"each":[[1,3],[1,4]],"same":[{"a":1},{"a":1},{"a":1}]}"#);
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn a_repeated_attempt_sends_the_body_again() {
    let (ill, well) = (Origin::status(503).await, echo("{}").await);
    let gateway = Gateway::start(&format!(
        "workers: 1\nservices:\n  both: {{ instances: [\"{}\", \"{}\"], load_balancing: round_robin, retries: {{ methods: [POST], on: [503], budget: 100% }} }}\n\
         routes: [{{ name: all, match: {{ path: /all }}, aggregate: {{ parts: {{ a: {{ service: both, path: /, body: {{ x: 1 }} }} }} }} }}]\n",
        ill.url(),
        well.url()
    ));
    for _ in 0..2 {
        assert_eq!(Client::new(gateway.http()).get("/all").await.text(), r#"{"a":{"x":1}}"#);
    }
    assert!(ill.seen().iter().chain(&well.seen()).all(|seen| seen.body == r#"{"x":1}"#));
    assert!(ill.count() > 0, "of two requests in turn one begins there");
    assert_eq!(well.count(), 2);
}

#[tokio::test]
async fn a_part_gets_the_fields_that_it_may_have() {
    let origin = Origin::json("1").await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "few: { service: parts, path: /few, forward_headers: [x-tenant, x-hop] }, none: { service: parts, path: /none, forward_headers: [] }, \
         all: { service: parts, path: /all }",
    );
    let client = Client::new(gateway.http())
        .header("authorization", "Basic eDp5")
        .header("cookie", "a=b")
        .header("x-tenant", "blue")
        .header("connection", "x-hop")
        .header("x-hop", "1");
    assert_eq!(client.get("/all/1").await.status, 200);
    for (target, wanted) in [
        ("/few", [None, None, Some("blue")]),
        ("/none", [None, None, None]),
        ("/all", [Some("Basic eDp5"), Some("a=b"), Some("blue")]),
    ] {
        let seen = origin.seen().into_iter().find(|seen| seen.target == target).expect("it was asked");
        assert_eq!(["authorization", "cookie", "x-tenant"].map(|name| seen.header(name)), wanted, "{target}");
        assert_eq!(seen.header("x-hop"), None);
        for ours in ["via", "x-forwarded-for", "x-request-id", "traceparent"] {
            assert!(seen.header(ours).is_some(), "{target} {ours}");
        }
    }
}

#[tokio::test]
async fn static_parts_are_there_without_a_call() {
    let origin = Origin::start(|seen| origin::json(json!(seen.target).to_string())).await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "limits: { static: { page: 20, list: [1.0, null] } }, a: { service: parts, path: \"/{limits.page}\" }, \
         more: { static: { x: 1 }, merge: true }, b: { service: parts, path: \"/b/{plain}\" }, plain: { static: 7, hidden: true }",
    );
    assert_eq!(
        Client::new(gateway.http()).get("/all/1").await.text(),
        r#"{"limits":{"page":20,"list":[1.0,null]},"a":"/20","x":1,"b":"/b/7"}"#
    );
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn text_becomes_a_string() {
    let answer = |kind: &'static str, body: &'static [u8]| {
        Response::builder().header("content-type", kind).body(Full::from(body)).expect("constants")
    };
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/xml" => answer("application/xml", b"<a b=\"c\">\n\t\\ \xc3\xa9\x01</a>"),
        "/latin" => answer("text/plain; charset=ISO-8859-1", b"caf\xe9"),
        "/bom" => answer("text/plain", b"\xef\xbb\xbfx"),
        "/binary" => answer("text/plain", b"\xff\xfe"),
        "/empty" => answer("text/plain", b""),
        target => origin::json(json!(target).to_string()),
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "xml: { service: parts, path: /xml, as: text }, latin: { service: parts, path: /latin, as: text }, bom: { service: parts, path: /bom, as: text }, \
         binary: { service: parts, path: /binary, as: text }, empty: { service: parts, path: /empty, as: text }, use: { service: parts, path: \"/{bom}\" }",
    );
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        "{\"xml\":\"<a b=\\\"c\\\">\\n\\t\\\\ é\\u0001</a>\",\"latin\":\"café\",\"bom\":\"x\",\"binary\":null,\"empty\":\"\",\"use\":\"/x\",\
         \"_errors\":[{\"part\":\"binary\",\"reason\":\"part_not_text\",\"status\":502}]}"
    );
}

#[tokio::test]
async fn compressed_answers_are_read_within_bounds() {
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).expect("it writes to memory");
        encoder.finish().expect("it writes to memory")
    };
    let (good, bomb) = (gzip(b" {\"a\":1e400} "), gzip(&vec![b' '; 8 << 20]));
    let half = good[..good.len() / 2].to_vec();
    let origin = Origin::start(move |seen| {
        let (coding, body) = match seen.target.as_str() {
            "/good" => ("gzip", good.clone()),
            "/br" => ("br", b"\x0b\x01\x80[1]\x03".to_vec()),
            "/bomb" => ("gzip", bomb.clone()),
            "/half" => ("gzip", half.clone()),
            _ => ("zstd", b"[1]".to_vec()),
        };
        Response::builder().header("content-encoding", coding).body(Full::from(body)).expect("constants")
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        "",
        "10s",
        "good: { service: parts, path: /good }, br: { service: parts, path: /br }, bomb: { service: parts, path: /bomb, max_body: 100MiB }, \
         large: { service: parts, path: /good, max_body: 8B }, half: { service: parts, path: /half }, other: { service: parts, path: /other }",
    );
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        r#"{"good":{"a":1e400},"br":[1],"bomb":null,"large":null,"half":null,"other":null,"_errors":[{"part":"bomb","reason":"part_too_large","status":502},{"part":"large","reason":"part_too_large","status":502},{"part":"half","reason":"part_not_json","status":502},{"part":"other","reason":"part_not_json","status":502}]}"#
    );
}
