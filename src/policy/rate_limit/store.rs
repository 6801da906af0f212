//! The cells of a rate limit: a lock-free map that never holds more than its bound.
//!
//! A sweep and a check may meet at a cell. The sweep first marks it as evicted by compare-and-swap, and a
//! check that finds the mark makes a new cell, so no token is ever taken from a cell that nobody sees any more.

use std::cell::Cell;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};

use super::Stats;

/// The mark of an evicted cell: 584 years, which no limit's arithmetic reaches.
const EVICTED: Nanos = Nanos::new(u64::MAX);

pub(super) struct Store {
    cells: papaya::HashMap<u128, InMemoryState, BuildHasherDefault<LowHalf>>,
    /// For keys that found no room.
    overflow: InMemoryState,
    max_keys: usize,
    counters: Counters,
}

/// On a cache line of their own, away from the map's root that every check reads.
#[repr(align(128))]
#[derive(Default)]
struct Counters {
    /// Cells that are not marked as evicted. Written for new keys only.
    keys: AtomicUsize,
    evicted: AtomicU64,
    overflowed: AtomicU64,
    wants_sweep: AtomicBool,
}

/// The limiter and governor's part of it share the store; governor does not lend its own.
#[derive(Debug)]
pub(super) struct StoreHandle(pub(super) Arc<Store>);

/// A key on its way through governor, which brings back what governor itself does not tell.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    key: u128,
    /// When the tokens of the key's cell will all be back, once one has been taken.
    full_at: Cell<Nanos>,
}

impl Asking {
    pub(super) fn new(key: u128) -> Asking {
        Asking { key, full_at: Cell::new(Nanos::default()) }
    }

    pub(super) fn full_at(&self) -> Nanos {
        self.full_at.get()
    }
}

impl PartialEq for Asking {
    fn eq(&self, other: &Asking) -> bool {
        self.key == other.key
    }
}

impl Eq for Asking {}

impl Hash for Asking {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

enum Miss<E> {
    /// A sweep has just given this cell up.
    Evicted,
    Refused(E),
}

enum Kept {
    InUse,
    AlreadyEvicted,
}

impl Store {
    pub(super) fn new(max_keys: usize) -> Store {
        Store {
            cells: papaya::HashMap::default(),
            overflow: InMemoryState::default(),
            max_keys,
            counters: Counters::default(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            keys: self.counters.keys.load(Ordering::Relaxed),
            max_keys: self.max_keys,
            evicted: self.counters.evicted.load(Ordering::Relaxed),
            overflowed: self.counters.overflowed.load(Ordering::Relaxed),
        }
    }

    pub(super) fn wants_sweep(&self) -> bool {
        self.counters.wants_sweep.load(Ordering::Relaxed)
    }

    pub(super) fn sweep_begins(&self) {
        self.counters.wants_sweep.store(false, Ordering::Relaxed);
    }

    /// Room for one more key, or none.
    fn reserve(&self) -> bool {
        let one_more = |keys| (keys < self.max_keys).then_some(keys + 1);
        self.counters.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn release(&self) {
        self.counters.keys.fetch_sub(1, Ordering::Relaxed);
    }

    fn count_overflow(&self) {
        self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
        // Read first: while it is set, nobody needs the cache line for writing.
        if !self.wants_sweep() {
            self.counters.wants_sweep.store(true, Ordering::Relaxed);
        }
    }

    /// Marks the cell as evicted when its time is not later than `drop_below`; whether to remove it.
    fn evict(&self, cell: &InMemoryState, drop_below: Nanos) -> bool {
        let outcome = cell.measure_and_replace(&NotKeyed::NonKey, |arrival| match arrival {
            Some(EVICTED) => Err(Kept::AlreadyEvicted),
            Some(arrival) if arrival <= drop_below => Ok(((), EVICTED)),
            // `None` is a cell that another worker is about to use for the first time.
            _ => Err(Kept::InUse),
        });
        match outcome {
            Ok(()) => {
                self.counters.evicted.fetch_add(1, Ordering::Relaxed);
                self.release();
                true
            }
            Err(Kept::AlreadyEvicted) => true,
            Err(Kept::InUse) => false,
        }
    }
}

impl Store {
    fn take<T, F, E>(&self, key: u128, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let cells = self.cells.pin();
        // Round again only when a sweep evicted the very cell that was found.
        loop {
            let cell = match cells.get(&key) {
                Some(cell) => cell,
                // `try_insert_with` would save nothing and takes ten times as long in a large map.
                None if self.reserve() => match cells.try_insert(key, InMemoryState::default()) {
                    Ok(new) => new,
                    Err(occupied) => {
                        self.release();
                        occupied.current
                    }
                },
                None => {
                    self.count_overflow();
                    return self.overflow.measure_and_replace(&NotKeyed::NonKey, f);
                }
            };
            match measure(cell, &f) {
                Ok(outcome) => return Ok(outcome),
                Err(Miss::Refused(refusal)) => return Err(refusal),
                // The sweep is about to remove it; whoever comes first does.
                Err(Miss::Evicted) => {
                    let _ = cells.remove_if(&key, |_, cell| is_evicted(cell));
                }
            }
        }
    }
}

impl StateStore for StoreHandle {
    type Key = Asking;

    fn measure_and_replace<T, F, E>(&self, asking: &Asking, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let told = |arrival| f(arrival).map(|(outcome, full_at)| ((outcome, full_at), full_at));
        let (outcome, full_at) = self.0.take(asking.key, told)?;
        asking.full_at.set(full_at);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<Asking> for StoreHandle {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.cells.pin().retain(|_, cell| !self.0.evict(cell, drop_below));
    }

    fn len(&self) -> usize {
        self.0.stats().keys
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn measure<T, E>(
    cell: &InMemoryState,
    f: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
) -> Result<T, Miss<E>> {
    cell.measure_and_replace(&NotKeyed::NonKey, |arrival| match arrival {
        Some(EVICTED) => Err(Miss::Evicted),
        arrival => f(arrival).map_err(Miss::Refused),
    })
}

fn is_evicted(cell: &InMemoryState) -> bool {
    let read = |arrival| Err::<((), Nanos), _>(arrival == Some(EVICTED));
    cell.measure_and_replace(&NotKeyed::NonKey, read) == Err(true)
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The keys are hashes already: half of one is as good a hash as any.
#[derive(Default)]
struct LowHalf(u64);

impl Hasher for LowHalf {
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    /// For keys of other types, of which there are none.
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
