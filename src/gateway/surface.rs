//! What the admin interface shows of the gateway, gathered when it is asked.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;

use super::Gateway;
use crate::admin::view::{
    self, AdaptiveStatus, BalancingStatus, BreakerState, BreakerStatus, CertificateKind, CheckStatus,
    ConcurrencyStatus, EjectionStatus, GatewayStatus, GroupStatus, Health, HedgingStatus, InstanceStatus,
    ListenerStatus, MaintenanceStatus, Moment, PassedOver, ReloadOutcome, RouteBreakerStatus, RouteStatus,
    ServiceStatus, SourceState, SourceStatus, StaleStatus,
};
use crate::admin::{ControlSurface, Readiness};
use crate::clock::{self, Millis};
use crate::config;
use crate::policy::maintenance::Switch;
use crate::service::{self, GroupShare, Instance, Service, Zone};
use crate::snapshot::{RouteStale, Snapshot};
use crate::telemetry::metrics::{
    AccessLogGauges, Breaker, CertificateGauges, ConcurrencyGauges, ConfigurationGauges, Format, Gauges,
    GroupGauges, InstanceGauges, RateLimitGauges, RegistryGauges, ServiceGauges, StaleGauges,
};
use crate::worker::Commands;

/// For a scrape to wait until the workers have counted what they know. It is a moment, unless one of them hangs.
const MAX_SETTLE: Duration = Duration::from_millis(100);

pub struct Surface(pub Arc<Gateway>);

impl ControlSurface for Surface {
    fn ready(&self) -> Readiness {
        if self.0.draining.load(Relaxed) {
            return Readiness::NotReady(vec!["draining".to_owned()]);
        }
        Readiness::Ready
    }

    fn status(&self) -> GatewayStatus {
        let gateway = &self.0;
        let status = gateway.status.lock().unwrap_or_else(PoisonError::into_inner);
        GatewayStatus {
            version: env!("CARGO_PKG_VERSION"),
            started_at: Moment(gateway.started),
            uptime_seconds: gateway.started.elapsed().map_or(0, |uptime| uptime.as_secs()),
            configuration_file: gateway.file.clone(),
            zone: gateway.applied.load().zone.clone(),
            generation: status.generation,
            workers: gateway.workers,
            draining: gateway.draining.load(Relaxed),
            listeners: status.listeners.clone(),
            maintenance: maintenance(&gateway.published.load()),
            last_reload: status.last_reload.clone(),
        }
    }

    fn services(&self) -> Vec<ServiceStatus> {
        let snapshot = self.0.published.load_full();
        let config = self.0.applied.load_full();
        let known = |name: &str| snapshot.services.iter().find(|service| *service.name == *name);
        config
            .services
            .iter()
            .filter_map(|written| {
                let stale = stale_status(&written.name, &snapshot);
                Some(ServiceStatus { stale, ..service_status(written, known(&written.name)?, &self.0) })
            })
            .collect()
    }

    fn routes(&self) -> Vec<RouteStatus> {
        let config = self.0.applied.load_full();
        config.routes.iter().map(|route| RouteStatus::of(route, &config.defaults)).collect()
    }

    fn metrics(&self, format: Format) -> String {
        Commands::settle(&self.0.commands, MAX_SETTLE);
        self.0.metrics.render(self.gauges(), format)
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = ReloadOutcome> + Send + '_>> {
        Box::pin(self.0.reload())
    }
}

impl Surface {
    fn gauges(&self) -> Gauges {
        let gateway = &self.0;
        let snapshot = gateway.published.load_full();
        let status = gateway.status.lock().unwrap_or_else(PoisonError::into_inner);
        let reloads = status.reloads;
        let last_ok = !matches!(&status.last_reload, Some(last) if matches!(last.outcome, ReloadOutcome::Refused { .. }));
        Gauges {
            configuration: ConfigurationGauges {
                generation: status.generation,
                last_reload_ok: last_ok,
                applied_at: status.applied_at.unwrap_or(gateway.started),
                reloads_applied: reloads.applied,
                reloads_unchanged: reloads.unchanged,
                reloads_refused: reloads.refused,
            },
            services: snapshot.services.iter().map(service_gauges).collect(),
            rate_limits: snapshot
                .limiters
                .iter()
                .map(|limiter| RateLimitGauges {
                    name: limiter.name().into(),
                    keys: limiter.stats().keys as u64,
                })
                .collect(),
            certificates: status.listeners.iter().flat_map(certificate_gauges).collect(),
            maintenance: snapshot
                .switches
                .iter()
                .map(|switch| (switch.path().display().to_string(), switch.is_on()))
                .collect(),
            stale: snapshot
                .stale
                .iter()
                .map(|kept| {
                    let held = kept.store.held();
                    StaleGauges {
                        route: kept.route.as_str().into(),
                        part: kept.part.as_deref().map(Into::into),
                        answers: held.answers as u64,
                        bytes: held.bytes as u64,
                    }
                })
                .collect(),
            registry: gateway.registry.load_full().map(|registry| {
                let load = registry.load();
                RegistryGauges { instances: load.instances, watchers: load.watchers, expired: load.expired }
            }),
            access_log: AccessLogGauges { written: gateway.log.written(), dropped: gateway.log.dropped() },
            draining: gateway.draining.load(Relaxed),
            out_of_memory: snapshot.is_out_of_memory(),
        }
    }
}

