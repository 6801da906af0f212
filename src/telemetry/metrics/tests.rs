//! Metrics through the front door: what workers count is what a scrape shows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::strict::{self, Exposition};
use super::*;
use crate::reason::Reason;

fn gauges() -> Gauges {
    Gauges {
        configuration: ConfigurationGauges {
            generation: 3,
            last_reload_ok: false,
            applied_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            reloads_applied: 2,
            reloads_unchanged: 4,
            reloads_refused: 1,
        },
        services: vec![ServiceGauges {
            name: "users".into(),
            stale_for: Some(Duration::from_secs(90)),
            concurrency: Some(ConcurrencyGauges { limit: 100, in_flight: 7, waiting: 2 }),
            panicking: true,
            groups: vec![GroupGauges { priority: 1, zone: "other", percent: 12.7 }],
            instances: vec![InstanceGauges {
                address: address(),
                healthy: false,
                passed_over: true,
                breaker: Breaker::HalfOpen,
                route_breakers: vec![("search".into(), Breaker::Open, 4)],
                breaker_opens: 1,
                ejected: Some(true),
                ejections: [("consecutive_failures", 0), ("failure_ratio", 2), ("latency", 1)],
                in_flight: 9,
            }],
        }],
        rate_limits: vec![RateLimitGauges { name: "per-client".into(), keys: 12 }],
        certificates: [("a.crt", true, 1_800_000_000), ("a.crl", false, 1_700_000_000)]
            .map(|(file, is_certificate, seconds)| CertificateGauges {
                listener: "https".into(),
                file: file.into(),
                is_certificate,
                until: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            })
            .into(),
        maintenance: vec![("/srv/down".into(), true)],
        stale: vec![
            StaleGauges { route: "users".into(), part: None, answers: 3, bytes: 4096 },
            StaleGauges { route: "home".into(), part: Some("orders".into()), answers: 1, bytes: 512 },
        ],
        registry: Some(RegistryGauges { instances: 20, watchers: 3, expired: 4 }),
        access_log: AccessLogGauges { written: 100, dropped: 5 },
        draining: false,
        out_of_memory: true,
    }
}

fn address() -> SocketAddr {
    "127.0.0.1:8001".parse().unwrap()
}

fn end(status: u16, reason: Option<Reason>) -> Finished {
    Finished {
        status,
        reason,
        duration: Duration::from_millis(3),
        upstream: Some(Duration::from_millis(2)),
        bytes_in: 10,
        bytes_out: 1000,
    }
}

fn scrape(metrics: &Arc<Metrics>) -> Exposition {
    let read = |format| strict::read(&metrics.render(gauges(), format), format);
    read(Format::Prometheus);
    read(Format::OpenMetrics)
}

#[test]
fn requests_of_all_workers_are_added_up() {
    let metrics = Metrics::new(2);
    let route = metrics.route("users");
    for worker in [WorkerId(0), WorkerId(1), WorkerId(1)] {
        let counts = route.counts(worker);
        counts.begin();
        counts.begin();
        counts.finish(&end(200, None));
    }
    route.counts(WorkerId(0)).finish(&end(429, Some(Reason::RateLimited)));
    let none = metrics.unrouted().counts(WorkerId(0));
    none.begin();
    none.finish(&end(404, Some(Reason::RouteNotFound)));

    let read = scrape(&metrics);
    let value = |name, labels| read.value(name, labels);
    assert_eq!(value("http_requests_total", "route=\"users\",status=\"200\""), Some(3.0));
    assert_eq!(value("http_requests_total", "route=\"users\",status=\"429\""), Some(1.0));
    assert_eq!(value("http_requests_total", "route=\"users\",status=\"404\""), None);
    assert_eq!(value("http_requests_active", "route=\"users\""), Some(2.0));
    assert_eq!(value("http_requests_active", "route=\"(none)\""), Some(0.0));
    assert_eq!(value("http_errors_total", "route=\"users\",reason=\"rate_limited\""), Some(1.0));
    assert_eq!(value("http_errors_total", "route=\"(none)\",reason=\"route_not_found\""), Some(1.0));
    assert_eq!(value("http_request_duration_seconds_count", "route=\"users\""), Some(4.0));
    assert_eq!(value("http_request_duration_seconds_bucket", "route=\"users\",le=\"0.0025\""), Some(0.0));
    assert_eq!(value("http_request_duration_seconds_bucket", "route=\"users\",le=\"0.005\""), Some(4.0));
    assert_eq!(value("http_upstream_seconds_total", "route=\"users\""), Some(0.008));
    assert_eq!(value("http_request_body_bytes_total", "route=\"users\""), Some(40.0));
    assert_eq!(value("http_response_body_bytes_total", "route=\"users\""), Some(4000.0));
}

