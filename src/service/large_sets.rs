//! What as many instances as a set can hold cost: to make the set, beside the requests, and to pick from it.
//!
//! A request is measured by how many instances it looks at, whatever machine that is on. Making a set is compared with making one of a
//! tenth, at the same moment: what grows with the square of the number takes a hundred times as long.

use std::time::{Duration, Instant};

use super::discovered::{Discovered, MAX_INSTANCES, Publish};
use super::instance::Health;
use super::instances::LOOKED_AT;
use super::scenarios::{config, found};
use super::*;
use crate::config::{ConsistentHash, HashKey, LoadBalancing, Sticky};
use crate::telemetry::metrics::Metrics;

/// Three rounds of counting ten thousand instances, at a request a millisecond.
const ALL: usize = 600;
/// So many times longer than a tenth of it may a large set take; ten would be in proportion.
const IN_PROPORTION: u32 = 40;

const RULES: [LoadBalancing; 4] = [
    LoadBalancing::RoundRobin,
    LoadBalancing::Weighted,
    LoadBalancing::PeakEwma,
    LoadBalancing::ConsistentHash(ConsistentHash { key: HashKey::Ip, max_load: Some(125) }),
];

fn all(weight: impl Fn(u32) -> u32) -> Vec<Discovered> {
    some(MAX_INSTANCES, weight)
}

/// In three zones and with two priorities.
fn some(count: usize, weight: impl Fn(u32) -> u32) -> Vec<Discovered> {
    let ports: Vec<(u16, u32)> = (1..).zip((0..count as u32).map(weight)).collect();
    let zones: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
    let placed = (0..).zip(found(&ports)).map(|(number, one): (usize, Discovered)| Discovered {
        zone: Some(zones[number % 3].clone()),
        priority: u8::from(number % 7 == 0),
        ..one
    });
    placed.collect()
}

fn service(rule: LoadBalancing) -> Arc<Service> {
    let mut config = config(rule, &[]);
    config.failover.local_zone = Some("a".into());
    config.sticky = Some(Sticky { cookie: "at".into(), secret: None });
    Service::compile(&config, None, 2, &Metrics::new(2))
}

/// So often may one request look at any of ten thousand.
const FEW: usize = 3000;

/// The most instances that one of so many requests has looked at, when it is one a millisecond.
fn most_looked_at(service: &Service, from: u64) -> usize {
    let mut rng = fastrand::Rng::with_seed(1);
    let one = |number: usize| {
        LOOKED_AT.set(0);
        let (wish, now) =
            (Wish { key: Some(rng.u64(..)), session: None, once: false }, Millis(from + number as u64));
        drop(service.pick(WorkerId(0), wish, &[], now, &mut rng));
        LOOKED_AT.get()
    };
    (0..ALL).map(one).max().unwrap_or(0)
}

/// For how many requests, one a millisecond, there was an instance.
fn picks(service: &Service, from: u64) -> usize {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut one = |number: usize| {
        let wish = Wish { key: Some(rng.u64(..)), session: None, once: false };
        service.pick(WorkerId(0), wish, &[], Millis(from + number as u64), &mut rng).is_ok()
    };
    (0..ALL).filter(|&number| one(number)).count()
}

/// What it takes to make a set of so many, and to change all weights in it: the quickest of some times, which says how much there is
/// to do, and not what else the machine does.
fn quickest(rule: &LoadBalancing, count: usize) -> Duration {
    let once = |_| {
        let service = service(rule.clone());
        let sets = [0, 1, 2].map(|weights| some(count, |number| 1 + number * weights % 100));
        let began = Instant::now();
        sets.into_iter().for_each(|set| service.instances.publish(set));
        began.elapsed()
    };
    (0..3).map(once).min().unwrap_or_default()
}

#[test]
fn a_large_set_is_made_and_changed_in_proportion() {
    for rule in RULES {
        let (tenth, all) = (quickest(&rule, MAX_INSTANCES / 10), quickest(&rule, MAX_INSTANCES));
        assert!(all < tenth * IN_PROPORTION, "{rule:?}: {all:?}, and a tenth of it {tenth:?}");
    }
}

