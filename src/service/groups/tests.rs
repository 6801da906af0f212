//! How requests are divided among groups.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::{self, LoadBalancing};
use crate::per_worker::WorkerId;
use crate::service::discovered::{Discovered, Publish};
use crate::service::instance::{Health, Instance};
use crate::service::scenarios::{config, found};
use crate::service::{GroupShare, Service, Wish};
use crate::telemetry::metrics::Metrics;

/// Instances of one priority and zone, of which so many are well.
#[derive(Clone, Copy, Debug)]
struct Kind {
    priority: u8,
    zone: &'static str,
    of: usize,
    well: usize,
}

const fn some(priority: u8, zone: &'static str, of: usize, well: usize) -> Kind {
    Kind { priority, zone, of, well }
}

/// For a gateway in zone a.
fn service(all: &[Kind]) -> Arc<Service> {
    let mut config = config(LoadBalancing::RoundRobin, &[]);
    config.failover.local_zone = Some("a".into());
    of(&config, all)
}

fn of(config: &config::Service, all: &[Kind]) -> Arc<Service> {
    let service = Service::compile(config, None, 1, &Metrics::new(1));
    let places = all.iter().flat_map(|some| std::iter::repeat_n(some, some.of));
    let ports: Vec<(u16, u32)> = (1..).zip(places.clone().map(|_| 1)).collect();
    let placed = found(&ports).into_iter().zip(places).map(|(one, some)| Discovered {
        zone: Some(some.zone.into()).filter(|zone: &Arc<str>| !zone.is_empty()),
        priority: some.priority,
        ..one
    });
    service.instances.publish(placed.collect());
    set_health(&service, all);
    service
}

fn set_health(service: &Service, all: &[Kind]) {
    for some in all {
        for (number, instance) in at(service, some.priority, some.zone).into_iter().enumerate() {
            instance.set_health(if number < some.well { Health::Healthy } else { Health::Unhealthy });
        }
    }
}

fn at(service: &Service, priority: u8, zone: &str) -> Vec<Arc<Instance>> {
    let set = service.instances.current();
    let there = set.placed().filter(|(_, its, of)| (its.unwrap_or_default(), *of) == (zone, priority));
    there.map(|(instance, ..)| instance.clone()).collect()
}

/// In per cent.
fn shares(service: &Service) -> Vec<f64> {
    service.shares().iter().map(|group| (group.share * 1000.0).round() / 10.0).collect()
}

/// Where so many requests went: the zone and the priority of each.
fn picks(service: &Service, times: usize, now: u64) -> Vec<(String, u8)> {
    let mut rng = fastrand::Rng::with_seed(5);
    let set = service.instances.current();
    let pick = |_| {
        let picked = service.pick(WorkerId(0), Wish::default(), &[], Millis(now), &mut rng);
        let id = picked.expect("one is usable").instance().id;
        let (_, zone, priority) = set.placed().find(|(one, ..)| one.id == id).expect("it is one of the set");
        (zone.unwrap_or_default().to_owned(), priority)
    };
    (0..times).map(pick).collect()
}

#[test]
fn the_local_zone_carries_its_part_and_the_others_what_is_left() {
    for (all, wanted) in [
        (&[some(0, "a", 4, 4), some(0, "b", 4, 4), some(0, "c", 4, 4)][..], [100.0, 0.0]),
        // 3 of 4: 1.4 × 3/4 is more than all.
        (&[some(0, "a", 4, 3), some(0, "b", 4, 4), some(0, "c", 4, 4)], [100.0, 0.0]),
        (&[some(0, "a", 4, 2), some(0, "b", 4, 4), some(0, "c", 4, 4)], [70.0, 30.0]),
        (&[some(0, "a", 4, 1), some(0, "b", 4, 4), some(0, "c", 4, 4)], [35.0, 65.0]),
        (&[some(0, "a", 4, 0), some(0, "b", 4, 4), some(0, "c", 4, 4)], [0.0, 100.0]),
        // The others have no more to give: as without zones, 1 of 2.
        (&[some(0, "a", 4, 1), some(0, "b", 4, 1), some(0, "c", 4, 0)], [50.0, 50.0]),
        (&[some(0, "a", 4, 1), some(0, "b", 4, 0), some(0, "c", 4, 0)], [100.0, 0.0]),
        // A small zone is not run over by a third of all requests: 1.4 × 1 × 3/21.
        (&[some(0, "a", 1, 1), some(0, "b", 10, 10), some(0, "c", 10, 10)], [20.0, 80.0]),
        // What is in no zone is one more.
        (&[some(0, "a", 2, 2), some(0, "", 2, 2)], [100.0, 0.0]),
    ] {
        assert_eq!(shares(&service(all)), wanted, "{all:?}");
    }
    assert_eq!(shares(&service(&[some(0, "a", 2, 1)])), [100.0], "there is but one zone");
    assert_eq!(shares(&service(&[some(0, "b", 2, 1), some(0, "c", 2, 0)])), [100.0], "none is local");
}

