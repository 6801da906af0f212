//! `Forwarded` and `X-Forwarded-*`, each line of the input one field: what is written of them has one line each, begins
//! nowhere else than the peer says, and tells of the peer last.

use std::net::IpAddr;

use gatehouse::http::fields::Fields;
use gatehouse::http::forwarded::{ConnFacts, Scheme, TrustedProxies, resolve_client, rewrite_request};
use http::{HeaderName, HeaderValue};

const NAMES: [&str; 5] =
    ["x-forwarded-for", "forwarded", "x-forwarded-host", "x-forwarded-proto", "x_forwarded_for"];

pub fn forwarded(input: &[u8]) {
    let mut fields = Fields::new();
    for (number, line) in input.split(|byte| *byte == b'\n').take(12).enumerate() {
        let Some((which, value)) = line.split_first() else { continue };
        let name = NAMES[(usize::from(*which) + number) % NAMES.len()];
        if let Ok(value) = HeaderValue::from_bytes(value) {
            fields.append(HeaderName::from_static(name), value);
        }
    }
    let peer: IpAddr = "10.0.0.9".parse().expect("an address");
    let networks = ["10.0.0.0/8".parse().expect("a network"), "2001:db8::/32".parse().expect("a network")];
    let trusted = TrustedProxies::compile(&networks);
    assert_eq!(resolve_client(peer, &fields, &TrustedProxies::default()), peer, "a stranger's word counts");
    resolve_client(peer, &fields, &trusted);

    let facts = ConnFacts::new(peer, 8000, Scheme::Http);
    for is_trusted in [false, true] {
        let mut rewritten = fields.clone();
        rewrite_request(&mut rewritten, &facts, Some(b"a.example"), is_trusted);
        assert!(!rewritten.contains(&HeaderName::from_static("x_forwarded_for")));
        let chain = only(&rewritten, "x-forwarded-for");
        assert!(chain.ends_with("10.0.0.9"), "{chain:?}");
        let elements = only(&rewritten, "forwarded");
        assert!(elements.ends_with("for=10.0.0.9;proto=http;host=a.example"), "{elements:?}");
        if !is_trusted {
            assert_eq!((&*chain, &*elements), ("10.0.0.9", "for=10.0.0.9;proto=http;host=a.example"));
            assert_eq!(
                (&*only(&rewritten, "x-forwarded-host"), &*only(&rewritten, "x-forwarded-proto")),
                ("a.example", "http")
            );
        }
    }
}

/// The one line that the field has.
fn only(fields: &Fields, name: &'static str) -> String {
    let line = fields.only(&HeaderName::from_static(name)).unwrap_or_else(|| panic!("not one {name}"));
    assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    String::from_utf8_lossy(line).into_owned()
}