#[test]
fn attempts_retries_and_breakers() {
    let metrics = Metrics::new(1);
    let instance = metrics.instance("users", address());
    instance.record(WorkerId(0), Outcome::Status(201), Duration::from_secs(1));
    instance.record(WorkerId(0), Outcome::ConnectFailure, Duration::from_secs(20));
    let service = metrics.service("users");
    service.retried(WorkerId(0));
    service.retried(WorkerId(0));
    service.retry_refused(WorkerId(0));
    service.fell_back(WorkerId(0));
    service.gave_stale(WorkerId(0));
    service.over_limit(WorkerId(0));
    service.hedged(WorkerId(0));
    service.hedged(WorkerId(0));
    service.hedge_won(WorkerId(0));

    let read = scrape(&metrics);
    let of_instance = "service=\"users\",instance=\"127.0.0.1:8001\"";
    let outcome = |outcome: &str| {
        read.value("gatehouse_upstream_requests_total", &format!("{of_instance},outcome=\"{outcome}\""))
    };
    assert_eq!((outcome("2xx"), outcome("connect_failure"), outcome("5xx")), (Some(1.0), Some(1.0), None));
    for (name, expected) in [
        ("gatehouse_upstream_duration_seconds_count", 2.0),
        ("gatehouse_upstream_duration_seconds_sum", 21.0),
        ("gatehouse_breaker_opened_total", 1.0),
        ("gatehouse_breaker_state", 1.0),
        ("gatehouse_instance_healthy", 0.0),
        ("gatehouse_instance_passed_over", 1.0),
        ("gatehouse_upstream_active", 9.0),
    ] {
        assert_eq!(read.value(name, of_instance), Some(expected), "{name}");
    }
    for (name, expected) in [
        ("gatehouse_upstream_retries_total", 2.0),
        ("gatehouse_upstream_retries_refused_total", 1.0),
        ("gatehouse_fallbacks_total", 1.0),
        ("gatehouse_stale_responses_total", 1.0),
        ("gatehouse_service_instances", 1.0),
        ("gatehouse_discovery_up", 0.0),
        ("gatehouse_discovery_stale_seconds", 90.0),
        ("gatehouse_concurrency_limit", 100.0),
        ("gatehouse_hedges_total", 2.0),
        ("gatehouse_hedges_won_total", 1.0),
        ("gatehouse_hedges_refused_total", 0.0),
        ("gatehouse_concurrency_active", 7.0),
        ("gatehouse_concurrency_waiting", 2.0),
        ("gatehouse_service_panicking", 1.0),
    ] {
        assert_eq!(read.value(name, "service=\"users\""), Some(expected), "{name}");
    }
    let group = "service=\"users\",priority=\"1\",zone=\"other\"";
    assert_eq!(read.value("gatehouse_group_share_percent", group), Some(13.0));
    let of_route = format!("{of_instance},route=\"search\"");
    assert_eq!(read.value("gatehouse_route_breaker_state", &of_route), Some(2.0));
    assert_eq!(read.value("gatehouse_route_breaker_opened_total", &of_route), Some(4.0));
    let refused = |reason: &str| {
        read.value("gatehouse_concurrency_refused_total", &format!("service=\"users\",reason=\"{reason}\""))
    };
    assert_eq!((refused("concurrency_limit"), refused("queue_timeout")), (Some(1.0), None));
}

