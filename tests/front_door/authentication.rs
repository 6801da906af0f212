//! Who is let in with which token, what the service is told about them, and what a refusal says.

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use crate::support::client::Reply;
use crate::support::tokens::{
    SECRET, authenticator, claims, encode, forge, hs256, now, private_key, read, secret_authenticator,
    signed, vector,
};
use crate::support::{Client, Gateway, Origin, eventually, one_service, raw};

mod attacks;
mod key_sets;
mod token_command;

const EVERY: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

const GUARDED: &str =
    "routes: [{ name: in, match: { prefix: / }, authenticate: { with: [shop] }, respond: { text: in } }]\n";

async fn with_token(gateway: &Gateway, token: &str) -> Reply {
    Client::new(gateway.http()).bearer(token).get("/").await
}

fn every_name() -> String {
    EVERY.map(|algorithm| format!("{algorithm:?}")).join(", ")
}

#[tokio::test]
async fn every_algorithm_with_pem_files() {
    let keys = format!(
        "keys:\n  - {{ secret: \"{SECRET}\" }}\n{}",
        ["rsa.pub", "p256.pub", "p384.pub", "ed25519.pub"]
            .map(|name| format!("  - {{ public_key: {} }}\n", vector(name).display()))
            .concat()
    );
    let gateway = Gateway::start(&(authenticator(&every_name(), &keys) + GUARDED));
    for algorithm in EVERY {
        // Three times, so that either worker remembers some.
        let token = signed(algorithm, json!({}));
        for _ in 0..3 {
            assert_eq!(with_token(&gateway, &token).await.text(), "in", "{algorithm:?}");
        }
        let (start, signature) = token.rsplit_once('.').expect("three parts");
        let broken =
            format!("{start}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
        assert_eq!(with_token(&gateway, &broken).await.code(), "token_signature", "{algorithm:?}");
    }
    assert_eq!(gateway.log_entry(|entry| entry["status"] == 200)["subject"], "u1");
}

#[tokio::test]
async fn the_allow_list_counts() {
    let keys =
        format!("keys: [{{ secret: \"{SECRET}\" }}, {{ public_key: {} }}]", vector("rsa.pub").display());
    let gateway = Gateway::start(&(authenticator("RS256, HS512", &keys) + GUARDED));
    assert_eq!(with_token(&gateway, &signed(Algorithm::RS256, json!({}))).await.status, 200);
    for algorithm in [Algorithm::RS384, Algorithm::PS256, Algorithm::HS256, Algorithm::EdDSA] {
        let reply = with_token(&gateway, &signed(algorithm, json!({}))).await;
        assert_eq!((reply.status, reply.code().as_str()), (401, "token_algorithm"), "{algorithm:?}");
    }
}

#[tokio::test]
async fn every_refusal_has_its_reason_and_its_challenge() {
    let gateway = Gateway::start(&(secret_authenticator() + GUARDED));
    let none = Client::new(gateway.http()).get("/").await;
    assert_eq!((none.status, none.code().as_str()), (401, "token_missing"));
    assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"shop\""));

    let other_secret = EncodingKey::from_secret(b"another secret that is just as long as it should be");
    let bad_signature = forge(r#"{"alg":"HS256"}"#, &claims(json!({})), Algorithm::HS256, &other_secret);
    for (token, code) in [
        ("a.b.c".to_owned(), "token_malformed"),
        (hs256(json!({ "exp": now() - 1 })), "token_expired"),
        (hs256(json!({ "exp": null })), "token_malformed"),
        (hs256(json!({ "nbf": now() + 300 })), "token_not_yet_valid"),
        (hs256(json!({ "iss": "mallory" })), "token_issuer"),
        (hs256(json!({ "iss": null })), "token_issuer"),
        (hs256(json!({ "aud": "bazaar" })), "token_audience"),
        (hs256(json!({ "aud": null })), "token_audience"),
        (hs256(json!({ "aud": [] })), "token_audience"),
        (hs256(json!({ "aud": ["x", "y"] })), "token_audience"),
        (signed(Algorithm::HS384, json!({})), "token_algorithm"),
        (bad_signature, "token_signature"),
    ] {
        let reply = with_token(&gateway, &token).await;
        assert_eq!((reply.status, reply.code().as_str()), (401, code), "{token}");
        let challenge = reply.header("www-authenticate").expect("a 401 has a challenge");
        assert!(
            challenge.starts_with("Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"")
        );
        assert_eq!(gateway.log_entry(|entry| entry["reason"] == code)["status"], 401);
        for leak in ["mallory", "bazaar", SECRET, "HS256", "line ", "column", &token] {
            assert!(!reply.text().contains(leak), "{leak} in {}", reply.text());
        }
    }
    for good in
        [json!({ "aud": ["x", "shop"] }), json!({ "nbf": now() }), json!({ "exp": now() as f64 + 30.5 })]
    {
        assert_eq!(with_token(&gateway, &hs256(good.clone())).await.status, 200, "{good}");
    }
}

#[tokio::test]
async fn leeway_bears_with_clocks() {
    let config = secret_authenticator().replace("leeway: 0s", "leeway: 1m");
    let gateway = Gateway::start(&(config + GUARDED));
    for (changes, status) in [
        (json!({ "exp": now() - 20 }), 200),
        (json!({ "exp": now() - 120 }), 401),
        (json!({ "nbf": now() + 20 }), 200),
        (json!({ "nbf": now() + 120 }), 401),
    ] {
        assert_eq!(with_token(&gateway, &hs256(changes.clone())).await.status, status, "{changes}");
    }
}

#[tokio::test]
async fn a_token_is_taken_from_the_first_place_that_has_one() {
    let both = secret_authenticator() + "      token_from: [bearer, { cookie: token }]\n";
    let first_cookie = secret_authenticator() + "      token_from: [{ cookie: token }, bearer]\n";
    let good = hs256(json!({}));
    let bearer = Gateway::start(&(both + GUARDED));
    let cookie = Gateway::start(&(first_cookie + GUARDED));
    let ask = async |gateway: &Gateway, authorization: &str, cookies: &str| {
        let mut client = Client::new(gateway.http());
        if !authorization.is_empty() {
            client = client.header("authorization", authorization);
        }
        if !cookies.is_empty() {
            client = client.header("cookie", cookies);
        }
        let reply = client.get("/").await;
        if reply.status == 200 { "in".to_owned() } else { reply.code() }
    };
    let in_cookie = format!("a=b; token={good}; c=d");
    assert_eq!(ask(&bearer, "", &in_cookie).await, "in");
    assert_eq!(ask(&bearer, "Basic dTpw", &in_cookie).await, "in", "another scheme is no token");
    assert_eq!(ask(&bearer, "Bearer a.b.c", &in_cookie).await, "token_malformed", "bearer counts");
    assert_eq!(ask(&bearer, "Bearer", &in_cookie).await, "token_malformed");
    assert_eq!(ask(&bearer, "", &format!("token={good}; token={good}")).await, "token_malformed");
    assert_eq!(ask(&bearer, "", "token=").await, "token_malformed");
    assert_eq!(ask(&bearer, "", "Token=x").await, "token_missing");
    assert_eq!(ask(&cookie, "Bearer a.b.c", &in_cookie).await, "in", "the cookie counts");
    assert_eq!(ask(&cookie, &format!("Bearer {good}"), "token=a.b.c").await, "token_malformed");
    assert_eq!(ask(&cookie, &format!("Bearer {good}"), "").await, "in");
    let crumbs =
        Client::new(bearer.http()).http2().header("cookie", "a=b").header("cookie", &format!("token={good}"));
    assert_eq!(crumbs.get("/").await.status, 200, "HTTP/2 may split cookies");
}

#[tokio::test]
async fn the_authorization_field_in_all_spellings() {
    let gateway = Gateway::start(&(secret_authenticator() + GUARDED));
    let good = hs256(json!({}));
    let ask = async |lines: &str| {
        let (status, body) = raw::get(gateway.http(), "/", lines).await;
        if status == 200 {
            return "in".to_owned();
        }
        assert_eq!(status, 401, "{lines}: {body}");
        let problem: serde_json::Value = serde_json::from_str(&body).expect("a problem");
        problem["code"].as_str().expect("a code").to_owned()
    };
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer  "] {
        assert_eq!(ask(&format!("authorization: {scheme} {good}\r\n")).await, "in", "{scheme}");
    }
    assert_eq!(ask(&format!("authorization:   Bearer {good}  \r\n")).await, "in");
    assert_eq!(
        ask(&format!("Authorization: Bearer {good}\r\nauthorization: Bearer {good}\r\n")).await,
        "token_malformed"
    );
    assert_eq!(
        ask(&format!("authorization: Basic x\r\nauthorization: Bearer {good}\r\n")).await,
        "token_malformed"
    );
    for value in
        ["Bearer", "Bearer ", &format!("Bearer {good} {good}"), &format!("Bearer {good},{good}"), "Bearer ."]
    {
        assert_eq!(ask(&format!("authorization: {value}\r\n")).await, "token_malformed", "{value}");
    }
    for value in ["", &good, &format!("Bearer:{good}"), &format!("Bearer\t{good}"), &format!("Token {good}")]
    {
        assert_eq!(ask(&format!("authorization: {value}\r\n")).await, "token_missing", "{value}");
    }
}

