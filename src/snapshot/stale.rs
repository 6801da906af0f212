//! What routes and parts of aggregates keep for the time of errors: the stores outlive reloads as long as what is in them is
//! what would be answered now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Snapshot;
use crate::config::{self, Action, StaleIfError};
use crate::service::{Stale, StaleStore};

/// The last good answers of a route with `stale_if_error`, or of a part with it.
pub struct RouteStale {
    pub route: String,
    /// The name of the part, where they are those of one.
    pub part: Option<String>,
    pub store: Arc<StaleStore>,
    keep_for: Duration,
    /// Where they came from. Those from elsewhere are not what the route would answer.
    source: Source,
}

#[derive(PartialEq)]
enum Source {
    Forward(config::Forward),
    Part { service: String, is_text: bool, shape: config::PartShape, is_batch: bool },
}

impl RouteStale {
    /// The name of the service that gave the answers.
    pub fn service(&self) -> &str {
        match &self.source {
            Source::Forward(forward) => &forward.service.value,
            Source::Part { service, .. } => service,
        }
    }

    /// What a call keeps answers with.
    pub fn of_call(&self) -> Stale {
        Stale { keep_for: self.keep_for, store: self.store.clone() }
    }
}

impl Source {
    fn is_same(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::Forward(one), Source::Forward(other)) => one.is_same_target(other),
            (one, other) => one == other,
        }
    }
}

/// By route and part.
pub type Before<'g> = HashMap<(&'g str, Option<&'g str>), &'g RouteStale>;

pub fn before(snapshot: Option<&Snapshot>) -> Before<'_> {
    let kept = snapshot.into_iter().flat_map(|snapshot| &snapshot.stale);
    kept.map(|kept| ((&*kept.route, kept.part.as_deref()), kept)).collect()
}

/// The answers that the route and its parts keep, if they do: those of the snapshot before, where they are what would be
/// answered now.
pub fn of_route(route: &config::Route, before: &Before<'_>) -> Vec<RouteStale> {
    let of_part = |part: &config::Part| {
        let call = part.call()?;
        let source = Source::Part {
            service: call.service.value.clone(),
            is_text: call.is_text,
            shape: part.shape.clone(),
            is_batch: part.for_each.as_ref().is_some_and(|each| each.batch.is_some()),
        };
        Some((Some(part.name.clone()), call.stale_if_error?, source))
    };
    let wanted: Vec<(Option<String>, StaleIfError, Source)> = match &route.action {
        Action::Forward(forward) => {
            let source = config::Forward { overrides: None, stale_if_error: None, ..forward.clone() };
            forward.stale_if_error.map(|how| (None, how, Source::Forward(source))).into_iter().collect()
        }
        Action::Aggregate(aggregate) => aggregate.parts.iter().filter_map(of_part).collect(),
        Action::Batch(_) | Action::Redirect(_) | Action::Respond(_) => Vec::new(),
    };
    let kept = wanted.into_iter().map(|(part, how, source)| {
        let known = before.get(&(&**route.name, part.as_deref())).filter(|kept| kept.source.is_same(&source));
        let store = match known.map(|kept| &kept.store) {
            Some(store) if store.max() == how.max_bytes => store.clone(),
            Some(store) => Arc::new(store.resized(how.max_bytes)),
            None => Arc::new(StaleStore::new(how.max_bytes)),
        };
        RouteStale { route: route.name.value.clone(), part, store, keep_for: how.keep_for, source }
    });
    kept.collect()
}
