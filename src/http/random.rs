//! Random bits for identifiers: fast, one generator a thread, seeded by the operating system.
//!
//! Good for telling requests apart, not for secrets: who sees outputs can compute the next ones.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use fastrand::Rng;

thread_local! {
    // fastrand's own seed is the clock and the thread's number, which two gateways that start at
    // once could share. RandomState is keyed by the operating system's random numbers.
    static GENERATOR: RefCell<Rng> = RefCell::new(Rng::with_seed(RandomState::new().hash_one(0_u8)));
}

pub(super) fn bits_128() -> u128 {
    GENERATOR.with_borrow_mut(|generator| generator.u128(..))
}

pub(super) fn bits_64() -> u64 {
    GENERATOR.with_borrow_mut(|generator| generator.u64(..))
}
