//! What each policy of a route costs: gateways with and without it, each a process with one worker, take turns under the same
//! load, before an origin that answers at once.

mod child;
mod variants;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;

use super::arguments::{LoadArgs, Refused};
use super::plan::{Endpoint, Plan};
use super::prepare;
use super::results::Results;
use super::stats::median;
use super::table::{count, rows, time};
use super::traffic::{Traffic, Wishes};
use crate::cli::complain;
use crate::config::parse_document;
use crate::http::small_server;
use child::{Directory, Process};
use variants::Without;

/// How often every variant has its turn.
const ROUNDS: usize = 5;

#[derive(Debug, Serialize)]
pub struct Costs {
    pub rounds: usize,
    pub routes: Vec<RouteCosts>,
}

#[derive(Debug, Serialize)]
pub struct RouteCosts {
    pub route: String,
    pub variants: Vec<VariantCosts>,
}

/// Processor time is that of the gateway alone. Differences are to the route as it is, in the same round.
#[derive(Debug, Serialize)]
pub struct VariantCosts {
    pub variant: String,
    pub requests: u64,
    pub errors: u64,
    /// Microseconds a request.
    pub processor: Spread,
    /// Milliseconds.
    pub p50: Spread,
    /// What is saved without the policy.
    pub saved_processor: Option<Spread>,
    pub saved_p50: Option<Spread>,
}

/// The median of the rounds, and their extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Spread {
        let extreme = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or_default();
        Spread {
            median: median(&mut values.to_vec()).unwrap_or_default(),
            least: extreme(f64::min),
            most: extreme(f64::max),
        }
    }

    /// Whether all rounds agree on which side of nothing it lies.
    fn is_sure(self) -> bool {
        self.least > 0.0 || self.most < 0.0
    }
}

/// One turn of one variant.
struct Turn {
    processor_us: f64,
    p50_ms: f64,
    requests: u64,
    errors: u64,
}

/// The origin that all variants have. It lives as long as its runtime, which runs on a thread of its own.
struct Origin {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Origin {
    fn start() -> std::io::Result<Origin> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().thread_name("origin").build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        runtime.spawn(small_server::serve(listener, |_, _| async {
            small_server::reply(StatusCode::OK, "application/json", Bytes::from_static(b"{\"id\":1}"))
        }));
        Ok(Origin { address, _runtime: runtime })
    }
}

/// Measures the routes of the configuration that the arguments name, and tells each when it is done. `run` runs a test.
pub fn measure(
    args: &LoadArgs,
    run: impl Fn(Plan) -> Result<Results, Refused>,
    tell: impl Fn(&RouteCosts) -> Result<(), Refused>,
) -> Result<Costs, Refused> {
    let path = args
        .config
        .as_deref()
        .ok_or_else(|| Refused::Usage("--cost needs a configuration: -c FILE".into()))?;
    let config = crate::cli::load(path).map_err(Refused::Wrong)?;
    let refused = |why: String| Refused::Missing(format!("{}: {why}", path.display()));
    let document: Value = parse_document(&prepare::text(path)?).map_err(refused)?;
    let directory = std::path::absolute(path).map_err(|error| refused(error.to_string()))?;
    let directory = directory.parent().unwrap_or(Path::new("/"));
    let wishes = args.wishes()?;
    let all = Traffic::of(&config, &wishes, SystemTime::now()).map_err(Refused::Usage)?;
    for (route, why) in &all.left_out {
        complain(format_args!("note: route {route} is left out: {why}"));
    }
    let origin =
        Origin::start().map_err(|error| Refused::Missing(format!("an origin can't be started: {error}")))?;
    let names = config.routes.iter().map(|route| &route.name.value);
    let mut costs = Costs { rounds: ROUNDS, routes: Vec::new() };
    for name in names.filter(|name| wishes.routes.is_empty() || wishes.routes.contains(name)) {
        let of_one = Wishes { routes: vec![name.clone()], weights: BTreeMap::new(), ..wishes.clone() };
        let traffic = Traffic::of(&config, &of_one, SystemTime::now()).map_err(Refused::Usage)?;
        let withouts = variants::of(&document, name);
        if traffic.targets.is_empty() || withouts.len() == 1 {
            continue;
        }
        let plan = |endpoint| args.plan_of(endpoint, traffic.targets.clone(), args.turn());
        let measured = route(&document, directory, &origin, (name, &withouts), plan, &run)?;
        tell(&measured)?;
        costs.routes.push(measured);
    }
    Ok(costs)
}

