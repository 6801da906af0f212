//! The plan of an aggregate: what each part needs of others. Names are resolved, and parts that would wait for
//! each other for ever are found.

use super::for_each::{fits, uses_item};
use super::part::{CallBody, FallbackBody, PartBody, SourceBody};
use super::route::unknown_parameter;
use crate::config::model::{
    At, BodyPiece, Match, Part, PartCall, PartFallback, PartPiece, PartSource, PartTemplate, ValueOf,
    ValueStep,
};
use crate::config::reader::Reader;
use crate::config::source::Span;
use crate::config::text::quoted;
use crate::config::values::body_template::{BodyTemplate, WrittenBody};
use crate::config::values::part_template::{PartTarget, PartText, ValuePath, Written};

/// What the route around an aggregate gives it.
pub(super) struct Ground<'r> {
    pub matches: &'r Match,
    pub parameters: Vec<&'r str>,
    /// Whether there is a token whose claims can be used.
    pub is_authenticated: bool,
}

pub(super) fn plan(
    written: Vec<(At<String>, PartBody)>,
    ground: &Ground<'_>,
    reader: &mut Reader<'_>,
) -> Option<Vec<Part>> {
    let names: Vec<At<String>> = written.iter().map(|(name, _)| name.clone()).collect();
    let known: Vec<Known> = written
        .iter()
        .map(|(_, body)| match &body.source {
            SourceBody::Static(json) => Known::Static(json.clone()),
            SourceBody::Call(call)
                if call.is_text && body.for_each.is_none() && body.shape.wrap.is_none() =>
            {
                Known::Text
            }
            SourceBody::Call(_) => Known::Nothing,
        })
        .collect();
    let mut edges = Vec::new();
    let mut parts = Vec::with_capacity(written.len());
    for (name, body) in written {
        let has_item = body.for_each.is_some();
        let mut resolver = Resolver { names: &names, ground, edges: Vec::new(), has_item, known: &known };
        let part = resolver.part(name.value, body, reader);
        edges.push(resolver.edges);
        parts.push(part);
    }
    let parts: Vec<Part> = parts.into_iter().collect::<Option<_>>()?;
    match circle(&edges) {
        None => Some(parts),
        Some((way, span)) => {
            let way: Vec<&str> = way.iter().map(|place| names[*place].value.as_str()).collect();
            let message = match way.as_slice() {
                [own, _] => format!("the part {} waits for itself", quoted(own)),
                way => format!("these parts wait for each other: {}", way.join(" → ")),
            };
            reader.error(span, message, "let one of them begin without the next");
            None
        }
    }
}

/// One part needs another, as is written there.
#[derive(Clone, Copy)]
struct Edge {
    to: usize,
    span: Span,
    /// It is asked only when this one has failed.
    is_fallback: bool,
}

pub(super) struct Resolver<'p> {
    names: &'p [At<String>],
    ground: &'p Ground<'p>,
    edges: Vec<Edge>,
    /// `{item}` is the element that the part is asked for.
    has_item: bool,
    known: &'p [Known],
}

/// What is known of a part's answer before anybody is asked.
pub(super) enum Known {
    Nothing,
    Text,
    Static(String),
}

