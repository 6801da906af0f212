//! Requests for routes, checked with the gateway's own eyes: what they ask for is what the route matches.

use std::time::SystemTime;

use super::*;
use crate::cli::loadtest::plan::Endpoint;
use crate::config::{Loaded, Source};

fn config(text: &str) -> Config {
    let text = format!(
        "listeners: [{{ name: http, bind: '127.0.0.1:0' }}]\n\
         services: {{ users: {{ instances: ['http://127.0.0.1:1'] }} }}\n\
         authenticators: {{ shop: {{ jwt: {{ algorithms: [HS256], keys: [{{ secret: 0123456789abcdef0123456789abcdef }}] }} }},\n\
         other: {{ jwt: {{ algorithms: [ES256], keys: [{{ jwks_url: 'http://127.0.0.1:1/keys' }}] }} }} }}\n{text}"
    );
    let source = Source { path: "gateway.yaml".into(), text: text.as_str().into() };
    match config::load(&source, &|_| None) {
        Ok(Loaded { config, .. }) => config,
        Err(problems) => panic!("{}", config::render(&problems, &source, false)),
    }
}

fn wishes() -> Wishes {
    Wishes { life: Duration::from_secs(60), ..Wishes::default() }
}

fn traffic(text: &str, wishes: &Wishes) -> Traffic {
    Traffic::of(&config(text), wishes, SystemTime::now()).expect("the routes are there")
}

/// Method, URI, and fields of the first request of each target.
fn requests(traffic: &Traffic) -> Vec<String> {
    let endpoint = Endpoint {
        name: String::new(),
        addresses: Vec::new(),
        tls: None,
        http2: false,
        authority: "here".to_owned(),
    };
    let line = |target: &Target| {
        let request = target.request(&endpoint, 0).expect("a good request");
        let host = request.headers()["host"].to_str().expect("ASCII").to_owned();
        format!("{}: {} {host} {}", target.name, request.method(), request.uri())
    };
    traffic.targets.iter().map(line).collect()
}

#[test]
fn every_kind_of_match_is_met() {
    let all = traffic(
        "routes:
  - { name: any, match: { prefix: / }, forward: { service: users } }
  - { name: user, match: { path: '/users/{id}/{tab}', methods: [GET, DELETE, OPTIONS] }, forward: { service: users } }
  - { name: search, match: { regex: '/v[0-9]+/s', hosts: ['*.example.com'], query: { q: { present: true }, old: { present: false } } }, forward: { service: users } }
  - { name: beta, match: { path: /b, hosts: [b.example.com], headers: { x-beta: { regex: '[0-9]{3}' }, x-a: b } }, forward: { service: users } }
",
        &wishes(),
    );
    assert_eq!(all.left_out, []);
    assert_eq!(
        requests(&all),
        [
            "any: GET here /",
            "user GET: GET here /users/1/1",
            "user DELETE: DELETE here /users/1/1",
            "search: GET loadtest.example.com /v1/s?q=1",
            "beta: GET b.example.com /b",
        ]
    );
    let beta = &all.targets[4].headers;
    assert_eq!(
        (&beta["x-beta"], &beta["x-a"]),
        (&HeaderValue::from_static("111"), &HeaderValue::from_static("b"))
    );
}

#[test]
fn a_batch_is_sent_only_with_requests_in_it() {
    let text = "routes:
  - { name: all, match: { path: /batch }, batch: {} }
  - { name: a, match: { path: /a }, forward: { service: users } }
";
    let all = traffic(text, &wishes());
    assert_eq!((all.targets.len(), all.left_out.len(), all.left_out[0].0.as_str()), (1, 1, "all"));
    assert!(all.left_out[0].1.contains("--body"), "{:?}", all.left_out);
    let given = Wishes { body: Some("[{\"path\":\"/a\"}]".into()), routes: vec!["all".into()], ..wishes() };
    let all = traffic(text, &given);
    assert_eq!((&all.targets[0].method, all.targets[0].body.len()), (&Method::POST, 15));
}

#[test]
fn tokens_are_signed_for_the_methods_that_need_them() {
    let all = traffic(
        "routes:
  - { name: a, match: { path: /a, methods: [GET, POST] }, authenticate: { with: [shop], methods: [POST] }, forward: { service: users } }
  - { name: b, match: { path: /b }, authenticate: { with: [other, shop] }, authorize: { claims: { role: [admin, x] } }, forward: { service: users } }
  - { name: c, match: { path: /c }, authenticate: { with: [other] }, forward: { service: users } }
",
        &wishes(),
    );
    let has_token = |index: usize| all.targets[index].headers.contains_key("authorization");
    assert_eq!([has_token(0), has_token(1), has_token(2)], [false, true, true]);
    assert_eq!(&all.targets[1].body[..], b"{}");
    assert_eq!((all.left_out.len(), all.left_out[0].0.as_str()), (1, "c"));
    assert!(all.left_out[0].1.contains("--token"), "{:?}", all.left_out);
    let given = Wishes { token: Some("t".into()), routes: vec!["c".into()], ..wishes() };
    let text = "routes: [{ name: c, match: { path: /c }, authenticate: { with: [other] }, forward: { service: users } }]";
    assert_eq!(traffic(text, &given).targets[0].headers["authorization"], "Bearer t");
}

#[test]
fn what_is_wished_for_is_what_is_made() {
    let text = "routes:
  - { name: user, match: { path: '/users/{id}', methods: [PUT] }, forward: { service: users } }
  - { name: gone, match: { path: /gone }, respond: { status: 410 } }
";
    let mut wished = Wishes { body: Some(Bytes::from_static(b"[1]")), ..wishes() };
    wished.parameters.insert("id".into(), Values::Numbers { first: 7, last: 9 });
    wished.weights.insert("user".into(), 5);
    let all = traffic(text, &wished);
    assert_eq!(requests(&all)[0], "user: PUT here /users/7");
    assert_eq!((all.targets[0].weight, &all.targets[0].body[..]), (5, &b"[1]"[..]));
    assert!(all.targets[1].accepted.accepts(410) && !all.targets[0].accepted.accepts(410));
    wished.routes.push("nobody".into());
    let error = Traffic::of(&config(text), &wished, SystemTime::now()).expect_err("there is none");
    assert!(error.contains("nobody") && error.contains("user, gone"), "{error}");
}

#[test]
fn a_description_says_what_is_below_a_prefix() {
    let openapi = OpenApi::parse(
        "openapi: 3.0.3
paths:
  /users/{id}: { get: { parameters: [{ name: id, in: path, example: 'a b' }] } }
  /users: { post: { requestBody: { content: { application/json: { example: { name: Ada } } } } } }
  /orders: { get: {} }
",
    );
    let wished = Wishes { openapi: Some(openapi.expect("a description")), ..wishes() };
    let text = "routes: [{ name: users, match: { prefix: /users }, forward: { service: users } }, { name: x, match: { path: /x }, forward: { service: users } }]";
    let all = traffic(text, &wished);
    assert_eq!(
        requests(&all),
        [
            "users POST /users: POST here /users",
            "users GET /users/{id}: GET here /users/a%20b",
            "x: GET here /x",
        ]
    );
    assert_eq!(&all.targets[0].body[..], br#"{"name":"Ada"}"#);
}

#[test]
fn paths_are_written_as_requests_have_them() {
    assert_eq!(written("/café/a b/%2F/{x}?"), "/caf%C3%A9/a%20b/%2F/%7Bx%7D%3F");
}