fn certificate_gauges(listener: &ListenerStatus) -> impl Iterator<Item = CertificateGauges> {
    listener.certificates.iter().map(|certificate| CertificateGauges {
        listener: listener.name.clone(),
        file: certificate.file.display().to_string(),
        is_certificate: certificate.kind == CertificateKind::Certificate,
        until: certificate.expires_at.0,
    })
}

fn maintenance(snapshot: &Snapshot) -> Vec<MaintenanceStatus> {
    let status =
        |switch: &Arc<Switch>| MaintenanceStatus { file: switch.path().to_owned(), active: switch.is_on() };
    snapshot.switches.iter().map(status).collect()
}

fn service_gauges(service: &Arc<Service>) -> ServiceGauges {
    let instances = service.instances.current();
    let failing_since = service.instances.source().failing_since;
    ServiceGauges {
        name: service.name.clone(),
        stale_for: failing_since.map(|since| clock::now().since(since)),
        concurrency: service.bulkhead.as_ref().map(|bulkhead| {
            let present = bulkhead.present();
            let load = present.load;
            ConcurrencyGauges { limit: present.max, in_flight: load.in_flight, waiting: load.waiting }
        }),
        panicking: service.is_panicking(),
        groups: groups(service, |share| GroupGauges {
            priority: share.priority,
            zone: zone_name(share.zone).unwrap_or("any"),
            percent: percent(share.share),
        }),
        instances: instances
            .instances()
            .map(|instance| InstanceGauges {
                address: instance.address,
                healthy: instance.health() != service::Health::Unhealthy,
                passed_over: instance.doubt().is_some(),
                breaker: breaker_gauge(&instance.breaker.status()),
                route_breakers: service
                    .instances
                    .route_breakers()
                    .iter()
                    .filter_map(|own| {
                        let status = instance.breaker_status(own.of)?;
                        Some((own.route.clone(), breaker_gauge(&status), status.opens))
                    })
                    .collect(),
                breaker_opens: instance.breaker.status().opens,
                ejected: service.settings.outlier_detection.map(|_| instance.is_ejected()),
                ejections: instance.ejections().map(|(reason, count)| (reason.name(), count)),
                in_flight: instance.totals().in_flight,
            })
            .collect(),
    }
}

fn breaker_gauge(breaker: &service::BreakerStatus) -> Breaker {
    match breaker.state {
        service::BreakerState::Closed => Breaker::Closed,
        service::BreakerState::HalfOpen => Breaker::HalfOpen,
        service::BreakerState::Open => Breaker::Open,
    }
}

fn service_status(written: &config::Service, service: &Service, gateway: &Gateway) -> ServiceStatus {
    let source = service.instances.source();
    let mut shown = SourceStatus::of(&written.source);
    shown.updated_at = source.last_set.map(moment);
    shown.failing_since = source.failing_since.map(moment);
    shown.state = match (source.failing_since, source.last_set) {
        (Some(_), _) => SourceState::Failing,
        (None, None) => SourceState::Waiting,
        (None, Some(_)) => SourceState::Ok,
    };
    shown.error = source.failure;
    let described = source.described;
    let set = service.instances.current();
    ServiceStatus {
        name: service.name.to_string(),
        load_balancing: view::load_balancing_name(&written.load_balancing),
        balancing: BalancingStatus::of(written),
        groups: groups(service, |share| GroupStatus {
            priority: share.priority,
            zone: zone_name(share.zone),
            instances: share.instances,
            usable: share.usable,
            percent: percent(share.share),
        }),
        tls: service.tls.is_some(),
        panicking: service.is_panicking(),
        source: shown,
        metadata: object(described.metadata.as_ref()),
        retries: gateway.metrics.service(&service.name).retries(),
        hedging: service.settings.hedging.map(|hedging| hedging_status(service, hedging)),
        concurrency: service.bulkhead.as_ref().map(|bulkhead| concurrency_status(&bulkhead.present())),
        stale: Vec::new(),
        instances: set
            .placed()
            .map(|(instance, zone, priority)| {
                let description = described.instances.get(&instance.address);
                InstanceStatus {
                    zone: zone.map(str::to_owned),
                    priority,
                    version: description.and_then(|it| Some(it.version.as_deref()?.to_owned())),
                    metadata: description.and_then(|it| object(it.metadata.as_ref())),
                    ..instance_status(instance, service)
                }
            })
            .collect(),
    }
}

/// Where there is but one, there is nothing to tell.
fn groups<T>(service: &Service, tell: impl Fn(GroupShare) -> T) -> Vec<T> {
    let shares = service.shares();
    if shares.len() < 2 { Vec::new() } else { shares.into_iter().map(tell).collect() }
}

