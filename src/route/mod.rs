//! Host, path and predicates → at most one route.
//!
//! A [`Table`] is compiled once per configuration and never changes; a look-up allocates nothing and
//! takes no lock. It goes through the routes in the order of their precedence, which is a total one
//! (`docs/routing.md`), and stops at the first whose every condition holds. It visits only those whose
//! host and path match, so its cost follows the length of the path and not the number of routes.

mod compile;
mod conditions;
mod hosts;
mod index;
mod label;
mod methods;
mod pattern;
#[cfg(test)]
mod reference;
mod search;
#[cfg(test)]
mod tests;

use http::{HeaderValue, Method};

use crate::config;
use crate::http::fields::Fields;
use conditions::Conditions;
use hosts::Hosts;
use index::Index;
use label::Label;
use methods::{Accepted, Methods};
use search::Search;

pub use crate::http::template::Params;
pub use compile::{Cause, CompileError};
pub use pattern::parameter_names;

/// Routes by host and path, each with what the caller keeps for it.
#[derive(Debug)]
pub struct Table<T> {
    /// In the order of the file.
    routes: Vec<Entry<T>>,
    hosts: Hosts,
    /// The path trees of all hosts.
    nodes: Vec<Node>,
    /// From a node and a literal segment to the next node.
    segments: Index,
    /// The routes of every [`Group`] of several, by their place in `routes`.
    grouped: Vec<u32>,
    methods: Methods,
}

/// What a look-up is about. Borrowed from one request.
#[derive(Clone, Copy, Debug)]
pub struct Query<'q> {
    /// As [`crate::http::host::Host::name`] has it.
    pub host: &'q str,
    /// As [`crate::http::path::normalise`] has it.
    pub path: &'q str,
    pub method: &'q Method,
    pub headers: &'q Fields,
    /// What follows the `?`, as it was sent.
    pub query: Option<&'q str>,
}

/// Where a route stands in its table: `table[place]` is what the caller keeps for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

impl Place {
    /// From 0, below the table's length.
    pub fn number(self) -> usize {
        self.0
    }
}

/// The outcome of a look-up.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Route {
        place: Place,
        params: Params,
    },
    /// Routes match in all but the method. `allow` has every method with which this same request would
    /// have found a route (RFC 9110 §15.5.6).
    MethodNotAllowed {
        allow: HeaderValue,
    },
    None,
}

impl<T> Table<T> {
    /// Compiles routes, given in the order of the file.
    pub fn compile(routes: impl IntoIterator<Item = (config::Match, T)>) -> Result<Self, CompileError> {
        compile::compile(routes.into_iter())
    }

    /// The route that a request takes.
    pub fn find(&self, query: &Query<'_>) -> Found {
        Search::of(self, query).run()
    }

    /// The route that the request announced by a CORS preflight would take; `requested` is its
    /// `Access-Control-Request-Method`. A route that names OPTIONS itself is found too, by its own
    /// precedence. Of the announced request's fields only names are known: a condition on a field in
    /// `Access-Control-Request-Headers` is taken to hold.
    pub fn find_preflight(&self, query: &Query<'_>, requested: &Method) -> Found {
        Search::of_preflight(self, query, requested).run()
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

impl<T> std::ops::Index<Place> for Table<T> {
    type Output = T;

    fn index(&self, place: Place) -> &T {
        &self.routes[place.0].value
    }
}

/// With many routes, each that a request goes through is out of the nearer caches: what a look-up needs
/// of a route, and what the caller keeps for it, lie beside each other and begin a cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Entry<T> {
    accepted: Accepted,
    /// Most routes have none.
    conditions: Option<Box<Conditions>>,
    /// Which segments of the path are the route's parameters, ascending.
    parameters: Box<[u16]>,
    value: T,
}

/// What the caller keeps has room for three pointers.
const _: () = assert!(size_of::<Entry<[usize; 3]>>() == 64);

/// A node in a tree of path segments. Every host has a tree of its own. A node is one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Node {
    /// The edge that leads here: the node above, and the segment behind that. Roots have none, and that of a
    /// parameter is never looked up.
    parent: u32,
    label: Label,
    has_literals: bool,
    /// The next node for any non-empty segment.
    parameter: Link,
    /// Routes whose whole path ends here.
    exact: Group,
    /// Routes whose prefix ends here. Empty below a parameter.
    prefix: Group,
    /// The nearest node above this one with a prefix.
    shorter_prefix: Link,
}

const _: () = assert!(size_of::<Node>() == 64);

/// The number of a node, or of none.
#[derive(Clone, Copy, Debug)]
struct Link(u32);

impl Link {
    const NONE: Link = Link(u32::MAX);

    fn get(self) -> Option<u32> {
        (self.0 != Link::NONE.0).then_some(self.0)
    }
}

impl From<Option<u32>> for Link {
    fn from(node: Option<u32>) -> Self {
        node.map_or(Link::NONE, Link)
    }
}

impl Node {
    fn is_at(&self, parent: u32, segment: &str) -> bool {
        self.parent == parent && self.label.is(segment)
    }
}

/// Routes of one host and one level of path precedence, in the order method given, more header conditions, more
/// query conditions, place in the file. Most groups are of one route, which is found without another look-up.
#[derive(Clone, Copy, Debug)]
enum Group {
    Empty,
    One(u32),
    /// A range of [`Table::grouped`].
    Many {
        start: u32,
        end: u32,
    },
}

impl Group {
    fn places<'g>(&'g self, grouped: &'g [u32]) -> &'g [u32] {
        match self {
            Group::Empty => &[],
            Group::One(place) => std::slice::from_ref(place),
            Group::Many { start, end } => &grouped[*start as usize..*end as usize],
        }
    }

    fn is_empty(self) -> bool {
        matches!(self, Group::Empty)
    }
}
