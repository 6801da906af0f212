//! `gatehouse check --explain ROUTE`: what a route does with a request, for an aggregate the plan of its parts.

use std::io::Write;

use serde_json::{Value as Json, json};

use crate::admin::view::{AggregateStatus, PartStatus, RouteStatus};
use crate::config::{Action, Config};

/// The route as the status API shows it. `None` where there is no route of that name.
pub fn as_json(config: &Config, name: &str) -> Option<Json> {
    let route = config.routes.iter().find(|route| route.name.value == name)?;
    Some(json!(RouteStatus::of(route, &config.defaults)))
}

/// The same for people.
///
/// # Errors
///
/// When `out` can't be written to.
pub fn write(config: &Config, name: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let Some(route) = config.routes.iter().find(|route| route.name.value == name) else { return Ok(()) };
    match &route.action {
        Action::Aggregate(aggregate) => plan(name, &AggregateStatus::of(aggregate), out),
        Action::Batch(batch) => writeln!(
            out,
            "{name}: a batch of up to {} requests, {} at once, within {}ms",
            batch.max_items,
            batch.concurrency,
            batch.timeout.as_millis()
        ),
        Action::Forward(forward) => writeln!(out, "{name}: forward to {}", forward.service.value),
        Action::Redirect(redirect) => writeln!(out, "{name}: redirect with {}", redirect.status.as_u16()),
        Action::Respond(respond) => writeln!(out, "{name}: respond with {}", respond.status.as_u16()),
    }
}

fn plan(name: &str, status: &AggregateStatus, out: &mut dyn Write) -> std::io::Result<()> {
    let streamed = status.stream.map(|form| format!(", streamed as {form}")).unwrap_or_default();
    writeln!(
        out,
        "{name}: an aggregate of {} parts within {}ms{streamed}",
        status.parts.len(),
        status.timeout_ms
    )?;
    let width = status.parts.iter().map(|part| part.name.chars().count()).max().unwrap_or(0);
    let mut spares = Vec::new();
    for (number, stage) in status.stages.iter().enumerate() {
        writeln!(out, "  stage {}", number + 1)?;
        for part in status.parts.iter().filter(|part| stage.contains(&part.name)) {
            if part.spare {
                spares.push(part);
            } else {
                line(part, width, out)?;
            }
        }
    }
    if !spares.is_empty() {
        writeln!(out, "  only when needed")?;
    }
    spares.into_iter().try_for_each(|part| line(part, width, out))
}

fn line(part: &PartStatus, width: usize, out: &mut dyn Write) -> std::io::Result<()> {
    let mut facts = vec![if part.required { "required".to_owned() } else { "optional".to_owned() }];
    if !part.after.is_empty() {
        facts.push(format!("after {}", part.after.join(", ")));
    }
    if let Some(elements) = &part.for_each {
        facts.push(format!("for each of {elements}"));
    }
    if let Some(stale) = part.stale_if_error_ms {
        facts.push(format!("else its last good answer of {stale}ms"));
    }
    if let Some(other) = &part.fallback_part {
        facts.push(format!("else {other}"));
    }
    if let Some(timeout) = part.timeout_ms {
        facts.push(format!("within {timeout}ms"));
    }
    if !part.overrides.is_empty() {
        facts.push(format!("with {} of its own", part.overrides.join(" and ")));
    }
    if part.hidden {
        facts.push("hidden".to_owned());
    }
    let name = format!("{:width$}", part.name);
    let call = match (&part.service, &part.path) {
        (Some(service), Some(path)) => {
            let method = part.method.as_ref().map(|method| format!("{method} ")).unwrap_or_default();
            format!("{service} {method}{path}")
        }
        _ => "static".to_owned(),
    };
    writeln!(out, "    {name}  {call}  {}", facts.join(", "))
}
