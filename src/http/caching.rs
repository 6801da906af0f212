//! What the fields of a message say about its being kept and used again (RFC 9111, RFC 5861).
//!
//! Invariant: what is not understood never allows more than what is. A number that is none is 0, a directive that
//! comes with arguments counts as if it came without.

use std::time::{Duration, SystemTime};

use http::{HeaderName, header};

use super::fields::{self, Fields};

/// The largest number of seconds that is worth telling apart (RFC 9111 §1.2.2).
const LONGEST_S: u64 = 1 << 31;

/// `Cache-Control` (RFC 9111 §5.2), as far as a shared cache goes by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    /// `must-revalidate` or `proxy-revalidate`: not to be used once it is stale.
    pub must_revalidate: bool,
    pub max_age: Option<Duration>,
    pub shared_max_age: Option<Duration>,
    /// RFC 5861 §4.
    pub stale_if_error: Option<Duration>,
}

impl CacheControl {
    pub fn of(message: &Fields) -> Self {
        let mut control = CacheControl::default();
        for line in message.get_all(&header::CACHE_CONTROL) {
            for directive in elements(line) {
                control.add(directive);
            }
        }
        control
    }

    fn add(&mut self, directive: &[u8]) {
        let (name, argument) = match directive.iter().position(|&byte| byte == b'=') {
            Some(at) => (directive[..at].trim_ascii(), Some(&directive[at + 1..])),
            None => (directive, None),
        };
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        // Of two that differ, the stricter holds (RFC 9111 §4.2.1).
        let shorter = |present: Option<Duration>| {
            let given = seconds(argument.unwrap_or_default());
            Some(present.map_or(given, |present| present.min(given)))
        };
        match () {
            () if is("no-store") => self.no_store = true,
            () if is("no-cache") => self.no_cache = true,
            () if is("private") => self.private = true,
            () if is("public") => self.public = true,
            () if is("must-revalidate") || is("proxy-revalidate") => self.must_revalidate = true,
            () if is("max-age") => self.max_age = shorter(self.max_age),
            () if is("s-maxage") => self.shared_max_age = shorter(self.shared_max_age),
            () if is("stale-if-error") => self.stale_if_error = shorter(self.stale_if_error),
            () => {}
        }
    }
}

/// For how long from its origin on a response is fresh in a shared cache (RFC 9111 §4.2.1). What it doesn't say is not
/// guessed.
pub fn freshness(response: &Fields, control: &CacheControl) -> Duration {
    let explicit = control.shared_max_age.or(control.max_age);
    let until = || date(response, &header::EXPIRES)?.duration_since(date(response, &header::DATE)?).ok();
    explicit.or_else(until).unwrap_or_default()
}

/// How old a response is that came just now, `delay` after it was asked for (RFC 9111 §4.2.3).
pub fn age(response: &Fields, delay: Duration, now: SystemTime) -> Duration {
    let apparent = date(response, &header::DATE).and_then(|date| now.duration_since(date).ok());
    let told = response.get(&header::AGE).map_or(Duration::ZERO, seconds);
    apparent.unwrap_or_default().min(Duration::from_secs(LONGEST_S)).max(told + delay)
}

/// The fields of the request that a response depends on (RFC 9110 §12.5.5). `None` when it depends on more than
/// fields, or on more of them than anybody should have to compare.
pub fn vary(response: &Fields) -> Option<Vec<HeaderName>> {
    const MOST: usize = 16;
    let mut names = Vec::new();
    for name in response.get_all(&header::VARY).flat_map(elements) {
        // A `*` could be the name of a field, but it is none.
        let name = HeaderName::from_bytes(name).ok().filter(|name| name.as_str() != "*")?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (names.len() <= MOST).then_some(names)
}

/// The elements of a list, where a comma in quotes separates nothing. Without the empty ones.
fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let elements = line.split(move |&byte| {
        let is_end = byte == b',' && !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        is_end
    });
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

fn seconds(text: &[u8]) -> Duration {
    let digits = text.trim_ascii();
    let digits = digits.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(digits);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Duration::ZERO;
    }
    let number = fields::text(digits).and_then(|text| text.parse().ok()).unwrap_or(LONGEST_S);
    Duration::from_secs(number.min(LONGEST_S))
}

