//! From targets to sets of instances: resolves the names among them, again and again, and
//! publishes whole sets.
//!
//! Every source ends here. What holds for all of them is decided here once: a name that fails keeps
//! its last addresses and holds up no other name; a set that is empty only because nothing could be
//! asked is not published; nothing is published twice.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::resolver::{self, Resolve, ResolveError};
use super::target::{Host, Target, Wanted};
use crate::service::discovered::{Described, Discovered, MAX_INSTANCES, Publish};

/// How long a changed set waits for names that were never asked before. A file that replaces one
/// name by another must not empty the service for the time of a lookup.
const GRACE: Duration = Duration::from_secs(1);
/// The first pause after a failed lookup; it doubles up to the refresh interval.
const RETRY: Duration = Duration::from_secs(1);
const MAX_LOOKUPS_AT_ONCE: usize = 32;
/// Names that a failure report spells out; the others it counts.
const NAMES_REPORTED: usize = 3;

/// Publishes what `wanted` says, with every name asked again each `refresh`, or sooner when the TTL of its
/// records is shorter. Runs until dropped.
pub async fn publish(
    mut wanted: watch::Receiver<Wanted>,
    refresh: Duration,
    resolver: Arc<dyn Resolve>,
    sink: Arc<dyn Publish>,
    over_tls: bool,
) {
    let mut publisher = Publisher::new(refresh, resolver, sink);
    publisher.want(wanted.borrow_and_update().clone().agreeing(over_tls));
    let mut changed = true;
    loop {
        publisher.ask();
        // Thousands of names are asked again and again, and mostly answer as before.
        if changed {
            publisher.report();
        }
        let deadline = publisher.next_deadline();
        changed = tokio::select! {
            answer = next(&mut publisher.lookups) => publisher.all_answered(answer),
            () = until(deadline) => publisher.hold_is_over(),
            () = change(&mut wanted) => {
                publisher.want(wanted.borrow_and_update().clone().agreeing(over_tls));
                true
            }
        }
    }
}

struct Publisher {
    refresh: Duration,
    resolver: Arc<dyn Resolve>,
    sink: Arc<dyn Publish>,
    wanted: Wanted,
    names: HashMap<Arc<str>, Name>,
    lookups: JoinSet<Answer>,
    hold_until: Option<Instant>,
    published: Option<Vec<Discovered>>,
    described: Described,
    fault: Option<String>,
}

type Answer = (Arc<str>, Result<resolver::Answer<IpAddr>, ResolveError>);

/// What is known of a name.
struct Name {
    /// The last good answer, `None` before the first one.
    addresses: Option<Vec<IpAddr>>,
    failure: Option<ResolveError>,
    failures: u32,
    due: Instant,
    lookup: Option<Id>,
}

impl Name {
    fn new() -> Self {
        Name { addresses: None, failure: None, failures: 0, due: Instant::now(), lookup: None }
    }

    fn was_asked(&self) -> bool {
        self.addresses.is_some() || self.failure.is_some()
    }
}

impl Publisher {
    fn new(refresh: Duration, resolver: Arc<dyn Resolve>, sink: Arc<dyn Publish>) -> Self {
        Publisher {
            refresh,
            resolver,
            sink,
            wanted: Wanted::default(),
            names: HashMap::new(),
            lookups: JoinSet::new(),
            hold_until: None,
            published: None,
            described: Described::default(),
            fault: None,
        }
    }

    fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        let needed: HashSet<Arc<str>> = self
            .targets()
            .iter()
            .filter_map(|target| match &target.host {
                Host::Name(name) => Some(name.clone()),
                Host::Address(_) => None,
            })
            .collect();
        self.names.retain(|name, _| needed.contains(name));
        for name in needed {
            self.names.entry(name).or_insert_with(Name::new);
        }
        // From the first of many changes on: a set that changes all the time is published all the same.
        self.hold_until.get_or_insert_with(|| Instant::now() + GRACE);
    }

    fn targets(&self) -> &[Target] {
        self.wanted.targets.as_deref().unwrap_or_default()
    }

    /// Starts the lookups that are due.
    fn ask(&mut self) {
        let now = Instant::now();
        for (name, state) in &mut self.names {
            if state.lookup.is_some() || state.due > now {
                continue;
            }
            if self.lookups.len() >= MAX_LOOKUPS_AT_ONCE {
                return;
            }
            let (resolver, name) = (self.resolver.clone(), name.clone());
            let task = self.lookups.spawn(async move {
                let answer = resolver.addresses(&name).await;
                (name, answer)
            });
            state.lookup = Some(task.id());
        }
    }

    /// Takes this answer and whatever else is there; says whether anything is different now.
    fn all_answered(&mut self, first: Result<Answer, JoinError>) -> bool {
        let mut changed = self.answered(first);
        while let Some(answer) = self.lookups.try_join_next() {
            changed |= self.answered(answer);
        }
        changed
    }

    fn answered(&mut self, answer: Result<Answer, JoinError>) -> bool {
        let (name, answer) = match answer {
            Ok(answer) => answer,
            // Only a panic ends a lookup early; it must not end the asking.
            Err(error) => {
                let Some((name, _)) = self.names.iter().find(|(_, state)| state.lookup == Some(error.id()))
                else {
                    return false;
                };
                (name.clone(), Err(ResolveError::Failed("the resolver broke off".into())))
            }
        };
        // A name that is no longer wanted may still be answered.
        let Some(state) = self.names.get_mut(&name) else { return false };
        state.lookup = None;
        match answer {
            Ok(answer) => {
                state.due = Instant::now() + answer.refresh(self.refresh);
                let mut addresses = answer.records;
                // Name servers rotate their answers; a set must not change because of that.
                addresses.sort_unstable();
                let changed = state.failure.is_some() || state.addresses.as_ref() != Some(&addresses);
                state.addresses = Some(addresses);
                state.failure = None;
                state.failures = 0;
                changed
            }
            Err(failure) => {
                let pause = RETRY.saturating_mul(1 << state.failures.min(16));
                let changed = state.failure.as_ref() != Some(&failure);
                state.failure = Some(failure);
                state.failures = state.failures.saturating_add(1);
                state.due = Instant::now() + pause.min(self.refresh);
                changed
            }
        }
    }

    fn hold_is_over(&self) -> bool {
        self.hold_until.is_some_and(|until| Instant::now() >= until)
    }

    /// The next moment at which something is to be done without any event.
    fn next_deadline(&self) -> Option<Instant> {
        let due = match self.lookups.len() < MAX_LOOKUPS_AT_ONCE {
            true => self.names.values().filter(|name| name.lookup.is_none()).map(|name| name.due).min(),
            false => None,
        };
        let hold = self.hold_until.filter(|_| self.names.values().any(|name| !name.was_asked()));
        due.into_iter().chain(hold).min()
    }

    fn report(&mut self) {
        let mut faults: Vec<String> = self.wanted.fault.iter().cloned().collect();
        if let Some((set, dropped)) = self.ready() {
            if dropped > 0 {
                faults.push(format!("{dropped} instances beyond the first {MAX_INSTANCES} are left out"));
            }
            if self.published.as_ref() != Some(&set) {
                self.sink.publish(set.clone());
                self.published = Some(set);
            }
            let described = self.described();
            if self.described != described {
                self.sink.describe(described.clone());
                self.described = described;
            }
        }
        faults.extend(self.failing_names());
        let fault = (!faults.is_empty()).then(|| faults.join("; "));
        if fault != self.fault {
            match &fault {
                Some(what) => self.sink.source_failed(what),
                None => self.sink.source_recovered(),
            }
            self.fault = fault;
        }
    }

    /// The set to publish now and how many instances it had to leave out, or nothing as long as
    /// publishing would say more than is known.
    fn ready(&mut self) -> Option<(Vec<Discovered>, usize)> {
        self.wanted.targets.as_ref()?;
        if let Some(until) = self.hold_until {
            if Instant::now() < until && self.names.values().any(|name| !name.was_asked()) {
                return None;
            }
            self.hold_until = None;
        }
        let (set, dropped) = compose(self.targets(), |host| self.addresses(host));
        let said_so = self.names.values().all(|name| name.addresses.is_some());
        (said_so || !set.is_empty()).then_some((set, dropped))
    }

    /// What the source tells beyond the set. Of two targets with one address the first counts, as it does there.
    fn described(&self) -> Described {
        let mut instances = HashMap::new();
        for target in self.targets() {
            let Some(description) = &target.description else { continue };
            for ip in self.addresses(&target.host) {
                instances.entry(SocketAddr::new(*ip, target.port)).or_insert_with(|| description.clone());
            }
        }
        Described { metadata: self.wanted.metadata.clone(), instances }
    }

    fn addresses<'a>(&'a self, host: &'a Host) -> &'a [IpAddr] {
        match host {
            Host::Address(_) => literal(host),
            Host::Name(name) => {
                self.names.get(name).and_then(|name| name.addresses.as_deref()).unwrap_or_default()
            }
        }
    }

    fn failing_names(&self) -> Option<String> {
        let mut failing: Vec<_> = self
            .names
            .iter()
            .filter_map(|(name, state)| state.failure.as_ref().map(|failure| (name, failure)))
            .collect();
        failing.sort_unstable_by_key(|(name, _)| *name);
        let mut texts: Vec<String> =
            failing.iter().take(NAMES_REPORTED).map(|(name, failure)| format!("{name}: {failure}")).collect();
        if failing.len() > NAMES_REPORTED {
            texts.push(format!("and {} more names", failing.len() - NAMES_REPORTED));
        }
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

/// The set that needs no name resolved.
pub fn literals(targets: &[Target]) -> Vec<Discovered> {
    compose(targets, literal).0
}

fn literal(host: &Host) -> &[IpAddr] {
    match host {
        Host::Address(ip) => std::slice::from_ref(ip),
        Host::Name(_) => &[],
    }
}

/// One instance for each address, the first target that has it; how many were too many.
fn compose<'a>(
    targets: &'a [Target],
    addresses: impl Fn(&'a Host) -> &'a [IpAddr],
) -> (Vec<Discovered>, usize) {
    let mut seen = HashSet::with_capacity_and_hasher(targets.len(), foldhash::fast::RandomState::default());
    let mut set = Vec::with_capacity(targets.len().min(MAX_INSTANCES));
    let mut dropped = 0;
    for target in targets {
        for ip in addresses(&target.host) {
            let address = SocketAddr::new(*ip, target.port);
            if !seen.insert(address) {
                continue;
            }
            if set.len() == MAX_INSTANCES {
                dropped += 1;
                continue;
            }
            set.push(Discovered {
                address,
                weight: target.weight,
                authority: target.authority.clone(),
                zone: target.zone.clone(),
                priority: target.priority,
            });
        }
    }
    (set, dropped)
}

async fn next(lookups: &mut JoinSet<Answer>) -> Result<Answer, JoinError> {
    match lookups.join_next().await {
        Some(answer) => answer,
        None => std::future::pending().await,
    }
}

/// A source that has said its last word never changes it.
async fn change(wanted: &mut watch::Receiver<Wanted>) {
    if wanted.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
