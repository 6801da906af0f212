//! Three instances, and a gateway with one service for each balancing rule over them.

use std::net::SocketAddr;

use http::Method;

use crate::faulty::Faulty;
use crate::load::Notes;
use crate::support::Gateway;

/// A name for each rule, and how it is written.
pub const RULES: [(&str, &str); 7] = [
    ("round_robin", "load_balancing: round_robin"),
    ("weighted", "load_balancing: weighted"),
    ("random", "load_balancing: random"),
    ("least_requests", "load_balancing: least_requests"),
    ("peak_ewma", "load_balancing: peak_ewma"),
    ("consistent_hash", "load_balancing: { consistent_hash: { key: header:x-user } }"),
    ("sticky", "sticky: { cookie: stays }"),
];

/// A configuration with a service for each rule, all over the same instances, and a route `/NAME` to each. `settings`
/// are further keys of all of them, in YAML's flow style.
pub fn configuration(instances: &[String], settings: &str) -> String {
    let instances = instances.iter().map(|url| format!("'{url}'")).collect::<Vec<_>>().join(", ");
    configuration_of(&format!("instances: [{instances}]"), settings)
}

/// Likewise, with instances from any source.
pub fn configuration_of(source: &str, settings: &str) -> String {
    let mut text = "observability: { access_log: { output: off } }\nservices:\n".to_owned();
    for (name, rule) in RULES {
        text += &format!("  {name}: {{ {source}, {rule}, {settings} }}\n");
    }
    text += "routes:\n";
    for (name, _) in RULES {
        text += &format!(
            "  - {{ name: {name}, match: {{ prefix: /{name} }}, forward: {{ service: {name} }} }}\n"
        );
    }
    text
}

pub struct Scene {
    pub gateway: Gateway,
    pub instances: Vec<Faulty>,
}

impl Scene {
    /// `count` instances that do nothing wrong yet.
    pub async fn start(count: usize, settings: &str) -> Scene {
        let mut instances = Vec::new();
        for _ in 0..count {
            instances.push(Faulty::start().await);
        }
        let urls: Vec<String> = instances.iter().map(Faulty::url).collect();
        Scene { gateway: Gateway::start(&configuration(&urls, settings)), instances }
    }

    pub fn http(&self) -> SocketAddr {
        self.gateway.http()
    }

    /// The requests of a service that the instances have read.
    pub fn seen(&self, method: &str, service: &str) -> usize {
        self.instances.iter().map(|instance| instance.seen(method, service)).sum()
    }
}

/// What retries may be made of few requests, in any ten seconds.
const FLOOR: usize = 100;

/// The instances have got no more than what was asked, and a fifth or the floor.
pub async fn within_budget(scene: &Scene, method: &Method, notes: &Notes) {
    let (seen, asked) = (scene.seen(method.as_str(), notes.rule), notes.asked());
    let allowed = (asked / 5).max(FLOOR);
    assert!(seen <= asked + allowed, "{seen} attempts of {asked} requests\n{}", notes.summary());
    let label = format!("service=\"{}\"", notes.rule);
    let retries = scene.gateway.metric("gatehouse_upstream_retries_total", &[&label]).await as usize;
    assert!(retries <= allowed, "{retries} retries of {asked} requests\n{}", notes.summary());
}