fn zone_name(zone: Zone) -> Option<&'static str> {
    match zone {
        Zone::Any => None,
        Zone::Local => Some("local"),
        Zone::Other => Some("other"),
    }
}

/// With one decimal.
fn percent(share: f64) -> f64 {
    (share * 1000.0).round() / 10.0
}

fn stale_status(service: &str, snapshot: &Snapshot) -> Vec<StaleStatus> {
    let of_service = snapshot.stale.iter().filter(|kept| kept.service() == service);
    let status = |kept: &RouteStale| {
        let held = kept.store.held();
        StaleStatus {
            route: kept.route.clone(),
            part: kept.part.clone(),
            answers: held.answers as u64,
            bytes: held.bytes as u64,
            max_bytes: held.max_bytes as u64,
        }
    };
    of_service.map(status).collect()
}

fn hedging_status(service: &Service, hedging: service::Hedging) -> HedgingStatus {
    let after = match hedging.after {
        service::HedgeAfter::Time(after) => Some(after),
        service::HedgeAfter::Percentile95 => service.latency.percentile_95(),
    };
    let after_ms = after.map(|after| after.as_micros() as f64 / 1000.0);
    HedgingStatus { after_ms, hedges: service.metrics.hedges() }
}

fn concurrency_status(present: &service::BulkheadStatus) -> ConcurrencyStatus {
    ConcurrencyStatus {
        max: present.max,
        in_flight: present.load.in_flight,
        queue: present.queue,
        waiting: present.load.waiting,
        adaptive: present.adaptive.map(|adaptive| AdaptiveStatus {
            floor: adaptive.bounds.floor,
            ceiling: adaptive.bounds.ceiling,
            baseline_ms: adaptive.baseline.map(|baseline| baseline.as_micros() as f64 / 1000.0),
        }),
    }
}

fn instance_status(instance: &Instance, service: &Service) -> InstanceStatus {
    let settings = &service.settings;
    let totals = instance.totals();
    let share = settings.slow_start.map(|slow_start| instance.share_of_its_own(slow_start, clock::now()));
    InstanceStatus {
        address: instance.address,
        weight: instance.weight(),
        zone: None,
        priority: 0,
        version: None,
        metadata: None,
        slow_start_percent: share.filter(|share| *share < 1.0).map(|share| (share * 100.0) as u8),
        health: match instance.health() {
            service::Health::Healthy => Health::Healthy,
            service::Health::Unhealthy => Health::Unhealthy,
            service::Health::Unchecked => Health::Unchecked,
        },
        last_check: instance.last_check().map(|check| CheckStatus {
            at: moment(check.at),
            took_ms: check.took.as_millis().try_into().unwrap_or(u64::MAX),
            failure: check.failure,
        }),
        ejection: instance.ejection().map(|ejection| EjectionStatus {
            reason: ejection.reason.name(),
            why: ejection.why,
            at: moment(ejection.at),
            until: moment(ejection.until),
        }),
        ejections: settings
            .outlier_detection
            .map(|_| instance.ejections().iter().map(|(_, count)| count).sum()),
        breaker: breaker_status(&instance.breaker.status()),
        route_breakers: service
            .instances
            .route_breakers()
            .iter()
            .filter_map(|own| {
                let breaker = breaker_status(&instance.breaker_status(own.of)?);
                Some(RouteBreakerStatus { route: own.route.to_string(), breaker })
            })
            .collect(),
        passed_over: match instance.doubt() {
            Some(service::Doubt::Unreachable) => Some(PassedOver::Unreachable),
            Some(service::Doubt::Silent) => Some(PassedOver::Silent),
            None => instance.is_failing().then_some(PassedOver::Failing),
        },
        tls_failure: instance.tls_failure().map(|failure| failure.to_string()),
        latency_ms: instance.mean_latency().map(|latency| (latency.as_secs_f64() * 1e5).round() / 100.0),
        in_flight: totals.in_flight,
        attempts: totals.attempts,
        failures: totals.failures,
    }
}

fn breaker_status(breaker: &service::BreakerStatus) -> BreakerStatus {
    BreakerStatus {
        state: match breaker.state {
            service::BreakerState::Closed => BreakerState::Closed,
            service::BreakerState::HalfOpen => BreakerState::HalfOpen,
            service::BreakerState::Open => BreakerState::Open,
        },
        consecutive_failures: breaker.consecutive_failures,
        opened_at: breaker.opened_at.map(moment),
        next_probe_at: breaker.next_probe_at.map(moment),
    }
}

fn object(text: Option<&Arc<str>>) -> Option<Box<RawValue>> {
    RawValue::from_string(text?.to_string()).ok()
}

/// A moment of the monotonic clock on the one that people read.
fn moment(at: Millis) -> Moment {
    let now = clock::now();
    let ago = now.since(at);
    let ahead = at.since(now);
    Moment(
        SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
            + ahead.min(Duration::from_secs(86_400)),
    )
}
