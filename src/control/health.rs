//! Active health checks: one HTTP/1.1 GET to each instance of a service every `interval`.
//!
//! An instance that nobody has checked yet may be used, so that neither a start nor a scale-up waits for a
//! check; its first good answer makes it healthy, `unhealthy_after` bad ones in a row take it out, and
//! `healthy_after` good ones bring it back. Only this module writes an instance's health.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::clock;
use crate::service::{Check, Health, HealthSettings, Instance, Instances};

/// Checks of one service that are on their way at once. With more instances than can be checked in an
/// interval, the checks come later than asked for rather than all together.
const MAX_CONCURRENT: usize = 256;
/// Between the good answers that an instance has to give which could not be reached and now can.
const RETURN_PAUSE: Duration = Duration::from_millis(100);
/// The most bytes of a response head that a check reads.
const MAX_HEAD_BYTES: usize = 16 * 1024;

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
    loop {
        changes.mark_unchanged();
        let set = instances.current();
        let mut stale = std::mem::take(&mut running);
        for instance in set.instances() {
            let task = stale.remove(&instance.id).unwrap_or_else(|| {
                let instances = instances.clone();
                tasks.spawn(check_for_ever(instance.clone(), instances, settings.clone(), slots.clone()))
            });
            running.insert(instance.id, task);
        }
        instances.assess(settings.panic_threshold);
        stale.values().for_each(AbortHandle::abort);
        while tasks.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
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

async fn check_for_ever(
    instance: Arc<Instance>,
    instances: Arc<Instances>,
    settings: Arc<HealthSettings>,
    slots: Arc<Semaphore>,
) {
    let mut streak = Streak::default();
    // Instances that appear together are checked together only once.
    let mut pause = settings.interval.mul_f64(0.5 + fastrand::f64() / 2.0);
    let mut came_back = false;
    loop {
        let slot = slots.acquire().await.expect("the semaphore is never closed");
        let started = Instant::now();
        let result = check(&instance, &settings).await;
        drop(slot);
        if matches!(result, Err(CheckError::Connect(_))) {
            instance.set_unreachable();
        }
        let (before, health) = (instance.health(), streak.next(instance.health(), result.is_ok(), &settings));
        if health != before {
            instance.set_health(health);
            instances.assess(settings.panic_threshold);
        }
        instance.set_last_check(Some(Check {
            at: clock::now(),
            took: started.elapsed(),
            failure: result.err().map(|error| error.to_string()),
        }));
        came_back &= streak.good > 0 && instance.health() == Health::Unhealthy;
        let wait = if came_back { pause.min(RETURN_PAUSE) } else { pause };
        tokio::select! {
            () = sleep(wait.saturating_sub(started.elapsed())) => {}
            () = instance.wants_a_check() => came_back = true,
        }
        pause = settings.interval.mul_f64(0.9 + fastrand::f64() / 5.0);
    }
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

/// Why a check failed. For operators only: it names inner addresses' troubles.
#[derive(Debug, Error)]
enum CheckError {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("no usable answer: {0}")]
    Exchange(#[source] hyper::Error),
    #[error("the check's path is not one: {0}")]
    Path(#[source] http::Error),
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

async fn check(instance: &Instance, settings: &HealthSettings) -> Result<(), CheckError> {
    let status = timeout(settings.timeout, ask(instance, settings))
        .await
        .map_err(|_| CheckError::Timeout(settings.timeout))??;
    if settings.expect_status.iter().any(|range| range.contains(&status.as_u16())) {
        return Ok(());
    }
    Err(CheckError::Status(status))
}

/// The status of the instance's answer. Its body is not read: the connection ends with the check.
async fn ask(instance: &Instance, settings: &HealthSettings) -> Result<StatusCode, CheckError> {
    let request = Request::get(settings.path.as_str())
        .header(header::HOST, &instance.authority)
        .header(header::USER_AGENT, "gatehouse-health")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(CheckError::Path)?;
    let stream = TcpStream::connect(instance.address).await.map_err(CheckError::Connect)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(CheckError::Exchange)?;
    let mut response = pin!(sender.send_request(request));
    let response = tokio::select! {
        response = &mut response => response,
        // An instance that closes at once has often answered before: the response knows.
        _ = connection => response.await,
    };
    Ok(response.map_err(CheckError::Exchange)?.status())
}

#[cfg(test)]
mod tests;