#[test]
fn the_next_priority_gets_what_the_one_before_cannot_carry() {
    for (all, wanted) in [
        (&[some(0, "", 4, 4), some(1, "", 2, 2)][..], [100.0, 0.0]),
        (&[some(0, "", 4, 3), some(1, "", 2, 2)], [100.0, 0.0]),
        (&[some(0, "", 4, 2), some(1, "", 2, 2)], [70.0, 30.0]),
        (&[some(0, "", 4, 1), some(1, "", 2, 2)], [35.0, 65.0]),
        (&[some(0, "", 4, 0), some(1, "", 2, 2)], [0.0, 100.0]),
        // Neither can carry all: 35 and 28.
        (&[some(0, "", 4, 1), some(1, "", 5, 1)], [55.6, 44.4]),
        (&[some(0, "", 4, 0), some(1, "", 2, 0)], [0.0, 0.0]),
    ] {
        assert_eq!(shares(&service(all)), wanted, "{all:?}");
    }
    let three = service(&[some(0, "", 4, 2), some(3, "", 4, 1), some(9, "", 1, 1)]);
    assert_eq!(shares(&three), [70.0, 30.0, 0.0], "numbers may be left out");
}

#[test]
fn zones_count_within_a_priority() {
    let service = service(&[some(1, "a", 2, 2), some(0, "b", 2, 1), some(0, "a", 2, 1), some(1, "b", 2, 2)]);
    let groups: Vec<(u8, Zone)> = service.shares().iter().map(|group| (group.priority, group.zone)).collect();
    let (local, other) = (Zone::Local, Zone::Other);
    assert_eq!(groups, [(0, local), (0, other), (1, local), (1, other)]);
    // 1.4 × 2/4 of all for priority 0, and of them 1.4 × 1 × 2/4 for the zone.
    assert_eq!(shares(&service), [49.0, 21.0, 30.0, 0.0]);
}

#[test]
fn overprovisioning_says_how_much_may_be_missing() {
    let mut config = config(LoadBalancing::RoundRobin, &[]);
    config.failover.overprovisioning = 100;
    assert_eq!(shares(&of(&config, &[some(0, "", 4, 3), some(1, "", 1, 1)])), [75.0, 25.0]);
    config.failover.overprovisioning = 400;
    assert_eq!(shares(&of(&config, &[some(0, "", 4, 1), some(1, "", 1, 1)])), [100.0, 0.0]);
}

#[test]
fn without_a_zone_of_its_own_the_gateway_prefers_none() {
    let config = config(LoadBalancing::RoundRobin, &[]);
    let service = of(&config, &[some(0, "a", 2, 2), some(0, "b", 2, 2)]);
    let only = GroupShare { priority: 0, zone: Zone::Any, instances: 4, usable: 4, share: 1.0 };
    assert_eq!(service.shares(), [only]);
}