#[tokio::test]
async fn only_the_methods_that_a_route_names_need_a_token() {
    let origin = Origin::text("served").await;
    let config = |methods: &str| {
        format!(
            "{}services: {{ users: {{ instances: [\"{}\"] }} }}\n\
             routes:\n  - name: users\n    match: {{ prefix: / }}\n    \
             authenticate: {{ with: [shop], methods: [{methods}] }}\n    forward: {{ service: users }}\n",
            secret_authenticator(),
            origin.url()
        )
    };
    let gateway = Gateway::start(&config("POST, DELETE"));
    let client = Client::new(gateway.http());
    let status = async |client: &Client, method: &str| {
        client.send(Method::from_bytes(method.as_bytes()).expect("a token"), "/", Bytes::new()).await.status
    };
    for (method, expected) in [("GET", 200), ("HEAD", 200), ("PUT", 200), ("POST", 401), ("DELETE", 401)] {
        assert_eq!(status(&client, method).await, expected, "{method}");
    }
    for spelling in ["post", "Post"] {
        let refused = status(&client, spelling).await;
        assert!(matches!(refused, 400 | 401), "{spelling}: some services take it for POST; {refused}");
    }
    let holder = client.clone().bearer(&hs256(json!({})));
    assert_eq!(status(&holder, "POST").await, 200);
    assert_eq!(status(&client.clone().bearer("broken"), "GET").await, 200, "nobody looks at it there");
    assert!(
        origin.seen().iter().all(|seen| !seen.method.as_str().eq_ignore_ascii_case("post")
            || seen.header("authorization").is_some())
    );

    gateway.reconfigure(&config("GET")).await;
    for (method, expected) in [("GET", 401), ("HEAD", 401), ("POST", 200)] {
        assert_eq!(status(&client, method).await, expected, "{method}");
    }
}

