//! Instructions a request, as one number of the gateway's shape grows and the others stay.

use std::path::Path;

use crate::callgrind::Gateway;
use crate::shape::Shape;
use crate::traffic::{Clients, Origin};

const COUNTED: usize = 3_000;
/// Until then connections are new, and maps grow.
const BEFORE: usize = 300;
/// Sent in one piece where it only matters that they are answered.
const AT_ONCE: usize = 64;

pub fn counts(binary: &Path) {
    let origin = Origin::start();
    let table = |title: &str, shapes: &[(usize, Shape)]| {
        println!("\n| {title} | instructions a request | |\n|---|---|---|");
        let mut first = None;
        for (number, shape) in shapes {
            let counted = count(shape, &origin, binary);
            let first = *first.get_or_insert(counted);
            let more = 100.0 * (counted as f64 / first as f64 - 1.0);
            println!("| {number} | {counted} | {more:+.1} % |");
        }
    };
    let usual = Shape::USUAL;
    table("routes", &[10, 1_000, 100_000].map(|routes| (routes, Shape { routes, ..usual })));
    for load_balancing in ["round_robin", "random", "least_requests"] {
        table(
            &format!("instances, `{load_balancing}`"),
            &[1, 10, 1_000].map(|instances| (instances, Shape { instances, load_balancing, ..usual })),
        );
    }
    table("rate-limit keys", &[1, 1_000, 100_000, 1_000_000].map(|keys| (keys, Shape { keys, ..usual })));
    table("connections", &[1, 8, 1_000].map(|connections| (connections, Shape { connections, ..usual })));
}

fn count(shape: &Shape, origin: &Origin, binary: &Path) -> u64 {
    let gateway = Gateway::start_uncounted(binary, &shape.configuration(origin.port));
    let mut clients = Clients::connect(gateway.address(), shape.connections);
    introduce_keys(shape, &mut clients);
    // Each route has its metrics, each instance its connection, and each client has asked. (Random picks leave out one
    // instance in 3,000.)
    let mut number = 0;
    let mut ask = |requests: usize| {
        for _ in 0..requests {
            clients.ask(&shape.request(number), 1);
            number += 1;
        }
    };
    ask(shape.routes.max(shape.instances * 8).max(shape.connections));
    gateway.follow();
    ask(BEFORE);
    gateway.count(|| ask(COUNTED)) / COUNTED as u64
}

fn introduce_keys(shape: &Shape, clients: &mut Clients) {
    let keys: Vec<usize> = (0..shape.keys).collect();
    for keys in keys.chunks(AT_ONCE) {
        let requests: String = keys.iter().map(|key| shape.introduction(*key)).collect();
        clients.ask(&requests, keys.len());
    }
}
