//! `discovery: { registry: {} }` — the instances registered under the service's own name.
//!
//! A service under whose name nobody registered has no instances: that is an answer, not a failure.

use std::net::IpAddr;
use std::sync::Arc;

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
            let targets = targets_of(&views.borrow_and_update());
            wanted.send_replace(Wanted::now(targets));
            // The store that sends the views is held above.
            if views.changed().await.is_err() {
                return;
            }
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
        priority: priority_of(instance),
    };
    view.instances.iter().map(|instance| target(instance)).collect()
}

/// The registry itself only hands metadata on: what is no priority there is none.
fn priority_of(instance: &super::Instance) -> u8 {
    let priority = instance.metadata.get("priority").and_then(serde_json::Value::as_u64);
    priority.map_or(0, |priority| priority.min(MAX_PRIORITY.into()) as u8)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Announcement;
    use super::*;

    #[test]
    fn a_priority_is_taken_from_the_metadata() {
        let read = |metadata: Value| {
            let announced = Announcement::new("users", "127.0.0.1", 8001).expect("a good one");
            let metadata = metadata.as_object().cloned().expect("an object");
            priority_of(&announced.with_metadata(metadata).expect("it is small").into_instance())
        };
        let cases = [
            (json!({}), 0),
            (json!({ "priority": 2 }), 2),
            (json!({ "priority": 200 }), 9),
            (json!({ "priority": u64::MAX }), 9),
            (json!({ "priority": -1 }), 0),
            (json!({ "priority": "1" }), 0),
        ];
        for (metadata, wanted) in cases {
            assert_eq!(read(metadata.clone()), wanted, "{metadata}");
        }
    }
}