#[test]
fn requests_go_where_the_shares_say_and_follow_them() {
    let all = [some(0, "a", 4, 4), some(0, "b", 4, 4), some(1, "a", 4, 4)];
    let service = service(&all);
    assert!(picks(&service, 200, 0).iter().all(|pick| *pick == ("a".into(), 0)));
    set_health(&service, &[some(0, "a", 4, 1), some(0, "b", 4, 1)]);
    // 1.4 × 2/8 for priority 0; half of that is local.
    let later = picks(&service, 4000, 200);
    for (place, wanted) in [(("a", 0), 700), (("b", 0), 700), (("a", 1), 2600)] {
        let count = later.iter().filter(|(zone, priority)| (&**zone, *priority) == place).count();
        assert!(count.abs_diff(wanted) < 120, "{place:?}: {count}");
    }
    set_health(&service, &all);
    assert!(picks(&service, 200, 400).iter().all(|pick| *pick == ("a".into(), 0)));
}

/// Between two counts, and while a breaker holds back what health checks know nothing of.
#[test]
fn no_request_fails_while_any_group_has_an_instance() {
    let service = service(&[some(0, "a", 2, 2), some(0, "b", 2, 2), some(1, "a", 2, 2)]);
    picks(&service, 1, 0);
    set_health(&service, &[some(0, "a", 2, 0), some(0, "b", 2, 0)]);
    assert!(picks(&service, 100, 1).iter().all(|pick| *pick == ("a".into(), 1)), "nobody has counted yet");
    set_health(&service, &[some(0, "b", 2, 1), some(1, "a", 2, 0)]);
    assert!(picks(&service, 100, 2).iter().all(|pick| *pick == ("b".into(), 0)));
}

/// A group that has failed altogether gets no share, and still is found to be back.
#[test]
fn a_group_without_a_share_is_tried_by_one_request_at_a_time() {
    let service = service(&[some(0, "", 1, 1), some(1, "", 1, 1)]);
    let settings = &service.settings.breaker;
    let pick = |now: u64| {
        let mut rng = fastrand::Rng::with_seed(now);
        service.pick(WorkerId(0), Wish::default(), &[], Millis(now), &mut rng).expect("one is usable")
    };
    let port = |now: u64| pick(now).instance().address.port();
    for _ in 0..settings.consecutive_failures {
        pick(0).admission.failure(Millis(0), settings);
    }
    assert!((0..50).all(|number| port(101 + number * 90) == 2), "until the breaker lets a probe through");
    port(5000);
    let probe = pick(5101);
    assert_eq!(probe.instance().address.port(), 1);
    assert!((0..50).all(|_| port(5202) == 2), "one is on its way");
    probe.admission.success(Millis(5203), settings);
    port(5303);
    assert!((0..50).all(|_| port(5304) == 1), "it is back");
}

/// With `slow_start`, requests come back as slowly as the instances that they come back to.
#[test]
fn what_is_back_gets_its_requests_by_and_by() {
    let mut slowly = config(LoadBalancing::RoundRobin, &[]);
    slowly.slow_start = Some(Duration::from_secs(30));
    let service = of(&slowly, &[some(0, "", 1, 1), some(1, "", 1, 1)]);
    at(&service, 0, "")[0].begins(Millis(1000));
    let first = |now: u64| picks(&service, 2000, now).iter().filter(|(_, priority)| *priority == 0).count();
    for (now, wanted) in [(1000, 280), (16_000, 1400), (31_000, 2000)] {
        let count = first(now);
        assert!(count.abs_diff(wanted) < 60, "{count} at {now}, not {wanted}");
    }
}

/// What joins takes nothing from those that were enough before it.
#[test]
fn one_that_joins_sends_nothing_away() {
    let mut slowly = config(LoadBalancing::RoundRobin, &[]);
    slowly.slow_start = Some(Duration::from_secs(30));
    slowly.failover.local_zone = Some("a".into());
    let service = of(&slowly, &[some(0, "a", 2, 2), some(0, "b", 2, 2), some(1, "a", 2, 2)]);
    at(&service, 0, "a")[0].joins(Millis(1000));
    at(&service, 0, "b").iter().for_each(|one| one.joins(Millis(1000)));
    assert!(picks(&service, 500, 1000).iter().all(|pick| *pick == ("a".into(), 0)));
    let alone = of(&slowly, &[some(0, "", 2, 2), some(1, "", 2, 2)]);
    at(&alone, 0, "").iter().for_each(|one| one.joins(Millis(1000)));
    assert!(picks(&alone, 500, 1000).iter().all(|(_, priority)| *priority == 0), "all are new");
    at(&alone, 0, "")[0].set_health(Health::Unhealthy);
    assert!(picks(&alone, 500, 1200).iter().any(|(_, priority)| *priority == 1), "one has failed");
}

