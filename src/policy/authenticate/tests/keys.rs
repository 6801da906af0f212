//! Keys in all their forms: PEM, certificates, JWKS, and the examples of the RFCs.

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;
use crate::policy::authenticate::jwks::{self, Origin};
use crate::policy::authenticate::key::KeyType;
use crate::policy::authenticate::{pem as pem_file, token as compact};

fn kinds(keys: Value, origin: Origin) -> (Vec<KeyType>, Vec<String>) {
    let list = jwks::parse(json!({ "keys": keys }).to_string().as_bytes(), origin).expect("a key set");
    (list.keys.iter().map(|key| key.key_type).collect(), list.notes)
}

#[test]
fn the_examples_of_the_rfcs_verify_and_then_say_what_they_say() {
    for file in ["rfc7515.json", "rfc8037.json"] {
        let file: Value = serde_json::from_slice(&read(file)).expect("JSON");
        for example in file["examples"].as_array().expect("a list") {
            let token = example["token"].as_str().expect("text");
            let document = json!({ "keys": [example["jwk"]] }).to_string();
            let key = jwks::parse(document.as_bytes(), Origin::File).expect("a key set").keys.remove(0);
            let parsed = compact::parse(token.as_bytes()).expect("a token");
            assert_eq!(example["algorithm"], format!("{:?}", parsed.algorithm));
            assert!(key.verify(&parsed), "{}", example["name"]);

            let (_file, jwks) = jwks_file(json!([example["jwk"]]));
            let mut config = written(&EVERY, vec![jwks]);
            config.jwt.audience = Vec::new();
            let authenticator = compiled(&config);
            let then = |seconds: u64| {
                let when = UNIX_EPOCH + Duration::from_secs(seconds);
                match authenticator.decide(&bearer(token), &TokenCache::new(), when) {
                    Decision::Accepted(identity) => Ok(identity),
                    Decision::Refused(r) | Decision::KeysWanted(r) => Err(r.reason),
                }
            };
            if parsed.algorithm == Algorithm::EdDSA {
                assert_eq!(then(1).err(), Some(Reason::TokenMalformed), "text is no claims");
            } else {
                let identity = then(1_300_819_380).expect("within the leeway");
                assert_eq!(identity.claim("http://example.com/is_root"), Some(&json!(true)));
                assert_eq!(then(1_300_819_410).err(), Some(Reason::TokenExpired));
            }
        }
    }
}

#[test]
fn public_keys_and_certificates_are_read() {
    for (file, key_type) in [
        ("rsa.pub", KeyType::Rsa),
        ("rsa-pkcs1.pub", KeyType::Rsa),
        ("rsa.crt", KeyType::Rsa),
        ("p256.pub", KeyType::P256),
        ("p256.crt", KeyType::P256),
        ("chain.crt", KeyType::P256),
        ("p384.pub", KeyType::P384),
        ("ed25519.pub", KeyType::Ed25519),
    ] {
        assert_eq!(pem_file::public_key(&read(file)).expect(file).key_type, key_type, "{file}");
    }
}

#[test]
fn other_files_are_refused_with_what_they_are() {
    for (file, expected) in [
        ("rsa.key", "private key"),
        ("rsa-pkcs1.key", "private key"),
        ("p256-sec1.key", "private key"),
        ("ed25519.key", "private key"),
        ("rsa-1024.pub", "1024 bits"),
        ("p521.pub", "neither RSA nor"),
        ("p256-compressed.pub", "neither RSA nor"),
        ("p256-explicit.pub", "neither RSA nor"),
        ("README.md", "not PEM"),
    ] {
        let mut problems = Problems::default();
        let compiled = Authenticator::compile(&written(&EVERY, vec![public_key(file)]), None, &mut problems);
        assert!(compiled.is_none(), "{file}");
        let problems: Vec<_> = problems.iter().collect();
        assert_eq!(problems.len(), 1, "{file}: {problems:?}");
        assert!(problems[0].message.contains(expected), "{file}: {}", problems[0].message);
        assert_eq!(problems[0].span.line, 7);
        let shown = format!("{} {}", problems[0].message, problems[0].remedy);
        for line in String::from_utf8(read(file)).expect("text").lines().filter(|l| l.len() > 40) {
            assert!(!shown.contains(line), "{file}: its content is shown");
        }
    }
    let both = [read("rsa.pub"), read("p256.pub")].concat();
    assert!(pem_file::public_key(&both).expect_err("two keys").to_string().contains("2 public keys"));
    let with_private = [read("rsa.pub"), read("rsa.key")].concat();
    assert_eq!(pem_file::public_key(&with_private).err(), Some(pem_file::PemError::PrivateKey));
}

