//! The instances of a set in order of preference: those of one priority, and among them those of the gateway's own zone,
//! are a group, and a balancing rule chooses within one group.
//!
//! How much of the requests each group gets follows from the weight that is usable in it, without steps: a priority carries
//! as much of all requests as its usable part times `overprovisioning`, the next one what is left; within a
//! priority, the local zone carries as much of its even part, and the other zones what is left.
//!
//! Each worker counts for itself what is usable, ten times a second, and no more than [`AT_ONCE`] instances with one
//! request: however large a set is, no request waits for it to be counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::time::Duration;

use super::balance::Cursor;
use super::instances::Member;
use super::order::Order;
use super::ring::Ring;
use crate::clock::Millis;
use crate::per_worker::PerWorker;

/// Instances among which a balancing rule chooses: a stretch of the set.
#[derive(Debug)]
pub(super) struct Group {
    /// The position of its first instance in the set.
    pub first: usize,
    pub len: usize,
    pub priority: u8,
    pub zone: Zone,
    /// By weight; of positions in the group.
    pub order: Order,
    /// Likewise, without weights.
    pub in_turn: Order,
    /// Above zero.
    pub mean_weight: f64,
    /// Of all its instances, whatever their state.
    weight: u64,
    /// How many zones its priority has.
    zones: u32,
    pub cursors: PerWorker<Cursor>,
    /// Only where requests come by their key, and then built before the set is seen.
    pub ring: OnceLock<Ring>,
}

/// Where the instances of a group are, seen from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Wherever they are: zones play no part.
    Any,
    Local,
    Other,
}

/// What one worker knows of a set's groups.
#[derive(Debug)]
pub(super) struct Survey {
    /// The next instance to be counted.
    at: AtomicU32,
    /// When counting begins again, in milliseconds.
    due_at: AtomicU64,
    counts: Box<[Count]>,
    /// One more than the position of an instance that a request is to try, because nothing else would; or 0.
    probe: AtomicU32,
    /// Some that take their share.
    usable: Noted,
    /// Some that a request could go to besides: to see whether they are back, or for want of others.
    spare: Noted,
    /// Some that are ejected, and could be used.
    ejected: Noted,
}

/// Positions of some instances, those that were noted last.
#[derive(Debug, Default)]
struct Noted {
    /// One more than each, or 0.
    places: [AtomicU32; SEEN],
    /// How many there have been.
    so_far: AtomicU32,
}

#[derive(Debug)]
struct Count {
    /// [`Weight`].
    usable: AtomicU64,
    to_come: AtomicU64,
    /// Both, as far as this round has come.
    usable_so_far: AtomicU64,
    to_come_so_far: AtomicU64,
    /// One more than the position of an instance whose breaker would let a probe through, or 0.
    on_probation: AtomicU32,
    /// The shares of this group and of those before it, of 2³².
    bound: AtomicU32,
}

/// What was found of an instance.
pub(super) enum Found {
    Usable(Weight),
    /// It would take one request, to see whether it is back.
    OnProbation,
    /// It would be used if there were no other.
    Ejected,
    Unusable,
}

/// Of instances that take a full share, in parts of which a weight of 1 has [`WHOLE`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Weight {
    pub usable: u64,
    /// What those that have just joined will have more of it. Nobody counts on that before.
    pub to_come: u64,
}

pub(super) const WHOLE: u64 = 256;
/// How much more than its usual part of the requests what is left of a group is expected to take, unless it is configured.
const OVERPROVISIONING: f64 = 1.4;
/// Instances that one request counts.
pub(super) const AT_ONCE: usize = 128;
const COUNT_EVERY: Duration = Duration::from_millis(100);
const SEEN: usize = 16;

/// Brings the members into the order of their groups, which is otherwise that in which they came.
pub(super) fn arrange(members: &mut [Member], local: Option<&str>, workers: usize) -> Box<[Group]> {
    let is_elsewhere = |member: &Member| local.is_some() && member.zone.as_deref() != local;
    members.sort_by_key(|member| (member.priority, is_elsewhere(member)));
    let mut groups = Vec::new();
    for level in members.chunk_by(|one, other| one.priority == other.priority) {
        let (here, there) = level.split_at(level.partition_point(|member| !is_elsewhere(member)));
        let zones = 1 + count_zones(there);
        let here_is = if local.is_some() { Zone::Local } else { Zone::Any };
        let parts = [(here, here_is), (there, Zone::Other)];
        for (part, zone) in parts.into_iter().filter(|(part, _)| !part.is_empty()) {
            let first = groups.last().map_or(0, |last: &Group| last.first + last.len);
            groups.push(Group::new(first, part, zone, zones, workers));
        }
    }
    groups.into()
}

