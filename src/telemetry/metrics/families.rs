//! Every family of metrics, in the order of the exposition. `docs/observability.md` has the same
//! list for readers.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::exposition::Families;
use super::gauges::{ConcurrencyGauges, Gauges, InstanceGauges, ServiceGauges, StaleGauges};
use super::process::Process;
use super::{Metrics, ServiceMetrics, TokenCache};

pub(super) fn write(metrics: &Metrics, gauges: &Gauges, out: &mut Families) -> fmt::Result {
    requests(metrics, out)?;
    attempts(metrics, out)?;
    services(metrics, gauges, out)?;
    concurrency(metrics, gauges, out)?;
    groups(gauges, out)?;
    instances(gauges, out)?;
    connections(metrics, out)?;
    certificates(gauges, out)?;
    configuration(gauges, out)?;
    gateway(metrics, gauges, out)?;
    process(metrics, out)
}

fn requests(metrics: &Metrics, out: &mut Families) -> fmt::Result {
    let routes: Vec<_> = metrics.routes.all().into_iter().filter(|route| !route.is_unused()).collect();
    let label = |name| [("route", name)];
    out.counter(
        "http_requests",
        "Requests that have ended, by route and response status",
        routes.iter().flat_map(|route| {
            route.statuses().map(|(status, count)| {
                ([("route", route.name().to_string()), ("status", status.into())], count)
            })
        }),
    )?;
    out.gauge(
        "http_requests_active",
        "Requests being served",
        routes.iter().map(|route| (label(&**route.name()), route.active())),
    )?;
    out.counter(
        "http_errors",
        "Replies that the gateway made by itself, and requests whose client left, by reason",
        routes.iter().flat_map(|route| {
            route.reasons().map(|(reason, count)| ([("route", &**route.name()), ("reason", reason)], count))
        }),
    )?;
    out.histogram(
        "http_request_duration_seconds",
        "Time from the request's head to the response's last byte",
        routes.iter().map(|route| (label(&**route.name()), route.durations())),
    )?;
    out.seconds_counter(
        "http_upstream_seconds",
        "The part of the requests' time that was spent waiting for instances",
        routes.iter().map(|route| (label(&**route.name()), route.upstream_seconds())),
    )?;
    out.counter(
        "http_request_body_bytes",
        "Bytes of request bodies received",
        routes.iter().map(|route| (label(&**route.name()), route.bytes_in())),
    )?;
    out.counter(
        "http_response_body_bytes",
        "Bytes of response bodies sent",
        routes.iter().map(|route| (label(&**route.name()), route.bytes_out())),
    )
}

fn attempts(metrics: &Metrics, out: &mut Families) -> fmt::Result {
    let instances = metrics.instances.all();
    let used = || instances.iter().filter(|instance| !instance.is_unused());
    out.counter(
        "gatehouse_upstream_requests",
        "Attempts at an instance that have ended, by class of status or kind of failure",
        used().flat_map(|instance| {
            instance.outcomes().map(|(outcome, count)| {
                let labels = [
                    ("service", &**instance.service()),
                    ("instance", instance.label()),
                    ("outcome", outcome),
                ];
                (labels, count)
            })
        }),
    )?;
    out.histogram(
        "gatehouse_upstream_duration_seconds",
        "Time from the beginning of an attempt to the response's head or the failure",
        used().map(|instance| {
            ([("service", &**instance.service()), ("instance", instance.label())], instance.durations())
        }),
    )
}

