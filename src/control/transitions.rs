//! Tells the log when a breaker opens or closes, when an instance's health changes, when it is ejected, and when requests go
//! over to other zones or priorities.
//!
//! The states are looked at twice a second, beside the requests that cause them: a change costs the request
//! path nothing, and of an instance that flaps faster than that, the count of openings still tells.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::service::{BreakerOf, BreakerState, BreakerStatus, Doubt, Health, Instance, Instances};
use crate::telemetry::events;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A service's name and its instances.
pub type Watched = (Arc<str>, Arc<Instances>);

/// Watches what `services` names at the moment, until its sender is dropped.
pub async fn run(services: watch::Receiver<Vec<Watched>>) {
    let mut known: HashMap<(u64, BreakerOf), Seen> = HashMap::new();
    let mut panicking: HashSet<Arc<str>> = HashSet::new();
    let mut going_over: HashSet<Arc<str>> = HashSet::new();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while services.has_changed().is_ok() {
        tick.tick().await;
        let present = services.borrow().clone();
        let mut next = HashMap::with_capacity(known.len());
        for states in [&mut panicking, &mut going_over] {
            states.retain(|service| present.iter().any(|(present, _)| present == service));
        }
        for (service, instances) in &present {
            instances.free_retired();
            let panics = instances.is_panicking();
            if panics && panicking.insert(service.clone()) {
                events::warn(format_args!(
                    "service {service}: too few instances are healthy: unhealthy ones get requests, too"
                ));
            } else if !panics && panicking.remove(service) {
                events::info(format_args!("service {service}: enough instances are healthy again"));
            }
            let set = instances.current();
            report_groups(service, set.goes_over(), &mut going_over);
            for instance in set.instances() {
                let key = (instance.id, BreakerOf::SERVICE);
                let seen = Seen::of(instance);
                let before = known.get(&key).copied().unwrap_or(Seen::NEW);
                for change in before.changes(seen) {
                    report(
                        &At(service, instance.address, None),
                        instance,
                        &instance.breaker.status(),
                        change,
                    );
                }
                next.insert(key, seen);
                for own in &*instances.route_breakers() {
                    let Some(status) = instance.breaker_status(own.of) else { continue };
                    let (key, seen) = ((instance.id, own.of), Seen::of_breaker(&status));
                    let before = known.get(&key).copied().unwrap_or(Seen::NEW);
                    for change in before.changes(seen) {
                        report(&At(service, instance.address, Some(&own.route)), instance, &status, change);
                    }
                    next.insert(key, seen);
                }
            }
        }
        known = next;
    }
}

/// `part` of the service's requests go to others than the instances that are preferred.
fn report_groups(service: &Arc<str>, part: f64, going_over: &mut HashSet<Arc<str>>) {
    if part > 0.0 && going_over.insert(service.clone()) {
        events::warn(format_args!(
            "service {service}: {:.0} % of its requests go over to other zones or priorities",
            (part * 100.0).round().max(1.0)
        ));
    } else if part == 0.0 && going_over.remove(service) {
        events::info(format_args!("service {service}: its preferred instances get all requests again"));
    }
}

/// What the log would want to know of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    healthy: bool,
    closed: bool,
    opens: u64,
    ejected: bool,
    ejections: u64,
    doubt: Option<Doubt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Unhealthy,
    Healthy,
    Opened,
    Closed,
    Ejected,
    Readmitted,
    PassedOver(Doubt),
    /// For this it is passed over no longer.
    TakenUp(Doubt),
}

impl Seen {
    const NEW: Seen =
        Seen { healthy: true, closed: true, opens: 0, ejected: false, ejections: 0, doubt: None };

    fn of(instance: &Instance) -> Self {
        Seen {
            healthy: instance.health() != Health::Unhealthy,
            ejected: instance.is_ejected(),
            ejections: instance.ejections().iter().map(|(_, count)| count).sum(),
            doubt: instance.doubt(),
            ..Self::of_breaker(&instance.breaker.status())
        }
    }

    fn of_breaker(breaker: &BreakerStatus) -> Self {
        Seen { closed: breaker.state == BreakerState::Closed, opens: breaker.opens, ..Seen::NEW }
    }