#[test]
fn a_request_looks_at_few_of_a_large_set() {
    for rule in RULES {
        let service = service(rule.clone());
        service.instances.publish(all(|_| 1));
        assert_eq!(picks(&service, 0), ALL);
        let looked_at = most_looked_at(&service, 500);
        assert!(looked_at <= FEW, "{rule:?}: {looked_at} are looked at");
        service.instances.publish(all(|number| 1 + number % 7));
        let looked_at = most_looked_at(&service, 1000);
        assert!(looked_at <= FEW, "{rule:?}: {looked_at} are looked at in a new set");
    }
}

/// However few of them can be used: somebody is found within a tenth of a second, and found again.
#[test]
fn what_is_left_of_a_large_set_is_used() {
    for rule in RULES {
        let service = service(rule.clone());
        service.instances.publish(all(|_| 1));
        let set = service.instances.current();
        set.instances().for_each(|instance| instance.set_health(Health::Unhealthy));
        assert_eq!(picks(&service, 0), 0);
        let looked_at = most_looked_at(&service, 700);
        assert!(looked_at <= FEW, "{rule:?}: {looked_at} are looked at");
        set.instances().nth(7777).expect("there are more").set_health(Health::Healthy);
        picks(&service, 1000);
        assert_eq!(picks(&service, 2000), ALL);
        let looked_at = most_looked_at(&service, 3000);
        assert!(looked_at <= FEW, "{rule:?}: with one, {looked_at} are looked at");
    }
}

/// Nobody goes through all of them to see that there is nobody, or who comes first after that.
#[test]
fn a_large_set_whose_breakers_are_open_costs_no_request_much() {
    for rule in RULES {
        let service = service(rule.clone());
        service.instances.publish(all(|_| 1));
        let set = service.instances.current();
        let breaker = &service.settings.breaker;
        for instance in set.instances() {
            // Once more each time, so that it stays open for long.
            for again in 0..3 {
                instance.breaker.probe_from(Millis(again));
                for _ in 0..breaker.consecutive_failures {
                    let Some(pass) = instance.breaker.admit(Millis(again), breaker) else { break };
                    instance.breaker.failure(pass, WorkerId(0), Millis(again), breaker);
                }
            }
        }
        assert_eq!(picks(&service, 3), 0, "none is open for long enough");
        let looked_at = most_looked_at(&service, 700);
        assert!(looked_at <= FEW, "{rule:?}: {looked_at} are looked at");
        LOOKED_AT.set(0);
        assert!(!service.has_usable(WorkerId(0), Millis(3), &mut fastrand::Rng::with_seed(1)));
        assert!(LOOKED_AT.get() <= 200, "{rule:?}: {} for another attempt", LOOKED_AT.get());
        let early = 3 + breaker.open_for.as_millis() as u64;
        let picked = picks(&service, early);
        assert!(picked > ALL / 2, "{rule:?}: after `open_for` {picked} of {ALL} found one to try");
    }
}

/// What is ejected is no exception.
#[test]
fn a_large_set_of_which_nothing_but_ejected_ones_is_left_is_used() {
    let service = service(LoadBalancing::RoundRobin);
    service.instances.publish(all(|_| 1));
    let set = service.instances.current();
    let time = EjectionTime { base: Duration::from_secs(60), max: Duration::from_secs(60) };
    for (number, instance) in set.instances().enumerate() {
        instance.set_health(Health::Unhealthy);
        if number % 5000 == 77 {
            instance.set_health(Health::Healthy);
            instance.eject(EjectionReason::FailureRatio, "it fails".into(), false, Millis(0), time);
        }
    }
    picks(&service, 0);
    assert_eq!(picks(&service, 1000), ALL);
    let looked_at = most_looked_at(&service, 2000);
    assert!(looked_at <= FEW, "{looked_at} are looked at");
}
