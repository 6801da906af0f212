//! Follows the files that maintenance depends on, so that no request has to.

use std::sync::Arc;

use super::watch::FileWatch;
use crate::policy::maintenance::Switch;
use crate::telemetry::events;

/// Looks at the files whenever one of them may have come or gone. Ends with the task that it runs in.
pub async fn run(switches: Vec<Arc<Switch>>) {
    let mut watch = FileWatch::new();
    watch.set_files(switches.iter().map(|switch| switch.path().to_owned()));
    loop {
        switches.iter().for_each(|switch| look(switch));
        watch.changed().await;
    }
}

fn look(switch: &Switch) {
    let path = switch.path().display();
    match switch.look() {
        Ok(false) => {}
        Ok(true) if switch.is_on() => {
            events::warn(format_args!("maintenance begins: {path} is there"));
        }
        Ok(true) => events::info(format_args!("maintenance ends: {path} is gone")),
        Err(error) => events::warn(format_args!(
            "whether {path} exists can't be told, and maintenance stays as it is: {error}"
        )),
    }
}
