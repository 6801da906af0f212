//! A breaker through its phases, alone and with many workers at once.

use std::collections::VecDeque;
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::*;
use crate::config::{LoadBalancing, StatusRange};
use crate::service::Settings;
use crate::service::scenarios;

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

// ------------------------------------------------------------------ against a plain model

/// What a breaker is, written down without a thought to speed.
#[derive(Debug)]
struct Model {
    settings: BreakerSettings,
    state: BreakerState,
    /// Counts the changes of `state`.
    era: u32,
    in_a_row: u32,
    /// When and how requests of this era ended.
    ended: Vec<(u64, bool)>,
    probes_out: u32,
    probes_well: u32,
    until: u64,
    next_open_for: Duration,
}

impl Model {
    fn new(settings: BreakerSettings) -> Self {
        Model {
            next_open_for: settings.open_for,
            settings,
            state: BreakerState::Closed,
            era: 0,
            in_a_row: 0,
            ended: Vec::new(),
            probes_out: 0,
            probes_well: 0,
            until: 0,
        }
    }

    fn become_(&mut self, state: BreakerState) {
        self.state = state;
        self.era += 1;
        self.in_a_row = 0;
        self.ended.clear();
        self.probes_out = 0;
        self.probes_well = 0;
    }

    fn open(&mut self, now: u64) {
        self.become_(BreakerState::Open);
        self.until = now + self.next_open_for.as_millis() as u64;
        self.next_open_for = (self.next_open_for * 2).min(self.settings.max_open_for);
    }

    /// The era that a request is admitted in.
    fn admit(&mut self, now: u64) -> Option<u32> {
        if self.state == BreakerState::Open && now >= self.until {
            self.become_(BreakerState::HalfOpen);
        }
        match self.state {
            BreakerState::Closed => {}
            BreakerState::Open => return None,
            BreakerState::HalfOpen
                if self.probes_out + self.probes_well < self.settings.half_open_requests =>
            {
                self.probes_out += 1;
            }
            BreakerState::HalfOpen => return None,
        }
        Some(self.era)
    }

    fn end(&mut self, era: u32, now: u64, good: Option<bool>) {
        if era != self.era {
            return;
        }
        match (self.state, good) {
            (BreakerState::Closed, Some(good)) => self.end_closed(now, good),
            (BreakerState::HalfOpen, None) => self.probes_out -= 1,
            (BreakerState::HalfOpen, Some(false)) => self.open(now),
            (BreakerState::HalfOpen, Some(true)) => {
                self.probes_out -= 1;
                self.probes_well += 1;
                if self.probes_well == self.settings.half_open_requests {
                    self.become_(BreakerState::Closed);
                    self.next_open_for = self.settings.open_for;
                }
            }
            _ => {}
        }
    }