fn date(response: &Fields, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(fields::text(response.only(name)?)?).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> Fields {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    fn control(value: &'static str) -> CacheControl {
        CacheControl::of(&fields(&[("cache-control", value)]))
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    proptest::proptest! {
        /// Whatever stands in the fields, and `no-store` counts wherever it is an element.
        #[test]
        fn no_bytes_are_too_strange(noise in proptest::collection::vec(0u8..=255, 0..60)) {
            let mut response = Fields::new();
            for name in [header::CACHE_CONTROL, header::AGE, header::DATE, header::EXPIRES, header::VARY] {
                if let Ok(value) = HeaderValue::from_bytes(&noise) {
                    response.append(name, value);
                }
            }
            let control = CacheControl::of(&response);
            freshness(&response, &control);
            age(&response, Duration::from_secs(1), SystemTime::now());
            vary(&response);
            response.append(header::CACHE_CONTROL, HeaderValue::from_static("max-age=5, no-store"));
            proptest::prop_assert!(CacheControl::of(&response).no_store);
        }
    }

    #[test]
    fn directives_are_read_in_any_form_that_they_come_in() {
        let all = control(
            "Public, MAX-AGE=60 ,s-maxage=\"10\",, stale-if-error = 30, x-other=\"no-store, private\"",
        );
        assert!(all.public && !all.no_store && !all.private);
        assert_eq!((all.max_age, all.shared_max_age), (Some(s(60)), Some(s(10))));
        assert_eq!(all.stale_if_error, Some(s(30)));
        assert!(control("private=\"set-cookie\", no-cache=\"x\"").private);
        assert!(control("no-cache=\"a, \\\"b\"").no_cache);
        assert!(control("proxy-revalidate").must_revalidate);
        let lines =
            CacheControl::of(&fields(&[("cache-control", "max-age=9"), ("cache-control", "no-store")]));
        assert!(lines.no_store);
    }

    #[test]
    fn a_number_that_is_none_is_nothing_and_of_two_the_smaller_holds() {
        for nonsense in
            ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=x", "max-age=60, max-age="]
        {
            assert_eq!(control(nonsense).max_age, Some(s(0)), "{nonsense}");
        }
        assert_eq!(control("max-age=60, max-age=5").max_age, Some(s(5)));
        assert_eq!(control("max-age=99999999999999999999999").max_age, Some(s(LONGEST_S)));
    }

    #[test]
    fn freshness_is_what_is_said_and_the_word_to_shared_caches_comes_first() {
        const DATE: (&str, &str) = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        for (control, expires, wanted) in [
            ("max-age=60, s-maxage=5", "Wed, 21 Oct 2015 07:29:00 GMT", 5),
            ("max-age=90", "Wed, 21 Oct 2015 07:29:00 GMT", 90),
            ("public", "Wed, 21 Oct 2015 07:29:00 GMT", 60),
            ("public", "0", 0),
            ("public", "Wed, 21 Oct 2015 07:27:00 GMT", 0),
        ] {
            let response = fields(&[DATE, ("cache-control", control), ("expires", expires)]);
            assert_eq!(freshness(&response, &CacheControl::of(&response)), s(wanted), "{control} {expires}");
        }
        assert_eq!(freshness(&fields(&[DATE]), &CacheControl::default()), s(0));
    }

    #[test]
    fn a_response_is_as_old_as_its_date_or_its_age_says() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:30 GMT").unwrap();
        let old = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(age(&fields(&[old]), s(1), now), s(30));
        assert_eq!(age(&fields(&[old, ("age", "60")]), s(1), now), s(61));
        assert_eq!(age(&fields(&[("date", "Wed, 21 Oct 2015 07:29:00 GMT")]), s(0), now), s(0));
        assert_eq!(age(&fields(&[("age", "nonsense")]), s(2), now), s(2));
    }

    #[test]
    fn what_a_response_varies_by() {
        let names = |value| vary(&fields(&[("vary", value)]));
        let found = names("Accept-Encoding, accept-language,, accept-encoding").unwrap();
        assert_eq!(found, ["accept-encoding", "accept-language"]);
        assert_eq!(vary(&fields(&[])), Some(Vec::new()));
        for unusable in ["*", "accept, *", "a b", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q"] {
            assert_eq!(names(unusable), None, "{unusable}");
        }
    }
}
