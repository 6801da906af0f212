//! Every balancing rule in the same situations, on simulated time.
//!
//! An open-loop simulation: requests arrive at random at a given rate whatever becomes of them, each at a
//! random worker; instances answer after their own time, well or not. Failed attempts are tried again as a
//! route would, twice at most and within the budget. What is asserted is where the attempts went.

mod table;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::discovered::{Discovered, Publish};
use super::*;
use crate::config::{At, ConsistentHash, HashKey, InstanceSource, LoadBalancing, Span, StaticInstance};
use crate::telemetry::metrics::Metrics;

/// A service with the default settings.
pub(super) fn config(rule: LoadBalancing, ports: &[u16]) -> config::Service {
    let at = |value: String| At { value, span: Span::default() };
    let instance = |port: &u16| StaticInstance {
        authority: at(format!("127.0.0.1:{port}")),
        weight: 1,
        zone: None,
        priority: 0,
    };
    config::Service {
        name: at("users".into()),
        source: InstanceSource::Static(ports.iter().map(instance).collect()),
        tls: None,
        protocol: config::Protocol::Http1,
        load_balancing: rule,
        slow_start: None,
        sticky: None,
        failover: config::Failover::default(),
        health_check: None,
        outlier_detection: None,
        circuit_breaker: config::CircuitBreaker::default(),
        retries: config::Retries::default(),
        timeouts: config::Timeouts::default(),
        pool: config::Pool::default(),
        concurrency: None,
        hedging: None,
        fallback: None,
    }
}

/// Instances by port and weight.
pub(super) fn found(instances: &[(u16, u32)]) -> Vec<Discovered> {
    let one = |&(port, weight): &(u16, u32)| Discovered {
        address: ([127, 0, 0, 1], port).into(),
        weight,
        authority: format!("127.0.0.1:{port}").into(),
        zone: None,
        priority: 0,
    };
    instances.iter().map(one).collect()
}

/// How an instance answers.
#[derive(Clone, Copy, Debug)]
struct Behaviour {
    /// The mean; single answers take between half of it and one and a half.
    answer_ms: f64,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Well,
    /// A 503: counted by the breaker, and tried again.
    Unavailable,
    /// A 500: by default neither.
    Error,
    Refused,
}

const WELL: Behaviour = Behaviour { answer_ms: 10.0, outcome: Outcome::Well };
const SLOW: Behaviour = Behaviour { answer_ms: 100.0, outcome: Outcome::Well };
const FAILING_FAST: Behaviour = Behaviour { answer_ms: 0.5, outcome: Outcome::Unavailable };
const ERRING_FAST: Behaviour = Behaviour { answer_ms: 0.5, outcome: Outcome::Error };
const DEAD: Behaviour = Behaviour { answer_ms: 0.2, outcome: Outcome::Refused };

struct Simulation {
    service: Arc<Service>,
    /// By port, from 1.
    behaviours: Vec<Behaviour>,
    attempts: Vec<u64>,
    /// Requests whose last answer was bad, or for which there was no instance.
    failed: u64,
    requests: u64,
    /// What the clients were told that stay, of so many; without any, every request is another client's.
    sessions: HashMap<u64, SessionCode>,
    clients: Option<u64>,
    rng: fastrand::Rng,
    now_us: u64,
    /// Attempts that are on their way, by the time of their end.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    on_their_way: Vec<Option<Attempt>>,
}

struct Attempt {
    worker: WorkerId,
    wish: Wish,
    client: u64,
    tried: Vec<u64>,
    picked: Picked,
    began_us: u64,
}

const WORKERS: usize = 2;
const RATE_PER_SECOND: f64 = 1000.0;

impl Simulation {
    fn new(rule: LoadBalancing, instances: &[(u32, Behaviour)]) -> Self {
        Self::of(&config(rule, &[1]), instances)
    }

