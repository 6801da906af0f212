//! The breakers of an instance: the service's own, and those of routes that have one of their own there.

use std::sync::Arc;

use super::{Instance, RouteBreakers};
use crate::clock::Millis;
use crate::service::breaker::{Breaker, BreakerStatus};
use crate::service::settings::{BreakerOf, BreakerSettings};

impl Instance {
    pub(super) fn with_breaker<T>(&self, of: BreakerOf, use_it: impl FnOnce(&Breaker) -> T) -> Option<T> {
        if of == BreakerOf::SERVICE {
            return Some(use_it(&self.breaker));
        }
        let all = self.route_breakers.load();
        let (_, breaker) = all.as_deref()?.iter().find(|(whose, _)| *whose == of)?;
        Some(use_it(breaker))
    }

    pub(super) fn add_breaker(&self, of: BreakerOf) {
        self.route_breakers.rcu(|all| {
            let mut all: RouteBreakers = all.as_deref().cloned().unwrap_or_default();
            if all.iter().all(|(whose, _)| *whose != of) {
                all.push((of, Arc::new(Breaker::new(self.loads.workers()))));
            }
            Some(Arc::new(all))
        });
    }

    /// Forgets the breakers of routes that have none any more.
    pub(in crate::service) fn keep_breakers(&self, wanted: impl Fn(BreakerOf) -> bool) {
        let is_stray = |all: &RouteBreakers| all.iter().any(|(of, _)| !wanted(*of));
        if self.route_breakers.load().as_deref().is_some_and(is_stray) {
            self.route_breakers.rcu(|all| {
                let all = all.iter().flat_map(|all| &**all).filter(|(of, _)| wanted(*of));
                Some(Arc::new(all.cloned().collect::<RouteBreakers>()))
            });
        }
    }

    /// As [`Breaker::probe_from`], for all of them.
    pub(super) fn probe_breakers_from(&self, now: Millis) {
        self.breaker.probe_from(now);
        for (_, breaker) in self.route_breakers.load().as_deref().into_iter().flatten() {
            breaker.probe_from(now);
        }
    }

    /// As [`Breaker::probe_early`].
    pub(in crate::service) fn probe_early(&self, now: Millis, settings: &BreakerSettings) -> bool {
        self.with_breaker(settings.of, |breaker| breaker.probe_early(now, settings)).unwrap_or(false)
    }

    /// The breaker that requests of a route with one of its own go by; `None` before its first request.
    pub fn breaker_status(&self, of: BreakerOf) -> Option<BreakerStatus> {
        self.with_breaker(of, Breaker::status)
    }
}
