//! From the host of a request to the path trees to search, the most specific first.

use super::Group;
use super::index::Index;

/// The two kinds of names in the index.
const EXACT: u32 = 0;
const WILDCARD: u32 = 1;

#[derive(Debug)]
pub(super) struct Hosts {
    index: Index,
    names: Vec<Name>,
    sites: Vec<Site>,
    /// The site of routes for any host.
    any: Option<u32>,
}

#[derive(Debug)]
struct Name {
    kind: u32,
    text: Box<str>,
    site: u32,
}

/// What the routes of one host pattern compile to.
#[derive(Debug)]
pub(super) struct Site {
    /// The node of `/` in [`super::Table::nodes`].
    pub(super) root: u32,
    /// Routes by regex: one group for each length of a pattern, the longest first.
    pub(super) regexes: Box<[Group]>,
}

/// A host pattern as a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Pattern {
    Exact(String),
    /// The labels behind `*.`.
    Wildcard(String),
    Any,
}

impl Hosts {
    pub(super) fn new(sites: impl IntoIterator<Item = (Pattern, Site)>) -> Self {
        let mut hosts = Hosts { index: Index::new(), names: Vec::new(), sites: Vec::new(), any: None };
        for (pattern, site) in sites {
            let number =
                u32::try_from(hosts.sites.len()).expect("a configuration has fewer hosts than u32 counts");
            match pattern {
                Pattern::Exact(name) => hosts.add(EXACT, name, number),
                Pattern::Wildcard(suffix) => hosts.add(WILDCARD, suffix, number),
                Pattern::Any => hosts.any = Some(number),
            }
            hosts.sites.push(site);
        }
        hosts
    }

    fn add(&mut self, kind: u32, text: String, site: u32) {
        let place = u32::try_from(self.names.len()).expect("there are no more names than sites");
        self.index.insert(kind, &text, place);
        self.names.push(Name { kind, text: text.into(), site });
    }

    fn find(&self, kind: u32, text: &str) -> Option<u32> {
        let name = |place: u32| &self.names[place as usize];
        let is_at = |place| name(place).kind == kind && *name(place).text == *text;
        self.index.find(kind, text, is_at).map(|place| name(place).site)
    }

    /// The sites that a host belongs to: its own, then those of wildcards, the longest first, then the
    /// one for any host. A wildcard stands for one label or more.
    pub(super) fn sites<'h>(&'h self, host: &'h str) -> impl Iterator<Item = &'h Site> {
        // Without names there is nothing to look up on the way through the labels.
        let mut rest = if self.index.is_empty() { "" } else { host };
        let wildcards = std::iter::from_fn(move || {
            loop {
                // A plain loop: labels are short, and searchers are made for long texts.
                rest = &rest[rest.bytes().position(|byte| byte == b'.')? + 1..];
                if let Some(number) = self.find(WILDCARD, rest) {
                    return Some(number);
                }
            }
        });
        let exact = self.find(EXACT, host);
        exact
            .into_iter()
            .chain(wildcards)
            .chain(self.any)
            .filter_map(|number| self.sites.get(number as usize))
    }
}
