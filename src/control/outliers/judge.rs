//! Who does worse than the others, and by how much: numbers in, faults out.
//!
//! What is usual among the others is the one in the middle of them, the better of the two where they are even in number:
//! several that do badly are outliers as long as they are not the greater part. When all do equally
//! badly, none is one: what all of them depend on has failed, and fewer of them would not make it better.

use std::fmt;
use std::time::Duration;

use crate::service::{EjectionReason, OutlierSettings};

/// What came of the requests to an instance in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// How many, when they are too many.
    pub failures_in_a_row: Option<u64>,
    /// It can't be reached, and has not come back in between.
    pub is_gone: bool,
    pub requests: u32,
    /// 0 to 1; `None` when there were too few requests to say.
    pub failure_ratio: Option<f64>,
    /// What the answer in the middle took; `None` likewise.
    pub latency: Option<Duration>,
}

/// How an instance does worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    InARow { failures: u64 },
    Fails { ratio: f64, usual: f64, requests: u32 },
    Slow { latency: Duration, usual: Duration },
}

/// A difference that nobody feels makes no outlier, however many times it is.
const FELT: Duration = Duration::from_millis(5);

/// Those that are to be ejected, by their place in `seen`, the worst first.
pub fn judge(seen: &[Seen], settings: &OutlierSettings) -> Vec<(usize, Fault)> {
    let ratios = Others::of(seen.iter().map(|one| one.failure_ratio));
    let latencies = Others::of(seen.iter().map(|one| one.latency.map(|latency| latency.as_secs_f64())));
    let fault = |(index, one): (usize, &Seen)| {
        let in_a_row = one.failures_in_a_row.map(|failures| Fault::InARow { failures });
        let fails = || {
            let (ratio, usual) = (one.failure_ratio?, ratios.usual_beside(one.failure_ratio?)?);
            let too_many = ratio - usual >= settings.failure_ratio? - 1e-9;
            too_many.then_some(Fault::Fails { ratio, usual, requests: one.requests })
        };
        let slow = || {
            let latency = one.latency?;
            let usual = Duration::from_secs_f64(latencies.usual_beside(latency.as_secs_f64())?);
            let too_slow = latency >= usual.mul_f64(settings.latency?) && latency >= usual + FELT;
            too_slow.then_some(Fault::Slow { latency, usual })
        };
        Some((index, in_a_row.or_else(fails).or_else(slow)?))
    };
    let mut faults: Vec<(usize, Fault)> = seen.iter().enumerate().filter_map(fault).collect();
    faults.sort_by(|(_, one), (_, other)| other.gravity().total_cmp(&one.gravity()));
    faults
}

/// The values of all instances that have one.
struct Others(Vec<f64>);

impl Others {
    fn of(values: impl Iterator<Item = Option<f64>>) -> Self {
        let mut values: Vec<f64> = values.flatten().collect();
        values.sort_by(f64::total_cmp);
        Others(values)
    }

    /// The value in the middle of all but one, which is `own`; `None` without any other.
    fn usual_beside(&self, own: f64) -> Option<f64> {
        let middle = self.0.len().checked_sub(2)? / 2;
        let place = self.0.partition_point(|value| *value < own);
        self.0.get(if place <= middle { middle + 1 } else { middle }).copied()
    }
}

impl Fault {
    pub fn reason(&self) -> EjectionReason {
        match self {
            Fault::InARow { .. } => EjectionReason::ConsecutiveFailures,
            Fault::Fails { .. } => EjectionReason::FailureRatio,
            Fault::Slow { .. } => EjectionReason::Latency,
        }
    }

