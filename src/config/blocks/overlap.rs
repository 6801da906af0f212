//! Routes whose matches are equal: the one that is written first gets every request of the other.

use std::collections::HashMap;
use std::fmt::Write;

use crate::config::model::{HostPattern, Match, PathMatch, Route, ValueMatch};
use crate::config::reader::Reader;
use crate::config::text::quoted;

pub(super) fn warn(routes: &[Route], reader: &mut Reader<'_>) {
    let mut first: HashMap<String, &Route> = HashMap::with_capacity(routes.len());
    for route in routes {
        match first.get(&form(&route.matches)) {
            Some(winner) => {
                let message = format!(
                    "this route never gets a request: {} matches the same",
                    quoted(&winner.name.value)
                );
                let remedy = format!(
                    "file order decides between equals, and line {} is first: change one match",
                    winner.name.span.line
                );
                reader.warning(route.name.span, message, remedy);
            }
            None => {
                first.insert(form(&route.matches), route);
            }
        }
    }
}

/// A text that is equal for equal matches: order and the names of parameters make no difference.
fn form(matches: &Match) -> String {
    let path = match &matches.path {
        PathMatch::Path(path) => {
            let segments = path.value.split('/').map(|s| if s.starts_with('{') { "{}" } else { s });
            format!("path {}", segments.collect::<Vec<_>>().join("/"))
        }
        PathMatch::Prefix(prefix) => format!("prefix {}", prefix.value),
        PathMatch::Regex(regex) => format!("regex {}", regex.value),
    };
    let hosts = matches.hosts.iter().map(|host| match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Wildcard(rest) => format!("*.{rest}"),
    });
    let methods = matches.methods.iter().map(ToString::to_string);
    let headers = matches.headers.iter().map(|(name, value)| format!("{name} {}", value_form(value)));
    let query = matches.query.iter().map(|(name, value)| format!("{name:?} {}", value_form(value)));
    let mut form = path;
    for list in [sorted(hosts), sorted(methods), sorted(headers), sorted(query)] {
        // Writing to a String can't fail.
        let _ = write!(form, "\n{list:?}");
    }
    form
}

fn value_form(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(text) => format!("= {text:?}"),
        ValueMatch::Regex(text) => format!("~ {text:?}"),
        ValueMatch::Present(present) => present.to_string(),
    }
}

fn sorted(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut items: Vec<String> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}
