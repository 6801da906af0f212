//! Services: instances, balancing, breakers, retries, connections to an instance.
//!
//! A [`Service`] is part of a snapshot and never changes. What lives on over reloads, and what the
//! control side writes, is in the objects that it shares with its predecessor: [`Instances`], with the
//! breakers, and the [`RetryBudget`].

mod admittance;
mod affinity;
mod attempt;
pub mod backoff;
mod balance;
mod breaker;
mod budget;
mod bulkhead;
mod call;
mod carrier;
pub mod discovered;
mod ejection;
mod errand;
mod failing;
mod groups;
mod hedge;
pub mod http1;
mod http2;
mod instance;
mod instances;
mod latency;
mod order;
mod pool;
mod race;
mod ring;
mod samples;
mod settings;
mod silence;
mod stale;
mod sticky;
pub mod stream;
mod tally;
mod time_left;
mod tls;
mod upstream_body;
mod verdict;
mod window;

#[cfg(test)]
mod large_sets;
#[cfg(test)]
mod scenarios;

use std::cell::Cell;
use std::sync::Arc;

pub use affinity::{Affinity, HashKey, KeyInput, Wish};
pub use attempt::{AttemptError, Head, InformationalSink};
pub use balance::{NoPick, Picked, Rule};
pub use breaker::{BreakerState, BreakerStatus};
pub use budget::RetryBudget;
pub use bulkhead::{AdaptiveStatus, Bulkhead, BulkheadLimits, BulkheadLoad, BulkheadStatus};
pub use call::{Answer, Call, CallError, Caller, Progress, call};
pub use ejection::{Ejection, EjectionReason, EjectionTime};
pub use groups::Zone;
pub use hedge::RecentLatency;
pub use instance::{Admission, Check, Health, InFlight, Instance, InstanceRef, Totals};
pub use instances::{InstanceSet, Instances, RouteBreaker, SourceStatus};
pub use pool::Pools;
pub use settings::{
    BreakerOf, BreakerSettings, Concurrency, Failure, FailureSet, Fallback, HealthProbe, HealthSettings,
    HedgeAfter, Hedging, HttpProbe, OutlierSettings, PoolSettings, RetrySettings, Settings,
};
pub use silence::Doubt;
pub use stale::{Asked, Copying, Kept, Stale, StaleHeld, StaleStore};
pub use sticky::{SessionCode, Sticky};
pub use tally::Tallied;
pub use tls::{Channel, Protocol, SystemRoots, TlsFailure, UpstreamTls};
pub use upstream_body::UpstreamBody;

use crate::clock::{self, Millis};
use crate::config;
use crate::http::rewound::Rewound;
use crate::per_worker::{PerWorker, WorkerId};
use crate::telemetry::metrics::{Metrics, ServiceMetrics};
use balance::Picker;
use groups::{Found, Group, Weight};
use silence::Heard;
use sticky::SessionKey;

/// The instance's side of a tunnel: its connection after a switch of protocols.
pub type Upgraded = Rewound<stream::Stream>;

/// What a group of instances gets of a service's requests: those of one priority, in the gateway's zone or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupShare {
    pub priority: u8,
    pub zone: Zone,
    pub instances: usize,
    /// How many of them take their share.
    pub usable: usize,
    /// From 0 to 1; all are 0 when nothing is usable.
    pub share: f64,
}

#[derive(Debug)]
pub struct Service {
    pub name: Arc<str>,
    pub settings: Settings,
    /// By which clients stay with instances, if they do.
    pub sticky: Option<Sticky>,
    pub instances: Arc<Instances>,
    /// How its instances are spoken to, where that is over TLS.
    pub tls: Option<Arc<UpstreamTls>>,
    pub budget: Arc<RetryBudget>,
    /// Where the service has one, it is that of the snapshot before, as long as that had one.
    pub bulkhead: Option<Arc<Bulkhead>>,
    pub metrics: Arc<ServiceMetrics>,
    pub latency: Arc<RecentLatency>,
    /// Each worker's last good answer of any instance.
    heard: Arc<PerWorker<Heard>>,
    /// What the route keeps for the time of errors, where this is the service as a route wants it.
    pub stale: Option<Stale>,
    /// Where the instances come from, to see at the next reload whether that has changed.
    source: config::InstanceSource,
}

