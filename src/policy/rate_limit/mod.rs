//! Rate limits: the generic cell rate algorithm of `governor`, one cell a key.
//!
//! A key's cell is shared by all workers and changed by compare-and-swap, so a limit is exact however
//! many cores serve it, and a worker never waits for another. Keys are reduced to 128 bits under a secret
//! of the process: memory a key is fixed, and nobody can choose keys that collide.
//!
//! Invariants: no more than `max_keys` cells exist; once they do, keys without one share a single cell, so a
//! flood of new keys is limited as one client and leaves known keys alone. Looking at all keys is for
//! [`RateLimiter::sweep`], which the control side calls; a check looks at one.

mod headers;
mod key;
mod store;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota;
use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;

pub use headers::write_headers;
pub use key::KeyInput;

use crate::config;
use headers::Fields;
use key::KeyScheme;
use store::{Asking, Store, StoreHandle};

/// The longest time in which a limit may fill up again, some 146 years. governor counts nanoseconds in
/// 64 bits, and the present moment must still fit on top.
const MAX_REFILL_NS: u64 = 1 << 62;

#[derive(Debug)]
pub struct RateLimiter<C: Clock = DefaultClock> {
    config: config::RateLimit,
    key: KeyScheme,
    cells: governor::RateLimiter<Asking, StoreHandle, C, NoOpMiddleware<C::Instant>>,
    /// What governor counts time from.
    start: C::Instant,
    store: Arc<Store>,
    burst: u32,
    /// The time in which one token comes back.
    interval_ns: u64,
    fields: Fields,
}

/// What a limit says about one request. Times are whole seconds, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// How many requests the key may make at once after a rest.
    pub quota: u32,
    /// How many more it may make at once now.
    pub remaining: u32,
    /// Until `remaining` is `quota` again, if it makes none.
    pub reset_after: u64,
    /// Until it may make the next one: 0 when `remaining` is not 0, 1 or more on a refusal.
    pub retry_after: u64,
}

/// For status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Keys with a cell of their own.
    pub keys: usize,
    pub max_keys: usize,
    /// Keys whose cells were given up because they were full again, ever.
    pub evicted: u64,
    /// Requests that were counted in the shared cell because `max_keys` was reached, ever.
    pub overflowed: u64,
}

impl RateLimiter {
    /// The previous limiter with all it remembers when its configuration is this one, else a new one.
    pub fn compile(config: &config::RateLimit, previous: Option<&Arc<RateLimiter>>) -> Arc<RateLimiter> {
        match previous {
            Some(previous) if previous.config == *config => previous.clone(),
            _ => Arc::new(RateLimiter::with_clock(config, DefaultClock::default())),
        }
    }
}

impl<C: Clock> RateLimiter<C> {
    /// A new limiter on a clock of the caller's.
    pub fn with_clock(config: &config::RateLimit, clock: C) -> RateLimiter<C> {
        let rate = NonZeroU32::new(config.rate.count).unwrap_or(NonZeroU32::MIN);
        let interval_ns =
            (config.rate.per.as_nanos() / u128::from(rate.get())).clamp(1, MAX_REFILL_NS.into()) as u64;
        let longest_burst = u32::try_from(MAX_REFILL_NS / interval_ns).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(config.burst.min(longest_burst)).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::from_nanos(interval_ns))
            .expect("the interval was clamped to a nanosecond or more")
            .allow_burst(burst);
        let store = Arc::new(Store::new(config.max_keys));
        let window = seconds_up(interval_ns.saturating_mul(burst.get().into())).max(1);
        RateLimiter {
            key: KeyScheme::compile(&config.key),
            start: clock.now(),
            cells: governor::RateLimiter::new(quota, StoreHandle(store.clone()), clock),
            store,
            burst: burst.get(),
            interval_ns,
            fields: Fields::compile(&config.name, burst.get(), window),
            config: config.clone(),
        }
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Whether the key has a claim in it, so that the check must wait for authentication.
    pub fn needs_identity(&self) -> bool {
        self.key.needs_identity()
    }

    /// Takes a token for this request, if there is one.
    ///
    /// The clock is read before the token is taken, and another worker may come in between. Therefore it is
    /// read again before anything is said: what is left is told as of now, and nobody is refused for a
    /// token that has come back by now.
    pub fn check(&self, input: &KeyInput<'_>) -> Decision {
        let asking = Asking::new(self.key.reduce(input));
        loop {
            let outcome = self.cells.check_key(&asking);
            let now = self.cells.clock().now();
            match outcome {
                Ok(()) => return self.allowed(asking.full_at(), now),
                Err(refusal) => match refusal.wait_time_from(now).as_nanos() as u64 {
                    0 => continue,
                    wait_ns => return self.refused(wait_ns),
                },
            }
        }
    }

    fn allowed(&self, full_at: Nanos, now: C::Instant) -> Decision {
        let quota = self.burst;
        let missing_ns = full_at.saturating_sub(now.duration_since(self.start)).as_u64();
        let missing = missing_ns.div_ceil(self.interval_ns).clamp(1, quota.into()) as u32;
        let remaining = quota - missing;
        Decision {
            allowed: true,
            quota,
            remaining,
            reset_after: seconds_up(u64::from(missing) * self.interval_ns),
            retry_after: if remaining == 0 { seconds_up(self.interval_ns) } else { 0 },
        }
    }

    fn refused(&self, wait_ns: u64) -> Decision {
        let rest_ns = u64::from(self.burst - 1) * self.interval_ns;
        Decision {
            allowed: false,
            quota: self.burst,
            remaining: 0,
            reset_after: seconds_up(wait_ns + rest_ns).max(1),
            retry_after: seconds_up(wait_ns).max(1),
        }
    }

    /// Gives up the cells of keys that are no different from new ones any more, and returns how many they
    /// were. It looks at every key, and to give up 1,000,000 takes half a second: call it on a thread that
    /// may block, every few seconds and when [`RateLimiter::wants_sweep`].
    pub fn sweep(&self) -> u64 {
        let before = self.store.stats().evicted;
        self.store.sweep_begins();
        self.cells.retain_recent();
        self.store.stats().evicted - before
    }

    /// Whether a new key found no room since the last sweep.
    pub fn wants_sweep(&self) -> bool {
        self.store.wants_sweep()
    }

    pub fn stats(&self) -> Stats {
        self.store.stats()
    }
}

fn seconds_up(ns: u64) -> u64 {
    ns.div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests;
