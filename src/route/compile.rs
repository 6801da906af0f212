//! Matches → [`Table`]: path trees, host names and groups in the order of precedence.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use crate::config::{self, HostPattern, PathMatch};
use crate::http::host::{self, HostError};
use crate::http::path::PathError;
use crate::http::template::MAX_PARAMETERS;

use super::conditions::{Conditions, anchored};
use super::hosts::{Hosts, Pattern, Site};
use super::index::Index;
use super::label::Label;
use super::methods::Methods;
use super::pattern::{MAX_SEGMENTS, Segment, path_segments, prefix_segments};
use super::{Entry, Group, Link, Node, Table};

/// A route that can't be compiled.
#[derive(Debug, thiserror::Error)]
#[error("route {route} can't be matched")]
pub struct CompileError {
    /// Its place among the routes, from 0.
    pub route: usize,
    #[source]
    pub cause: Cause,
}

/// Why a route can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("a path begins with a slash")]
    NotAbsolute,
    #[error("the path is invalid")]
    Path(#[source] PathError),
    #[error("the path has an empty segment or a dot segment, which no normalised request has")]
    EmptyOrDotSegment,
    #[error("braces stand around the name of a whole segment of a path, and nowhere else")]
    Braces,
    #[error("the path has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    #[error("the path has more than {MAX_PARAMETERS} parameters")]
    TooManyParameters,
    #[error("the host is invalid")]
    Host(#[source] HostError),
    #[error("the regex is invalid")]
    Regex(#[source] regex::Error),
    #[error("the routes name more than 55 different methods of their own")]
    TooManyMethods,
}

pub(super) fn compile<T>(routes: impl Iterator<Item = (config::Match, T)>) -> Result<Table<T>, CompileError> {
    let mut compiler = Compiler::default();
    for (number, (matches, value)) in routes.enumerate() {
        compiler.add(matches, value).map_err(|cause| CompileError { route: number, cause })?;
    }
    Ok(compiler.finish())
}

struct Compiler<T> {
    routes: Vec<Entry<T>>,
    sites: BTreeMap<Pattern, GrowingSite>,
    nodes: Vec<GrowingNode>,
    segments: Index,
    methods: Methods,
    /// The same pattern is compiled once.
    regexes: HashMap<String, regex::bytes::Regex>,
}

struct GrowingSite {
    root: u32,
    /// By the length of the pattern, the longest first.
    regexes: BTreeMap<Reverse<usize>, Vec<u32>>,
}

struct GrowingNode {
    parent: Option<u32>,
    label: Label,
    has_literals: bool,
    parameter: Option<u32>,
    exact: Vec<u32>,
    prefix: Vec<u32>,
}

impl GrowingNode {
    fn below(parent: Option<u32>, segment: &str) -> Self {
        GrowingNode {
            parent,
            label: Label::new(segment),
            has_literals: false,
            parameter: None,
            exact: Vec::new(),
            prefix: Vec::new(),
        }
    }
}

/// Where a route belongs within a site.
enum Place {
    Exact(Vec<Segment>),
    Prefix(Vec<String>),
    Regex(usize),
}

impl<T> Default for Compiler<T> {
    fn default() -> Self {
        Compiler {
            routes: Vec::new(),
            sites: BTreeMap::new(),
            nodes: Vec::new(),
            segments: Index::new(),
            methods: Methods::default(),
            regexes: HashMap::new(),
        }
    }
}

impl<T> Compiler<T> {
    fn add(&mut self, matches: config::Match, value: T) -> Result<(), Cause> {
        let number = count(self.routes.len());
        let (place, regex) = self.place(&matches.path)?;
        let mut patterns = matches.hosts.iter().map(host_pattern).collect::<Result<Vec<_>, _>>()?;
        if patterns.is_empty() {
            patterns.push(Pattern::Any);
        }
        patterns.sort_unstable();
        patterns.dedup();
        self.routes.push(Entry {
            value,
            accepted: self.methods.accept(&matches.methods).ok_or(Cause::TooManyMethods)?,
            conditions: Conditions::compile(regex, matches.headers, matches.query).map_err(Cause::Regex)?,
            parameters: parameter_places(&place),
        });
        for pattern in patterns {
            self.add_to_site(pattern, &place, number);
        }
        Ok(())
    }

    fn place(&mut self, path: &PathMatch) -> Result<(Place, Option<regex::bytes::Regex>), Cause> {
        Ok(match path {
            PathMatch::Path(text) => (Place::Exact(path_segments(text)?), None),
            PathMatch::Prefix(text) => (Place::Prefix(prefix_segments(text)?), None),
            PathMatch::Regex(pattern) => {
                let regex = match self.regexes.get(&pattern.value) {
                    Some(known) => known.clone(),
                    None => anchored(pattern).map_err(Cause::Regex)?,
                };
                self.regexes.insert(pattern.value.clone(), regex.clone());
                (Place::Regex(pattern.value.len()), Some(regex))
            }
        })
    }

    fn add_to_site(&mut self, pattern: Pattern, place: &Place, number: u32) {
        let nodes = &mut self.nodes;
        let site = self.sites.entry(pattern).or_insert_with(|| {
            nodes.push(GrowingNode::below(None, ""));
            GrowingSite { root: count(nodes.len() - 1), regexes: BTreeMap::new() }
        });
        match place {
            Place::Regex(length) => site.regexes.entry(Reverse(*length)).or_default().push(number),
            Place::Exact(segments) => {
                let mut at = site.root;
                for segment in segments {
                    at = match segment {
                        Segment::Literal(text) => self.literal_below(at, text),
                        Segment::Parameter => self.parameter_below(at),
                    };
                }
                self.nodes[at as usize].exact.push(number);
            }
            Place::Prefix(segments) => {
                let root = site.root;
                let end = segments.iter().fold(root, |at, segment| self.literal_below(at, segment));
                self.nodes[end as usize].prefix.push(number);
            }
        }
    }

    fn literal_below(&mut self, parent: u32, segment: &str) -> u32 {
        let nodes = &self.nodes;
        let is_at = |node: u32| {
            let node = &nodes[node as usize];
            node.parent == Some(parent) && node.label.is(segment)
        };
        if let Some(known) = self.segments.find(parent, segment, is_at) {
            return known;
        }
        let node = self.node_below(parent, segment);
        self.nodes[parent as usize].has_literals = true;
        self.segments.insert(parent, segment, node);
        node
    }

    fn parameter_below(&mut self, parent: u32) -> u32 {
        if let Some(known) = self.nodes[parent as usize].parameter {
            return known;
        }
        let node = self.node_below(parent, "");
        self.nodes[parent as usize].parameter = Some(node);
        node
    }

    fn node_below(&mut self, parent: u32, segment: &str) -> u32 {
        self.nodes.push(GrowingNode::below(Some(parent), segment));
        count(self.nodes.len() - 1)
    }

    fn finish(self) -> Table<T> {
        let mut groups = Groups { routes: &self.routes, grouped: Vec::new() };
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len());
        for growing in self.nodes {
            // Parents come before their children, so theirs is known already.
            let parent = growing.parent.map(|at| (at, &nodes[at as usize]));
            let shorter_prefix = parent.map_or(Link::NONE, |(at, node)| {
                if node.prefix.is_empty() { node.shorter_prefix } else { Link(at) }
            });
            nodes.push(Node {
                // No node is below the last that could be numbered.
                parent: growing.parent.unwrap_or(u32::MAX),
                label: growing.label,
                has_literals: growing.has_literals,
                parameter: growing.parameter.into(),
                exact: groups.add(growing.exact),
                prefix: groups.add(growing.prefix),
                shorter_prefix,
            });
        }
        let mut sites = Vec::with_capacity(self.sites.len());
        for (pattern, growing) in self.sites {
            let regexes = growing.regexes.into_values().map(|routes| groups.add(routes)).collect();
            sites.push((pattern, Site { root: growing.root, regexes }));
        }
        let grouped = groups.grouped;
        let (segments, methods) = (self.segments, self.methods);
        Table { routes: self.routes, hosts: Hosts::new(sites), nodes, segments, grouped, methods }
    }
}

struct Groups<'r, T> {
    routes: &'r [Entry<T>],
    grouped: Vec<u32>,
}

