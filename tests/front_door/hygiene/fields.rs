//! Names and values of fields, and those that speak to a proxy (RFC 9110 §5, §7.6).

use super::place;
use crate::support::raw;

#[tokio::test]
async fn space_before_the_colon_is_refused() {
    let place = place().await;
    place
        .refuses_fields(&["X : a", "X\t: a", "X \t : a", "Host : a", "Connection : close"], "invalid_request")
        .await;
}

#[tokio::test]
async fn names_that_are_no_tokens_are_refused() {
    let place = place().await;
    let names = [
        ": a", "X", "X Y: a", "X;: a", "(X): a", "\"X\": a", "X{}: a", "X/Y: a", "X@Y: a", "X[0]: a",
        "X=1: a", "X,Y: a", "X?: a", "X\\Y: a", "X<Y>: a",
    ];
    place.refuses_fields(&names, "invalid_request").await;
}

#[tokio::test]
async fn non_ascii_names_are_refused() {
    let place = place().await;
    place
        .refuses_fields(&["X\u{e9}: a", "\u{e9}: a", "Ho\u{17f}t: b", "\u{212a}: a"], "invalid_request")
        .await;
    let mut latin = b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: a\r\n\r\n".to_vec();
    place.refuses(&latin, 400, "invalid_request").await;
    latin[27] = 0xa0;
    place.refuses(&latin, 400, "invalid_request").await;
}

/// As nginx does it, though for those names only which somebody behind could take for ours: other names with
/// underscores are good names.
#[tokio::test]
async fn names_with_underscores_that_imitate_ours_are_dropped() {
    let place = place().await;
    for name in [
        "X_User_Id",
        "X-User_Id",
        "x_user-id",
        "X_Scopes",
        "X_Forwarded_For",
        "X-Forwarded_For",
        "X_Forwarded_Host",
        "X_Real_IP",
        "X_Request_Id",
        "Content_Length",
        "Transfer_Encoding",
        "X_HTTP_Method_Override",
    ] {
        let seen = place.passes_with(&format!("{name}: evil\r\nX_Other: kept\r\n")).await;
        assert!(!seen.head.contains("evil"), "{}", seen.head);
        assert_eq!(seen.all("x_other"), ["kept"]);
    }
}

#[tokio::test]
async fn httpoxy_the_proxy_field_is_dropped() {
    let place = place().await;
    for name in ["Proxy", "PROXY", "proxy"] {
        let seen = place.passes_with(&format!("{name}: http://attacker.example\r\nX: 1\r\n")).await;
        assert!(!seen.head.to_lowercase().contains("attacker") && seen.has("x"), "{}", seen.head);
    }
}

