//! An instance that does worse than the others is ejected for some time: it gets requests only where no other can
//! take them.
//!
//! Requests read two atomics that rarely change. Everything else is written and read on the control side: outlier
//! detection decides, and the instance keeps what was decided, so that it outlives a reload.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::tally::Tallied;
use crate::clock::Millis;

#[derive(Debug, Default)]
pub(super) struct Ejections {
    ejected: AtomicBool,
    /// Failures in a row that are noted; 0 while nothing is counted.
    run_of: AtomicU32,
    /// How often the instance came back after it could not be reached.
    returns: AtomicU32,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    present: Option<Ejection>,
    /// How many of them there were of late: what the time grows by.
    level: u32,
    /// The end of the last one.
    ended_at: Millis,
    /// What had been counted when the instance last came back.
    at_return: Option<Box<Tallied>>,
    counts: [u64; EjectionReason::ALL.len()],
}

/// An ejection that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    pub reason: EjectionReason,
    /// In words and numbers, for operators.
    pub why: String,
    pub at: Millis,
    pub until: Millis,
    /// It was ejected because it could not be reached: it is back once it can be.
    pub until_reached: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionReason {
    ConsecutiveFailures,
    FailureRatio,
    Latency,
}

impl EjectionReason {
    pub const ALL: [EjectionReason; 3] =
        [EjectionReason::ConsecutiveFailures, EjectionReason::FailureRatio, EjectionReason::Latency];

    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            EjectionReason::ConsecutiveFailures => "consecutive_failures",
            EjectionReason::FailureRatio => "failure_ratio",
            EjectionReason::Latency => "latency",
        }
    }
}

/// How long instances are ejected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionTime {
    /// The first time; as much more with each further one.
    pub base: Duration,
    pub max: Duration,
}

impl Ejections {
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// How many failures in a row are to be noted, if anything is to be counted.
    pub fn run_of(&self) -> Option<u32> {
        Some(self.run_of.load(Relaxed)).filter(|&run_of| run_of != 0)
    }

    pub fn set_run_of(&self, run_of: Option<u32>) {
        self.run_of.store(run_of.unwrap_or(0), Relaxed);
    }

    pub fn returns(&self) -> u32 {
        self.returns.load(Relaxed)
    }

    /// Ejects it for longer than the last time, unless that was long ago: each `base` in rotation makes up for one.
    pub fn eject(
        &self,
        reason: EjectionReason,
        why: String,
        until_reached: bool,
        now: Millis,
        time: EjectionTime,
    ) {
        let mut record = self.record();
        let made_up_for = now.since(record.ended_at).as_millis() / time.base.as_millis().max(1);
        let level = record.level.saturating_sub(u32::try_from(made_up_for).unwrap_or(u32::MAX));
        record.level = level.saturating_add(1);
        let lasts = time.base.saturating_mul(record.level).min(time.max.max(time.base));
        record.counts[reason as usize] += 1;
        record.present = Some(Ejection { reason, why, at: now, until: now.plus(lasts), until_reached });
        self.ejected.store(true, Relaxed);
    }

    /// Ends the present ejection. `false` when there is none.
    pub fn end(&self, now: Millis) -> bool {
        let mut record = self.record();
        let ended = record.present.take().is_some();
        if ended {
            record.ended_at = now;
            self.ejected.store(false, Relaxed);
        }
        ended
    }

    /// It can be reached again, when so much was counted. `true` when that ends an ejection.
    pub fn reached(&self, now: Millis, tallied: Option<Tallied>) -> bool {
        self.returns.fetch_add(1, Relaxed);
        let mut record = self.record();
        record.at_return = tallied.map(Box::new);
        let waits = record.present.as_ref().is_some_and(|ejection| ejection.until_reached);
        drop(record);
        waits && self.end(now)
    }

    pub fn at_return(&self) -> Option<Tallied> {
        self.record().at_return.as_deref().cloned()
    }

    pub fn present(&self) -> Option<Ejection> {
        self.record().present.clone()
    }

    /// How many there have been, by reason.
    pub fn counts(&self) -> [(EjectionReason, u64); EjectionReason::ALL.len()] {
        let record = self.record();
        EjectionReason::ALL.map(|reason| (reason, record.counts[reason as usize]))
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: EjectionTime = EjectionTime { base: Duration::from_secs(30), max: Duration::from_secs(100) };

    fn seconds(ejections: &Ejections, at: u64) -> u64 {
        let now = Millis(at * 1000);
        ejections.eject(EjectionReason::FailureRatio, "it fails".to_owned(), false, now, TIME);
        ejections.present().expect("it is ejected").until.since(now).as_secs()
    }

    #[test]
    fn each_lasts_longer_until_it_has_done_well_for_some_time() {
        let ejections = Ejections::default();
        let mut now = 1000;
        for lasts in [30, 60, 90, 100, 100] {
            assert_eq!(seconds(&ejections, now), lasts);
            now += lasts;
            assert!(ejections.end(Millis(now * 1000)));
            now += 10;
        }
        // Five so far; 30 seconds make up for one, 120 for four.
        now += 110;
        assert_eq!(seconds(&ejections, now), 60);
        assert!(ejections.end(Millis(now * 1000)));
        assert_eq!(seconds(&ejections, now + 3600), 30);
        assert_eq!(ejections.counts().map(|(_, count)| count), [0, 7, 0]);
    }

    #[test]
    fn it_is_ejected_until_that_is_ended() {
        let ejections = Ejections::default();
        assert!(!ejections.is_ejected() && !ejections.end(Millis(5)));
        seconds(&ejections, 10);
        assert!(ejections.is_ejected());
        assert_eq!(ejections.present().expect("it is").why, "it fails");
        assert!(!ejections.reached(Millis(11_000), None) && ejections.is_ejected(), "it was not that");
        assert!(ejections.end(Millis(12_000)));
        assert!(!ejections.is_ejected() && ejections.present().is_none());
        ejections.eject(EjectionReason::ConsecutiveFailures, String::new(), true, Millis(13_000), TIME);
        assert!(ejections.reached(Millis(14_000), None) && !ejections.is_ejected());
        assert_eq!(ejections.returns(), 2);
    }
}
