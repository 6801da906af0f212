//! The plan of an aggregate: its parts, and in which order they can begin.

use std::time::Duration;

use serde::Serialize;

use crate::config::{self, PartFallback};

#[derive(Clone, Debug, Serialize)]
pub struct AggregateStatus {
    pub timeout_ms: u64,
    /// `json` or `ndjson`, where the parts go out as they come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<&'static str>,
    pub parts: Vec<PartStatus>,
    /// The names of the parts by the turn in which they can begin.
    pub stages: Vec<Vec<String>>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PartStatus {
    pub name: String,
    /// Of a static part there is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Other than GET.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    pub required: bool,
    /// What it waits for: by `after`, or by its values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The blocks of its service that it has of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<&'static str>,
    /// The elements that it is asked for, each by itself or many in one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_each: Option<String>,
    /// The part that stands in for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_part: Option<String>,
    /// For how long a good answer may stand in for one that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_if_error_ms: Option<u64>,
    /// It stands in no document.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// It is asked only when a part has failed that it stands in for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
}

impl AggregateStatus {
    pub fn of(aggregate: &config::Aggregate) -> Self {
        let parts = &aggregate.parts;
        let name = |place: &usize| parts[*place].name.clone();
        let part = |(place, part): (usize, &config::Part)| PartStatus {
            name: part.name.clone(),
            service: part.call().map(|call| call.service.value.clone()),
            path: part.call().map(|call| call.path.text(parts)),
            method: part.call().map(|call| call.method.to_string()).filter(|method| method != "GET"),
            required: part.required,
            after: part.needs.iter().map(name).collect(),
            timeout_ms: part.call().and_then(|call| call.timeout).map(milliseconds),
            overrides: part.call().map(overrides).unwrap_or_default(),
            for_each: part.for_each.as_ref().map(|each| {
                let name = &parts[each.from].name;
                let inner = each.query.strip_prefix('$').unwrap_or_default();
                match name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                    true => format!("$.{name}{inner}"),
                    false => format!("$['{name}']{inner}"),
                }
            }),
            fallback_part: match &part.fallback {
                PartFallback::Part(other) => Some(name(other)),
                PartFallback::Value(_) => None,
            },
            stale_if_error_ms: part
                .call()
                .and_then(|call| call.stale_if_error)
                .map(|stale| milliseconds(stale.keep_for)),
            hidden: part.hidden,
            spare: aggregate.is_spare(place),
        };
        AggregateStatus {
            timeout_ms: milliseconds(aggregate.timeout),
            stream: match aggregate.stream {
                config::Stream::Off => None,
                config::Stream::Document => Some("json"),
                config::Stream::Lines => Some("ndjson"),
            },
            parts: parts.iter().enumerate().map(part).collect(),
            stages: aggregate.stages().iter().map(|stage| stage.iter().map(name).collect()).collect(),
        }
    }
}

fn overrides(call: &config::PartCall) -> Vec<&'static str> {
    let given =
        [("retries", call.retries != config::RetriesGiven::default()), ("hedging", call.hedging.is_some())];
    given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
