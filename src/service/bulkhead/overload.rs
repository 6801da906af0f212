//! A service of fixed capacity under more than it can do, on simulated time: what gets done, and how long it takes.
//!
//! Requests arrive at random whatever becomes of them. Inside, as many as there are servers are worked on, and the others wait
//! there in turn. The limit is the only thing that keeps that queue short.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::*;

#[derive(Clone, Copy)]
struct Service {
    servers: usize,
    /// The mean; single ones take between half of it and one and a half.
    answer_ms: f64,
}

#[derive(Default)]
struct Seen {
    /// Milliseconds of every admitted request.
    took: Vec<f64>,
    refused: usize,
    limit: u32,
}

impl Seen {
    fn p99(&mut self) -> f64 {
        self.took.sort_by(f64::total_cmp);
        self.took[self.took.len() * 99 / 100]
    }
}

/// Everything between two moments.
struct Run {
    bulkhead: Arc<Bulkhead>,
    now: f64,
    busy: usize,
    /// Requests that wait inside.
    queue: VecDeque<(f64, Slot)>,
    /// By the microsecond at which they are done: a number, and when they came.
    done: BinaryHeap<Reverse<(u64, u64)>>,
    inside: std::collections::HashMap<u64, (f64, Slot)>,
    number: u64,
    rng: fastrand::Rng,
}

impl Run {
    fn new(max: Max) -> Self {
        Run {
            bulkhead: Bulkhead::at(BulkheadLimits { max, queue: 0 }, Millis(0)),
            now: 0.0,
            busy: 0,
            queue: VecDeque::new(),
            done: BinaryHeap::new(),
            inside: std::collections::HashMap::new(),
            number: 0,
            rng: fastrand::Rng::with_seed(7),
        }
    }

    /// For `seconds`, with so many requests a second.
    fn go(&mut self, service: Service, rate: f64, seconds: f64) -> Seen {
        let end = self.now + seconds * 1000.0;
        let mut seen = Seen::default();
        let mut arrives = self.now;
        while arrives < end {
            while let Some(&Reverse((at, number))) = self.done.peek()
                && at as f64 / 1000.0 <= arrives
            {
                self.done.pop();
                self.now = at as f64 / 1000.0;
                self.finish(number, service, &mut seen);
            }
            self.now = arrives;
            match self.bulkhead.enter() {
                Entry::Admitted(slot) => {
                    self.queue.push_back((arrives, slot));
                    self.work(service);
                }
                _ => seen.refused += 1,
            }
            arrives += -self.rng.f64().max(1e-9).ln() / rate * 1000.0;
        }
        seen.limit = self.bulkhead.present().max;
        seen
    }

    fn work(&mut self, service: Service) {
        while self.busy < service.servers
            && let Some(next) = self.queue.pop_front()
        {
            self.busy += 1;
            let takes = service.answer_ms * (0.5 + self.rng.f64());
            self.number += 1;
            self.done.push(Reverse((((self.now + takes) * 1000.0) as u64, self.number)));
            self.inside.insert(self.number, next);
        }
    }

    fn finish(&mut self, number: u64, service: Service, seen: &mut Seen) {
        let (came, slot) = self.inside.remove(&number).expect("it was begun");
        self.busy -= 1;
        let took = self.now - came;
        seen.took.push(took);
        let answered = Answered {
            began: Millis(came as u64),
            at: Millis(self.now as u64),
            took: Duration::from_micros((took * 1000.0) as u64),
        };
        self.bulkhead.answered(answered);
        drop(slot);
        self.work(service);
    }
}

const ADAPTIVE: Max = Max::Adaptive(Bounds { floor: 2, ceiling: 1000 });

#[test]
fn at_three_times_its_capacity_a_service_does_what_it_can_in_nearly_the_usual_time() {
    for (seed, (servers, answer_ms)) in
        [(4, 20.0), (4, 20.0), (16, 50.0), (16, 50.0), (100, 10.0), (32, 400.0)].into_iter().enumerate()
    {
        let service = Service { servers, answer_ms };
        let capacity = servers as f64 / answer_ms * 1000.0;
        let mut run = Run::new(ADAPTIVE);
        run.rng = fastrand::Rng::with_seed(seed as u64);
        let normal = run.go(service, capacity * 0.5, 30.0).p99();
        // As long as it takes to find the limit.
        run.go(service, capacity * 3.0, 10.0);
        let mut seen = run.go(service, capacity * 3.0, 60.0);
        let goodput = seen.took.len() as f64 / 60.0 / capacity;
        let p99 = seen.p99() / normal;
        let case = format!("{servers} servers, {answer_ms} ms, limit {}", seen.limit);
        assert!(goodput > 0.9, "{case}: {goodput:.3} of the capacity");
        assert!(p99 < 2.0, "{case}: 99th percentile {p99:.2} of the normal {normal:.1} ms");
    }
}

#[test]
fn a_start_in_the_midst_of_overload_finds_the_limit_too() {
    let service = Service { servers: 4, answer_ms: 20.0 };
    let mut run = Run::new(ADAPTIVE);
    run.go(service, 600.0, 20.0);
    let mut seen = run.go(service, 600.0, 60.0);
    assert!(seen.took.len() as f64 / 60.0 > 0.9 * 200.0, "{} in a minute", seen.took.len());
    assert!(seen.p99() < 60.0, "{} ms, limit {}", seen.p99(), seen.limit);
}

#[test]
fn a_service_with_time_for_all_is_not_limited() {
    // No queue inside: 200 at once in the mean.
    let service = Service { servers: 100_000, answer_ms: 50.0 };
    let mut run = Run::new(ADAPTIVE);
    run.go(service, 4000.0, 10.0);
    let seen = run.go(service, 4000.0, 60.0);
    let share = seen.refused as f64 / (seen.refused + seen.took.len()) as f64;
    assert!(share < 0.005, "{share:.4} were refused at a limit of {}", seen.limit);
}

#[test]
fn a_service_that_has_become_slower_or_faster_is_known_anew() {
    let mut run = Run::new(ADAPTIVE);
    let (fast, slow) = (Service { servers: 16, answer_ms: 20.0 }, Service { servers: 16, answer_ms: 60.0 });
    run.go(fast, 2000.0, 20.0);
    for (service, capacity) in [(slow, 266.0), (fast, 800.0)] {
        run.go(service, 2000.0, 10.0);
        let seen = run.go(service, 2000.0, 60.0);
        let goodput = seen.took.len() as f64 / 60.0 / capacity;
        assert!(goodput > 0.9, "{goodput:.3} of the capacity with {} ms", service.answer_ms);
    }
}

#[test]
fn the_limit_stays_within_its_bounds() {
    let bounds = |floor, ceiling| Max::Adaptive(Bounds { floor, ceiling });
    let idle = Service { servers: 10_000, answer_ms: 20.0 };
    assert_eq!(Run::new(bounds(2, 40)).go(idle, 10_000.0, 10.0).limit, 40);
    let tiny = Service { servers: 1, answer_ms: 20.0 };
    let mut run = Run::new(bounds(12, 40));
    run.go(tiny, 20.0, 10.0);
    assert_eq!(run.go(tiny, 500.0, 20.0).limit, 12);
    assert_eq!(Run::new(bounds(50, 60)).bulkhead.present().max, 50);
}
