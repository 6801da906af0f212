//! The breaker against a plain model of what it promises.

use super::*;

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
    /// Those of former eras, too.
    at_the_instance: u32,
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
            at_the_instance: 0,
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

    /// The era that a request is admitted in, and whether it is a probe.
    fn admit(&mut self, now: u64) -> Option<(u32, bool)> {
        let has_place = self.at_the_instance < self.settings.half_open_requests;
        if self.state == BreakerState::Open && now >= self.until && has_place {
            self.become_(BreakerState::HalfOpen);
        }
        match self.state {
            BreakerState::Closed => {}
            BreakerState::Open => return None,
            BreakerState::HalfOpen
                if has_place && self.probes_out + self.probes_well < self.settings.half_open_requests =>
            {
                self.probes_out += 1;
                self.at_the_instance += 1;
                return Some((self.era, true));
            }
            BreakerState::HalfOpen => return None,
        }
        Some((self.era, false))
    }

    fn end(&mut self, (era, is_probe): (u32, bool), now: u64, good: Option<bool>) {
        self.at_the_instance -= u32::from(is_probe);
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
            of: BreakerOf::SERVICE,
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
        let mut on_their_way: Vec<(Pass, (u32, bool))> = Vec::new();
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
