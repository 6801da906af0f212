//! Tests through the front door: a configuration and a request in; the response, and what the origin
//! saw, out. The gateway runs as the process that users run, on ports that the kernel chooses.

#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]
#![allow(clippy::print_stderr, reason = "what the gateway said is shown when a test fails")]

mod support;

mod abuse;
mod access_log;
mod admin;
mod aggregate;
mod amplification;
mod authentication;
mod balancing;
mod batch;
mod breakers;
mod bulkhead;
mod capacity;
mod cli;
mod consul;
mod demo;
mod discovery;
mod documents;
mod etcd;
mod failing;
mod failover;
mod first_steps;
mod forwarding;
mod health;
mod health_probes;
mod hedging;
mod held_back;
mod http1;
mod http2;
mod hygiene;
mod limits;
mod loadtest;
mod metrics;
mod outliers;
mod overrides;
mod policies;
mod pools;
mod probes;
mod rate_limits;
mod registry;
mod registry_clients;
mod registry_watch;
mod reload;
mod replay;
mod replies;
mod retries;
mod routing;
mod secrets;
mod shared_registry;
mod shutdown;
mod silence;
mod stale;
mod sticky;
mod timeouts;
mod tls;
mod total_timeout;
mod tunnels;
mod upstream_h2;
mod upstream_tls;
