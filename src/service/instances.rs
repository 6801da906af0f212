//! The living part of a service: the present set of its instances.
//!
//! A set is replaced as a whole, in one atomic step, and never changed: whoever reads it sees the
//! instances and the order that belongs to them. An instance that is in two sets after one another is
//! the same object in both, with its breaker, health and load.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use http::HeaderValue;
use tokio::sync::watch;

use super::balance::FAR;
use super::discovered::{Described, Discovered, MAX_PRIORITY, Publish};
use super::groups::{AT_ONCE, Group, Survey, arrange};
use super::instance::{Health, Instance, InstanceRef};
use super::settings::BreakerOf;
use super::sticky::{SessionCode, SessionCodes, SessionKey};
use super::tls::UpstreamTls;
use crate::clock::{self, Millis};
use crate::per_worker::{PerWorker, WorkerId};

#[derive(Debug)]
pub struct Instances {
    set: ArcSwap<InstanceSet>,
    workers: usize,
    /// The one whose instances are preferred.
    local_zone: Option<Arc<str>>,
    /// Also what makes publishers take turns. Workers never touch it.
    source: Mutex<SourceStatus>,
    /// Whether requests come by their key, so that every set needs a ring.
    by_key: AtomicBool,
    /// Those requests, to any of the instances.
    in_flight: Arc<PerWorker<AtomicU32>>,
    /// Of a service without a secret of its own.
    random_key: SessionKey,
    /// Whether clients stay with instances, and how.
    session_key: Mutex<Option<SessionKey>>,
    /// So few instances are healthy that health is not asked for.
    panicking: AtomicBool,
    /// When the service came to have instances after it had none, in milliseconds.
    filled_at: AtomicU64,
    published: watch::Sender<u64>,
    /// Sets of the past that a worker may still be looking at.
    retired: Mutex<Vec<Arc<InstanceSet>>>,
    /// The routes whose requests go by a breaker of their own.
    route_breakers: ArcSwap<Vec<RouteBreaker>>,
    /// For those who look after instances beside the requests.
    tls: ArcSwapOption<UpstreamTls>,
}

/// A route that has a breaker of its own at each instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteBreaker {
    pub route: Arc<str>,
    pub of: BreakerOf,
}

/// How the source of the instances is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// When the last set came; `None` until the first one.
    pub last_set: Option<Millis>,
    pub failing_since: Option<Millis>,
    /// What is wrong, while it is failing.
    pub failure: Option<String>,
    /// What it tells beyond the set.
    pub described: Arc<Described>,
}

/// For tables of thousands of addresses, which nobody can choose so that they collide: it is keyed at random.
type Hashing = foldhash::fast::RandomState;

/// How long after a service's first instance others still count as those that it begins with.
const STARTING: Duration = Duration::from_secs(2);
const MAX_FAILURE_CHARS: usize = 500;

/// The instances of a service at one moment, and the order in which a balancer goes through them.
#[derive(Debug)]
pub struct InstanceSet {
    /// By group.
    members: Box<[Member]>,
    /// In the order in which they are preferred; none in an empty set.
    pub(super) groups: Box<[Group]>,
    surveys: PerWorker<Survey>,
    /// Only where clients stay with instances, and then built before the set is seen.
    codes: OnceLock<SessionCodes>,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub instance: Arc<Instance>,
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    pub priority: u8,
    /// One for each worker.
    refs: Arc<[InstanceRef]>,
}

