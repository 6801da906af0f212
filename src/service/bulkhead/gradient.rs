//! How many requests a service does well with at once, found from how long it takes to answer.
//!
//! Below its capacity a service takes the same time whatever it is asked; beyond it requests queue up inside, and the time grows
//! with their number. So the limit moves by the ratio of the time that an answer takes without a queue (the *baseline*) to the
//! one that it takes now, plus a little to find out whether more would do. The time of a window is that of the answer in
//! the middle: a few slow ones say nothing about a queue.
//!
//! The baseline is learnt while fewer than half of the limit are in flight. While the limit is used to the full, nothing of the
//! kind can be seen, and so it is halved for a moment now and then (a *probe*). That takes little of what gets done, since
//! the limit leaves room above the capacity, and it tells a queue of our own making from a service that has become slower.

/// What is allowed above the baseline: less would take chance for a queue.
const TOLERANCE: f64 = 1.25;
/// No window takes away more than this share.
const STEEPEST: f64 = 0.5;
const WINDOW_MS: f64 = 100.0;
/// Of the time of an answer: what was changed must show in the next window.
const ANSWERS_OF_A_WINDOW: f64 = 2.0;
const ANSWERS_OF_A_PROBE: f64 = 3.0;
const SAMPLES_OF_A_WINDOW: u32 = 10;
const SAMPLES_OF_A_PROBE: u32 = 5;
const PROBE_EVERY_MS: f64 = 10_000.0;
/// In windows, for a service so slow that a probe takes seconds.
const PROBE_EVERY_WINDOWS: f64 = 50.0;
/// After a probe that found something else than was known, or none yet.
const PROBE_SOON_MS: f64 = 1_000.0;
/// A limit that has fallen to this share since the last probe may have fallen because the service has changed.
const FELL_FAR: f64 = 0.6;
const START: f64 = 20.0;

/// Between which the limit stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// 1 or more.
    pub floor: u32,
    /// `floor` or more.
    pub ceiling: u32,
}

/// What was seen since the last step.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Milliseconds of the gateway's clock.
    pub ends_at: u64,
    /// The time of the answer in the middle, in microseconds.
    pub micros: f64,
    /// The most requests in flight.
    pub peak: u32,
}

/// What holds until the next window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub limit: u32,
    pub ends_at: u64,
    /// The window needs so many answers.
    pub samples: u32,
    /// Only answers to requests that were begun from then on count.
    pub counts_from: u64,
}

#[derive(Debug)]
pub struct Gradient {
    bounds: Bounds,
    limit: f64,
    /// In microseconds.
    baseline: Option<f64>,
    is_probing: bool,
    probe_due: u64,
    highest_since_probe: f64,
}

impl Gradient {
    pub fn new(bounds: Bounds) -> Self {
        let mut gradient = Gradient {
            bounds,
            limit: START,
            baseline: None,
            is_probing: false,
            probe_due: 0,
            highest_since_probe: 0.0,
        };
        gradient.set(bounds);
        gradient
    }

    /// Changes the bounds, and gives the limit between them.
    pub fn set(&mut self, bounds: Bounds) -> u32 {
        self.bounds = bounds;
        self.limit = self.bounded(self.limit);
        self.limit as u32
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// In microseconds, once it is known.
    pub fn baseline(&self) -> Option<f64> {
        self.baseline
    }

    /// The first window's end.
    pub fn first(&self, now: u64) -> Step {
        self.next(now, 0.0)
    }

    pub fn step(&mut self, window: Window) -> Step {
        if self.is_probing {
            self.end_probe(window);
        } else {
            self.learn(window);
            if self.is_used(window, 0.5) {
                self.move_on(window);
            }
            let is_full = self.is_used(window, 0.9);
            let fell = self.limit < self.highest_since_probe * FELL_FAR;
            if is_full && (window.ends_at >= self.probe_due || fell) {
                self.is_probing = true;
            }
        }
        self.next(window.ends_at, window.micros)
    }

    fn is_used(&self, window: Window, share: f64) -> bool {
        f64::from(window.peak) >= self.limit.floor() * share
    }

    fn learn(&mut self, window: Window) {
        let known = *self.baseline.get_or_insert(window.micros);
        let weight = match () {
            () if !self.is_used(window, 0.5) => 0.2,
            () if window.micros < known => 0.5,
            () => 0.0,
        };
        self.baseline = Some(known + (window.micros - known) * weight);
    }

    fn move_on(&mut self, window: Window) {
        let baseline = self.baseline.unwrap_or(window.micros);
        let ratio = (TOLERANCE * baseline / window.micros.max(1.0)).clamp(STEEPEST, 1.0);
        let aim = self.limit * ratio + (self.limit.sqrt() / 2.0).max(1.0);
        // Up as far as is aimed at; down half of the way, since the next window still has answers of this one.
        let step = if aim > self.limit { aim - self.limit } else { (aim - self.limit) / 2.0 };
        self.limit = self.bounded(self.limit + step);
        self.highest_since_probe = self.highest_since_probe.max(self.limit);
    }

    fn end_probe(&mut self, window: Window) {
        let known = self.baseline.replace(window.micros).unwrap_or(window.micros);
        let is_as_known = (0.8..1.25).contains(&(window.micros / known.max(1.0)));
        let windows = PROBE_EVERY_WINDOWS * window_ms(window.micros, ANSWERS_OF_A_WINDOW);
        let wait = if is_as_known { PROBE_EVERY_MS.max(windows) } else { PROBE_SOON_MS.max(windows / 10.0) };
        self.probe_due = window.ends_at + wait as u64;
        self.highest_since_probe = self.limit;
        self.is_probing = false;
    }

    fn next(&self, now: u64, micros: f64) -> Step {
        if self.is_probing {
            return Step {
                // Below the floor, too: a queue at the floor could not be told from a slow service.
                limit: (self.limit / 2.0).max(1.0) as u32,
                ends_at: now + window_ms(micros, ANSWERS_OF_A_PROBE) as u64,
                samples: SAMPLES_OF_A_PROBE,
                // No request begins before so few are in flight, so all of these have met no queue of the others' making.
                counts_from: now + 1,
            };
        }
        Step {
            limit: self.limit as u32,
            ends_at: now + window_ms(micros, ANSWERS_OF_A_WINDOW) as u64,
            samples: SAMPLES_OF_A_WINDOW,
            counts_from: 0,
        }
    }

    fn bounded(&self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.bounds.floor), f64::from(self.bounds.ceiling))
    }
}

fn window_ms(micros: f64, answers: f64) -> f64 {
    WINDOW_MS.max(micros / 1000.0 * answers)
}
