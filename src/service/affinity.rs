//! What makes requests belong together, so that they go to the same instance where one can take them.

use std::net::IpAddr;

use http::HeaderName;
use serde_json::{Map, Value};

use super::sticky::SessionCode;
use crate::http::cookie;
use crate::http::fields::Fields;
use crate::http::key_hash::KeyHasher;

/// The settings of consistent hashing.
#[derive(Clone, Debug)]
pub struct Affinity {
    pub key: HashKey,
    /// How much of the mean load an instance takes at most, above 1; `None` for however much comes.
    pub max_load: Option<f64>,
}

/// Which instance a request would like to go to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Where its key belongs.
    pub key: Option<u64>,
    /// Where its client was answered before.
    pub session: Option<SessionCode>,
    /// It may not be sent twice.
    pub once: bool,
}

/// What of a request is its key.
#[derive(Clone, Debug)]
pub enum HashKey {
    Ip,
    Path,
    Header(HeaderName),
    Cookie(Box<str>),
    Claim(Box<str>),
}

/// What a key may be made of.
#[derive(Clone, Copy, Debug)]
pub struct KeyInput<'a> {
    /// The resolved client, not the peer.
    pub client: IpAddr,
    /// As the instance gets it.
    pub path: &'a str,
    /// As the client sent them.
    pub headers: &'a Fields,
    /// Of the verified token; `None` when there is none.
    pub claims: Option<&'a Map<String, Value>>,
}

impl HashKey {
    /// The key of a request, the same in all gateways. `None` when it has none: an empty field, or a claim that is
    /// `null`, is none either, or else all requests without would crowd on one instance.
    pub fn of(&self, input: &KeyInput<'_>) -> Option<u64> {
        let mut hasher = KeyHasher::keyed(0, 0);
        match self {
            HashKey::Ip => hasher.address(input.client),
            HashKey::Path => hasher.bytes(input.path.as_bytes()),
            HashKey::Header(name) => {
                input.headers.get_all(name).find(|value| !value.is_empty())?;
                hasher.header(input.headers, name);
            }
            HashKey::Cookie(name) => {
                let value = cookie::values(input.headers, name.as_bytes()).next()?;
                hasher.bytes(Some(value).filter(|value| !value.is_empty())?);
            }
            HashKey::Claim(name) => {
                let value = input.claims?.get(&**name)?;
                let is_empty = value.is_null() || value.as_str().is_some_and(str::is_empty);
                hasher.json(Some(value).filter(|_| !is_empty)?);
            }
        }
        Some(hasher.finish() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    struct Request {
        client: &'static str,
        path: &'static str,
        fields: &'static [(&'static str, &'static str)],
        claims: Value,
    }

    const PLAIN: Request = Request { client: "192.0.2.1", path: "/a", fields: &[], claims: Value::Null };

    fn keys(key: &HashKey, requests: &[Request]) -> Vec<Option<u64>> {
        let one = |request: &Request| {
            let mut headers = Fields::new();
            for (name, value) in request.fields {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let client = request.client.parse().expect("a test's own address");
            let claims = request.claims.as_object();
            key.of(&KeyInput { client, path: request.path, headers: &headers, claims })
        };
        requests.iter().map(one).collect()
    }

    #[test]
    fn requests_with_the_same_key_are_told_by_it_alone() {
        let header = HashKey::Header(HeaderName::from_static("x-user"));
        let keys_there_are =
            [HashKey::Ip, HashKey::Path, header, HashKey::Cookie("u".into()), HashKey::Claim("sub".into())];
        for key in keys_there_are {
            let first = Request {
                fields: &[("x-user", "1"), ("cookie", "v=5; u=1")],
                claims: json!({ "sub": "1", "iat": 1 }),
                ..PLAIN
            };
            let same = Request {
                fields: &[("cookie", "u=1"), ("x-user", "1")],
                claims: json!({ "sub": "1", "iat": 2 }),
                ..PLAIN
            };
            let other = Request {
                client: "192.0.2.2",
                path: "/b",
                fields: &[("x-user", "2"), ("cookie", "u=2")],
                claims: json!({ "sub": "2", "iat": 1 }),
            };
            let keys = keys(&key, &[first, same, other]);
            assert!(keys[0].is_some() && keys[0] == keys[1] && keys[1] != keys[2], "{key:?}: {keys:?}");
        }
    }

    #[test]
    fn what_is_empty_is_no_key() {
        let header = HashKey::Header(HeaderName::from_static("x-user"));
        for key in [header, HashKey::Cookie("u".into()), HashKey::Claim("sub".into())] {
            let empty = Request {
                fields: &[("x-user", ""), ("cookie", "u=")],
                claims: json!({ "sub": "" }),
                ..PLAIN
            };
            let another = Request {
                fields: &[("x-other", "1"), ("cookie", "U=1")],
                claims: json!({ "sub": null }),
                ..PLAIN
            };
            assert_eq!(keys(&key, &[PLAIN, empty, another]), [None, None, None], "{key:?}");
        }
    }

    /// Gateways that don't know of one another send a key to the same instance, today and after an update.
    #[test]
    fn a_key_is_the_same_everywhere() {
        let keys = keys(&HashKey::Path, &[Request { path: "/users/1", ..PLAIN }]);
        assert_eq!(keys, [Some(EVERYWHERE)]);
    }

    const EVERYWHERE: u64 = 12_994_287_476_623_142_888;
}