    /// Failing is worse than being slow, and failing always is worst.
    fn gravity(&self) -> f64 {
        match self {
            Fault::InARow { failures } => 1e12 + *failures as f64,
            Fault::Fails { ratio, usual, .. } => 1e9 * (1.0 + ratio - usual),
            Fault::Slow { latency, usual } => {
                (latency.as_secs_f64() / usual.as_secs_f64().max(1e-6)).min(1e8)
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::InARow { failures } => write!(f, "{failures} failures in a row"),
            Fault::Fails { ratio, usual, requests } => write!(
                f,
                "{:.0}% of {requests} requests failed, where {:.0}% is usual",
                ratio * 100.0,
                usual * 100.0
            ),
            Fault::Slow { latency, usual } => write!(
                f,
                "answers take {:.1} ms, where {:.1} ms is usual",
                latency.as_secs_f64() * 1e3,
                usual.as_secs_f64() * 1e3
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::EjectionTime;

    const NOBODY: [usize; 0] = [];

    fn settings() -> OutlierSettings {
        OutlierSettings {
            consecutive_failures: Some(5),
            failure_ratio: Some(0.3),
            latency: Some(3.0),
            minimum_requests: 20,
            interval: Duration::from_secs(10),
            time: EjectionTime { base: Duration::from_secs(30), max: Duration::from_secs(300) },
            max_ejected: 50,
        }
    }

    fn failing(ratio: f64) -> Seen {
        Seen { requests: 100, failure_ratio: Some(ratio), ..Seen::default() }
    }

    fn taking(ms: u64) -> Seen {
        Seen { requests: 100, latency: Some(Duration::from_millis(ms)), ..failing(0.0) }
    }

    fn places(seen: &[Seen]) -> Vec<usize> {
        judge(seen, &settings()).into_iter().map(|(index, _)| index).collect()
    }

    #[test]
    fn who_fails_more_than_is_usual_is_an_outlier() {
        assert_eq!(places(&[]), NOBODY);
        assert_eq!(places(&[failing(1.0)]), NOBODY, "there is nothing to compare it with");
        assert_eq!(places(&[failing(0.3), failing(0.0)]), [0]);
        assert_eq!(places(&[failing(0.29), failing(0.0)]), NOBODY);
        assert_eq!(places(&[failing(0.4), failing(0.2), failing(0.2)]), NOBODY);
        assert_eq!(places(&[failing(0.6), failing(0.0), failing(0.9)]), [2, 0], "the worse first");
        assert_eq!(places(&[failing(0.5); 4]), NOBODY, "all do equally badly");
        assert_eq!(places(&[failing(0.9), failing(0.9), failing(0.9), failing(0.0)]), NOBODY, "most do");
        assert_eq!(
            places(&[failing(1.0), Seen { requests: 3, ..Seen::default() }]),
            NOBODY,
            "too few to say"
        );
    }

    #[test]
    fn who_takes_much_longer_than_is_usual_is_an_outlier() {
        assert_eq!(places(&[taking(30), taking(10), taking(12)]), [0]);
        assert_eq!(places(&[taking(29), taking(10), taking(10)]), NOBODY);
        assert_eq!(places(&[taking(6), taking(2), taking(2)]), NOBODY, "nobody feels it");
        assert_eq!(places(&[taking(2000), taking(10), taking(900), taking(11)]), [0, 2]);
        assert_eq!(places(&[taking(500), Seen::default()]), NOBODY);
    }

    #[test]
    fn failing_is_worse_than_being_slow() {
        let in_a_row = Seen { failures_in_a_row: Some(7), ..Seen::default() };
        let seen = [taking(9000), failing(0.9), in_a_row, taking(10), taking(10)];
        let faults = judge(&seen, &settings());
        let told: Vec<_> = faults.iter().map(|(index, fault)| (*index, fault.to_string())).collect();
        assert_eq!(
            told,
            [
                (2, "7 failures in a row".to_owned()),
                (1, "90% of 100 requests failed, where 0% is usual".to_owned()),
                (0, "answers take 9000.0 ms, where 10.0 ms is usual".to_owned()),
            ]
        );
    }

    #[test]
    fn what_is_off_is_not_asked() {
        let off = OutlierSettings { failure_ratio: None, latency: None, ..settings() };
        assert_eq!(judge(&[failing(1.0), taking(10), taking(900)], &off), []);
    }
}
