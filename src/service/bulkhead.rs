//! How many requests a service may have at once, over all workers, and the line of those that wait.
//!
//! What holds at every moment:
//!
//! 1. `load` counts a request in flight for every [`Slot`], and for every [`Waiting`] whose turn has come: a turn is a slot
//!    that is handed over, not a hint to try again, so none is lost and nobody overtakes.
//! 2. While `line` is unlocked, `load` counts as many waiting as stand in it. Only who holds the lock changes that number.
//! 3. While anybody waits, only who holds the lock changes the number in flight. So while nobody waits, coming and
//!    leaving are one compare-and-swap each; and only then.
//! 4. Nobody waits while there is room, unless somebody is about to admit him: whoever makes room (by leaving, or by raising `max`)
//!    admits those who are next. `max` changes with the lock held only, so nobody joins the line by an old one afterwards.
//!
//! The lock is held for one step in the line, and never while somebody is woken. A turn wakes its task on whichever worker
//! that runs; that worker needs no request of its own in flight for it. Who gives up waiting leaves the line, or, when the turn had
//! come meanwhile, passes it on.

mod adaptive;
mod gradient;
mod line;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use adaptive::Adaptive;
pub use adaptive::Answered;
pub use gradient::Bounds;
use line::{Line, Turn};

use crate::clock::{self, Millis};

/// On cache lines of its own, because every request of the service writes here.
#[repr(align(128))]
#[derive(Debug)]
pub struct Bulkhead {
    load: AtomicU64,
    max: AtomicU32,
    queue: AtomicU32,
    is_adaptive: AtomicBool,
    line: Mutex<Line>,
    /// Made when it is first wanted.
    adaptive: OnceLock<Adaptive>,
}

/// What a bulkhead holds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkheadLimits {
    /// Requests in flight.
    pub max: Max,
    /// Requests waiting.
    pub queue: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Max {
    /// 1 or more.
    Fixed(u32),
    /// As many as the service does well with.
    Adaptive(Bounds),
}

/// What holds at a moment.
#[derive(Clone, Copy, Debug)]
pub struct BulkheadStatus {
    pub max: u32,
    pub queue: u32,
    pub load: BulkheadLoad,
    pub adaptive: Option<AdaptiveStatus>,
}

#[derive(Clone, Copy, Debug)]
pub struct AdaptiveStatus {
    pub bounds: Bounds,
    /// What an answer takes when the service has time for it, as far as is known.
    pub baseline: Option<Duration>,
}

/// What there is at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkheadLoad {
    pub in_flight: u32,
    pub waiting: u32,
}

/// One request's place at the service, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Slot(Arc<Bulkhead>);

/// What becomes of a request that comes.
#[derive(Debug)]
pub enum Entry {
    Admitted(Slot),
    /// Await it; drop it to give up.
    Queued(Waiting),
    Refused,
}

/// A place in the line.
#[derive(Debug)]
pub struct Waiting {
    bulkhead: Arc<Bulkhead>,
    turn: Arc<Turn>,
    number: u64,
    /// The slot was taken, and this is over.
    is_served: bool,
}

const ONE_WAITING: u64 = 1;
const ONE_IN_FLIGHT: u64 = 1 << 32;

impl BulkheadLoad {
    fn of(word: u64) -> Self {
        BulkheadLoad { in_flight: (word >> 32) as u32, waiting: word as u32 }
    }
}

impl Bulkhead {
    pub fn new(limits: BulkheadLimits) -> Arc<Self> {
        Self::at(limits, clock::now())
    }

    fn at(limits: BulkheadLimits, now: Millis) -> Arc<Self> {
        let bulkhead = Arc::new(Bulkhead {
            load: AtomicU64::new(0),
            max: AtomicU32::new(1),
            queue: AtomicU32::new(0),
            is_adaptive: AtomicBool::new(false),
            line: Mutex::default(),
            adaptive: OnceLock::new(),
        });
        bulkhead.set_at(limits, now);
        bulkhead
    }

    /// Changes the limits, for those who wait already, too. What is in flight beyond a lower `max` stays.
    pub fn set(&self, limits: BulkheadLimits) {
        self.set_at(limits, clock::now());
    }

    fn set_at(&self, limits: BulkheadLimits, now: Millis) {
        let max = match limits.max {
            Max::Fixed(max) => max,
            Max::Adaptive(bounds) => self.adaptive.get_or_init(|| Adaptive::new(bounds, now)).set(bounds),
        };
        {
            let _line = self.line();
            self.queue.store(limits.queue, Relaxed);
            self.is_adaptive.store(matches!(limits.max, Max::Adaptive(_)), Relaxed);
            self.max.store(max, Relaxed);
        }
        self.fill();
    }

