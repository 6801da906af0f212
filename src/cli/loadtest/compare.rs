//! Two tests side by side: what got better or worse, and what is noise.
//!
//! The values compared are those of stretches of time, some dozens to a test. A change is one when the ranks of both tests'
//! stretches differ as they would by chance once in a hundred times, the bootstrapped interval of the medians' ratio
//! leaves out 1, and it is large enough to matter.

use serde::{Deserialize, Serialize};

use super::results::{Results, SliceLatency, SliceResults};
use super::stats::{mann_whitney, median, median_ratio, share_interval};
use super::table::{number, percent, time};

/// Chance is let pass for a change so rarely.
const RARE: f64 = 0.01;
/// Changes smaller than this are of no account, however sure.
const SMALL: f64 = 0.03;
/// With fewer stretches nothing is told.
const FEWEST: usize = 8;
/// Neighbours are taken together until so many are left: what happens in one goes on in the next.
const MOST: usize = 30;
/// Standard deviations for one in a hundred.
const Z99: f64 = 2.576;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Better,
    Worse,
    /// Nothing that can be told from noise.
    Same,
    /// Not enough was measured.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub rows: Vec<Row>,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub before: String,
    pub after: String,
    /// As a factor, with its 95 % interval.
    pub ratio: Option<(f64, f64, f64)>,
    pub chance: Option<f64>,
    pub change: Change,
}

impl Comparison {
    pub fn of(before: &Results, after: &Results) -> Comparison {
        let latency = |name: &str, of: fn(&SliceLatency) -> f64| {
            let value = |slice: &SliceResults| slice.latency.as_ref().map(of);
            row(name, &batches(before, value), &batches(after, value), false, time)
        };
        let rate = |results: &Results| {
            let seconds = results.slice_seconds;
            batches(results, |slice| {
                Some((slice.requests - slice.errors.min(slice.requests)) as f64 / seconds)
            })
        };
        let rows = vec![
            latency("p50", |latency| latency.p50),
            latency("p90", |latency| latency.p90),
            latency("p99", |latency| latency.p99),
            row("good answers a second", &rate(before), &rate(after), true, number),
            errors(before, after),
        ];
        Comparison { rows, notes: notes(before, after) }
    }

    pub fn got_worse(&self) -> bool {
        self.rows.iter().any(|row| row.change == Change::Worse)
    }

    /// A table; its first row heads it.
    pub fn table(&self) -> Vec<Vec<String>> {
        let heads = ["", "before", "now", "change", "95 % sure", ""].map(str::to_owned).to_vec();
        let signed = |ratio: f64| format!("{:+.1} %", (ratio - 1.0) * 100.0);
        let told = |row: &Row| {
            let change = row.ratio.map_or("–".into(), |(ratio, ..)| signed(ratio));
            let between = row
                .ratio
                .map_or("–".into(), |(_, low, high)| format!("{} … {}", signed(low), signed(high)));
            vec![
                row.name.clone(),
                row.before.clone(),
                row.after.clone(),
                change,
                between,
                row.change.words().into(),
            ]
        };
        std::iter::once(heads).chain(self.rows.iter().map(told)).collect()
    }
}

impl Change {
    pub fn words(self) -> &'static str {
        match self {
            Change::Better => "better",
            Change::Worse => "WORSE",
            Change::Same => "no difference but noise",
            Change::Unknown => "too little to tell",
        }
    }
}