/// What is in no zone is together in one more.
fn count_zones(members: &[Member]) -> u32 {
    let mut zones: Vec<Option<&str>> = members.iter().map(|member| member.zone.as_deref()).collect();
    zones.sort_unstable();
    zones.dedup();
    zones.len() as u32
}

impl Group {
    fn new(first: usize, members: &[Member], zone: Zone, zones: u32, workers: usize) -> Group {
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        let weight: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        Group {
            first,
            len: members.len(),
            priority: members.first().map_or(0, |member| member.priority),
            zone,
            order: Order::new(&weights),
            in_turn: Order::unweighted(members.len()),
            mean_weight: weight as f64 / members.len() as f64,
            weight,
            zones,
            cursors: PerWorker::new(workers),
            ring: OnceLock::new(),
        }
    }

    /// Its own among the members of the set.
    pub fn of<'m>(&self, members: &'m [Member]) -> &'m [Member] {
        &members[self.first..self.first + self.len]
    }

    pub fn build_ring(&self, members: &[Member]) {
        let own = self.of(members).iter().map(|member| (member.instance.address, member.weight));
        self.ring.get_or_init(|| Ring::new(own));
    }
}

/// What part of the requests each group is to have, by the weight that it has at present. All zeros where nothing is usable.
pub(super) fn divide(
    groups: &[Group],
    present: impl Fn(usize) -> Weight,
    overprovisioning: f64,
    mut give: impl FnMut(usize, f64),
) {
    let usable = |group: usize| present(group).usable as f64;
    let weight = |group: usize| (groups[group].weight * WHOLE).saturating_sub(present(group).to_come) as f64;
    let levels = || {
        let mut first = 0;
        groups.chunk_by(|one, other| one.priority == other.priority).map(move |level| {
            first += level.len();
            (first - level.len(), level)
        })
    };
    let carried = |first: usize, level: &[Group]| {
        let own = first..first + level.len();
        let all: f64 = own.clone().map(weight).sum();
        // Rounding may leave nothing of light ones that have all just joined.
        (overprovisioning * own.map(usable).sum::<f64>() / all.max(1.0)).min(1.0)
    };
    // Where all together can't carry everything, each gets in proportion to what it can.
    let sum: f64 = levels().map(|(first, level)| carried(first, level)).sum();
    let scale = if sum > 0.0 && sum < 1.0 { 1.0 / sum } else { 1.0 };
    let mut left = 1.0;
    for (first, level) in levels() {
        let part = (carried(first, level) * scale).min(left);
        left -= part;
        let local = match level {
            [here, _] => {
                let all = weight(first) + weight(first + 1);
                let most_per_weight = overprovisioning * f64::from(here.zones) / all.max(1.0);
                local_share(most_per_weight, usable(first), usable(first + 1))
            }
            _ => 1.0,
        };
        give(first, part * local);
        if level.len() > 1 {
            give(first + 1, part * (1.0 - local));
        }
    }
}

/// What the local zone gets of a priority's requests: all, as long as its instances come to no more than `overprovisioning` times
/// their even part, which they would have if every zone had as many requests; and never less than without zones.
fn local_share(most_per_weight: f64, here: f64, there: f64) -> f64 {
    let without_zones = if here + there > 0.0 { here / (here + there) } else { 1.0 };
    (most_per_weight * here).min(1.0).max(without_zones)
}

impl Survey {
    /// One for each worker, as it is before that has counted: by what is known when the set is made.
    pub fn of_all(workers: usize, groups: &[Group], members: &[Member]) -> PerWorker<Survey> {
        let usable_weight = |group: &Group| -> u64 {
            let usable = group.of(members).iter().filter(|member| member.instance.seems_usable());
            usable.map(|member| u64::from(member.weight) * WHOLE).sum()
        };
        let usable: Vec<u64> = groups.iter().map(usable_weight).collect();
        PerWorker::from_fn(workers, || {
            let count = |&usable: &u64| Count {
                usable: AtomicU64::new(usable),
                to_come: AtomicU64::new(0),
                usable_so_far: AtomicU64::new(0),
                to_come_so_far: AtomicU64::new(0),
                on_probation: AtomicU32::new(0),
                bound: AtomicU32::new(0),
            };
            let survey = Survey {
                at: AtomicU32::new(0),
                due_at: AtomicU64::new(0),
                counts: usable.iter().map(count).collect(),
                probe: AtomicU32::new(0),
                usable: Noted::default(),
                spare: Noted::default(),
                ejected: Noted::default(),
            };
            survey.divide(groups, OVERPROVISIONING);
            survey
        })
    }

    /// Goes on counting, if it is time.
    #[inline]
    pub fn count(&self, groups: &[Group], now: Millis, overprovisioning: f64, look: impl Fn(usize) -> Found) {
        if now.0 >= self.due_at.load(Relaxed) {
            self.count_on(groups, now, overprovisioning, look);
        }
    }

