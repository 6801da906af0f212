//! Instances whose last answers were failures.
//!
//! A breaker takes some failures to open, because the requests that find out are mostly tried again elsewhere. It is left to
//! those: a request that may not be tried again avoids an instance that broke off its last answer, or whose last two answers were
//! errors, as long as there is another. What no breaker counts is avoided by all. Any good answer ends that; one request in five seconds
//! tries, or in one where nothing of it shows.
//!
//! What is written for it is written when an answer is a failure, and once when one is good again.

use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

use super::settings::{Failure, FailureSet, Settings};
use crate::clock::Millis;

/// From one request that tries a failing instance to the next.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// Where it is tried again elsewhere if it fails.
const TRY_UNSEEN_EVERY: Duration = Duration::from_secs(1);
/// Errors in a row by which an instance is failing: one alone may be about the request.
const ERRORS: u64 = 2;

/// 0 while the last answer was good; else when it or the last try failed, its status (0 where it broke off), and how many in a row
/// did.
#[derive(Debug, Default)]
pub(super) struct Failing(AtomicU64);

const RUN_BITS: u32 = 6;
const MOST: u64 = (1 << RUN_BITS) - 1;
const STATUS_BITS: u32 = 10;

/// What was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    word: u64,
}

impl Failing {
    /// One more answer was this failure.
    pub fn note(&self, failure: Failure, now: Millis) {
        let status = match failure {
            Failure::Reset => 0,
            Failure::Status(status) => u64::from(status.as_u16()),
            // Instances that can't be reached or say nothing are found out otherwise.
            Failure::Connect | Failure::Timeout => return,
        };
        let run = ((self.0.load(Relaxed) & MOST) + 1).min(MOST);
        self.0.store((now.0 << STATUS_BITS | status) << RUN_BITS | run, Relaxed);
    }

    /// An answer was good.
    pub fn end(&self) {
        // Mostly it was before, and a load spares the others their cache line.
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }

    pub fn last(&self) -> Option<Failed> {
        let word = self.0.load(Relaxed);
        (word != 0).then_some(Failed { word })
    }

    /// Whether there are requests that avoid the instance.
    pub fn is_on(&self) -> bool {
        self.last().is_some_and(|failed| failed.broke_off() || failed.run() >= ERRORS)
    }

    /// Whether a request is to go elsewhere. Once in a while one is not.
    pub fn holds(&self, failed: Failed, is_unseen: bool, now: Millis) -> bool {
        let every = if is_unseen { TRY_UNSEEN_EVERY } else { TRY_EVERY };
        if now.since(failed.at()) < every {
            return true;
        }
        let rest = failed.word & ((1 << (STATUS_BITS + RUN_BITS)) - 1);
        let tried = now.0 << (STATUS_BITS + RUN_BITS) | rest;
        self.0.compare_exchange(failed.word, tried, Relaxed, Relaxed).is_err()
    }
}

impl Failed {
    fn at(self) -> Millis {
        Millis(self.word >> (STATUS_BITS + RUN_BITS))
    }

    fn run(self) -> u64 {
        self.word & MOST
    }

    fn broke_off(self) -> bool {
        self.status() == 0
    }

    fn is_in(self, failures: &FailureSet) -> bool {
        if self.broke_off() {
            failures.contains(Failure::Reset)
        } else {
            failures.contains_status(self.status())
        }
    }

    fn status(self) -> u16 {
        (self.word >> RUN_BITS & ((1 << STATUS_BITS) - 1)) as u16
    }
}

