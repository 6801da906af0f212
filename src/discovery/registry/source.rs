//! `discovery: { registry: {} }` — the instances registered under the service's own name.
//!
//! A service under whose name nobody registered has no instances: that is an answer, not a failure.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::super::target::{Host, Target, Wanted};
use super::{Store, View};

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
        description: instance.description(),
    };
    view.instances.iter().map(|instance| target(instance)).collect()
}