fn services(metrics: &Metrics, gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let services = metrics.services.all();
    out.counter(
        "gatehouse_upstream_retries",
        "Attempts after the first",
        services.iter().map(|service| ([("service", &**service.name())], service.retries())),
    )?;
    out.counter(
        "gatehouse_upstream_retries_refused",
        "Retries that the budget did not allow",
        services.iter().map(|service| ([("service", &**service.name())], service.retries_refused())),
    )?;
    let each = |value: fn(&ServiceMetrics) -> u64| {
        services.iter().map(move |service| ([("service", &**service.name())], value(service)))
    };
    out.counter(
        "gatehouse_hedges",
        "Second attempts while the first was under way",
        each(|service| service.hedges()),
    )?;
    out.counter(
        "gatehouse_hedges_won",
        "Those of them whose answer was taken",
        each(|service| service.hedges_won()),
    )?;
    out.counter(
        "gatehouse_hedges_refused",
        "Second attempts that the budget did not allow",
        each(|service| service.hedges_refused()),
    )?;
    out.counter(
        "gatehouse_fallbacks",
        "Responses that were the service's fallback",
        services.iter().map(|service| ([("service", &**service.name())], service.fallbacks())),
    )?;
    out.counter(
        "gatehouse_stale_responses",
        "Responses, and answers of parts, that were the last good one in place of an error",
        each(|service| service.stale()),
    )?;
    let label = |service: &ServiceGauges| [("service", service.name.to_string())];
    out.gauge(
        "gatehouse_service_instances",
        "Instances that the service has",
        gauges.services.iter().map(|service| (label(service), service.instances.len() as i64)),
    )?;
    out.gauge(
        "gatehouse_discovery_up",
        "1 while the source of the service's instances answers, 0 while the last good set is kept",
        gauges.services.iter().map(|service| (label(service), i64::from(service.stale_for.is_none()))),
    )?;
    out.gauge(
        "gatehouse_discovery_stale_seconds",
        "How long the last good set is kept without an answer of its source, 0 while that answers",
        gauges.services.iter().map(|service| {
            (label(service), service.stale_for.map_or(0, |stale_for| stale_for.as_secs() as i64))
        }),
    )?;
    out.gauge(
        "gatehouse_service_panicking",
        "1 while so few instances are healthy that unhealthy ones get requests too, else 0",
        gauges.services.iter().map(|service| (label(service), i64::from(service.panicking))),
    )
}

fn concurrency(metrics: &Metrics, gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let each = |value: fn(&ConcurrencyGauges) -> u32| {
        gauges.services.iter().filter_map(move |service| {
            let concurrency = service.concurrency.as_ref()?;
            Some(([("service", service.name.to_string())], i64::from(value(concurrency))))
        })
    };
    out.gauge(
        "gatehouse_concurrency_limit",
        "Requests that may be in flight to the service",
        each(|c| c.limit),
    )?;
    out.gauge("gatehouse_concurrency_active", "Requests in flight to the service", each(|c| c.in_flight))?;
    out.gauge("gatehouse_concurrency_waiting", "Requests that wait for others to end", each(|c| c.waiting))?;
    let services = metrics.services.all();
    out.counter(
        "gatehouse_concurrency_refused",
        "Requests that were refused because the service was at its limit",
        services.iter().flat_map(|service| {
            let refused = service.concurrency_refused().into_iter().filter(|(_, count)| *count > 0);
            refused
                .map(|(reason, count)| ([("service", &**service.name()), ("reason", reason.code())], count))
        }),
    )
}

fn groups(gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let each = gauges.services.iter().flat_map(|service| {
        service.groups.iter().map(|group| {
            let labels = [
                ("service", service.name.to_string()),
                ("priority", group.priority.to_string()),
                ("zone", group.zone.to_owned()),
            ];
            (labels, group.percent.round() as i64)
        })
    });
    out.gauge(
        "gatehouse_group_share_percent",
        "Part of the service's requests that the instances of this priority get, in the gateway's zone or in others",
        each,
    )
}

fn instances(gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let each = |value: fn(&InstanceGauges) -> i64| {
        gauges.services.iter().flat_map(move |service| {
            service.instances.iter().map(move |instance| {
                let labels =
                    [("service", service.name.to_string()), ("instance", instance.address.to_string())];
                (labels, value(instance))
            })
        })
    };
    out.gauge(
        "gatehouse_instance_healthy",
        "1 while the instance is in rotation as far as health checks know, else 0",
        each(|instance| i64::from(instance.healthy)),
    )?;
    out.gauge(
        "gatehouse_instance_passed_over",
        "1 while the instance gets requests only for want of others, because it can't be reached or is silent, else 0",
        each(|instance| i64::from(instance.passed_over)),
    )?;
    out.gauge(
        "gatehouse_breaker_state",
        "State of the instance's breaker: 0 closed, 1 half-open, 2 open",
        each(|instance| instance.breaker.number()),
    )?;
    out.counter(
        "gatehouse_breaker_opened",
        "Times that the instance's breaker opened",
        each(|instance| instance.breaker_opens as i64).map(|(labels, opens)| (labels, opens as u64)),
    )?;
    route_breakers(gauges, out)?;
    ejections(gauges, out)?;
    out.gauge(
        "gatehouse_upstream_active",
        "Requests in flight to the instance",
        each(|instance| instance.in_flight as i64),
    )
}