    fn end_closed(&mut self, now: u64, good: bool) {
        self.ended.push((now, good));
        self.in_a_row = if good { 0 } else { self.in_a_row + 1 };
        let bucket_ms = self.settings.window.as_millis() as u64 / 10;
        let recent = self.ended.iter().filter(|(at, _)| now / bucket_ms - at / bucket_ms < 10);
        let (all, bad) = recent.fold((0, 0), |(all, bad), (_, good)| (all + 1, bad + u32::from(!good)));
        let ratio = self.settings.failure_ratio.is_some_and(|percent| {
            all >= self.settings.minimum_requests && bad * 100 >= all * u32::from(percent)
        });
        if !good && (ratio || self.in_a_row >= self.settings.consecutive_failures) {
            self.open(now);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit,
    /// One of the requests on their way ends: well, badly, or without a verdict.
    End {
        which: usize,
        worker: usize,
        good: Option<bool>,
    },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let good = prop_oneof![4 => Just(Some(true)), 5 => Just(Some(false)), 1 => Just(None)];
    prop_oneof![
        5 => Just(Step::Admit),
        5 => (0usize..64, 0usize..3, good).prop_map(|(which, worker, good)| Step::End { which, worker, good }),
        1 => (0u64..3_000).prop_map(Step::Wait),
    ]
}

fn any_settings() -> impl Strategy<Value = BreakerSettings> {
    let ratio = prop_oneof![Just(None), (1u8..=100).prop_map(Some)];
    (1u32..6, ratio, 1u32..15, 1u64..8, 100u64..2000, 1u32..4).prop_map(
        |(in_a_row, failure_ratio, minimum_requests, window, open_ms, half_open_requests)| BreakerSettings {
            consecutive_failures: in_a_row,
            failure_ratio,
            minimum_requests,
            window: Duration::from_secs(window),
            open_for: Duration::from_millis(open_ms),
            max_open_for: Duration::from_millis(open_ms * 3),
            half_open_requests,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn it_does_what_the_model_does(
        settings in any_settings(),
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let breaker = Breaker::new(3);
        let mut model = Model::new(settings);
        let mut on_their_way: Vec<(Pass, u32)> = Vec::new();
        let mut now = 0;
        for step in steps {
            let moment = Millis(now);
            match step {
                Step::Wait(ms) => now += ms,
                Step::Admit => {
                    let admits = breaker.admits(moment, &settings);
                    let pass = breaker.admit(moment, &settings);
                    let era = model.admit(now);
                    prop_assert_eq!(pass.is_some(), era.is_some());
                    prop_assert_eq!(admits, era.is_some());
                    on_their_way.extend(pass.zip(era));
                }
                Step::End { which, worker, good } if !on_their_way.is_empty() => {
                    let (pass, era) = on_their_way.swap_remove(which % on_their_way.len());
                    match good {
                        Some(true) => breaker.success(pass, WorkerId(worker), moment, &settings),
                        Some(false) => breaker.failure(pass, WorkerId(worker), moment, &settings),
                        None => breaker.ignored(pass),
                    }
                    model.end(era, now, good);
                }
                Step::End { .. } => {}
            }
            let status = breaker.status();
            prop_assert_eq!(status.state, model.state);
            prop_assert_eq!(status.consecutive_failures, model.in_a_row);
            prop_assert_eq!(status.probes, model.probes_out);
            prop_assert_eq!(status.next_probe_at.is_some(), model.state == BreakerState::Open);
            prop_assert!(status.next_probe_at.is_none_or(|at| at == Millis(model.until)));
        }
    }
}

// ------------------------------------------------------------------ on many threads

const THREADS: usize = 8;

/// All threads ask at the same moment, again and again: never more, never fewer than the number allowed.
#[test]
fn exactly_so_many_probes_are_out_whoever_asks() {
    let (breaker, mut settings) = (Breaker::new(THREADS), settings());
    settings.half_open_requests = 3;
    fail(&breaker, 3, 0, &settings);
    let (barrier, admitted) = (Barrier::new(THREADS), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 1..=500 {
                    barrier.wait();
                    let pass = breaker.admit(Millis(1000), &settings);
                    admitted.fetch_add(u32::from(pass.is_some()), SeqCst);
                    barrier.wait();
                    assert_eq!(admitted.load(SeqCst), 3 * round);
                    assert_eq!(breaker.status().probes, 3);
                    barrier.wait();
                    if let Some(pass) = pass {
                        breaker.ignored(pass);
                    }
                }
            });
        }
    });
    assert_eq!(breaker.status().probes, 0);
}

/// No order in which probes come and go lets one more out than allowed, or loses a place.
#[test]
fn no_place_is_lost_or_given_twice_under_contention() {
    let (breaker, mut settings) = (Breaker::new(THREADS), settings());
    settings.half_open_requests = 2;
    settings.open_for = Duration::ZERO;
    settings.max_open_for = Duration::ZERO;
    settings.failure_ratio = None;
    settings.consecutive_failures = 1;
    fail(&breaker, 1, 0, &settings);
    // By epoch: verdicts end an epoch for all its probes at once, so probes are counted within theirs.
    let out: Vec<AtomicU32> = (0..=u16::MAX).map(|_| AtomicU32::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (breaker, settings, out) = (&breaker, &settings, &out);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread as u64);
                let worker = WorkerId(thread);
                for _ in 0..4_000 {
                    let Some(pass) = breaker.admit(Millis(0), settings) else { continue };
                    let own = &out[usize::from(pass.epoch)];
                    if pass.probe {
                        assert!(own.fetch_add(1, SeqCst) < 2, "a third probe is out");
                    }
                    if rng.bool() {
                        std::thread::yield_now();
                    }
                    let probe = pass.probe;
                    if probe {
                        own.fetch_sub(1, SeqCst);
                    }
                    match rng.u8(0..10) {
                        0..3 => breaker.success(pass, worker, Millis(0), settings),
                        3..5 => breaker.failure(pass, worker, Millis(0), settings),
                        _ => breaker.ignored(pass),
                    }
                }
            });
        }
    });
    // Wherever it ended, all that were out are back, and it still works.
    let opens = breaker.status().opens;
    assert!(opens > 1);
    assert_eq!(breaker.status().probes, 0);
    while breaker.status().state != BreakerState::Closed {
        succeed(&breaker, 1, 0, &settings);
    }
    fail(&breaker, 1, 0, &settings);
    assert_eq!(breaker.status().opens, opens + 1);
    let probes = [breaker.admit(Millis(0), &settings), breaker.admit(Millis(0), &settings)];
    assert!(probes.iter().all(Option::is_some));
    assert!(breaker.admit(Millis(0), &settings).is_none());
}
