//! Active health checks: each instance of a service is asked every `interval` whether it is well, over HTTP, by the gRPC
//! health protocol, or by connecting alone (`check`).
//!
//! An instance that nobody has checked yet may be used, so that neither a start nor a scale-up waits for a
//! check; its first good answer makes it healthy, `unhealthy_after` bad ones in a row take it out, and
//! `healthy_after` good ones bring it back. Only this module writes an instance's health.

mod check;
mod get;
mod grpc;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::service::{Check, Health, HealthSettings, Instance, Instances};
use check::{CheckError, check};

/// Checks of one service that are on their way at once. With more instances than can be checked in an
/// interval, the checks come later than asked for rather than all together.
const MAX_CONCURRENT: usize = 256;
/// Between the good answers that an instance has to give which could not be reached and now can.
const RETURN_PAUSE: Duration = Duration::from_millis(100);
/// Instances that appear together are checked so far apart on average, as long as that takes no more than an interval.
const APART: Duration = Duration::from_millis(2);
/// Of thousands of instances, many may change at once; all of them are looked at to see how many are healthy.
const ASSESSED_EVERY: Duration = Duration::from_millis(20);

/// Checks the instances of a service, those that join it at once, until the future is dropped. What is
/// known stays then, for a run with other settings to go on from; where there is to be none, call
/// [`forget`].
pub async fn run(instances: Arc<Instances>, settings: HealthSettings) {
    let settings = Arc::new(settings);
    let slots = Arc::new(Semaphore::new(MAX_CONCURRENT));
    let mut changes = instances.changes();
    // Dropped with this future, and all checks with it.
    let mut tasks = JoinSet::new();
    let mut running: HashMap<u64, AbortHandle> = HashMap::new();
    let service = Arc::new(Checked { instances: instances.clone(), changed: Notify::new() });
    loop {
        changes.mark_unchanged();
        let set = instances.current();
        let mut stale = std::mem::take(&mut running);
        let new = set.instances().filter(|instance| !stale.contains_key(&instance.id)).count();
        let spread = spread(new, settings.interval);
        for instance in set.instances() {
            let task = stale.remove(&instance.id).unwrap_or_else(|| {
                let first = spread.mul_f64(fastrand::f64());
                let (instance, service) = (instance.clone(), service.clone());
                let (settings, slots) = (settings.clone(), slots.clone());
                tasks.spawn(async move {
                    sleep(first).await;
                    check_for_ever(instance, service, settings, slots).await;
                })
            });
            running.insert(instance.id, task);
        }
        stale.values().for_each(AbortHandle::abort);
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = assess(&instances, settings.panic_threshold, &service.changed) => {}
        }
    }
}

/// Says at once, and whenever the health of an instance has changed, whether enough are healthy. It never ends.
async fn assess(instances: &Instances, panic_threshold: Option<u8>, changed: &Notify) {
    loop {
        instances.assess(panic_threshold);
        sleep(ASSESSED_EVERY).await;
        changed.notified().await;
    }
}

/// Takes back what checks have said, for a service that is no longer to be checked. To be called once its
/// [`run`] has been dropped.
pub fn forget(instances: &Instances) {
    for instance in instances.current().instances() {
        instance.set_health(Health::Unchecked);
        instance.set_last_check(None);
    }
    instances.assess(None);
}

/// A service, as the checks of its instances see it.
struct Checked {
    instances: Arc<Instances>,
    /// Told when the health of an instance has changed.
    changed: Notify,
}

async fn check_for_ever(
    instance: Arc<Instance>,
    service: Arc<Checked>,
    settings: Arc<HealthSettings>,
    slots: Arc<Semaphore>,
) {
    let mut streak = Streak::default();
    // Few instances that appear together are checked nearly together, but only once.
    let mut pause = settings.interval.mul_f64(0.5 + fastrand::f64() / 2.0);
    let mut came_back = false;
    loop {
        let slot = slots.acquire().await.expect("the semaphore is never closed");
        let started = Instant::now();
        let tls = service.instances.tls();
        let result = check(&instance, tls.as_deref(), &settings).await;
        drop(slot);
        if result.as_ref().is_err_and(CheckError::is_unreachable) {
            instance.set_unreachable();
        }
        let (before, health) = (instance.health(), streak.next(instance.health(), result.is_ok(), &settings));
        if health != before {
            instance.set_health(health);
            service.changed.notify_one();
        }
        instance.set_last_check(Some(Check {
            at: clock::now(),
            took: started.elapsed(),
            failure: result.err().map(|error| error.with_causes()),
        }));
        came_back &= streak.good > 0 && instance.health() == Health::Unhealthy;
        let wait = if came_back { pause.min(RETURN_PAUSE) } else { pause };
        tokio::select! {
            () = sleep(wait.saturating_sub(started.elapsed())) => {}
            () = instance.wants_a_check() => came_back = true,
        }
        pause = jittered(settings.interval, settings.jitter, fastrand::f64());
    }
}

/// What the first checks of so many instances that appear together are spread over.
fn spread(new: usize, interval: Duration) -> Duration {
    APART.saturating_mul(u32::try_from(new).unwrap_or(u32::MAX)).min(interval)
}

/// An interval that is longer or shorter by up to its share of `jitter`; `chance` is from 0 to 1.
fn jittered(interval: Duration, jitter: f64, chance: f64) -> Duration {
    interval.mul_f64((1.0 + jitter * (2.0 * chance - 1.0)).max(0.0))
}

/// Results of the same kind in a row.
#[derive(Debug, Default)]
struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    fn next(&mut self, health: Health, good: bool, settings: &HealthSettings) -> Health {
        if good {
            *self = Streak { good: self.good.saturating_add(1), bad: 0 };
        } else {
            *self = Streak { good: 0, bad: self.bad.saturating_add(1) };
        }
        match health {
            Health::Unchecked if good => Health::Healthy,
            Health::Unhealthy if self.good >= settings.healthy_after => Health::Healthy,
            Health::Unchecked | Health::Healthy if self.bad >= settings.unhealthy_after => Health::Unhealthy,
            same => same,
        }
    }
}

#[cfg(test)]
mod tests;
