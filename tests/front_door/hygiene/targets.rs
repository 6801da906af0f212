//! What a request is for: its host, its path, and the forms of a target (RFC 9112 §3.2, RFC 3986).

use super::place;
use crate::support::raw;

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

async fn hosts_refused(heads: &[&str]) {
    let place = place().await;
    for head in heads {
        place.refuses(format!("{head}\r\n").as_bytes(), 400, "invalid_host").await;
    }
}

#[tokio::test]
async fn missing_and_repeated_host_is_refused() {
    hosts_refused(&[
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nX-Host: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nHost:\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n",
        "GET / HTTP/1.1\r\nHost: \t \r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
    ])
    .await;
}

#[tokio::test]
async fn bad_host_is_refused() {
    let hosts = [
        "a b",
        "a,b",
        "a, b",
        "a;b",
        "user@a",
        "user:pass@a",
        "@a",
        "a@",
        "a/b",
        "a\\b",
        "a?b",
        "a#b",
        "a|b",
        "a^b",
        "a\"b",
        "<a>",
        "a%00",
        "%61",
        "a:port",
        "a:-1",
        "a:+80",
        "a:65536",
        "a:99999",
        "a:000080",
        "a:80:80",
        "a:8 0",
        ":80",
        "a..b",
        ".a",
        "..",
        "a..",
        "*.a",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:x",
        "[]",
        "[1.2.3.4]",
        "[::g]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[v1.x]",
        "[::1]]",
        "[[::1]]",
        "\u{fc}ber",
        "a\u{a0}",
        "http://a",
    ];
    let place = place().await;
    for host in hosts {
        place
            .refuses(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), 400, "invalid_host")
            .await;
    }
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(300));
    place.refuses(long.as_bytes(), 400, "invalid_host").await;
}

#[tokio::test]
async fn absolute_form_against_host_is_refused() {
    hosts_refused(&[
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a:80\r\n",
        "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n",
        "GET http://a.b/ HTTP/1.1\r\nHost: a\r\n",
        "GET http://a/ HTTP/1.1\r\n",
        "GET http://a/ HTTP/1.1\r\nHost:\r\n",
        "GET http://user@a/ HTTP/1.1\r\nHost: user@a\r\n",
        "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n",
        "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n",
        "GET https://a/ HTTP/1.0\r\nHost: b\r\n",
    ])
    .await;
}

/// What was understood of it is all that an instance sees: a path, and a Host.
#[tokio::test]
async fn absolute_form_is_forwarded_as_a_path() {
    let place = place().await;
    for (target, passed) in [
        ("http://a/x", "/x"),
        ("http://a", "/"),
        ("http://a?q", "/?q"),
        ("http://a/../x?y=/..", "/x?y=/.."),
        ("HTTP://A/x", "/x"),
        ("https://a/x", "/x"),
    ] {
        let seen = place.passes(get(target)).await;
        assert_eq!((seen.target.as_str(), seen.all("host")), (passed, vec!["a".to_owned()]), "{target}");
    }
    let seen = place.passes("GET http://a/x HTTP/1.0\r\n\r\n").await;
    assert_eq!((seen.target.as_str(), seen.all("host")), ("/x", vec!["a".to_owned()]));
}

#[tokio::test]
async fn other_forms_of_a_target_are_refused() {
    let place = place().await;
    let targets = [
        "a",
        "a:80",
        "a.example:443",
        "ftp://a/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http:/a",
        "http:a",
        "http://",
        "http:///",
        "?a",
        "#",
        "/#top",
        "/a#b",
        "/a?b#c",
        "http://a/#top",
        "/a?\u{e9}",
        "/a\u{e9}b\\",
        "%2f",
        ".",
        "..",
    ];
    for target in targets {
        let answer = raw::exchange(place.gateway.http(), get(target)).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{target:?} → {answer}");
    }
    place.refuses(b"GET * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400, "invalid_path").await;
    assert_eq!(place.origin.count(), 0);
}

#[tokio::test]
async fn connect_and_trace_are_refused() {
    let place = place().await;
    for line in ["TRACE /", "TRACE *", "CONNECT a:80", "CONNECT /", "CONNECT http://a/", "CONNECT a"] {
        let host = if line.contains("a:80") { "a:80" } else { "a" };
        let request =
            format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nMax-Forwards: 0\r\n\r\n");
        place.refuses(request.as_bytes(), 405, "method_not_allowed").await;
    }
}

#[tokio::test]
async fn path_tricks_are_refused() {
    let place = place().await;
    for path in [
        "/a%2fb",
        "/a%2Fb",
        "/a%2f..%2fb",
        "/%2e%2e%2fa",
        "/..%2fa",
        "/a\\b",
        "/..\\a",
        "/a%5cb",
        "/a%5C..%5cb",
        "/%5c",
        "/a%00",
        "/%00",
        "/a%00.html",
        "/%",
        "/%2",
        "/%zz",
        "/%u002e%u002e/a",
        "/%u2216",
        "/a/..;/b",
        "/a/..;x=1/b",
        "/a/.;/b",
        "/a/%2e%2e;/b",
        "/a/..%3b/b",
        "/%c0%ae%c0%ae/a",
        "/%c0%af",
        "/%C1%9c",
        "/%e0%80%ae",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/caf\u{e9}",
    ] {
        place.refuses(get(path).as_bytes(), 400, "invalid_path").await;
    }
}

/// One form for every way of writing, and that is the one that is forwarded.
#[tokio::test]
async fn path_tricks_that_have_one_meaning_are_resolved() {
    let place = place().await;
    for (path, passed) in [
        ("/a/../b", "/b"),
        ("/a/./b", "/a/b"),
        ("/../../a", "/a"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/%2e/b", "/a/b"),
        ("//a//b", "/a/b"),
        ("///", "/"),
        ("//evil.example/a", "/evil.example/a"),
        ("/%61%62", "/ab"),
        ("/%7Ea%7ea", "/~a~a"),
        ("/%c3%A9", "/%C3%A9"),
        ("/a%3Fb", "/a%3Fb"),
        ("/a%23b", "/a%23b"),
        ("/a%0d%0aX:1", "/a%0D%0AX:1"),
        // Decoded once.
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/a%252fb", "/a%252fb"),
        ("/a;b=c/d;e", "/a;b=c/d;e"),
        ("/a?/../b", "/a?/../b"),
        ("/a?%2e%2e/?b", "/a?%2e%2e/?b"),
        ("/a??b", "/a??b"),
    ] {
        assert_eq!(place.passes(get(path)).await.target, passed, "{path}");
    }
}

/// No way of writing leads past a route that asks for a token.
#[tokio::test]
async fn no_path_trick_leads_around_a_route() {
    let place = place().await;
    for path in [
        "/private",
        "/private/",
        "//private",
        "/./private",
        "/x/../private",
        "/%70rivate",
        "/priv%61te",
        "/private?x",
        "/private/../private",
        "/x/%2e%2e/private",
        "http://a/private",
        "/private//x",
        "/private/%2e",
    ] {
        let answer = raw::exchange(place.gateway.http(), get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{path} → {answer}");
    }
    assert_eq!(place.origin.count(), 0);
}