    fn of(config: &config::Service, instances: &[(u32, Behaviour)]) -> Self {
        let service = Service::compile(config, None, WORKERS, &Metrics::new(WORKERS));
        let set: Vec<(u16, u32)> = (1..).zip(instances.iter().map(|(weight, _)| *weight)).collect();
        service.instances.publish(found(&set));
        Simulation {
            service,
            behaviours: instances.iter().map(|(_, behaviour)| *behaviour).collect(),
            attempts: vec![0; instances.len()],
            failed: 0,
            requests: 0,
            sessions: HashMap::new(),
            clients: None,
            rng: fastrand::Rng::with_seed(42),
            now_us: 0,
            ends: BinaryHeap::new(),
            on_their_way: Vec::new(),
        }
    }

    fn run(&mut self, length: Duration) {
        let end_us = self.now_us + length.as_micros() as u64;
        let mut arrival_us = self.now_us;
        loop {
            arrival_us += (-(1.0 - self.rng.f64()).ln() * 1_000_000.0 / RATE_PER_SECOND) as u64;
            while let Some(&Reverse((at_us, slot))) = self.ends.peek()
                && at_us <= arrival_us.min(end_us)
            {
                self.ends.pop();
                self.now_us = at_us;
                self.end(slot);
            }
            if arrival_us >= end_us {
                self.now_us = end_us;
                return;
            }
            self.now_us = arrival_us;
            self.requests += 1;
            let worker = WorkerId(self.rng.usize(..WORKERS));
            self.service.budget.count_request(worker, self.now());
            let client = self.rng.u64(..self.clients.unwrap_or(u64::MAX));
            let wish =
                Wish { key: Some(client), session: self.sessions.get(&client).copied(), ..Wish::default() };
            self.attempt(worker, wish, client, Vec::new());
        }
    }

    fn now(&self) -> Millis {
        Millis(self.now_us / 1000)
    }

    fn attempt(&mut self, worker: WorkerId, wish: Wish, client: u64, tried: Vec<u64>) {
        let now = self.now();
        let Ok(picked) = self.service.pick(worker, wish, &tried, now, &mut self.rng) else {
            self.failed += 1;
            return;
        };
        let index = usize::from(picked.instance().address.port()) - 1;
        self.attempts[index] += 1;
        let takes_us = self.behaviours[index].answer_ms * 1000.0 * (0.5 + self.rng.f64());
        self.ends.push(Reverse((self.now_us + takes_us as u64, self.on_their_way.len())));
        self.on_their_way.push(Some(Attempt { worker, wish, client, tried, picked, began_us: self.now_us }));
    }

    fn end(&mut self, slot: usize) {
        let attempt = self.on_their_way[slot].take().expect("an attempt ends once");
        let Attempt { worker, wish, client, mut tried, picked, began_us } = attempt;
        let Picked { admission, in_flight } = picked;
        let instance = in_flight.instance().clone();
        drop(in_flight);
        let now = self.now();
        let settings = &self.service.settings;
        let outcome = self.behaviours[usize::from(instance.address.port()) - 1].outcome;
        if settings.times_answers() {
            instance.waited(Duration::from_micros(self.now_us - began_us), outcome == Outcome::Well, now);
        }
        let failure = match outcome {
            Outcome::Well => {
                if let Some(code) = self.service.session(&instance, wish) {
                    self.sessions.insert(client, code);
                }
                return admission.success(now, &settings.breaker);
            }
            Outcome::Unavailable => Failure::Status(StatusCode::SERVICE_UNAVAILABLE),
            Outcome::Error => Failure::Status(StatusCode::INTERNAL_SERVER_ERROR),
            Outcome::Refused => Failure::Connect,
        };
        admission.note(failure, now);
        if settings.breaker_failures.contains(failure) {
            admission.failure(now, &settings.breaker);
        } else {
            admission.server_error(now, &settings.breaker);
        }
        let again = settings.retries.on.contains(failure)
            && tried.len() < settings.retries.attempts as usize
            && self.service.budget.try_retry(settings.retries.budget, now);
        if again {
            tried.push(instance.id);
            self.attempt(worker, wish, client, tried);
        } else {
            self.failed += 1;
        }
    }

    fn shares(&self) -> Vec<f64> {
        let sum: u64 = self.attempts.iter().sum();
        self.attempts.iter().map(|&own| own as f64 / sum as f64).collect()
    }
}