    /// Admits those who wait as far as there is room.
    fn fill(&self) {
        loop {
            let next = self.admit_next(&mut self.line());
            match next {
                Some(turn) => turn.wake(),
                None => break,
            }
        }
    }

    /// Whether answers have a say in the limit.
    pub fn is_adaptive(&self) -> bool {
        self.is_adaptive.load(Relaxed)
    }

    /// An answer that tells how the service is. Only while it [is adaptive](Self::is_adaptive).
    pub fn answered(&self, answered: Answered) {
        let adaptive = self.adaptive.get().filter(|_| self.is_adaptive());
        let limit = adaptive.and_then(|adaptive| adaptive.answered(answered, self.load().in_flight));
        let Some(limit) = limit.filter(|limit| *limit != self.max.load(Relaxed)) else { return };
        {
            let _line = self.line();
            // A reload may have put a number in its place meanwhile.
            if self.is_adaptive() {
                self.max.store(limit, Relaxed);
            }
        }
        self.fill();
    }

    pub fn present(&self) -> BulkheadStatus {
        let adaptive = self.adaptive.get().filter(|_| self.is_adaptive());
        BulkheadStatus {
            max: self.max.load(Relaxed),
            queue: self.queue.load(Relaxed),
            load: self.load(),
            adaptive: adaptive
                .map(|adaptive| AdaptiveStatus { bounds: adaptive.bounds(), baseline: adaptive.baseline() }),
        }
    }

    fn load(&self) -> BulkheadLoad {
        BulkheadLoad::of(self.load.load(Relaxed))
    }

    /// A request comes.
    pub fn enter(self: &Arc<Self>) -> Entry {
        let max = self.max.load(Relaxed);
        let admitted = self.load.fetch_update(AcqRel, Acquire, |word| {
            let load = BulkheadLoad::of(word);
            (load.waiting == 0 && load.in_flight < max).then_some(word + ONE_IN_FLIGHT)
        });
        if admitted.is_ok() { Entry::Admitted(Slot(self.clone())) } else { self.enter_line() }
    }

    fn enter_line(self: &Arc<Self>) -> Entry {
        let mut line = self.line();
        let (max, queue) = (self.max.load(Relaxed), self.queue.load(Relaxed));
        let has_room = |load: BulkheadLoad| load.waiting == 0 && load.in_flight < max;
        // As long as nobody waits, others may still come and leave without the lock.
        let counted = self.load.fetch_update(AcqRel, Acquire, |word| match BulkheadLoad::of(word) {
            load if has_room(load) => Some(word + ONE_IN_FLIGHT),
            load if load.waiting < queue => Some(word + ONE_WAITING),
            _ => None,
        });
        match counted {
            Ok(before) if has_room(BulkheadLoad::of(before)) => Entry::Admitted(Slot(self.clone())),
            Ok(_) => {
                let (number, turn) = line.push();
                Entry::Queued(Waiting { bulkhead: self.clone(), turn, number, is_served: false })
            }
            Err(_) => Entry::Refused,
        }
    }

    fn leave(&self) {
        let left = self.load.fetch_update(AcqRel, Acquire, |word| {
            (BulkheadLoad::of(word).waiting == 0).then(|| word - ONE_IN_FLIGHT)
        });
        if left.is_ok() {
            return;
        }
        let next = {
            let mut line = self.line();
            self.load.fetch_sub(ONE_IN_FLIGHT, AcqRel);
            // One at most: there was no room before.
            self.admit_next(&mut line)
        };
        if let Some(turn) = next {
            turn.wake();
        }
    }

    /// Gives the first in line its turn, if there is room for it.
    fn admit_next(&self, line: &mut Line) -> Option<Arc<Turn>> {
        let load = self.load();
        if load.in_flight >= self.max.load(Relaxed) {
            return None;
        }
        let turn = line.pop()?;
        self.load.fetch_add(ONE_IN_FLIGHT - ONE_WAITING, AcqRel);
        turn.come();
        Some(turn)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Future for Waiting {
    type Output = Slot;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Slot> {
        if !self.turn.poll_come(cx) {
            return Poll::Pending;
        }
        self.is_served = true;
        Poll::Ready(Slot(self.bulkhead.clone()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_served {
            return;
        }
        let stood_in_line = {
            let mut line = self.bulkhead.line();
            let removed = line.remove(self.number);
            if removed {
                self.bulkhead.load.fetch_sub(ONE_WAITING, AcqRel);
            }
            removed
        };
        if !stood_in_line {
            self.bulkhead.leave();
        }
    }
}