#[cfg(test)]
thread_local! {
    /// How often this thread has looked at a single member: what a request costs, whatever machine it runs on.
    pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Instances {
    /// An empty set: nothing is known yet.
    pub fn new(workers: usize) -> Arc<Self> {
        Self::near(None, workers)
    }

    /// Likewise, for a gateway that prefers the instances of this zone.
    pub fn near(local_zone: Option<Arc<str>>, workers: usize) -> Arc<Self> {
        let in_flight = Arc::new(PerWorker::new(workers));
        Self::with_set(Vec::new(), local_zone, workers, in_flight, SessionKey::random())
    }

    /// For a service whose source or preferred zone was changed: what the old one found last stays in use until the new one
    /// has found something, and an instance that both know keeps its state.
    pub fn continuing(previous: &Instances, local_zone: Option<Arc<str>>) -> Arc<Self> {
        let members = previous.set.load().members.to_vec();
        let in_flight = previous.in_flight.clone();
        Self::with_set(members, local_zone, previous.workers, in_flight, previous.random_key)
    }

    fn with_set(
        members: Vec<Member>,
        local_zone: Option<Arc<str>>,
        workers: usize,
        in_flight: Arc<PerWorker<AtomicU32>>,
        random_key: SessionKey,
    ) -> Arc<Self> {
        let set = InstanceSet::new(members, local_zone.as_deref(), workers);
        Arc::new(Instances {
            set: ArcSwap::from_pointee(set),
            workers: workers.max(1),
            local_zone,
            source: Mutex::default(),
            by_key: AtomicBool::new(false),
            random_key,
            session_key: Mutex::default(),
            in_flight,
            panicking: AtomicBool::new(false),
            filled_at: AtomicU64::new(0),
            published: watch::Sender::new(0),
            retired: Mutex::default(),
            route_breakers: ArcSwap::default(),
            tls: ArcSwapOption::empty(),
        })
    }

    /// These routes have breakers of their own from now on; those of others are forgotten.
    pub fn keep_breakers(&self, routes: Vec<RouteBreaker>) {
        for instance in self.current().instances() {
            instance.keep_breakers(|of| routes.iter().any(|known| known.of == of));
        }
        self.route_breakers.store(Arc::new(routes));
    }

    pub fn route_breakers(&self) -> Arc<Vec<RouteBreaker>> {
        self.route_breakers.load_full()
    }

    /// How instances are spoken to from now on, where that is over TLS.
    pub(super) fn set_tls(&self, tls: Option<Arc<UpstreamTls>>) {
        self.tls.store(tls);
    }

    pub fn tls(&self) -> Option<Arc<UpstreamTls>> {
        self.tls.load_full()
    }

    /// The present set, for a moment's use on the request path.
    pub fn set(&self) -> Guard<Arc<InstanceSet>> {
        self.set.load()
    }

    /// The present set, to keep.
    pub fn current(&self) -> Arc<InstanceSet> {
        self.set.load_full()
    }

    /// Has a ring ready for this set and for all to come. It stays so: a snapshot that needs it may live on.
    pub(super) fn keep_ring(&self) {
        let _no_set_comes_meanwhile = self.lock();
        self.by_key.store(true, Relaxed);
        self.set.load().build_ring();
    }

    /// Has the codes of clients' cookies ready for this set and for all to come: under a key of the caller's, or one that
    /// stays the same. Returns the key.
    pub(super) fn keep_codes(&self, key: Option<SessionKey>) -> SessionKey {
        let _no_set_comes_meanwhile = self.lock();
        let key = key.unwrap_or(self.random_key);
        *self.session_key() = Some(key);
        let set = self.set.load_full();
        if !set.build_codes(key) {
            self.set.store(self.make(set.members.to_vec()));
            self.retired().push(set);
        }
        key
    }

    fn session_key(&self) -> MutexGuard<'_, Option<SessionKey>> {
        self.session_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that are on their way, counted while they come by their key.
    pub(super) fn in_flight(&self) -> &PerWorker<AtomicU32> {
        &self.in_flight
    }

    pub(super) fn local_zone(&self) -> Option<&Arc<str>> {
        self.local_zone.as_ref()
    }

    /// Looks whether there is a priority of which at least `panic_threshold` per cent of the instances are healthy, or were
    /// never checked. To be called when the health of one or the set has changed.
    pub fn assess(&self, panic_threshold: Option<u8>) {
        let panicking = panic_threshold.is_some_and(|least| self.set.load().is_short_of_health(least));
        self.panicking.store(panicking, Relaxed);
    }

    /// Whether unhealthy instances get requests as well.
    pub fn is_panicking(&self) -> bool {
        self.panicking.load(Relaxed)
    }

    pub fn source(&self) -> SourceStatus {
        self.lock().clone()
    }

    /// Wakes up whenever a set with other members or weights has come.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Frees the sets of the past that no worker looks at any more. A worker that was the last to let go of one would have thousands
    /// of instances to free, and requests would wait meanwhile: so the control side keeps each until it is the last itself.
    pub fn free_retired(&self) {
        self.retired().retain(|set| Arc::strong_count(set) > 1);
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<InstanceSet>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the instances that join others. Those that a service begins with are there for all of its requests, and so
    /// are those that come right behind the first.
    fn begin_slowly(&self, before: &InstanceSet, next: &InstanceSet) {
        let now = clock::now();
        if before.is_empty() {
            self.filled_at.store(now.0, Relaxed);
        }
        if now.since(Millis(self.filled_at.load(Relaxed))) < STARTING {
            return;
        }
        let known: HashSet<u64, Hashing> = before.instances().map(|instance| instance.id).collect();
        next.instances().filter(|instance| !known.contains(&instance.id)).for_each(|new| new.joins(now));
    }

    /// A set of these, with all that requests look things up in.
    fn make(&self, members: Vec<Member>) -> Arc<InstanceSet> {
        let set = InstanceSet::new(members, self.local_zone.as_deref(), self.workers);
        if self.by_key.load(Relaxed) {
            set.build_ring();
        }
        let session_key = *self.session_key();
        if let Some(key) = session_key {
            set.build_codes(key);
        }
        Arc::new(set)
    }

    fn lock(&self) -> MutexGuard<'_, SourceStatus> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publish for Instances {
    fn publish(&self, found: Vec<Discovered>) {
        let mut source = self.lock();
        source.last_set = Some(clock::now());
        let before = self.set.load_full();
        let Some(members) = before.successor(found, self.workers, &self.in_flight) else { return };
        let next = self.make(members);
        self.begin_slowly(&before, &next);
        self.set.store(next.clone());
        // Only now: a worker that sees the mark must not find the instance in a set any more.
        let kept: HashSet<u64, Hashing> = next.instances().map(|instance| instance.id).collect();
        for gone in before.instances().filter(|instance| !kept.contains(&instance.id)) {
            gone.set_removed();
        }
        self.free_retired();
        self.retired().push(before);
        self.published.send_modify(|generation| *generation += 1);
    }

    fn describe(&self, described: Described) {
        self.lock().described = Arc::new(described);
    }

    fn source_failed(&self, what: &str) {
        let mut source = self.lock();
        source.failing_since.get_or_insert_with(clock::now);
        source.failure = Some(what.chars().take(MAX_FAILURE_CHARS).collect());
    }

    fn source_recovered(&self) {
        let mut source = self.lock();
        source.failing_since = None;
        source.failure = None;
    }
}

impl InstanceSet {
    fn new(mut members: Vec<Member>, local_zone: Option<&str>, workers: usize) -> Self {
        let groups = arrange(&mut members, local_zone, workers);
        InstanceSet {
            surveys: Survey::of_all(workers, &groups, &members),
            groups,
            codes: OnceLock::new(),
            members: members.into(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// By priority and zone, and else in the order in which the source named them.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.members.iter().map(|member| &member.instance)
    }

    /// All of them; of thousands, some that a worker has seen to be of use, and some from a place on. So many are looked at
    /// with one request at most.
    pub(super) fn some(&self, worker: WorkerId, from: usize) -> impl Iterator<Item = &Arc<Instance>> {
        self.some_places(worker, from).map(|index| &self.member(index).instance)
    }

    /// Where they are.
    pub(super) fn some_places(&self, worker: WorkerId, from: usize) -> impl Iterator<Item = usize> {
        let all = self.members.len();
        let is_large = all > FAR;
        let seen = is_large.then(|| self.survey(worker).seen());
        let within = if is_large { AT_ONCE } else { all };
        seen.into_iter().flatten().chain((from..from + within).map(move |at| at % all))
    }

    /// Each with its zone and its priority.
    pub fn placed(&self) -> impl Iterator<Item = (&Arc<Instance>, Option<&str>, u8)> {
        self.members.iter().map(|member| (&member.instance, member.zone.as_deref(), member.priority))
    }

    pub(super) fn member(&self, index: usize) -> &Member {
        #[cfg(test)]
        LOOKED_AT.set(LOOKED_AT.get() + 1);
        &self.members[index]
    }

    /// What part of the requests the instances that are preferred most don't get, from 0 to 1, as the workers have counted.
    pub fn goes_over(&self) -> f64 {
        let has_others = self.groups.len() > 1;
        let parts = self.surveys.all().filter(|_| has_others).map(|survey| 1.0 - survey.share(0));
        parts.fold(0.0, f64::max)
    }

    /// What a worker knows of the groups.
    pub(super) fn survey(&self, worker: WorkerId) -> &Survey {
        self.surveys.of(worker)
    }

    /// Whether in every priority less than so many per cent of the instances are healthy.
    fn is_short_of_health(&self, least: u8) -> bool {
        let is_short = |level: &[Member]| {
            let healthy = level.iter().filter(|member| member.instance.health() != Health::Unhealthy).count();
            healthy * 100 < level.len() * usize::from(least)
        };
        let mut levels = self.members.chunk_by(|one, other| one.priority == other.priority);
        !self.is_empty() && levels.all(is_short)
    }

    /// The position of the instance with that code under that key. All of them are looked at only where a snapshot goes
    /// by another key than the one that was compiled last.
    pub(super) fn with_code(&self, code: SessionCode, key: SessionKey) -> Option<usize> {
        match self.codes.get().filter(|codes| codes.key == key) {
            Some(codes) => codes.find(code),
            None => self.instances().position(|instance| key.code(instance.address) == code),
        }
    }

    /// Says whether these are the codes that it has now: once made, they stay.
    fn build_codes(&self, key: SessionKey) -> bool {
        let addresses = self.instances().map(|instance| instance.address);
        self.codes.get_or_init(|| SessionCodes::new(key, addresses)).key == key
    }

    fn build_ring(&self) {
        self.groups.iter().for_each(|group| group.build_ring(&self.members));
    }

    /// The members of the set that follows this one, or `None` when nothing changes but perhaps the order of mention.
    fn successor(
        &self,
        found: Vec<Discovered>,
        workers: usize,
        in_flight: &Arc<PerWorker<AtomicU32>>,
    ) -> Option<Vec<Member>> {
        let known: HashMap<SocketAddr, &Member, Hashing> =
            self.members.iter().map(|member| (member.instance.address, member)).collect();
        let mut seen = HashSet::with_capacity_and_hasher(found.len(), Hashing::default());
        let mut changed = false;
        let mut members = Vec::with_capacity(found.len());
        for one in found {
            // Named twice, it is one instance, as it was named first.
            if !seen.insert(one.address) {
                continue;
            }
            let (weight, priority) = (one.weight.max(1), one.priority.min(MAX_PRIORITY));
            match known.get(&one.address).filter(|member| member.has_authority_of(&one)) {
                Some(&member) => {
                    let now = Member { weight, zone: one.zone, priority, ..member.clone() };
                    changed |= !now.stands_like(member);
                    member.instance.set_weight(weight);
                    members.push(now);
                }
                None => {
                    changed = true;
                    let instance = Instance::new(one.address, authority(&one), weight, workers);
                    let new = Member::new(instance, workers, in_flight);
                    members.push(Member { zone: one.zone, priority, ..new });
                }
            }
        }
        (changed || members.len() != self.members.len()).then_some(members)
    }
}

impl Member {
    fn new(instance: Instance, workers: usize, in_flight: &Arc<PerWorker<AtomicU32>>) -> Self {
        let instance = Arc::new(instance);
        let refs = (0..workers)
            .map(|worker| InstanceRef::new(instance.clone(), WorkerId(worker), in_flight.clone()))
            .collect();
        Member { weight: instance.weight(), zone: None, priority: 0, instance, refs }
    }

    /// Whether it has the same place among the others.
    fn stands_like(&self, other: &Member) -> bool {
        (self.weight, self.priority, &self.zone) == (other.weight, other.priority, &other.zone)
    }

    fn has_authority_of(&self, found: &Discovered) -> bool {
        let known = &self.instance.authority;
        known.as_bytes() == found.authority.as_bytes() || *known == authority(found)
    }

    pub fn of(&self, worker: WorkerId) -> &InstanceRef {
        &self.refs[worker.0]
    }
}

/// A source outside may name an authority that no header can hold: the address then serves as well.
fn authority(found: &Discovered) -> HeaderValue {
    HeaderValue::from_str(&found.authority).unwrap_or_else(|_| {
        HeaderValue::from_str(&found.address.to_string())
            .expect("an address is digits, dots, colons and brackets")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(port: u16, weight: u32) -> Discovered {
        Discovered {
            address: ([127, 0, 0, 1], port).into(),
            weight,
            authority: format!("users:{port}").into(),
            zone: None,
            priority: 0,
        }
    }

    fn ids(instances: &Instances) -> Vec<u64> {
        instances.current().instances().map(|instance| instance.id).collect()
    }

    #[test]
    fn an_instance_that_stays_keeps_its_state() {
        let instances = Instances::new(2);
        instances.publish(vec![found(1, 1), found(2, 1)]);
        let before = instances.current();
        before.members[1].instance.set_health(Health::Unhealthy);
        instances.publish(vec![found(3, 1), found(2, 7)]);
        let after = instances.current();
        assert!(Arc::ptr_eq(&before.members[1].instance, &after.members[1].instance));
        assert_eq!(after.members[1].instance.weight(), 7);
        assert_eq!(after.members[1].instance.health(), Health::Unhealthy);
        assert!(before.members[0].instance.is_removed());
        assert!(!before.members[1].instance.is_removed());
        assert_eq!(before.len(), 2, "a set that was handed out never changes");
    }

    #[test]
    fn a_worker_never_frees_a_set() {
        let instances = Instances::new(1);
        instances.publish(vec![found(1, 1)]);
        let (looks, old) = (instances.set(), Arc::downgrade(&instances.current()));
        instances.publish(vec![found(2, 1)]);
        instances.free_retired();
        drop(looks);
        assert!(old.upgrade().is_some(), "whoever drops the last of it has all to free");
        instances.free_retired();
        assert!(old.upgrade().is_none());
        let old = Arc::downgrade(&instances.current());
        instances.publish(vec![found(3, 1)]);
        assert!(old.upgrade().is_some());
        instances.publish(vec![found(4, 1)]);
        assert!(old.upgrade().is_none(), "they don't pile up");
    }

    #[test]
    fn an_address_that_comes_back_is_another_instance() {
        let instances = Instances::new(1);
        instances.publish(vec![found(1, 1)]);
        let first = ids(&instances);
        instances.publish(vec![]);
        assert!(instances.current().is_empty());
        instances.publish(vec![found(1, 1)]);
        assert_ne!(ids(&instances), first);
    }

    #[tokio::test(start_paused = true)]
    async fn who_joins_later_begins_slowly() {
        let instances = Instances::new(1);
        let shares = |instances: &Instances| -> Vec<f64> {
            let set = instances.current();
            set.instances()
                .map(|instance| instance.share_of_its_own(Duration::from_secs(30), clock::now()))
                .collect()
        };
        instances.publish(vec![found(1, 1)]);
        tokio::time::advance(Duration::from_secs(1)).await;
        instances.publish(vec![found(1, 1), found(2, 1)]);
        assert_eq!(shares(&instances), [1.0, 1.0], "they came together");
        tokio::time::advance(Duration::from_secs(1)).await;
        instances.publish(vec![found(1, 1), found(2, 1), found(3, 1)]);
        assert_eq!(shares(&instances), [1.0, 1.0, 0.1]);
        tokio::time::advance(Duration::from_secs(15)).await;
        instances.publish(vec![found(1, 9), found(2, 1), found(3, 1)]);
        assert_eq!(shares(&instances), [1.0, 1.0, 0.5]);
        let reloaded = Instances::continuing(&instances, None);
        reloaded.publish(vec![found(1, 9), found(3, 1), found(4, 1)]);
        assert_eq!(shares(&reloaded), [1.0, 0.5, 0.1]);
        reloaded.publish(vec![]);
        reloaded.publish(vec![found(5, 1), found(6, 1)]);
        assert_eq!(shares(&reloaded), [1.0, 1.0], "there is nobody else");
    }

    #[test]
    fn with_too_few_healthy_ones_health_is_not_asked_for() {
        let instances = Instances::new(1);
        instances.assess(Some(100));
        assert!(!instances.is_panicking(), "there is nothing to use");
        instances.publish((1..=4).map(|port| found(port, 1)).collect());
        let set = instances.current();
        let panics_at = |threshold| {
            instances.assess(threshold);
            instances.is_panicking()
        };
        for (unhealthy, at) in
            [(0, [false, false, false]), (1, [true, false, false]), (3, [true, true, false]), (4, [true; 3])]
        {
            set.instances().take(unhealthy).for_each(|instance| instance.set_health(Health::Unhealthy));
            assert_eq!([Some(100), Some(50), Some(1)].map(panics_at), at, "{unhealthy} are unhealthy");
            assert!(!panics_at(None));
        }
    }

    #[test]
    fn another_key_finds_codes_of_its_own() {
        let instances = Instances::new(1);
        instances.publish((1..=4).map(|port| found(port, 1)).collect());
        let known = |key: SessionKey| {
            let set = instances.current();
            assert!(set.codes.get().is_some_and(|codes| codes.key == key), "they are looked up");
            (0..4).all(|at| set.with_code(key.code(set.members[at].instance.address), key) == Some(at))
        };
        let (one, other) = (SessionKey::of("one", "users"), SessionKey::of("other", "users"));
        instances.keep_codes(Some(one));
        assert!(known(one));
        let before = ids(&instances);
        instances.keep_codes(Some(other));
        assert!(known(other));
        assert_eq!(ids(&instances), before);
        instances.publish((1..=5).map(|port| found(port, 1)).collect());
        assert!(known(other));
    }

    #[test]
    fn duplicates_are_one_instance() {
        let instances = Instances::new(1);
        instances.publish(vec![found(1, 3), found(2, 1), found(1, 9)]);
        assert_eq!(instances.current().len(), 2);
        assert_eq!(instances.current().members[0].instance.weight(), 3);
    }

    #[test]
    fn the_same_set_again_in_another_order_changes_nothing() {
        let instances = Instances::new(1);
        let mut changes = instances.changes();
        instances.publish(vec![found(1, 1), found(2, 2)]);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let before = instances.current();
        instances.publish(vec![found(2, 2), found(1, 1)]);
        assert!(Arc::ptr_eq(&before, &instances.current()));
        assert!(!changes.has_changed().unwrap());
        instances.publish(vec![found(2, 2), found(1, 5)]);
        assert!(changes.has_changed().unwrap(), "a weight is part of the set");
    }

    #[test]
    fn a_failing_source_keeps_the_set_and_says_so() {
        let instances = Instances::new(1);
        assert_eq!(instances.source(), SourceStatus::default());
        instances.publish(vec![found(1, 1)]);
        instances.source_failed("no answer");
        let since = instances.source().failing_since.unwrap();
        instances.source_failed(&"x".repeat(10_000));
        let status = instances.source();
        assert_eq!(status.failing_since, Some(since));
        assert_eq!(status.failure.unwrap().len(), MAX_FAILURE_CHARS);
        assert_eq!(instances.current().len(), 1);
        instances.publish(vec![found(1, 1)]);
        assert!(instances.source().failing_since.is_some(), "a part of the source may still be failing");
        instances.source_recovered();
        assert_eq!(instances.source().failing_since, None);
        assert!(instances.source().last_set.is_some());
    }

    #[test]
    fn a_new_source_starts_from_what_the_old_one_found() {
        let old = Instances::new(1);
        old.publish(vec![found(1, 1), found(2, 1)]);
        let new = Instances::continuing(&old, None);
        assert_eq!(ids(&new), ids(&old));
        assert_eq!(new.source().last_set, None);
        new.publish(vec![found(2, 1), found(3, 1)]);
        assert_eq!(ids(&new)[0], ids(&old)[1]);
        assert!(old.current().members[0].instance.is_removed());
        assert!(!old.current().members[1].instance.is_removed());
    }

    #[test]
    fn an_authority_that_no_header_can_hold_falls_back_to_the_address() {
        let instances = Instances::new(1);
        instances.publish(vec![Discovered { authority: "bad\r\nx: y".into(), weight: 0, ..found(9, 1) }]);
        let set = instances.current();
        assert_eq!(set.members[0].instance.authority, "127.0.0.1:9");
        assert_eq!(set.members[0].instance.weight(), 1);
    }
}
