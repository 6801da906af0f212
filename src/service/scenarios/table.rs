//! The tables of `docs/balancing.md`: every rule in every situation, alone and with zones, priorities and panic. What the
//! page says is what is run here.
//!
//! Of three instances, the first is the one that the situation is about. A cell has the per cent of the attempts that each
//! of the three gets of 1,000 requests a second, over [`LENGTH`].

use super::*;
use crate::config::{Failover, HealthCheck, Sticky};

const PAGE: &str = include_str!("../../../docs/balancing.md");
const LENGTH: Duration = Duration::from_secs(20);
/// Before the first instance joins.
const BEFORE: Duration = Duration::from_secs(5);
/// Of which it is observed how it joins.
const JOINING: Duration = Duration::from_secs(10);
/// Points of a hundred that a share may be off, also because the page has whole numbers.
const TOLERANCE: f64 = 2.0;
/// Keys don't fall on instances evenly.
const TOLERANCE_OF_KEYS: f64 = 5.0;

/// What the instances have besides.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Setting {
    Alone,
    /// The first two are in the gateway's zone, the third is not.
    Zones,
    /// The third stands by.
    Priorities,
    /// The first two fail their health checks, which is more than the panic threshold allows.
    Panic,
}

/// What is the matter with the first instance.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Situation {
    Uniform,
    /// The three have weights of 1, 2 and 5.
    Weights,
    Slow,
    /// It answers 503 at once.
    Failing,
    /// It answers 500 at once, which neither breaker nor retries care for.
    Erring,
    Dead,
    /// It has just joined, and starts slowly.
    New,
}

const SITUATIONS: [(&str, Situation); 7] = [
    ("uniform", Situation::Uniform),
    ("weights 1:2:5", Situation::Weights),
    ("slow", Situation::Slow),
    ("fails fast", Situation::Failing),
    ("errs fast", Situation::Erring),
    ("dead", Situation::Dead),
    ("new", Situation::New),
];

const RULES: [&str; 7] =
    ["round_robin", "weighted", "random", "least_requests", "peak_ewma", "consistent_hash", "sticky"];

fn simulation(rule: &str, setting: Setting, situation: Situation) -> Simulation {
    // `sticky` beside the rule that is the default.
    let by_name = RULES.iter().zip(ALL).find(|(name, _)| **name == rule);
    let mut config = config(by_name.map_or(ROUND_ROBIN, |(_, rule)| rule), &[]);
    if rule == "sticky" {
        config.sticky = Some(Sticky { cookie: "at".into(), secret: None });
    }
    if setting == Setting::Zones {
        config.failover = Failover { local_zone: Some("a".into()), ..Failover::default() };
    }
    if setting == Setting::Panic {
        config.health_check = Some(check());
    }
    if situation == Situation::New {
        config.slow_start = Some(Duration::from_secs(30));
    }
    let first = match situation {
        Situation::Slow => SLOW,
        Situation::Failing => FAILING_FAST,
        Situation::Erring => ERRING_FAST,
        Situation::Dead => DEAD,
        Situation::Uniform | Situation::Weights | Situation::New => WELL,
    };
    let weights = if situation == Situation::Weights { [1, 2, 5] } else { [1; 3] };
    let instances = [(weights[0], first), (weights[1], WELL), (weights[2], WELL)];
    let mut simulation = Simulation::of(&config, &instances);
    simulation.clients = (rule == "sticky").then_some(3000);
    let all = placed(setting, weights);
    if situation == Situation::New {
        simulation.service.instances.publish(all[1..].to_vec());
        simulation.run(BEFORE);
    }
    simulation.service.instances.publish(all);
    fail_checks(&simulation, setting);
    simulation
}

fn check() -> HealthCheck {
    HealthCheck {
        path: "/".into(),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        healthy_after: 1,
        unhealthy_after: 1,
        expect_status: Vec::new(),
        panic_threshold: Some(50),
    }
}

