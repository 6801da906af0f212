//! `instances:` — instances written in the configuration itself.

use super::target::{Target, Wanted};
use crate::config::StaticInstance;

pub fn wanted(instances: &[StaticInstance]) -> Wanted {
    let mut targets = Vec::with_capacity(instances.len());
    let mut fault = None;
    for instance in instances {
        let zone = instance.zone.as_deref().map(Into::into);
        match Target::from_authority(&instance.authority, instance.weight, zone) {
            Some(target) => targets.push(target.with_priority(instance.priority)),
            None => fault = Some(format!("\"{}\" is not host:port", instance.authority.value)),
        }
    }
    Wanted { fault, ..Wanted::now(targets) }
}
