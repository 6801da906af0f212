//! Processor time and throughput as the gateway's shape grows, and what it takes to start with many routes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::load::{NativeOrigin, Window, on_processors, window};
use crate::process::Process;
use crate::shape::Shape;

/// The machine has another mood in each; what is compared is of one round.
const ROUNDS: usize = 9;
/// The allocator keeps what was freed for ten seconds.
const GIVEN_BACK: Duration = Duration::from_secs(20);
/// Beside the connections: what wrk and the gateway have open otherwise.
const DESCRIPTORS: usize = 100;

struct Row {
    name: String,
    gateway: usize,
    connections: usize,
}

struct Running {
    process: Process,
    script: PathBuf,
}

/// All gateways run at once, and are loaded one after the other, round after round.
pub fn times(binary: &Path) {
    let usual = Shape::USUAL;
    let shapes = [
        usual,
        Shape { workers: 2, ..usual },
        Shape { routes: 1_000, ..usual },
        Shape { routes: 100_000, ..usual },
        Shape { instances: 1_000, ..usual },
    ];
    let mut rows = Vec::new();
    let mut row = |name: &str, gateway, connections| {
        rows.push(Row { name: name.to_owned(), gateway, connections });
    };
    row("1 worker, 64 connections, 10 routes, 3 instances", 0, 64);
    row("2 workers", 1, 64);
    row("1,000 routes", 2, 64);
    row("100,000 routes", 3, 64);
    row("1,000 instances", 4, 64);
    row("1 connection", 0, 1);
    row("1,000 connections", 0, 1_000);
    // The gateway keeps a descriptor for the other side of each connection.
    let most = 10_000.min((descriptors() - DESCRIPTORS) / 2);
    row(&format!("{most} connections"), 0, most);
    if most < 10_000 {
        println!("\nNot with 10,000 connections: {} descriptors are allowed.", descriptors());
    }

    let origin = NativeOrigin::start(binary);
    let gateways = shapes.map(|shape| run(&shape, &origin, binary));
    let mut windows: Vec<Vec<Window>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (row, windows) in rows.iter().zip(&mut windows) {
            let gateway = &gateways[row.gateway];
            windows.push(window(&gateway.process, &origin, row.connections, &gateway.script));
        }
    }
    print(&rows, &windows);
}

fn run(shape: &Shape, origin: &NativeOrigin, binary: &Path) -> Running {
    let process =
        Process::start(|_| on_processors(0, shape.workers - 1, binary), &shape.configuration(origin.port()));
    process.said("serving");
    let script = process.file("requests.lua");
    std::fs::write(&script, shape.script()).expect("the directory takes files");
    Running { process, script }
}

fn print(rows: &[Row], windows: &[Vec<Window>]) {
    println!(
        "\n| | µs of processor time a request | of the first, paired: median (quartiles) | requests a second |"
    );
    println!("|---|---|---|---|");
    for (row, own) in rows.iter().zip(windows) {
        let cost = |window: &Window| window.microseconds_a_request;
        let paired = own.iter().zip(&windows[0]).map(|(own, first)| cost(own) / cost(first));
        let paired = sorted(paired);
        println!(
            "| {} | {:.2} | {:.2} ({:.2} to {:.2}) | {:.0} |",
            row.name,
            middle(&sorted(own.iter().map(cost))),
            middle(&paired),
            paired[paired.len() / 4],
            paired[paired.len() * 3 / 4],
            middle(&sorted(own.iter().map(|window| window.requests_a_second))),
        );
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn middle(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// How long it takes to start with so many routes and to load them again, and the memory after each.
pub fn starts(binary: &Path) {
    println!("\n| routes | to start | resident | to reload | resident after ten | and after a while |");
    println!("|---|---|---|---|---|---|");
    for routes in [10, 1_000, 100_000] {
        let shape = Shape { routes, ..Shape::USUAL };
        let start = Instant::now();
        let gateway = Process::start(|_| std::process::Command::new(binary), &shape.configuration(1));
        gateway.said("serving");
        let (started, memory) = (start.elapsed(), resident_mib(gateway.id()));
        let mut reloads = Vec::new();
        for number in 0..10 {
            // Another route at the end, so that there is something to take over.
            let shape = Shape { routes: routes + 1 + number % 2, ..shape };
            std::fs::write(gateway.file("gateway.yaml"), shape.configuration(1)).expect("it can be replaced");
            let start = Instant::now();
            gateway.signal("HUP");
            gateway.said("reloaded");
            reloads.push(start.elapsed().as_secs_f64());
        }
        let after_reloads = resident_mib(gateway.id());
        std::thread::sleep(GIVEN_BACK);
        println!(
            "| {routes} | {:.2} s | {memory:.0} MiB | {:.2} s | {after_reloads:.0} MiB | {:.0} MiB |",
            started.as_secs_f64(),
            middle(&sorted(reloads.into_iter())),
            resident_mib(gateway.id()),
        );
    }
}

fn resident_mib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