/// The health of all instances together says nothing where one priority is well.
#[test]
fn there_is_no_panic_while_a_priority_has_enough() {
    let service = service(&[some(0, "", 3, 0), some(1, "", 1, 1)]);
    let panics = || {
        service.instances.assess(Some(50));
        service.instances.is_panicking()
    };
    assert!(!panics());
    set_health(&service, &[some(1, "", 1, 0)]);
    assert!(panics());
    set_health(&service, &[some(0, "", 3, 2)]);
    assert!(!panics());
}

#[test]
fn a_request_counts_a_part_of_a_large_set_only() {
    let service = service(&[some(0, "a", 5000, 5000), some(0, "b", 5000, 5000)]);
    let set = service.instances.current();
    let survey = set.survey(WorkerId(0));
    let count = |now: u64| {
        let looked = std::cell::Cell::new(0);
        survey.count(&set.groups, Millis(now), 1.4, |index| {
            looked.set(looked.get() + 1);
            if index < 2500 { Found::Unusable } else { Found::Usable(Weight { usable: WHOLE, to_come: 0 }) }
        });
        looked.get()
    };
    let counted: Vec<usize> = (0..100).map(|_| count(7)).collect();
    assert!(counted.iter().all(|&looked| looked <= AT_ONCE));
    assert_eq!(counted.iter().sum::<usize>(), 10_000, "once each in a tenth of a second");
    assert!((survey.share(0) - 0.7).abs() < 0.001, "{}", survey.share(0));
    assert_eq!(count(106), 0);
    assert_eq!(count(107), AT_ONCE);
}

proptest! {
    /// Shares are parts of one whole, and one instance more or less moves no more than its own part of it.
    #[test]
    fn shares_have_no_steps(
        kinds in proptest::collection::vec((0u8..3, 0usize..3, 1usize..40), 1..7),
        well in proptest::collection::vec(0.0f64..1.0, 7),
        lost in any::<prop::sample::Index>(),
    ) {
        let zones = ["a", "b", ""];
        let all: Vec<Kind> = kinds.iter().zip(&well).map(|(&(priority, zone, of), well)| {
            some(priority, zones[zone], of, (of as f64 * well) as usize)
        }).collect();
        let service = service(&all);
        let well = |service: &Service| -> Vec<Arc<Instance>> {
            let set = service.instances.current();
            set.instances().filter(|one| one.health() == Health::Healthy).cloned().collect()
        };
        let before = service.shares();
        let instances = well(&service);
        let sum: f64 = before.iter().map(|group| group.share).sum();
        let expected = if instances.is_empty() { 0.0 } else { 1.0 };
        prop_assert!((sum - expected).abs() < 1e-9, "{before:?}");
        prop_assert!(before.iter().all(|group| group.usable > 0 || group.share < 1e-9), "{before:?}");
        if instances.len() > 1 {
            let gone = lost.get(&instances);
            gone.set_health(Health::Unhealthy);
            let after = service.shares();
            let set = service.instances.current();
            let (_, _, priority) = set.placed().find(|(one, ..)| one.id == gone.id).unwrap();
            let level: usize = before.iter().filter(|g| g.priority == priority).map(|g| g.instances).sum();
            let usable: usize = before.iter().filter(|g| g.priority == priority).map(|g| g.usable).sum();
            // Its part of what its priority carries, times the zones; nothing else changes hands.
            let most = 1.4 * 3.0 / level as f64 + 2.0 / usable as f64;
            let all: f64 = before.iter().map(|g| g.usable as f64 / g.instances as f64).sum();
            if all >= 1.0 {
                for (before, after) in before.iter().zip(&after) {
                    let moved = (before.share - after.share).abs();
                    prop_assert!(moved <= most + 1e-9, "{before:?} → {after:?}, of at most {most}");
                }
            }
        }
    }
}
