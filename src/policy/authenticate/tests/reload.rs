//! What lives on over a reload, and what the compiler has to say about a configuration.

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;
use crate::config::Severity;

fn again(config: &config::Authenticator, previous: &Arc<Authenticator>) -> Arc<Authenticator> {
    Authenticator::compile(config, Some(previous), &mut Problems::default()).expect("compiles")
}

fn url_key(url: &'static str, refresh: u64) -> JwtKey {
    JwtKey::JwksUrl { url: at(http::Uri::from_static(url)), refresh: Duration::from_secs(refresh) }
}

#[test]
fn the_same_settings_and_files_are_the_same_authenticator() {
    let (file, jwks) = jwks_file(json!([jwk("rsa.pub", Some("k1"))]));
    let config = written(&[JwtAlgorithm::RS256], vec![jwks]);
    let first = compiled(&config);
    assert!(Arc::ptr_eq(&first, &again(&config, &first)));

    let cache = TokenCache::new();
    let (headers, time) = (bearer(&token(Algorithm::RS256, Some("k1"))), now());
    assert!(matches!(first.decide(&headers, &cache, time), Decision::Accepted(_)));
    assert!(first.remembered(&headers, &cache, time).is_some());

    let changed = json!({ "keys": [jwk("rsa.pub", Some("k2"))] });
    std::fs::write(file.path(), changed.to_string()).expect("written");
    let second = again(&config, &first);
    assert!(second.remembered(&headers, &cache, time).is_none(), "the old keys' token is forgotten");
    assert!(matches!(second.decide(&headers, &cache, time), Decision::Refused(_)));
}

#[test]
fn changed_settings_forget_tokens_and_keep_fetched_keys() {
    let mut config =
        written(&[JwtAlgorithm::RS256], vec![url_key("https://a/", 60), url_key("https://b/", 60)]);
    let first = compiled(&config);
    let document = json!({ "keys": [jwk("rsa.pub", Some("k1"))] }).to_string();
    first.key_sets()[0].begin().succeeded(document.as_bytes()).expect("a key set");
    first.key_sets()[1].begin().succeeded(br#"{"keys":[]}"#).expect("a key set");
    let cache = TokenCache::new();
    let headers = bearer(&token(Algorithm::RS256, Some("k1")));
    assert!(matches!(first.decide(&headers, &cache, now()), Decision::Accepted(_)));

    config.jwt.leeway = Duration::ZERO;
    config.jwt.keys = vec![url_key("https://a/", 60), url_key("https://b/", 30), url_key("https://c/", 60)];
    let second = again(&config, &first);
    assert!(Arc::ptr_eq(&first.key_sets()[0], &second.key_sets()[0]));
    assert!(!second.key_sets()[1].ever_fetched(), "another refresh time is another set");
    assert_eq!(second.key_sets().len(), 3);
    assert!(second.remembered(&headers, &cache, now()).is_none());
    assert!(matches!(second.decide(&headers, &cache, now()), Decision::Accepted(_)));
}

#[test]
fn new_keys_forget_what_old_ones_accepted() {
    let authenticator = authenticator(&[JwtAlgorithm::RS256], vec![url_key("https://a/", 60)]);
    let set = &authenticator.key_sets()[0];
    let publish = |kid: &str| {
        let document = json!({ "keys": [jwk("rsa.pub", Some(kid))] }).to_string();
        set.begin().succeeded(document.as_bytes()).expect("a key set");
    };
    publish("k1");
    let cache = TokenCache::new();
    let headers = bearer(&token(Algorithm::RS256, Some("k1")));
    assert!(matches!(authenticator.decide(&headers, &cache, now()), Decision::Accepted(_)));
    publish("k1");
    assert!(authenticator.remembered(&headers, &cache, now()).is_some(), "the keys are the same");
    publish("k2");
    assert!(authenticator.remembered(&headers, &cache, now()).is_none());
    assert!(matches!(authenticator.decide(&headers, &cache, now()), Decision::KeysWanted(_)));
}

#[test]
fn a_configuration_is_told_what_is_doubtful() {
    let warned = |algorithms: &[JwtAlgorithm], key: JwtKey| {
        let mut problems = Problems::default();
        let compiled = Authenticator::compile(&written(algorithms, vec![key]), None, &mut problems);
        let told: Vec<_> = problems.iter().map(|p| (p.severity, p.message.clone())).collect();
        (compiled.is_some(), told)
    };
    let secret = |text: &str| JwtKey::Secret(at(Secret::new(text)));
    let (ok, told) = warned(&[JwtAlgorithm::HS256], secret("short"));
    assert!(ok && told[0].0 == Severity::Warning && told[0].1.contains("5 bytes"), "{told:?}");
    assert!(!told[0].1.contains("short"), "the secret is shown");
    let (ok, told) = warned(&[JwtAlgorithm::HS256], secret(""));
    assert!(!ok && told[0].0 == Severity::Error, "{told:?}");
    let (ok, told) = warned(&[JwtAlgorithm::HS256], public_key("rsa.pub"));
    assert!(ok && told[0].1.contains("RSA key fits none of the allowed"), "{told:?}");
    let (ok, told) = warned(&[JwtAlgorithm::HS256], public_key("no-such-file"));
    assert!(!ok && told[0].1.contains("cannot be read"), "{told:?}");
    let (_file, jwks) = jwks_file(json!([jwk("rsa.pub", None), { "kty": "AKP" }]));
    let (ok, told) = warned(&[JwtAlgorithm::RS256], jwks);
    assert!(ok && told.len() == 1 && told[0].1.contains("key number 2"), "{told:?}");
    let (_file, jwks) = jwks_file(json!([{ "kty": "AKP" }]));
    let (ok, told) = warned(&[JwtAlgorithm::RS256], jwks);
    assert!(!ok && told[0].1.contains("none of the 1 keys"), "{told:?}");
    for (url, severity) in [
        ("http://id.example.com/keys", Severity::Warning),
        ("https://me:hush@id.example.com/keys", Severity::Error),
        ("/keys", Severity::Error),
        ("ftp://id.example.com/keys", Severity::Error),
    ] {
        let (ok, told) = warned(&[JwtAlgorithm::RS256], url_key(url, 60));
        assert_eq!((ok, told[0].0), (severity == Severity::Warning, severity), "{url}: {told:?}");
        assert!(!told[0].1.contains("hush"));
    }
    for url in ["http://127.0.0.1:1/", "http://[::1]:1/", "http://LOCALHOST/", "https://id.example.com/"] {
        let (ok, told) = warned(&[JwtAlgorithm::RS256], url_key(url, 60));
        assert!(ok && told.is_empty(), "{url}: {told:?}");
    }
}
