//! Chains of proxies, trusted and not, and who the client is taken for.

use proptest::prelude::*;

use super::*;

const CLIENT: &str = "203.0.113.7";
const PROXY: &str = "10.0.0.1";

fn trusted() -> TrustedProxies {
    TrustedProxies::compile(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
}

fn fields(lines: &[(&str, &str)]) -> Fields {
    headers(lines).into()
}

fn headers(lines: &[(&str, &str)]) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

fn resolve(peer: &str, lines: &[(&str, &str)]) -> String {
    resolve_client(peer.parse().unwrap(), &fields(lines), &trusted()).to_string()
}

/// What an instance is sent when `peer` sends `lines` to port 8000 for `shop.example.com`.
fn rewritten(peer: &str, lines: &[(&str, &str)]) -> http::HeaderMap {
    let facts = ConnFacts::new(peer.parse().unwrap(), 8000, Scheme::Http);
    let host = b"shop.example.com";
    let mut headers = fields(lines);
    rewrite_request(&mut headers, &facts, Some(host), trusted().contains(facts.peer()));
    headers.to_map()
}

#[test]
fn an_untrusted_peer_is_the_client_whatever_it_says() {
    let lies = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1"), ("x-real-ip", "1.1.1.1")];
    assert_eq!(resolve(CLIENT, &lies), CLIENT);
    assert_eq!(resolve(&format!("::ffff:{CLIENT}"), &lies), CLIENT);
}

#[test]
fn a_trusted_chain_is_walked_to_the_first_stranger() {
    for (chain, client) in [
        ("203.0.113.7", CLIENT),
        ("6.6.6.6, 203.0.113.7", CLIENT),
        ("6.6.6.6, 203.0.113.7, 10.0.0.2,10.0.0.3", CLIENT),
        ("6.6.6.6, 203.0.113.7:4711, fd00::1", CLIENT),
        ("203.0.113.7, [fd00::1]:80, , ", CLIENT),
        ("::ffff:203.0.113.7, ::ffff:10.0.0.9", CLIENT),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("6.6.6.6, garbage, 10.0.0.2", "10.0.0.2"),
        ("6.6.6.6, unknown", PROXY),
        ("", PROXY),
        (",", PROXY),
    ] {
        assert_eq!(resolve(PROXY, &[("x-forwarded-for", chain)]), client, "{chain}");
    }
    let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7, 10.0.0.2")];
    assert_eq!(resolve(PROXY, &lines), CLIENT);
    assert_eq!(resolve(PROXY, &[]), PROXY);
}

#[test]
fn forwarded_is_walked_where_it_stands_alone() {
    for (line, client) in [
        ("for=203.0.113.7", CLIENT),
        ("for=6.6.6.6, for=\"203.0.113.7:80\";proto=https, for=\"[fd00::1]\"", CLIENT),
        ("for=6.6.6.6, for=unknown", PROXY),
        ("for=6.6.6.6, proto=http", PROXY),
        ("for=6.6.6.6, for=\"", PROXY),
    ] {
        assert_eq!(resolve(PROXY, &[("forwarded", line)]), client, "{line}");
    }
    let both = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", CLIENT)];
    assert_eq!(resolve(PROXY, &both), CLIENT);
}

#[test]
fn an_endless_chain_is_walked_a_little_way() {
    let chain = vec!["10.0.0.9"; 10_000].join(",");
    assert_eq!(resolve(PROXY, &[("x-forwarded-for", &chain)]), "10.0.0.9");
    let chain = format!("6.6.6.6,{chain}");
    assert_eq!(resolve(PROXY, &[("x-forwarded-for", &chain)]), "10.0.0.9");
}

#[test]
fn an_untrusted_peer_s_fields_are_replaced() {
    let sent = rewritten(
        CLIENT,
        &[
            ("accept", "*/*"),
            ("forwarded", "for=1.1.1.1"),
            ("forwarded", "for=2.2.2.2"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("X-Forwarded-Proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/evil"),
            ("x-forwarded-user", "root"),
            ("x-original-url", "/admin"),
            ("x_forwarded_for", "1.1.1.1"),
            ("X-Real_IP", "1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("true-client-ip", "1.1.1.1"),
            ("cf-connecting-ip", "1.1.1.1"),
        ],
    );
    let expected = headers(&[
        ("accept", "*/*"),
        ("x-forwarded-for", CLIENT),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example.com"),
        ("x-forwarded-port", "8000"),
        ("forwarded", "for=203.0.113.7;proto=http;host=shop.example.com"),
    ]);
    assert_eq!(sent, expected);
}

#[test]
fn a_trusted_proxy_s_x_forwarded_fields_are_kept_and_extended() {
    let sent = rewritten(
        PROXY,
        &[
            ("x-forwarded-for", CLIENT),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "www.example.com:8443"),
            ("x-forwarded-prefix", "/shop"),
            ("x-real-ip", CLIENT),
            ("x_real_ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
        ],
    );
    let expected = headers(&[
        ("x-forwarded-for", "203.0.113.7, 10.0.0.2, 10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "www.example.com:8443"),
        ("x-forwarded-prefix", "/shop"),
        ("x-real-ip", CLIENT),
        (
            "forwarded",
            "for=203.0.113.7;proto=https;host=\"www.example.com:8443\", for=10.0.0.2, \
             for=10.0.0.1;proto=http;host=shop.example.com",
        ),
    ]);
    assert_eq!(sent, expected);
}

#[test]
fn a_trusted_proxy_s_forwarded_is_told_in_both_notations() {
    let sent = rewritten(PROXY, &[("forwarded", "for=\"[2001:db8::7]\";proto=https;host=a.example, for=_x")]);
    let expected = headers(&[
        ("x-forwarded-for", "2001:db8::7, unknown, 10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a.example"),
        (
            "forwarded",
            "for=\"[2001:db8::7]\";proto=https;host=a.example, for=_x, \
             for=10.0.0.1;proto=http;host=shop.example.com",
        ),
    ]);
    assert_eq!(sent, expected);
}

#[test]
fn a_trusted_proxy_that_says_nothing_is_written_down_itself() {
    let expected = headers(&[
        ("x-forwarded-for", PROXY),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example.com"),
        ("x-forwarded-port", "8000"),
        ("forwarded", "for=10.0.0.1;proto=http;host=shop.example.com"),
    ]);
    assert_eq!(rewritten(PROXY, &[]), expected);
    assert_eq!(rewritten(PROXY, &[("forwarded", "for=\"")]), expected);
}

#[test]
fn a_malformed_line_does_not_swallow_what_is_behind_it() {
    let lines = [("forwarded", "for=\""), ("forwarded", "for=203.0.113.7"), ("forwarded", "for=10.0.0.2")];
    assert_eq!(resolve(PROXY, &lines), CLIENT);
    let sent = rewritten(PROXY, &lines);
    assert_eq!(
        sent[FORWARDED],
        "for=203.0.113.7, for=10.0.0.2, for=10.0.0.1;proto=http;host=shop.example.com"
    );
    assert_eq!(sent[&X_FORWARDED_FOR], "203.0.113.7, 10.0.0.2, 10.0.0.1");
}

#[test]
fn ipv6_peers_and_odd_hosts_are_quoted() {
    let facts = ConnFacts::new("2001:db8::1".parse().unwrap(), 8443, Scheme::Https);
    let element = |host: &'static str| {
        let element = facts.forwarded_element(Some(host.as_bytes()));
        element.to_str().unwrap().to_owned()
    };
    let start = "for=\"[2001:db8::1]\";proto=https";
    // The first is remembered for the connection; others are still told apart.
    assert_eq!(element("[::1]:8443"), format!("{start};host=\"[::1]:8443\""));
    assert_eq!(element("a.example"), format!("{start};host=a.example"));
    assert_eq!(element("[::1]:8443"), format!("{start};host=\"[::1]:8443\""));
    assert_eq!(element("a\"\\b"), format!("{start};host=\"a\\\"\\\\b\""));
    assert_eq!(element("caf\u{e9}"), start);
    assert_eq!(facts.forwarded_element(None), start);
    assert_eq!(facts.peer_text(), "2001:db8::1");
}

#[test]
fn a_request_without_a_host_gets_none() {
    let facts = ConnFacts::new(CLIENT.parse().unwrap(), 80, Scheme::Http);
    let mut headers = fields(&[("x-forwarded-host", "evil")]);
    rewrite_request(&mut headers, &facts, None, false);
    assert!(!headers.contains(&X_FORWARDED_HOST));
    assert_eq!(headers.only(&FORWARDED), Some(&b"for=203.0.113.7;proto=http"[..]));
}

#[test]
fn other_fields_are_not_taken_for_claims() {
    for name in [
        "host",
        "x-request-id",
        "x-forward",
        "cookie",
        "content-type",
        "x-origin",
        "traceparent",
        "x-real-ipv6",
    ] {
        assert!(!claims_origin(name.as_bytes()), "{name}");
    }
    for name in ["forwarded", "x-forwarded-anything", "x_original_url", "true_client-ip", "x-scheme"] {
        assert!(claims_origin(name.as_bytes()), "{name}");
    }
}

proptest! {
    #[test]
    fn nothing_that_an_untrusted_peer_says_survives(
        lines in proptest::collection::vec(
            (
                "(forwarded|x-real-ip|true-client-ip|client-ip|x-(forwarded|original)-[a-z]{1,8})",
                "[ -~]{0,12}evil[ -~]{0,12}",
                any::<bool>(),
            ),
            0..8,
        ),
    ) {
        let mut lies = Fields::new();
        for (name, value, underscored) in &lines {
            let name = if *underscored { name.replace('-', "_") } else { name.clone() };
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            lies.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        let facts = ConnFacts::new(CLIENT.parse().unwrap(), 8000, Scheme::Http);
        prop_assert_eq!(resolve_client(facts.peer(), &lies, &trusted()), facts.peer());
        rewrite_request(&mut lies, &facts, None, false);
        prop_assert!(lies.to_map().values().all(|value| !value.to_str().unwrap().contains("evil")));
        prop_assert_eq!(lies.len(), 4);
    }

    #[test]
    fn any_chain_gives_a_client_and_two_readable_notations(
        chain in "[0-9a-f:.,\\[\\] \"a-z_]{0,200}",
        as_forwarded: bool,
    ) {
        let name = if as_forwarded { "forwarded" } else { "x-forwarded-for" };
        let lines = [(name, chain.trim())];
        let client = resolve(PROXY, &lines);
        let sent = rewritten(PROXY, &lines);
        // Our own words come out whole, and another gateway behind this one finds the same client.
        prop_assert!(sent[&X_FORWARDED_FOR].to_str().unwrap().ends_with(PROXY));
        let sent = Fields::from(sent);
        prop_assert!(!chain::forwarded(&sent).is_empty());
        let behind = resolve_client("10.9.9.9".parse().unwrap(), &sent, &trusted());
        prop_assert_eq!(behind.to_string(), client.clone());
        let mut forwarded_alone = Fields::new();
        forwarded_alone.insert(FORWARDED, sent.value(&FORWARDED).unwrap());
        let behind = resolve_client("10.9.9.9".parse().unwrap(), &forwarded_alone, &trusted());
        prop_assert_eq!(behind.to_string(), client);
    }

    #[test]
    fn any_bytes_from_a_trusted_proxy_are_read_without_a_panic(values: Vec<Vec<u8>>) {
        let mut headers = Fields::new();
        for (index, value) in values.iter().take(8).enumerate() {
            let names = [&X_FORWARDED_FOR, &FORWARDED, &X_FORWARDED_PROTO, &X_FORWARDED_HOST];
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(names[index % 4].clone(), value);
            }
        }
        let facts = ConnFacts::new(PROXY.parse().unwrap(), 8000, Scheme::Http);
        resolve_client(facts.peer(), &headers, &trusted());
        rewrite_request(&mut headers, &facts, None, true);
        prop_assert!(!chain::forwarded(&headers).is_empty());
    }
}
