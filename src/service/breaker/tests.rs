//! A breaker through its phases, alone and with many workers at once.

mod model;
mod threads;

use std::collections::VecDeque;
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::*;
use crate::config::{LoadBalancing, StatusRange};
use crate::service::Settings;
use crate::service::scenarios;
use crate::service::settings::BreakerOf;

const ONE: WorkerId = WorkerId(0);

/// 3 in a row, or half of at least 10 in 10 s; open for 1 s, at most 4; one probe.
fn settings() -> BreakerSettings {
    let mut config = scenarios::config(LoadBalancing::RoundRobin, &[]);
    config.circuit_breaker = crate::config::CircuitBreaker {
        consecutive_failures: 3,
        failure_ratio: Some(50),
        minimum_requests: 10,
        window: Duration::from_secs(10),
        open_for: Duration::from_secs(1),
        max_open_for: Duration::from_secs(4),
        half_open_requests: 1,
        failures: vec![crate::config::FailureKind::Status(StatusRange { from: 500, to: 599 })],
    };
    Settings::compile(&config).breaker
}

fn fail(breaker: &Breaker, times: u32, now: u64, settings: &BreakerSettings) {
    for _ in 0..times {
        let pass = breaker.admit(Millis(now), settings).unwrap();
        breaker.failure(pass, ONE, Millis(now), settings);
    }
}

fn succeed(breaker: &Breaker, times: u32, now: u64, settings: &BreakerSettings) {
    for _ in 0..times {
        let pass = breaker.admit(Millis(now), settings).unwrap();
        breaker.success(pass, ONE, Millis(now), settings);
    }
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
    let (breaker, settings) = (Breaker::new(1), settings());
    fail(&breaker, 2, 0, &settings);
    succeed(&breaker, 1, 0, &settings);
    fail(&breaker, 2, 0, &settings);
    assert_eq!(breaker.status().consecutive_failures, 2);
    assert!(breaker.admits(Millis(0), &settings));
    fail(&breaker, 1, 5, &settings);
    assert!(!breaker.admits(Millis(1004), &settings));
    assert!(breaker.admit(Millis(1004), &settings).is_none());
    assert_eq!(
        breaker.status(),
        BreakerStatus {
            state: BreakerState::Open,
            consecutive_failures: 0,
            probes: 0,
            opened_at: Some(Millis(5)),
            next_probe_at: Some(Millis(1005)),
            opens: 1,
        }
    );
}

#[test]
fn a_ratio_over_the_window_opens_it_from_the_minimum_on() {
    let (breaker, settings) = (Breaker::new(2), settings());
    // Never three in a row, on two workers: 2 bad, 1 good, again and again.
    for turn in 0..9u64 {
        let pass = breaker.admit(Millis(turn * 100), &settings).unwrap();
        let worker = WorkerId(turn as usize % 2);
        if turn % 3 == 2 {
            breaker.success(pass, worker, Millis(turn * 100), &settings);
        } else {
            breaker.failure(pass, worker, Millis(turn * 100), &settings);
        }
    }
    assert_eq!(breaker.status().state, BreakerState::Closed, "9 requests are below the minimum");
    fail(&breaker, 1, 900, &settings);
    assert_eq!(breaker.status().state, BreakerState::Open);
}

#[test]
fn a_ratio_forgets_what_left_the_window() {
    let (breaker, settings) = (Breaker::new(1), settings());
    for turn in 0..100u64 {
        // Two bad ones and a good one every 4 s: two thirds bad, but never ten in ten seconds.
        fail(&breaker, 2, turn * 4000, &settings);
        succeed(&breaker, 1, turn * 4000, &settings);
    }
    assert_eq!(breaker.status().opens, 0);
}

#[test]
fn without_a_ratio_only_failures_in_a_row_count() {
    let (breaker, mut settings) = (Breaker::new(1), settings());
    settings.failure_ratio = None;
    for _ in 0..100 {
        fail(&breaker, 2, 0, &settings);
        succeed(&breaker, 1, 0, &settings);
    }
    assert_eq!(breaker.status().opens, 0);
}

#[test]
fn it_opens_for_twice_as_long_each_time_up_to_the_longest() {
    let (breaker, settings) = (Breaker::new(1), settings());
    let mut now = 0;
    fail(&breaker, 3, now, &settings);
    for open_ms in [1000, 2000, 4000, 4000, 4000] {
        assert!(!breaker.admits(Millis(now + open_ms - 1), &settings));
        now += open_ms;
        fail(&breaker, 1, now, &settings);
    }
    assert_eq!(breaker.status().opens, 6);
    succeed(&breaker, 1, now + 4000, &settings);
    assert_eq!(breaker.status().state, BreakerState::Closed);
    now += 4000;
    fail(&breaker, 3, now, &settings);
    assert_eq!(breaker.status().next_probe_at, Some(Millis(now + 1000)), "closing begins from the start");
}

#[test]
fn the_failures_that_opened_it_are_forgotten_when_it_closes() {
    let (breaker, settings) = (Breaker::new(1), settings());
    for _ in 0..3 {
        fail(&breaker, 2, 0, &settings);
        succeed(&breaker, 1, 0, &settings);
    }
    fail(&breaker, 1, 0, &settings);
    assert_eq!(breaker.status().opens, 1);
    succeed(&breaker, 1, 1000, &settings);
    fail(&breaker, 1, 1001, &settings);
    assert_eq!(breaker.status().state, BreakerState::Closed, "the window begins anew with the epoch");
}

