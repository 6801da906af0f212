//! What picking an instance costs, by rule, for a handful of instances and for a thousand.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use gatehouse::clock::Millis;
use gatehouse::config::{self, At, ConsistentHash, HashKey, LoadBalancing, Span};
use gatehouse::per_worker::WorkerId;
use gatehouse::service::discovered::{Discovered, Publish};
use gatehouse::service::{Health, Service, Wish};

fn service(rule: LoadBalancing, instances: u16) -> Arc<Service> {
    let config = config::Service {
        name: At { value: "users".into(), span: Span::default() },
        source: config::InstanceSource::Static(Vec::new()),
        load_balancing: rule,
        slow_start: None,
        sticky: None,
        failover: config::Failover::default(),
        health_check: None,
        outlier_detection: None,
        circuit_breaker: config::CircuitBreaker::default(),
        retries: config::Retries::default(),
        timeouts: config::Timeouts::default(),
        pool: config::Pool::default(),
        concurrency: None,
        hedging: None,
        fallback: None,
        tls: None,
        protocol: config::Protocol::Http1,
    };
    let service = Service::compile(&config, None, 2, &gatehouse::telemetry::metrics::Metrics::new(2));
    let found = (0..instances).map(|number| Discovered {
        address: ([127, 0, 0, 1], 10_000 + number).into(),
        weight: 1 + u32::from(number % 3),
        authority: format!("users-{number}:80").into(),
        zone: None,
        priority: 0,
    });
    service.instances.publish(found.collect());
    service
}

fn pick(criterion: &mut Criterion) {
    let by_key = ConsistentHash { key: HashKey::Ip, max_load: Some(125) };
    let rules = [
        ("round_robin", LoadBalancing::RoundRobin),
        ("weighted", LoadBalancing::Weighted),
        ("random", LoadBalancing::Random),
        ("least_requests", LoadBalancing::LeastRequests),
        ("peak_ewma", LoadBalancing::PeakEwma),
        ("consistent_hash", LoadBalancing::ConsistentHash(by_key)),
    ];
    for (name, rule) in rules {
        for instances in [3, 1000] {
            let service = service(rule.clone(), instances);
            let mut rng = fastrand::Rng::with_seed(1);
            let mut now = 0;
            criterion.bench_function(&format!("pick/{name}/{instances}"), |bencher| {
                bencher.iter(|| {
                    now += 1;
                    let wish = Wish { key: Some(rng.u64(..)), session: None, once: false };
                    let moment = Millis(now / 1000);
                    let picked =
                        service.pick(WorkerId(0), wish, &[], moment, &mut rng).expect("all are usable");
                    let picked = black_box(picked);
                    picked.admission.success(moment, &service.settings.breaker);
                })
            });
        }
    }
}

/// What a request costs that finds nobody among ten thousand.
fn none(criterion: &mut Criterion) {
    for (name, rule) in [("round_robin", LoadBalancing::RoundRobin), ("peak_ewma", LoadBalancing::PeakEwma)] {
        let service = service(rule, 10_000);
        service.instances.current().instances().for_each(|instance| instance.set_health(Health::Unhealthy));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut now = 0;
        criterion.bench_function(&format!("pick/{name}/none of 10000"), |bencher| {
            bencher.iter(|| {
                now += 1;
                let wish = Wish { key: Some(rng.u64(..)), session: None, once: false };
                black_box(service.pick(WorkerId(0), wish, &[], Millis(now / 100), &mut rng)).is_err()
            })
        });
    }
}

fn publish(criterion: &mut Criterion) {
    let service = service(LoadBalancing::Weighted, 1000);
    let mut last = 1;
    criterion.bench_function("publish/1000", |bencher| {
        bencher.iter(|| {
            last = last % 9 + 1;
            let found = (0..1000u16).map(|number| Discovered {
                address: ([127, 0, 0, 1], 10_000 + number).into(),
                weight: if number == 0 { last } else { 1 + u32::from(number % 3) },
                authority: format!("users-{number}:80").into(),
                zone: None,
                priority: 0,
            });
            service.instances.publish(found.collect());
        })
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2));
    targets = pick, none, publish
}
criterion_main!(benches);
