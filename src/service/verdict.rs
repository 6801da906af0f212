//! What a response says about its instance.
//!
//! A head with one of the breaker's `failures` says it at once. A good head is worth only as much as the
//! body after it: its verdict stays open until that is through, because an instance which breaks off every
//! answer is not well. A half-open breaker doesn't wait for that, or a long body would hold a probe's place.

use http::StatusCode;

use super::Admission;
use super::settings::{BreakerSettings, Failure, Settings};
use crate::clock::{self, Millis};

/// A verdict that is open until the body is through. Dropped before (by a client that has heard enough), it
/// is what the head made it: good.
pub struct Verdict {
    admission: Option<Admission>,
    breaker: BreakerSettings,
    reset_counts: bool,
    timeout_counts: bool,
}

impl Verdict {
    pub fn of_head(
        status: StatusCode,
        admission: Admission,
        now: Millis,
        settings: &Settings,
    ) -> Option<Verdict> {
        let failure = Failure::Status(status);
        let is_counted = settings.breaker_failures.contains(failure);
        if is_counted || status.is_server_error() {
            admission.note(failure, now);
        }
        if is_counted {
            admission.failure(now, &settings.breaker);
        } else if status.is_server_error() {
            admission.server_error(now, &settings.breaker);
        } else if admission.is_probe() {
            admission.success(now, &settings.breaker);
        } else {
            return Some(Verdict {
                admission: Some(admission),
                breaker: settings.breaker,
                reset_counts: settings.breaker_failures.contains(Failure::Reset),
                timeout_counts: settings.breaker_failures.contains(Failure::Timeout),
            });
        }
        None
    }

    /// The body is through.
    pub fn good(mut self, now: Millis) {
        if let Some(admission) = self.admission.take() {
            admission.success(now, &self.breaker);
        }
    }

    /// The instance broke the body off, or stood still in the midst of it.
    pub fn broken(mut self, stalled: bool) {
        let Some(admission) = self.admission.take() else { return };
        if !stalled {
            admission.note(Failure::Reset, clock::now());
        }
        if if stalled { self.timeout_counts } else { self.reset_counts } {
            admission.failure(clock::now(), &self.breaker);
        } else {
            admission.server_error(clock::now(), &self.breaker);
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            admission.success(clock::recent(), &self.breaker);
        }
    }
}
