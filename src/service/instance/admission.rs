//! What a request holds of its instance: a place in its load, and the breaker's leave to be there.

use std::sync::atomic::Ordering::Relaxed;

use super::{InstanceRef, bump};
use crate::clock::Millis;
use crate::service::breaker::{BreakerState, Pass};
use crate::service::settings::{BreakerOf, BreakerSettings, Failure};

/// One request on its way at an instance. Keep it until the response's body is through.
#[derive(Debug)]
#[must_use]
pub struct InFlight {
    pub(super) instance: InstanceRef,
    pub(super) by_key: bool,
}

impl InFlight {
    pub fn instance(&self) -> &InstanceRef {
        &self.instance
    }

    /// The attempt was none: nothing was sent, and nothing tried.
    pub(in crate::service) fn withdraw(self) {
        let attempts = &self.instance.load().attempts;
        attempts.store(attempts.load(Relaxed).wrapping_sub(1), Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Only this worker writes it, as all of a load.
        let in_flight = &self.instance.load().in_flight;
        in_flight.store(in_flight.load(Relaxed).wrapping_sub(1), Relaxed);
        if self.by_key {
            self.instance.of_service().fetch_sub(1, Relaxed);
        }
    }
}

/// The breaker's leave to try an instance once. Exactly one verdict ends it; dropped without one, it
/// counts as [`Admission::ignored`], and a probe's place is free again.
#[derive(Debug)]
#[must_use]
pub struct Admission {
    pub(super) instance: InstanceRef,
    pub(super) pass: Option<Pass>,
    pub(super) of: BreakerOf,
}

impl Admission {
    /// Whether it holds one of the places of a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.pass.as_ref().is_some_and(Pass::is_probe)
    }

    pub fn instance_id(&self) -> u64 {
        self.instance.id
    }

    /// The instance answered, and not with one of the breaker's `failures`.
    pub fn success(self, now: Millis, settings: &BreakerSettings) {
        self.instance.failing.end();
        self.no_failure(now, settings);
    }

    /// What its answer was, for those who come next. One of the verdicts follows.
    pub fn note(&self, failure: Failure, now: Millis) {
        self.instance.failing.note(failure, now);
    }

    fn no_failure(mut self, now: Millis, settings: &BreakerSettings) {
        let Some(pass) = self.pass.take() else { return };
        self.instance.tell(false);
        let was_probe = pass.is_probe();
        let worker = self.instance.worker();
        self.instance.with_breaker(self.of, |breaker| breaker.success(pass, worker, now, settings));
        let is_closed = || self.instance.breaker.status().state == BreakerState::Closed;
        if was_probe && self.of == BreakerOf::SERVICE && is_closed() {
            self.instance.begins(now);
        }
    }

    /// The instance answered with a 5xx that is not one of the breaker's `failures`: a success for the
    /// breaker, yet no reason to send more requests its way.
    pub fn server_error(self, now: Millis, settings: &BreakerSettings) {
        let load = self.instance.load();
        bump(&load.failures);
        load.penalty.add(now);
        self.no_failure(now, settings);
    }

    /// The attempt ended in one of the breaker's `failures`.
    pub fn failure(mut self, now: Millis, settings: &BreakerSettings) {
        let load = self.instance.load();
        bump(&load.failures);
        load.penalty.add(now);
        if let Some(pass) = self.pass.take() {
            self.instance.tell(true);
            let worker = self.instance.worker();
            self.instance.with_breaker(self.of, |breaker| breaker.failure(pass, worker, now, settings));
        }
    }

    /// The attempt ended without saying anything about the instance.
    pub fn ignored(self) {
        drop(self);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.instance.with_breaker(self.of, |breaker| breaker.ignored(pass));
        }
    }
}
