//! The highest rate that holds an objective: doubling until it fails, halving the distance until it is small, and then
//! the answer again, until it has held so often that chance doesn't explain it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::slo::Verdict;

/// Rates closer together than this factor are as good as the same.
const CLOSE: f64 = 1.05;
/// How often the answer is tried again; all but one have to hold.
const REPEATS: u32 = 3;
const MAX_STEPS: u32 = 40;
pub const LOWEST: f64 = 1.0;
pub const HIGHEST: f64 = 500_000.0;
pub const FIRST: f64 = 100.0;
const SHORTEST_STEP: Duration = Duration::from_secs(2);
const LONGEST_STEP: Duration = Duration::from_secs(30);

/// Which rate to try next. Knows nothing of requests.
#[derive(Debug)]
pub struct Search {
    /// Rates that held and are not in doubt, the highest last.
    held: Vec<f64>,
    /// The lowest one that failed.
    failed: Option<f64>,
    next: f64,
    phase: Phase,
    steps: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Approach,
    /// The answer again: how often so far, and how often it held.
    Repeat {
        tried: u32,
        held: u32,
    },
    Done {
        repeats: u32,
        held: u32,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub objective: String,
    /// Requests a second; none where no rate holds.
    pub rate: Option<f64>,
    /// The lowest rate that failed.
    pub fails_at: Option<f64>,
    /// How often the rate was tried again, and how often it held then.
    pub repeats: u32,
    pub held: u32,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub rate: f64,
    pub achieved: f64,
    pub requests: u64,
    pub holds: bool,
    pub sure: bool,
    /// In words.
    pub seen: String,
}

impl Search {
    pub fn from(first: f64) -> Search {
        Search {
            held: Vec::new(),
            failed: None,
            next: first.clamp(LOWEST, HIGHEST),
            phase: Phase::Approach,
            steps: 0,
        }
    }

    /// `None` when nothing is left to try.
    pub fn next(&self) -> Option<f64> {
        (!matches!(self.phase, Phase::Done { .. })).then_some(self.next)
    }

    /// What became of the rate that was next.
    pub fn tell(&mut self, verdict: Verdict) {
        self.steps += 1;
        let rate = self.next;
        match (self.phase, verdict.holds()) {
            (Phase::Approach, true) => self.held.push(rate),
            (Phase::Approach, false) => self.fails_at(rate),
            (Phase::Repeat { tried, held }, holds) => {
                let (tried, held) = (tried + 1, held + u32::from(holds));
                if tried - held > 1 {
                    // It had held by chance: what is below it is the question now.
                    self.fails_at(rate);
                    self.phase = Phase::Approach;
                } else if tried == REPEATS {
                    self.phase = Phase::Done { repeats: tried, held };
                } else {
                    self.phase = Phase::Repeat { tried, held };
                }
            }
            (Phase::Done { .. }, _) => {}
        }
        match self.phase {
            Phase::Approach => self.approach(),
            Phase::Repeat { tried, held } if self.steps >= MAX_STEPS => {
                self.phase = Phase::Done { repeats: tried, held };
            }
            Phase::Repeat { .. } | Phase::Done { .. } => {}
        }
    }

    fn fails_at(&mut self, rate: f64) {
        self.failed = Some(rate);
        self.held.retain(|held| *held < rate);
    }

    fn approach(&mut self) {
        let held = self.held.last().copied();
        let next = match (held, self.failed) {
            (Some(held), None) if held < HIGHEST => Some((held * 2.0).min(HIGHEST)),
            (None, Some(failed)) if failed > LOWEST => Some((failed / 2.0).max(LOWEST)),
            (Some(held), Some(failed)) if failed / held > CLOSE => Some((held * failed).sqrt()),
            _ => None,
        };
        match (next, held) {
            (Some(next), _) if self.steps < MAX_STEPS - REPEATS => self.next = next,
            (_, Some(held)) if self.steps < MAX_STEPS => {
                self.next = held;
                self.phase = Phase::Repeat { tried: 0, held: 0 };
            }
            _ => self.phase = Phase::Done { repeats: 0, held: 0 },
        }
    }

