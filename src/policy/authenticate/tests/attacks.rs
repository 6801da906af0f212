//! The known ways to get past a token check, each with the reason it must be refused for.

use http::HeaderName;
use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use serde_json::json;

use super::*;
use crate::policy::authenticate::Authentication;

fn everything() -> Arc<Authenticator> {
    let keys = ["rsa.pub", "p256.pub", "p384.pub", "ed25519.pub"].map(public_key);
    authenticator(&EVERY, [vec![secret_key()], keys.to_vec()].concat())
}

#[test]
fn every_algorithm_is_accepted_with_its_key() {
    let authenticator = everything();
    for written in EVERY {
        let algorithm = crate::policy::authenticate::algorithm(written);
        let identity = judge(&authenticator, &token(algorithm, None)).expect("accepted");
        assert_eq!(identity.subject.as_deref(), Some("u1"), "{algorithm:?}");
        assert_eq!(&*identity.authenticator, "shop");
        assert_eq!(identity.expires_at, now() + Duration::from_secs(600));
        // Keys without a name serve tokens with one.
        assert_eq!(reason(&authenticator, &token(algorithm, Some("k1"))), None);
    }
    let fully_specified =
        forge(r#"{"alg":"Ed25519"}"#, &claims(json!({})), Algorithm::EdDSA, &private_key(Algorithm::EdDSA));
    assert_eq!(reason(&authenticator, &fully_specified), None);
}

#[test]
fn any_changed_byte_breaks_every_algorithm() {
    let authenticator = everything();
    for written in EVERY {
        let good = token(crate::policy::authenticate::algorithm(written), None);
        let payload = good.find('.').expect("three parts") + 1;
        let signature = good.rfind('.').expect("three parts") + 1;
        for position in [payload, payload + 9, signature, signature + 9] {
            let mut bad = good.clone().into_bytes();
            bad[position] = if bad[position] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).expect("ASCII");
            assert_eq!(
                reason(&authenticator, &bad),
                Some(Reason::TokenSignature),
                "{written:?} at {position}"
            );
        }
        for cut in [1, 4, 8] {
            let short = reason(&authenticator, &good[..good.len() - cut]);
            assert!(matches!(short, Some(Reason::TokenSignature | Reason::TokenMalformed)), "{written:?}");
        }
        assert_eq!(
            reason(&authenticator, &format!("{good}AAAA")),
            Some(Reason::TokenSignature),
            "{written:?}"
        );
    }
}