#[tokio::test]
async fn any_one_of_several_authenticators_suffices() {
    let second = "  partners:\n    jwt:\n      issuer: partner\n      algorithms: [HS256]\n      keys: [{ secret: \"the partner's own secret of thirty-two bytes\" }]\n";
    let gateway = Gateway::start(&format!(
        "{}{second}{}",
        secret_authenticator(),
        GUARDED.replace("[shop]", "[shop, partners]")
    ));
    let partner = EncodingKey::from_secret(b"the partner's own secret of thirty-two bytes");
    let theirs = |changes| forge(r#"{"alg":"HS256"}"#, &claims(changes), Algorithm::HS256, &partner);
    for _ in 0..3 {
        assert_eq!(with_token(&gateway, &hs256(json!({}))).await.status, 200);
        assert_eq!(with_token(&gateway, &theirs(json!({ "iss": "partner" }))).await.status, 200);
    }
    let reply = with_token(&gateway, &theirs(json!({}))).await;
    assert_eq!(reply.code(), "token_issuer", "the partner's key, but our issuer: it got that far");
    let reply = with_token(&gateway, &hs256(json!({ "iss": "partner" }))).await;
    assert_eq!(reply.code(), "token_issuer");
    let reply = with_token(&gateway, &theirs(json!({ "iss": "partner", "exp": now() - 120 }))).await;
    assert_eq!(reply.code(), "token_expired", "the most telling of both");
}

#[tokio::test]
async fn claims_become_fields_and_nobody_elses_do() {
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&format!(
        "{}      claim_headers: {{ sub: x-user-id, scope: x-scopes, roles: x-roles, realm.level: x-level }}\n\
         services: {{ users: {{ instances: [\"{}\"] }} }}\n\
         routes:\n\
         \x20 - {{ name: open, match: {{ prefix: /open }}, forward: {{ service: users }} }}\n\
         \x20 - {{ name: in, match: {{ prefix: / }}, authenticate: {{ with: [shop], methods: [POST] }}, forward: {{ service: users }} }}\n",
        secret_authenticator(),
        origin.url()
    ));
    let spoofing = Client::new(gateway.http())
        .header("x-user-id", "admin")
        .header("X-User-Id", "root")
        .header("x_user_id", "admin")
        .header("X-User_Id", "admin")
        .header("x-roles", "admin")
        .header("connection", "x-user-id, x-scopes");
    let token = hs256(json!({ "scope": ["read", "write"], "roles": ["a", "b"], "realm": { "level": 3 } }));
    assert_eq!(spoofing.clone().bearer(&token).post("/", "").await.status, 200);
    let seen = origin.only();
    let all = |name: &str| seen.headers.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(all("x-user-id"), ["u1"]);
    assert_eq!(all("x-scopes"), ["read write"]);
    assert_eq!(all("x-roles"), ["a,b"]);
    assert_eq!(all("x-level"), ["3"]);
    assert!(seen.header("x_user_id").is_none() && seen.header("x-user_id").is_none(), "{:?}", seen.headers);
    assert!(seen.header("authorization").is_some(), "the token goes on to the service");

    for target in ["/", "/open"] {
        for client in [spoofing.clone(), spoofing.clone().bearer(&token)] {
            assert_eq!(client.get(target).await.status, 200);
            let seen = origin.seen().pop().expect("it was forwarded");
            for name in ["x-user-id", "x-scopes", "x-roles", "x-level", "x_user_id", "x-user_id"] {
                assert!(seen.header(name).is_none(), "{name} on {target}: nobody was authenticated");
            }
        }
    }
    // A claim that a field can't say as it is.
    for sub in ["a\r\nx-admin: 1", "a\nb", " a", "a\u{0}"] {
        let reply = spoofing.clone().bearer(&hs256(json!({ "sub": sub }))).post("/", "").await;
        assert_eq!(reply.code(), "token_malformed", "{sub:?}");
    }
}

