//! What browsers are told to be careful with.

use super::*;
use crate::support::client::Reply;

const NAMES: [&str; 8] = [
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "content-security-policy",
    "referrer-policy",
    "permissions-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
];

fn told(reply: &Reply) -> Vec<(&'static str, String)> {
    let lines = |name: &'static str| {
        let all = reply.headers.get_all(name).iter();
        all.map(move |value| (name, value.to_str().expect("text").to_owned()))
    };
    NAMES.into_iter().flat_map(lines).collect()
}

fn owned(lines: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    lines.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

const BASIC: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("content-security-policy", "frame-ancestors 'self'"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
];

#[tokio::test]
async fn every_reply_has_them_and_routes_have_their_own() {
    let gateway = Gateway::start(
        "defaults: { security_headers: true }\n\
         routes:\n\
         \x20 - { name: basic, match: { path: /basic }, respond: {} }\n\
         \x20 - { name: strict, match: { path: /strict }, security_headers: strict, respond: {} }\n\
         \x20 - { name: none, match: { path: /none }, security_headers: false, respond: {} }\n\
         \x20 - { name: edited, match: { path: /edited }, response_headers: { remove: [x-frame-options], set: { referrer-policy: origin } }, respond: {} }\n\
         \x20 - name: own\n\
         \x20   match: { path: /own }\n\
         \x20   security_headers: { preset: strict, frame_options: sameorigin, permissions_policy: \"camera=()\", referrer_policy: off, cross_origin_opener_policy: off }\n\
         \x20   respond: {}\n\
         \x20 - { name: frames, match: { path: /frames }, security_headers: { frame_options: off }, respond: {} }\n\
         \x20 - { name: policy, match: { path: /policy }, security_headers: { content_security_policy: \"default-src 'self'\" }, respond: {} }\n",
    );
    let client = Client::new(gateway.http());
    assert_eq!(told(&client.get("/basic").await), owned(&BASIC));
    assert_eq!(told(&client.get("/nowhere").await), owned(&BASIC), "problem documents included");
    let strict = told(&client.get("/strict").await);
    assert_eq!(strict.len(), 7, "all but that for TLS: {strict:?}");
    assert!(
        strict.contains(&("content-security-policy", "default-src 'none'; frame-ancestors 'none'".into()))
    );
    assert_eq!(told(&client.get("/none").await), []);
    let edited = told(&client.get("/edited").await);
    assert_eq!(
        edited,
        owned(&[BASIC[0], BASIC[2], ("referrer-policy", "origin")]),
        "edits have the last word"
    );
    let own = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "SAMEORIGIN"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'self'"),
        ("permissions-policy", "camera=()"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    assert_eq!(told(&client.get("/own").await), owned(&own));
    assert_eq!(told(&client.get("/frames").await), owned(&[BASIC[0], BASIC[3]]));
    let policy = [BASIC[0], BASIC[1], ("content-security-policy", "default-src 'self'"), BASIC[3]];
    assert_eq!(told(&client.get("/policy").await), owned(&policy));
}

#[tokio::test]
async fn the_services_own_stay_unless_they_are_to_be_replaced() {
    let origin = Origin::start(|_| {
        let response = Response::builder()
            .header("x-frame-options", "ALLOWALL")
            .header("content-security-policy", "default-src 'self'")
            .header("content-security-policy", "img-src *");
        response.body(Full::new(Bytes::from_static(b"ok"))).expect("constants")
    })
    .await;
    let gateway = Gateway::start(&forwarding(&origin, "defaults: { security_headers: true }", ""));
    let kept = [
        BASIC[0],
        ("x-frame-options", "ALLOWALL"),
        ("content-security-policy", "default-src 'self'"),
        ("content-security-policy", "img-src *"),
        BASIC[3],
    ];
    assert_eq!(told(&Client::new(gateway.http()).get("/").await), owned(&kept));
    let gateway =
        Gateway::start(&forwarding(&origin, "defaults: { security_headers: { replace: true } }", ""));
    assert_eq!(told(&Client::new(gateway.http()).get("/").await), owned(&BASIC));
}