#[test]
fn the_gateway_itself() {
    let metrics = Metrics::new(3);
    let listener = metrics.listener("http");
    listener.accepted(WorkerId(2));
    listener.accepted(WorkerId(0));
    listener.closed(WorkerId(2));
    listener.refused(WorkerId(1));
    listener.tls_failed(WorkerId(1), TlsFailure::Timeout);
    listener.turned_away(WorkerId(0));
    listener.accept_failed(WorkerId(2));
    listener.flooded(WorkerId(1));
    metrics.token_cache(WorkerId(0), (1, 0), 3);
    metrics.token_cache(WorkerId(1), (1, 1), 4);

    let read = scrape(&metrics);
    for (name, labels, expected) in [
        ("gatehouse_connections_active", "listener=\"http\"", 1.0),
        ("gatehouse_connections_accepted_total", "listener=\"http\"", 2.0),
        ("gatehouse_connections_refused_total", "listener=\"http\"", 1.0),
        ("gatehouse_tls_failures_total", "listener=\"http\",cause=\"timeout\"", 1.0),
        ("gatehouse_certificate_expiry_timestamp_seconds", "listener=\"https\",file=\"a.crt\"", 1.8e9),
        ("gatehouse_crl_expiry_timestamp_seconds", "listener=\"https\",file=\"a.crl\"", 1.7e9),
        ("gatehouse_connections_turned_away_total", "listener=\"http\"", 1.0),
        ("gatehouse_accept_failures_total", "listener=\"http\"", 1.0),
        ("gatehouse_http2_floods_total", "listener=\"http\"", 1.0),
        ("gatehouse_token_cache_hits_total", "", 2.0),
        ("gatehouse_token_cache_misses_total", "", 1.0),
        ("gatehouse_token_cache_entries", "", 7.0),
        ("gatehouse_rate_limit_keys", "limit=\"per-client\"", 12.0),
        ("gatehouse_out_of_memory", "", 1.0),
        ("gatehouse_stale_answers", "route=\"users\"", 3.0),
        ("gatehouse_stale_bytes", "route=\"users\"", 4096.0),
        ("gatehouse_stale_answers", "route=\"home\",part=\"orders\"", 1.0),
        ("gatehouse_maintenance", "file=\"/srv/down\"", 1.0),
        ("gatehouse_access_log_lines_total", "", 100.0),
        ("gatehouse_access_log_dropped_total", "", 5.0),
        ("gatehouse_config_generation", "", 3.0),
        ("gatehouse_config_last_reload_successful", "", 0.0),
        ("gatehouse_config_applied_timestamp_seconds", "", 1_700_000_000.0),
        ("gatehouse_config_reloads_total", "result=\"refused\"", 1.0),
        ("gatehouse_workers", "", 3.0),
        ("gatehouse_draining", "", 0.0),
    ] {
        assert_eq!(read.value(name, labels), Some(expected), "{name}");
    }
    assert!(read.value("process_start_time_seconds", "").unwrap() > 1.7e9);
    let version = &read.labels("gatehouse_build_info")[0]["version"];
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

#[test]
fn names_with_quotes_breaks_and_backslashes_come_through() {
    let metrics = Metrics::new(1);
    let hostile = "a\"b\\c\nd\\n{}, é";
    let route = metrics.route(hostile);
    route.counts(WorkerId(0)).begin();
    route.counts(WorkerId(0)).finish(&end(200, None));
    let read = scrape(&metrics);
    assert_eq!(read.labels("http_requests_total")[0]["route"], hostile);
    assert_eq!(read.labels("http_requests_active")[0]["route"], hostile);
}

#[test]
fn a_name_keeps_its_counters_and_an_idle_route_shows_nothing() {
    let metrics = Metrics::new(1);
    metrics.route("users").counts(WorkerId(0)).begin();
    metrics.route("users").counts(WorkerId(0)).finish(&end(200, None));
    let idle = metrics.route("idle");
    let read = scrape(&metrics);
    assert_eq!(read.value("http_requests_total", "route=\"users\",status=\"200\""), Some(1.0));
    assert_eq!(read.value("http_requests_active", &format!("route=\"{}\"", idle.name())), None);
}

#[test]
fn the_older_form_types_what_its_samples_are_called() {
    let metrics = Metrics::new(1);
    let older = strict::read(&metrics.render(gauges(), Format::Prometheus), Format::Prometheus);
    assert_eq!(older.types["http_requests_total"], "counter");
    assert_eq!(older.types["gatehouse_build_info"], "gauge");
    let newer = scrape(&metrics);
    assert_eq!(newer.types["http_requests"], "counter");
    assert_eq!(newer.types["gatehouse_build"], "info");
    assert_eq!(older.types.len(), newer.types.len());
}

#[test]
fn the_documentation_lists_exactly_these_families() {
    let metrics = Metrics::new(1);
    let families = strict::read(&metrics.render(gauges(), Format::Prometheus), Format::Prometheus).types;
    let page = include_str!("../../../docs/observability.md");
    let listed: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .filter(|name| ["http_", "gatehouse_", "process_"].iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    for name in families.keys() {
        assert!(listed.contains(&name.as_str()), "{name} is not documented");
    }
    for name in listed {
        assert!(families.contains_key(name), "{name} is documented but does not exist");
    }
}
