//! A second attempt while the first is slow: on another instance, and whichever gives a good answer first is listened to.
//!
//! At most one for a request, only for requests that may be repeated and have no body, and only within a budget that all workers
//! share: a service that is slow because it has too much to do must not be given more.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

use http::header;
use tokio::time::{Instant, timeout_at};

use super::call::{Progress, Tries};
use super::errand::{Attempted, Errand, How};
use super::pool::Waits;
use super::race::{self, Runner, Running};
use super::samples::Samples;
use super::silence::Hope;
use super::verdict::Verdict;
use super::{Failure, HedgeAfter, Picked};
use crate::clock::{self, Millis};

/// Answers that a percentile takes.
const ENOUGH: u32 = 50;
const EVERY_MS: u64 = 1000;

/// How long the service's answers have taken lately. Nothing is counted unless somebody asks for a percentile.
#[derive(Debug, Default)]
pub struct RecentLatency {
    samples: OnceLock<Samples>,
    next_at: AtomicU64,
    /// In microseconds; 0 while it is not known.
    percentile_95: AtomicU64,
}

impl RecentLatency {
    /// What 95 of 100 first attempts have come to within.
    pub fn percentile_95(&self) -> Option<Duration> {
        let micros = self.percentile_95.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    fn count(&self, took: Duration, now: Millis) {
        let samples = self.samples.get_or_init(Samples::default);
        let enough = samples.add(took) >= ENOUGH;
        let due = self.next_at.load(Relaxed);
        if enough
            && now.0 >= due
            && self.next_at.compare_exchange(due, now.0 + EVERY_MS, Relaxed, Relaxed).is_ok()
            && let Some(micros) = samples.take(0.95)
        {
            self.percentile_95.store(micros.max(1.0) as u64, Relaxed);
        }
    }
}

impl<'c> Tries<'c> {
    /// When a second attempt is to join the one at `picked`, if at all. Where the service hedges after a percentile that is not known
    /// yet, that is never, and the attempt is timed for those to come.
    pub fn hedge_after(&self, picked: &Picked) -> Option<Duration> {
        let hedging = self.errand.service.settings.hedging?;
        let head = &self.errand.call.head;
        let may = !self.is_hedged
            && self.idempotent
            && self.errand.call.body.is_empty()
            // Two tunnels would both be begun.
            && head.headers.value(&header::UPGRADE).is_none()
            // A probe is to find out about its instance.
            && !picked.admission.is_probe();
        if !may {
            return None;
        }
        Some(match hedging.after {
            HedgeAfter::Time(after) => after,
            HedgeAfter::Percentile95 => self.errand.service.latency.percentile_95().unwrap_or(Duration::MAX),
        })
    }

    /// An attempt that gets company after `after`. What comes back is for the caller to judge; the other is settled here, or
    /// cancelled where it is still under way.
    pub async fn hedged(
        &mut self,
        picked: Picked,
        began: Instant,
        after: Duration,
        progress: &mut dyn Progress,
    ) -> Attempted {
        let (address, errand, hopes) = (picked.instance().address, self.errand, <[Cell<Hope>; 2]>::default());
        let how = self.begin(&picked, Millis::of(began));
        let mut first: Running<'_> = Box::pin(errand.attempt(picked, began, how, &hopes[0]));
        let alone = race::alone(first.as_mut(), &hopes[0]);
        let alone = match began.checked_add(after) {
            Some(due) => timeout_at(due, alone).await.ok(),
            None => Some(alone.await),
        };
        let is_due = alone.is_none();
        if let Some(Some(attempted)) = alone {
            errand.count_latency(began, attempted.is_ok());
            return attempted;
        }
        let mut running = vec![Runner { is_known: !is_due, ..Runner::known(first, address, &hopes[0]) }];
        if is_due && let Some(second) = self.second(progress) {
            let (address, hope) = (second.instance().address, &hopes[1]);
            let now = Instant::now();
            let how = How { at: Millis::of(now), response: self.left(), fresh: false, waits: Waits::Long };
            let attempt: Running<'_> = Box::pin(errand.attempt(second, now, how, hope));
            running.push(Runner { attempt, address, hope, is_hedge: true, is_known: false });
        }
        let attempted = self.race(running, !is_due, progress).await;
        // A first attempt that was cancelled has taken so long at least.
        errand.count_latency(began, true);
        attempted
    }

    /// Another instance for a second attempt, if there is one and the budget allows it.
    fn second(&mut self, progress: &mut dyn Progress) -> Option<Picked> {
        self.is_hedged = true;
        let Errand { service, caller, .. } = self.errand;
        let now = Instant::now();
        let budget = service.settings.hedging?.budget;
        if !service.budget.try_hedge(budget, Millis::of(now)) {
            service.metrics.hedge_refused(caller.worker);
            return None;
        }
        let tried = &self.tried[..self.tried_count];
        let picked =
            service.pick(caller.worker, self.errand.call.wish, tried, Millis::of(now), &mut self.rng).ok();
        let Some(picked) = picked.filter(|picked| !tried.contains(&picked.instance().id)) else {
            service.budget.give_hedge_back(Millis::of(now));
            return None;
        };
        service.metrics.hedged(caller.worker);
        progress.attempt(picked.instance().address, now);
        self.begin(&picked, Millis::of(now));
        Some(picked)
    }
}

impl Errand<'_> {
    pub fn is_good(&self, attempted: &Attempted) -> bool {
        let Ok(got) = attempted else { return false };
        let (settings, failure) = (&self.service.settings, Failure::Status(got.responded.response.status));
        !settings.breaker_failures.contains(failure)
            && !settings.retries.on.contains(failure)
            && !got.responded.is_overfull()
    }

    /// What came and is not passed on still says something about its instance.
    pub fn settle(&self, attempted: Attempted) {
        match attempted {
            Ok(got) => {
                let (status, settings) = (got.responded.response.status, &self.service.settings);
                drop(Verdict::of_head(status, got.admission, got.at, settings));
            }
            Err((error, admission)) => match error.failure() {
                // Closing a kept connection is the instance's right.
                Some(_) if error.is_stale_connection() => admission.ignored(),
                Some(failure) => self.blame(failure, admission),
                None => admission.ignored(),
            },
        }
    }

    fn count_latency(&self, began: Instant, says_something: bool) {
        let hedging = self.service.settings.hedging;
        if says_something && hedging.is_some_and(|hedging| hedging.after == HedgeAfter::Percentile95) {
            self.service.latency.count(began.elapsed(), clock::now());
        }
    }
}
