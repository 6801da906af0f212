//! Vectors that others have made: signatures at the edges of their algorithms from Wycheproof, and the examples of the
//! JOSE cookbook (RFC 7520 §4).

use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::Algorithm;

use super::*;
use crate::policy::authenticate::jwks::{self, Origin};
use crate::policy::authenticate::key::Key;
use crate::policy::authenticate::token as compact;

struct Counts {
    valid: usize,
    invalid: usize,
}

/// A file of these lines: `key` and its parts, and then for each signature a number, what is to be said of it, what it is
/// over, and itself.
fn check(name: &str, algorithm: Algorithm, key: impl Fn(&[Vec<u8>]) -> Key) -> Counts {
    let text = String::from_utf8(read(&format!("wycheproof/{name}.txt"))).expect("text");
    let bytes =
        |part: &str| if part == "-" { Vec::new() } else { URL_SAFE_NO_PAD.decode(part).expect("base64url") };
    let (mut with, mut counts) = (None, Counts { valid: 0, invalid: 0 });
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["key", ref parts @ ..] => {
                with = Some(key(&parts.iter().map(|part| bytes(part)).collect::<Vec<_>>()))
            }
            [number, result, message, signature] => {
                let key = with.as_ref().expect("a key stands first");
                let signature = if signature == "-" { "" } else { signature };
                let is_good = key.verifies(algorithm, &bytes(message), signature);
                match result {
                    "valid" => assert!(is_good, "{name} {number} is valid"),
                    "invalid" => assert!(!is_good, "{name} {number} is invalid"),
                    // A coding of old, which a reader may take or leave.
                    _ => assert_eq!(result, "acceptable"),
                }
                counts.valid += usize::from(result == "valid");
                counts.invalid += usize::from(result == "invalid");
            }
            _ => panic!("{name}: {line:?}"),
        }
    }
    counts
}

fn point(key: fn(&[u8]) -> Result<Key, super::super::key::KeyError>) -> impl Fn(&[Vec<u8>]) -> Key {
    move |parts| key(&parts[0]).expect("a key")
}

fn rsa(parts: &[Vec<u8>]) -> Key {
    Key::rsa(&parts[0], &parts[1]).expect("a key")
}

#[test]
fn signatures_of_wycheproof_are_told_apart() {
    use Algorithm::*;
    let all = [
        check("es256", ES256, point(Key::p256)),
        check("es384", ES384, point(Key::p384)),
        check("eddsa", EdDSA, point(Key::ed25519)),
        check("rs256", RS256, rsa),
        check("ps256", PS256, rsa),
        check("ps384", PS384, rsa),
        check("ps512", PS512, rsa),
        check("hs256", HS256, point(Key::secret)),
        check("hs384", HS384, point(Key::secret)),
        check("hs512", HS512, point(Key::secret)),
    ];
    let sum = |count: fn(&Counts) -> usize| all.iter().map(count).sum::<usize>();
    assert_eq!((sum(|counts| counts.valid), sum(|counts| counts.invalid)), (852, 1049));
}