impl Service {
    /// The service as `config` wants it. What `previous`, the service of the same name in the snapshot
    /// before, has learnt lives on: all of it when the instances come from the same source, else what is
    /// known about instances that the new source finds again. Changes nothing about `previous`, whose
    /// snapshot stays in use if another part of the new one turns out wrong.
    pub fn compile(
        config: &config::Service,
        previous: Option<&Arc<Service>>,
        workers: usize,
        metrics: &Metrics,
    ) -> Arc<Service> {
        let metrics = metrics.service(&config.name);
        let settings = Settings::compile(config);
        let by_key = settings.affinity.is_some();
        let mut service = Self::continuing(config, previous, workers, settings, metrics);
        service.sticky = config.sticky.as_ref().map(|sticky| {
            let secret = sticky.secret.as_ref().map(|secret| SessionKey::of(secret.expose(), &config.name));
            Sticky::new(&sticky.cookie, service.instances.keep_codes(secret))
        });
        if by_key {
            service.instances.keep_ring();
        }
        Arc::new(service)
    }

    /// The service that was just compiled, with its instances spoken to over `tls`.
    pub fn over(mut self: Arc<Self>, tls: Option<Arc<UpstreamTls>>) -> Arc<Self> {
        Arc::get_mut(&mut self).expect("nobody else has been given it yet").tls = tls;
        self
    }

    fn continuing(
        config: &config::Service,
        previous: Option<&Arc<Service>>,
        workers: usize,
        settings: Settings,
        metrics: Arc<ServiceMetrics>,
    ) -> Service {
        let source = config.source.clone();
        let local_zone = config.failover.local_zone.as_deref().map(Arc::<str>::from);
        let bulkhead = settings.concurrency.as_ref().map(|concurrency| {
            let present = previous.and_then(|previous| previous.bulkhead.clone());
            present.unwrap_or_else(|| Bulkhead::new(concurrency.limits))
        });
        let Some(previous) = previous else {
            return Service {
                name: config.name.as_str().into(),
                settings,
                sticky: None,
                instances: Instances::near(local_zone, workers),
                tls: None,
                budget: Arc::new(RetryBudget::new(workers)),
                bulkhead,
                metrics,
                latency: Arc::default(),
                heard: Arc::new(PerWorker::new(workers)),
                stale: None,
                source,
            };
        };
        let same_zone = previous.instances.local_zone() == local_zone.as_ref();
        let instances = if previous.source == source && same_zone {
            previous.instances.clone()
        } else {
            Instances::continuing(&previous.instances, local_zone)
        };
        Service {
            name: previous.name.clone(),
            settings,
            sticky: None,
            instances,
            tls: None,
            budget: previous.budget.clone(),
            bulkhead,
            metrics,
            latency: previous.latency.clone(),
            heard: previous.heard.clone(),
            stale: None,
            source,
        }
    }

    /// This service, of which `written` is the configuration, as a route wants it: with other settings, and everything else
    /// in common.
    pub fn overridden(
        &self,
        written: &config::Service,
        overrides: &config::Overrides,
        stale: Option<Stale>,
        breaker: BreakerOf,
    ) -> Arc<Service> {
        let mut written = written.clone();
        written.retries = overrides.retries.clone().over(&written.retries);
        written.timeouts = overrides.timeouts.clone().over(&written.timeouts);
        written.circuit_breaker = overrides.circuit_breaker.clone().over(&written.circuit_breaker);
        written.hedging = overrides.hedging.or(written.hedging);
        written.fallback = overrides.fallback.clone().or(written.fallback);
        let mut settings = Settings::compile(&written);
        settings.breaker.of = breaker;
        Arc::new(Service {
            name: self.name.clone(),
            settings,
            sticky: self.sticky.clone(),
            instances: self.instances.clone(),
            tls: self.tls.clone(),
            budget: self.budget.clone(),
            bulkhead: self.bulkhead.clone(),
            metrics: self.metrics.clone(),
            latency: self.latency.clone(),
            heard: self.heard.clone(),
            stale,
            source: self.source.clone(),
        })
    }

