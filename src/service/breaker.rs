//! A circuit breaker: one for each instance of a service, shared by all workers.
//!
//! Closed → open on failures in a row, or on a ratio of failures over a window → half-open after
//! `open_for`, letting `half_open_requests` through → closed when that many succeeded, open again for
//! twice as long when one failed.
//!
//! The whole state is one word, so every change is one compare-and-swap and no worker can see half of
//! one. A closed breaker costs a request one load, and a success writes nothing shared unless it ends
//! a run of failures. Every change of phase begins a new epoch, and a result counts only in the epoch
//! that its request was admitted in: a late answer can neither close a breaker nor open it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::time::Duration;

use super::settings::BreakerSettings;
use super::window::{Counts, Window};
use crate::clock::Millis;
use crate::per_worker::{PerWorker, WorkerId};

#[derive(Debug)]
pub struct Breaker {
    word: AtomicU64,
    windows: PerWorker<Window>,
    /// Probes that are at the instance, those of former epochs included: one that hangs while the breaker opens again
    /// goes on taking a place.
    probes: AtomicU32,
    /// For the status only; written after the word, so for an instant it can be that of the last time.
    opened_at: AtomicU64,
    opens: AtomicU64,
}

/// The right to send one request. Hand it back with the result, or with [`Breaker::ignored`]: a
/// probe's place stays taken until then.
#[derive(Debug)]
#[must_use]
pub struct Pass {
    epoch: u16,
    probe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

/// A breaker as an operator wants to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    pub state: BreakerState,
    /// In a row, while closed.
    pub consecutive_failures: u32,
    /// Requests out to see whether the instance is back, while half-open.
    pub probes: u32,
    /// When it last went from closed or half-open to open; `None` while closed.
    pub opened_at: Option<Millis>,
    /// From when on the next request is let through as a probe, while open.
    pub next_probe_at: Option<Millis>,
    /// How many times it opened in its life.
    pub opens: u64,
}

impl Pass {
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

impl BreakerSettings {
    /// Requests that may be at a half-open instance.
    fn probes(&self) -> u32 {
        self.half_open_requests.clamp(1, MAX_PROBES)
    }
}

impl Breaker {
    pub fn new(workers: usize) -> Self {
        Breaker {
            word: AtomicU64::new(State::NEW.pack()),
            windows: PerWorker::new(workers),
            probes: AtomicU32::new(0),
            opened_at: AtomicU64::new(0),
            opens: AtomicU64::new(0),
        }
    }

    /// Whether [`Breaker::admit`] would let a request through at this moment.
    pub fn admits(&self, now: Millis, settings: &BreakerSettings) -> bool {
        let state = self.state();
        matches!(state.phase, Phase::Closed { .. })
            || state.admit(now, settings).is_some() && self.probes.load(Acquire) < settings.probes()
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.state().phase, Phase::Closed { .. })
    }

    /// Lets a request through, or not. Takes a probe's place when the breaker is not closed.
    pub fn admit(&self, now: Millis, settings: &BreakerSettings) -> Option<Pass> {
        let mut word = self.word.load(Acquire);
        loop {
            let state = State::unpack(word);
            if matches!(state.phase, Phase::Closed { .. }) {
                return Some(Pass { epoch: state.epoch, probe: false });
            }
            let next = state.admit(now, settings)?;
            if !self.take_place(settings) {
                return None;
            }
            match self.word.compare_exchange_weak(word, next.pack(), AcqRel, Acquire) {
                Ok(_) => return Some(Pass { epoch: next.epoch, probe: true }),
                Err(actual) => word = actual,
            }
            self.leave_place();
        }
    }

    fn take_place(&self, settings: &BreakerSettings) -> bool {
        let taken = |probes| (probes < settings.probes()).then_some(probes + 1);
        self.probes.fetch_update(AcqRel, Acquire, taken).is_ok()
    }

    fn leave_place(&self) {
        self.probes.fetch_sub(1, AcqRel);
    }

    /// The request got an answer that is not one of `failures`.
    pub fn success(&self, pass: Pass, worker: WorkerId, now: Millis, settings: &BreakerSettings) {
        if pass.probe {
            self.change(now, |state| state.probe_succeeded(&pass, settings));
            return self.leave_place();
        }
        let state = self.state();
        if state.epoch != pass.epoch {
            return;
        }
        if settings.failure_ratio.is_some() {
            self.windows.of(worker).record(pass.epoch, now, settings.window, false);
        }
        if state.phase != (Phase::Closed { failures: 0 }) {
            self.change(now, |state| state.succeeded(&pass));
        }
    }

