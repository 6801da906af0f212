//! Clients that stay with the instance that answered them first, by a cookie.
//!
//! The cookie's value is a code of the instance's address under a key that clients don't know: it tells nothing about the
//! address, and nobody can make one up. It is good for as long as the key is: that of a configured `secret`, which several
//! gateways can share, or else one that was drawn when the service began and lives on over reloads.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use aws_lc_rs::hmac;
use http::HeaderValue;

use crate::http::cookie;
use crate::http::fields::Fields;
use crate::http::key_hash::KeyHasher;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionKey(u64, u64);

/// What the cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionCode(u128);

#[derive(Clone, Debug)]
pub struct Sticky {
    cookie: Box<str>,
    key: SessionKey,
}

/// The codes of a set's instances under one key, sorted, each with the instance's position.
#[derive(Debug)]
pub(super) struct SessionCodes {
    pub key: SessionKey,
    codes: Box<[(SessionCode, u32)]>,
}

impl SessionKey {
    pub fn random() -> Self {
        // RandomState is keyed by the operating system's random numbers, and its own outputs tell
        // nothing about them.
        let random = RandomState::new();
        SessionKey(random.hash_one(0_u8), random.hash_one(1_u8))
    }

    /// Another one for each service, so that the cookie of one is nothing to another.
    pub fn of(secret: &str, service: &str) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&secret, service.as_bytes());
        let (one, two) = tag.as_ref().split_at(8);
        let word = |bytes: &[u8]| bytes.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte));
        SessionKey(word(one), word(two))
    }

    pub fn code(self, address: SocketAddr) -> SessionCode {
        let mut hasher = KeyHasher::keyed(self.0, self.1);
        match address {
            SocketAddr::V4(address) => hasher.bytes(&address.ip().octets()),
            SocketAddr::V6(address) => hasher.bytes(&address.ip().octets()),
        }
        hasher.bytes(&address.port().to_be_bytes());
        SessionCode(hasher.finish())
    }
}

impl Sticky {
    pub(super) fn new(cookie: &str, key: SessionKey) -> Self {
        Sticky { cookie: cookie.into(), key }
    }

    pub(super) fn key(&self) -> SessionKey {
        self.key
    }

    /// What the client's cookie says. Of several the first counts.
    pub fn code_of(&self, headers: &Fields) -> Option<SessionCode> {
        let value = cookie::values(headers, self.cookie.as_bytes()).next()?;
        let digits = std::str::from_utf8(value).ok().filter(|text| text.len() == 32)?;
        let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u128::from_str_radix(digits, 16).ok().map(SessionCode)
    }

    /// The value of `Set-Cookie` (RFC 6265 §4.1) that makes a browser stay until it is closed. Scripts don't see it.
    pub fn cookie(&self, SessionCode(code): SessionCode, over_tls: bool) -> HeaderValue {
        let secure = if over_tls { "; Secure" } else { "" };
        let text = format!("{}={code:032x}; Path=/; HttpOnly; SameSite=Lax{secure}", self.cookie);
        HeaderValue::try_from(text).expect("the name of a cookie is a token, and the rest is ASCII")
    }
}

impl SessionCodes {
    pub fn new(key: SessionKey, addresses: impl Iterator<Item = SocketAddr>) -> Self {
        let mut codes: Box<[_]> = (0..).zip(addresses).map(|(at, address)| (key.code(address), at)).collect();
        codes.sort_unstable();
        SessionCodes { key, codes }
    }

    /// The position of the instance with that code.
    pub fn find(&self, code: SessionCode) -> Option<usize> {
        let at = self.codes.binary_search_by_key(&code, |(code, _)| *code).ok()?;
        Some(self.codes[at].1 as usize)
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn read(sticky: &Sticky, cookies: &str) -> Option<SessionCode> {
        let mut fields = Fields::new();
        fields.append(header::COOKIE, HeaderValue::try_from(cookies).expect("a test's own value"));
        sticky.code_of(&fields)
    }

    #[test]
    fn a_cookie_is_understood_as_it_was_sent() {
        let sticky = Sticky::new("at", SessionKey::random());
        let code = sticky.key().code(address(8001));
        let cookie = sticky.cookie(code, false);
        let (pair, attributes) = cookie.to_str().unwrap().split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        assert!(sticky.cookie(code, true).to_str().unwrap().ends_with("; Secure"));
        assert_eq!(read(&sticky, &format!("a=b; {pair}; c=d")), Some(code));
        let digits = pair.strip_prefix("at=").unwrap();
        for wrong in ["", "at=", "at=10.0.0.1:8001", "at=+0000000000000000000000000000001", &digits[1..]] {
            assert_eq!(read(&sticky, wrong), None, "{wrong}");
            assert_eq!(read(&sticky, &format!("at={wrong}")), None, "{wrong}");
        }
    }

    #[test]
    fn a_code_is_one_instance_s_of_one_service_under_one_key() {
        let keys = [
            SessionKey::random(),
            SessionKey::random(),
            SessionKey::of("a long enough secret", "users"),
            SessionKey::of("a long enough secret", "orders"),
            SessionKey::of("another such secret", "users"),
        ];
        let mut seen = std::collections::HashSet::new();
        for key in keys {
            for port in 1..100 {
                assert!(seen.insert(key.code(address(port)).0));
            }
        }
        assert_eq!(keys[2], SessionKey::of("a long enough secret", "users"));
    }

    #[test]
    fn every_code_is_found_and_no_other() {
        let key = SessionKey::random();
        let codes = SessionCodes::new(key, (0..1000).map(address));
        for port in 0..1000 {
            assert_eq!(codes.find(key.code(address(port))), Some(usize::from(port)));
        }
        assert_eq!(codes.find(key.code(address(1000))), None);
    }
}
