//! Sets of methods as bits.
//!
//! Every method that the routes name has a bit; a method that none of them names has none, and only
//! routes for any method take it.

use http::{HeaderValue, Method};

/// The methods of RFC 9110 §9 and RFC 5789, at the bits of their places, in the order in which `Allow`
/// lists them.
const COMMON: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::CONNECT,
];

/// Which bit stands for which method.
#[derive(Debug, Default)]
pub(super) struct Methods {
    /// Methods beyond the common ones, in the order of their first mention.
    extensions: Vec<Method>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MethodSet(u64);

/// What a route says about methods: both sets are empty for one that takes any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Accepted {
    /// As written.
    pub(super) written: MethodSet,
    /// With HEAD where GET is (RFC 9110 §9.3.2).
    pub(super) with_head: MethodSet,
}

impl Accepted {
    pub(super) fn is_any(self) -> bool {
        self.written.is_empty()
    }
}

impl MethodSet {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn meets(self, other: MethodSet) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn with(self, other: MethodSet) -> MethodSet {
        MethodSet(self.0 | other.0)
    }
}

impl Methods {
    pub(super) fn of(&self, method: &Method) -> MethodSet {
        let place = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::PATCH => 4,
            Method::DELETE => 5,
            Method::OPTIONS => 6,
            Method::TRACE => 7,
            Method::CONNECT => 8,
            _ => match self.extensions.iter().position(|known| known == method) {
                Some(place) => COMMON.len() + place,
                None => return MethodSet::default(),
            },
        };
        MethodSet(1 << place)
    }

    /// What a route with these methods accepts. `None` when there is no bit left for one of them.
    pub(super) fn accept(&mut self, methods: &[Method]) -> Option<Accepted> {
        if methods.is_empty() {
            return Some(Accepted::default());
        }
        let mut written = MethodSet::default();
        for method in methods {
            if self.of(method).is_empty() {
                if COMMON.len() + self.extensions.len() == u64::BITS as usize {
                    return None;
                }
                self.extensions.push(method.clone());
            }
            written = written.with(self.of(method));
        }
        let get = self.of(&Method::GET);
        let with_head = if written.meets(get) { written.with(self.of(&Method::HEAD)) } else { written };
        Some(Accepted { written, with_head })
    }

    /// The value of `Allow` (RFC 9110 §10.2.1).
    pub(super) fn allow(&self, set: MethodSet) -> HeaderValue {
        let all = COMMON.iter().chain(&self.extensions);
        let listed: Vec<&str> = all.filter(|method| set.meets(self.of(method))).map(Method::as_str).collect();
        HeaderValue::try_from(listed.join(", ")).expect("methods are tokens, which fields may hold")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_method_has_the_bit_of_its_place() {
        let methods = Methods::default();
        for (place, method) in COMMON.iter().enumerate() {
            assert_eq!(methods.of(method), MethodSet(1 << place), "{method}");
        }
    }

    #[test]
    fn lists_in_one_order_with_head_beside_get() {
        let mut methods = Methods::default();
        let purge = Method::from_bytes(b"PURGE").expect("a token");
        let accepted = methods.accept(&[purge.clone(), Method::DELETE, Method::GET]).expect("bits are left");
        assert!(!accepted.is_any() && methods.accept(&[]).is_some_and(Accepted::is_any));
        let Accepted { written, with_head } = accepted;
        assert_eq!(methods.allow(written), "GET, DELETE, PURGE");
        assert_eq!(methods.allow(with_head), "GET, HEAD, DELETE, PURGE");
        assert!(with_head.meets(methods.of(&purge)));
        assert!(methods.of(&Method::from_bytes(b"purge").expect("a token")).is_empty());
    }

    #[test]
    fn bits_run_out_without_a_panic() {
        let mut methods = Methods::default();
        let many: Vec<Method> =
            (0..56).map(|n| Method::from_bytes(format!("M{n}").as_bytes()).expect("a token")).collect();
        assert!(methods.accept(&many[..55]).is_some());
        assert!(methods.accept(&many[..55]).is_some());
        assert!(methods.accept(&many[55..]).is_none());
    }
}
