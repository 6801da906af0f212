//! Aggregates: the parts of one document, what each needs, and what becomes of it.

use std::time::Duration;

use http::{HeaderName, Method};

use super::{Hedging, Ref, RetriesGiven, StaleIfError, StatusRange};
use crate::config::secret::Secret;

/// Parts are named by their places in `parts` throughout; `load` has checked that they form no cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// One deadline for all parts. Default 10 s.
    pub timeout: Duration,
    /// In the order in which they are written. Never empty.
    pub parts: Vec<Part>,
    pub append: Vec<Append>,
    pub server_timing: Option<ServerTiming>,
    pub stream: Stream,
}

/// Whether the parts go out as they come, rather than all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    #[default]
    Off,
    /// One document, or lines for a client that prefers these.
    Document,
    /// A line of JSON for each part.
    Lines,
}

/// Who may ask how long the parts took: whose request has this field with this value.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerTiming {
    pub header: HeaderName,
    pub value: Secret,
}

/// The arrays of several parts as one, where the first of these stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    pub name: String,
    /// Never empty. No part is in two.
    pub of: Vec<usize>,
    /// The value of an element that decides where it stands.
    pub sort_by: Option<Vec<ValueStep>>,
    pub descending: bool,
    pub limit: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ForEach {
    pub from: usize,
    /// A JSONPath from the other part's answer.
    pub query: String,
    /// The member under which each answer stands in its element.
    pub into: Option<String>,
    /// Default 8.
    pub concurrency: usize,
    /// Default 100.
    pub max_items: usize,
    pub batch: Option<Batch>,
}

/// Many elements in one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Of the query.
    pub parameter: String,
    /// Where an element has its key; empty: it is that.
    pub value: Vec<ValueStep>,
    /// Where an element of the answer has it.
    pub key: Vec<ValueStep>,
    /// Default 50.
    pub size: usize,
}

/// What of an answer stands in the document, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartShape {
    /// A JSONPath of RFC 9535.
    pub select: Option<String>,
    /// Empty: all.
    pub allow: Vec<Vec<FieldStep>>,
    pub deny: Vec<Vec<FieldStep>>,
    pub rename: Vec<(Vec<FieldStep>, String)>,
    pub wrap: Option<String>,
    /// Its members stand in the root.
    pub merge: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldStep {
    Member(String),
    /// Every element of an array.
    Each,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub name: String,
    pub source: PartSource,
    /// The parts that it waits for: those that it names with `after` and those whose values it uses.
    pub needs: Vec<usize>,
    pub required: bool,
    pub fallback: PartFallback,
    pub shape: PartShape,
    /// It is asked once for each element of another part.
    pub for_each: Option<ForEach>,
    /// It stands in no document.
    pub hidden: bool,
}

impl Aggregate {
    /// The parts by the turn in which they can begin: those of the first need nothing, those of the next only such before.
    pub fn stages(&self) -> Vec<Vec<usize>> {
        let mut stage_of: Vec<Option<usize>> = vec![None; self.parts.len()];
        // Every round finds the stage of one part more at least, since there is no cycle.
        for _ in 0..self.parts.len() {
            for (place, part) in self.parts.iter().enumerate() {
                let needed: Option<Vec<usize>> = part.needs.iter().map(|need| stage_of[*need]).collect();
                if let (None, Some(needed)) = (stage_of[place], needed) {
                    stage_of[place] = Some(needed.into_iter().max().map_or(0, |last| last + 1));
                }
            }
        }
        let last = stage_of.iter().flatten().max().map_or(0, |last| last + 1);
        let of_stage = |stage| (0..stage_of.len()).filter(|place| stage_of[*place] == Some(stage)).collect();
        (0..last).map(of_stage).collect()
    }

    /// Whether the part is asked only when one that names it as its fallback has failed.
    pub fn is_spare(&self, place: usize) -> bool {
        self.parts[place].hidden
            && self.parts.iter().any(|part| part.fallback == PartFallback::Part(place))
            && !self.parts.iter().any(|part| part.needs.contains(&place))
    }
}

/// What stands in for a part that failed.
#[derive(Clone, Debug, PartialEq)]
pub enum PartFallback {
    /// Compact JSON; `null` when none is given.
    Value(String),
    Part(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub enum PartSource {
    Call(Box<PartCall>),
    /// Compact JSON.
    Static(String),
}

impl Part {
    pub fn call(&self) -> Option<&PartCall> {
        match &self.source {
            PartSource::Call(call) => Some(call),
            PartSource::Static(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct PartCall {
    pub service: Ref,
    /// Default GET, or POST with a body.
    pub method: Method,
    pub path: PartTemplate,
    pub body: Option<Vec<BodyPiece>>,
    /// The client's fields that are passed on. `None`: all.
    pub forward_headers: Option<Vec<HeaderName>>,
    /// The answer is text, which becomes a JSON string.
    pub is_text: bool,
    /// Set in place of the client's.
    pub headers: Vec<(HeaderName, PartTemplate)>,
    /// Statuses with which the part has succeeded. Empty: 200 to 299.
    pub accept_status: Vec<StatusRange>,
    /// Of this part, within that of the whole.
    pub timeout: Option<Duration>,
    /// Of the part's response. Without it 1 MiB, and no bound where it is passed through as it comes.
    pub max_body: Option<u64>,
    pub stale_if_error: Option<StaleIfError>,
    /// What is not given is the service's.
    pub retries: RetriesGiven,
    /// In place of the service's.
    pub hedging: Option<Hedging>,
}

/// Text with values put in.
#[derive(Clone, Debug, PartialEq)]
pub struct PartTemplate(pub Vec<PartPiece>);

#[derive(Clone, Debug, PartialEq)]
pub enum PartPiece {
    Literal(String),
    Value(ValueOf),
}

/// JSON with values put in.
#[derive(Clone, Debug, PartialEq)]
pub enum BodyPiece {
    Literal(String),
    /// A JSON value.
    Whole(ValueOf),
    /// Characters of a JSON string.
    Within(ValueOf),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueOf {
    /// A parameter of the route's path.
    Parameter(String),
    /// Out of the answer of another part.
    Part { part: usize, path: Vec<ValueStep> },
    /// A claim of the verified token, by its name or a path of names with dots.
    Claim(String),
    /// Out of the element that the part is asked for.
    Item(Vec<ValueStep>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueStep {
    Member(String),
    Element(usize),
}

impl PartTemplate {
    /// As it was written.
    pub fn text(&self, parts: &[Part]) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            PartPiece::Literal(text) => text.clone(),
            PartPiece::Value(value) => format!("{{{}}}", value.text(parts)),
        });
        pieces.collect()
    }
}

impl ValueOf {
    fn text(&self, parts: &[Part]) -> String {
        match self {
            ValueOf::Parameter(name) => name.clone(),
            ValueOf::Claim(name) => format!("claims.{name}"),
            ValueOf::Part { part, path } => parts[*part].name.clone() + &way(path),
            ValueOf::Item(path) => "item".to_owned() + &way(path),
        }
    }
}

fn way(steps: &[ValueStep]) -> String {
    let steps = steps.iter().map(|step| match step {
        ValueStep::Member(name) => format!(".{name}"),
        ValueStep::Element(index) => format!("[{index}]"),
    });
    steps.collect()
}
