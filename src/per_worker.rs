//! One value for each worker, on cache lines of its own: a worker writes only its own, anyone may
//! read all of them and merge.

/// The number of a worker, from 0, below the count that every [`PerWorker`] was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(pub usize);

/// 128 bytes: x86 fetches cache lines in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Padded<T>(T);

#[derive(Debug)]
pub struct PerWorker<T> {
    slots: Box<[Padded<T>]>,
}

impl<T: Default> PerWorker<T> {
    pub fn new(workers: usize) -> Self {
        PerWorker { slots: (0..workers.max(1)).map(|_| Padded::default()).collect() }
    }
}

impl<T> PerWorker<T> {
    pub fn from_fn(workers: usize, mut make: impl FnMut() -> T) -> Self {
        PerWorker { slots: (0..workers.max(1)).map(|_| Padded(make())).collect() }
    }

    pub fn of(&self, worker: WorkerId) -> &T {
        &self.slots[worker.0].0
    }

    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().map(|slot| &slot.0)
    }

    pub fn workers(&self) -> usize {
        self.slots.len()
    }
}