/// The values of stretches of time, neighbours taken together. The last slice may be cut short, and is left out.
fn batches(results: &Results, value: impl Fn(&SliceResults) -> Option<f64>) -> Vec<f64> {
    let whole = &results.slices[..results.slices.len().saturating_sub(1)];
    let together = whole.len().div_ceil(MOST).max(1);
    let mean = |slices: &[SliceResults]| {
        let values: Vec<f64> = slices.iter().filter_map(&value).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    whole.chunks(together).filter_map(mean).collect()
}

fn row(name: &str, before: &[f64], after: &[f64], more_is_better: bool, shown: fn(f64) -> String) -> Row {
    let told = |values: &[f64]| median(&mut values.to_vec()).map_or("–".to_owned(), shown);
    let mut row = Row {
        name: name.to_owned(),
        before: told(before),
        after: told(after),
        ratio: None,
        chance: None,
        change: Change::Unknown,
    };
    if before.len() < FEWEST || after.len() < FEWEST {
        return row;
    }
    let chance = mann_whitney(before, after);
    row.chance = Some(chance);
    row.ratio = median_ratio(before, after);
    row.change = match row.ratio {
        Some((ratio, low, high))
            if chance < RARE && (ratio - 1.0).abs() >= SMALL && (low > 1.0 || high < 1.0) =>
        {
            if (ratio > 1.0) == more_is_better { Change::Better } else { Change::Worse }
        }
        _ => Change::Same,
    };
    row
}

/// Errors are counted over all of it: most stretches have none.
fn errors(before: &Results, after: &Results) -> Row {
    let interval = |results: &Results| share_interval(results.whole.errors, results.whole.requests, Z99);
    let ((low_before, high_before), (low_after, high_after)) = (interval(before), interval(after));
    let change = match (before.whole.requests, after.whole.requests) {
        (0, _) | (_, 0) => Change::Unknown,
        _ if low_after > high_before => Change::Worse,
        _ if high_after < low_before => Change::Better,
        _ => Change::Same,
    };
    let shown = |results: &Results| percent(results.error_ratio(), results.whole.requests);
    Row {
        name: "errors".into(),
        before: shown(before),
        after: shown(after),
        ratio: None,
        chance: None,
        change,
    }
}

fn notes(before: &Results, after: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    let (one, other) = (&before.load, &after.load);
    if one.kind != other.kind || one.level != other.level || one.http2 != other.http2 || one.tls != other.tls
    {
        notes.push("the loads differ, so the numbers do for that alone".to_owned());
    }
    if before.targets.iter().map(|target| &target.name).ne(after.targets.iter().map(|target| &target.name)) {
        notes.push("the requests differ".to_owned());
    }
    notes
}

#[cfg(test)]
pub mod tests {
    use super::super::results::{Counts, LoadKind, LoadTold, Percentiles};
    use super::*;

    /// A test of `slices` slices whose latencies are about `latency`, drawn with this seed.
    pub fn results(latency: f64, errors: u64, slices: usize, seed: u64) -> Results {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut slice = || {
            let p50 = latency * (0.9 + 0.2 * random.f64());
            let latency = SliceLatency { p50, p90: p50 * 2.0, p99: p50 * 4.0, max: p50 * 9.0 };
            SliceResults { requests: 100, errors: 0, latency: Some(latency) }
        };
        Results {
            format: 1,
            gatehouse: "0".into(),
            target: "http://127.0.0.1:1".into(),
            load: LoadTold {
                kind: LoadKind::Open,
                level: 100.0,
                constant: true,
                connections: 1,
                streams: 1,
                threads: 1,
                http2: false,
                tls: false,
                planned_seconds: slices as f64,
                warmup_seconds: 0.0,
            },
            started: 0,
            seconds: slices as f64,
            whole: Counts {
                requests: 100 * slices as u64,
                errors,
                bytes: 0,
                latency: Percentiles::default(),
                statuses: Default::default(),
                reasons: Default::default(),
                faults: Default::default(),
            },
            rate: 100.0,
            good_rate: 100.0,
            lag: Percentiles::default(),
            interrupted: false,
            targets: Vec::new(),
            slice_seconds: 1.0,
            slices: (0..slices).map(|_| slice()).collect(),
            histogram: Vec::new(),
            objective: None,
            found: None,
            comparison: None,
        }
    }

    fn changes(before: &Results, after: &Results) -> Vec<Change> {
        Comparison::of(before, after).rows.iter().map(|row| row.change).collect()
    }

    #[test]
    fn a_change_is_told_from_noise() {
        use Change::*;
        let before = results(10.0, 0, 31, 1);
        assert_eq!(changes(&before, &results(10.0, 0, 31, 2)), [Same; 5]);
        assert_eq!(changes(&before, &results(12.0, 0, 31, 3)), [Worse, Worse, Worse, Same, Same]);
        assert_eq!(changes(&before, &results(8.0, 0, 31, 4)), [Better, Better, Better, Same, Same]);
        assert_eq!(changes(&before, &results(10.0, 100, 31, 5))[4], Worse);
        assert_eq!(changes(&before, &results(10.0, 0, 5, 6)), [Unknown, Unknown, Unknown, Unknown, Same]);
        // What is sure but small is of no account.
        assert_eq!(changes(&results(10.0, 0, 121, 7), &results(10.2, 0, 121, 8))[0], Same);
        assert!(Comparison::of(&before, &results(12.0, 0, 31, 3)).got_worse());
    }

    /// With the same server twice, an alarm is rare.
    #[test]
    fn the_same_is_hardly_ever_called_worse() {
        let alarms = (0..40).filter(|seed| {
            let of = |seed| results(10.0, 0, 25, seed);
            changes(&of(seed * 2), &of(seed * 2 + 1))[0] != Change::Same
        });
        assert!(alarms.count() <= 2);
    }

    #[test]
    fn different_loads_are_told() {
        let mut other = results(10.0, 0, 20, 1);
        other.load.level = 200.0;
        let comparison = Comparison::of(&results(10.0, 0, 20, 1), &other);
        assert!(comparison.notes[0].contains("loads differ"));
        assert_eq!(comparison.table().len(), 6);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut written = results(10.0, 3, 12, 1);
        written.whole.statuses.insert("200".into(), 7);
        let text = serde_json::to_string(&written).expect("plain data");
        assert_eq!(Results::parse(&text).as_ref(), Ok(&written));
        assert!(Results::parse(&text.replace("\"format\":1", "\"format\":2")).is_err());
    }
}
