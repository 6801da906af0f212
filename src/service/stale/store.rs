//! Where a route's last good answers are kept: a table that all workers read and write without a lock.
//!
//! Every answer stands in one of the few slots that its key leads to, and each slot is one pointer that is swapped. So a worker
//! that is held up holds up nobody, and what two of them put into the same place at once is one of the two.
//!
//! Invariant: `used` counts the bytes of every answer in the table, of every copy on its way there, and of those that
//! somebody still reads after they left it. It goes above `max` only for the moment in which room is made.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use super::kept::Kept;

/// Slots that one key leads to.
const WAYS: usize = 8;
/// There is a slot for so many bytes: short answers fill the slots, long ones the bytes.
const BYTES_A_SLOT: usize = 2048;
const MIN_SLOTS: usize = 64;
const MAX_SLOTS: usize = 65_536;
/// No answer may take more of the store than this part.
const LARGEST_PART: usize = 8;

type Slot = ArcSwapOption<Kept>;

pub struct StaleStore {
    /// Made with the first answer.
    slots: OnceLock<Box<[Slot]>>,
    count: usize,
    /// Random for each store: nobody outside can choose keys that meet in one place.
    hasher: RandomState,
    used: Arc<AtomicUsize>,
    max: usize,
    /// Where room is made next.
    hand: AtomicUsize,
}

/// What a store holds at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleHeld {
    pub answers: usize,
    pub bytes: usize,
    pub max_bytes: usize,
}

/// Bytes that count in a store until this is dropped.
#[derive(Debug)]
pub struct Held {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl StaleStore {
    pub fn new(max: usize) -> Self {
        StaleStore {
            slots: OnceLock::new(),
            count: (max / BYTES_A_SLOT).clamp(MIN_SLOTS, MAX_SLOTS).next_multiple_of(WAYS),
            hasher: RandomState::new(),
            used: Arc::default(),
            max,
            hand: AtomicUsize::new(0),
        }
    }

    /// A store of another size with the same answers, as far as there is room for them.
    pub fn resized(&self, max: usize) -> Self {
        let new = Self::new(max);
        for kept in self.slots().iter().filter_map(ArcSwapOption::load_full) {
            let mut held = new.hold();
            if new.add(&mut held, kept.head_bytes() + kept.body.len()) {
                new.put(Arc::new(kept.with_held(held)));
            }
        }
        new
    }

    pub fn max(&self) -> usize {
        self.max
    }

    /// What one answer may take, all in all.
    pub fn largest(&self) -> usize {
        self.max / LARGEST_PART
    }

    /// The latest of the answers with this key that are `wanted`.
    pub fn find(&self, key: &str, wanted: impl Fn(&Kept) -> bool) -> Option<Arc<Kept>> {
        let matching = self.ways(key).iter().filter_map(ArcSwapOption::load_full);
        matching.filter(|kept| kept.key == key && wanted(kept)).max_by_key(|kept| kept.at)
    }

    /// Puts an answer in the place of the one that it is the successor of; without one in an empty place; else in that of
    /// the oldest.
    pub fn put(&self, kept: Arc<Kept>) {
        self.slots.get_or_init(|| (0..self.count).map(|_| Slot::empty()).collect());
        let ways = self.ways(&kept.key);
        let mut place = None;
        for slot in ways {
            let present = slot.load();
            let rank = match present.as_deref() {
                // An answer that was slow to come must not take the place of a later one.
                Some(present) if present.is_same(&kept) && present.at > kept.at => return,
                Some(present) if present.is_same(&kept) => (0, present.at),
                None => (1, kept.at),
                Some(present) => (2, present.at),
            };
            if place.is_none_or(|(best, _)| rank < best) {
                place = Some((rank, slot));
            }
        }
        if let Some((_, slot)) = place {
            slot.store(Some(kept));
        }
        self.make_room();
    }

    /// Forgets all answers with this key.
    pub fn forget(&self, key: &str) {
        for slot in self.ways(key) {
            if slot.load().as_deref().is_some_and(|kept| kept.key == key) {
                slot.store(None);
            }
        }
    }

    /// Nothing yet, to be [added](Self::add) to.
    pub fn hold(&self) -> Held {
        Held { used: self.used.clone(), bytes: 0 }
    }

    /// Counts `bytes` more, at the cost of answers that are kept. `false` when there is no room for them.
    pub fn add(&self, held: &mut Held, bytes: usize) -> bool {
        if held.bytes + bytes > self.largest() {
            return false;
        }
        held.bytes += bytes;
        held.used.fetch_add(bytes, Relaxed);
        self.make_room()
    }

    pub fn held(&self) -> StaleHeld {
        let answers = self.slots().iter().filter(|slot| slot.load().is_some()).count();
        StaleHeld { answers, bytes: self.used.load(Relaxed), max_bytes: self.max }
    }

    /// Goes round the table, taking the oldest of each place away, until what is left fits. Once round at most.
    fn make_room(&self) -> bool {
        let slots = self.slots();
        let places = slots.len() / WAYS;
        for _ in 0..places {
            if self.used.load(Relaxed) <= self.max {
                return true;
            }
            let place = self.hand.fetch_add(1, Relaxed) % places;
            let ways = &slots[place * WAYS..][..WAYS];
            let oldest = ways.iter().filter_map(|slot| Some((slot.load().as_deref()?.at, slot)));
            if let Some((_, slot)) = oldest.min_by_key(|(at, _)| *at) {
                slot.store(None);
            }
        }
        self.used.load(Relaxed) <= self.max
    }

    fn slots(&self) -> &[Slot] {
        self.slots.get().map(|slots| &slots[..]).unwrap_or_default()
    }

    fn ways(&self, key: &str) -> &[Slot] {
        let slots = self.slots();
        match slots.len() / WAYS {
            0 => &[],
            places => &slots[self.hasher.hash_one(key) as usize % places * WAYS..][..WAYS],
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// Without what is kept: it is somebody's.
impl fmt::Debug for StaleStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.held().fmt(f)
    }
}
