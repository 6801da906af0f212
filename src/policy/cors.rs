//! Cross-origin resource sharing, as the Fetch standard's CORS protocol describes it.
//!
//! CORS tells browsers what scripts of other origins may read; it keeps nobody from sending a
//! request. So a preflight is answered here, and any other request passes whatever its origin: its response
//! just goes without the fields that would let the script read it.
//!
//! Invariant: every response of a route with CORS carries the gateway's `Access-Control-*` fields or none,
//! and `Vary: Origin` wherever the answer depends on the origin.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, COOKIE, HeaderName, HeaderValue, ORIGIN,
    VARY,
};
use http::{Method, StatusCode};

use crate::config;
use crate::http::fields::Fields;
use crate::http::interned;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
/// One line, so that it is one value to caches that read the first line only.
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

/// The most field names that one preflight may ask for.
const MAX_ASKED_HEADERS: usize = 64;

#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    methods: Box<[Method]>,
    allow_methods: HeaderValue,
    /// `None`: whatever is asked for.
    headers: Option<AllowedHeaders>,
    expose_headers: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
}

#[derive(Debug)]
enum Origins {
    Any,
    /// Sorted.
    Exact(Box<[Box<[u8]>]>),
}

#[derive(Debug)]
struct AllowedHeaders {
    names: Box<[HeaderName]>,
    value: HeaderValue,
}

/// The whole response to a preflight; it has no body.
#[derive(Debug)]
pub struct PreflightAnswer {
    /// Always 204. A refusal is told by the allow fields that are missing, which is what browsers go by;
    /// another status would only make their console's message less exact.
    pub status: StatusCode,
    pub headers: Fields,
    pub allowed: bool,
}

