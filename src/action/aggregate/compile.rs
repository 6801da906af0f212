//! The parts of a configuration in the form that requests run against.

use std::sync::Arc;

use bytes::Bytes;

use super::Aggregate;
use super::body::{self, Body};
use super::document::{Holds, List, Slot};
use super::join::{Batch, Join};
use super::json::Kind;
use super::part::{Fallback, Part, PartCall, Source};
use super::select::Query;
use super::shape::{self, Fields, Shape};
use super::stream::{Passes, Stream};
use super::template::{Piece, Source as ValueSource, Step, Target, Text};
use super::timing::ServerTiming;
use crate::config;
use crate::http::query::push_text;
use crate::service::Service;

/// What names in an aggregate stand for.
pub struct Ground<'g> {
    /// The parameters of the route's path, in the order of their slots.
    pub parameters: &'g [String],
    /// That of a part, as the part wants it.
    pub service: &'g dyn Fn(&config::Part) -> Result<Arc<Service>, String>,
}

impl Aggregate {
    pub fn compile(written: &config::Aggregate, ground: &Ground<'_>) -> Result<Self, String> {
        let part = |(place, part): (usize, &config::Part)| -> Result<Part, String> {
            Ok(Part {
                name: Arc::from(part.name.as_str()),
                source: match &part.source {
                    config::PartSource::Static(json) => Source::Static(json.clone().into()),
                    config::PartSource::Call(written_call) => {
                        let join =
                            part.for_each.as_ref().map(|each| join(each, &part.fallback)).transpose()?;
                        let service = (ground.service)(part)?;
                        let call = call(written_call, service, shape(written, place)?, ground)?;
                        let passes = passes(written, place, written_call, &call);
                        Source::Call(Box::new(PartCall { join, passes, ..call }))
                    }
                },
                needs: part.needs.clone().into(),
                required: part.required,
                fallback: match &part.fallback {
                    // What stands in for an element is none for all of them.
                    config::PartFallback::Value(_) if part.for_each.is_some() => {
                        Fallback::Value(Bytes::from_static(b"[]"))
                    }
                    config::PartFallback::Value(json) => Fallback::Value(Bytes::from(json.clone())),
                    config::PartFallback::Part(other) => Fallback::Part(*other),
                },
                is_spare: written.is_spare(place),
            })
        };
        let parts: Vec<Part> = written.parts.iter().enumerate().map(part).collect::<Result<_, _>>()?;
        let merges = written.parts.iter().any(|part| part.shape.merge);
        let attached = (0..written.parts.len()).map(|place| attached(written, place)).collect();
        let server_timing = written.server_timing.as_ref().map(|timing| ServerTiming {
            name: timing.header.clone(),
            value: timing.value.expose().as_bytes().into(),
        });
        let (layout, timeout) = (layout(written), written.timeout);
        let stream = match written.stream {
            config::Stream::Off => None,
            config::Stream::Document => Some(Stream::Document),
            config::Stream::Lines => Some(Stream::Lines),
        };
        Ok(Aggregate { parts, layout, attached, merges, timeout, server_timing, stream })
    }
}

/// An answer that nothing looks into is passed through as it comes, where the aggregate is streamed.
fn passes(
    written: &config::Aggregate,
    place: usize,
    call: &config::PartCall,
    compiled: &PartCall,
) -> Option<Passes> {
    let part = &written.parts[place];
    let is_alone = !written.parts.iter().any(|other| {
        other.needs.contains(&place)
            || other.fallback == config::PartFallback::Part(place)
            || other.for_each.as_ref().is_some_and(|each| each.from == place)
    });
    let is_plain = part.shape == config::PartShape::default()
        && part.for_each.is_none()
        && !part.hidden
        && !call.is_text
        && compiled.service.stale.is_none()
        && !written.append.iter().any(|list| list.of.contains(&place));
    let passes = written.stream != config::Stream::Off && is_alone && is_plain;
    passes.then_some(Passes { limit: call.max_body })
}

/// Parts and lists in the order of the configuration, a list where the first of its parts would stand.
fn layout(written: &config::Aggregate) -> Vec<Slot> {
    let member = |name: &str| Bytes::from(serde_json::Value::from(name).to_string());
    let mut slots: Vec<Slot> = Vec::new();
    let mut lists: Vec<&config::Append> = Vec::new();
    for (place, part) in written.parts.iter().enumerate().filter(|(_, part)| is_shown(part)) {
        let list = written.append.iter().find(|list| list.of.contains(&place));
        let (name, holds) = match list {
            Some(list) if lists.iter().any(|known| known.name == list.name) => continue,
            Some(list) => {
                lists.push(list);
                let sort_by = list.sort_by.as_ref().map(|way| way.iter().map(step).collect());
                let limit = list.limit.unwrap_or(usize::MAX);
                let of = list.of.clone().into();
                (&list.name, Holds::List(List { of, sort_by, descending: list.descending, limit }))
            }
            None if part.shape.merge => (&part.name, Holds::Members(place)),
            None => (&part.name, Holds::Part(place)),
        };
        slots.push(Slot { member: member(name), holds });
    }
    slots
}

/// What a join brings stands where its elements do, if it says so.
fn is_shown(part: &config::Part) -> bool {
    !part.hidden && part.for_each.as_ref().is_none_or(|each| each.into.is_none())
}