    #[cold]
    fn count_on(&self, groups: &[Group], now: Millis, overprovisioning: f64, look: impl Fn(usize) -> Found) {
        let mut at = self.at.load(Relaxed) as usize;
        let mut left = AT_ONCE;
        for (group, count) in groups.iter().zip(&self.counts) {
            let end = group.first + group.len;
            while at < end && left > 0 {
                match look(at) {
                    Found::Usable(weight) => {
                        self.usable.note(at);
                        count.add(weight);
                    }
                    Found::OnProbation => {
                        self.spare.note(at);
                        count.on_probation.store(at as u32 + 1, Relaxed);
                    }
                    Found::Ejected => self.ejected.note(at),
                    Found::Unusable => {}
                }
                at += 1;
                left -= 1;
            }
        }
        let all = groups.last().map_or(0, |last| last.first + last.len);
        if at < all {
            self.at.store(at as u32, Relaxed);
            return;
        }
        self.at.store(0, Relaxed);
        self.due_at.store(now.plus(COUNT_EVERY).0, Relaxed);
        self.counts.iter().for_each(Count::round_ends);
        self.divide(groups, overprovisioning);
    }

    /// From what is counted to shares.
    fn divide(&self, groups: &[Group], overprovisioning: f64) {
        let mut sum = 0.0;
        let mut probe = 0;
        divide(
            groups,
            |group| self.counts[group].present(),
            overprovisioning,
            |group, share| {
                let count = &self.counts[group];
                let on_probation = count.on_probation.swap(0, Relaxed);
                if share == 0.0 && probe == 0 {
                    probe = on_probation;
                }
                sum += share;
                count.bound.store(bound(sum), Relaxed);
            },
        );
        self.probe.store(probe, Relaxed);
        // Nothing is usable: the first has as good a chance as any.
        if sum == 0.0 {
            self.counts.iter().for_each(|count| count.bound.store(u32::MAX, Relaxed));
        }
    }

    /// The group for a request that is at this place among all, which are evenly spread.
    pub fn group_at(&self, place: u32) -> usize {
        let place = place.min(u32::MAX - 1);
        self.counts.iter().position(|count| place < count.bound.load(Relaxed)).unwrap_or(0)
    }

    /// What part of the requests the group gets.
    pub fn share(&self, group: usize) -> f64 {
        let bound = |group: usize| self.counts.get(group).map_or(0, |count| count.bound.load(Relaxed));
        let before = if group == 0 { 0 } else { bound(group - 1) };
        f64::from(bound(group).saturating_sub(before)) / f64::from(u32::MAX)
    }

    /// The weight of the group's instances that can be used.
    pub fn usable_weight(&self, group: usize) -> f64 {
        self.counts[group].usable.load(Relaxed) as f64 / WHOLE as f64
    }

    /// Some of the instances that a request could go to when they were counted, wherever they are; the best first.
    pub fn seen(&self) -> impl Iterator<Item = usize> {
        self.usable.all().chain(self.spare.all())
    }

    /// Likewise, of those that are ejected.
    pub fn seen_ejected(&self) -> impl Iterator<Item = usize> {
        self.ejected.all()
    }

    /// An instance that is to be tried, in a group that gets no requests otherwise.
    pub fn take_probe(&self) -> Option<usize> {
        if self.probe.load(Relaxed) == 0 {
            return None;
        }
        (self.probe.swap(0, Relaxed) as usize).checked_sub(1)
    }
}

impl Noted {
    fn note(&self, place: usize) {
        let so_far = self.so_far.load(Relaxed);
        self.places[so_far as usize % SEEN].store(place as u32 + 1, Relaxed);
        self.so_far.store(so_far.wrapping_add(1), Relaxed);
    }

    fn all(&self) -> impl Iterator<Item = usize> {
        self.places.iter().filter_map(|place| (place.load(Relaxed) as usize).checked_sub(1))
    }
}

impl Count {
    fn add(&self, weight: Weight) {
        self.usable_so_far.store(self.usable_so_far.load(Relaxed) + weight.usable, Relaxed);
        self.to_come_so_far.store(self.to_come_so_far.load(Relaxed) + weight.to_come, Relaxed);
    }

    fn round_ends(&self) {
        self.usable.store(self.usable_so_far.swap(0, Relaxed), Relaxed);
        self.to_come.store(self.to_come_so_far.swap(0, Relaxed), Relaxed);
    }

    fn present(&self) -> Weight {
        Weight { usable: self.usable.load(Relaxed), to_come: self.to_come.load(Relaxed) }
    }
}

fn bound(sum: f64) -> u32 {
    if sum >= 1.0 - 1e-9 { u32::MAX } else { (sum * 2f64.powi(32)) as u32 }
}

#[cfg(test)]
mod tests;
