//! Where requests go that have a key.

use std::sync::Arc;

use crate::clock::Millis;
use crate::config::{ConsistentHash, HashKey, LoadBalancing};
use crate::per_worker::WorkerId;
use crate::service::discovered::Publish;
use crate::service::scenarios::{config, found};
use crate::service::{Health, Picked, Service, Wish};
use crate::telemetry::metrics::Metrics;

const WORKERS: usize = 4;
const ONE: WorkerId = WorkerId(0);

fn rule(max_load: Option<u16>) -> LoadBalancing {
    LoadBalancing::ConsistentHash(ConsistentHash { key: HashKey::Ip, max_load })
}

fn service(max_load: Option<u16>, weights: &[u32]) -> Arc<Service> {
    let service = Service::compile(&config(rule(max_load), &[]), None, WORKERS, &Metrics::new(WORKERS));
    publish(&service, weights);
    service
}

/// Ports from 1. A weight of 0 is no instance.
fn publish(service: &Service, weights: &[u32]) {
    let all = (1..).zip(weights.iter().copied());
    service.instances.publish(found(&all.filter(|(_, weight)| *weight > 0).collect::<Vec<_>>()));
}

fn pick(service: &Service, worker: WorkerId, key: Option<u64>, now: Millis) -> Picked {
    let wish = Wish { key, session: None, once: false };
    service.pick(worker, wish, &[], now, &mut fastrand::Rng::with_seed(1)).expect("one is usable")
}

fn keys() -> impl Iterator<Item = u64> {
    let mut rng = fastrand::Rng::with_seed(5);
    std::iter::repeat_with(move || rng.u64(..)).take(1000)
}

/// The port of each key, with nothing else in flight.
fn ports(service: &Service, worker: WorkerId, now: Millis) -> Vec<u16> {
    keys().map(|key| pick(service, worker, Some(key), now).instance().address.port()).collect()
}

#[test]
fn a_key_stays_with_its_instance_on_every_worker_and_in_every_gateway() {
    let (one, other) = (service(Some(125), &[1; 10]), service(None, &[1; 10]));
    let known = ports(&one, ONE, Millis(0));
    for worker in 1..WORKERS {
        assert_eq!(ports(&one, WorkerId(worker), Millis(0)), known);
    }
    assert_eq!(ports(&other, ONE, Millis(0)), known);
}

#[test]
fn only_the_keys_of_an_instance_that_cannot_be_used_move_until_it_is_back() {
    let service = service(Some(125), &[1; 10]);
    let before = ports(&service, ONE, Millis(0));
    let ill = service.instances.current().instances().nth(3).expect("there are ten").clone();
    ill.set_health(Health::Unhealthy);
    let meanwhile = ports(&service, ONE, Millis(1000));
    for (was, is) in before.iter().zip(&meanwhile) {
        assert!(if *was == 4 { *is != 4 } else { is == was }, "{was} → {is}");
    }
    ill.set_health(Health::Healthy);
    assert_eq!(ports(&service, ONE, Millis(2000)), before);
    publish(&service, &[1, 1, 1, 0, 1, 1, 1, 1, 1, 1]);
    assert_eq!(ports(&service, ONE, Millis(3000)), meanwhile, "one that has left is like one that is ill");
    publish(&service, &[1; 11]);
    let grown = ports(&service, ONE, Millis(4000));
    assert!(before.iter().zip(&grown).all(|(was, is)| is == was || *is == 11));
    assert!(grown.contains(&11));
}

/// However much of it there is of one key: the mean of four is 50, and a quarter more is 63.
#[test]
fn one_key_is_not_more_than_an_instance_can_take() {
    let service = service(Some(125), &[1; 4]);
    let held: Vec<Picked> = (0..200).map(|_| pick(&service, ONE, Some(7), Millis(0))).collect();
    let mut counts = [0; 4];
    for picked in &held {
        counts[usize::from(picked.instance().address.port()) - 1] += 1;
    }
    assert!(counts.iter().all(|&count| count <= 63), "{counts:?}");
    assert!(counts.contains(&63), "its own instance has as much as it may: {counts:?}");
    drop(held);
    let owner = pick(&service, ONE, Some(7), Millis(0)).instance().address;
    assert_eq!(pick(&service, WorkerId(1), Some(7), Millis(0)).instance().address, owner);
}

