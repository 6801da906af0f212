//! The parts of a configuration in the form that requests run against.

use std::sync::Arc;

use bytes::Bytes;

use super::Aggregate;
use super::part::{Fallback, Part, PartCall};
use super::template::{Piece, Source, Step, Target, Text};
use crate::config;
use crate::service::Service;

/// What names in an aggregate stand for.
pub struct Ground<'g> {
    /// The parameters of the route's path, in the order of their slots.
    pub parameters: &'g [String],
    pub service: &'g dyn Fn(&config::Ref) -> Result<Arc<Service>, String>,
}

impl Aggregate {
    pub fn compile(written: &config::Aggregate, ground: &Ground<'_>) -> Result<Self, String> {
        let part = |(place, part): (usize, &config::Part)| -> Result<Part, String> {
            Ok(Part {
                name: Arc::from(part.name.as_str()),
                member: format!("{}:", serde_json::Value::from(part.name.as_str())).into(),
                call: call(&part.call, ground)?,
                needs: part.needs.clone().into(),
                required: part.required,
                fallback: match &part.fallback {
                    config::PartFallback::Value(json) => Fallback::Value(Bytes::from(json.clone())),
                    config::PartFallback::Part(other) => Fallback::Part(*other),
                },
                is_hidden: part.hidden,
                is_spare: written.is_spare(place),
            })
        };
        let parts = written.parts.iter().enumerate().map(part).collect::<Result<_, _>>()?;
        Ok(Aggregate { parts, timeout: written.timeout })
    }
}

fn call(written: &config::PartCall, ground: &Ground<'_>) -> Result<PartCall, String> {
    let header = |(name, text): &(http::HeaderName, config::PartTemplate)| {
        Ok::<_, String>((name.clone(), Text::new(pieces(text, ground)?)))
    };
    let accept = written.accept_status.iter().map(|range| range.from..=range.to);
    Ok(PartCall {
        service: (ground.service)(&written.service)?,
        target: Target::new(pieces(&written.path, ground)?),
        headers: written.headers.iter().map(header).collect::<Result<_, _>>()?,
        accept: if written.accept_status.is_empty() { Box::new([200..=299]) } else { accept.collect() },
        timeout: written.timeout,
        max_body: written.max_body,
    })
}

fn pieces(written: &config::PartTemplate, ground: &Ground<'_>) -> Result<Vec<Piece>, String> {
    let piece = |piece: &config::PartPiece| {
        Ok(match piece {
            config::PartPiece::Literal(text) => Piece::Literal(text.as_str().into()),
            config::PartPiece::Value(value) => Piece::Value(source(value, ground)?),
        })
    };
    written.0.iter().map(piece).collect()
}

fn source(written: &config::ValueOf, ground: &Ground<'_>) -> Result<Source, String> {
    Ok(match written {
        config::ValueOf::Parameter(name) => {
            let slot = ground.parameters.iter().position(|known| known == name);
            Source::Parameter(slot.ok_or_else(|| format!("the route's path has no parameter {name}"))?)
        }
        config::ValueOf::Part { part, path } => {
            Source::Part { part: *part, path: path.iter().map(step).collect() }
        }
        config::ValueOf::Claim(name) => Source::Claim(name.as_str().into()),
    })
}

fn step(written: &config::ValueStep) -> Step {
    match written {
        config::ValueStep::Member(name) => Step::Member(name.as_str().into()),
        config::ValueStep::Element(index) => Step::Element(*index),
    }
}
