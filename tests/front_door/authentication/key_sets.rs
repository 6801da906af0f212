//! Keys from JSON Web Key Sets: files, and URLs that change, fail, lie and take their time.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;
use crate::support::origin::Seen;

/// The public key of a vector as a JWK, from the numbers at the places where DER has them.
fn jwk(name: &str, kid: &str) -> Value {
    let block = pem::parse(read(name)).expect("PEM");
    let der = block.contents();
    let tail = |bytes: usize| &der[der.len() - bytes..];
    let mut jwk = match name {
        // … modulus, then an exponent of tag, length and three bytes.
        "rsa.pub" => {
            json!({ "kty": "RSA", "n": encode(&der[der.len() - 5 - 256..der.len() - 5]), "e": "AQAB" })
        }
        "p256.pub" => {
            json!({ "kty": "EC", "crv": "P-256", "x": encode(&tail(64)[..32]), "y": encode(tail(32)) })
        }
        "p384.pub" => {
            json!({ "kty": "EC", "crv": "P-384", "x": encode(&tail(96)[..48]), "y": encode(tail(48)) })
        }
        _ => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(tail(32)) }),
    };
    jwk["kid"] = kid.into();
    jwk
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn all_keys() -> String {
    set(&[jwk("rsa.pub", "rsa"), jwk("p256.pub", "p256"), jwk("p384.pub", "p384"), jwk("ed25519.pub", "ed")])
}

fn with_kid(algorithm: Algorithm, kid: &str, changes: Value) -> String {
    let header = json!({ "alg": format!("{algorithm:?}"), "kid": kid }).to_string();
    forge(&header, &claims(changes), algorithm, &private_key(algorithm))
}

fn kid_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "p256",
        Algorithm::ES384 => "p384",
        Algorithm::EdDSA => "ed",
        _ => "rsa",
    }
}

fn asymmetric() -> impl Iterator<Item = Algorithm> {
    EVERY.into_iter().skip(3)
}

/// An issuer whose document the test changes as it goes.
struct Issuer {
    origin: Origin,
    document: Arc<Mutex<(u16, String)>>,
}

impl Issuer {
    async fn start(text: &str) -> Issuer {
        let document = Arc::new(Mutex::new((200, text.to_owned())));
        let answer = document.clone();
        let origin = Origin::start(move |_: &Seen| {
            let (status, text) = answer.lock().expect("nobody panics with it").clone();
            let mut response = super::document(&text);
            *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            response
        })
        .await;
        Issuer { origin, document }
    }

    fn publish(&self, status: u16, text: &str) {
        *self.document.lock().expect("nobody panics with it") = (status, text.to_owned());
    }

    fn config(&self, refresh: &str) -> String {
        let keys = format!("keys: [{{ jwks_url: \"{}/jwks.json\", refresh: {refresh} }}]", self.origin.url());
        authenticator("RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA", &keys) + GUARDED
    }
}

