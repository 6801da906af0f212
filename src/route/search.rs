//! One look-up: the routes in the order of their precedence, until all conditions of one hold.

use http::Method;

use super::conditions::Sent;
use super::hosts::Site;
use super::methods::MethodSet;
use super::{Entry, Found, Group, Params, Place, Query, Table};

pub(super) struct Search<'t, 'q, T> {
    table: &'t Table<T>,
    query: &'q Query<'q>,
    sent: Sent,
    /// The method that a route must accept.
    method: MethodSet,
    /// A method that a route may name instead: OPTIONS for a preflight.
    instead: MethodSet,
    /// HEAD, when that is asked for: a route that names it comes before one that has it from GET.
    head: MethodSet,
    /// The methods of the routes that matched in all but the method.
    allowed: MethodSet,
    /// The deepest node with a prefix on the way of literal segments, in the site being searched.
    longest_prefix: Option<u32>,
}

impl<'t, 'q, T> Search<'t, 'q, T> {
    pub(super) fn of(table: &'t Table<T>, query: &'q Query<'q>) -> Self {
        let method = table.methods.of(query.method);
        Search {
            table,
            query,
            sent: Sent::Whole,
            method,
            instead: MethodSet::default(),
            head: if query.method == Method::HEAD { method } else { MethodSet::default() },
            allowed: MethodSet::default(),
            longest_prefix: None,
        }
    }

    pub(super) fn of_preflight(table: &'t Table<T>, query: &'q Query<'q>, requested: &Method) -> Self {
        let method = table.methods.of(requested);
        Search {
            sent: Sent::Announced,
            method,
            instead: table.methods.of(&Method::OPTIONS),
            head: if requested == Method::HEAD { method } else { MethodSet::default() },
            ..Search::of(table, query)
        }
    }

    pub(super) fn run(mut self) -> Found {
        let table = self.table;
        let Some(rest) = self.query.path.strip_prefix('/') else { return Found::None };
        for site in table.hosts.sites(self.query.host) {
            if let Some(place) = self.in_site(site, rest) {
                return Found::Route { place, params: params(&table.routes[place.0], rest) };
            }
        }
        match self.allowed.is_empty() {
            true => Found::None,
            false => Found::MethodNotAllowed { allow: table.methods.allow(self.allowed) },
        }
    }

    /// Whole paths, then prefixes from the longest to the shortest, then regexes.
    fn in_site(&mut self, site: &Site, rest: &str) -> Option<Place> {
        self.longest_prefix = None;
        if let Some(place) = self.descend(site.root, Some(rest)) {
            return Some(place);
        }
        let mut at = self.longest_prefix;
        while let Some(node) = at.map(|node| &self.table.nodes[node as usize]) {
            if let Some(place) = self.choose(&node.prefix) {
                return Some(place);
            }
            at = node.shorter_prefix.get();
        }
        site.regexes.iter().find_map(|group| self.choose(group))
    }

    /// Looks for whole paths below a node, literal segments before parameters at every turn. `rest` is
    /// what follows the next slash of the path, `None` at its end. Goes no deeper than the longest route.
    fn descend(&mut self, at: u32, rest: Option<&str>) -> Option<Place> {
        let table = self.table;
        let node = &table.nodes[at as usize];
        if !node.prefix.is_empty() {
            // Prefixes stand on the way of literals only, which is gone first and once: the last is the deepest.
            self.longest_prefix = Some(at);
        }
        let Some(rest) = rest else { return self.choose(&node.exact) };
        // A plain loop over the bytes: segments are short, and searchers are made for long texts.
        let (segment, rest) = match rest.bytes().position(|byte| byte == b'/') {
            Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
            None => (rest, None),
        };
        if node.has_literals
            && let Some(next) =
                table.segments.find(at, segment, |next| table.nodes[next as usize].is_at(at, segment))
            && let Some(place) = self.descend(next, rest)
        {
            return Some(place);
        }
        let next = node.parameter.get().filter(|_| !segment.is_empty())?;
        self.descend(next, rest)
    }

    /// The first route of a group that takes the request.
    fn choose(&mut self, group: &Group) -> Option<Place> {
        let table = self.table;
        let places = || group.places(&table.grouped).iter().map(|&number| Place(number as usize));
        let entry = |place: Place| &table.routes[place.0];
        if !self.head.is_empty() {
            let named = |&place: &Place| entry(place).accepted.written.meets(self.head);
            if let Some(place) = places().filter(named).find(|&place| self.hold(entry(place))) {
                return Some(place);
            }
        }
        for place in places() {
            if !self.hold(entry(place)) {
                continue;
            }
            let accepted = entry(place).accepted;
            if accepted.is_any()
                || accepted.with_head.meets(self.method)
                || accepted.written.meets(self.instead)
            {
                return Some(place);
            }
            self.allowed = self.allowed.with(accepted.with_head);
        }
        None
    }

    /// Whether the route's conditions hold, all but the one on the method.
    fn hold(&self, entry: &Entry<T>) -> bool {
        entry.conditions.as_ref().is_none_or(|conditions| conditions.hold(self.query, self.sent))
    }
}

/// Where the route's parameters stand in the path; `rest` is the path without its first slash.
fn params<T>(entry: &Entry<T>, rest: &str) -> Params {
    let mut params = Params::default();
    if entry.parameters.is_empty() {
        return params;
    }
    let mut wanted = entry.parameters.iter().peekable();
    let mut start = 1;
    // By bytes: see `descend`.
    for (place, segment) in rest.as_bytes().split(|&byte| byte == b'/').enumerate() {
        let Some(&&next) = wanted.peek() else { break };
        if place == usize::from(next) {
            params.push(start, start + segment.len());
            wanted.next();
        }
        start += segment.len() + 1;
    }
    params
}
