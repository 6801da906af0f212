//! The blocks of a configuration, one file a subject: their keys, and what must hold between them.

mod access;
mod action;
mod aggregate;
mod append;
mod authenticator;
mod balancing;
mod batch;
mod browser;
mod concurrency;
mod discovery;
mod failover;
mod for_each;
mod health_check;
mod hedging;
mod listener;
mod observability;
mod outliers;
mod overlap;
mod part;
mod plan;
mod policy;
mod rate_limit;
mod references;
mod resilience;
mod response;
mod root;
mod route;
mod service;
mod service_tls;
mod stale;
mod static_part;

pub(super) use root::prepare;