async fn until_accepted(gateway: &Gateway, token: &str) {
    eventually("the key is there", || async {
        (with_token(gateway, token).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_algorithm_with_a_key_set_in_a_file() {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    std::fs::write(directory.path().join("jwks.json"), all_keys()).expect("writable");
    let config = authenticator(&every_name(), "keys: [{ jwks_file: jwks.json }]") + GUARDED;
    let gateway = Gateway::start_in(directory, &config, &[]);
    for algorithm in asymmetric() {
        let token = with_kid(algorithm, kid_of(algorithm), json!({}));
        assert_eq!(with_token(&gateway, &token).await.status, 200, "{algorithm:?}");
        assert_eq!(with_token(&gateway, &signed(algorithm, json!({}))).await.status, 200, "without a kid");
        let reply = with_token(&gateway, &with_kid(algorithm, "other", json!({}))).await;
        assert_eq!(reply.code(), "token_key_unknown", "{algorithm:?}");
    }
    let reply = with_token(&gateway, &with_kid(Algorithm::ES256, "rsa", json!({}))).await;
    assert_eq!(reply.code(), "token_algorithm", "the named key is of another type");
}

#[tokio::test]
async fn every_algorithm_with_a_key_set_from_a_url() {
    let issuer = Issuer::start(&all_keys()).await;
    let gateway = Gateway::start(&issuer.config("10m"));
    until_accepted(&gateway, &signed(Algorithm::RS256, json!({}))).await;
    for algorithm in asymmetric() {
        let token = with_kid(algorithm, kid_of(algorithm), json!({}));
        assert_eq!(with_token(&gateway, &token).await.status, 200, "{algorithm:?}");
    }
    let seen = issuer.origin.seen().remove(0);
    assert_eq!(seen.target, "/jwks.json");
    assert!(seen.header("authorization").is_none(), "nobody's token goes to the issuer");
}

#[tokio::test]
async fn an_unknown_kid_fetches_once_for_all_who_ask() {
    let issuer = Issuer::start(&set(&[jwk("rsa.pub", "old")])).await;
    let gateway = Gateway::start(&issuer.config("10m"));
    let old = with_kid(Algorithm::RS256, "old", json!({}));
    until_accepted(&gateway, &old).await;
    issuer.publish(200, &set(&[jwk("rsa.pub", "old"), jwk("p256.pub", "new")]));
    let new = with_kid(Algorithm::ES256, "new", json!({}));
    until_accepted(&gateway, &new).await;
    let fetched = issuer.origin.count();
    let unknown: Vec<String> =
        (0..40).map(|i| with_kid(Algorithm::ES256, &format!("made up {i}"), json!({}))).collect();
    let asked = unknown.iter().map(|token| with_token(&gateway, token));
    for reply in futures_util::future::join_all(asked).await {
        assert_eq!(reply.code(), "token_key_unknown");
    }
    assert_eq!(issuer.origin.count(), fetched, "made-up names don't reach the issuer again so soon");
    assert_eq!(with_token(&gateway, &old).await.status, 200);
}

#[tokio::test]
async fn a_withdrawn_key_takes_its_tokens_with_it() {
    let issuer = Issuer::start(&set(&[jwk("rsa.pub", "a")])).await;
    let gateway = Gateway::start(&issuer.config("1s"));
    let token = with_kid(Algorithm::RS256, "a", json!({}));
    until_accepted(&gateway, &token).await;
    issuer.publish(200, &set(&[jwk("rsa.pub", "b")]));
    let refused = eventually("the token is forgotten", || async {
        let reply = with_token(&gateway, &token).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!(refused.code(), "token_key_unknown");
}

#[tokio::test]
async fn a_source_that_fails_or_lies_changes_nothing() {
    let issuer = Issuer::start(&set(&[jwk("rsa.pub", "a")])).await;
    let gateway = Gateway::start(&issuer.config("1s"));
    let token = |number: u32| with_kid(Algorithm::RS256, "a", json!({ "jti": number.to_string() }));
    until_accepted(&gateway, &token(0)).await;
    for (number, (status, text)) in
        [(500, "{\"keys\":[]}"), (200, "<html>"), (200, "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}")]
            .iter()
            .enumerate()
    {
        issuer.publish(*status, text);
        let before = issuer.origin.count();
        eventually("it was fetched again", || async { (issuer.origin.count() > before).then_some(()) }).await;
        // A token that nobody remembers: the signature is checked with the kept key.
        assert_eq!(with_token(&gateway, &token(number as u32 + 1)).await.status, 200, "{text}");
    }
    gateway.wait_for("warn");
    issuer.origin.kill();
    assert_eq!(with_token(&gateway, &token(9)).await.status, 200);
}

#[tokio::test]
async fn before_the_first_fetch_it_is_not_the_clients_fault() {
    let issuer = Issuer::start("not yet").await;
    issuer.publish(503, "not yet");
    let gateway = Gateway::start(&issuer.config("10m"));
    let token = with_kid(Algorithm::RS256, "a", json!({}));
    let reply = with_token(&gateway, &token).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "keys_unavailable"));
    assert!(reply.header("www-authenticate").is_none(), "another token would not help");
    let secret = hs256(json!({}));
    assert_eq!(with_token(&gateway, &secret).await.code(), "token_algorithm", "what no key could save");
    assert!(!reply.text().contains(&issuer.origin.address.to_string()), "{}", reply.text());
    issuer.publish(200, &set(&[jwk("rsa.pub", "a")]));
    until_accepted(&gateway, &token).await;
}

#[tokio::test]
async fn a_slow_source_holds_nobody_else_up() {
    let (release, gate) = tokio::sync::watch::channel(false);
    let keys = set(&[jwk("rsa.pub", "a")]);
    let issuer = Origin::start_slow(move |_| {
        let (mut gate, keys) = (gate.clone(), keys.clone());
        async move {
            let _ = gate.wait_for(|open| *open).await;
            document(&keys)
        }
    })
    .await;
    let keys = format!("keys: [{{ secret: \"{SECRET}\" }}, {{ jwks_url: \"{}/jwks.json\" }}]", issuer.url());
    let gateway = Gateway::start(&(authenticator("HS256, RS256", &keys) + GUARDED));
    let waiting = with_kid(Algorithm::RS256, "a", json!({}));
    let waiter = async { with_token(&gateway, &waiting).await };
    let others = async {
        assert_eq!(with_token(&gateway, &hs256(json!({}))).await.status, 200, "its key is here");
        assert_eq!(Client::new(gateway.http()).get("/").await.code(), "token_missing");
        release.send_replace(true);
    };
    let (waited, ()) = tokio::join!(waiter, others);
    // On a machine so busy that two seconds passed, it was told to come again.
    assert!(waited.status == 200 || waited.code() == "keys_unavailable", "{waited:?}");
    until_accepted(&gateway, &waiting).await;
}
