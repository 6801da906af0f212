//! What a request is counted under: the parts of a limit's key, reduced to 128 bits.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use http::HeaderName;
use serde_json::{Map, Value};

use crate::config::KeyPart;
use crate::http::fields::Fields;
use crate::http::key_hash::KeyHasher;

/// What a key may be made of.
#[derive(Clone, Copy, Debug)]
pub struct KeyInput<'a> {
    /// The resolved client, not the peer.
    pub client: IpAddr,
    /// The name of the route.
    pub route: &'a str,
    pub headers: &'a Fields,
    /// Of the verified token; `None` when there is none.
    pub claims: Option<&'a Map<String, Value>>,
}

#[derive(Debug)]
pub(super) struct KeyScheme {
    parts: Box<[Part]>,
    /// Already keyed.
    hasher: KeyHasher,
}

#[derive(Debug)]
enum Part {
    Ip,
    Route,
    Header(HeaderName),
    Claim(Box<str>),
}

impl KeyScheme {
    pub(super) fn compile(parts: &[KeyPart]) -> KeyScheme {
        // RandomState is keyed by the operating system's random numbers, and its own outputs tell
        // nothing about them.
        let random = RandomState::new();
        KeyScheme {
            parts: parts
                .iter()
                .map(|part| match part {
                    KeyPart::Ip => Part::Ip,
                    KeyPart::Route => Part::Route,
                    KeyPart::Header(name) => Part::Header(name.clone()),
                    KeyPart::Claim(name) => Part::Claim(name.as_str().into()),
                })
                .collect(),
            hasher: KeyHasher::keyed(random.hash_one(0_u8), random.hash_one(1_u8)),
        }
    }

    pub(super) fn needs_identity(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Claim(_)))
    }

    pub(super) fn reduce(&self, input: &KeyInput<'_>) -> u128 {
        let mut hasher = self.hasher;
        for part in &self.parts {
            match part {
                Part::Ip => hasher.address(input.client),
                Part::Route => hasher.bytes(input.route.as_bytes()),
                Part::Header(name) => hasher.header(input.headers, name),
                Part::Claim(name) => match input.claims.and_then(|claims| claims.get(&**name)) {
                    Some(value) => hasher.json(value),
                    None => hasher.absent(),
                },
            }
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    struct Request {
        client: &'static str,
        route: &'static str,
        tenants: &'static [&'static str],
        claims: Value,
    }

    const PLAIN: Request = Request { client: "192.0.2.1", route: "users", tenants: &[], claims: Value::Null };

    fn reduce(scheme: &KeyScheme, request: &Request) -> u128 {
        let mut headers = Fields::new();
        for tenant in request.tenants {
            headers.append(HeaderName::from_static("x-tenant"), HeaderValue::from_static(tenant));
        }
        scheme.reduce(&KeyInput {
            client: request.client.parse().unwrap(),
            route: request.route,
            headers: &headers,
            claims: request.claims.as_object(),
        })
    }

    /// Asserts that the requests of one group share a key and that no two groups do.
    fn assert_keys(parts: &[KeyPart], groups: Vec<Vec<Request>>) {
        let scheme = KeyScheme::compile(parts);
        let mut keys = HashSet::new();
        for (number, group) in groups.iter().enumerate() {
            let of_group: HashSet<u128> = group.iter().map(|request| reduce(&scheme, request)).collect();
            assert_eq!(of_group.len(), 1, "group {number}");
            assert!(keys.insert(of_group.into_iter().next().unwrap()), "group {number}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_first_64_bits() {
        let of = |client| Request { client, ..PLAIN };
        let groups = vec![
            vec![of("192.0.2.1"), of("::ffff:192.0.2.1")],
            vec![of("192.0.2.2")],
            vec![of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff:ffff:ffff:ffff")],
            vec![of("2001:db8:0:2::1")],
        ];
        assert_keys(&[KeyPart::Ip], groups);
    }

    #[test]
    fn a_header_counts_with_all_its_values_and_so_does_its_absence() {
        let of = |tenants| Request { tenants, ..PLAIN };
        let groups = vec![
            vec![of(&[]), of(&[])],
            vec![of(&[""])],
            vec![of(&["a"])],
            vec![of(&["a", "b"])],
            vec![of(&["ab"])],
            vec![of(&["b", "a"])],
        ];
        assert_keys(&[KeyPart::Header(HeaderName::from_static("x-tenant"))], groups);
    }

    #[test]
    fn a_claim_counts_with_its_type() {
        let of = |sub: Value| Request { claims: json!({ "sub": sub, "iat": 5 }), ..PLAIN };
        let groups = vec![
            vec![PLAIN, Request { claims: json!({ "iat": 5 }), ..PLAIN }, of(Value::Null)],
            vec![of(json!("1")), Request { claims: json!({ "iat": 6, "sub": "1" }), ..PLAIN }],
            vec![of(json!(1))],
            vec![of(json!(-1))],
            vec![of(json!(1.5))],
            vec![of(json!(true))],
            vec![of(json!(false))],
            vec![of(json!(""))],
            vec![of(json!([]))],
            vec![of(json!(["1"]))],
            vec![of(json!(["1", "2"]))],
            vec![of(json!([["1"], "2"]))],
            vec![of(json!({ "1": "2" }))],
        ];
        assert_keys(&[KeyPart::Claim("sub".into())], groups);
    }

    #[test]
    fn parts_combine_without_running_into_one_another() {
        let of = |route, tenants| Request { route, tenants, ..PLAIN };
        let groups = vec![
            vec![of("ab", &["c"])],
            vec![of("a", &["bc"])],
            vec![of("abc", &[""])],
            vec![of("abc", &[])],
        ];
        assert_keys(&[KeyPart::Route, KeyPart::Header(HeaderName::from_static("x-tenant"))], groups);
    }

    #[test]
    fn what_is_no_part_of_the_key_makes_no_difference() {
        let other = Request { client: "192.0.2.9", tenants: &["x"], claims: json!({ "sub": "y" }), ..PLAIN };
        assert_keys(&[KeyPart::Route], vec![vec![PLAIN, other]]);
    }

    #[test]
    fn every_limiter_has_a_secret_of_its_own() {
        let (one, two) = (KeyScheme::compile(&[KeyPart::Ip]), KeyScheme::compile(&[KeyPart::Ip]));
        assert_ne!(reduce(&one, &PLAIN), reduce(&two, &PLAIN));
    }

    #[test]
    fn only_claims_need_an_identity() {
        let header = KeyPart::Header(HeaderName::from_static("authorization"));
        assert!(!KeyScheme::compile(&[KeyPart::Ip, KeyPart::Route, header]).needs_identity());
        assert!(KeyScheme::compile(&[KeyPart::Ip, KeyPart::Claim("sub".into())]).needs_identity());
    }
}
