//! `discovery: { registry: {} }` — the instances registered under the service's own name.
//!
//! A service under whose name nobody registered has no instances: that is an answer, not a failure.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::watch;

use super::super::target::{Host, Target, Wanted};
use super::{Store, View};
use crate::service::discovered::MAX_PRIORITY;

/// Keeps `wanted` at what is registered. Runs until dropped.
pub async fn follow(registry: Option<Arc<Store>>, service_name: &str, wanted: watch::Sender<Wanted>) {
    let subscribed = registry.as_ref().ok_or_else(|| "the configuration has no \"registry\"".to_owned());
    let subscribed = subscribed.and_then(|store| store.subscribe(service_name).map_err(|e| e.to_string()));
    match subscribed {
        Ok(mut views) => loop {
            let view = views.look();
            wanted.send_replace(Wanted { metadata: view.metadata.given(), ..Wanted::now(targets_of(&view)) });
            views.changed().await;
        },
        Err(fault) => wanted.send_modify(|wanted| wanted.fault = Some(fault)),
    }
}

/// What is registered at this moment.
pub fn now(registry: &Store, service_name: &str) -> Vec<Target> {
    targets_of(&registry.view(service_name))
}

fn targets_of(view: &View) -> Vec<Target> {
    let target = |instance: &super::Instance| Target {
        host: match instance.key.host.parse::<IpAddr>() {
            Ok(ip) => Host::Address(ip),
            Err(_) => Host::Name(instance.key.host.clone()),
        },
        port: instance.key.port,
        weight: instance.weight,
        authority: instance.key.authority().into(),
        zone: instance.zone.clone(),
        priority: priority_in(instance.metadata.text()),
        scheme: None,
        description: instance.description(),
    };
    view.instances.iter().map(|instance| target(instance)).collect()
}

/// What an instance's metadata says of where it belongs. The registry itself only hands it on: what is no priority
/// there is none.
pub(super) fn priority_in(metadata: &str) -> u8 {
    #[derive(Deserialize)]
    struct Placing {
        priority: serde_json::Value,
    }
    // Few have one, and reading the metadata of thousands at every change takes a while.
    if !metadata.contains("\"priority\"") {
        return 0;
    }
    let priority = serde_json::from_str(metadata).ok().and_then(|placing: Placing| placing.priority.as_u64());
    priority.map_or(0, |priority| priority.min(MAX_PRIORITY.into()) as u8)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_priority_is_taken_from_the_metadata() {
        let cases = [
            (json!({}), 0),
            (json!({ "priority": 2 }), 2),
            (json!({ "priority": 200 }), 9),
            (json!({ "priority": u64::MAX }), 9),
            (json!({ "priority": -1 }), 0),
            (json!({ "priority": "1" }), 0),
            (json!({ "of": "priority" }), 0),
            (json!({ "of": { "priority": 3 } }), 0),
        ];
        for (metadata, wanted) in cases {
            assert_eq!(priority_in(&metadata.to_string()), wanted, "{metadata}");
        }
    }
}
