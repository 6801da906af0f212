//! Outlier detection: passive health checks that hold each instance against the others of its service.
//!
//! Once in an `interval` it takes what the workers have counted, judges it (`judge`), and ejects who does too badly,
//! the worst first. Never more than `max_ejected` of the instances are ejected, also when a set shrinks; never
//! all; and never the last that health checks leave in rotation. Only this module and [`Instance::reached`] write
//! ejections. What is known of an instance is kept by the instance, for a run with other settings to go on from.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::clock::{self, Millis};
use crate::service::{Health, Instance, InstanceSet, Instances, OutlierSettings, Tallied};
use judge::{Fault, Seen, judge};

mod judge;

/// Compares the instances of a service until the future is dropped. Where there is to be no outlier detection any
/// more, call [`forget`].
pub async fn run(instances: Arc<Instances>, settings: OutlierSettings) {
    let mut changes = instances.changes();
    let mut known: HashMap<u64, Known> = HashMap::new();
    let mut look = interval_at(Instant::now() + settings.interval, settings.interval);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        changes.mark_unchanged();
        let set = instances.current();
        let mut before = std::mem::take(&mut known);
        for instance in set.instances() {
            let of_it = before.remove(&instance.id).unwrap_or_else(|| Known::begin(instance, &settings));
            known.insert(instance.id, of_it);
        }
        let next = readmit(&set, &settings);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(next.unwrap_or(settings.interval)) => {}
            _ = look.tick() => {
                readmit(&set, &settings);
                eject(&set, &mut known, &settings);
            }
        }
    }
}

/// Ends ejections and counting, for a service that is no longer to have any. To be called once its [`run`] has been
/// dropped.
pub fn forget(instances: &Instances) {
    for instance in instances.current().instances() {
        instance.tally(None, false);
        instance.readmit(clock::now());
    }
}

/// What was counted when an instance was last looked at.
struct Known {
    tallied: Tallied,
    returns: u32,
    /// Failures since the last interval with a success in it.
    unbroken: u64,
}

impl Known {
    fn begin(instance: &Instance, settings: &OutlierSettings) -> Self {
        instance.tally(Some(settings.consecutive_failures.unwrap_or(u32::MAX)), settings.latency.is_some());
        Known { tallied: instance.tallied(), returns: instance.returns(), unbroken: 0 }
    }

    /// What came of the requests since it was last called.
    fn seen(&mut self, instance: &Instance, settings: &OutlierSettings) -> Seen {
        let returns = instance.returns().wrapping_sub(self.returns);
        self.returns = self.returns.wrapping_add(returns);
        // Once, it was another process before, perhaps. More often, it is one that can't be relied on.
        if returns == 1
            && let Some(at_return) = instance.tallied_at_return()
        {
            self.tallied = at_return;
            self.unbroken = 0;
        }
        let tallied = instance.tallied();
        let since = tallied.since(&self.tallied);
        self.tallied = tallied;
        if instance.is_ejected() {
            // It got only what nobody else could take.
            self.unbroken = 0;
            return Seen::default();
        }
        self.unbroken += u64::from(since.failures);
        if since.requests > since.failures {
            self.unbroken = 0;
        }
        let in_a_row = settings
            .consecutive_failures
            .filter(|&most| since.runs > 0 || since.failures > 0 && self.unbroken >= u64::from(most));
        let enough = |count: u64| count >= u64::from(settings.minimum_requests);
        Seen {
            failures_in_a_row: in_a_row.map(|most| self.unbroken.max(u64::from(most))),
            is_gone: returns == 0 && instance.is_unreachable(),
            requests: since.requests,
            failure_ratio: enough(since.requests.into())
                .then(|| f64::from(since.failures) / f64::from(since.requests)),
            latency: since.median().filter(|_| enough(since.timed())),
        }
    }
}

/// Ends the ejections whose time is over, and those that are too many for a set that has become smaller. How long it
/// is until the next one ends.
fn readmit(set: &InstanceSet, settings: &OutlierSettings) -> Option<Duration> {
    let now = clock::now();
    let of = |instance: &Arc<Instance>| Some((instance.ejection()?.until, instance.clone()));
    let mut ejected: Vec<(Millis, Arc<Instance>)> = set.instances().filter_map(of).collect();
    ejected.sort_by_key(|(until, _)| *until);
    let too_many = ejected.len().saturating_sub(most_ejected(set.len(), settings.max_ejected));
    let mut left = ejected.into_iter().enumerate();
    left.find_map(|(place, (until, instance))| {
        if place >= too_many && until > now {
            return Some(until.since(now));
        }
        instance.readmit(now);
        None
    })
}

/// Judges what was counted since the last time, and ejects as many as may be.
fn eject(set: &InstanceSet, known: &mut HashMap<u64, Known>, settings: &OutlierSettings) {
    let now = clock::now();
    let instances: Vec<&Arc<Instance>> = set.instances().collect();
    let seen: Vec<Seen> = instances
        .iter()
        .map(|instance| {
            known.get_mut(&instance.id).map_or_else(Seen::default, |known| known.seen(instance, settings))
        })
        .collect();
    let ejected = instances.iter().filter(|instance| instance.is_ejected()).count();
    let mut places = most_ejected(instances.len(), settings.max_ejected).saturating_sub(ejected);
    let in_rotation = |instance: &Instance| !instance.is_ejected() && instance.health() != Health::Unhealthy;
    let mut others = instances.iter().filter(|instance| in_rotation(instance)).count();
    for (index, fault) in judge(&seen, settings) {
        let instance = instances[index];
        if !in_rotation(instance) {
            continue;
        }
        if places == 0 || others < 2 {
            return;
        }
        places -= 1;
        others -= 1;
        let until_reached = matches!(fault, Fault::InARow { .. }) && seen[index].is_gone;
        instance.eject(fault.reason(), fault.to_string(), until_reached, now, settings.time);
    }
}

/// How many of a set may be ejected at once: the share, rounded down; but one of several always, and never all.
fn most_ejected(instances: usize, percent: u8) -> usize {
    if instances < 2 { 0 } else { (instances * usize::from(percent) / 100).clamp(1, instances - 1) }
}

#[cfg(test)]
mod tests;