    /// The snapshot of this service serves from now on: what its requests share with those of the one before obeys it.
    pub fn take_effect(&self) {
        if let Some(tls) = &self.tls {
            tls.take_effect();
        }
        self.instances.set_tls(self.tls.clone());
        if let (Some(bulkhead), Some(concurrency)) = (&self.bulkhead, &self.settings.concurrency) {
            bulkhead.set(concurrency.limits);
        }
    }

    /// Which instance a request would like to go to, as far as the service goes by that.
    pub fn wish<'a>(&self, input: impl FnOnce() -> KeyInput<'a>) -> Wish {
        if !self.has_wishes() {
            return Wish::default();
        }
        let input = input();
        Wish {
            key: self.settings.affinity.as_ref().and_then(|affinity| affinity.key.of(&input)),
            session: self.sticky.as_ref().and_then(|sticky| sticky.code_of(input.headers)),
            once: false,
        }
    }

    /// Whether [`Service::wish`] ever says anything.
    pub fn has_wishes(&self) -> bool {
        self.settings.affinity.is_some() || self.sticky.is_some()
    }

    /// What is to be told to a client that was answered by this instance, so that it stays: nothing if it had that
    /// `wish` or if clients don't stay.
    fn session(&self, instance: &Instance, wish: Wish) -> Option<SessionCode> {
        let code = self.sticky.as_ref()?.key().code(instance.address);
        (wish.session != Some(code)).then_some(code)
    }

    /// An instance for one attempt at a request. `wish` is that of [`Service::wish`]; `tried` are the ids of those that
    /// it was sent to before.
    pub fn pick(
        &self,
        worker: WorkerId,
        wish: Wish,
        tried: &[u64],
        now: Millis,
        rng: &mut fastrand::Rng,
    ) -> Result<Picked, NoPick> {
        let set = self.instances.set();
        let picker = self.picker(&set, worker, wish, tried, now);
        match picker.pick(rng) {
            Err(NoPick::AllOpen) => {
                let place = self.probe_early(&set, worker, now, rng).ok_or(NoPick::AllOpen)?;
                picker.pick(rng).or_else(|none| picker.pick_at(place).ok_or(none))
            }
            picked => picked,
        }
    }

    // What it returns is large.
    #[inline(always)]
    fn picker<'a>(
        &'a self,
        set: &'a InstanceSet,
        worker: WorkerId,
        wish: Wish,
        tried: &'a [u64],
        now: Millis,
    ) -> Picker<'a> {
        let code = |(sticky, code): (&Sticky, SessionCode)| set.with_code(code, sticky.key());
        Picker {
            set,
            rule: self.settings.rule,
            key: wish.key,
            session: self.sticky.as_ref().zip(wish.session).and_then(code),
            max_load: self.settings.affinity.as_ref().and_then(|affinity| affinity.max_load),
            in_flight: self.instances.in_flight(),
            slow_start: self.settings.slow_start,
            despite_health: self.is_panicking(),
            overprovisioning: self.settings.overprovisioning,
            breaker: &self.settings.breaker,
            settings: &self.settings,
            once: wish.once,
            has_avoided: Cell::new(false),
            worker,
            tried,
            now,
        }
    }

    /// No breaker lets anything through: the place of one that does now.
    fn probe_early(
        &self,
        set: &InstanceSet,
        worker: WorkerId,
        now: Millis,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let settings = &self.settings.breaker;
        let some = set.some_places(worker, rng.usize(..set.len().max(1)));
        // Not only the first: each is tried when its time has come.
        some.filter(|&place| set.member(place).instance.probe_early(now, settings)).last()
    }

    /// Whether an attempt at `at` would find an instance; of thousands, among some of them.
    fn has_usable(&self, worker: WorkerId, at: Millis, rng: &mut fastrand::Rng) -> bool {
        let (set, despite_health) = (self.instances.set(), self.is_panicking());
        let is_usable =
            |instance: &Arc<Instance>| instance.is_usable(at, &self.settings.breaker, despite_health);
        set.some(worker, rng.usize(..set.len().max(1))).any(is_usable)
    }

    /// How the requests are divided among priorities and zones at present, in the order of preference.
    pub fn shares(&self) -> Vec<GroupShare> {
        let set = self.instances.set();
        let picker = self.picker(&set, WorkerId(0), Wish::default(), &[], clock::now());
        let count = |group: &Group| {
            let own = (group.first..group.first + group.len).map(|index| picker.look(index));
            own.fold((0, Weight::default()), |(count, sum), found| match found {
                Found::Usable(Weight { usable, to_come }) => {
                    (count + 1, Weight { usable: sum.usable + usable, to_come: sum.to_come + to_come })
                }
                Found::OnProbation | Found::Ejected | Found::Unusable => (count, sum),
            })
        };
        let counted: Vec<(usize, Weight)> = set.groups.iter().map(count).collect();
        let mut shares = Vec::with_capacity(counted.len());
        groups::divide(
            &set.groups,
            |group| counted[group].1,
            self.settings.overprovisioning,
            |group, share| {
                let Group { priority, zone, len, .. } = set.groups[group];
                shares.push(GroupShare { priority, zone, instances: len, usable: counted[group].0, share });
            },
        );
        shares
    }

    /// Whether so few instances are healthy that all get requests.
    pub fn is_panicking(&self) -> bool {
        let may = self.settings.health_check.as_ref().is_some_and(|check| check.panic_threshold.is_some());
        may && self.instances.is_panicking()
    }
}

