//! How long to wait before trying again.
//!
//! Full jitter: a random time between nothing and a bound that doubles with each retry, so that
//! requests which failed together do not come back together. When the upstream itself said when to
//! come back (RFC 9110 §10.2.3), that is what counts. Never longer than there is time left.

use std::time::{Duration, SystemTime};

use http::HeaderValue;

use super::settings::RetrySettings;

/// What a `Retry-After` beyond this is taken as. No request waits that long; it only keeps sums in range.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The time to wait before retry number `retry` (from 0), or `None` when it would not fit into
/// `remaining`, and the answer at hand is the one to give.
pub fn delay(
    settings: &RetrySettings,
    retry: u32,
    retry_after: Option<Duration>,
    remaining: Duration,
    rng: &mut fastrand::Rng,
) -> Option<Duration> {
    let wait = retry_after.unwrap_or_else(|| jittered(settings, retry, rng));
    (wait < remaining).then_some(wait)
}

fn jittered(settings: &RetrySettings, retry: u32, rng: &mut fastrand::Rng) -> Duration {
    let bound = settings.backoff_base.saturating_mul(1u32 << retry.min(31)).min(settings.backoff_max);
    let bound_us = bound.as_micros().min(u128::from(u64::MAX)) as u64;
    Duration::from_micros(rng.u64(0..=bound_us))
}

/// What a `Retry-After` field says: seconds, or a date that is compared with `now`. A date in the past is no
/// time at all; anything else is as if the field were not there.
pub fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let value = value.to_str().ok()?.trim_matches([' ', '\t']);
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit are a very long time, not nonsense.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::scenarios;

    fn settings() -> RetrySettings {
        let config = scenarios::config(crate::config::LoadBalancing::Random, &[]);
        super::super::Settings::compile(&config).retries
    }

    #[test]
    fn the_bound_doubles_and_the_whole_range_below_it_is_used() {
        let settings = settings(); // 25 ms, at most 1 s
        let mut rng = fastrand::Rng::with_seed(7);
        for (retry, bound_ms) in
            [(0, 25), (1, 50), (2, 100), (5, 800), (6, 1000), (40, 1000), (u32::MAX, 1000)]
        {
            let waits: Vec<u128> = (0..2000)
                .map(|_| delay(&settings, retry, None, Duration::MAX, &mut rng).unwrap().as_micros())
                .collect();
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*most <= bound_ms * 1000 && *most > bound_ms * 950, "{retry}: {most}");
            assert!(*least < bound_ms * 50, "{retry}: {least}");
            let mean = waits.iter().sum::<u128>() / 2000;
            assert!((bound_ms * 450..bound_ms * 550).contains(&mean), "{retry}: {mean}");
        }
    }

    #[test]
    fn the_upstreams_word_wins_as_long_as_there_is_time() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut wait = |after, remaining| {
            delay(&settings(), 0, Some(Duration::from_secs(after)), Duration::from_secs(remaining), &mut rng)
        };
        assert_eq!(wait(2, 10), Some(Duration::from_secs(2)));
        assert_eq!(wait(0, 10), Some(Duration::ZERO));
        assert_eq!(wait(10, 10), None);
        assert_eq!(wait(0, 0), None, "no time is left at all");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let parse = |text: &'static str| retry_after(&HeaderValue::from_static(text), now);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(parse("0"), seconds(0));
        assert_eq!(parse("120"), seconds(120));
        assert_eq!(parse(" 120\t"), seconds(120));
        assert_eq!(parse("Wed, 21 Oct 2015 07:28:30 GMT"), seconds(30));
        assert_eq!(parse("Wed, 21 Oct 2015 07:27:00 GMT"), seconds(0));
        assert_eq!(parse("99999999999999999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(parse("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LONGEST_RETRY_AFTER));
        for nonsense in ["", "-1", "1.5", "+3", "soon", "1 2"] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(retry_after(&HeaderValue::from_bytes(&[0xff]).unwrap(), now), None);
    }
}