const ROUND_ROBIN: LoadBalancing = LoadBalancing::RoundRobin;
const WEIGHTED: LoadBalancing = LoadBalancing::Weighted;
const RANDOM: LoadBalancing = LoadBalancing::Random;
const LEAST: LoadBalancing = LoadBalancing::LeastRequests;
const PEAK: LoadBalancing = LoadBalancing::PeakEwma;
/// The default of `max_load` included.
const HASH: LoadBalancing =
    LoadBalancing::ConsistentHash(ConsistentHash { key: HashKey::Ip, max_load: Some(125) });
const ALL: [LoadBalancing; 6] = [ROUND_ROBIN, WEIGHTED, RANDOM, LEAST, PEAK, HASH];
/// What a share is off because keys don't fall on the instances quite evenly.
const KEYS: f64 = 0.04;

/// A minute of traffic for each of the rules, after which each instance's share of the attempts is within
/// `tolerance` of the one given, and at most `failed` of a hundred requests failed.
fn expect(
    rules: &[LoadBalancing],
    instances: &[(u32, Behaviour)],
    shares: &[f64],
    tolerance: f64,
    failed_percent: f64,
) {
    for rule in rules {
        let mut simulation = Simulation::new(rule.clone(), instances);
        simulation.run(Duration::from_secs(60));
        let came_out = simulation.shares();
        for (came, wanted) in came_out.iter().zip(shares) {
            assert!(
                (came - wanted).abs() <= tolerance,
                "{rule:?}: {came_out:?}, expected {shares:?} ± {tolerance}"
            );
        }
        let failed = simulation.failed as f64 * 100.0 / simulation.requests as f64;
        assert!(failed <= failed_percent, "{rule:?}: {failed} % of the requests failed");
    }
}

const THIRD: f64 = 1.0 / 3.0;

#[test]
fn uniform() {
    let instances = [(1, WELL); 3];
    expect(&[ROUND_ROBIN, WEIGHTED], &instances, &[THIRD; 3], 0.000_1, 0.0);
    expect(&[RANDOM, LEAST, PEAK], &instances, &[THIRD; 3], 0.01, 0.0);
    expect(&[HASH], &instances, &[THIRD; 3], KEYS, 0.0);
}

#[test]
fn weights_1_2_5() {
    let instances = [(1, WELL), (2, WELL), (5, WELL)];
    let by_weight = [0.125, 0.25, 0.625];
    expect(&[ROUND_ROBIN], &instances, &[THIRD; 3], 0.000_1, 0.0);
    expect(&[WEIGHTED], &instances, &by_weight, 0.000_1, 0.0);
    expect(&[RANDOM], &instances, &by_weight, 0.01, 0.0);
    expect(&[LEAST, PEAK], &instances, &by_weight, 0.02, 0.0);
    expect(&[HASH], &instances, &by_weight, KEYS, 0.0);
}

/// The weights count where load does, whether the service is next to idle or has hundreds in flight.
#[test]
fn weights_1_2_5_idle_and_busy() {
    for answer_ms in [0.1, 1.0, 3.0, 30.0, 300.0] {
        let behaviour = Behaviour { answer_ms, outcome: Outcome::Well };
        let instances = [(1, behaviour), (2, behaviour), (5, behaviour)];
        expect(&[LEAST, PEAK], &instances, &[0.125, 0.25, 0.625], 0.03, 0.0);
    }
}

/// A slow instance has its share where load plays no part, and much less where it does.
#[test]
fn one_slow() {
    let instances = [(1, SLOW), (1, WELL), (1, WELL)];
    expect(&[ROUND_ROBIN, WEIGHTED], &instances, &[THIRD; 3], 0.000_1, 0.0);
    expect(&[RANDOM], &instances, &[THIRD; 3], 0.01, 0.0);
    expect(&[LEAST], &instances, &[0.08, 0.46, 0.46], 0.02, 0.0);
    expect(&[PEAK], &instances, &[0.005, 0.4975, 0.4975], 0.005, 0.0);
    // Its keys stay with it until its requests pile up to the bound, and the others go to the next instance.
    expect(&[HASH], &instances, &[0.17, 0.415, 0.415], 0.05, 0.0);
}

