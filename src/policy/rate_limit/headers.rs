//! `RateLimit-Policy`, `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10) and `Retry-After`.

use bytes::Bytes;
use governor::clock::Clock;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};

use super::{Decision, RateLimiter};
use crate::http::fields;
use crate::http::interned;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The parts of a limit's fields that are the same in every response.
#[derive(Debug)]
pub(super) struct Fields {
    /// `"name";q=200;w=2`
    policy: HeaderValue,
    /// `"name";r=`
    limit_start: Box<str>,
}

impl Fields {
    pub(super) fn compile(name: &str, quota: u32, window_s: u64) -> Fields {
        let name = structured_string(name);
        let policy = HeaderValue::from_str(&format!("{name};q={quota};w={window_s}"))
            .expect("a structured string is visible ASCII");
        Fields { policy: interned::value(&policy), limit_start: format!("{name};r=").into() }
    }
}

/// Says which limits a request was checked against, in that order, and what they have left; and on a
/// refusal when to come back. Fields that the instance wrote about limits of its own stay: both hold.
pub fn write_headers<C: Clock>(response: &mut fields::Fields, decisions: &[(&RateLimiter<C>, Decision)]) {
    match decisions {
        [] => return,
        [(limiter, _)] => {
            response.append(RATELIMIT_POLICY, limiter.fields.policy.clone());
        }
        several => {
            let lines = several.iter().map(|(limiter, _)| limiter.fields.policy.as_bytes());
            append(response, RATELIMIT_POLICY, lines.collect::<Vec<_>>().join(&b", "[..]));
        }
    }
    append(response, RATELIMIT, limits(decisions));

    let refusals = decisions.iter().filter(|(_, decision)| !decision.allowed);
    if let Some(seconds) = refusals.map(|(_, decision)| decision.retry_after).max() {
        response.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
}

fn limits<C: Clock>(decisions: &[(&RateLimiter<C>, Decision)]) -> Vec<u8> {
    // Exactly as long as what is written: then the value takes the buffer over as it is.
    let length = |(limiter, decision): &(&RateLimiter<C>, Decision)| {
        limiter.fields.limit_start.len()
            + digits(decision.remaining.into())
            + ";t=".len()
            + digits(decision.reset_after)
    };
    let separators = ", ".len() * decisions.len().saturating_sub(1);
    let mut text = Vec::with_capacity(decisions.iter().map(length).sum::<usize>() + separators);
    for (position, (limiter, decision)) in decisions.iter().enumerate() {
        if position > 0 {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(limiter.fields.limit_start.as_bytes());
        text.extend_from_slice(itoa::Buffer::new().format(decision.remaining).as_bytes());
        text.extend_from_slice(b";t=");
        text.extend_from_slice(itoa::Buffer::new().format(decision.reset_after).as_bytes());
    }
    text
}

fn append(response: &mut fields::Fields, name: HeaderName, text: Vec<u8>) {
    let value = HeaderValue::from_maybe_shared(Bytes::from(text))
        .expect("it is made of structured strings and digits only");
    response.append(name, value);
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// RFC 9651 §3.3.3. A name may be any text; a character that such a string cannot have becomes a `?`.
fn structured_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::config::{self, At, KeyPart, Rate, Span};

    fn limiter(name: &str, count: u32, per_s: u64, burst: u32) -> RateLimiter<FakeRelativeClock> {
        let config = config::RateLimit {
            name: At { value: name.into(), span: Span::default() },
            key: vec![KeyPart::Ip],
            rate: Rate { count, per: Duration::from_secs(per_s) },
            burst,
            max_keys: 10,
        };
        RateLimiter::with_clock(&config, FakeRelativeClock::default())
    }

    fn decision(allowed: bool, remaining: u32, reset_after: u64, retry_after: u64) -> Decision {
        Decision { allowed, quota: 200, remaining, reset_after, retry_after }
    }

    fn all(headers: &fields::Fields, name: &'static str) -> Vec<String> {
        let name = HeaderName::from_static(name);
        headers.get_all(&name).map(|value| fields::text(value).unwrap().to_owned()).collect()
    }

    #[test]
    fn one_limit_is_one_member() {
        let per_client = limiter("per-client", 100, 1, 200);
        let mut headers = fields::Fields::new();
        write_headers(&mut headers, &[(&per_client, decision(true, 199, 1, 0))]);
        assert_eq!(all(&headers, "ratelimit-policy"), ["\"per-client\";q=200;w=2"]);
        assert_eq!(all(&headers, "ratelimit"), ["\"per-client\";r=199;t=1"]);
        assert!(!headers.contains(&RETRY_AFTER));
    }

    #[test]
    fn several_limits_are_one_list_and_the_longest_wait_counts() {
        let per_client = limiter("per-client", 100, 1, 200);
        let per_user = limiter("per-user", 600, 60, 50);
        let mut headers = fields::Fields::new();
        let decisions = [(&per_client, decision(false, 0, 10, 3)), (&per_user, decision(false, 0, 100, 42))];
        write_headers(&mut headers, &decisions);
        assert_eq!(all(&headers, "ratelimit-policy"), ["\"per-client\";q=200;w=2, \"per-user\";q=50;w=5"]);
        assert_eq!(all(&headers, "ratelimit"), ["\"per-client\";r=0;t=10, \"per-user\";r=0;t=100"]);
        assert_eq!(all(&headers, "retry-after"), ["42"]);
    }

    #[test]
    fn only_refusals_say_when_to_come_back() {
        let per_client = limiter("a", 1, 1, 1);
        let mut headers = fields::Fields::new();
        let decisions = [(&per_client, decision(true, 0, 99, 99)), (&per_client, decision(false, 0, 7, 7))];
        write_headers(&mut headers, &decisions);
        assert_eq!(all(&headers, "retry-after"), ["7"]);
    }

    #[test]
    fn the_instance_s_own_limits_stay_beside_ours() {
        let mut headers = fields::Fields::new();
        headers.insert(RATELIMIT, HeaderValue::from_static("\"theirs\";r=1"));
        let per_client = limiter("ours", 1, 1, 1);
        write_headers(&mut headers, &[(&per_client, decision(true, 0, 1, 1))]);
        assert_eq!(all(&headers, "ratelimit"), ["\"theirs\";r=1", "\"ours\";r=0;t=1"]);
    }

    #[test]
    fn without_a_limit_nothing_is_said() {
        let mut headers = fields::Fields::new();
        write_headers::<FakeRelativeClock>(&mut headers, &[]);
        assert!(headers.is_empty());
    }

    #[test]
    fn any_name_makes_a_structured_string() {
        assert_eq!(structured_string("a \"b\" \\ c"), "\"a \\\"b\\\" \\\\ c\"");
        assert_eq!(structured_string("pro Käufer\n"), "\"pro K?ufer?\"");
    }

    #[test]
    fn the_buffer_is_exactly_as_long_as_the_text() {
        let per_client = limiter("per-client", 100, 1, 200);
        for (remaining, reset) in [(0, 0), (9, 10), (10, 99), (u32::MAX, u64::MAX)] {
            let text = limits(&[(&per_client, decision(true, remaining, reset, 0)); 3]);
            assert_eq!(text.len(), text.capacity());
        }
    }
}