#[test]
fn a_public_key_is_never_an_hmac_secret() {
    use Algorithm::{HS256, HS384, HS512};
    // All algorithms allowed, only the public keys there: the forger signs with what everyone can read.
    for name in ["rsa.pub", "p256.pub", "p384.pub", "ed25519.pub", "rsa.crt"] {
        let authenticator = {
            let mut problems = Problems::default();
            Authenticator::compile(&written(&EVERY, vec![public_key(name)]), None, &mut problems)
                .expect("compiles")
        };
        let text = read(name);
        let der = pem::parse(&text).expect("PEM").into_contents();
        let tail = |bytes: usize| &der[der.len().saturating_sub(bytes)..];
        for bytes in [&text[..], text.trim_ascii_end(), &der, tail(32), tail(65)] {
            for algorithm in [HS256, HS384, HS512] {
                let header = format!(r#"{{"alg":"{algorithm:?}"}}"#);
                let forged = forge(&header, &claims(json!({})), algorithm, &EncodingKey::from_secret(bytes));
                assert_eq!(reason(&authenticator, &forged), Some(Reason::TokenAlgorithm), "{name}");
            }
        }
    }
    // The same with a key that has a name, and the secret of somebody else beside it.
    let (_file, jwks) = jwks_file(json!([jwk("rsa.pub", Some("k1"))]));
    let authenticator = authenticator(&EVERY, vec![secret_key(), jwks]);
    let forged = forge(
        r#"{"alg":"HS256","kid":"k1"}"#,
        &claims(json!({})),
        HS256,
        &EncodingKey::from_secret(&read("rsa.pub")),
    );
    assert_eq!(reason(&authenticator, &forged), Some(Reason::TokenSignature));
}

#[test]
fn the_allow_list_counts_whatever_keys_there_are() {
    let authenticator =
        authenticator(&[JwtAlgorithm::RS256, JwtAlgorithm::HS512], vec![secret_key(), public_key("rsa.pub")]);
    assert_eq!(reason(&authenticator, &token(Algorithm::RS256, None)), None);
    for algorithm in [Algorithm::RS384, Algorithm::PS256, Algorithm::HS256, Algorithm::ES256] {
        assert_eq!(reason(&authenticator, &token(algorithm, None)), Some(Reason::TokenAlgorithm));
    }
    // The header says what is allowed, the signature is another algorithm's.
    let key = private_key(Algorithm::RS512);
    let mixed = forge(r#"{"alg":"RS256"}"#, &claims(json!({})), Algorithm::RS512, &key);
    assert_eq!(reason(&authenticator, &mixed), Some(Reason::TokenSignature));
    let mixed = forge(r#"{"alg":"RS256"}"#, &claims(json!({})), Algorithm::PS256, &key);
    assert_eq!(reason(&authenticator, &mixed), Some(Reason::TokenSignature));
}

#[test]
fn unsigned_tokens_are_refused() {
    let authenticator = everything();
    for alg in ["none", "None", "NONE", "nONE"] {
        let unsigned = format!(
            "{}.{}",
            encode(format!(r#"{{"alg":"{alg}"}}"#).as_bytes()),
            encode(claims(json!({})).as_bytes())
        );
        for signature in ["", "AAAA"] {
            let token = format!("{unsigned}.{signature}");
            assert_eq!(reason(&authenticator, &token), Some(Reason::TokenAlgorithm), "{token}");
        }
        assert_eq!(reason(&authenticator, &unsigned), Some(Reason::TokenMalformed));
    }
    let good = token(Algorithm::HS256, None);
    let stripped = &good[..=good.rfind('.').expect("three parts")];
    assert_eq!(reason(&authenticator, stripped), Some(Reason::TokenMalformed));
}

#[test]
fn ecdsa_signatures_out_of_range_or_of_another_length_are_refused() {
    let authenticator = authenticator(
        &[JwtAlgorithm::ES256, JwtAlgorithm::ES384],
        vec![public_key("p256.pub"), public_key("p384.pub")],
    );
    // The order of P-256 (FIPS 186-4 D.1.2.3).
    let order: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let one = [&[0; 31][..], &[1]].concat();
    let good = token(Algorithm::ES256, None);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let raw = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let bad = [
        vec![0; 64], // r = s = 0: CVE-2022-21449
        [vec![0; 32], one.clone()].concat(),
        [one.clone(), vec![0; 32]].concat(),
        [order, order].concat(),
        [&order[..], &one].concat(),
        [&one[..], &order].concat(),
        vec![0xff; 64],
        raw[..63].to_vec(),
        raw[1..].to_vec(),
        [&raw[..], &[0]].concat(),
        [&[0], &raw[..]].concat(),
        vec![0; 96],
        vec![0],
        // The DER form of the same numbers, which JWS does not use (RFC 7518 §3.4).
        [&[0x30, 0x44, 2, 32], &raw[..32], &[2, 32], &raw[32..]].concat(),
    ];
    for signature in bad {
        let forged = format!("{signed}.{}", encode(&signature));
        assert_eq!(reason(&authenticator, &forged), Some(Reason::TokenSignature), "{signature:?}");
    }
    assert_eq!(reason(&authenticator, &good), None);
}

#[test]
fn a_curve_has_one_algorithm() {
    let authenticator =
        authenticator(&[JwtAlgorithm::ES256, JwtAlgorithm::ES384], vec![public_key("p256.pub")]);
    assert_eq!(reason(&authenticator, &token(Algorithm::ES384, None)), Some(Reason::TokenAlgorithm));
    let key = EncodingKey::from_ec_pem(&read("other-p256.key")).expect("a key");
    let other = forge(r#"{"alg":"ES256"}"#, &claims(json!({})), Algorithm::ES256, &key);
    assert_eq!(reason(&authenticator, &other), Some(Reason::TokenSignature));
}

#[test]
fn keys_that_a_token_brings_are_never_used() {
    let authenticator = everything();
    let key = EncodingKey::from_ec_pem(&read("other-p256.key")).expect("a key");
    for extra in [
        json!({ "jwk": jwk("p256.pub", None) }),
        json!({ "jku": "http://127.0.0.1:1/jwks.json" }),
        json!({ "x5u": "http://127.0.0.1:1/cert.pem" }),
        json!({ "x5c": ["MIIB"] }),
    ] {
        let mut header = json!({ "alg": "ES256" });
        header.as_object_mut().expect("made above").extend(extra.as_object().expect("made above").clone());
        let forged = forge(&header.to_string(), &claims(json!({})), Algorithm::ES256, &key);
        assert_eq!(reason(&authenticator, &forged), Some(Reason::TokenMalformed), "{extra}");
    }
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let (_file, jwks) = jwks_file(json!([jwk("rsa.pub", Some("k1")), jwk("p256.pub", Some("k2"))]));
    let authenticator = authenticator(&[JwtAlgorithm::RS256, JwtAlgorithm::ES256], vec![jwks]);
    assert_eq!(reason(&authenticator, &token(Algorithm::RS256, Some("k1"))), None);
    assert_eq!(reason(&authenticator, &token(Algorithm::RS256, None)), None);
    assert_eq!(
        reason(&authenticator, &token(Algorithm::RS256, Some("k2"))),
        Some(Reason::TokenAlgorithm),
        "the named key is for another algorithm, and no other key is tried"
    );
    for kid in ["", "K1", "k1 ", "../k1", "/etc/passwd", "k1\u{0}", "' OR 1=1 --", "http://127.0.0.1/"] {
        let token = token(Algorithm::RS256, Some(kid));
        assert_eq!(reason(&authenticator, &token), Some(Reason::TokenKeyUnknown), "{kid:?}");
    }
}

#[test]
fn nothing_in_the_claims_is_told_before_the_signature() {
    let authenticator = authenticator(&[JwtAlgorithm::HS256], vec![secret_key()]);
    let (good, wrong) = (EncodingKey::from_secret(SECRET.as_bytes()), EncodingKey::from_secret(b"guess"));
    let cases = [
        (claims(json!({ "exp": NOW - 31 })), Reason::TokenExpired),
        (claims(json!({ "nbf": NOW + 31 })), Reason::TokenNotYetValid),
        (claims(json!({ "iss": "mallory" })), Reason::TokenIssuer),
        (claims(json!({ "iss": null })), Reason::TokenIssuer),
        (claims(json!({ "aud": "other" })), Reason::TokenAudience),
        (claims(json!({ "aud": null })), Reason::TokenAudience),
        (claims(json!({ "exp": null })), Reason::TokenMalformed),
        (claims(json!({ "exp": "tomorrow" })), Reason::TokenMalformed),
        (claims(json!({ "sub": ["u1", "u2"] })), Reason::TokenMalformed),
        (claims(json!({ "sub": "u1" })).replacen('{', r#"{"sub":"root","#, 1), Reason::TokenMalformed),
        (claims(json!({})).replacen('{', r#"{"exp":1,"#, 1), Reason::TokenMalformed),
        (claims(json!({ "a": { "b": 1 } })).replace(r#""b":1"#, r#""b":1,"b":2"#), Reason::TokenMalformed),
        ("[]".into(), Reason::TokenMalformed),
        ("null".into(), Reason::TokenMalformed),
        ("not json".into(), Reason::TokenMalformed),
        (String::new(), Reason::TokenMalformed),
    ];
    for (claims, expected) in cases {
        let token = forge(r#"{"alg":"HS256"}"#, &claims, Algorithm::HS256, &good);
        let refusal = judge(&authenticator, &token).expect_err("refused");
        assert_eq!(refusal.reason, expected, "{claims}");
        let challenge = refusal.challenge.expect("a token would help");
        let challenge = challenge.to_str().expect("ASCII");
        assert!(
            challenge.starts_with("Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"")
        );
        assert!(!format!("{challenge}{}", refusal.detail).contains("mallory"), "claims are not repeated");
        let token = forge(r#"{"alg":"HS256"}"#, &claims, Algorithm::HS256, &wrong);
        assert_eq!(reason(&authenticator, &token), Some(Reason::TokenSignature), "{claims}");
    }
}

#[tokio::test]
async fn accepted_tokens_are_remembered_and_refused_ones_are_not() {
    let mut config = written(&[JwtAlgorithm::HS256], vec![secret_key()]);
    config.jwt.claim_headers = vec![
        ("sub".into(), HeaderName::from_static("x-user-id")),
        ("roles".into(), HeaderName::from_static("x-roles")),
    ];
    let authenticator = compiled(&config);
    let cache = TokenCache::new();
    let key = private_key(Algorithm::HS256);
    let good =
        forge(r#"{"alg":"HS256"}"#, &claims(json!({ "roles": ["admin", "editor"] })), Algorithm::HS256, &key);
    let headers = bearer(&good);
    assert_eq!(authenticator.remembered(&headers, &cache, now()), None);
    let first = authenticator.authenticate(&headers, &cache, now()).await.expect("accepted");
    let fields: Vec<_> = first.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    assert_eq!(fields, [("x-user-id", &b"u1"[..]), ("x-roles", b"admin,editor")]);
    let again = authenticator.remembered(&headers, &cache, now()).expect("remembered");
    assert!(Arc::ptr_eq(&first, &again));

    let late = now() + Duration::from_secs(629);
    assert!(authenticator.remembered(&headers, &cache, late).is_some(), "the leeway counts");
    let refusal = authenticator.authenticate(&headers, &cache, late + Duration::from_secs(1)).await;
    assert_eq!(refusal.expect_err("expired").reason, Reason::TokenExpired);

    let bad = forge(r#"{"alg":"HS256"}"#, &claims(json!({ "aud": "x" })), Algorithm::HS256, &key);
    assert!(authenticator.authenticate(&bearer(&bad), &cache, now()).await.is_err());
    assert!(cache.is_empty());
}

#[tokio::test]
async fn of_several_authenticators_one_suffices_and_the_most_telling_refusal_is_told() {
    let partner = {
        let mut config = written(&[JwtAlgorithm::ES256], vec![public_key("p256.pub")]);
        config.name = at("partner".to_owned());
        config.jwt.token_from = vec![config::TokenSource::Cookie("t".into())];
        compiled(&config)
    };
    let shop = authenticator(&[JwtAlgorithm::HS256], vec![secret_key()]);
    let with = ["partner", "shop"].map(|name| at(name.to_owned())).to_vec();
    let policy = Authentication::compile(&config::Authenticate { with, methods: Vec::new() }, |name| {
        [&partner, &shop].into_iter().find(|a| a.name() == name).cloned()
    })
    .expect("both are known");
    let cache = TokenCache::new();

    let nothing =
        policy.authenticate(&crate::http::fields::Fields::new(), &cache, now()).await.expect_err("no token");
    assert_eq!(nothing.reason, Reason::TokenMissing);
    assert_eq!(nothing.challenge, Some(HeaderValue::from_static("Bearer realm=\"partner\"")));

    let expired = forge(
        r#"{"alg":"HS256"}"#,
        &claims(json!({ "exp": 1 })),
        Algorithm::HS256,
        &private_key(Algorithm::HS256),
    );
    let told = policy.authenticate(&bearer(&expired), &cache, now()).await.expect_err("expired");
    assert_eq!(told.reason, Reason::TokenExpired, "and not that the cookie is missing");

    let mut both = bearer(&expired);
    let cookie = format!("t={}", token(Algorithm::ES256, None));
    both.insert(header::COOKIE, HeaderValue::try_from(cookie).expect("ASCII"));
    for _ in 0..2 {
        let identity = policy.authenticate(&both, &cache, now()).await.expect("the partner's suffices");
        assert_eq!(&*identity.authenticator, "partner");
    }
}

#[test]
fn methods_are_protected_as_written_and_head_as_get() {
    let shop = authenticator(&[JwtAlgorithm::HS256], vec![secret_key()]);
    let policy = |methods: &[Method]| {
        let config = config::Authenticate { with: vec![at("shop".to_owned())], methods: methods.to_vec() };
        Authentication::compile(&config, |_| Some(shop.clone())).expect("known")
    };
    use http::Method;
    assert!(policy(&[]).applies_to(&Method::OPTIONS));
    assert!(policy(&[Method::GET]).applies_to(&Method::HEAD));
    assert!(!policy(&[Method::POST]).applies_to(&Method::GET));
    assert!(!policy(&[Method::POST]).applies_to(&Method::HEAD));
    assert!(policy(&[Method::POST]).applies_to(&Method::POST));
}
