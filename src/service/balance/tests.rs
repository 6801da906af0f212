//! Shares of requests that instances get, by rule and state.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{ConsistentHash, HashKey, LoadBalancing};
use crate::service::discovered::Publish;
use crate::service::instance::Health;
use crate::service::scenarios::{config, found};
use crate::service::{Instance, Service, Wish};
use crate::telemetry::metrics::Metrics;

const ONE: WorkerId = WorkerId(0);
const NOW: Millis = Millis(0);
const KEY: Wish = Wish { key: Some(0x0123_4567_89ab_cdef), session: None, once: false };
const RULES: [LoadBalancing; 6] = [
    LoadBalancing::RoundRobin,
    LoadBalancing::Weighted,
    LoadBalancing::Random,
    LoadBalancing::LeastRequests,
    LoadBalancing::PeakEwma,
    HASH,
];
const HASH: LoadBalancing =
    LoadBalancing::ConsistentHash(ConsistentHash { key: HashKey::Ip, max_load: Some(125) });

fn service(rule: LoadBalancing, weights: &[u32]) -> Arc<Service> {
    let service = Service::compile(&config(rule, &[]), None, 4, &Metrics::new(4));
    service.instances.publish(found(&(1..).zip(weights.iter().copied()).collect::<Vec<_>>()));
    service
}

fn instance(service: &Service, index: usize) -> Arc<Instance> {
    service.instances.current().instances().nth(index).unwrap().clone()
}

fn open(service: &Service, index: usize) {
    let settings = &service.settings.breaker;
    let seat = service.instances.current().member(index).of(ONE).clone();
    for _ in 0..settings.consecutive_failures {
        seat.admit(NOW, settings).unwrap().failure(NOW, settings);
    }
}

/// Ports of so many picks, each of which is answered at once.
fn picks(service: &Service, worker: WorkerId, tried: &[u64], times: usize) -> Vec<u16> {
    let mut rng = fastrand::Rng::with_seed(3);
    let one = |_| {
        let picked = service.pick(worker, KEY, tried, NOW, &mut rng).unwrap();
        let port = picked.instance().address.port();
        picked.admission.success(NOW, &service.settings.breaker);
        port
    };
    (0..times).map(one).collect()
}

fn count(ports: &[u16], port: u16) -> usize {
    ports.iter().filter(|&&one| one == port).count()
}

#[test]
fn round_robin_goes_round_on_each_worker() {
    let service = service(LoadBalancing::RoundRobin, &[1, 9, 1]);
    for worker in 0..4 {
        let ports = picks(&service, WorkerId(worker), &[], 9);
        for window in ports.windows(4) {
            assert_eq!(window[0], window[3], "{ports:?}");
            assert_eq!(count(&window[..3], 1) + count(&window[..3], 2) + count(&window[..3], 3), 3);
        }
        assert_eq!(count(&ports, 2), 3);
    }
}

#[test]
fn workers_begin_at_different_places() {
    let service = service(LoadBalancing::RoundRobin, &[1; 1000]);
    let mut first: Vec<u16> = (0..4).map(|worker| picks(&service, WorkerId(worker), &[], 1)[0]).collect();
    first.sort_unstable();
    first.dedup();
    assert!(first.len() > 1, "{first:?}");
}

#[test]
fn the_share_of_a_dead_instance_is_divided_among_all() {
    for rule in [LoadBalancing::RoundRobin, LoadBalancing::Weighted] {
        let service = service(rule.clone(), &[1; 5]);
        instance(&service, 1).set_health(Health::Unhealthy);
        open(&service, 3);
        let ports = picks(&service, ONE, &[], 3000);
        for port in [1, 3, 5] {
            let share = count(&ports, port);
            assert!((995..=1005).contains(&share), "{rule:?}: {port} has {share} of 3000");
        }
    }
}

#[test]
fn a_long_order_does_not_hide_the_only_one_left() {
    // Whoever has weight 1 comes up once in thousands of turns.
    for rule in RULES {
        let service = service(rule.clone(), &[50_000, 50_000, 1]);
        open(&service, 0);
        instance(&service, 1).set_health(Health::Unhealthy);
        assert_eq!(picks(&service, ONE, &[], 50), [3; 50], "{rule:?}");
    }
}

