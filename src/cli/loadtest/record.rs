//! What is kept of all requests: histograms and counts, by target and by slice of time. Its size depends on the
//! number of targets and on nothing else; not on how many requests there are or how long it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::outcome::{Accepted, Fault, Outcome};

/// Latencies are kept in nanoseconds, told apart from this many on.
const FINEST_NS: u64 = 128;
/// What takes longer counts as this.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// Slices of time that a test is divided into, at most.
pub const MAX_SLICES: usize = 120;
const SHORTEST_SLICE: Duration = Duration::from_millis(100);
/// Different reasons that are counted for a target; further ones count together.
const MAX_REASONS: usize = 64;
const MAX_REASON_BYTES: usize = 64;
/// What a glimpse shows the latencies of.
const RECENT: Duration = Duration::from_secs(2);
const OTHER: &str = "other";

/// Three digits: values are off by a thousandth at most.
pub fn histogram() -> Histogram<u64> {
    bounded(3)
}

fn bounded(digits: u8) -> Histogram<u64> {
    let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(FINEST_NS, longest, digits).expect("the bounds and digits are good constants")
}

/// The counts of a number of requests.
#[derive(Clone)]
pub struct Tally {
    pub requests: u64,
    /// Without an answer, or with a status that isn't accepted.
    pub errors: u64,
    pub bytes: u64,
    pub latency: Histogram<u64>,
    pub statuses: BTreeMap<u16, u64>,
    pub reasons: BTreeMap<String, u64>,
    pub faults: BTreeMap<Fault, u64>,
    /// Of each kind of fault what the first one said.
    pub said: BTreeMap<Fault, String>,
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            requests: 0,
            errors: 0,
            bytes: 0,
            latency: histogram(),
            statuses: BTreeMap::new(),
            reasons: BTreeMap::new(),
            faults: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    fn add(&mut self, latency: Duration, outcome: &Outcome, is_error: bool) {
        self.requests += 1;
        self.errors += u64::from(is_error);
        match outcome {
            Outcome::Answered { status, bytes, reason } => {
                self.bytes += bytes;
                *self.statuses.entry(*status).or_default() += 1;
                if let Some(reason) = reason {
                    self.count_reason(reason, 1);
                }
                self.latency.saturating_record(nanos(latency));
            }
            Outcome::Failed(fault, said) => {
                *self.faults.entry(*fault).or_default() += 1;
                self.said.entry(*fault).or_insert_with(|| said.clone());
                if fault.has_latency() {
                    self.latency.saturating_record(nanos(latency));
                }
            }
        }
    }

    fn count_reason(&mut self, reason: &str, times: u64) {
        let known = self.reasons.contains_key(reason);
        let fits = self.reasons.len() < MAX_REASONS && reason.len() <= MAX_REASON_BYTES;
        let reason = if known || fits { reason } else { OTHER };
        *self.reasons.entry(reason.to_owned()).or_default() += times;
    }

    pub fn merge(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.bytes += other.bytes;
        self.latency.add(&other.latency).expect("all have the same bounds");
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (reason, count) in &other.reasons {
            self.count_reason(reason, *count);
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (fault, said) in &other.said {
            self.said.entry(*fault).or_insert_with(|| said.clone());
        }
    }
}

/// A stretch of the test. A request belongs to the one in which it was due.
#[derive(Clone)]
pub struct Slice {
    pub requests: u64,
    pub errors: u64,
    /// Two digits are enough here.
    pub latency: Histogram<u64>,
}

impl Slice {
    fn new() -> Slice {
        Slice { requests: 0, errors: 0, latency: bounded(2) }
    }

    pub fn merge(&mut self, other: &Slice) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.latency.add(&other.latency).expect("all have the same bounds");
    }
}

/// What is counted, and how.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Requests that are due earlier are sent and not counted.
    pub warmup: Duration,
    /// Of what is counted.
    pub duration: Duration,
    /// What each target accepts.
    pub accepted: Vec<Accepted>,
}

impl Frame {
    /// How long a slice is.
    pub fn slice(&self) -> Duration {
        let most = u32::try_from(MAX_SLICES).expect("a small constant");
        (self.duration / most).max(SHORTEST_SLICE)
    }