/// However much of the traffic its weight would give it.
#[test]
fn a_heavy_slow_one() {
    let instances = [(5, SLOW), (1, WELL), (1, WELL)];
    expect(&[PEAK], &instances, &[0.03, 0.485, 0.485], 0.02, 0.0);
}

/// What was slow and got next to nothing since is found to be fast.
#[test]
fn one_slow_becomes_fast() {
    let mut simulation = Simulation::new(PEAK, &[(1, SLOW), (1, WELL), (1, WELL)]);
    simulation.run(Duration::from_secs(30));
    simulation.behaviours[0] = WELL;
    simulation.run(Duration::from_secs(20));
    simulation.attempts.fill(0);
    simulation.run(Duration::from_secs(10));
    let share = simulation.shares()[0];
    assert!((share - THIRD).abs() < 0.03, "{share}");
}

/// An instance that joins and turns out to be slow is not flooded before its first answer, which tells.
#[test]
fn one_new_and_slow() {
    let hung = Behaviour { answer_ms: 2_000.0, outcome: Outcome::Well };
    let mut simulation = Simulation::new(PEAK, &[(1, WELL), (1, WELL), (1, hung)]);
    simulation.service.instances.publish(found(&[(1, 1), (2, 1)]));
    simulation.run(Duration::from_secs(30));
    simulation.service.instances.publish(found(&[(1, 1), (2, 1), (3, 1)]));
    simulation.run(Duration::from_secs(10));
    assert!(simulation.attempts[2] < 100, "{} of 10,000", simulation.attempts[2]);
}

/// The breaker takes it out: it sees its five failures and then a probe now and then, and no client sees any.
#[test]
fn one_failing_fast() {
    let instances = [(1, FAILING_FAST), (1, WELL), (1, WELL)];
    expect(&ALL[..5], &instances, &[0.0, 0.5, 0.5], 0.01, 0.0);
    expect(&[HASH], &instances, &[0.0, 0.5, 0.5], KEYS, 0.0);
    for rule in ALL {
        let mut simulation = Simulation::new(rule.clone(), &[(1, FAILING_FAST), (1, WELL), (1, WELL)]);
        simulation.run(Duration::from_secs(60));
        assert!(simulation.attempts[0] < 20, "{rule:?}: {} attempts", simulation.attempts[0]);
    }
}

/// Failures that the breaker was not told to count and nobody tries again show twice, and then once in a few seconds.
#[test]
fn one_failing_fast_behind_the_breakers_back() {
    let instances = [(1, ERRING_FAST), (1, WELL), (1, WELL)];
    let others = [0.0, 0.5, 0.5];
    expect(&[ROUND_ROBIN, WEIGHTED, RANDOM, LEAST, PEAK], &instances, &others, 0.01, 0.1);
    expect(&[HASH], &instances, &others, KEYS, 0.1);
}

/// The share of a dead instance goes to all others alike, not to its neighbour.
#[test]
fn one_dead() {
    let instances = [(1, WELL), (1, DEAD), (1, WELL), (1, WELL)];
    let shares = [THIRD, 0.0, THIRD, THIRD];
    expect(&[ROUND_ROBIN, WEIGHTED], &instances, &shares, 0.001, 0.0);
    expect(&[RANDOM, LEAST, PEAK], &instances, &shares, 0.01, 0.0);
    expect(&[HASH], &instances, &shares, KEYS, 0.0);
    let by_weight = [(1, WELL), (2, WELL), (5, DEAD), (5, WELL)];
    expect(&[WEIGHTED, RANDOM], &by_weight, &[0.125, 0.25, 0.0, 0.625], 0.01, 0.0);
}

/// With every instance dead, requests fail at once and cost next to no attempts.
#[test]
fn all_dead() {
    for rule in ALL {
        let mut simulation = Simulation::new(rule.clone(), &[(1, DEAD); 3]);
        simulation.run(Duration::from_secs(60));
        assert_eq!(simulation.failed, simulation.requests);
        let attempts: u64 = simulation.attempts.iter().sum();
        assert!(attempts < 60, "{rule:?}: {attempts} attempts for {} requests", simulation.requests);
    }
}