/// The bound is a share of what the usable instances have, not of those that are down.
#[test]
fn the_bound_is_that_of_the_instances_that_can_be_used() {
    let service = service(Some(125), &[1, 1, 1, 1, 1, 1, 2, 4]);
    for instance in service.instances.current().instances().take(6) {
        instance.set_health(Health::Unhealthy);
    }
    let held: Vec<Picked> = keys().take(600).map(|key| pick(&service, ONE, Some(key), Millis(0))).collect();
    let heavy = held.iter().filter(|picked| picked.instance().address.port() == 8).count();
    assert!((350..=500).contains(&heavy), "{heavy} of 600, of which two thirds are its share");
}

#[test]
fn without_a_bound_it_takes_all() {
    let service = service(None, &[1; 4]);
    let held: Vec<Picked> = (0..200).map(|_| pick(&service, ONE, Some(7), Millis(0))).collect();
    assert!(held.iter().all(|picked| picked.instance().id == held[0].instance().id));
}

#[test]
fn a_few_requests_stay_where_they_belong() {
    let service = service(Some(101), &[1; 100]);
    let held: Vec<Picked> = (0..8).map(|_| pick(&service, ONE, Some(7), Millis(0))).collect();
    assert!(held.iter().all(|picked| picked.instance().id == held[0].instance().id));
}

#[test]
fn requests_without_a_key_go_to_the_less_busy() {
    let service = service(Some(125), &[1; 2]);
    let held: Vec<Picked> = (0..100).map(|_| pick(&service, ONE, None, Millis(0))).collect();
    assert_eq!(held.iter().filter(|picked| picked.instance().address.port() == 1).count(), 50);
}

#[test]
fn a_reload_that_asks_for_keys_finds_a_ring() {
    let first =
        Service::compile(&config(LoadBalancing::RoundRobin, &[]), None, WORKERS, &Metrics::new(WORKERS));
    publish(&first, &[1; 10]);
    let second = Service::compile(&config(rule(None), &[]), Some(&first), WORKERS, &Metrics::new(WORKERS));
    assert_eq!(ports(&second, ONE, Millis(0)), ports(&service(None, &[1; 10]), ONE, Millis(0)));
    publish(&second, &[1; 11]);
    assert_eq!(ports(&second, ONE, Millis(0)), ports(&service(None, &[1; 11]), ONE, Millis(0)));
}

/// A share that goes over to other zones is one of keys: the same ones go, and come back.
#[test]
fn keys_go_over_to_other_zones_and_come_back() {
    let mut zoned = config(rule(Some(125)), &[]);
    zoned.failover.local_zone = Some("a".into());
    let service = Service::compile(&zoned, None, WORKERS, &Metrics::new(WORKERS));
    let mut all = found(&(1..=12).map(|port| (port, 1)).collect::<Vec<_>>());
    (0..12).for_each(|at| all[at].zone = Some(["a", "b", "c"][at / 4].into()));
    service.instances.publish(all);
    let before = ports(&service, ONE, Millis(0));
    assert!(before.iter().all(|port| *port <= 4), "{before:?}");
    assert_eq!(ports(&service, WorkerId(1), Millis(0)), before);
    let gone: Vec<_> = service.instances.current().instances().take(2).cloned().collect();
    gone.iter().for_each(|instance| instance.set_health(Health::Unhealthy));
    let meanwhile = ports(&service, ONE, Millis(1000));
    assert_eq!(ports(&service, WorkerId(1), Millis(1000)), meanwhile);
    let over = meanwhile.iter().filter(|port| **port > 4).count();
    assert!((250..350).contains(&over), "{over} of 1000, of which 300 were to go");
    for (was, is) in before.iter().zip(&meanwhile) {
        assert!(is == was || *was <= 2 || *is > 4, "{was} → {is}: a key that stays has no reason to move");
    }
    gone.iter().for_each(|instance| instance.set_health(Health::Healthy));
    assert_eq!(ports(&service, ONE, Millis(2000)), before);
}

/// It waits a little at each: were it by the key still, always at the same one, whichever has room.
#[test]
fn who_was_at_many_goes_anywhere() {
    let service = service(Some(125), &[1; 12]);
    let wish = Wish { key: Some(7), session: None, once: false };
    let mut rng = fastrand::Rng::with_seed(1);
    let mut tried = Vec::new();
    let mut ask = |tried: &[u64]| {
        service.pick(ONE, wish, tried, Millis(0), &mut rng).expect("one is usable").instance().id
    };
    while tried.len() < 8 {
        tried.push(ask(&tried));
    }
    let mut next: Vec<u64> = (0..100).map(|_| ask(&tried)).collect();
    next.sort_unstable();
    next.dedup();
    assert!(next.len() == 4 && !next.iter().any(|id| tried.contains(id)), "{tried:?} {next:?}");
}
