//! What a test has shown, as it is written with `--json` and read again with `--compare`. Times are milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::engine::Ended;
use super::find_max::Found;
use super::outcome::Fault;
use super::plan::{Load, Plan};
use super::record::{Slice, Tally};
use super::stats::quantile_interval;

/// Quantiles that are told.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Of this document.
    pub format: u32,
    pub gatehouse: String,
    pub target: String,
    pub load: LoadTold,
    /// Seconds since 1970.
    pub started: u64,
    pub seconds: f64,
    #[serde(flatten)]
    pub whole: Counts,
    /// Requests of a second that were sent, over the whole test.
    pub rate: f64,
    /// Requests of a second that got an accepted answer.
    pub good_rate: f64,
    /// By how much the load generator itself was late. Latencies with an open load include it.
    pub lag: Percentiles,
    /// Whether it ended before its time.
    pub interrupted: bool,
    pub targets: Vec<TargetResults>,
    pub slice_seconds: f64,
    pub slices: Vec<SliceResults>,
    /// The whole histogram: latencies and how many had them.
    pub histogram: Vec<(f64, u64)>,
    /// Whether what was promised was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveTold>,
    /// What the search came to, of which all else here is the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveTold {
    pub objective: String,
    pub holds: bool,
    /// Whether enough was measured to be sure.
    pub sure: bool,
    pub seen: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadTold {
    pub kind: LoadKind,
    /// Requests a second, or requests at once: the highest of the test.
    pub level: f64,
    pub constant: bool,
    pub connections: usize,
    pub streams: usize,
    pub threads: usize,
    pub http2: bool,
    pub tls: bool,
    pub planned_seconds: f64,
    pub warmup_seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadKind {
    Open,
    Closed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub requests: u64,
    pub errors: u64,
    pub bytes: u64,
    pub latency: Percentiles,
    /// By status, as text.
    pub statuses: BTreeMap<String, u64>,
    pub reasons: BTreeMap<String, u64>,
    pub faults: BTreeMap<Fault, FaultTold>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultTold {
    pub count: u64,
    /// What the first one said.
    pub first: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetResults {
    pub name: String,
    #[serde(flatten)]
    pub counts: Counts,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub mean: f64,
    pub min: f64,
    pub max: f64,
    /// Each with its 95 % interval of confidence.
    pub quantiles: BTreeMap<String, Quantile>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceResults {
    pub requests: u64,
    pub errors: u64,
    /// Absent where nothing was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<SliceLatency>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceLatency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Results {
    pub fn of(plan: &Plan, ended: &Ended, started: u64, interrupted: bool) -> Results {
        let whole = ended.recorder.whole();
        let seconds = ended.elapsed.as_secs_f64();
        let unsent = whole.faults.get(&Fault::Unsent).copied().unwrap_or(0);
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let targets = plan.targets.iter().zip(&ended.recorder.targets);
        let slice = plan.frame().slice();
        Results {
            format: FORMAT,
            gatehouse: env!("CARGO_PKG_VERSION").to_owned(),
            target: plan.endpoint.name.clone(),
            load: LoadTold::of(plan),
            started,
            seconds,
            rate: per_second(whole.requests - unsent),
            good_rate: per_second(whole.requests - whole.errors),
            lag: Percentiles::of(&ended.recorder.lag),
            interrupted,
            targets: targets
                .map(|(target, tally)| TargetResults { name: target.name.clone(), counts: Counts::of(tally) })
                .collect(),
            slice_seconds: slice.as_secs_f64(),
            slices: begun(&ended.recorder.slices, slice, ended.elapsed)
                .iter()
                .map(SliceResults::of)
                .collect(),
            histogram: whole
                .latency
                .iter_recorded()
                .map(|step| (ms(step.value_iterated_to()), step.count_at_value()))
                .collect(),
            whole: Counts::of(&whole),
            objective: None,
            found: None,
            comparison: None,
        }
    }

    pub fn error_ratio(&self) -> f64 {
        if self.whole.requests == 0 { 1.0 } else { self.whole.errors as f64 / self.whole.requests as f64 }
    }

    /// # Errors
    ///
    /// When the text isn't such a document.
    pub fn parse(text: &str) -> Result<Results, String> {
        let results: Results = serde_json::from_str(text)
            .map_err(|error| format!("it is not what `gatehouse loadtest --json` writes: {error}"))?;
        match results.format {
            FORMAT => Ok(results),
            other => Err(format!("it has format {other}; this version reads format {FORMAT}")),
        }
    }
}

/// A test that ended early has no slices after its end.
fn begun(slices: &[Slice], slice: Duration, elapsed: Duration) -> &[Slice] {
    let last = slices.iter().rposition(|slice| slice.requests > 0).map_or(0, |last| last + 1);
    let begun = usize::try_from(elapsed.as_nanos().div_ceil(slice.as_nanos().max(1))).unwrap_or(usize::MAX);
    &slices[..slices.len().min(begun.max(last))]
}

impl LoadTold {
    fn of(plan: &Plan) -> LoadTold {
        let shape = plan.load.shape();
        LoadTold {
            kind: match plan.load {
                Load::Open(_) => LoadKind::Open,
                Load::Closed(_) => LoadKind::Closed,
            },
            level: shape.highest(),
            constant: shape.is_constant(),
            connections: plan.connections,
            streams: plan.streams,
            threads: plan.threads,
            http2: plan.endpoint.http2,
            tls: plan.endpoint.tls.is_some(),
            planned_seconds: shape.duration().as_secs_f64(),
            warmup_seconds: plan.warmup.as_secs_f64(),
        }
    }
}

impl Counts {
    fn of(tally: &Tally) -> Counts {
        let told = |(fault, count): (&Fault, &u64)| {
            let first = tally.said.get(fault).cloned().unwrap_or_default();
            (*fault, FaultTold { count: *count, first })
        };
        Counts {
            requests: tally.requests,
            errors: tally.errors,
            bytes: tally.bytes,
            latency: Percentiles::of(&tally.latency),
            statuses: tally.statuses.iter().map(|(status, times)| (status.to_string(), *times)).collect(),
            reasons: tally.reasons.clone(),
            faults: tally.faults.iter().map(told).collect(),
        }
    }
}

impl Percentiles {
    pub fn of(histogram: &Histogram<u64>) -> Percentiles {
        if histogram.is_empty() {
            return Percentiles::default();
        }
        let at = |quantile: f64| ms(histogram.value_at_quantile(quantile));
        let quantile = |(name, quantile): (&str, f64)| {
            let (low, high) = quantile_interval(histogram.len(), quantile);
            (name.to_owned(), Quantile { value: at(quantile), low: at(low), high: at(high) })
        };
        Percentiles {
            count: histogram.len(),
            mean: histogram.mean() / 1e6,
            min: ms(histogram.min()),
            max: ms(histogram.max()),
            quantiles: QUANTILES.into_iter().map(quantile).collect(),
        }
    }

    /// By its name, `p99` say.
    pub fn quantile(&self, name: &str) -> Option<Quantile> {
        self.quantiles.get(name).copied()
    }
}

impl SliceResults {
    fn of(slice: &Slice) -> SliceResults {
        let at = |quantile: f64| ms(slice.latency.value_at_quantile(quantile));
        let latency = (!slice.latency.is_empty()).then(|| SliceLatency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: ms(slice.latency.max()),
        });
        SliceResults { requests: slice.requests, errors: slice.errors, latency }
    }
}

fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut histogram = super::super::record::histogram();
        (1..=1000u64).for_each(|ms| histogram.saturating_record(ms * 1_000_000));
        let told = Percentiles::of(&histogram);
        let near = |name: &str, exact: f64| {
            let value = told.quantile(name).expect(name);
            assert!((value.value - exact).abs() / exact < 0.002, "{name}: {value:?}");
            assert!(value.low <= value.value && value.value <= value.high, "{name}: {value:?}");
        };
        near("p50", 500.0);
        near("p99", 990.0);
        near("p99.99", 1000.0);
        assert!((told.mean - 500.5).abs() < 1.0 && told.count == 1000);
        assert_eq!(Percentiles::of(&super::super::record::histogram()), Percentiles::default());
    }

    /// An open load on the paused clock, at a server of which everything is known.
    #[tokio::test(start_paused = true)]
    async fn a_known_server_is_told_truly() {
        use std::cell::RefCell;
        use std::rc::Rc;

        use super::super::arguments::tests::args;
        use super::super::outcome::Outcome;
        use super::super::record::Recorder;
        use super::super::timer::Timer;

        let plan = args("http://127.0.0.1/ --rate 200 --duration 50s --warmup 5s").expect("good");
        let plan = plan.prepare().unwrap_or_else(|refused| panic!("{refused:?}")).plan;
        let recorder = Rc::new(RefCell::new(Recorder::new(&plan.frame())));
        let local = tokio::task::LocalSet::new();
        let begun = tokio::time::Instant::now();
        let sending = local.run_until(async {
            let mut answers = Vec::new();
            for number in 0.. {
                let Some(due) = plan.load.shape().due(number) else { break };
                Timer::Coarse.until(begun + due).await;
                // Ninety of a hundred take 20 ms, nine 50 and one 200.
                let taken = [20, 50, 200][usize::from(number % 10 == 5) + usize::from(number % 100 == 95)];
                let recorder = recorder.clone();
                answers.push(tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(taken)).await;
                    let outcome = Outcome::Answered { status: 200, bytes: 1, reason: None };
                    recorder.borrow_mut().record(0, due, begun.elapsed(), &outcome);
                }));
            }
            for answer in answers {
                answer.await.expect("no panic");
            }
        });
        sending.await;
        let ended = Ended { recorder: recorder.borrow().clone(), elapsed: Duration::from_secs(50) };
        let results = Results::of(&plan, &ended, 0, false);
        assert_eq!((results.whole.requests, results.rate), (10_000, 200.0));
        for (name, exact) in [("p50", 20.0), ("p75", 20.0), ("p90", 20.0), ("p99", 50.0), ("p99.9", 200.0)] {
            let value = results.whole.latency.quantile(name).expect(name).value;
            // A timer of the runtime is up to a millisecond late.
            assert!((exact..=exact * 1.02 + 1.0).contains(&value), "{name}: {value}");
        }
        // Every slice has its share, and the whole is their sum.
        assert!(results.slices.iter().map(|slice| slice.requests).sum::<u64>() == 10_000);
    }

    #[test]
    fn only_documents_of_its_own_are_read() {
        for (text, told) in [("", "--json"), ("{}", "--json"), ("[1]", "--json")] {
            assert!(Results::parse(text).expect_err(text).contains(told));
        }
    }
}
