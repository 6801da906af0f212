//! What routing costs: a look-up among 10, 1,000 and 100,000 routes, and the normalisation before it.
//! The look-ups should cost about the same whatever the number of routes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gatehouse::config::{At, HostPattern, Match, PathMatch, Span};
use gatehouse::http::fields::Fields;
use gatehouse::http::{host, path};
use gatehouse::route::{Found, Query, Table};
use http::Method;

/// Routes as an organisation has them: a hundred hosts, on each of them resources with a prefix, a path
/// with parameters and a literal path.
fn routes(count: usize) -> impl Iterator<Item = (Match, usize)> {
    let at = |value: String| At { value, span: Span::default() };
    (0..count).map(move |number| {
        let resource = number / 3;
        let path = match number % 3 {
            0 => PathMatch::Prefix(at(format!("/gateway/api/resource-{resource}"))),
            1 => PathMatch::Path(at(format!("/gateway/api/resource-{resource}/{{id}}/orders"))),
            _ => PathMatch::Path(at(format!("/gateway/api/resource-{resource}/special"))),
        };
        let hosts = vec![HostPattern::Exact(format!("host-{}.example.com", resource % 100))];
        (Match { path, hosts, methods: vec![Method::GET], headers: Vec::new(), query: Vec::new() }, number)
    })
}

fn find(criterion: &mut Criterion) {
    let headers = Fields::new();
    let mut group = criterion.benchmark_group("route/find");
    for count in [10, 1_000, 100_000] {
        let table = Table::compile(routes(count)).expect("valid routes");
        let resource = (count - 4) / 3;
        let host = format!("host-{}.example.com", resource % 100);
        let cases = [
            ("literal", format!("/gateway/api/resource-{resource}/special"), true),
            ("parameter", format!("/gateway/api/resource-{resource}/4711/orders"), true),
            ("prefix", format!("/gateway/api/resource-{resource}/a/b/c/d"), true),
            ("none", "/gateway/api/nowhere/4711".to_owned(), false),
        ];
        for (name, path, is_found) in &cases {
            let query = Query { host: &host, path, method: &Method::GET, headers: &headers, query: None };
            assert_eq!(matches!(table.find(&query), Found::Route { .. }), *is_found, "{name}");
            group.bench_with_input(BenchmarkId::new(*name, count), &query, |bencher, query| {
                bencher.iter(|| table.find(black_box(query)));
            });
        }
    }
    group.finish();
}

fn normalise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route/normalise");
    for (name, raw) in [
        ("normal", "/gateway/api/users/4711/orders"),
        ("escapes", "/gateway/api/caf%C3%A9/4711/orders"),
        ("dots", "/gateway/./api//users/%2e%2e/orders/4711"),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| path::normalise(black_box(raw))));
    }
    group.bench_function("host", |bencher| bencher.iter(|| host::parse(black_box("api.example.com:8000"))));
    group.finish();
}

criterion_group!(benches, find, normalise);
criterion_main!(benches);
