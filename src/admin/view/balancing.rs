//! How a service chooses among its instances, as `GET /api/services` shows it.

use serde::Serialize;

use crate::config::{self, HashKey, LoadBalancing};

/// The settings. What plays no part is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BalancingStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHashStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start_ms: Option<u64>,
    /// The cookie by which clients stay with instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky_cookie: Option<String>,
    /// The zone whose instances are preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_zone: Option<String>,
    pub overprovisioning_percent: u16,
    /// With fewer of the instances healthy, health plays no part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_threshold_percent: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConsistentHashStatus {
    /// As the configuration writes it.
    pub key: String,
    /// `null` for no bound.
    pub max_load_percent: Option<u16>,
}

/// Instances of one priority, in the gateway's zone or not.
#[derive(Clone, Debug, Serialize)]
pub struct GroupStatus {
    pub priority: u8,
    /// `local` or `other`; absent where the gateway prefers no zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<&'static str>,
    pub instances: usize,
    /// Those of them that take their share.
    pub usable: usize,
    /// Per cent of the service's requests that the group gets at present.
    pub percent: f64,
}

impl BalancingStatus {
    pub fn of(service: &config::Service) -> Self {
        let consistent_hash = match &service.load_balancing {
            LoadBalancing::ConsistentHash(hash) => {
                Some(ConsistentHashStatus { key: key(&hash.key), max_load_percent: hash.max_load })
            }
            _ => None,
        };
        BalancingStatus {
            consistent_hash,
            slow_start_ms: service.slow_start.map(|time| time.as_millis().try_into().unwrap_or(u64::MAX)),
            sticky_cookie: service.sticky.as_ref().map(|sticky| sticky.cookie.clone()),
            local_zone: service.failover.local_zone.clone(),
            overprovisioning_percent: service.failover.overprovisioning,
            panic_threshold_percent: service.health_check.as_ref().and_then(|check| check.panic_threshold),
        }
    }
}

fn key(key: &HashKey) -> String {
    match key {
        HashKey::Ip => "ip".to_owned(),
        HashKey::Path => "path".to_owned(),
        HashKey::Header(name) => format!("header:{name}"),
        HashKey::Cookie(name) => format!("cookie:{name}"),
        HashKey::Claim(name) => format!("claim:{name}"),
    }
}

/// As the configuration writes it.
pub fn load_balancing_name(rule: &LoadBalancing) -> &'static str {
    match rule {
        LoadBalancing::RoundRobin => "round_robin",
        LoadBalancing::Weighted => "weighted",
        LoadBalancing::Random => "random",
        LoadBalancing::LeastRequests => "least_requests",
        LoadBalancing::PeakEwma => "peak_ewma",
        LoadBalancing::ConsistentHash(_) => "consistent_hash",
    }
}
