//! Counters and histograms of what the workers do, and their text for a scrape.
//!
//! Each worker writes numbers of its own, without a locked instruction or a shared cache line; a
//! scrape adds them up. Objects are found by name on the control side, when a snapshot is made, and
//! the same name gives the same object again: counters live through reloads.

mod cells;
mod exposition;
mod families;
mod gauges;
mod instance;
mod listener;
mod process;
mod route;
mod series;
mod service;
mod status;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

pub use exposition::Format;
pub use gauges::{
    AccessLogGauges, Breaker, CertificateGauges, ConcurrencyGauges, ConfigurationGauges, Gauges, GroupGauges,
    InstanceGauges, RateLimitGauges, RegistryGauges, ServiceGauges, StaleGauges,
};
pub use instance::{InstanceMetrics, Outcome};
pub use listener::{ListenerMetrics, TlsFailure};
pub use process::resident_bytes;
pub use route::{Finished, RouteCounts, RouteMetrics};
pub use service::ServiceMetrics;

use crate::per_worker::{PerWorker, WorkerId};
use cells::Count;
use series::Series;

/// The `route` of requests that matched none.
const NO_ROUTE: &str = "(none)";

#[derive(Debug)]
pub struct Metrics {
    workers: usize,
    started: SystemTime,
    routes: Series<Arc<str>, RouteMetrics>,
    /// One of them.
    unrouted: Arc<RouteMetrics>,
    services: Series<Arc<str>, ServiceMetrics>,
    instances: Series<(Arc<str>, SocketAddr), InstanceMetrics>,
    listeners: Series<Arc<str>, ListenerMetrics>,
    token_cache: PerWorker<TokenCache>,
}

#[derive(Debug, Default)]
struct TokenCache {
    hits: Count,
    misses: Count,
    entries: Count,
}

impl Metrics {
    pub fn new(workers: usize) -> Arc<Self> {
        let routes = Series::default();
        Arc::new(Metrics {
            workers,
            started: SystemTime::now(),
            unrouted: routes.of(NO_ROUTE.into(), || RouteMetrics::new(NO_ROUTE.into(), workers)),
            routes,
            services: Series::default(),
            instances: Series::default(),
            listeners: Series::default(),
            token_cache: PerWorker::new(workers),
        })
    }

    /// The requests that no route took.
    pub fn unrouted(&self) -> &Arc<RouteMetrics> {
        &self.unrouted
    }

    /// The route of this name. Control side only, like all look-ups by name.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let name: Arc<str> = name.into();
        self.routes.of(name.clone(), || RouteMetrics::new(name, self.workers))
    }

    pub fn service(&self, name: &str) -> Arc<ServiceMetrics> {
        let name: Arc<str> = name.into();
        self.services.of(name.clone(), || ServiceMetrics::new(name, self.workers))
    }

    pub fn instance(&self, service: &str, address: SocketAddr) -> Arc<InstanceMetrics> {
        let service: Arc<str> = service.into();
        self.instances.of((service.clone(), address), || InstanceMetrics::new(service, address, self.workers))
    }

    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let name: Arc<str> = name.into();
        self.listeners.of(name.clone(), || ListenerMetrics::new(name, self.workers))
    }

    /// What a worker's cache of verified tokens has come to.
    pub fn token_cache(&self, worker: WorkerId, (hits, misses): (u64, u64), entries: usize) {
        let cache = self.token_cache.of(worker);
        cache.hits.set(hits);
        cache.misses.set(misses);
        cache.entries.set(entries as u64);
    }

    /// All of it as text. `gauges` is what only the owner of services and configuration knows.
    pub fn render(self: &Arc<Self>, gauges: Gauges, format: Format) -> String {
        exposition::render(self.clone(), gauges, format)
    }

    pub fn started(&self) -> SystemTime {
        self.started
    }
}