#[test]
fn half_open_lets_exactly_so_many_through_and_an_abandoned_place_is_free_again() {
    let (breaker, mut settings) = (Breaker::new(1), settings());
    settings.half_open_requests = 3;
    fail(&breaker, 3, 0, &settings);
    let now = Millis(1000);
    let admit = || breaker.admit(now, &settings);
    let (one, two, three) = (admit().unwrap(), admit().unwrap(), admit().unwrap());
    assert!(admit().is_none());
    assert_eq!(breaker.status().probes, 3);
    breaker.ignored(one);
    let four = admit().unwrap();
    assert!(admit().is_none());
    breaker.success(two, ONE, now, &settings);
    assert!(admit().is_none(), "three verdicts decide, and three are in or on their way");
    breaker.success(three, ONE, now, &settings);
    assert_eq!(breaker.status().state, BreakerState::HalfOpen);
    breaker.success(four, ONE, now, &settings);
    assert_eq!(breaker.status().state, BreakerState::Closed);
}

#[test]
fn one_failed_probe_opens_it_and_the_others_verdicts_count_no_more() {
    let (breaker, mut settings) = (Breaker::new(1), settings());
    settings.half_open_requests = 2;
    fail(&breaker, 3, 0, &settings);
    let (one, two) = (breaker.admit(Millis(1000), &settings), breaker.admit(Millis(1000), &settings));
    breaker.failure(one.unwrap(), ONE, Millis(1500), &settings);
    assert_eq!(breaker.status().next_probe_at, Some(Millis(3500)));
    breaker.failure(two.unwrap(), ONE, Millis(1600), &settings);
    assert_eq!(breaker.status().next_probe_at, Some(Millis(3500)));
    assert_eq!(breaker.status().opens, 2);
}

#[test]
fn late_results_neither_close_nor_open_it() {
    let (breaker, settings) = (Breaker::new(1), settings());
    let mut late: VecDeque<Pass> = (0..10).map(|_| breaker.admit(Millis(0), &settings).unwrap()).collect();
    let mut late = || late.pop_front().unwrap();
    fail(&breaker, 3, 0, &settings);
    breaker.success(late(), ONE, Millis(10), &settings);
    breaker.failure(late(), ONE, Millis(10), &settings);
    assert_eq!(breaker.status().next_probe_at, Some(Millis(1000)));
    let probe = breaker.admit(Millis(1000), &settings).unwrap();
    breaker.success(late(), ONE, Millis(1001), &settings);
    breaker.failure(late(), ONE, Millis(1001), &settings);
    breaker.ignored(late());
    assert_eq!((breaker.status().state, breaker.status().probes), (BreakerState::HalfOpen, 1));
    breaker.success(probe, ONE, Millis(1002), &settings);
    for _ in 0..3 {
        breaker.failure(late(), ONE, Millis(1003), &settings);
    }
    assert_eq!(breaker.status().state, BreakerState::Closed);
    assert_eq!(breaker.status().consecutive_failures, 0);
}

#[test]
fn a_reload_to_fewer_probes_leaves_no_breaker_stuck() {
    let (breaker, mut settings) = (Breaker::new(1), settings());
    settings.half_open_requests = 5;
    fail(&breaker, 3, 0, &settings);
    succeed(&breaker, 3, 1000, &settings);
    settings.half_open_requests = 2;
    succeed(&breaker, 1, 1000, &settings);
    assert_eq!(breaker.status().state, BreakerState::Closed);
}

#[test]
fn extreme_settings_neither_overflow_nor_lock_for_ever() {
    let (breaker, mut settings) = (Breaker::new(1), settings());
    settings.open_for = Duration::MAX;
    settings.max_open_for = Duration::ZERO;
    settings.half_open_requests = u32::MAX;
    settings.consecutive_failures = u32::MAX;
    settings.failure_ratio = Some(1);
    settings.minimum_requests = 0;
    fail(&breaker, 1, 3, &settings);
    assert_eq!(breaker.status().next_probe_at, Some(Millis(OWN_MASK)));
    assert!(breaker.admit(Millis(u64::MAX), &settings).is_some());
}

/// What a worker finds when the state moved on between its look at it and its change.
#[test]
fn a_pass_of_another_epoch_changes_no_state() {
    let settings = settings();
    let phases = [
        Phase::Closed { failures: 2 },
        Phase::Open { until: Millis(0) },
        Phase::HalfOpen { out: 1, succeeded: 0 },
    ];
    for phase in phases {
        let state = State { phase, epoch: 7, level: 0 };
        let late = Pass { epoch: 6, probe: true };
        assert_eq!(state.succeeded(&late), None);
        assert_eq!(state.failed(&late, true, Millis(0), &settings), None);
        assert_eq!(state.probe_succeeded(&late, &settings), None);
        assert_eq!(state.probe_failed(&late, Millis(0), &settings), None);
        assert_eq!(state.probe_abandoned(&late), None);
    }
}

proptest! {
    #[test]
    fn every_state_survives_its_packing(
        epoch: u16,
        level in 0..=MAX_LEVEL,
        kind in 0..3,
        failures: u32,
        until in 0..=OWN_MASK,
        out in 0..=MAX_PROBES,
        succeeded in 0..=MAX_PROBES,
    ) {
        let phase = match kind {
            0 => Phase::Closed { failures },
            1 => Phase::Open { until: Millis(until) },
            _ => Phase::HalfOpen { out, succeeded },
        };
        let state = State { phase, epoch, level };
        prop_assert_eq!(State::unpack(state.pack()), state);
    }
}