impl Resolver<'_> {
    fn part(&mut self, name: String, body: PartBody, reader: &mut Reader<'_>) -> Option<Part> {
        let after: Vec<Option<usize>> = body.after.iter().map(|after| self.named(after, reader)).collect();
        let source = match body.source {
            SourceBody::Static(json) => Some(PartSource::Static(json)),
            SourceBody::Call(call) => self.call(*call, reader).map(|call| PartSource::Call(Box::new(call))),
        };
        let each = body.for_each.map(|each| (each.elements.span, self.for_each(each, reader)));
        let fallback = match body.fallback {
            None => Some(PartFallback::Value("null".to_owned())),
            Some(At { value: FallbackBody::Value(json), .. }) => Some(PartFallback::Value(json)),
            Some(At { value: FallbackBody::Part(other), span }) => {
                self.other(&other, span, true, reader).map(PartFallback::Part)
            }
        };
        after.into_iter().collect::<Option<Vec<usize>>>()?;
        let source = source?;
        let for_each = match each {
            None => None,
            Some((span, each)) => {
                let each = each?;
                let uses = matches!(&source, PartSource::Call(call) if uses_item(call));
                fits(&name, each.batch.is_some(), uses, span, reader).then_some(Some(each))?
            }
        };
        let mut needs: Vec<usize> =
            self.edges.iter().filter(|edge| !edge.is_fallback).map(|edge| edge.to).collect();
        needs.sort_unstable();
        needs.dedup();
        Some(Part {
            name,
            source,
            needs,
            for_each,
            required: body.required,
            fallback: fallback?,
            hidden: body.hidden.is_some(),
            shape: body.shape,
        })
    }

    fn call(&mut self, body: CallBody, reader: &mut Reader<'_>) -> Option<PartCall> {
        let At { value: PartTarget(target), span } = body.path;
        let path = self.template(target, span, reader);
        let headers = body.headers.into_iter().map(|(name, At { value: PartText(text), span })| {
            self.template(text, span, reader).map(|text| (name, text))
        });
        let headers: Vec<Option<_>> = headers.collect();
        let content = body.body.map(|At { value: BodyTemplate(pieces), span }| {
            let pieces: Vec<Option<BodyPiece>> = pieces
                .into_iter()
                .map(|piece| match piece {
                    WrittenBody::Literal(text) => Some(BodyPiece::Literal(text)),
                    WrittenBody::Whole(path) => self.value(path, span, reader).map(BodyPiece::Whole),
                    WrittenBody::Within(path) => self.value(path, span, reader).map(BodyPiece::Within),
                })
                .collect();
            pieces.into_iter().collect::<Option<Vec<_>>>()
        });
        let content = match content {
            None => None,
            Some(pieces) => Some(pieces?),
        };
        Some(PartCall {
            service: body.service,
            method: body.method,
            path: path?,
            headers: headers.into_iter().collect::<Option<_>>()?,
            body: content,
            forward_headers: body.forward_headers,
            is_text: body.is_text,
            accept_status: body.accept_status,
            timeout: body.timeout,
            max_body: body.max_body,
            stale_if_error: body.stale_if_error,
            retries: body.retries,
            hedging: body.hedging,
        })
    }

    fn named(&mut self, name: &At<String>, reader: &mut Reader<'_>) -> Option<usize> {
        self.other(&name.value, name.span, false, reader)
    }

    pub fn other(
        &mut self,
        name: &str,
        span: Span,
        is_fallback: bool,
        reader: &mut Reader<'_>,
    ) -> Option<usize> {
        let Some(to) = self.names.iter().position(|known| known.value == name) else {
            let known = || self.names.iter().map(|known| known.value.as_str());
            let remedy = match reader.suggestions.nearest(name, known()) {
                Some(near) => format!("did you mean {}?", quoted(near)),
                None => format!("the aggregate has {}", known().collect::<Vec<_>>().join(", ")),
            };
            reader.error(span, format!("there is no part {}", quoted(name)), remedy);
            return None;
        };
        self.edges.push(Edge { to, span, is_fallback });
        Some(to)
    }

    fn template(
        &mut self,
        written: Vec<Written>,
        span: Span,
        reader: &mut Reader<'_>,
    ) -> Option<PartTemplate> {
        let pieces: Vec<Option<PartPiece>> = written
            .into_iter()
            .map(|piece| match piece {
                Written::Literal(text) => Some(PartPiece::Literal(text)),
                Written::Value(path) => self.value(path, span, reader).map(PartPiece::Value),
            })
            .collect();
        pieces.into_iter().collect::<Option<_>>().map(PartTemplate)
    }

    fn value(&mut self, path: ValuePath, span: Span, reader: &mut Reader<'_>) -> Option<ValueOf> {
        let is_parameter = self.ground.parameters.contains(&path.name.as_str());
        if path.name == "item" && self.has_item {
            return Some(ValueOf::Item(path.steps));
        }
        if path.name == "claims" && !path.steps.is_empty() {
            return self.claim(&path, span, reader);
        }
        if path.steps.is_empty() && is_parameter {
            return Some(ValueOf::Parameter(path.name));
        }
        let is_part = self.names.iter().any(|known| known.value == path.name);
        if !is_part && path.steps.is_empty() {
            unknown_parameter(&path.name, span, self.ground.matches, reader);
            return None;
        }
        if !is_part && is_parameter {
            let message =
                format!("{{{}}} looks into a parameter of the route's path, which is text", path.text());
            reader.error(span, message, format!("write {{{}}}", path.name));
            return None;
        }
        let part = self.other(&path.name, span, false, reader)?;
        self.can_have(part, &path, span, reader).then_some(ValueOf::Part { part, path: path.steps })
    }

    /// Whether a part of which that is known can have the value.
    fn can_have(&self, part: usize, path: &ValuePath, span: Span, reader: &mut Reader<'_>) -> bool {
        let (message, remedy) = match &self.known[part] {
            Known::Text if !path.steps.is_empty() => {
                ("looks into text", "take `as: text` away, or write its name alone")
            }
            Known::Static(json) if !has_value(json, &path.steps) => (
                "is no single value of what the part says",
                "name one that is a text, a number, true or false",
            ),
            _ => return true,
        };
        reader.error(span, format!("{{{}}} {message}", path.text()), remedy);
        false
    }

    fn claim(&mut self, path: &ValuePath, span: Span, reader: &mut Reader<'_>) -> Option<ValueOf> {
        if !self.ground.is_authenticated {
            let message = format!("{{{}}} needs a token, and this route has no `authenticate`", path.text());
            reader.error(span, message, "add `authenticate: { with: [NAME] }` to the route");
            return None;
        }
        let names: Option<Vec<&str>> = path
            .steps
            .iter()
            .map(|step| match step {
                ValueStep::Member(name) => Some(name.as_str()),
                ValueStep::Element(_) => None,
            })
            .collect();
        match names {
            Some(names) => Some(ValueOf::Claim(names.join("."))),
            None => {
                let message = format!("{{{}}} looks into a list, and a claim is a single value", path.text());
                reader.error(span, message, "name a claim that is a text, a number, true or false");
                None
            }
        }
    }
}