fn attached(written: &config::Aggregate, place: usize) -> Vec<usize> {
    let stands_in = |part: &config::Part| {
        !part.hidden && part.for_each.as_ref().is_some_and(|each| each.from == place && each.into.is_some())
    };
    (0..written.parts.len()).filter(|join| stands_in(&written.parts[*join])).collect()
}

fn join(each: &config::ForEach, fallback: &config::PartFallback) -> Result<Join, String> {
    let way = |way: &[config::ValueStep]| way.iter().map(step).collect();
    let batch = each.batch.as_ref().map(|batch| {
        let mut parameter = String::new();
        push_text(&mut parameter, &batch.parameter);
        Batch {
            parameter: (parameter + "=").into(),
            value: way(&batch.value),
            key: way(&batch.key),
            size: batch.size,
        }
    });
    Ok(Join {
        from: each.from,
        query: Query::parse(&each.query)?,
        into: each.into.as_ref().map(|name| serde_json::Value::from(name.as_str()).to_string().into()),
        into_name: each.into.as_deref().map(Into::into),
        concurrency: each.concurrency,
        max_items: each.max_items,
        batch,
        fallback: match fallback {
            config::PartFallback::Value(json) => json.clone().into(),
            config::PartFallback::Part(_) => Bytes::from_static(b"null"),
        },
    })
}

fn shape(written: &config::Aggregate, place: usize) -> Result<Shape, String> {
    let shape = &written.parts[place].shape;
    let ways = |ways: &[Vec<config::FieldStep>]| ways.iter().map(|way| field(way)).collect::<Vec<_>>();
    let rename: Vec<_> = shape.rename.iter().map(|(way, name)| (field(way), name.clone())).collect();
    let has_fields = !(shape.allow.is_empty() && shape.deny.is_empty() && rename.is_empty());
    let wrap = shape.wrap.as_ref().map(|name| format!("{{{}:", serde_json::Value::from(name.as_str())));
    let is_appended = written.append.iter().any(|list| list.of.contains(&place));
    Ok(Shape {
        select: shape.select.as_deref().map(Query::parse).transpose()?,
        fields: has_fields.then(|| Fields::new(&ways(&shape.allow), &ways(&shape.deny), &rename)),
        wrap: wrap.map(Bytes::from),
        kind: match (shape.merge, is_appended && written.parts[place].for_each.is_none()) {
            (true, _) => Some(Kind::Object),
            (false, true) => Some(Kind::Array),
            (false, false) => None,
        },
    })
}

fn field(way: &[config::FieldStep]) -> Vec<shape::Step> {
    let step = |step: &config::FieldStep| match step {
        config::FieldStep::Member(name) => shape::Step::Member(name.as_str().into()),
        config::FieldStep::Each => shape::Step::Each,
    };
    way.iter().map(step).collect()
}

fn call(
    written: &config::PartCall,
    service: Arc<Service>,
    shape: Shape,
    ground: &Ground<'_>,
) -> Result<PartCall, String> {
    let header = |(name, text): &(http::HeaderName, config::PartTemplate)| {
        Ok::<_, String>((name.clone(), Text::new(pieces(text, ground)?)))
    };
    let accept = written.accept_status.iter().map(|range| range.from..=range.to);
    Ok(PartCall {
        service,
        method: written.method.clone(),
        target: Target::new(pieces(&written.path, ground)?),
        body: written.body.as_deref().map(|pieces| body(pieces, ground)).transpose()?,
        forward_headers: written.forward_headers.clone().map(Into::into),
        is_text: written.is_text,
        headers: written.headers.iter().map(header).collect::<Result<_, _>>()?,
        accept: if written.accept_status.is_empty() { Box::new([200..=299]) } else { accept.collect() },
        timeout: written.timeout,
        max_body: written.max_body.unwrap_or(1 << 20),
        passes: None,
        shape,
        join: None,
    })
}

fn body(written: &[config::BodyPiece], ground: &Ground<'_>) -> Result<Body, String> {
    let piece = |piece: &config::BodyPiece| {
        Ok::<_, String>(match piece {
            config::BodyPiece::Literal(text) => body::Piece::Literal(text.as_str().into()),
            config::BodyPiece::Whole(value) => body::Piece::Whole(source(value, ground)?),
            config::BodyPiece::Within(value) => body::Piece::Within(source(value, ground)?),
        })
    };
    Ok(Body::new(written.iter().map(piece).collect::<Result<_, _>>()?))
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

fn source(written: &config::ValueOf, ground: &Ground<'_>) -> Result<ValueSource, String> {
    Ok(match written {
        config::ValueOf::Parameter(name) => {
            let slot = ground.parameters.iter().position(|known| known == name);
            ValueSource::Parameter(slot.ok_or_else(|| format!("the route's path has no parameter {name}"))?)
        }
        config::ValueOf::Part { part, path } => {
            ValueSource::Part { part: *part, path: path.iter().map(step).collect() }
        }
        config::ValueOf::Claim(name) => ValueSource::Claim(name.as_str().into()),
        config::ValueOf::Item(path) => ValueSource::Item(path.iter().map(step).collect()),
    })
}

fn step(written: &config::ValueStep) -> Step {
    match written {
        config::ValueStep::Member(name) => Step::Member(name.as_str().into()),
        config::ValueStep::Element(index) => Step::Element(*index),
    }
}