/// Two of the valid tokens of Wycheproof's JSON Web Signatures with their keys, and what it makes of them.
#[test]
fn tokens_of_wycheproof_are_told_apart() {
    let secret = json!({
        "kty": "oct", "alg": "HS256", "use": "sig", "kid": "kid-aes-sign",
        "k": "-ebuDNsVZ2iJtoZ-akfXTSCt4UO2cruLCsbWlBinggE",
    });
    let point = json!({
        "kty": "EC", "alg": "ES256", "use": "sig", "kid": "kid-ec-sign", "crv": "P-256",
        "x": "04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY",
        "y": "UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgmw",
    });
    for (jwk, token) in [
        (
            &secret,
            "eyJhbGciOiJIUzI1NiIsImtpZCI6ImtpZC1hZXMtc2lnbiJ9.Zm9v.TD37p4c_0jmreSrBSDmE0F3mYSPtkZ3WrSyI5wb_KTg",
        ),
        (
            &point,
            "eyJhbGciOiJFUzI1NiIsImtpZCI6ImtpZC1lYy1zaWduIn0.Zm9v.\
             5cA0OHyMP7ezamUd5c9kV-FrGxdx4hbGXOdplQkutrqWrte5P-pAvsE3Ve6xSyU3YDQwUHjVVOtvcrEbbnZ8yA",
        ),
    ] {
        let (_file, keys) = jwks_file(json!([jwk]));
        let authenticator = authenticator(&EVERY, vec![keys]);
        // Its content is no claims, which is looked at once the signature is known to be good.
        assert_eq!(reason(&authenticator, token), Some(Reason::TokenMalformed));
        assert!(verifies(jwk, token));
        let [header, content, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("three parts")
        };
        let kid = jwk["kid"].as_str().expect("text");
        let renamed = encode(format!(r#"{{"alg":{},"kid":"X{}"}}"#, jwk["alg"], &kid[1..]).as_bytes());
        let unsigned = encode(format!(r#"{{"alg":"none","kid":"{kid}"}}"#).as_bytes());
        let general =
            json!({ "payload": content, "signatures": [{ "protected": header, "signature": signature }] });
        for bad in [
            format!("{header}.{content}.X{}", &signature[1..]),
            format!("{header}.{content}."),
            format!("{header}.{content}"),
            format!("{header}.W{}.{signature}", &content[1..]),
            format!("{header}..{signature}"),
            format!("{header}.{signature}"),
            format!("{renamed}.{content}.{signature}"),
            format!(".{content}.{signature}"),
            format!("{content}.{signature}"),
            format!(".{content}."),
            content.to_owned(),
            String::new(),
            format!("{token}."),
            format!("{token}.foo"),
            format!("{unsigned}.{content}."),
            format!("{unsigned}.{content}.{signature}"),
            general.to_string(),
        ] {
            assert!(!verifies(jwk, &bad), "{bad}");
            assert!(reason(&authenticator, &bad).is_some(), "{bad}");
        }
    }
    // The verification key's bytes as a secret, and a key that the token brings along.
    for bad in [
        "eyJhbGciOiJIUzI1NiIsImtpZCI6ImtpZC1lYy1zaWduIn0.Zm9v.TgWtz2FIRukBQ_mA5sgHa0Ybtgn7bl-YBPAi7Z0XdHU",
        "eyJhbGciOiJFUzI1NiIsImtpZCI6ImtpZC1lYy1zaWduIiwiandrIjp7Imt0eSI6IkVDIiwia2lkIjoia2lkLWVjLXNpZ24iLCJ1c2UiOiJzaWciLCJh\
         bGciOiJFUzI1NiIsIngiOiJNZG5UWkRJaERKYmZBU2RGcWFtY3BPMkNoOUdOS0sybTBNUWxoNDAyU3BvIiwieSI6Ijdhdko0bHFfV3l4LW5MUERCUTJZ\
         cHl0dUh5TWlvMDdCVXl2bDNqYUMtMVkiLCJjcnYiOiJQLTI1NiJ9fQ.Zm9v.4jmsollQD8ZxvySzXYnIEYA4fwaZi2ZbC0aI1J4LYmW2Bn31NhKdjms2\
         N6o51Dff5-InWXQF9m45VtTexl6yjg",
    ] {
        assert!(!verifies(&point, bad), "{bad}");
    }
}

/// Whether a token comes apart and was signed with this key.
fn verifies(jwk: &Value, token: &str) -> bool {
    let document = json!({ "keys": [jwk] }).to_string();
    let key = jwks::parse(document.as_bytes(), Origin::File).expect("a key set").keys.remove(0);
    let named = |kid: &Option<String>| kid.as_deref() == key.kid.as_deref();
    compact::parse(token.as_bytes()).is_ok_and(|parsed| named(&parsed.kid) && key.verify(&parsed))
}

#[test]
fn the_examples_of_the_cookbook_are_told_apart() {
    let file: Value = serde_json::from_slice(&read("rfc7520.json")).expect("JSON");
    let keys = jwks::parse(file.to_string().as_bytes(), Origin::File).expect("a key set");
    // That of section 3.1 is for ES512.
    assert_eq!((keys.keys.len(), keys.notes.len()), (2, 1), "{:?}", keys.notes);
    let (_file, jwks) = jwks_file(file["keys"].clone());
    let mut config = written(&EVERY, vec![jwks]);
    (config.jwt.issuer, config.jwt.audience) = (None, Vec::new());
    let authenticator = Authenticator::compile(&config, None, &mut Problems::default()).expect("compiles");
    for example in file["tokens"].as_array().expect("a list") {
        let token = example["token"].as_str().expect("text");
        let is_good = compact::parse(token.as_bytes()).is_ok_and(|parsed| {
            keys.keys
                .iter()
                .filter(|key| key.kid.as_deref() == parsed.kid.as_deref())
                .any(|key| key.verify(&parsed))
        });
        let section = example["section"].as_str().expect("text");
        assert_eq!(is_good, ["4.1", "4.2", "4.4"].contains(&section), "{section}");
        // The content is a sentence of a novel, and no claims.
        let expected = match section {
            "4.3" => Reason::TokenAlgorithm,
            "4.5" => Reason::TokenSignature,
            _ => Reason::TokenMalformed,
        };
        assert_eq!(reason(&authenticator, token), Some(expected), "{section}");
    }
    // Other serialisations are none of a header field.
    for serialized in file["serialized"].as_array().expect("a list") {
        for token in [serialized.to_string(), STANDARD.encode(serialized.to_string())] {
            assert_eq!(reason(&authenticator, &token), Some(Reason::TokenMalformed));
        }
    }
    let content = file["payload"].as_str().expect("text");
    assert!(
        String::from_utf8(URL_SAFE_NO_PAD.decode(content).expect("base64url"))
            .expect("text")
            .contains("Frodo")
    );
}