#[tokio::test]
async fn authorisation_asks_for_every_claim() {
    let gateway = Gateway::start(&format!(
        "{}routes:\n\
         \x20 - {{ name: roles, match: {{ path: /roles }}, authenticate: {{ with: [shop], methods: [GET] }}, authorize: {{ claims: {{ role: [admin, editor], tenant: 7 }} }}, respond: {{ text: in }} }}\n\
         \x20 - {{ name: scopes, match: {{ path: /scopes }}, authenticate: {{ with: [shop] }}, authorize: {{ claims: {{ scope: write }} }}, respond: {{ text: in }} }}\n",
        secret_authenticator()
    ));
    for (target, changes, allowed) in [
        ("/roles", json!({ "role": "admin", "tenant": 7 }), true),
        ("/roles", json!({ "role": ["x", "editor"], "tenant": "7" }), true),
        ("/roles", json!({ "role": "admin" }), false),
        ("/roles", json!({ "role": "Admin", "tenant": 7 }), false),
        ("/roles", json!({ "role": ["administrator"], "tenant": 7 }), false),
        ("/roles", json!({}), false),
        ("/scopes", json!({ "scope": "read write" }), true),
        ("/scopes", json!({ "scope": "overwrite" }), false),
    ] {
        let reply = Client::new(gateway.http()).bearer(&hs256(changes.clone())).get(target).await;
        if allowed {
            assert_eq!(reply.status, 200, "{changes}");
            continue;
        }
        assert_eq!((reply.status, reply.code().as_str()), (403, "not_authorized"), "{changes}");
        let expected =
            (target == "/scopes").then_some("Bearer error=\"insufficient_scope\", scope=\"write\"");
        assert_eq!(reply.header("www-authenticate"), expected);
        assert!(!reply.text().contains("editor"), "what would do is not told: {}", reply.text());
    }
    assert_eq!(Client::new(gateway.http()).get("/roles").await.status, 401);
    assert_eq!(Client::new(gateway.http()).post("/roles", "").await.status, 200, "methods limit both");
}

