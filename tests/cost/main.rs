//! What a request costs: instructions and allocations in the gateway itself, counted by callgrind.
//!
//! Times change with the machine and its mood; these counts hardly do, so they are what guards against a
//! change that makes requests dearer. Each scenario runs twice, with few requests and with many: the difference is
//! what requests cost, without the cost of starting. It fails when that is above the bounds written here. Who makes
//! requests cheaper lowers them.

#![expect(clippy::print_stdout, reason = "it is a program that prints a table")]

mod callgrind;
mod traffic;

use std::path::Path;
use std::process::ExitCode;

use callgrind::{Counts, Gateway};
use traffic::{Origin, send};

struct Scenario {
    name: &'static str,
    /// What a route has beside its action, and what stands at the top level.
    policies: &'static str,
    top: &'static str,
    at_most: Counts,
}

const FEW: u64 = 1_000;
const MANY: u64 = 6_000;
const SECRET: &str = "a-secret-for-benchmarks-of-more-than-32-bytes";

const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "plain",
        policies: "",
        top: "observability: { access_log: { output: off } }",
        at_most: Counts { instructions: 32_500, allocations: 14 },
    },
    Scenario {
        name: "log",
        policies: "",
        top: "observability: { access_log: { output: /dev/null } }",
        at_most: Counts { instructions: 42_500, allocations: 15 },
    },
    Scenario {
        name: "full",
        policies: "authenticate: { with: [bench] }, rate_limits: [per-client], ",
        top: "observability: { access_log: { output: off } }
authenticators:
  bench:
    jwt:
      issuer: bench
      algorithms: [HS256]
      keys: [{ secret: a-secret-for-benchmarks-of-more-than-32-bytes }]
      claim_headers: { sub: x-user-id }
rate_limits:
  per-client: { key: 'claim:sub', rate: 1000000/s, burst: 1000000 }",
        at_most: Counts { instructions: 36_500, allocations: 17 },
    },
];

fn main() -> ExitCode {
    let binary = callgrind::build();
    let mut within = true;
    println!("{:8} {:>22} {:>22}", "", "instructions a request", "allocations a request");
    for scenario in SCENARIOS {
        let cost = cost(&scenario, &binary);
        let column = |counted: u64, bound: u64| format!("{counted} (at most {bound})");
        println!(
            "{:8} {:>22} {:>22}",
            scenario.name,
            column(cost.instructions, scenario.at_most.instructions),
            column(cost.allocations, scenario.at_most.allocations)
        );
        within &= cost.instructions <= scenario.at_most.instructions
            && cost.allocations <= scenario.at_most.allocations;
    }
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cost(scenario: &Scenario, binary: &Path) -> Counts {
    let origins = [Origin::start(), Origin::start(), Origin::start()];
    let addresses = origins.map(|origin| format!("'http://{}'", origin.address)).join(", ");
    let configuration = format!(
        "workers: 1
listeners: [{{ name: http, bind: '127.0.0.1:0' }}]
services: {{ api: {{ instances: [{addresses}] }} }}
routes: [{{ name: api, match: {{ prefix: /api }}, {policies}forward: {{ service: api }} }}]
{top}
",
        policies = scenario.policies,
        top = scenario.top,
    );
    let request = traffic::request(SECRET);
    let count = |requests: u64| {
        let gateway = Gateway::start(binary, &configuration);
        send(gateway.address, &request, requests);
        gateway.stop()
    };
    let (few, many) = (count(FEW), count(MANY));
    let each = |few: u64, many: u64| (many.saturating_sub(few)).div_ceil(MANY - FEW);
    Counts {
        instructions: each(few.instructions, many.instructions),
        allocations: each(few.allocations, many.allocations),
    }
}