impl<T> Groups<'_, T> {
    /// Sorts by what precedence is left when host and path are equal.
    fn add(&mut self, mut routes: Vec<u32>) -> Group {
        routes.sort_unstable_by_key(|&number| {
            let Entry { accepted, conditions, .. } = &self.routes[number as usize];
            let (headers, query) = conditions.as_ref().map_or((0, 0), |conditions| conditions.counts());
            (accepted.is_any(), Reverse(headers), Reverse(query), number)
        });
        match routes[..] {
            [] => Group::Empty,
            [only] => Group::One(only),
            _ => {
                let start = count(self.grouped.len());
                self.grouped.append(&mut routes);
                Group::Many { start, end: count(self.grouped.len()) }
            }
        }
    }
}

fn host_pattern(pattern: &HostPattern) -> Result<Pattern, Cause> {
    let name = |text: &str| host::parse(text).map(|host| host.name.into_owned()).map_err(Cause::Host);
    Ok(match pattern {
        HostPattern::Exact(text) => Pattern::Exact(name(text)?),
        HostPattern::Wildcard(text) => Pattern::Wildcard(name(text)?),
    })
}

fn parameter_places(place: &Place) -> Box<[u16]> {
    let Place::Exact(segments) = place else { return Box::default() };
    // `path_segments` admits no more than MAX_SEGMENTS.
    (0u16..)
        .zip(segments)
        .filter(|(_, segment)| **segment == Segment::Parameter)
        .map(|(place, _)| place)
        .collect()
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a configuration is bounded far below 4 GiB, and so are the things in it")
}