    /// The request ended in one of `failures`.
    pub fn failure(&self, pass: Pass, worker: WorkerId, now: Millis, settings: &BreakerSettings) {
        if pass.probe {
            self.change(now, |state| state.probe_failed(&pass, now, settings));
            return self.leave_place();
        }
        if self.state().epoch != pass.epoch {
            return;
        }
        let too_many = settings.failure_ratio.is_some_and(|percent| {
            self.windows.of(worker).record(pass.epoch, now, settings.window, true);
            let counts = self.counts(pass.epoch, now, settings.window);
            counts.requests >= u64::from(settings.minimum_requests.max(1))
                && counts.failures * 100 >= counts.requests * u64::from(percent)
        });
        self.change(now, |state| state.failed(&pass, too_many, now, settings));
    }

    /// The request ended without saying anything about the instance: the client went away, say.
    pub fn ignored(&self, pass: Pass) {
        if pass.probe {
            self.change(Millis::default(), |state| state.probe_abandoned(&pass));
            self.leave_place();
        }
    }

    /// Lets the next request through as a probe from `now` on, should the breaker be open for longer.
    pub fn probe_from(&self, now: Millis) {
        let _ = self.word.fetch_update(AcqRel, Acquire, |word| {
            let state = State::unpack(word);
            let sooner = matches!(state.phase, Phase::Open { until } if until > now);
            sooner.then(|| State { phase: Phase::Open { until: now }, ..state }.pack())
        });
    }

    /// Lets the next request through as a probe, should the breaker be open for `open_for` already: the longer times are for
    /// instances whose work others do.
    pub fn probe_early(&self, now: Millis, settings: &BreakerSettings) -> bool {
        let opened_at = Millis(self.opened_at.load(Relaxed));
        let is_due = matches!(self.state().phase, Phase::Open { until } if until > now)
            && now >= opened_at.plus(settings.open_for);
        if is_due {
            self.probe_from(now);
        }
        is_due
    }

    pub fn status(&self) -> BreakerStatus {
        let state = self.state();
        let mut status = BreakerStatus {
            state: BreakerState::Closed,
            consecutive_failures: 0,
            probes: 0,
            opened_at: Some(Millis(self.opened_at.load(Relaxed))),
            next_probe_at: None,
            opens: self.opens.load(Relaxed),
        };
        match state.phase {
            Phase::Closed { failures } => {
                status.consecutive_failures = failures;
                status.opened_at = None;
            }
            Phase::Open { until } => {
                status.state = BreakerState::Open;
                status.next_probe_at = Some(until);
            }
            Phase::HalfOpen { out, .. } => {
                status.state = BreakerState::HalfOpen;
                status.probes = out;
            }
        }
        status
    }

    fn state(&self) -> State {
        State::unpack(self.word.load(Acquire))
    }

    /// Makes a change, unless the state has moved on so that there is none to make.
    fn change(&self, now: Millis, next: impl Fn(State) -> Option<State>) {
        let changed = self
            .word
            .fetch_update(AcqRel, Acquire, |word| next(State::unpack(word)).map(|state| state.pack()));
        if let Ok(before) = changed
            && let Some(State { phase: Phase::Open { .. }, .. }) = next(State::unpack(before))
        {
            self.opened_at.store(now.0, Relaxed);
            self.opens.fetch_add(1, Relaxed);
        }
    }