#[cfg(test)]
mod tests {
    use super::discovered::{Discovered, Publish};
    use super::*;

    fn config(ports: &[u16]) -> config::Service {
        scenarios::config(config::LoadBalancing::RoundRobin, ports)
    }

    fn publish(service: &Service, ports: &[u16]) {
        service.instances.publish(scenarios::found(&ports.iter().map(|&port| (port, 1)).collect::<Vec<_>>()));
    }

    #[test]
    fn settings_change_and_the_instances_live_on() {
        let first = Service::compile(&config(&[1, 2]), None, 2, &Metrics::new(2));
        publish(&first, &[1, 2]);
        let mut changed = config(&[1, 2]);
        changed.load_balancing = config::LoadBalancing::Random;
        changed.circuit_breaker.consecutive_failures = 9;
        let second = Service::compile(&changed, Some(&first), 2, &Metrics::new(2));
        assert!(Arc::ptr_eq(&first.instances, &second.instances));
        assert!(Arc::ptr_eq(&first.budget, &second.budget));
        assert_eq!(second.settings.rule, Rule::Random);
        assert_eq!(second.settings.breaker.consecutive_failures, 9);
    }

    #[test]
    fn another_source_keeps_what_it_finds_again() {
        let first = Service::compile(&config(&[1, 2]), None, 1, &Metrics::new(1));
        publish(&first, &[1, 2]);
        let second = Service::compile(&config(&[2, 3]), Some(&first), 1, &Metrics::new(1));
        assert!(!Arc::ptr_eq(&first.instances, &second.instances));
        let pick =
            second.pick(WorkerId(0), Wish::default(), &[], Millis(0), &mut fastrand::Rng::with_seed(1));
        assert!(pick.is_ok(), "there is no gap until the new source has answered");
        publish(&second, &[2, 3]);
        let known: Vec<u64> = first.instances.current().instances().map(|instance| instance.id).collect();
        let now: Vec<u64> = second.instances.current().instances().map(|instance| instance.id).collect();
        assert_eq!(now[0], known[1]);
    }

    #[test]
    fn a_service_without_instances_says_so() {
        let service = Service::compile(&config(&[]), None, 1, &Metrics::new(1));
        let none =
            service.pick(WorkerId(0), Wish::default(), &[], Millis(0), &mut fastrand::Rng::with_seed(1));
        assert_eq!(none.unwrap_err(), NoPick::Empty);
        service.instances.publish(Vec::<Discovered>::new());
        assert!(service.instances.source().last_set.is_some());
    }
}
