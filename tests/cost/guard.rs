//! The bounds that a change is held to. Each scenario runs twice, with few requests and with many: the difference is
//! what requests cost, without the cost of starting. Who makes requests cheaper lowers the bounds.

use std::path::Path;

use crate::callgrind::{Counts, Gateway};
use crate::traffic::{self, CONNECTIONS, Clients, Origin};

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
        at_most: Counts { instructions: 27_000, allocations: 9 },
    },
    Scenario {
        name: "log",
        policies: "",
        top: "observability: { access_log: { output: /dev/null } }",
        at_most: Counts { instructions: 31_000, allocations: 9 },
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
        at_most: Counts { instructions: 32_000, allocations: 12 },
    },
];

/// Prints a table of the counts, and says whether all are within their bounds.
pub fn holds(binary: &Path) -> bool {
    let mut within = true;
    println!("{:8} {:>22} {:>22}", "", "instructions a request", "allocations a request");
    for scenario in SCENARIOS {
        let cost = cost(&scenario, binary);
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
    within
}

fn cost(scenario: &Scenario, binary: &Path) -> Counts {
    let origins = [Origin::start(), Origin::start(), Origin::start()];
    let addresses = origins.map(|origin| format!("'http://127.0.0.1:{}'", origin.port)).join(", ");
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
        let mut clients = Clients::connect(gateway.address(), CONNECTIONS);
        for _ in 0..requests {
            clients.ask(&request, 1);
        }
        gateway.stop()
    };
    let (few, many) = (count(FEW), count(MANY));
    let each = |few: u64, many: u64| (many.saturating_sub(few)).div_ceil(MANY - FEW);
    Counts {
        instructions: each(few.instructions, many.instructions),
        allocations: each(few.allocations, many.allocations),
    }
}