    pub fn found(&self, objective: &str, steps: Vec<Step>) -> Found {
        let (repeats, held) = match self.phase {
            Phase::Done { repeats, held } | Phase::Repeat { tried: repeats, held } => (repeats, held),
            Phase::Approach => (0, 0),
        };
        Found {
            objective: objective.to_owned(),
            rate: self.held.last().copied(),
            fails_at: self.failed,
            repeats,
            held,
            steps,
        }
    }
}

/// How long a step takes to have so many requests, within bounds.
pub fn step_time(requests: u64, rate: f64) -> Duration {
    Duration::from_secs_f64((requests as f64 / rate).min(LONGEST_STEP.as_secs_f64())).max(SHORTEST_STEP)
}

impl Found {
    /// One line for people.
    pub fn words(&self) -> String {
        let Some(rate) = self.rate else {
            let tried = self.fails_at.map_or(LOWEST, |rate| rate);
            return format!("no rate holds {}: {tried:.0}/s already fails", self.objective);
        };
        let upper = match self.fails_at {
            Some(fails) => format!("fails at {fails:.0}/s"),
            None => "no higher one was tried".to_owned(),
        };
        let times = match self.repeats {
            0 => "not tried again".to_owned(),
            repeats => format!("{} of {repeats} times that it was tried again", self.held),
        };
        format!("{} holds up to {rate:.0}/s ({times}); {upper}", self.objective)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(first: f64, mut holds: impl FnMut(f64) -> bool) -> (Found, u32) {
        let mut search = Search::from(first);
        let mut steps = 0;
        while let Some(rate) = search.next() {
            steps += 1;
            assert!(steps <= MAX_STEPS && (LOWEST..=HIGHEST).contains(&rate), "{rate} in step {steps}");
            search.tell(if holds(rate) { Verdict::Holds } else { Verdict::Fails });
        }
        (search.found("p99=1s", Vec::new()), steps)
    }

    proptest! {
        /// Wherever the truth lies and wherever it begins.
        #[test]
        fn the_answer_is_close_below_the_truth(truth in 1.0..500_000.0f64, first in 1.0..100_000.0f64) {
            let (found, _) = search(first, |rate| rate <= truth);
            let rate = found.rate.expect("the lowest rate holds");
            prop_assert!(rate <= truth, "{} is above {}", rate, truth);
            prop_assert!(rate * CLOSE * CLOSE >= truth.min(HIGHEST), "{} is far below {}", rate, truth);
            prop_assert_eq!((found.repeats, found.held), (REPEATS, REPEATS));
        }

        /// Near the truth it's chance whether a step holds; the search ends all the same, and not far from it.
        #[test]
        fn noise_neither_keeps_it_going_nor_leads_it_astray(truth in 50.0..50_000.0f64, seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (found, _) = search(FIRST, |rate| rate <= truth * (0.9 + 0.2 * random.f64()));
            let rate = found.rate.unwrap_or(found.fails_at.expect("one of them"));
            prop_assert!((truth * 0.7..=truth * 1.15).contains(&rate), "{} for {}", rate, truth);
        }
    }

    #[test]
    fn there_may_be_no_answer() {
        let (found, steps) = search(100.0, |_| false);
        assert_eq!((found.rate, found.fails_at), (None, Some(LOWEST)));
        assert!(steps < 12 && found.words().starts_with("no rate holds p99=1s"), "{found:?}");
        let (found, _) = search(100.0, |_| true);
        assert_eq!((found.rate, found.fails_at), (Some(HIGHEST), None));
    }

    #[test]
    fn steps_take_as_long_as_they_need() {
        assert_eq!(step_time(1200, 1000.0), SHORTEST_STEP);
        assert_eq!(step_time(12_000, 1000.0), Duration::from_secs(12));
        assert_eq!(step_time(12_000, 1.0), LONGEST_STEP);
    }
}
