//! What a rate limit costs a request: the check on one key, on many, from two threads at once, and the
//! fields of the response.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use gatehouse::config::{At, KeyPart, Rate, RateLimit, Span};
use gatehouse::http::fields::Fields;
use gatehouse::policy::rate_limit::{Decision, KeyInput, RateLimiter, write_headers};
use http::{HeaderName, HeaderValue};

const KEYS: u32 = 1_000_000;

fn limiter(key: Vec<KeyPart>) -> Arc<RateLimiter> {
    let config = RateLimit {
        name: At { value: "per-client".into(), span: Span::default() },
        key,
        rate: Rate { count: 1_000_000, per: Duration::from_secs(1) },
        burst: 1_000_000,
        max_keys: KEYS as usize,
    };
    RateLimiter::compile(&config, None)
}

fn check(limiter: &RateLimiter, headers: &Fields, client: u32) -> Decision {
    let client = IpAddr::from(Ipv4Addr::from(client));
    limiter.check(&KeyInput { client, route: "users", headers, claims: None })
}

fn checks(c: &mut Criterion) {
    let mut headers = Fields::new();
    headers.insert(
        HeaderName::from_static("x-tenant"),
        HeaderValue::from_static("4bf92f35-77b3-4da6-a3ce-929d0e0e4736"),
    );
    let mut group = c.benchmark_group("rate_limit_check");

    let by_ip = limiter(vec![KeyPart::Ip]);
    group.bench_function("one_key", |b| b.iter(|| check(&by_ip, &headers, black_box(1))));

    let tenant = KeyPart::Header(HeaderName::from_static("x-tenant"));
    let combined = limiter(vec![KeyPart::Ip, KeyPart::Route, tenant]);
    group.bench_function("combined_key", |b| b.iter(|| check(&combined, &headers, black_box(1))));

    let many = limiter(vec![KeyPart::Ip]);
    for client in 0..KEYS {
        check(&many, &headers, client);
    }
    let mut client = 0_u32;
    group.bench_function("a_million_keys", |b| {
        b.iter(|| {
            client = client.wrapping_add(0x9E37_79B1) % KEYS;
            check(&many, &headers, client)
        });
    });

    let shared = limiter(vec![KeyPart::Ip]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                check(&shared, &Fields::new(), 1);
            }
        });
        group.bench_function("one_key_while_another_thread_uses_it", |b| {
            b.iter(|| check(&shared, &headers, black_box(1)));
        });
        stop.store(true, Ordering::Relaxed);
    });
    group.finish();
}

fn response_fields(c: &mut Criterion) {
    let limiter = limiter(vec![KeyPart::Ip]);
    let decision = check(&limiter, &Fields::new(), 1);
    let mut response = Fields::new();
    c.bench_function("rate_limit_headers", |b| {
        b.iter(|| {
            response = Fields::new();
            write_headers(&mut response, &[(&*limiter, black_box(decision))]);
        });
    });
}

criterion_group!(benches, checks, response_fields);
criterion_main!(benches);
