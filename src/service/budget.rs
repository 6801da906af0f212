//! How many retries a service may cost, so that retries can't multiply the load on one that is failing.
//!
//! In any ten seconds, at most `budget` per cent of the requests of these seconds, or a hundred where
//! that is more. Requests are counted by each worker for itself and added up only when somebody wants
//! to retry; retries are counted together, because there the bound must hold over all workers.

use std::sync::atomic::{AtomicU64, Ordering::*};

use crate::clock::Millis;
use crate::per_worker::{PerWorker, WorkerId};

const SECONDS: u64 = 10;
/// For services with little traffic, a share of which would be no retry at all: 10 a second.
const LEAST: u64 = 10 * SECONDS;

#[derive(Debug)]
pub struct RetryBudget {
    requests: PerWorker<Buckets>,
    retries: Buckets,
    hedges: Buckets,
}

impl RetryBudget {
    pub fn new(workers: usize) -> Self {
        RetryBudget {
            requests: PerWorker::new(workers),
            retries: Buckets::default(),
            hedges: Buckets::default(),
        }
    }

    /// Counts a request (not its retries).
    pub fn count_request(&self, worker: WorkerId, now: Millis) {
        self.requests.of(worker).add_alone(second(now));
    }

    /// Takes one retry out of the budget; `false` when it is used up.
    pub fn try_retry(&self, percent: u8, now: Millis) -> bool {
        if percent == 0 {
            return false;
        }
        let second = second(now);
        self.retries.try_take(self.share(percent, second).max(LEAST), second)
    }

    /// Takes one out of the budget for a request that met a connection which the instance had closed. That is no retry, and is
    /// allowed without a budget for them; but the instance may have seen the request, and one that closes all of
    /// its connections must not get twice the load.
    pub fn try_replacement(&self, percent: u8, now: Millis) -> bool {
        let second = second(now);
        self.retries.try_take(self.share(percent, second).max(LEAST), second)
    }

    /// Takes one second attempt out of a budget of their own. There is no floor but one: nothing has failed.
    pub fn try_hedge(&self, percent: u8, now: Millis) -> bool {
        let second = second(now);
        self.hedges.try_take(self.share(percent, second).max(1), second)
    }

    /// It was not made after all.
    pub fn give_retry_back(&self, now: Millis) {
        self.retries.give_back(second(now));
    }

    /// As [`RetryBudget::give_retry_back`].
    pub fn give_hedge_back(&self, now: Millis) {
        self.hedges.give_back(second(now));
    }

    /// So many per cent of the last ten seconds' requests.
    fn share(&self, percent: u8, second: u32) -> u64 {
        let requests: u64 = self.requests.all().map(|worker| worker.sum(second)).sum();
        requests * u64::from(percent) / 100
    }

    /// The retries of the last ten seconds.
    pub fn retries(&self, now: Millis) -> u64 {
        self.retries.sum(second(now))
    }
}

fn second(now: Millis) -> u32 {
    (now.0 / 1000) as u32
}

/// Counts for the last ten seconds, each one word of the second and its count.
#[derive(Debug, Default)]
struct Buckets([AtomicU64; SECONDS as usize]);

impl Buckets {
    /// For a writer that is the only one.
    fn add_alone(&self, second: u32) {
        let slot = self.slot(second);
        slot.store(one_more(slot.load(Relaxed), second), Relaxed);
    }

    fn add(&self, second: u32) {
        // Sequentially consistent, like the sum after it: every worker must see what others have taken.
        let _ = self.slot(second).fetch_update(SeqCst, SeqCst, |word| Some(one_more(word, second)));
    }

    fn try_take(&self, allowed: u64, second: u32) -> bool {
        if self.sum(second) >= allowed {
            return false;
        }
        // Take first and look then: of two workers after the last one, at most one keeps it.
        self.add(second);
        if self.sum(second) > allowed {
            self.give_back(second);
            return false;
        }
        true
    }

    fn give_back(&self, second: u32) {
        let _ = self.slot(second).fetch_update(SeqCst, SeqCst, |word| {
            let (at, count) = unpack(word);
            (at == second && count > 0).then(|| pack(at, count - 1))
        });
    }