fn route_breakers(gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let of_routes = || {
        gauges.services.iter().flat_map(|service| {
            service.instances.iter().flat_map(move |instance| {
                instance.route_breakers.iter().map(move |(route, breaker, opens)| {
                    let labels = [
                        ("service", service.name.to_string()),
                        ("instance", instance.address.to_string()),
                        ("route", route.to_string()),
                    ];
                    (labels, *breaker, *opens)
                })
            })
        })
    };
    out.gauge(
        "gatehouse_route_breaker_state",
        "State of the breaker that a route has of its own at the instance: 0 closed, 1 half-open, 2 open",
        of_routes().map(|(labels, breaker, _)| (labels, breaker.number())),
    )?;
    out.counter(
        "gatehouse_route_breaker_opened",
        "Times that it opened",
        of_routes().map(|(labels, _, opens)| (labels, opens)),
    )
}

fn ejections(gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let all = || {
        gauges
            .services
            .iter()
            .flat_map(|service| service.instances.iter().map(move |instance| (&service.name, instance)))
    };
    let labels = |service: &str, instance: &InstanceGauges| {
        [("service", service.to_string()), ("instance", instance.address.to_string())]
    };
    out.gauge(
        "gatehouse_instance_ejected",
        "1 while outlier detection keeps the instance out of rotation, else 0",
        all().filter_map(|(service, instance)| {
            Some((labels(service, instance), i64::from(instance.ejected?)))
        }),
    )?;
    out.counter(
        "gatehouse_instance_ejections",
        "Times that outlier detection ejected the instance, by reason",
        all().flat_map(|(service, instance)| {
            let happened = instance.ejections.into_iter().filter(|(_, count)| *count > 0);
            happened.map(move |(reason, count)| {
                let [service, instance] = labels(service, instance);
                ([service, instance, ("reason", reason.to_owned())], count)
            })
        }),
    )
}

fn connections(metrics: &Metrics, out: &mut Families) -> fmt::Result {
    let listeners = metrics.listeners.all();
    let each = |value: fn(&super::ListenerMetrics) -> u64| {
        listeners.iter().map(move |listener| ([("listener", &**listener.name())], value(listener)))
    };
    out.gauge(
        "gatehouse_connections_active",
        "Client connections that are open",
        listeners.iter().map(|listener| ([("listener", &**listener.name())], listener.active_total())),
    )?;
    out.counter(
        "gatehouse_connections_accepted",
        "Client connections accepted",
        each(|l| l.accepted_total()),
    )?;
    out.counter(
        "gatehouse_connections_refused",
        "Times that accepting had to wait because of max_connections",
        each(|l| l.refused_total()),
    )?;
    out.counter(
        "gatehouse_connections_turned_away",
        "Connections closed at once, because their client had all that it may have or began them too fast",
        each(|l| l.turned_away_total()),
    )?;
    out.counter(
        "gatehouse_accept_failures",
        "Times that the system gave no connection, mostly for want of file descriptors",
        each(|l| l.accept_failures_total()),
    )?;
    out.counter(
        "gatehouse_http2_floods",
        "HTTP/2 connections ended for a flood",
        each(|l| l.floods_total()),
    )?;
    out.counter(
        "gatehouse_tls_failures",
        "TLS handshakes that failed, by cause",
        listeners.iter().flat_map(|listener| {
            listener.tls_failures().map(|(cause, count)| {
                ([("listener", listener.name().to_string()), ("cause", cause.to_owned())], count)
            })
        }),
    )
}

fn certificates(gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let of = |is_certificate| {
        let some = gauges.certificates.iter().filter(move |one| one.is_certificate == is_certificate);
        some.map(|one| {
            let seconds = one.until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            ([("listener", one.listener.clone()), ("file", one.file.clone())], seconds as i64)
        })
    };
    out.gauge("gatehouse_certificate_expiry_timestamp_seconds", "When the certificate ends", of(true))?;
    out.gauge("gatehouse_crl_expiry_timestamp_seconds", "When the revocation list is out of date", of(false))
}