/// Neither what we write nor what an instance relies on goes by a client's word; anything else does.
#[tokio::test]
async fn connection_naming_fields_that_others_rely_on_takes_none_away() {
    let place = place().await;
    let named = "close, Host, Content-Length, Transfer-Encoding, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, \
                 Forwarded, Via, Authorization, Cookie, Content-Type, Cache-Control, Origin, X-Request-Id, Traceparent, \
                 X-User-Id, X-Named";
    let seen = place
        .passes(format!(
            "POST /a HTTP/1.1\r\nHost: a.example\r\nConnection: {named}\r\nAuthorization: Basic eDp5\r\nCookie: c=1\r\n\
             Content-Type: text/plain\r\nCache-Control: no-cache\r\nOrigin: https://a\r\nX-Named: 1\r\nX-Other: 1\r\n\
             Content-Length: 5\r\n\r\nhello"
        ))
        .await;
    for (name, value) in [
        ("host", "a.example"),
        ("content-length", "5"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a.example"),
        ("forwarded", "for=127.0.0.1;proto=http;host=a.example"),
        ("via", "1.1 gatehouse"),
        ("authorization", "Basic eDp5"),
        ("cookie", "c=1"),
        ("content-type", "text/plain"),
        ("cache-control", "no-cache"),
        ("origin", "https://a"),
        ("x-other", "1"),
    ] {
        assert_eq!(seen.all(name), [value], "{name} in {}", seen.head);
    }
    assert!(seen.has("x-request-id") && seen.has("traceparent"), "{}", seen.head);
    assert!(!seen.has("x-named") && !seen.has("connection"), "{}", seen.head);
    assert_eq!(&seen.body[..], b"hello");
}

#[tokio::test]
async fn fields_that_end_here_are_dropped() {
    let place = place().await;
    let seen = place
        .passes_with(
            "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: gzip\r\n\
             HTTP2-Settings: AAMAAABk\r\nX: 1\r\n",
        )
        .await;
    // That none of them came is what the origin itself has looked at.
    assert!(seen.has("x"));
}

#[tokio::test]
async fn h2c_upgrade_smuggling_is_not_passed_on() {
    let place = place().await;
    for (upgrade, connection) in [
        ("h2c", "Upgrade, HTTP2-Settings"),
        ("h2c", "Upgrade"),
        ("H2C", "upgrade, http2-settings"),
        ("h2c", "HTTP2-Settings"),
        ("h2", "Upgrade"),
        ("HTTP/2.0", "Upgrade"),
        ("TLS/1.2", "Upgrade"),
        ("websocket, h2c", "Upgrade"),
        ("h2c, websocket", "Upgrade"),
    ] {
        let seen = place
            .passes(format!(
                "GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\n\
                 HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
            ))
            .await;
        assert!(!seen.head.to_lowercase().contains("h2c") && !seen.has("upgrade"), "{}", seen.head);
    }
}

#[tokio::test]
async fn expect_is_met_or_refused_and_never_passed_on() {
    let place = place().await;
    for value in ["100-continue", "100-Continue", " 100-continue\t", "100-continue, 100-continue", ""] {
        let seen = place
            .passes(format!(
                "POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\nhello"
            ))
            .await;
        assert_eq!(&seen.body[..], b"hello", "{value:?}");
    }
    for value in
        ["x", "100", "100-continue, x", "y 100-continue", "100-continue;q=1", "200-ok", "100-continue\""]
    {
        let request =
            format!("POST /a HTTP/1.1\r\nHost: a\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\nhello");
        place.refuses(request.as_bytes(), 417, "expectation_failed").await;
    }
    let twice =
        "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello";
    place.refuses(twice.as_bytes(), 417, "expectation_failed").await;
    // HTTP/1.0 knows no expectations.
    let seen = place.passes("POST /a HTTP/1.0\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(&seen.body[..], b"hello");
}

#[tokio::test]
async fn max_forwards_is_counted_down_for_options() {
    let place = place().await;
    let ask = |method: &str, fields: &str| {
        format!("{method} /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n")
    };
    for (written, passed) in [("1", "0"), ("10", "9"), ("007", "6"), ("99999999999", "4294967294")] {
        let seen = place.passes(ask("OPTIONS", &format!("Max-Forwards: {written}\r\n"))).await;
        assert_eq!(seen.all("max-forwards"), [passed]);
    }
    // The gateway is the last to see it.
    let before = place.origin.count();
    let answer = raw::exchange(place.gateway.http(), ask("OPTIONS", "Max-Forwards: 0\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.to_lowercase().contains("\r\nallow: "), "{answer}");
    assert_eq!(place.origin.count(), before);
    for written in ["-1", "x", "1, 2", "", "1\r\nMax-Forwards: 2"] {
        let request = ask("OPTIONS", &format!("Max-Forwards: {written}\r\n"));
        place.refuses(request.as_bytes(), 400, "invalid_request").await;
    }
    // To other methods it means nothing.
    assert_eq!(place.passes(ask("GET", "Max-Forwards: 0\r\n")).await.all("max-forwards"), ["0"]);
}

#[tokio::test]
async fn method_override_is_not_passed_on() {
    let place = place().await;
    for name in ["X-HTTP-Method-Override", "X-Http-Method", "X-METHOD-OVERRIDE"] {
        let seen = place.passes_with(&format!("{name}: DELETE\r\nX-Method: kept\r\n")).await;
        assert!(!seen.head.contains("DELETE"), "{}", seen.head);
        assert_eq!((seen.method.as_str(), seen.all("x-method")), ("GET", vec!["kept".to_owned()]));
    }
}
