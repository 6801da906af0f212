//! Which instance of a service gets the next request.
//!
//! Whatever the rule, an instance that is unhealthy (unless too many are) or whose breaker is open gets none, one that can't
//! be reached or is silent only where there is no other, an ejected one only after those, one whose last answers were failures only
//! where there is no other or nobody would see it fail, and one that was tried for the
//! same request comes last. A request whose first choice falls away goes on from a second cursor that runs through all
//! instances, so that the share of a dead
//! instance is divided among all the others instead of falling to its neighbour.
//!
//! Where the instances have priorities or zones, a request is given to one of their groups first (see `groups.rs`), and
//! the rule chooses among the group's instances. It goes on to the other groups when none of these can take it.
//!
//! Picking allocates nothing, costs the same for three instances and for thousands as long as most of
//! them are usable, and passes a bounded number when they are not, unless the last few of thousands have changed just now.

mod by_key;
mod passed_over;

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::time::Duration;

use super::call::MAX_TRIED;
use super::groups::{Found, Group, Survey, WHOLE, Weight};
use super::instance::{Admission, InFlight, Instance, InstanceRef};
use super::instances::{InstanceSet, Member};
use super::order::Order;
use super::settings::{BreakerSettings, Settings};
use crate::clock::Millis;
use crate::per_worker::{PerWorker, WorkerId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Each in turn, whatever its weight.
    RoundRobin,
    /// Each in turn, as often as its weight says.
    Weighted,
    /// At random, with a chance in proportion to the weight.
    Random,
    /// The less busy of two at random, for its weight. What counts is how many requests the worker itself
    /// has there: a count over all workers would be a cache line that every request of every core writes,
    /// and the workers' own views even out, since each has its part of the same traffic.
    LeastRequests,
    /// The cheaper of two at random. What a request costs at an instance is how long its answers took of late, times
    /// the requests that are there already; both as the worker itself has seen them.
    PeakEwma,
    /// The one that the request's key belongs to, or the next one that can take it. Without a key, as
    /// [`Rule::LeastRequests`].
    ConsistentHash,
}

impl Rule {
    /// Whether it wants to know how long answers take.
    pub(super) fn times_answers(self) -> bool {
        self == Rule::PeakEwma
    }
}

/// An instance to send a request to, with the breaker's leave.
#[derive(Debug)]
pub struct Picked {
    pub admission: Admission,
    pub in_flight: InFlight,
}

impl Picked {
    pub fn instance(&self) -> &InstanceRef {
        self.in_flight.instance()
    }
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPick {
    /// The service has no instances.
    Empty,
    /// All instances failed their health checks.
    AllUnhealthy,
    /// There are healthy instances, but their breakers let nothing through.
    AllOpen,
}

/// Where a worker is in its rounds through a group.
#[derive(Debug)]
pub(super) struct Cursor {
    next: AtomicU64,
    /// For requests whose first choice fell away.
    spare: AtomicU64,
}

impl Default for Cursor {
    /// Anywhere, or else all workers, and all gateways that start together, would begin with the same
    /// instance.
    fn default() -> Self {
        let anywhere = || AtomicU64::new(u64::from(fastrand::u32(..)));
        Cursor { next: anywhere(), spare: anywhere() }
    }
}

/// One pick: all that it depends on.
pub(super) struct Picker<'a> {
    pub set: &'a InstanceSet,
    pub rule: Rule,
    /// What the rule goes by, where it goes by a key and the request has one.
    pub key: Option<u64>,
    pub max_load: Option<f64>,
    /// The instance that the client was with before.
    pub session: Option<usize>,
    /// The worker's requests to all instances, where the rule counts them.
    pub in_flight: &'a PerWorker<AtomicU32>,
    pub slow_start: Option<Duration>,
    /// Whether unhealthy instances are used like the others.
    pub despite_health: bool,
    /// How much more than its usual part of the requests what is left of a group is expected to take.
    pub overprovisioning: f64,
    pub breaker: &'a BreakerSettings,
    pub settings: &'a Settings,
    /// The request may not be sent twice.
    pub once: bool,
    /// It was not sent to an instance that could be used, because that fails.
    pub has_avoided: Cell<bool>,
    pub worker: WorkerId,
    /// The ids of instances that this request was sent to before.
    pub tried: &'a [u64],
    pub now: Millis,
}