fn placed(setting: Setting, weights: [u32; 3]) -> Vec<Discovered> {
    let ports: Vec<(u16, u32)> = (1..).zip(weights).collect();
    let mut all = found(&ports);
    match setting {
        Setting::Zones => {
            all.iter_mut().zip(["a", "a", "b"]).for_each(|(one, zone)| one.zone = Some(zone.into()));
        }
        Setting::Priorities => all[2].priority = 1,
        Setting::Alone | Setting::Panic => {}
    }
    all
}

fn fail_checks(simulation: &Simulation, setting: Setting) {
    if setting == Setting::Panic {
        let instances = &simulation.service.instances;
        for instance in instances.current().instances().filter(|one| one.address.port() < 3) {
            instance.set_health(Health::Unhealthy);
        }
        instances.assess(Some(50));
    }
}

/// The shares in per cent, and the failed requests.
fn outcome(rule: &str, setting: Setting, situation: Situation) -> ([f64; 3], f64) {
    let mut simulation = simulation(rule, setting, situation);
    simulation.attempts.fill(0);
    (simulation.failed, simulation.requests) = (0, 0);
    if situation == Situation::New {
        let set = simulation.service.instances.current();
        let new = set.instances().find(|one| one.address.port() == 1).expect("it has joined");
        new.joins(simulation.now());
        simulation.run(JOINING);
    } else {
        simulation.run(LENGTH);
    }
    let shares = simulation.shares();
    let failed = simulation.failed as f64 * 100.0 / simulation.requests as f64;
    ([shares[0] * 100.0, shares[1] * 100.0, shares[2] * 100.0], failed)
}

/// The rows of the page's table below that heading, each with the rule's name and its cells.
fn rows(heading: &str) -> Vec<(&'static str, Vec<[f64; 3]>)> {
    let section = PAGE.split("\n### ").find(|section| section.starts_with(heading)).expect("the page has it");
    let mut lines = section.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let cells = |line: &'static str| line.split('|').map(|cell| cell.trim().trim_matches('`'));
    let titles: Vec<&str> = cells(lines.next().expect("it has a table")).skip(1).collect();
    assert_eq!(titles, SITUATIONS.map(|(title, _)| title));
    let numbers = |cell: &str| -> [f64; 3] {
        let numbers: Vec<f64> = cell.split(' ').map(|n| n.parse().expect("a number")).collect();
        numbers.try_into().expect("there are three")
    };
    let rows = lines.skip(1).map(|line| {
        let mut cells = cells(line);
        (cells.next().expect("a row begins with its rule"), cells.map(numbers).collect())
    });
    rows.collect()
}

fn holds(heading: &str, setting: Setting) {
    let rows = rows(heading);
    assert_eq!(rows.iter().map(|(rule, _)| *rule).collect::<Vec<_>>(), RULES);
    let mut wrong = Vec::new();
    for (rule, cells) in rows {
        assert_eq!(cells.len(), SITUATIONS.len(), "{rule}");
        let tolerance = if rule == "consistent_hash" { TOLERANCE_OF_KEYS } else { TOLERANCE };
        let usual = cells[0][0];
        for ((title, situation), wanted) in SITUATIONS.into_iter().zip(cells) {
            let (came, failed) = outcome(rule, setting, situation);
            let off = came.iter().zip(wanted).any(|(came, wanted)| (came - wanted).abs() > tolerance);
            // An error that nothing counts and nothing repeats is the client's.
            let may_fail = if situation == Situation::Erring { came[0] + 1.0 } else { 0.0 };
            let fails = matches!(situation, Situation::Failing | Situation::Erring | Situation::Dead);
            let draws = fails && came[0] > usual + tolerance;
            if off || draws || failed > may_fail {
                let [a, b, c] = came;
                wrong.push(format!("{rule}, {title}: {a:.1} {b:.1} {c:.1}, {failed:.2} % failed"));
            }
        }
    }
    assert!(wrong.is_empty(), "{heading} is not so:\n{}", wrong.join("\n"));
}

#[test]
fn each_rule_alone() {
    holds("Alone", Setting::Alone);
}

#[test]
fn with_zones() {
    holds("With zones", Setting::Zones);
}

#[test]
fn with_priorities() {
    holds("With priorities", Setting::Priorities);
}

#[test]
fn in_panic() {
    holds("Alone", Setting::Panic);
}