    fn slices(&self) -> usize {
        let exact = self.duration.as_nanos().div_ceil(self.slice().as_nanos());
        usize::try_from(exact).unwrap_or(MAX_SLICES).clamp(1, MAX_SLICES + 1)
    }
}

/// How a test goes, while it does: little enough to be put together under way.
#[derive(Default)]
pub struct Glimpse {
    pub elapsed: Duration,
    pub in_flight: usize,
    pub requests: u64,
    pub errors: u64,
    /// The slices of the last while, and how many seconds they are; nothing in the warm-up.
    pub recent: Option<(Slice, f64)>,
}

/// Takes down what becomes of requests. Times are measured from the beginning of the test.
#[derive(Clone)]
pub struct Recorder {
    frame: Frame,
    pub targets: Vec<Tally>,
    pub slices: Vec<Slice>,
    /// How late requests were sent though a connection was free: the load generator's own lag.
    pub lag: Histogram<u64>,
    pub last_end: Duration,
}

impl Recorder {
    pub fn new(frame: &Frame) -> Recorder {
        Recorder {
            targets: frame.accepted.iter().map(|_| Tally::new()).collect(),
            slices: (0..frame.slices()).map(|_| Slice::new()).collect(),
            lag: histogram(),
            last_end: Duration::ZERO,
            frame: frame.clone(),
        }
    }

    /// A request to the target with this number that was due, or sent, at `since`, and ended at `end`.
    pub fn record(&mut self, target: usize, since: Duration, end: Duration, outcome: &Outcome) {
        let Some(counted_since) = since.checked_sub(self.frame.warmup) else { return };
        let latency = end.saturating_sub(since);
        let is_error = match outcome {
            Outcome::Answered { status, .. } => !self.frame.accepted[target].accepts(*status),
            Outcome::Failed(..) => true,
        };
        self.targets[target].add(latency, outcome, is_error);
        let at = counted_since.as_nanos() / self.frame.slice().as_nanos();
        let last = self.slices.len() - 1;
        let slice = &mut self.slices[usize::try_from(at).unwrap_or(last).min(last)];
        slice.requests += 1;
        slice.errors += u64::from(is_error);
        if !matches!(outcome, Outcome::Failed(fault, _) if !fault.has_latency()) {
            slice.latency.saturating_record(nanos(latency));
        }
        self.last_end = self.last_end.max(end);
    }

    /// That a request was sent so much later than it was due, with a connection free.
    pub fn record_lag(&mut self, due: Duration, lag: Duration) {
        if due >= self.frame.warmup {
            self.lag.saturating_record(nanos(lag));
        }
    }

    /// Adds what is known here to what is known elsewhere.
    pub fn glimpse_into(&self, glimpse: &mut Glimpse, elapsed: Duration) {
        glimpse.elapsed = elapsed;
        glimpse.requests += self.targets.iter().map(|target| target.requests).sum::<u64>();
        glimpse.errors += self.targets.iter().map(|target| target.errors).sum::<u64>();
        let Some(counted) = elapsed.checked_sub(self.frame.warmup) else { return };
        let slice = self.frame.slice();
        let index =
            |time: Duration| usize::try_from(time.as_nanos() / slice.as_nanos()).unwrap_or(usize::MAX);
        let last = index(counted).min(self.slices.len() - 1);
        let first = index(counted.saturating_sub(RECENT)).min(last);
        let begun = slice.saturating_mul(u32::try_from(first).unwrap_or(u32::MAX));
        let seconds = counted.saturating_sub(begun).as_secs_f64();
        let (recent, _) = glimpse.recent.get_or_insert_with(|| (Slice::new(), seconds));
        self.slices[first..=last].iter().for_each(|slice| recent.merge(slice));
    }

    pub fn merge(&mut self, other: &Recorder) {
        for (mine, others) in self.targets.iter_mut().zip(&other.targets) {
            mine.merge(others);
        }
        for (mine, others) in self.slices.iter_mut().zip(&other.slices) {
            mine.merge(others);
        }
        self.lag.add(&other.lag).expect("all have the same bounds");
        self.last_end = self.last_end.max(other.last_end);
    }