#[test]
fn a_set_gives_the_keys_that_can_be_used() {
    let rsa = jwk("rsa.pub", Some("a"));
    let with = |key: &Value, member: &str, value: Value| {
        let mut key = key.clone();
        key[member] = value;
        key
    };
    let keys = json!([
        rsa,
        jwk("p256.pub", None),
        jwk("p384.pub", Some("c")),
        jwk("ed25519.pub", Some("d")),
        rsa,                                              // repeated: used once
        with(&rsa, "use", json!("enc")),                  // not for us: no note either
        with(&rsa, "key_ops", json!(["sign"])),
        with(&rsa, "key_ops", json!(["verify"])),         // repeats the first
        with(&rsa, "use", json!("sig")),
        with(&rsa, "alg", json!("PS256")),                // restricted: another key
        with(&rsa, "alg", json!("ES256")),                // from here on: notes
        with(&rsa, "alg", json!("RSA-OAEP")),
        with(&rsa, "kid", json!(7)),
        with(&rsa, "n", json!("AQAB")),
        with(&rsa, "e", json!("AQ")),
        with(&rsa, "n", json!("not+base64url")),
        with(&jwk("p256.pub", None), "crv", json!("P-384")),
        with(&jwk("p256.pub", None), "x", json!(encode(&[1; 32]))),
        with(&jwk("p256.pub", None), "x", json!(encode(&[1; 31]))),
        with(&jwk("p256.pub", None), "crv", json!("secp256k1")),
        with(&jwk("ed25519.pub", None), "crv", json!("X25519")),
        with(&jwk("ed25519.pub", None), "x", json!(encode(&[1; 33]))),
        { "kty": "AKP", "alg": "ML-DSA-44" },
        { "n": "AQAB" },
        "text",
    ]);
    let (types, notes) = kinds(keys, Origin::Url);
    use KeyType::*;
    assert_eq!(types, [Rsa, P256, P384, Ed25519, Rsa]);
    assert_eq!(notes.len(), 15, "{notes:#?}");
    assert!(notes[0].starts_with("key \"a\": its alg \"ES256\" does not fit"), "{}", notes[0]);
}

#[test]
fn secrets_come_from_files_only() {
    let keys = json!([{ "kty": "oct", "k": encode(SECRET.as_bytes()), "kid": "s" }, jwk("rsa.pub", None)]);
    assert_eq!(kinds(keys.clone(), Origin::File).0, [KeyType::Secret, KeyType::Rsa]);
    let (types, notes) = kinds(keys, Origin::Url);
    assert_eq!(types, [KeyType::Rsa]);
    assert_eq!(notes.len(), 1);
}

#[test]
fn a_document_that_is_no_set_is_refused_whole() {
    let large = format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(256 * 1024));
    for document in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":null}"#,
        r#"{"keys":[{"kty":"AKP"}]}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"kty":"OKP","kty":"RSA"}]}"#,
        "<html>we are down</html>",
        &large,
    ] {
        assert!(jwks::parse(document.as_bytes(), Origin::Url).is_err(), "{document:.60}");
    }
    let empty = jwks::parse(br#"{"keys":[]}"#, Origin::Url).expect("an empty set is a set");
    assert!(empty.keys.is_empty() && empty.notes.is_empty());
}

#[test]
fn the_number_of_keys_is_bounded_and_so_are_the_attempts() {
    let many: Vec<Value> = (0..150).map(|number| jwk("rsa.pub", Some(&format!("k{number}")))).collect();
    let (types, notes) = kinds(many.into(), Origin::Url);
    assert_eq!((types.len(), notes.len()), (jwks::MAX_KEYS, 1));

    // Sixteen keys without a name stand before the right one, which is therefore not reached.
    let decoy = |number: u8| json!({ "kty": "oct", "k": encode(&[number; 40]) });
    let right = json!({ "kty": "oct", "k": encode(SECRET.as_bytes()) });
    for (decoys, expected) in [(15, None), (16, Some(Reason::TokenSignature))] {
        let keys: Vec<Value> = (0..decoys).map(decoy).chain([right.clone()]).collect();
        let (_file, jwks) = jwks_file(keys.into());
        let authenticator = authenticator(&[JwtAlgorithm::HS256], vec![jwks]);
        assert_eq!(reason(&authenticator, &token(Algorithm::HS256, None)), expected, "{decoys}");
    }
}

#[test]
fn a_key_restricted_to_an_algorithm_checks_no_other() {
    let mut key = jwk("rsa.pub", Some("k"));
    key["alg"] = "RS256".into();
    let (_file, jwks) = jwks_file(json!([key]));
    let authenticator = authenticator(&[JwtAlgorithm::RS256, JwtAlgorithm::PS256], vec![jwks]);
    assert_eq!(reason(&authenticator, &token(Algorithm::RS256, Some("k"))), None);
    assert_eq!(reason(&authenticator, &token(Algorithm::PS256, Some("k"))), Some(Reason::TokenAlgorithm));
}

#[test]
fn two_keys_may_share_a_name() {
    let (_file, jwks) = jwks_file(json!([jwk("rsa.pub", Some("k")), jwk("p256.pub", Some("k"))]));
    let authenticator = authenticator(&[JwtAlgorithm::RS256, JwtAlgorithm::ES256], vec![jwks]);
    assert_eq!(reason(&authenticator, &token(Algorithm::RS256, Some("k"))), None);
    assert_eq!(reason(&authenticator, &token(Algorithm::ES256, Some("k"))), None);
}

mod anything {
    use proptest::prelude::*;

    use super::*;

    fn lottery() -> Arc<Authenticator> {
        authenticator(&EVERY, ["rsa.pub", "p256.pub", "ed25519.pub"].map(public_key).to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_bytes_are_a_token_or_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = jwks::parse(&bytes, Origin::Url);
            let _ = pem_file::public_key(&bytes);
            prop_assert!(compact::parse(&bytes).is_err());
        }

        #[test]
        fn no_header_and_claims_are_enough_without_a_signature(
            header in "\\{(\"(alg|kid|crit|b64|typ)\":(\"(HS256|RS256|ES256|EdDSA|none)\"|1|true|\\[\\]|null),?){0,3}\\}",
            claims in "\\{(\"(exp|sub|iss|aud)\":(\"joe\"|\"shop\"|9e9|\\[\\]|\\{\\}),?){0,4}\\}",
            signature in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let token = [header.as_bytes(), claims.as_bytes(), &signature].map(encode).join(".");
            let verdict = reason(&lottery(), &token);
            prop_assert!(matches!(
                verdict,
                Some(Reason::TokenMalformed | Reason::TokenAlgorithm | Reason::TokenSignature)
            ), "{verdict:?}");
        }
    }
}