    fn counts(&self, epoch: u16, now: Millis, window: Duration) -> Counts {
        self.windows.all().map(|own| own.counts(epoch, now, window)).fold(Counts::default(), |sum, own| {
            Counts { requests: sum.requests + own.requests, failures: sum.failures + own.failures }
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `failures` in a row.
    Closed { failures: u32 },
    /// The first request at or after `until` is a probe.
    Open { until: Millis },
    /// `out` probes on their way, `succeeded` back and well.
    HalfOpen { out: u32, succeeded: u32 },
}

/// The breaker's state machine, with the time and the settings handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    phase: Phase,
    epoch: u16,
    /// How often it opened again since it was last closed: the exponent of the doubling.
    level: u8,
}

// The word: phase 2 bits, epoch 16, level 6, and 40 for the phase's own: a failure count, a moment in
// milliseconds (34 years of them), or two counts of probes.
const OWN_BITS: u32 = 40;
const OWN_MASK: u64 = (1 << OWN_BITS) - 1;
const PROBE_BITS: u32 = 20;
const MAX_PROBES: u32 = (1 << PROBE_BITS) - 1;
const LEVEL_BITS: u32 = 6;
const MAX_LEVEL: u8 = (1 << LEVEL_BITS) - 1;
const EPOCH_SHIFT: u32 = OWN_BITS + LEVEL_BITS;
const PHASE_SHIFT: u32 = EPOCH_SHIFT + u16::BITS;

impl State {
    const NEW: State = State { phase: Phase::Closed { failures: 0 }, epoch: 0, level: 0 };

    /// The state with one more probe on its way, or `None` when none may go.
    fn admit(self, now: Millis, settings: &BreakerSettings) -> Option<State> {
        match self.phase {
            Phase::Closed { .. } => None,
            Phase::Open { until } => {
                (now >= until).then(|| self.enter(Phase::HalfOpen { out: 1, succeeded: 0 }))
            }
            Phase::HalfOpen { out, succeeded } => {
                let wanted = settings.probes();
                // The first half of the condition is for a reload that asks for fewer successes than
                // there have been: without it no probe would ever go out again.
                let free = out == 0 || out + succeeded < wanted;
                free.then_some(State { phase: Phase::HalfOpen { out: out + 1, succeeded }, ..self })
            }
        }
    }

    fn succeeded(self, pass: &Pass) -> Option<State> {
        match self.phase {
            Phase::Closed { failures: 1.. } if self.epoch == pass.epoch => {
                Some(State { phase: Phase::Closed { failures: 0 }, ..self })
            }
            _ => None,
        }
    }

    fn failed(self, pass: &Pass, too_many: bool, now: Millis, settings: &BreakerSettings) -> Option<State> {
        match self.phase {
            Phase::Closed { failures } if self.epoch == pass.epoch => {
                let failures = failures.saturating_add(1);
                if too_many || failures >= settings.consecutive_failures {
                    return Some(self.open(0, now, settings));
                }
                Some(State { phase: Phase::Closed { failures }, ..self })
            }
            _ => None,
        }
    }

    fn probe_succeeded(self, pass: &Pass, settings: &BreakerSettings) -> Option<State> {
        let (out, succeeded) = self.probes(pass)?;
        if succeeded + 1 >= settings.half_open_requests {
            return Some(State { level: 0, ..self.enter(Phase::Closed { failures: 0 }) });
        }
        Some(State { phase: Phase::HalfOpen { out: out - 1, succeeded: succeeded + 1 }, ..self })
    }

    fn probe_failed(self, pass: &Pass, now: Millis, settings: &BreakerSettings) -> Option<State> {
        self.probes(pass)?;
        Some(self.open((self.level + 1).min(MAX_LEVEL), now, settings))
    }

    fn probe_abandoned(self, pass: &Pass) -> Option<State> {
        let (out, succeeded) = self.probes(pass)?;
        Some(State { phase: Phase::HalfOpen { out: out - 1, succeeded }, ..self })
    }

    /// The counts of probes, if the pass is one of those that are out.
    fn probes(self, pass: &Pass) -> Option<(u32, u32)> {
        match self.phase {
            Phase::HalfOpen { out: out @ 1.., succeeded } if self.epoch == pass.epoch => {
                Some((out, succeeded))
            }
            _ => None,
        }
    }

    fn open(self, level: u8, now: Millis, settings: &BreakerSettings) -> State {
        let longest = settings.max_open_for.max(settings.open_for);
        let length = settings.open_for.saturating_mul(1u32 << level.min(31)).min(longest);
        State { level, ..self.enter(Phase::Open { until: now.plus(length) }) }
    }

    fn enter(self, phase: Phase) -> State {
        State { phase, epoch: self.epoch.wrapping_add(1), ..self }
    }

    fn pack(self) -> u64 {
        let (phase, own) = match self.phase {
            Phase::Closed { failures } => (0, u64::from(failures)),
            Phase::Open { until } => (1, until.0.min(OWN_MASK)),
            Phase::HalfOpen { out, succeeded } => (2, u64::from(out) << PROBE_BITS | u64::from(succeeded)),
        };
        phase << PHASE_SHIFT | u64::from(self.epoch) << EPOCH_SHIFT | u64::from(self.level) << OWN_BITS | own
    }

    fn unpack(word: u64) -> State {
        let own = word & OWN_MASK;
        State {
            phase: match word >> PHASE_SHIFT {
                0 => Phase::Closed { failures: own as u32 },
                1 => Phase::Open { until: Millis(own) },
                _ => Phase::HalfOpen { out: (own >> PROBE_BITS) as u32, succeeded: own as u32 & MAX_PROBES },
            },
            epoch: (word >> EPOCH_SHIFT) as u16,
            level: (word >> OWN_BITS) as u8 & MAX_LEVEL,
        }
    }
}

#[cfg(test)]
mod tests;