/// Which instances a request may go to whose first choice fell away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Spare {
    /// Untried ones that have their whole share.
    InFullShare,
    Untried,
    /// Untried ones whose last answers were failures, too.
    Failing,
    /// Untried ones that can't be reached or are silent, too.
    PassedOver,
    /// Ejected ones, untried.
    Ejected,
    /// Whatever is usable.
    Any,
}

/// How often a random choice that cannot be used is drawn again before the spare cursor decides.
const DRAWS: usize = 3;
/// So many instances are passed in search of one that can be used, before some are asked that were seen when the
/// worker counted; fewer where it saw none, and then there is none for this tenth of a second. Smaller sets are always
/// searched.
pub(super) const FAR: usize = 1024;
/// So many, where the worker saw none.
const FEW: usize = 32;
/// How many times faster an instance must be for its weight to matter less than that.
const CLEARLY: f64 = 2.0;

impl Picker<'_> {
    pub fn pick(&self, rng: &mut fastrand::Rng) -> Result<Picked, NoPick> {
        if self.set.is_empty() {
            return Err(NoPick::Empty);
        }
        let session = self.session.filter(|&index| self.may_stay(index));
        if let Some(picked) = session.and_then(|index| self.take(index, Spare::Untried)) {
            return Ok(picked);
        }
        if self.set.groups.len() > 1 {
            return self.pick_by_group(rng).ok_or_else(|| self.why_none());
        }
        let spare = || {
            if self.set.len() > FAR {
                self.survey();
            }
            self.untried_spare(0).or_else(|| self.last_spare(0))
        };
        self.pick_in(0, rng).or_else(spare).ok_or_else(|| self.why_none())
    }

    /// Where a group has nothing left, the others are asked in the order of preference.
    fn pick_by_group(&self, rng: &mut fastrand::Rng) -> Option<Picked> {
        let survey = self.survey();
        if let Some(picked) = survey.take_probe().and_then(|index| self.take(index, Spare::Untried)) {
            return Some(picked);
        }
        // A key stays in its group, too, as long as that has the same share.
        let place = self.key.filter(|_| self.rule == Rule::ConsistentHash).map(by_key::place_among_groups);
        let chosen = survey.group_at(place.unwrap_or_else(|| rng.u32(..)));
        let others = (0..self.set.groups.len()).filter(|&group| group != chosen);
        let mut groups = std::iter::once(chosen).chain(others);
        let mut again = groups.clone();
        let picked = groups.find_map(|group| self.pick_in(group, rng).or_else(|| self.untried_spare(group)));
        picked.or_else(|| again.find_map(|group| self.last_spare(group)))
    }

    /// The rule's choice.
    fn pick_in(&self, group: usize, rng: &mut fastrand::Rng) -> Option<Picked> {
        let within = &self.set.groups[group];
        let index = match self.rule {
            // A repeated request takes no turn: it would let a failing instance and its neighbour share
            // the rounds between first and second attempts.
            Rule::RoundRobin | Rule::Weighted if !self.tried.is_empty() => None,
            Rule::RoundRobin | Rule::Weighted => {
                let turn = Some(self.next_turn(within));
                turn.filter(|&index| self.is_let_in(index, rng) && !self.passes_over(index))
            }
            Rule::Random => self.draw(within, rng),
            Rule::LeastRequests => self.less_busy_of_two(within, rng),
            Rule::PeakEwma => self.cheaper_of_two(within, rng),
            Rule::ConsistentHash => match self.key {
                // Who was at so many that they are not remembered any more goes anywhere: by its key it would stay with one.
                Some(key) if self.tried.len() < MAX_TRIED => self.by_key(group, key),
                _ => self.less_busy_of_two(within, rng),
            },
        };
        index.and_then(|index| self.take(index, Spare::Untried))
    }

    fn untried_spare(&self, group: usize) -> Option<Picked> {
        let in_full_share =
            if self.slow_start.is_some() { self.next_spare(group, Spare::InFullShare) } else { None };
        in_full_share.or_else(|| self.next_spare(group, Spare::Untried)).or_else(|| {
            // Failing now and then is no cause to go to another group.
            if self.has_avoided.get() { self.next_spare(group, Spare::Failing) } else { None }
        })
    }

    /// One that is passed over otherwise, an ejected one, or one that was tried.
    fn last_spare(&self, group: usize) -> Option<Picked> {
        let tried = || if self.tried.is_empty() { None } else { self.next_spare(group, Spare::Any) };
        self.next_spare(group, Spare::PassedOver)
            .or_else(|| self.next_spare(group, Spare::Ejected))
            .or_else(tried)
    }

    /// What is known of the groups, once it has been counted on. Once for a request.
    fn survey(&self) -> &Survey {
        let survey = self.known();
        survey.count(&self.set.groups, self.now, self.overprovisioning, |index| self.look(index));
        survey
    }

    /// What is known of the groups.
    fn known(&self) -> &Survey {
        self.set.survey(self.worker)
    }

    /// What there is of an instance.
    pub fn look(&self, index: usize) -> Found {
        let instance = &self.set.member(index).instance;
        let is_preferred = !instance.is_ejected() && instance.doubt().is_none();
        if is_preferred && instance.takes_its_share(self.now, self.breaker, self.despite_health) {
            let usable = self.weight(instance);
            let all = u64::from(instance.weight()) * WHOLE;
            let to_come = if instance.has_joined() { all.saturating_sub(usable) } else { 0 };
            Found::Usable(Weight { usable, to_come })
        } else if !self.is_able(instance) {
            Found::Unusable
        } else if instance.is_ejected() {
            Found::Ejected
        } else {
            Found::OnProbation
        }
    }

    fn next_turn(&self, group: &Group) -> usize {
        let order = self.order(group);
        let next = &group.cursors.of(self.worker).next;
        let turn = next.load(Relaxed);
        next.store(turn.wrapping_add(1), Relaxed);
        group.first + order.at((turn % order.len() as u64) as usize)
    }

    /// A usable instance at random, by weight.
    fn draw(&self, group: &Group, rng: &mut fastrand::Rng) -> Option<usize> {
        let order = &group.order;
        (0..DRAWS).find_map(|_| {
            let index = group.first + order.at(rng.usize(..order.len()));
            (self.is_candidate(index) && self.is_let_in(index, rng)).then_some(index)
        })
    }

    /// Draws the first by weight, so that an idle service is used by weight, and the second from all others alike. There is only
    /// one when it is a silent or failing instance's turn to be tried: beside any other it would lose for what it is to be tried for.
    fn draw_two(&self, group: &Group, rng: &mut fastrand::Rng) -> Option<(usize, Option<usize>)> {
        let is_trial = |index: usize| {
            let instance = &self.set.member(index).instance;
            instance.silence.is_on() || self.is_wary_of(instance).is_some()
        };
        let first = self.draw(group, rng)?;
        if is_trial(first) {
            return Some((first, None));
        }
        let second = self.draw_another(group, first, rng);
        Some(second.filter(|&second| is_trial(second)).map_or((first, second), |trial| (trial, None)))
    }

    /// Draws two. The second wins when it is the less busy one for its weight both without this
    /// request and with it; the one condition alone would favour light instances, the other heavy ones.
    fn less_busy_of_two(&self, group: &Group, rng: &mut fastrand::Rng) -> Option<usize> {
        let (first, second) = match self.draw_two(group, rng)? {
            (first, Some(second)) => (first, second),
            (only, None) => return Some(only),
        };
        let pressure = |index: usize, more: u64| {
            let instance = &self.set.member(index).instance;
            (u128::from(instance.pressure(self.worker, self.now) + more), u128::from(self.weight(instance)))
        };
        let less_busy = |more: u64| {
            let (first_load, first_weight) = pressure(first, more);
            let (second_load, second_weight) = pressure(second, more);
            second_load * first_weight < first_load * second_weight
        };
        let request = super::instance::UNIT;
        Some(if less_busy(0) && less_busy(request) { second } else { first })
    }

    /// Draws as [`Picker::less_busy_of_two`] does. A request costs what answers take, times the requests that are there,
    /// itself included.
    ///
    /// With unequal weights, the same two conditions as there keep to them, and on an idle service the draw alone does;
    /// but one that is clearly faster needs to be cheaper only.
    fn cheaper_of_two(&self, group: &Group, rng: &mut fastrand::Rng) -> Option<usize> {
        let (first, second) = match self.draw_two(group, rng)? {
            (first, Some(second)) => (first, second),
            (only, None) => return Some(only),
        };
        let [one, other] = [first, second].map(|index| &*self.set.member(index).instance);
        let (one_us, other_us) = one.latency(self.worker).beside(other.latency(self.worker));
        let (one_queue, other_queue) = (one.queue(self.worker, self.now), other.queue(self.worker, self.now));
        let usual = group.mean_weight * WHOLE as f64;
        let weight = |instance: &Instance| self.weight(instance) as f64 / usual;
        let (one_weight, other_weight) = (weight(one), weight(other));
        let cheaper = if one_weight == other_weight || other_us * CLEARLY < one_us {
            other_us * (other_queue / other_weight + 1.0) < one_us * (one_queue / one_weight + 1.0)
        } else {
            let cheaper = |more: f64| {
                other_us * (other_queue + more) * one_weight < one_us * (one_queue + more) * other_weight
            };
            cheaper(0.0) && cheaper(1.0)
        };
        Some(if cheaper { second } else { first })
    }

    /// A usable instance at random, other than `first` and whatever its weight.
    fn draw_another(&self, group: &Group, first: usize, rng: &mut fastrand::Rng) -> Option<usize> {
        let others = group.len - 1;
        if others == 0 {
            return None;
        }
        (0..DRAWS).find_map(|_| {
            let index = group.first + (first - group.first + 1 + rng.usize(..others)) % group.len;
            (self.is_candidate(index) && self.is_let_in(index, rng)).then_some(index)
        })
    }

    /// The group's next usable instance from the spare cursor on: by the rule's order for as many turns as there
    /// are instances, then simply each once, because the order of uneven weights can be long.
    fn next_spare(&self, number: usize, which: Spare) -> Option<Picked> {
        let group = &self.set.groups[number];
        let order = self.order(group);
        let spare = &group.cursors.of(self.worker).spare;
        let start = (spare.load(Relaxed) % order.len() as u64) as usize;
        let instances = group.len;
        let in_order = (start..start + instances).map(|turn| (turn, order.at(turn % order.len())));
        let the_rest = if order.len() > instances { instances } else { 0 };
        let one_by_one = (start..start + the_rest).map(|turn| (turn, turn % instances));
        let is_large = self.set.len() > FAR;
        let is_known = is_large && self.known().usable_weight(number) == 0.0;
        let far = if is_known { FEW } else { FAR };
        for (step, (turn, place)) in in_order.chain(one_by_one).enumerate() {
            if step == far && is_large {
                let (picked, has_seen) = self.seen_spare(number, which);
                if picked.is_some() || has_seen || is_known {
                    return picked;
                }
            }
            if let Some(picked) = self.take_spare(group.first + place, which) {
                spare.store(turn as u64 + 1, Relaxed);
                return Some(picked);
            }
        }
        None
    }

    /// One of those in the group that were seen when the worker counted, and whether it has seen any.
    fn seen_spare(&self, number: usize, which: Spare) -> (Option<Picked>, bool) {
        let (survey, group) = (self.known(), &self.set.groups[number]);
        let own = group.first..group.first + group.len;
        let is_ejected = which == Spare::Ejected;
        let ejected = survey.seen_ejected().filter(|_| is_ejected);
        let seen = survey.seen().filter(|_| !is_ejected).chain(ejected).filter(|index| own.contains(index));
        let mut has_seen = false;
        let picked = seen.inspect(|_| has_seen = true).find_map(|index| self.take_spare(index, which));
        (picked, has_seen || is_ejected)
    }

    /// The instance at this place, if its breaker lets a request through.
    pub fn pick_at(&self, index: usize) -> Option<Picked> {
        self.take(index, Spare::Any)
    }

    fn take_spare(&self, index: usize, which: Spare) -> Option<Picked> {
        let instance = &self.set.member(index).instance;
        let is_passed = which < Spare::PassedOver && self.doubts(instance)
            || which < Spare::Failing && self.avoids(instance)
            || which == Spare::InFullShare && self.share(instance) < 1.0
            || which == Spare::Ejected && !instance.is_ejected();
        if is_passed { None } else { self.take(index, which) }
    }

    fn take(&self, index: usize, which: Spare) -> Option<Picked> {
        let member = self.set.member(index);
        let avoid_ejected = !matches!(which, Spare::Ejected | Spare::Any);
        if which != Spare::Any && self.was_tried(member)
            || avoid_ejected && member.instance.is_ejected()
            || !self.is_able(&member.instance)
        {
            return None;
        }
        let instance = member.of(self.worker);
        // Another worker may have taken the last probe's place since.
        let admission = instance.admit(self.now, self.breaker)?;
        Some(Picked { admission, in_flight: instance.begin(self.rule == Rule::ConsistentHash) })
    }

    /// Whether an instance that begins gets this request, of those that are its share in the end.
    fn is_let_in(&self, index: usize, rng: &mut fastrand::Rng) -> bool {
        self.slow_start.is_none() || {
            let share = self.share(&self.set.member(index).instance);
            share >= 1.0 || rng.f64() < share
        }
    }

    /// How much of its share an instance is to have at present, up to 1.
    fn share(&self, instance: &Instance) -> f64 {
        self.slow_start.map_or(1.0, |slow_start| instance.share_of_its_own(slow_start, self.now))
    }

    /// The present weight of an instance, in parts of which a weight of 1 has [`WHOLE`].
    fn weight(&self, instance: &Instance) -> u64 {
        let whole = u64::from(instance.weight()) * WHOLE;
        if self.slow_start.is_none() { whole } else { (whole as f64 * self.share(instance)) as u64 }
    }

    fn is_candidate(&self, index: usize) -> bool {
        let member = self.set.member(index);
        !self.was_tried(member) && self.is_usable(&member.instance) && !self.passes_over(index)
    }

    fn is_usable(&self, instance: &Instance) -> bool {
        !instance.is_ejected() && self.is_able(instance)
    }

    /// Whether it could be used, ejected or not.
    fn is_able(&self, instance: &Instance) -> bool {
        instance.is_usable(self.now, self.breaker, self.despite_health)
    }

    fn was_tried(&self, member: &Member) -> bool {
        self.tried.contains(&member.instance.id)
    }

    fn order<'g>(&self, group: &'g Group) -> &'g Order {
        match self.rule {
            Rule::RoundRobin => &group.in_turn,
            _ => &group.order,
        }
    }

    fn why_none(&self) -> NoPick {
        use super::instance::Health;
        // Of thousands, some tell.
        let mut some = self.set.some(self.worker, 0);
        let mut all_unhealthy = || some.all(|instance| instance.health() == Health::Unhealthy);
        if !self.despite_health && all_unhealthy() { NoPick::AllUnhealthy } else { NoPick::AllOpen }
    }
}

#[cfg(test)]
mod by_key_tests;
#[cfg(test)]
mod tests;
