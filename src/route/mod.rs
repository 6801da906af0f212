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
    /// The path trees of all hosts. The edges between them are in `segments`.
    nodes: Vec<Node>,
    /// From a node and a literal segment to the next node.
    segments: Index,
    /// The routes of every [`Group`], by their place in `routes`.
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

/// The outcome of a look-up.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<'t, T> {
    Route {
        value: &'t T,
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
    pub fn find(&self, query: &Query<'_>) -> Found<'_, T> {
        Search::of(self, query).run()
    }

    /// The route that the request announced by a CORS preflight would take; `requested` is its
    /// `Access-Control-Request-Method`. A route that names OPTIONS itself is found too, by its own
    /// precedence. Of the announced request's fields only names are known: a condition on a field in
    /// `Access-Control-Request-Headers` is taken to hold.
    pub fn find_preflight(&self, query: &Query<'_>, requested: &Method) -> Found<'_, T> {
        Search::of_preflight(self, query, requested).run()
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    accepted: Accepted,
    conditions: Conditions,
    /// Which segments of the path are the route's parameters, ascending.
    parameters: Box<[u16]>,
}

/// A place in a tree of path segments. Every host has a tree of its own.
#[derive(Debug)]
struct Node {
    has_literals: bool,
    /// The next node for any non-empty segment.
    parameter: Option<u32>,
    /// Routes whose whole path ends here.
    exact: Group,
    /// Routes whose prefix ends here. Empty below a parameter.
    prefix: Group,
    /// The nearest node above this one with a prefix.
    shorter_prefix: Option<u32>,
}

/// Routes of one host and one level of path precedence: a range of [`Table::grouped`], in the order
/// method given, more header conditions, more query conditions, place in the file.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    start: u32,
    end: u32,
}

impl Group {
    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}
