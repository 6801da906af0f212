//! A configuration as text, with policies taken away: what the processes are started with whose cost is compared.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Policies that can be taken away from a route, in the order in which they act.
const POLICIES: [&str; 7] =
    ["cors", "max_body", "rate_limits", "authenticate", "authorize", "request_headers", "response_headers"];
/// Of those of `defaults`.
const DEFAULTS: [&str; 3] = ["rate_limits", "max_body", "response_headers"];
/// Where files are named, from the directory of the configuration on.
const FILES: [&str; 3] = ["public_key", "jwks_file", "file"];
/// More than any machine sends.
const UNREACHED: &str = "100000000/s";

/// What is taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    Policy(&'static str),
    Default(&'static str),
    All,
}

impl Without {
    pub fn name(&self) -> String {
        match self {
            Without::Nothing => "as it is".to_owned(),
            // What authorises and counts by claims needs to know who calls.
            Without::Policy("authenticate") => "without authenticate, and what needs it".to_owned(),
            Without::Policy(name) => format!("without {name}"),
            Without::Default(name) => format!("without {name} of defaults"),
            Without::All => "without any".to_owned(),
        }
    }
}

/// What there is to be taken away from this route: first nothing, last all of it.
pub fn of(document: &Value, route: &str) -> Vec<Without> {
    let mut all = vec![Without::Nothing];
    let block = routes(document).into_iter().flatten().find(|block| is_called(block, route));
    let has = |block: Option<&Value>, key: &str| {
        block.is_some_and(|block| block.get(key).is_some_and(|it| !it.is_null()))
    };
    all.extend(POLICIES.into_iter().filter(|key| has(block, key)).map(Without::Policy));
    all.extend(DEFAULTS.into_iter().filter(|key| has(document.get("defaults"), key)).map(Without::Default));
    if all.len() > 2 {
        all.push(Without::All);
    }
    all
}

/// The configuration to start: one worker, one listener on a port of the kernel's choice, every service at `origin`, limits
/// that nobody reaches.
pub fn text(
    document: &Value,
    directory: &Path,
    origin: SocketAddr,
    route: &str,
    without: &Without,
) -> String {
    let mut document = document.clone();
    let counted_by_claims = limits_by_claims(&document);
    let Some(root) = document.as_object_mut() else { return String::new() };
    root.insert("workers".into(), json!(1));
    root.insert("listeners".into(), json!([{ "name": "http", "bind": "127.0.0.1:0" }]));
    for key in ["admin", "registry"] {
        root.remove(key);
    }
    each(root.get_mut("services"), |service| {
        for key in ["discovery", "health_check", "outlier_detection"] {
            service.remove(key);
        }
        service.insert("instances".into(), json!([format!("http://{origin}")]));
    });
    each(root.get_mut("rate_limits"), |limit| {
        limit.insert("rate".into(), json!(UNREACHED));
        limit.insert("burst".into(), json!(100_000_000));
    });
    for key in DEFAULTS {
        let gone = *without == Without::Default(key) || *without == Without::All;
        if let (true, Some(defaults)) = (gone, root.get_mut("defaults").and_then(Value::as_object_mut)) {
            defaults.remove(key);
        }
    }
    let blocks = root.get_mut("routes").and_then(Value::as_array_mut);
    let block =
        blocks.into_iter().flatten().find(|block| is_called(block, route)).and_then(Value::as_object_mut);
    if let Some(block) = block {
        for key in POLICIES {
            let needs = key == "authorize" && *without == Without::Policy("authenticate");
            if needs || *without == Without::Policy(key) || *without == Without::All {
                block.remove(key);
            }
        }
        if !block.contains_key("authenticate")
            && let Some(limits) = block.get_mut("rate_limits").and_then(Value::as_array_mut)
        {
            limits.retain(|limit| {
                !limit.as_str().is_some_and(|name| counted_by_claims.contains(&name.to_owned()))
            });
        }
    }
    absolute(&mut document, directory);
    document.to_string()
}

fn routes(document: &Value) -> Option<&Vec<Value>> {
    document.get("routes")?.as_array()
}

fn is_called(block: &Value, route: &str) -> bool {
    block.get("name").and_then(Value::as_str) == Some(route)
}

fn limits_by_claims(document: &Value) -> Vec<String> {
    let limits = document.get("rate_limits").and_then(Value::as_object);
    let by_claim = |key: &Value| key.as_str().is_some_and(|key| key.starts_with("claim:"));
    let counts = |limit: &Value| match limit.get("key") {
        Some(Value::Array(keys)) => keys.iter().any(by_claim),
        Some(key) => by_claim(key),
        None => false,
    };
    limits.into_iter().flatten().filter(|(_, limit)| counts(limit)).map(|(name, _)| name.clone()).collect()
}

fn each(of: Option<&mut Value>, mut change: impl FnMut(&mut Map<String, Value>)) {
    let blocks = of.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
    blocks.filter_map(Value::as_object_mut).for_each(&mut change);
}

/// The variants don't lie where the configuration does.
fn absolute(value: &mut Value, directory: &Path) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(path) if FILES.contains(&key.as_str()) && !path.starts_with(['/', '$']) => {
                        *path = directory.join(&path).display().to_string();
                    }
                    _ => absolute(value, directory),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| absolute(value, directory)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Source, parse_document};

    const SHOP: &str = "
listeners: [{ name: http, bind: 127.0.0.1:8000 }]
admin: { bind: 127.0.0.1:9000 }
registry: { bind: 127.0.0.1:8500 }
services: { users: { discovery: registry, health_check: { path: /up }, retries: { attempts: 1 } } }
authenticators: { shop: { jwt: { algorithms: [RS256], keys: [{ public_key: keys/shop.pem }] } } }
rate_limits: { per-user: { key: [ip, 'claim:sub'], rate: 1/s }, per-client: { key: ip, rate: 1/s } }
defaults: { rate_limits: [per-client] }
routes:
  - name: a
    match: { path: /a }
    authenticate: { with: [shop] }
    authorize: { claims: { role: [admin] } }
    rate_limits: [per-user]
    forward: { service: users }
  - { name: b, match: { path: /b }, forward: { service: users } }
";

    #[test]
    fn every_variant_is_a_good_configuration() {
        let document: Value = parse_document(SHOP).expect("YAML");
        let all = of(&document, "a");
        assert_eq!(all.len(), 6, "{all:?}");
        assert_eq!(of(&document, "b"), [Without::Nothing, Without::Default("rate_limits")]);
        let origin = SocketAddr::from(([127, 0, 0, 1], 7));
        for without in all {
            let text = text(&document, Path::new("/etc/shop"), origin, "a", &without);
            let source = Source { path: "variant.yaml".into(), text: text.as_str().into() };
            let loaded = config::load(&source, &|_| None)
                .map_err(|problems| config::render(&problems, &source, false));
            let config = loaded.unwrap_or_else(|problems| panic!("{without:?}: {problems}")).config;
            let (route, defaults) = (&config.routes[0], &config.defaults);
            let has = |it: bool| usize::from(it);
            let policies = has(route.authenticate.is_some())
                + has(!route.authorize.is_empty())
                + has(!route.rate_limits.is_empty())
                + has(!defaults.rate_limits.is_empty());
            let expected = match without {
                Without::Nothing => 4,
                Without::Policy("authenticate") => 1,
                Without::All => 0,
                _ => 3,
            };
            assert_eq!(policies, expected, "{without:?}");
            assert!(config.admin.is_none() && text.contains("/etc/shop/keys/shop.pem"), "{text}");
        }
    }
}
