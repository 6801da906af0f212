//! What an address filter costs: the look-up of a client among 1, 1,000 and 100,000 networks. A request takes some
//! ten microseconds; a look-up must be lost in that, whatever the number of networks.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gatehouse::http::networks::{Networks, Verdict};
use ipnet::IpNet;

/// Networks of which no two touch, half of them of each family.
fn networks(count: u32) -> Networks {
    let each = |n: u32| {
        let address: IpAddr = match n % 2 {
            0 => Ipv4Addr::from(n << 14).into(),
            _ => Ipv6Addr::from((0x2001_u128 << 112) | (u128::from(n) << 80)).into(),
        };
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        (IpNet::new(address, prefix).expect("a short prefix"), Verdict::Denied)
    };
    Networks::compile((0..count).map(each))
}

/// Clients all over the place, as on the internet, so that no look-up finds the way of the one before in the caches.
fn clients(seed: u64) -> impl Iterator<Item = IpAddr> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(move || match random.bool() {
        true => Ipv4Addr::from(random.u32(..)).into(),
        false => Ipv6Addr::from((0x2001_u128 << 112) | (u128::from(random.u32(..)) << 80)).into(),
    })
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ip_filter/find");
    let clients: Vec<IpAddr> = clients(7).take(1 << 16).collect();
    for count in [1, 1_000, 100_000] {
        let networks = networks(count);
        let mut next = clients.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| networks.verdict(black_box(*next.next().expect("it goes round"))));
        });
    }
    group.finish();
}

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ip_filter/compile");
    group.sample_size(10);
    group.bench_function("100000", |bencher| bencher.iter(|| networks(black_box(100_000))));
    group.finish();
}

criterion_group!(benches, find, compile);
criterion_main!(benches);