/// An instance that joins gets its share from then on, and is not flooded for being idle.
#[test]
fn one_new() {
    for rule in ALL {
        let mut simulation = Simulation::new(rule.clone(), &[(1, WELL); 3]);
        simulation.service.instances.publish(found(&[(1, 1), (2, 1)]));
        simulation.run(Duration::from_secs(30));
        assert_eq!(simulation.attempts[2], 0);
        simulation.service.instances.publish(found(&[(1, 1), (2, 1), (3, 1)]));
        let keys = if rule == HASH { KEYS } else { 0.0 };
        for (seconds, tolerance) in [(1, 0.06 + keys), (29, 0.015 + keys)] {
            simulation.attempts.fill(0);
            simulation.run(Duration::from_secs(seconds));
            let share = simulation.shares()[2];
            assert!((share - THIRD).abs() < tolerance, "{rule:?}: {share} after {seconds} s");
        }
    }
}

/// With `slow_start`, one that joins or comes back grows into its share: from a tenth of it, by way of a half. Where
/// instances are drawn, it is a half instance beside two whole ones.
#[test]
fn one_new_that_starts_slowly() {
    for rule in ALL {
        let mut slowly = config(rule.clone(), &[1]);
        slowly.slow_start = Some(Duration::from_secs(30));
        let mut simulation = Simulation::of(&slowly, &[(1, WELL); 3]);
        simulation.run(Duration::from_secs(10));
        let keys = if rule == HASH { KEYS } else { 0.0 };
        let share = simulation.shares()[2];
        assert!((share - THIRD).abs() < 0.02 + keys, "{rule:?}: {share} at the start of all");
        simulation.service.instances.current().member(2).instance.begins(simulation.now());
        let drawn = [RANDOM, LEAST, PEAK].contains(&rule);
        let half = if drawn { 0.2 } else { THIRD / 2.0 };
        for (after, seconds, wanted) in [(0, 3, 0.04), (9, 6, half), (12, 10, THIRD)] {
            simulation.run(Duration::from_secs(after));
            simulation.attempts.fill(0);
            simulation.run(Duration::from_secs(seconds));
            let share = simulation.shares()[2];
            assert!((share - wanted).abs() < 0.02 + keys, "{rule:?}: {share}, not {wanted}");
        }
        assert_eq!(simulation.failed, 0);
    }
}

/// When there are only such as begin, they share alike and nothing fails.
#[test]
fn all_new_that_start_slowly() {
    for rule in ALL {
        let mut slowly = config(rule.clone(), &[1]);
        slowly.slow_start = Some(Duration::from_secs(30));
        let mut simulation = Simulation::of(&slowly, &[(1, WELL); 3]);
        simulation.now_us = 1_000_000;
        simulation.service.instances.current().instances().for_each(|one| one.begins(Millis(1000)));
        simulation.run(Duration::from_secs(10));
        assert_eq!(simulation.failed, 0);
        let keys = if rule == HASH { KEYS } else { 0.0 };
        for share in simulation.shares() {
            assert!((share - THIRD).abs() < 0.02 + keys, "{rule:?}: {share}");
        }
    }
}

/// An instance that recovers is found by a probe and has its share again.
#[test]
fn one_dead_comes_back() {
    for rule in ALL {
        let mut simulation = Simulation::new(rule.clone(), &[(1, DEAD), (1, WELL), (1, WELL)]);
        simulation.run(Duration::from_secs(12));
        simulation.behaviours[0] = WELL;
        simulation.run(Duration::from_secs(30));
        simulation.attempts.fill(0);
        simulation.run(Duration::from_secs(10));
        let share = simulation.shares()[0];
        let keys = if rule == HASH { KEYS } else { 0.0 };
        assert!((share - THIRD).abs() < 0.02 + keys, "{rule:?}: {share}");
        assert_eq!(simulation.failed, 0);
    }
}