fn configuration(gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let configuration = &gauges.configuration;
    out.single_gauge(
        "gatehouse_config_generation",
        "Number of the configuration in force, from 1",
        configuration.generation as f64,
    )?;
    out.single_gauge(
        "gatehouse_config_last_reload_successful",
        "0 while the last reload was refused, else 1",
        f64::from(u8::from(configuration.last_reload_ok)),
    )?;
    out.single_gauge(
        "gatehouse_config_applied_timestamp_seconds",
        "When the configuration in force was applied",
        unix_seconds(configuration.applied_at),
    )?;
    out.counter(
        "gatehouse_config_reloads",
        "Reloads by result",
        [
            ("applied", configuration.reloads_applied),
            ("unchanged", configuration.reloads_unchanged),
            ("refused", configuration.reloads_refused),
        ]
        .map(|(result, count)| ([("result", result)], count)),
    )
}

fn gateway(metrics: &Metrics, gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let tokens = |cell: fn(&TokenCache) -> u64| metrics.token_cache.all().map(cell).sum();
    out.single_counter(
        "gatehouse_token_cache_hits",
        "Tokens that had been verified before",
        tokens(|cache| cache.hits.value()),
    )?;
    out.single_counter(
        "gatehouse_token_cache_misses",
        "Tokens that had to be verified",
        tokens(|cache| cache.misses.value()),
    )?;
    out.single_gauge(
        "gatehouse_token_cache_entries",
        "Verified tokens that are remembered",
        tokens(|cache| cache.entries.value()) as f64,
    )?;
    out.gauge(
        "gatehouse_rate_limit_keys",
        "Keys of the rate limit with a state of their own",
        gauges.rate_limits.iter().map(|limit| ([("limit", limit.name.to_string())], limit.keys as i64)),
    )?;
    let stale = || gauges.stale.iter();
    let labels = |kept: &StaleGauges| {
        let part = kept.part.iter().map(|part| ("part", part.to_string()));
        std::iter::once(("route", kept.route.to_string())).chain(part).collect::<Vec<_>>()
    };
    out.gauge(
        "gatehouse_stale_answers",
        "Good answers that the route or its part keeps for the time of errors",
        stale().map(|kept| (labels(kept), kept.answers as i64)),
    )?;
    out.gauge(
        "gatehouse_stale_bytes",
        "What they take",
        stale().map(|kept| (labels(kept), kept.bytes as i64)),
    )?;
    out.gauge(
        "gatehouse_maintenance",
        "1 while the file exists that turns maintenance on, else 0",
        gauges.maintenance.iter().map(|(file, on)| ([("file", file.clone())], i64::from(*on))),
    )?;
    registry(gauges, out)?;
    out.single_counter("gatehouse_access_log_lines", "Lines written", gauges.access_log.written)?;
    out.single_counter(
        "gatehouse_access_log_dropped",
        "Records lost because the output was too slow or failed",
        gauges.access_log.dropped,
    )?;
    out.single_gauge("gatehouse_workers", "Worker threads", metrics.workers as f64)?;
    out.single_gauge(
        "gatehouse_out_of_memory",
        "1 while new requests are refused for max_memory",
        f64::from(u8::from(gauges.out_of_memory)),
    )?;
    out.single_gauge(
        "gatehouse_draining",
        "1 while the gateway finishes its last requests",
        f64::from(u8::from(gauges.draining)),
    )?;
    out.info("gatehouse_build", "The version that runs", [("version", env!("CARGO_PKG_VERSION"))])
}

fn registry(gauges: &Gauges, out: &mut Families) -> fmt::Result {
    let Some(registry) = gauges.registry else { return Ok(()) };
    out.single_gauge(
        "gatehouse_registry_instances",
        "Instances that are registered",
        registry.instances as f64,
    )?;
    out.single_gauge(
        "gatehouse_registry_watchers",
        "Clients that watch a service of the registry",
        registry.watchers as f64,
    )?;
    out.single_counter(
        "gatehouse_registry_expired",
        "Instances that were taken out because they fell silent",
        registry.expired,
    )
}

fn process(metrics: &Metrics, out: &mut Families) -> fmt::Result {
    out.single_gauge(
        "process_start_time_seconds",
        "Start of the process in seconds since the epoch",
        unix_seconds(metrics.started),
    )?;
    let process = Process::now();
    if let Some(seconds) = process.cpu_seconds {
        out.single_seconds_counter("process_cpu_seconds", "User and system CPU time spent", seconds)?;
    }
    if let Some(bytes) = process.resident_bytes {
        out.single_gauge("process_resident_memory_bytes", "Resident memory size", bytes as f64)?;
    }
    if let Some(count) = process.open_descriptors {
        out.single_gauge("process_open_fds", "Open file descriptors", count as f64)?;
    }
    Ok(())
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