#[test]
fn another_instance_is_tried_where_there_is_one() {
    for rule in RULES {
        let service = service(rule.clone(), &[1, 5, 1]);
        let tried = [instance(&service, 1).id];
        assert_eq!(count(&picks(&service, ONE, &tried, 100), 2), 0, "{rule:?}");
        open(&service, 0);
        let tried = [instance(&service, 1).id, instance(&service, 2).id];
        let ports = picks(&service, ONE, &tried, 100);
        assert_eq!(count(&ports, 1), 0, "{rule:?}: an open one is no better than one tried before");
        assert!(count(&ports, 2) > 0 && count(&ports, 3) > 0, "{rule:?}: {ports:?}");
    }
}

/// With one of two instances failing (but not open yet), first attempts alternate although each failure
/// is followed by a second attempt.
#[test]
fn a_second_attempt_takes_no_turn() {
    let service = service(LoadBalancing::RoundRobin, &[1, 1]);
    let mut first_attempts = Vec::new();
    for _ in 0..100 {
        let port = picks(&service, ONE, &[], 1)[0];
        first_attempts.push(port);
        if port == 1 {
            assert_eq!(picks(&service, ONE, &[instance(&service, 0).id], 1), [2]);
        }
    }
    assert_eq!(count(&first_attempts, 1), 50);
}

#[test]
fn none_is_told_apart() {
    for rule in RULES {
        let pick = |service: &Service| {
            service.pick(ONE, KEY, &[], NOW, &mut fastrand::Rng::with_seed(1)).unwrap_err()
        };
        assert_eq!(pick(&service(rule.clone(), &[])), NoPick::Empty);
        let service = service(rule, &[1, 2]);
        instance(&service, 0).set_health(Health::Unhealthy);
        open(&service, 1);
        assert_eq!(pick(&service), NoPick::AllOpen);
        instance(&service, 1).set_health(Health::Unhealthy);
        assert_eq!(pick(&service), NoPick::AllUnhealthy);
    }
}

/// With a `panic_threshold`, what is unhealthy is used like the others when too many are, but not what its breaker
/// holds back.
#[test]
fn too_few_healthy_ones_share_with_the_others() {
    for rule in RULES {
        let mut panics = config(rule.clone(), &[]);
        panics.health_check = Some(crate::config::HealthCheck {
            probe: crate::config::HealthProbe::Tcp,
            jitter: 0,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy_after: 1,
            unhealthy_after: 1,
            panic_threshold: Some(50),
        });
        let service = Service::compile(&panics, None, 4, &Metrics::new(4));
        service.instances.publish(found(&[(1, 1), (2, 1), (3, 1)]));
        instance(&service, 0).set_health(Health::Unhealthy);
        instance(&service, 1).set_health(Health::Unhealthy);
        assert_eq!(picks(&service, ONE, &[], 50), [3; 50], "{rule:?}");
        service.instances.assess(Some(50));
        let tried = [instance(&service, 2).id];
        let ports = picks(&service, ONE, &tried, 50);
        assert_eq!(count(&ports, 3), 0, "{rule:?}");
        instance(&service, 2).set_health(Health::Unhealthy);
        service.instances.assess(Some(50));
        (0..3).for_each(|index| open(&service, index));
        let none = service.pick(ONE, KEY, &[], NOW, &mut fastrand::Rng::with_seed(1)).unwrap_err();
        assert_eq!(none, NoPick::AllOpen, "{rule:?}");
    }
}

#[test]
fn a_probe_given_up_leaves_its_place_to_the_next_request() {
    let service = service(LoadBalancing::LeastRequests, &[1]);
    open(&service, 0);
    let mut rng = fastrand::Rng::with_seed(1);
    let later = NOW.plus(Duration::from_secs(5));
    let mut pick = || service.pick(ONE, KEY, &[], later, &mut rng);
    let probe = pick().unwrap();
    assert_eq!(pick().unwrap_err(), NoPick::AllOpen);
    drop(probe);
    let probe = pick().unwrap();
    probe.admission.success(later, &service.settings.breaker);
    assert!(pick().is_ok() && pick().is_ok());
}

#[test]
fn the_less_busy_of_two_gets_the_request() {
    let service = service(LoadBalancing::LeastRequests, &[1, 1]);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(service.pick(ONE, KEY, &[], NOW, &mut rng).unwrap());
    }
    assert_eq!(instance(&service, 0).totals().in_flight, 50);
    held.clear();
    assert_eq!(instance(&service, 0).totals().in_flight, 0);
}