impl Settings {
    /// Whether a request had better go elsewhere, and if so, whether nobody would see it fail. `once`: its method is none of
    /// those that are tried again.
    pub(super) fn is_wary_of(&self, failed: Failed, once: bool) -> Option<bool> {
        let retries = &self.retries;
        let is_unseen = !once && retries.attempts > 0 && failed.is_in(&retries.on);
        let least = if failed.broke_off() && !is_unseen { 1 } else { ERRORS };
        // Somebody has to find out for the breaker.
        let is_left = failed.is_in(&self.breaker_failures) && !(once && retries.attempts > 0);
        (failed.run() >= least && !is_left).then_some(is_unseen)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::config::{FailureKind, StatusRange};
    use crate::service::scenarios;

    const BROKEN: Failure = Failure::Reset;

    fn error(status: u16) -> Failure {
        Failure::Status(StatusCode::from_u16(status).expect("a status"))
    }

    fn settings(change: impl FnOnce(&mut crate::config::Service)) -> Settings {
        let mut config = scenarios::config(crate::config::LoadBalancing::RoundRobin, &[]);
        change(&mut config);
        Settings::compile(&config)
    }

    /// What a request thinks of an instance with these answers of late.
    fn wary(settings: &Settings, once: bool, failures: &[Failure]) -> Option<bool> {
        let failing = Failing::default();
        failures.iter().for_each(|&failure| failing.note(failure, Millis(7)));
        settings.is_wary_of(failing.last()?, once)
    }

    #[test]
    fn who_may_not_be_sent_twice_avoids_what_broke_off_or_erred_twice() {
        let settings = settings(|_| {});
        let once = |failures: &[Failure]| wary(&settings, true, failures);
        assert_eq!(once(&[BROKEN]), Some(false));
        assert_eq!(once(&[error(500)]), None, "it may have been the request");
        assert_eq!(once(&[error(500), error(503)]), Some(false));
        assert_eq!(once(&[error(500), BROKEN]), Some(false));
        assert_eq!(once(&[Failure::Connect, Failure::Timeout]), None);
    }

    #[test]
    fn who_may_be_sent_twice_avoids_what_no_breaker_counts() {
        let usual = settings(|_| {});
        let often = |settings: &Settings, failures: &[Failure]| wary(settings, false, failures);
        assert_eq!(often(&usual, &[BROKEN; 9]), None, "its breaker opens, and nobody sees it");
        assert_eq!(often(&usual, &[error(503); 9]), None);
        assert_eq!(often(&usual, &[error(500)]), None);
        assert_eq!(often(&usual, &[error(500); 2]), Some(false));
        let again = settings(|config| {
            let errors = StatusRange { from: 500, to: 504 };
            config.retries.on = vec![FailureKind::Reset, FailureKind::Status(errors)];
        });
        assert_eq!(often(&again, &[error(500); 2]), Some(true), "it is tried again, but it takes time");
        let counted = settings(|config| {
            let errors = StatusRange { from: 500, to: 504 };
            config.circuit_breaker.failures = vec![FailureKind::Status(errors)];
        });
        assert_eq!(often(&counted, &[error(500); 9]), None);
        assert_eq!(often(&counted, &[BROKEN; 2]), Some(true), "it is none of these");
    }

    #[test]
    fn without_retries_breakers_are_left_to_all() {
        let never = settings(|config| config.retries.attempts = 0);
        for once in [false, true] {
            assert_eq!(wary(&never, once, &[BROKEN; 9]), None);
            assert_eq!(wary(&never, once, &[error(500); 2]), Some(false), "no breaker counts it");
        }
    }

    #[test]
    fn a_good_answer_ends_it_and_one_request_in_a_while_finds_out() {
        let failing = Failing::default();
        assert_eq!(failing.last(), None);
        failing.note(BROKEN, Millis(1_000));
        failing.note(error(502), Millis(2_000));
        let last = || failing.last().expect("it fails");
        assert_eq!((last().run(), last().status()), (2, 502));
        assert!(failing.holds(last(), false, Millis(6_999)));
        assert!(failing.holds(last(), true, Millis(2_999)));
        let seen = last();
        assert!(!failing.holds(seen, true, Millis(3_000)), "one tries");
        assert!(failing.holds(seen, true, Millis(3_000)), "and no other at the same time");
        assert!(failing.holds(last(), true, Millis(3_999)) && failing.holds(last(), false, Millis(7_999)));
        assert!(!failing.holds(last(), false, Millis(8_000)));
        failing.end();
        assert_eq!(failing.last(), None);
        (0..100).for_each(|_| failing.note(error(599), Millis(1 << 40)));
        assert_eq!((last().run(), last().status(), last().at()), (MOST, 599, Millis(1 << 40)));
    }
}