/// Measures one route.
fn route(
    document: &Value,
    directory: &Path,
    origin: &Origin,
    (name, withouts): (&str, &[Without]),
    plan: impl Fn(Endpoint) -> Result<Plan, Refused>,
    run: impl Fn(Plan) -> Result<Results, Refused>,
) -> Result<RouteCosts, Refused> {
    let failed = |error: std::io::Error| Refused::Missing(format!("costs can't be measured: {error}"));
    let files = Directory::new().map_err(failed)?;
    let mut processes = Vec::new();
    for (index, without) in withouts.iter().enumerate() {
        let text = variants::text(document, directory, origin.address, name, without);
        let file = files.write(&format!("{index}.yaml"), &text).map_err(failed)?;
        let started = Process::start(&file);
        processes
            .push(started.map_err(|why| Refused::Missing(format!("{name}, {}: {why}", without.name())))?);
    }
    let mut turns: Vec<Vec<Turn>> = withouts.iter().map(|_| Vec::new()).collect();
    // The first round warms up: connections, tokens, memory.
    for round in 0..=ROUNDS {
        for (process, turns) in processes.iter().zip(&mut turns) {
            let begun = process.processor_time().map_err(failed)?;
            let results = run(plan(endpoint(process.address))?)?;
            if results.interrupted {
                return Err(Refused::Missing("it was ended before its time".into()));
            }
            // A thread that has ended takes its time along.
            let used = process.processor_time().map_err(failed)?.saturating_sub(begun);
            if round > 0 {
                turns.push(Turn::of(&results, used));
            }
        }
    }
    Ok(RouteCosts { route: name.to_owned(), variants: compared(withouts, &turns) })
}

impl Turn {
    fn of(results: &Results, used_ns: u64) -> Turn {
        let requests = results.whole.requests;
        Turn {
            processor_us: used_ns as f64 / 1000.0 / requests.max(1) as f64,
            p50_ms: results.whole.latency.quantile("p50").map_or(0.0, |value| value.value),
            requests,
            errors: results.whole.errors,
        }
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        name: format!("http://{address}"),
        addresses: vec![address],
        tls: None,
        http2: false,
        authority: address.to_string(),
    }
}

fn compared(withouts: &[Without], turns: &[Vec<Turn>]) -> Vec<VariantCosts> {
    let first = &turns[0];
    let one = |(without, turns): (&Without, &Vec<Turn>)| {
        let of = |value: fn(&Turn) -> f64| Spread::of(&turns.iter().map(value).collect::<Vec<_>>());
        let saved = |value: fn(&Turn) -> f64| {
            let pairs = first.iter().zip(turns).map(|(as_it_is, turn)| value(as_it_is) - value(turn));
            (*without != Without::Nothing).then(|| Spread::of(&pairs.collect::<Vec<_>>()))
        };
        VariantCosts {
            variant: without.name(),
            requests: turns.iter().map(|turn| turn.requests).sum(),
            errors: turns.iter().map(|turn| turn.errors).sum(),
            processor: of(|turn| turn.processor_us),
            p50: of(|turn| turn.p50_ms),
            saved_processor: saved(|turn| turn.processor_us),
            saved_p50: saved(|turn| turn.p50_ms),
        }
    };
    withouts.iter().zip(turns).map(one).collect()
}

/// The table of one route.
pub fn table(costs: &RouteCosts) -> String {
    let micros = |value: f64| format!("{value:.1} µs");
    let saved = |spread: Option<Spread>, shown: &dyn Fn(f64) -> String| match spread {
        None => String::new(),
        Some(spread) if !spread.is_sure() => "nothing but noise".to_owned(),
        Some(spread) => {
            format!("{} ({} … {})", shown(spread.median), shown(spread.least), shown(spread.most))
        }
    };
    let signed = |ms: f64| if ms < 0.0 { format!("-{}", time(-ms)) } else { time(ms) };
    let mut all = vec![[&costs.route, "processor", "saves", "p50", "saves"].map(str::to_owned).to_vec()];
    for variant in &costs.variants {
        all.push(vec![
            variant.variant.clone(),
            micros(variant.processor.median),
            saved(variant.saved_processor, &micros),
            time(variant.p50.median),
            saved(variant.saved_p50, &signed),
        ]);
        if variant.errors > 0 {
            complain(format_args!(
                "note: {}, {}: {} of {} requests failed, so its cost is that of failing",
                costs.route,
                variant.variant,
                count(variant.errors),
                count(variant.requests)
            ));
        }
    }
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = rows(&all, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(processor_us: f64, p50_ms: f64) -> Turn {
        Turn { processor_us, p50_ms, requests: 10, errors: 0 }
    }

    #[test]
    fn a_policy_costs_what_is_saved_without_it() {
        let with = vec![turn(20.0, 1.0), turn(22.0, 1.1), turn(21.0, 0.9)];
        let without = vec![turn(15.0, 1.1), turn(18.0, 1.0), turn(16.0, 0.9)];
        let costs = compared(&[Without::Nothing, Without::Policy("authenticate")], &[with, without]);
        assert_eq!(costs[0].saved_processor, None);
        let saved = costs[1].saved_processor.expect("it is compared");
        assert_eq!((saved.median, saved.least, saved.most), (5.0, 4.0, 5.0));
        let shown = table(&RouteCosts { route: "users".into(), variants: costs });
        assert!(shown.contains("5.0 µs (4.0 µs … 5.0 µs)") && shown.contains("nothing but noise"), "{shown}");
    }

    #[test]
    fn the_origin_answers() {
        let origin = Origin::start().expect("the loopback has ports");
        assert!(std::net::TcpStream::connect(origin.address).is_ok());
    }
}