fn has_value(json: &str, path: &[ValueStep]) -> bool {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(json) else { return false };
    let found = path.iter().try_fold(&json, |json, step| match step {
        ValueStep::Member(name) => json.get(name),
        ValueStep::Element(index) => json.get(index),
    });
    found.is_some_and(|value| !(value.is_null() || value.is_object() || value.is_array()))
}

/// The places of a circle, the first of them again at the end, and where its last edge is written.
fn circle(edges: &[Vec<Edge>]) -> Option<(Vec<usize>, Span)> {
    // Places whose needs were all followed without coming back.
    let mut settled = vec![false; edges.len()];
    for start in 0..edges.len() {
        // The way to here, each with the edge to be followed next.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((place, next)) = way.last_mut() {
            let (place, edge) = (*place, edges[*place].get(*next).copied());
            *next += 1;
            match edge {
                _ if settled[place] => {
                    way.pop();
                }
                None => {
                    settled[place] = true;
                    way.pop();
                }
                Some(edge) => {
                    if let Some(at) = way.iter().position(|(known, _)| *known == edge.to) {
                        let mut places: Vec<usize> = way[at..].iter().map(|(place, _)| *place).collect();
                        places.push(edge.to);
                        return Some((places, edge.span));
                    }
                    way.push((edge.to, 0));
                }
            }
        }
    }
    None
}