    fn changes(self, now: Seen) -> impl Iterator<Item = Change> {
        let health = match (self.healthy, now.healthy) {
            (true, false) => Some(Change::Unhealthy),
            (false, true) => Some(Change::Healthy),
            _ => None,
        };
        let opened = (now.opens > self.opens).then_some(Change::Opened);
        let was_open = !self.closed || opened.is_some();
        let closed = (was_open && now.closed).then_some(Change::Closed);
        let ejected = (now.ejections > self.ejections).then_some(Change::Ejected);
        let was_ejected = self.ejected || ejected.is_some();
        let readmitted = (was_ejected && !now.ejected).then_some(Change::Readmitted);
        let [passed_over, taken_up] = match (self.doubt, now.doubt) {
            (before, now) if before == now => [None, None],
            (before, now) => {
                [now.map(Change::PassedOver), before.map(Change::TakenUp).filter(|_| now.is_none())]
            }
        };
        [health, opened, closed, ejected, readmitted, passed_over, taken_up].into_iter().flatten()
    }
}

fn report(at: &At<'_>, instance: &Instance, breaker: &BreakerStatus, change: Change) {
    match change {
        Change::Unhealthy => {
            let why = instance.last_check().and_then(|check| check.failure);
            let why = why.as_deref().unwrap_or("its health checks fail");
            events::warn(format_args!("{at} is unhealthy and gets no requests: {why}"));
        }
        Change::Healthy => events::info(format_args!("{at} is healthy again")),
        Change::Opened => {
            let left = breaker.next_probe_at.map_or(Duration::ZERO, |at| at.since(clock::now()));
            events::warn(format_args!(
                "{at} fails: its circuit breaker has opened, to try again in {:.1} s",
                left.as_secs_f64()
            ));
        }
        Change::Closed => events::info(format_args!("{at} answers: its circuit breaker has closed")),
        Change::Ejected => {
            let Some(ejection) = instance.ejection() else { return };
            events::warn(format_args!(
                "{at} does worse than the others and is ejected for {:.1} s: {}",
                ejection.until.since(ejection.at).as_secs_f64(),
                ejection.why,
            ));
        }
        Change::Readmitted => events::info(format_args!("{at} is no longer ejected")),
        Change::PassedOver(Doubt::Unreachable) => {
            let why = instance.tls_failure().map(|failure| format!(" ({failure})")).unwrap_or_default();
            events::warn(format_args!(
                "{at} can't be connected to{why}: others get its requests, as long as there are any"
            ));
        }
        Change::PassedOver(Doubt::Silent) => events::warn(format_args!(
            "{at} answers nothing while others do: they get its requests, as long as there are any"
        )),
        Change::TakenUp(Doubt::Unreachable) => events::info(format_args!("{at} can be connected to again")),
        Change::TakenUp(Doubt::Silent) => events::info(format_args!("{at} answers again")),
    }
}

/// Of a service, and of a route where that has a breaker of its own.
struct At<'a>(&'a str, SocketAddr, Option<&'a str>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: {}", self.0, self.1)?;
        self.2.map_or(Ok(()), |route| write!(f, " on route {route}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(before: Seen, now: Seen) -> Vec<Change> {
        before.changes(now).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let open = Seen { closed: false, opens: 1, ..Seen::NEW };
        assert_eq!(between(Seen::NEW, Seen::NEW), []);
        assert_eq!(between(Seen::NEW, open), [Change::Opened]);
        assert_eq!(between(open, open), []);
        assert_eq!(between(open, Seen { opens: 2, ..open }), [Change::Opened]);
        assert_eq!(between(open, Seen { closed: true, ..open }), [Change::Closed]);
        let out = Seen { ejected: true, ejections: 1, ..Seen::NEW };
        assert_eq!(between(Seen::NEW, out), [Change::Ejected]);
        assert_eq!(between(out, out), []);
        assert_eq!(between(out, Seen { ejected: false, ..out }), [Change::Readmitted]);
        let silent = Seen { doubt: Some(Doubt::Silent), ..Seen::NEW };
        let gone = Seen { doubt: Some(Doubt::Unreachable), ..Seen::NEW };
        assert_eq!(between(Seen::NEW, silent), [Change::PassedOver(Doubt::Silent)]);
        assert_eq!(between(silent, gone), [Change::PassedOver(Doubt::Unreachable)]);
        assert_eq!(between(gone, Seen::NEW), [Change::TakenUp(Doubt::Unreachable)]);
        let ill = Seen { healthy: false, ..Seen::NEW };
        assert_eq!(between(Seen::NEW, ill), [Change::Unhealthy]);
        assert_eq!(between(ill, Seen::NEW), [Change::Healthy]);
    }

    #[test]
    fn what_came_and_went_between_two_looks_is_told_too() {
        let flapped = Seen { opens: 3, ..Seen::NEW };
        assert_eq!(between(Seen::NEW, flapped), [Change::Opened, Change::Closed]);
    }
}