    /// All targets together.
    pub fn whole(&self) -> Tally {
        let mut whole = Tally::new();
        for target in &self.targets {
            whole.merge(target);
        }
        whole
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn frame(targets: usize, warmup: Duration, duration: Duration) -> Frame {
        Frame { warmup, duration, accepted: vec![Accepted::default(); targets] }
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, bytes: 10, reason: (status == 429).then(|| "rate_limited".to_owned()) }
    }

    #[test]
    fn requests_are_counted_where_they_belong() {
        let mut recorder = Recorder::new(&frame(2, Duration::from_secs(1), Duration::from_secs(2)));
        recorder.record(0, 999 * MS, 3000 * MS, &answered(500));
        assert_eq!(recorder.whole().requests, 0, "what was due in the warm-up does not count");
        recorder.record(0, 1000 * MS, 1002 * MS, &answered(200));
        recorder.record(1, 1150 * MS, 1151 * MS, &answered(429));
        recorder.record(1, 2999 * MS, 3500 * MS, &Outcome::Failed(Fault::Timeout, "late".into()));
        recorder.record(1, 2999 * MS, 3000 * MS, &Outcome::Failed(Fault::Connect, "refused".into()));
        let whole = recorder.whole();
        assert_eq!((whole.requests, whole.errors, whole.bytes), (4, 3, 20));
        assert_eq!(whole.statuses, BTreeMap::from([(200, 1), (429, 1)]));
        assert_eq!(whole.reasons, BTreeMap::from([("rate_limited".to_owned(), 1)]));
        assert_eq!(whole.faults, BTreeMap::from([(Fault::Timeout, 1), (Fault::Connect, 1)]));
        assert_eq!(whole.latency.len(), 3, "a refused connection has no latency");
        assert_eq!(recorder.targets[0].requests, 1);
        assert_eq!(recorder.slices.len(), 20);
        let requests: Vec<u64> = recorder.slices.iter().map(|slice| slice.requests).collect();
        assert_eq!((requests[0], requests[1], requests[19]), (1, 1, 2));
        assert_eq!(recorder.last_end, 3500 * MS);
    }

    #[test]
    fn reasons_are_bounded() {
        let mut tally = Tally::new();
        for number in 0..1000 {
            tally.count_reason(&format!("reason-{number}"), 1);
        }
        tally.count_reason(&"x".repeat(1000), 1);
        assert_eq!((tally.reasons.len(), tally.reasons[OTHER]), (MAX_REASONS + 1, 1000 - 64 + 1));
    }

    #[test]
    fn slices_are_bounded_however_long_it_takes() {
        for seconds in [0, 1, 10, 119, 3600, 86_400] {
            let frame = frame(1, Duration::ZERO, Duration::from_secs(seconds));
            let mut recorder = Recorder::new(&frame);
            assert!((1..=MAX_SLICES + 1).contains(&recorder.slices.len()), "{seconds} s");
            recorder.record(0, Duration::from_secs(seconds * 2), LONGEST * 3, &answered(200));
            assert_eq!(recorder.slices.last().expect("there is one").requests, 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        /// However requests are divided among threads, their sum is the same; and percentiles are those of the
        /// samples, to a thousandth.
        #[test]
        fn merged_recorders_have_the_percentiles_of_all(
            samples in prop::collection::vec((1_000u64..10_000_000_000, 0usize..3), 1..300),
        ) {
            let frame = frame(1, Duration::ZERO, Duration::from_secs(10));
            let mut parts = vec![Recorder::new(&frame); 3];
            for (nanos, part) in &samples {
                parts[*part].record(0, Duration::ZERO, Duration::from_nanos(*nanos), &answered(200));
            }
            let mut all = Recorder::new(&frame);
            parts.iter().for_each(|part| all.merge(part));
            let whole = all.whole();
            prop_assert_eq!(whole.requests, samples.len() as u64);
            let mut sorted: Vec<u64> = samples.iter().map(|(nanos, _)| *nanos).collect();
            sorted.sort_unstable();
            for quantile in [0.0, 0.5, 0.9, 0.99, 1.0] {
                let rank = ((quantile * sorted.len() as f64).ceil() as usize).max(1);
                let exact = sorted[rank - 1] as f64;
                let kept = whole.latency.value_at_quantile(quantile) as f64;
                prop_assert!((kept - exact).abs() <= exact / 1000.0 + 128.0, "{}: {} for {}", quantile, kept, exact);
            }
        }
    }
}
