//! Who may use the admin interface.
//!
//! A token, when one is configured. Without one the interface is on a loopback address, and what
//! remains is a browser on the same machine that some web page misuses: the name in `Host` must be a
//! loopback one (a page whose own name was rebound to 127.0.0.1 sends its own name), and nothing
//! changes state for a request that a page of another origin made.

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use super::reply;
use crate::config::Secret;
use crate::http::small_server::SmallBody;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The refusal as a whole response.
#[allow(clippy::result_large_err, reason = "one call, and the response is sent as it is")]
pub(super) fn check<B>(
    request: &Request<B>,
    loopback: bool,
    token: Option<&Secret>,
) -> Result<(), Response<SmallBody>> {
    if loopback && !names_loopback(request) {
        return Err(reply::problem(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "this interface listens on a loopback address: use localhost or 127.0.0.1 as its name",
        ));
    }
    if let Some(token) = token {
        check_token(request.headers(), token)?;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) && is_cross_site(request) {
        return Err(reply::problem(
            StatusCode::FORBIDDEN,
            "cross_site",
            "a web page of another origin asked for this",
        ));
    }
    Ok(())
}

#[allow(clippy::result_large_err, reason = "as above")]
fn check_token(headers: &HeaderMap, token: &Secret) -> Result<(), Response<SmallBody>> {
    let given = single(headers, &header::AUTHORIZATION).and_then(bearer);
    // An empty token in the configuration admits nobody rather than everybody.
    if !token.expose().is_empty() && given.is_some_and(|given| token.matches(given)) {
        return Ok(());
    }
    let (detail, challenge) = match given {
        None => ("send the admin token as Authorization: Bearer", r#"Bearer realm="gatehouse admin""#),
        Some(_) => ("wrong token", r#"Bearer realm="gatehouse admin", error="invalid_token""#),
    };
    let mut refusal = reply::problem(StatusCode::UNAUTHORIZED, "token_required", detail);
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    Err(refusal)
}

/// RFC 6750 §2.1; the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// A request without a name is not from a browser.
fn names_loopback<B>(request: &Request<B>) -> bool {
    match named(request) {
        Ok(None) => true,
        Ok(Some(authority)) => is_loopback(authority.host()),
        Err(Unclear) => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

struct Unclear;

/// The authority of an absolute target goes before `Host` (RFC 9112 §3.2.2).
fn named<B>(request: &Request<B>) -> Result<Option<Authority>, Unclear> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.clone()));
    }
    if !request.headers().contains_key(header::HOST) {
        return Ok(None);
    }
    let host = single(request.headers(), &header::HOST).ok_or(Unclear)?;
    Authority::try_from(host.as_bytes()).map(Some).map_err(|_| Unclear)
}

/// As browsers tell by `Sec-Fetch-Site`, or, older ones, by `Origin`. Other clients send neither.
fn is_cross_site<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if headers.contains_key(SEC_FETCH_SITE) {
        let site = single(headers, &SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        return !matches!(site, Some(b"same-origin" | b"none"));
    }
    if !headers.contains_key(header::ORIGIN) {
        return false;
    }
    let origin = single(headers, &header::ORIGIN)
        .and_then(|origin| origin.to_str().ok())
        .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")))
        .and_then(|origin| Authority::try_from(origin).ok());
    match (origin, named(request)) {
        // Authorities compare without regard to case.
        (Some(origin), Ok(Some(ours))) => origin != ours,
        _ => true,
    }
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, headers: &[(&str, &str)], loopback: bool, token: Option<&str>) -> u16 {
        let mut request = Request::builder().method(method).uri("/api/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let token = token.map(Secret::new);
        match check(&request.body(()).unwrap(), loopback, token.as_ref()) {
            Ok(()) => 200,
            Err(refusal) => refusal.status().as_u16(),
        }
    }

    #[test]
    fn only_loopback_names_on_a_loopback_address() {
        let with = |host| status("GET", &[("host", host)], true, None);
        for fine in ["localhost", "LOCALHOST:9000", "127.0.0.1:9000", "127.8.8.8", "[::1]:9000"] {
            assert_eq!(with(fine), 200, "{fine}");
        }
        for bad in
            ["evil.example", "localhost.evil.example:9000", "10.0.0.1", "", "local host", "localhost@evil"]
        {
            assert_eq!(with(bad), 403, "{bad}");
        }
        assert_eq!(status("GET", &[], true, None), 200);
        assert_eq!(status("GET", &[("host", "localhost"), ("host", "evil")], true, None), 403);
        assert_eq!(status("GET", &[("host", "gateway.internal")], false, Some("t")), 401);
    }

    #[test]
    fn tokens() {
        let with = |value| status("GET", &[("authorization", value)], false, Some("s3cret"));
        for fine in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "] {
            assert_eq!(with(fine), 200, "{fine}");
        }
        for bad in ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret"] {
            assert_eq!(with(bad), 401, "{bad}");
        }
        let twice = [("authorization", "Bearer s3cret"), ("authorization", "Bearer x")];
        assert_eq!(status("GET", &twice, false, Some("s3cret")), 401);
        assert_eq!(status("GET", &[("authorization", "Bearer ")], false, Some("")), 401);
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let host = ("host", "localhost:9000");
        let post = |name, value| status("POST", &[host, (name, value)], true, None);
        for fine in ["same-origin", "none"] {
            assert_eq!(post("sec-fetch-site", fine), 200, "{fine}");
        }
        for bad in ["cross-site", "same-site", ""] {
            assert_eq!(post("sec-fetch-site", bad), 403, "{bad}");
        }
        assert_eq!(post("origin", "http://localhost:9000"), 200);
        for bad in ["null", "http://evil.example", "http://localhost:9001", "https://", "localhost:9000"] {
            assert_eq!(post("origin", bad), 403, "{bad}");
        }
        assert_eq!(status("POST", &[host], true, None), 200, "curl sends neither");
        assert_eq!(status("GET", &[host, ("sec-fetch-site", "cross-site")], true, None), 200);
    }
}
