//! What a service has promised, and whether a test shows that it is kept.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::record::Tally;
use super::stats::share_interval;
use super::table::{count, time};

/// Standard deviations that a share must be away from its limit to be sure of it: right 39 times of 40.
const SURE: f64 = 1.96;

/// `p99=20ms,errors=0.1%`
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// As it was written.
    pub text: String,
    /// Of all requests, this share takes at most so long.
    latencies: Vec<(f64, Duration)>,
    /// The share that may fail.
    errors: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    Fails,
    /// As far as was seen, with too few requests to be sure.
    SeemsToHold,
    SeemsToFail,
}

impl Verdict {
    pub fn holds(self) -> bool {
        matches!(self, Verdict::Holds | Verdict::SeemsToHold)
    }

    pub fn is_sure(self) -> bool {
        matches!(self, Verdict::Holds | Verdict::Fails)
    }

    pub fn words(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Fails => "fails",
            Verdict::SeemsToHold => "seems to hold",
            Verdict::SeemsToFail => "seems to fail",
        }
    }
}

impl std::str::FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Objective, String> {
        let mut objective = Objective { text: text.to_owned(), latencies: Vec::new(), errors: None };
        for part in text.split(',').map(str::trim) {
            let wrong = || format!("{part:?} is no objective: write p99=20ms or errors=0.1%");
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            match name {
                "errors" => {
                    let percent: f64 =
                        value.strip_suffix('%').and_then(|p| p.parse().ok()).ok_or_else(wrong)?;
                    let share =
                        Some(percent / 100.0).filter(|share| (0.0..1.0).contains(share)).ok_or_else(wrong)?;
                    objective.errors = Some(share);
                }
                _ => {
                    let percentile: f64 =
                        name.strip_prefix('p').and_then(|p| p.parse().ok()).ok_or_else(wrong)?;
                    if !(1.0..=99.999).contains(&percentile) {
                        return Err(wrong());
                    }
                    let limit = crate::cli::duration(value)
                        .ok()
                        .filter(|limit| !limit.is_zero())
                        .ok_or_else(wrong)?;
                    objective.latencies.push((percentile / 100.0, limit));
                }
            }
        }
        Ok(objective)
    }
}

impl Objective {
    /// Requests that tell a share at its limit from one half as large.
    pub fn requests_needed(&self) -> u64 {
        let shares = self.latencies.iter().map(|(quantile, _)| 1.0 - quantile).chain(self.errors);
        // An objective of no errors at all can't be shown by counting; it gets as many as one in a thousand.
        let least = shares.fold(1.0, f64::min).max(0.001);
        (12.0 / least).ceil() as u64
    }

    pub fn judge(&self, tally: &Tally) -> Verdict {
        if tally.requests == 0 {
            return Verdict::Fails;
        }
        // What never connected has no latency, and was not within any limit either.
        let without = tally.requests - tally.latency.len().min(tally.requests);
        let late = self.latencies.iter().map(|(quantile, limit)| {
            share(slower(&tally.latency, *limit) + without, tally.requests, 1.0 - quantile)
        });
        let failed = self.errors.iter().map(|limit| share(tally.errors, tally.requests, *limit));
        late.chain(failed).fold(Verdict::Holds, worse)
    }
}

fn slower(latency: &Histogram<u64>, limit: Duration) -> u64 {
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    // Those that the histogram can't tell from the limit are within it.
    let within = latency.count_between(0, limit.min(latency.high()));
    latency.len() - within.min(latency.len())
}

fn share(hits: u64, of: u64, limit: f64) -> Verdict {
    let (low, high) = share_interval(hits, of, SURE);
    // A limit of nothing can't be shown to hold by counting, so that none is counted is enough.
    if high <= limit || (limit == 0.0 && hits == 0) {
        Verdict::Holds
    } else if low > limit {
        Verdict::Fails
    } else if hits as f64 <= limit * of as f64 {
        Verdict::SeemsToHold
    } else {
        Verdict::SeemsToFail
    }
}

fn worse(one: Verdict, other: Verdict) -> Verdict {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Holds => 0,
        Verdict::SeemsToHold => 1,
        Verdict::SeemsToFail => 2,
        Verdict::Fails => 3,
    };
    std::cmp::max_by_key(one, other, rank)
}

/// `p99 12.3 ms, 3 errors`, for the objective's own percentiles.
pub fn seen(objective: &Objective, tally: &Tally) -> String {
    let latency = objective.latencies.iter().map(|(quantile, _)| {
        let value = tally.latency.value_at_quantile(*quantile) as f64 / 1e6;
        format!("p{} {}", (quantile * 1e5).round() / 1e3, time(value))
    });
    latency.chain([format!("{} errors", count(tally.errors))]).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn objective(text: &str) -> Objective {
        text.parse().expect(text)
    }

    fn tally(fast: u64, slow: u64, errors: u64) -> Tally {
        let mut tally = Tally::new();
        tally.latency.saturating_record_n(1_000_000, fast);
        tally.latency.saturating_record_n(30_000_000, slow);
        (tally.requests, tally.errors) = (fast + slow, errors);
        tally
    }

    #[test]
    fn objectives_are_read() {
        assert_eq!(objective("p99=20ms").latencies, [(0.99, Duration::from_millis(20))]);
        assert_eq!(objective("p50=5ms, p99.9=1s, errors=0.1%").errors, Some(0.001));
        for bad in [
            "",
            "p99",
            "p99=20",
            "p0=1s",
            "p100=1s",
            "q=1s",
            "errors=1",
            "errors=100%",
            "errors=-1%",
            "p99=0s",
            "p99=1s,",
        ] {
            assert!(bad.parse::<Objective>().is_err(), "{bad}");
        }
        assert_eq!(objective("p99=1s").requests_needed(), 1200);
        assert_eq!(objective("p50=1s,errors=0%").requests_needed(), 12_000);
    }

    #[test]
    fn a_verdict_is_sure_with_enough_requests() {
        let slo = objective("p99=20ms,errors=1%");
        assert_eq!(slo.judge(&tally(10_000, 0, 0)), Verdict::Holds);
        assert_eq!(slo.judge(&tally(10_000, 500, 0)), Verdict::Fails);
        assert_eq!(slo.judge(&tally(10_000, 0, 500)), Verdict::Fails);
        assert_eq!(slo.judge(&tally(50, 0, 0)), Verdict::SeemsToHold);
        assert_eq!(slo.judge(&tally(50, 1, 0)), Verdict::SeemsToFail);
        assert_eq!(slo.judge(&tally(0, 0, 0)), Verdict::Fails);
        assert_eq!(objective("errors=0%").judge(&tally(100, 0, 0)), Verdict::Holds);
        assert_eq!(seen(&slo, &tally(10, 0, 2)), "p99 1.00 ms, 2 errors");
        // Requests that never had a connection were not fast.
        let mut refused = tally(100, 0, 0);
        refused.requests = 1000;
        assert_eq!(objective("p50=20ms").judge(&refused), Verdict::Fails);
    }

    proptest! {
        #[test]
        fn more_slow_ones_never_make_it_better(fast in 1u64..5000, slow in 0u64..500, errors in 0u64..100) {
            let slo = objective("p95=20ms,errors=5%");
            let one = slo.judge(&tally(fast, slow, errors.min(fast)));
            let other = slo.judge(&tally(fast, slow + 50, errors.min(fast)));
            prop_assert!(one.holds() || !other.holds() || errors > 0, "{:?} {:?}", one, other);
        }
    }
}