    fn sum(&self, second: u32) -> u64 {
        let counts = self.0.iter().map(|slot| unpack(slot.load(SeqCst)));
        // A bucket a moment ahead of this worker's clock counts as well.
        let recent = counts.filter(|(at, _)| u64::from(second.saturating_sub(*at)) < SECONDS);
        recent.map(|(_, count)| u64::from(count)).sum()
    }

    fn slot(&self, second: u32) -> &AtomicU64 {
        &self.0[(u64::from(second) % SECONDS) as usize]
    }
}

fn one_more(word: u64, second: u32) -> u64 {
    let (at, count) = unpack(word);
    // A bucket that another worker has moved on already stays where it is.
    if at < second { pack(second, 1) } else { pack(at, count.saturating_add(1)) }
}

fn pack(second: u32, count: u32) -> u64 {
    u64::from(second) << 32 | u64::from(count)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_attempts_have_a_budget_of_their_own() {
        let budget = RetryBudget::new(2);
        for request in 0..1_000 {
            budget.count_request(WorkerId(request % 2), Millis(0));
        }
        assert!(budget.try_retry(20, Millis(0)));
        assert_eq!((0..1_000).filter(|_| budget.try_hedge(5, Millis(0))).count(), 50);
        assert!(budget.try_retry(20, Millis(0)));
        assert!(budget.try_hedge(5, Millis(10_000)), "one in ten seconds is always allowed");
        assert!(!budget.try_hedge(5, Millis(10_000)));
    }

    #[test]
    fn ten_thousand_failing_requests_cause_at_most_a_fifth_more() {
        let budget = RetryBudget::new(4);
        let mut retries = 0;
        for request in 0..10_000u64 {
            let now = Millis(request); // 1,000 a second
            budget.count_request(WorkerId(request as usize % 4), now);
            // Each would like two.
            retries += (0..2).filter(|_| budget.try_retry(20, now)).count();
        }
        assert!((1_800..=2_000).contains(&retries), "{retries}");
    }

    #[test]
    fn little_traffic_has_ten_a_second_and_zero_per_cent_is_none() {
        let budget = RetryBudget::new(1);
        budget.count_request(WorkerId(0), Millis(0));
        assert!(!budget.try_retry(0, Millis(0)));
        let taken = (0..1000).filter(|_| budget.try_retry(1, Millis(0))).count();
        assert_eq!(taken as u64, LEAST);
        assert!(!budget.try_retry(1, Millis(9_999)));
        assert!(budget.try_retry(1, Millis(10_000)), "ten seconds later they are forgotten");
    }

    #[test]
    fn replacements_come_out_of_the_same_budget_and_have_the_floor_at_least() {
        let budget = RetryBudget::new(1);
        assert_eq!((0..1000).filter(|_| budget.try_replacement(0, Millis(0))).count() as u64, LEAST);
        assert!(!budget.try_retry(20, Millis(0)));
        assert!(budget.try_retry(20, Millis(10_000)));
    }

    #[test]
    fn requests_of_long_ago_earn_nothing() {
        let budget = RetryBudget::new(1);
        for _ in 0..10_000 {
            budget.count_request(WorkerId(0), Millis(500));
        }
        let taken = (0..5_000).filter(|_| budget.try_retry(20, Millis(10_500))).count();
        assert_eq!(taken as u64, LEAST);
    }

    #[test]
    fn the_bound_holds_over_all_workers_at_once() {
        let budget = RetryBudget::new(4);
        for _ in 0..1_000 {
            budget.count_request(WorkerId(0), Millis(0));
        }
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let own = (0..2_000).filter(|_| budget.try_retry(20, Millis(1))).count();
                    taken.fetch_add(own as u64, Relaxed);
                });
            }
        });
        // Two that met at the last retry may both have gone without: it is still there.
        let rest = (0..200).filter(|_| budget.try_retry(20, Millis(1))).count() as u64;
        assert_eq!(taken.into_inner() + rest, 200);
        assert_eq!(budget.retries(Millis(1)), 200);
    }
}