proptest! {
    /// Whatever the state of the instances: a pick is usable, it is an untried one when there is one, and
    /// there is none only when none is usable.
    #[test]
    fn a_pick_is_right(
        rule in 0..RULES.len(),
        instances in proptest::collection::vec((1u32..30, 0u8..6, any::<bool>()), 0..12),
        seed: u64,
    ) {
        let weights: Vec<u32> = instances.iter().map(|(weight, ..)| *weight).collect();
        let service = service(RULES[rule].clone(), &weights);
        let mut tried = Vec::new();
        for (index, (_, state, was_tried)) in instances.iter().enumerate() {
            match state {
                0 => instance(&service, index).set_health(Health::Unhealthy),
                1 => open(&service, index),
                _ => {}
            }
            if *was_tried {
                tried.push(instance(&service, index).id);
            }
        }
        let usable = |index: usize| instances[index].1 > 1;
        let some_untried = (0..instances.len()).any(|index| usable(index) && !instances[index].2);
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            match service.pick(ONE, KEY, &tried, NOW, &mut rng) {
                Ok(picked) => {
                    let index = usize::from(picked.instance().address.port()) - 1;
                    prop_assert!(usable(index));
                    prop_assert!(!instances[index].2 || !some_untried);
                }
                Err(_) => prop_assert!((0..instances.len()).all(|index| !usable(index))),
            }
        }
    }
}

#[test]
fn an_ejected_one_gets_what_no_other_can_take() {
    use crate::service::{EjectionReason, EjectionTime};
    let time = EjectionTime { base: Duration::from_secs(30), max: Duration::from_secs(30) };
    for rule in RULES {
        let service = service(rule.clone(), &[1, 1, 1]);
        let out = instance(&service, 0);
        out.eject(EjectionReason::FailureRatio, "it fails".to_owned(), false, NOW, time);
        assert_eq!(count(&picks(&service, ONE, &[], 60), 1), 0, "{rule:?}");
        let others = [instance(&service, 1).id, instance(&service, 2).id];
        assert_eq!(
            count(&picks(&service, ONE, &others, 6), 1),
            6,
            "{rule:?}: rather than one that was tried"
        );
        assert_eq!(count(&picks(&service, ONE, &[out.id, others[0], others[1]], 60), 1), 20, "{rule:?}");
        instance(&service, 1).set_health(Health::Unhealthy);
        open(&service, 2);
        assert_eq!(count(&picks(&service, ONE, &[], 6), 1), 6, "{rule:?}: the others can't");
        out.set_health(Health::Unhealthy);
        let none = service.pick(ONE, KEY, &[], NOW, &mut fastrand::Rng::with_seed(3));
        assert_eq!(none.unwrap_err(), NoPick::AllOpen, "{rule:?}: it can't either");
        out.set_health(Health::Healthy);
        out.readmit(NOW);
        instance(&service, 1).set_health(Health::Healthy);
        assert!(count(&picks(&service, ONE, &[], 60), 1) > 10, "{rule:?}");
    }
}

/// By rules that compare two, it would lose for just what it is to be tried for.
#[test]
fn a_silent_instance_is_tried_and_used_again_when_it_answers() {
    for rule in RULES {
        let service = service(rule.clone(), &[1, 1, 1]);
        let silent = service.instances.current().member(0).of(ONE).clone();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut ask = |now: u64| {
            let (wish, now) = (Wish { key: Some(rng.u64(..)), session: None, once: false }, Millis(now));
            let picked = service.pick(ONE, wish, &[], now, &mut rng).expect("there are others");
            let Picked { admission, in_flight } = picked;
            admission.success(now, &service.settings.breaker);
            let instance = in_flight.instance();
            let (is_silent, took) = (instance.id == silent.id, Duration::from_millis(2));
            if !is_silent || now > Millis(15_000) {
                instance.waited(took, true, now.plus(took));
                instance.heard(now, now.plus(took), true);
            }
            is_silent
        };
        assert!((10_000..10_100).any(&mut ask), "{rule:?}");
        let stuck = [silent.begin(false), silent.begin(false)];
        silent.waited(Duration::from_secs(2), false, Millis(11_000));
        silent.silence.begin(Millis(11_000));
        let tried = (11_000..15_990).filter(|&now| ask(now)).count();
        assert_eq!(tried, 0, "{rule:?}: it is passed over");
        let first = (16_000..17_000).find(|&now| ask(now));
        assert!(first.is_some_and(|at| at < 16_050), "{rule:?}: it is tried at {first:?}");
        drop(stuck);
        // What was sent before says nothing.
        silent.waited(Duration::from_secs(6), true, Millis(17_010));
        let share = (17_100..17_400).filter(|&now| ask(now)).count();
        assert!((60..140).contains(&share), "{rule:?}: it gets {share} of 300");
    }
}
