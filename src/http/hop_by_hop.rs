//! Fields that end at this hop (RFC 9110 §7.6.1): taken off what is forwarded, both ways.
//!
//! Invariant: after `strip_request` or `strip_response` no field is left that describes the connection it
//! came over. `Connection` may name any field to go with it, except those in `is_kept`: a client must
//! not be able to make its own credentials, the message's framing or the gateway's words disappear on
//! the way to an instance. Call them before the gateway writes fields of its own.

use http::Version;
use http::header::{
    CONNECTION, EXPECT, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

use super::fields::Fields;
use super::notable::Notable;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// CGI turns it into the variable HTTP_PROXY ("httpoxy").
static PROXY: HeaderName = HeaderName::from_static("proxy");

const ENDS_HERE: Notable = Notable::CONNECTION.and(Notable::HOP);

/// Takes off a request what ends here. A client that accepts trailers still does so behind it.
pub fn strip_request(headers: &mut Fields, notable: Notable) {
    if !notable.has(ENDS_HERE) {
        return;
    }
    let accepts_trailers = accepts_trailers(headers);
    strip_common(headers);
    for name in [&PROXY_AUTHORIZATION, &HTTP2_SETTINGS, &PROXY] {
        headers.remove(name);
    }
    if accepts_trailers {
        // §10.1.4: who sends TE names it in Connection.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Takes off a response what ends here.
pub fn strip_response(headers: &mut Fields) {
    if !Notable::is_of_connection(headers) {
        return;
    }
    strip_common(headers);
    headers.remove(&PROXY_AUTHENTICATE);
}

/// Takes out of a trailer section what must not be in one (RFC 9110 §6.5.1): framing, routing,
/// credentials, and what only the head of a message may say about its connection or its way here.
pub fn strip_trailers(trailers: &mut Fields) {
    strip_common(trailers);
    let unwanted = [&PROXY_AUTHENTICATE, &PROXY_AUTHORIZATION, &PROXY, &TRAILER, &EXPECT];
    trailers.retain(|name, _| {
        !is_kept(name) && unwanted.iter().all(|unwanted| unwanted.as_str().as_bytes() != name)
    });
}

/// The protocol that an HTTP/1.1 request asks to switch to, when it is one to tunnel.
///
/// Never h2c, another HTTP or TLS: what goes on inside such a tunnel would be requests that no route
/// and no policy has seen. Such an `Upgrade` is ignored, as §7.8 allows.
pub fn is_upgrade(headers: &Fields, version: Version) -> Option<HeaderValue> {
    if version != Version::HTTP_11 {
        return None;
    }
    let protocol = headers.only(&UPGRADE)?;
    let named = names_in(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    if named && is_tunnelled(protocol) { headers.value(&UPGRADE) } else { None }
}

/// Asks for (or, on a 101 response, confirms) a switch to `protocol`. Call it after stripping.
pub fn write_upgrade(headers: &mut Fields, protocol: HeaderValue) {
    headers.remove(&TE);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// One protocol, by a single token with an optional version, and not one that carries HTTP requests.
fn is_tunnelled(protocol: &[u8]) -> bool {
    let name = protocol.split(|&byte| byte == b'/').next().unwrap_or_default();
    let is_token = |part: &[u8]| !part.is_empty() && part.iter().all(|&byte| is_token_byte(byte));
    protocol.split(|&byte| byte == b'/').count() <= 2
        && protocol.split(|&byte| byte == b'/').all(is_token)
        && ![&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn strip_common(headers: &mut Fields) {
    if headers.contains(&CONNECTION) {
        strip_named(headers);
        headers.remove(&CONNECTION);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &TE, &TRANSFER_ENCODING, &UPGRADE] {
        headers.remove(name);
    }
}

fn strip_named(headers: &mut Fields) {
    // Nearly every request has no Connection field or one of these, which name no field that is left
    // standing anyway.
    if let Some(only) = headers.only(&CONNECTION) {
        let usual = [&b"keep-alive"[..], b"close", b"upgrade"];
        if usual.iter().any(|usual| only.eq_ignore_ascii_case(usual)) {
            return;
        }
    }
    let mut named: Vec<Vec<u8>> = names_in(headers, &CONNECTION).map(<[u8]>::to_ascii_lowercase).collect();
    // Sorted, because a hostile one has thousands.
    named.sort_unstable();
    headers.retain(|name, _| is_kept(name) || named.binary_search_by(|named| (**named).cmp(name)).is_err());
}

/// What `Connection` cannot take away. §7.6.1 forbids senders to name end-to-end
/// fields there, so nothing that is sent in good faith is affected.
fn is_kept(name: &[u8]) -> bool {
    const KEPT: [&str; 14] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "forwarded",
        "host",
        "origin",
        "set-cookie",
        "vary",
        "via",
        "www-authenticate",
    ];
    const PREFIX: &str = "x-forwarded-";
    KEPT.iter().any(|kept| kept.as_bytes() == name) || name.starts_with(PREFIX.as_bytes())
}

/// Whether the client takes trailers, by its own word.
pub fn accepts_trailers(headers: &Fields) -> bool {
    // `trailers;q=0` is no form that the grammar knows: a parameter makes it another coding.
    names_in(headers, &TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// The elements of a list field, over all its lines.
fn names_in<'f>(headers: &'f Fields, field: &'f HeaderName) -> impl Iterator<Item = &'f [u8]> {
    headers.get_all(field).flat_map(elements)
}

/// Without the empty ones.
fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = line.split(|&byte| byte == b',');
    elements.map(|element| element.trim_ascii()).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Fields {
        let mut headers = Fields::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn strip(headers: &mut Fields) {
        strip_request(headers, Notable::of(headers));
    }

    fn names_after(strip: fn(&mut Fields), lines: &[(&str, &str)]) -> Vec<String> {
        let mut headers = headers(lines);
        strip(&mut headers);
        let mut names: Vec<_> =
            headers.names().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_fields_of_the_connection_go_and_the_others_stay() {
        let lines = [
            ("host", "a"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eDp5"),
            ("proxy", "http://attacker.example"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("trailer", "x-checksum"),
            ("accept", "*/*"),
        ];
        assert_eq!(names_after(strip, &lines), ["accept", "host", "trailer"]);
    }

    #[test]
    fn fields_that_connection_names_go_over_several_lines_and_in_any_case() {
        let lines = [
            ("connection", "close, X-One,, x-three"),
            ("connection", " X-TWO ;"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-one", "again"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-four", "4"),
        ];
        assert_eq!(names_after(strip, &lines), ["x-four"]);
        assert_eq!(names_after(strip_response, &lines), ["x-four"]);
    }

    #[test]
    fn a_field_cannot_hide_behind_many_names() {
        let names = vec!["x-nothing"; 3000].join(",") + ",x-hidden";
        let lines = [("connection", names.as_str()), ("x-hidden", "1"), ("x-shown", "1")];
        assert_eq!(names_after(strip, &lines), ["x-shown"]);
    }

    #[test]
    fn connection_cannot_take_credentials_framing_or_the_client_s_address_away() {
        let protected = "host, content-length, authorization, cookie, x-forwarded-for, X-Forwarded-Proto, \
                         forwarded, via, cache-control, content-type";
        let mut lines = vec![("connection", protected)];
        lines.extend(protected.split(", ").map(|name| (name.trim(), "1")));
        assert_eq!(names_after(strip, &lines).len(), lines.len() - 1);
    }

    #[test]
    fn te_trailers_is_offered_on_and_nothing_else_of_te() {
        let mut request = headers(&[("te", "gzip;q=0.5, Trailers"), ("connection", "te, close")]);
        strip(&mut request);
        assert_eq!(request.only(&TE), Some(&b"trailers"[..]));
        assert_eq!(request.only(&CONNECTION), Some(&b"te"[..]));
        assert_eq!(names_after(strip, &[("te", "trailers;q=0")]), [""; 0]);
        assert_eq!(names_after(strip_response, &[("te", "trailers")]), [""; 0]);
    }

    #[test]
    fn a_response_loses_what_was_meant_for_this_gateway() {
        let lines = [
            ("connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("www-authenticate", "Bearer"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
        ];
        assert_eq!(names_after(strip_response, &lines), ["content-length", "www-authenticate"]);
    }

    #[test]
    fn trailers_keep_only_what_may_come_late() {
        let lines = [
            ("x-checksum", "1"),
            ("grpc-status", "0"),
            ("content-length", "5"),
            ("host", "evil"),
            ("authorization", "Bearer x"),
            ("x-forwarded-for", "1.1.1.1"),
            ("connection", "x-hidden"),
            ("x-hidden", "1"),
            ("trailer", "x"),
        ];
        assert_eq!(names_after(strip_trailers, &lines), ["grpc-status", "x-checksum"]);
    }

    #[test]
    fn only_a_named_single_protocol_over_http_1_1_is_an_upgrade() {
        let websocket = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(is_upgrade(&websocket, Version::HTTP_11).unwrap(), "websocket");
        assert_eq!(is_upgrade(&websocket, Version::HTTP_10), None);
        assert_eq!(is_upgrade(&websocket, Version::HTTP_2), None);

        for upgrade in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.2", "websocket, h2c", "", "a/b/c", "a b"] {
            let lines = headers(&[("connection", "upgrade"), ("upgrade", upgrade)]);
            assert_eq!(is_upgrade(&lines, Version::HTTP_11), None, "{upgrade}");
        }
        let unnamed = headers(&[("connection", "keep-alive"), ("upgrade", "websocket")]);
        assert_eq!(is_upgrade(&unnamed, Version::HTTP_11), None);
        let two = headers(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")]);
        assert_eq!(is_upgrade(&two, Version::HTTP_11), None);
    }

    #[test]
    fn an_upgrade_is_written_again_after_stripping() {
        let mut request = headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("te", "trailers")]);
        let protocol = is_upgrade(&request, Version::HTTP_11).unwrap();
        strip(&mut request);
        write_upgrade(&mut request, protocol);
        assert_eq!(request.only(&CONNECTION), Some(&b"upgrade"[..]));
        assert_eq!(request.only(&UPGRADE), Some(&b"websocket"[..]));
        assert!(!request.contains(&TE));
    }

    proptest::proptest! {
        #[test]
        fn any_connection_field_is_stripped_without_a_panic(value in "[ -~\\t]{0,200}") {
            let mut request = headers(&[("host", "a"), ("x-a", "1")]);
            request.append(CONNECTION, HeaderValue::from_str(&value).unwrap());
            strip(&mut request);
            proptest::prop_assert!(!request.contains(&CONNECTION));
            proptest::prop_assert!(request.contains(&http::header::HOST));
        }
    }
}