#[tokio::test]
async fn a_remembered_token_stops_at_its_time() {
    let gateway = Gateway::start(&(secret_authenticator() + GUARDED));
    let token = eventually("a token with two seconds left is accepted", || async {
        let token = hs256(json!({ "exp": now() + 2 }));
        (with_token(&gateway, &token).await.status == 200).then_some(token)
    })
    .await;
    let refused = eventually("the token has expired", || async {
        let reply = with_token(&gateway, &token).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!(refused.code(), "token_expired");
}

#[tokio::test]
async fn a_remembered_token_stops_when_the_key_or_the_rules_change() {
    let gateway = Gateway::start(&(secret_authenticator() + GUARDED));
    let token = hs256(json!({}));
    let codes = async |token: &str| {
        let mut codes = Vec::new();
        // Every connection may go to another worker.
        for _ in 0..8 {
            let reply = with_token(&gateway, token).await;
            codes.push(if reply.status == 200 { "in".to_owned() } else { reply.code() });
        }
        codes.dedup();
        codes
    };
    assert_eq!(codes(&token).await, ["in"]);
    let other = secret_authenticator().replace(SECRET, "some other secret, after the old one had leaked");
    gateway.reconfigure(&(other + GUARDED)).await;
    assert_eq!(codes(&token).await, ["token_signature"]);
    gateway.reconfigure(&(secret_authenticator().replace("[shop]", "[store]") + GUARDED)).await;
    assert_eq!(codes(&token).await, ["token_audience"]);
    gateway.reconfigure(&(secret_authenticator() + GUARDED)).await;
    assert_eq!(codes(&token).await, ["in"]);
}

#[tokio::test]
async fn a_key_file_is_read_again_on_reload() {
    let keys = "keys: [{ public_key: key.pub }]";
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    std::fs::copy(vector("p256.pub"), directory.path().join("key.pub")).expect("writable");
    let gateway = Gateway::start_in(directory, &(authenticator("ES256, EdDSA", keys) + GUARDED), &[]);
    let (old, new) = (signed(Algorithm::ES256, json!({})), signed(Algorithm::EdDSA, json!({})));
    assert_eq!(with_token(&gateway, &old).await.status, 200);
    assert_eq!(with_token(&gateway, &new).await.code(), "token_algorithm");
    std::fs::copy(vector("ed25519.pub"), gateway.file("key.pub")).expect("writable");
    gateway.signal("HUP");
    eventually("the new key counts", || async {
        (with_token(&gateway, &new).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(with_token(&gateway, &old).await.status, 401);
}

/// Answers with a JSON Web Key Set, or whatever the test puts there.
fn document(text: &str) -> Response<Full<Bytes>> {
    Response::new(Full::from(text.to_owned()))
}

/// A claim may stand where the gateway would say something itself: then nothing else stands there.
#[tokio::test]
async fn a_claim_takes_the_place_of_what_the_gateway_says() {
    let names = ["x-request-id", "x-forwarded-host", "traceparent", "via"];
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&format!(
        "{}      claim_headers: {{ a: x-request-id, b: x-forwarded-host, c: traceparent, d: via }}\n{}",
        secret_authenticator(),
        one_service(&[origin.url()], "").replace("forward:", "authenticate: { with: [shop] }, forward:")
    ));
    let token = hs256(json!({ "a": "a", "b": "b", "c": "c", "d": "d" }));
    assert_eq!(with_token(&gateway, &token).await.status, 200);
    let seen = origin.only();
    for (name, claim) in names.into_iter().zip(["a", "b", "c", "d"]) {
        let values: Vec<_> = seen.headers.get_all(name).iter().collect();
        assert_eq!(values, [claim], "{name}");
    }
}