/// Whether a request is a CORS preflight (Fetch §3.3.2). Any other OPTIONS request is the service's.
pub fn is_preflight(method: &Method, headers: &Fields) -> bool {
    *method == Method::OPTIONS
        && headers.contains(&ORIGIN)
        && headers.contains(&ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether the page is one of the host that it asks: by the name, or because its browser says so, where somebody on the
/// way has changed that.
pub fn is_own_page(origin: &HeaderValue, fields: &Fields, host: Option<&[u8]>) -> bool {
    is_of(origin, host) || fields.only(&SEC_FETCH_SITE) == Some(b"same-origin")
}

fn is_of(origin: &HeaderValue, host: Option<&[u8]>) -> bool {
    let authority = origin.as_bytes().split(|&byte| byte == b'/').nth(2);
    authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
}

impl Cors {
    pub fn compile(config: &config::Cors) -> Cors {
        // Nothing listed: the methods that forms and images use anyway, the CORS-safelisted ones.
        let methods: Box<[Method]> = match config.methods.is_empty() {
            true => [Method::GET, Method::HEAD, Method::POST].into(),
            false => config.methods.as_slice().into(),
        };
        Cors {
            origins: Origins::compile(&config.origins),
            allow_methods: list(methods.iter().map(Method::as_str)),
            methods,
            headers: (!config.headers.is_empty()).then(|| AllowedHeaders {
                names: config.headers.as_slice().into(),
                value: list(config.headers.iter().map(HeaderName::as_str)),
            }),
            expose_headers: (!config.expose_headers.is_empty())
                .then(|| list(config.expose_headers.iter().map(HeaderName::as_str))),
            // Fetch §3.3.5: credentials and `*` exclude each other. `load` refuses the combination.
            credentials: config.credentials && config.origins != config::CorsOrigins::Any,
            max_age: config.max_age.map(|age| interned::value(&HeaderValue::from(age.as_secs()))),
        }
    }

    /// Answers a preflight ([`is_preflight`]).
    pub fn preflight(&self, request: &Fields) -> PreflightAnswer {
        let mut headers = Fields::new();
        headers.insert(VARY, VARY_PREFLIGHT);
        let allowed = self.allow(request, &mut headers).is_some();
        PreflightAnswer { status: StatusCode::NO_CONTENT, headers, allowed }
    }

    /// Whether a page of this origin may use a method that its browser has not asked about. Other origins are not
    /// allowed to read the answer anyway, and the gateway's own pages need nobody's leave.
    pub fn lets_use(&self, origin: Option<&HeaderValue>, host: Option<&[u8]>, method: &Method) -> bool {
        let Some(origin) = origin else { return true };
        self.origins.allow(origin).is_none() || self.methods.contains(method) || is_of(origin, host)
    }

    /// Whether a browser would show the answer to such a request to a page of this origin.
    pub fn lets_read(
        &self,
        origin: &HeaderValue,
        fields: &Fields,
        host: Option<&[u8]>,
        method: &Method,
    ) -> bool {
        let is_allowed = self.origins.allow(origin).is_some()
            && self.methods.contains(method)
            && (self.credentials || !fields.contains(&COOKIE));
        is_allowed || is_own_page(origin, fields, host)
    }

    /// Writes what the answer to a request with this `Origin` says about CORS, the gateway's own replies
    /// included. What the instance said about it is replaced: two answers are none to a browser.
    pub fn decorate(&self, origin: Option<&HeaderValue>, response: &mut Fields) {
        remove_foreign(response);
        if let Origins::Exact(_) = self.origins {
            add_vary_origin(response);
        }
        let Some(allowed) = origin.and_then(|origin| self.origins.allow(origin)) else {
            return;
        };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(exposed) = &self.expose_headers {
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    /// `None`, with nothing written, unless all that the preflight asks for is allowed.
    fn allow(&self, request: &Fields, answer: &mut Fields) -> Option<()> {
        let origin = self.origins.allow(&request.value(&ORIGIN)?)?;
        let method = request.get(&ACCESS_CONTROL_REQUEST_METHOD)?;
        self.methods.iter().find(|allowed| allowed.as_str().as_bytes() == method)?;
        let headers = self.allow_headers(request)?;

        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone());
        if let Some(headers) = headers {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
        }
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(max_age) = &self.max_age {
            answer.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
        Some(())
    }

    /// The value of `Access-Control-Allow-Headers`, if any; `None` when a name is not allowed.
    fn allow_headers(&self, request: &Fields) -> Option<Option<HeaderValue>> {
        let mut asked_lines = request.get_all(&ACCESS_CONTROL_REQUEST_HEADERS);
        let asked = asked_lines.next();
        if asked_lines.next().is_some() {
            return None; // Browsers send one line.
        }
        let names = asked.map_or(Some(Vec::new()), header_names)?;
        match &self.headers {
            Some(allowed) => {
                let all = names.iter().all(|name| allowed.names.contains(name));
                all.then(|| Some(allowed.value.clone()))
            }
            None if names.is_empty() => Some(None),
            None => Some(request.value(&ACCESS_CONTROL_REQUEST_HEADERS)),
        }
    }
}

impl Origins {
    fn compile(config: &config::CorsOrigins) -> Origins {
        match config {
            config::CorsOrigins::Any => Origins::Any,
            config::CorsOrigins::Exact(origins) => {
                let mut origins: Vec<Box<[u8]>> =
                    origins.iter().map(|origin| origin.as_bytes().into()).collect();
                origins.sort_unstable();
                Origins::Exact(origins.into())
            }
        }
    }

    /// The value of `Access-Control-Allow-Origin`, if this origin may read responses. `null`, which
    /// sandboxed pages of anybody send, is an origin like others: only when it is listed.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Origins::Any => Some(ANY),
            // The client's own value is byte for byte the listed one, and cloning it touches no
            // memory that another worker writes.
            Origins::Exact(listed) => listed
                .binary_search_by(|listed| (**listed).cmp(origin.as_bytes()))
                .is_ok()
                .then(|| origin.clone()),
        }
    }
}

/// `None` when it is no list of field names, or too long a one.
fn header_names(line: &[u8]) -> Option<Vec<HeaderName>> {
    let elements = line.split(|&byte| byte == b',').map(|element| element.trim_ascii());
    let names = elements.filter(|element| !element.is_empty()).take(MAX_ASKED_HEADERS + 1);
    let names: Vec<HeaderName> = names.map(HeaderName::from_bytes).collect::<Result<_, _>>().ok()?;
    (names.len() <= MAX_ASKED_HEADERS).then_some(names)
}

fn remove_foreign(response: &mut Fields) {
    response.retain(|name, _| !name.starts_with(b"access-control-"));
}

fn add_vary_origin(response: &mut Fields) {
    let already = response
        .get_all(&VARY)
        .flat_map(|line| line.split(|&byte| byte == b','))
        .map(|element| element.trim_ascii())
        .any(|element| element == b"*" || element.eq_ignore_ascii_case(b"origin"));
    if !already {
        response.append(VARY, VARY_ORIGIN);
    }
}

fn list<'a>(elements: impl Iterator<Item = &'a str>) -> HeaderValue {
    let text = elements.collect::<Vec<_>>().join(", ");
    let value = HeaderValue::from_str(&text).expect("methods and field names are visible ASCII");
    interned::value(&value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::*;

    const SHOP: &str = "https://shop.example.com";

    fn config() -> config::Cors {
        config::Cors {
            origins: config::CorsOrigins::Exact(vec![SHOP.into(), "http://localhost:3000".into()]),
            methods: vec![Method::GET, Method::PUT],
            headers: vec![],
            expose_headers: vec![HeaderName::from_static("x-request-id")],
            credentials: true,
            max_age: Some(Duration::from_secs(600)),
        }
    }

    fn any() -> config::Cors {
        config::Cors { origins: config::CorsOrigins::Any, credentials: false, ..config() }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn ask(config: &config::Cors, origin: &str, method: &str, names: Option<&str>) -> PreflightAnswer {
        let mut request = headers(&[("origin", origin), ("access-control-request-method", method)]);
        if let Some(names) = names {
            request.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_str(names).unwrap());
        }
        let request = request.into();
        assert!(is_preflight(&Method::OPTIONS, &request));
        Cors::compile(config).preflight(&request)
    }

    fn decorated(config: &config::Cors, origin: Option<&str>, before: &[(&'static str, &str)]) -> HeaderMap {
        let mut response = headers(before).into();
        let origin = origin.map(|origin| HeaderValue::from_str(origin).unwrap());
        Cors::compile(config).decorate(origin.as_ref(), &mut response);
        response.to_map()
    }

    #[test]
    fn a_preflight_is_an_options_request_with_both_fields() {
        let both = headers(&[("origin", SHOP), ("access-control-request-method", "PUT")]).into();
        assert!(is_preflight(&Method::OPTIONS, &both));
        assert!(!is_preflight(&Method::GET, &both));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&[("origin", SHOP)]).into()));
    }

    #[test]
    fn an_allowed_preflight_says_everything() {
        let answer = ask(&config(), SHOP, "PUT", Some("x-one, Content-Type"));
        assert!(answer.allowed);
        assert_eq!(answer.status, 204);
        let expected = [
            ("access-control-allow-origin", SHOP),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-one, Content-Type"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "600"),
            ("vary", "origin, access-control-request-method, access-control-request-headers"),
        ];
        assert_eq!(answer.headers.to_map(), headers(&expected));
    }

    #[test]
    fn a_refused_preflight_has_vary_alone() {
        let listed = config::Cors { headers: vec![HeaderName::from_static("x-one")], ..config() };
        for answer in [
            ask(&config(), "https://evil.example.com", "PUT", None),
            ask(&config(), "https://shop.example.com.evil.example", "PUT", None),
            ask(&config(), "http://shop.example.com", "PUT", None),
            ask(&config(), "HTTPS://SHOP.EXAMPLE.COM", "PUT", None),
            ask(&config(), "null", "PUT", None),
            ask(&config(), "", "PUT", None),
            ask(&config(), SHOP, "DELETE", None),
            ask(&config(), SHOP, "put", None),
            ask(&config(), SHOP, "PUT", Some("not a name")),
            ask(&listed, SHOP, "PUT", Some("x-one, x-two")),
            ask(&config(), SHOP, "PUT", Some(&vec!["x"; MAX_ASKED_HEADERS + 1].join(","))),
        ] {
            assert!(!answer.allowed);
            assert_eq!(answer.headers.to_map().keys().collect::<Vec<_>>(), [&VARY]);
        }
    }

    #[test]
    fn listed_headers_match_in_any_case_and_are_sent_whole() {
        let listed = config::Cors {
            headers: vec![HeaderName::from_static("x-one"), HeaderName::from_static("content-type")],
            ..config()
        };
        for asked in [Some("X-One,CONTENT-TYPE"), Some("x-one"), None] {
            let answer = ask(&listed, SHOP, "GET", asked);
            assert_eq!(answer.headers.to_map()[ACCESS_CONTROL_ALLOW_HEADERS], "x-one, content-type");
        }
    }

    #[test]
    fn the_null_origin_counts_when_it_is_listed() {
        let with_null = config::Cors { origins: config::CorsOrigins::Exact(vec!["null".into()]), ..config() };
        assert!(ask(&with_null, "null", "GET", None).allowed);
        assert_eq!(decorated(&with_null, Some("null"), &[])[ACCESS_CONTROL_ALLOW_ORIGIN], "null");
    }

    #[test]
    fn any_origin_is_a_star_without_credentials_or_vary() {
        let response = decorated(&any(), Some("https://anyone.example"), &[]);
        assert_eq!(response[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!response.contains_key(VARY));

        let impossible = config::Cors { credentials: true, ..any() };
        let answer = ask(&impossible, SHOP, "GET", None);
        assert_eq!(answer.headers.to_map()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!answer.headers.contains(&ACCESS_CONTROL_ALLOW_CREDENTIALS));
        let response = decorated(&impossible, Some(SHOP), &[]);
        assert!(!response.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn methods_default_to_the_safelisted_ones() {
        let none = config::Cors { methods: vec![], ..config() };
        let answer = ask(&none, SHOP, "POST", None);
        assert_eq!(answer.headers.to_map()[ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD, POST");
        assert!(!ask(&none, SHOP, "PUT", None).allowed);
    }

    #[test]
    fn the_instance_s_own_answer_is_replaced() {
        let before = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-origin", "https://other.example"),
            ("access-control-allow-methods", "DELETE"),
            ("access-control-allow-private-network", "true"),
            ("content-type", "text/plain"),
        ];
        let expected = [
            ("access-control-allow-origin", SHOP),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-request-id"),
            ("vary", "origin"),
            ("content-type", "text/plain"),
        ];
        assert_eq!(decorated(&config(), Some(SHOP), &before), headers(&expected));
        let neither = headers(&[("vary", "origin"), ("content-type", "text/plain")]);
        assert_eq!(decorated(&config(), Some("https://evil.example"), &before), neither);
        assert_eq!(decorated(&config(), None, &before), neither);
    }

    #[test]
    fn vary_is_added_to_and_never_twice() {
        let lines = |before: &[(&'static str, &str)]| -> Vec<String> {
            let response = decorated(&config(), None, before);
            response.get_all(VARY).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(lines(&[]), ["origin"]);
        assert_eq!(lines(&[("vary", "accept-encoding")]), ["accept-encoding", "origin"]);
        assert_eq!(lines(&[("vary", "accept-encoding, Origin")]), ["accept-encoding, Origin"]);
        assert_eq!(lines(&[("vary", "*")]), ["*"]);
    }
}
