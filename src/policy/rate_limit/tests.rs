//! Limits on a clock that the tests move.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};

use governor::clock::FakeRelativeClock;
use governor::nanos::Nanos;
use proptest::prelude::*;

use super::*;
use crate::config::{At, KeyPart, Rate, Span};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn config(count: u32, per: Duration, burst: u32) -> config::RateLimit {
    config::RateLimit {
        name: At { value: "limit".into(), span: Span::default() },
        key: vec![KeyPart::Ip],
        rate: Rate { count, per },
        burst,
        max_keys: 100_000,
    }
}

fn limiter(config: &config::RateLimit) -> (RateLimiter<FakeRelativeClock>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    (RateLimiter::with_clock(config, clock.clone()), clock)
}

/// A request of the client with this number as its address.
fn check<C: Clock>(limiter: &RateLimiter<C>, client: u32) -> Decision {
    let headers = crate::http::fields::Fields::new();
    let client = std::net::Ipv4Addr::from(client).into();
    limiter.check(&KeyInput { client, route: "users", headers: &headers, claims: None })
}

#[test]
fn the_burst_goes_first_and_the_rate_follows() {
    let (limiter, clock) = limiter(&config(10, SECOND, 3));
    for remaining in [2, 1, 0] {
        let decision = check(&limiter, 1);
        assert_eq!((decision.allowed, decision.quota, decision.remaining), (true, 3, remaining));
    }
    assert!(!check(&limiter, 1).allowed);
    assert!(check(&limiter, 2).allowed);

    clock.advance(Duration::from_millis(99));
    assert!(!check(&limiter, 1).allowed);
    clock.advance(Duration::from_millis(1));
    assert!(check(&limiter, 1).allowed);
    assert!(!check(&limiter, 1).allowed);
}

/// A clock that reads each of its times once, to tell the story of workers that overtake each other.
#[derive(Clone, Debug, Default)]
struct ToldClock(Arc<Mutex<VecDeque<u64>>>);

impl Clock for ToldClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let milliseconds = self.0.lock().unwrap().pop_front().expect("no more readings were foreseen");
        (milliseconds * 1_000_000).into()
    }
}

/// A worker reads the clock, and before it takes its token another one reads a later time and takes its own.
#[test]
fn a_request_that_was_overtaken_loses_nothing() {
    let clock = ToldClock(Arc::new(Mutex::new(VecDeque::from([0, 0]))));
    let limiter = RateLimiter::with_clock(&config(1, SECOND, 3), clock.clone());
    let read = |readings: &[u64]| {
        clock.0.lock().unwrap().extend(readings);
        let decision = check(&limiter, 1);
        assert!(clock.0.lock().unwrap().is_empty(), "{readings:?}");
        (decision.allowed, decision.remaining)
    };
    assert_eq!(read(&[1200, 1201]), (true, 2));
    assert_eq!(read(&[1000, 1202]), (true, 1), "it is told what the other one left");
    assert_eq!(read(&[1000, 1202, 1202, 1202]), (true, 0), "it looks again before it refuses");
    assert_eq!(read(&[1000, 1202]), (false, 0));
}

#[test]
fn a_decision_tells_whole_seconds_rounded_up() {
    // A token every 1.5 seconds.
    let (limiter, clock) = limiter(&config(40, Duration::from_secs(60), 2));
    let expected = |allowed, remaining, reset_after, retry_after| Decision {
        allowed,
        quota: 2,
        remaining,
        reset_after,
        retry_after,
    };
    assert_eq!(check(&limiter, 1), expected(true, 1, 2, 0));
    assert_eq!(check(&limiter, 1), expected(true, 0, 3, 2));
    assert_eq!(check(&limiter, 1), expected(false, 0, 3, 2));
    clock.advance(SECOND);
    assert_eq!(check(&limiter, 1), expected(false, 0, 2, 1));
    clock.advance(Duration::from_millis(499));
    assert_eq!(check(&limiter, 1), expected(false, 0, 2, 1));
    clock.advance(Duration::from_millis(1));
    assert!(check(&limiter, 1).allowed);
}

#[test]
fn coming_back_when_told_helps() {
    for (count, per, burst) in
        [(10, SECOND, 3), (7, Duration::from_secs(60), 5), (3, HOUR, 2), (1, SECOND, 1)]
    {
        let (limiter, clock) = limiter(&config(count, per, burst));
        let refusal = (0..=burst).map(|_| check(&limiter, 1)).find(|decision| !decision.allowed).unwrap();
        clock.advance(Duration::from_secs(refusal.retry_after));
        let next = check(&limiter, 1);
        assert!(next.allowed);
        clock.advance(Duration::from_secs(next.reset_after));
        assert_eq!(check(&limiter, 1).remaining, burst - 1);
    }
}

#[test]
fn the_same_configuration_keeps_the_same_limiter() {
    let mut config = config(1, HOUR, 1);
    let first = RateLimiter::compile(&config, None);
    assert!(check(&first, 1).allowed);

    config.name.span.line = 99; // Moved within the file.
    let second = RateLimiter::compile(&config, Some(&first));
    assert!(Arc::ptr_eq(&first, &second));
    assert!(!check(&second, 1).allowed);

    config.burst = 2;
    let third = RateLimiter::compile(&config, Some(&second));
    assert!(!Arc::ptr_eq(&second, &third));
    assert!(check(&third, 1).allowed);
}

#[test]
fn extreme_settings_neither_panic_nor_let_everything_through() {
    let rates = [(1, HOUR), (u32::MAX, SECOND), (u32::MAX, HOUR), (1, SECOND)];
    for (count, per) in rates {
        for burst in [1, 2, u32::MAX] {
            let (limiter, clock) = limiter(&config(count, per, burst));
            clock.advance(Duration::from_secs(100 * 365 * 86_400));
            let decision = check(&limiter, 1);
            assert!(decision.allowed && decision.remaining < decision.quota && decision.quota <= burst);
            if burst == 1 {
                assert!(!check(&limiter, 1).allowed);
            }
        }
    }
}

#[test]
fn idle_keys_are_evicted_and_busy_ones_are_not() {
    let (limiter, clock) = limiter(&config(1, SECOND, 5));
    for client in 0..100 {
        check(&limiter, client);
    }
    assert_eq!(limiter.stats().keys, 100);
    assert_eq!(limiter.sweep(), 0);

    clock.advance(Duration::from_secs(10));
    for _ in 0..5 {
        assert!(check(&limiter, 7).allowed);
    }
    assert_eq!(limiter.sweep(), 99);
    assert_eq!(limiter.stats(), Stats { keys: 1, max_keys: 100_000, evicted: 99, overflowed: 0 });
    assert!(!check(&limiter, 7).allowed);
    assert!(check(&limiter, 8).allowed);
}

#[test]
fn keys_beyond_the_bound_share_one_cell() {
    let config = config::RateLimit { max_keys: 10, ..config(1, SECOND, 3) };
    let (limiter, clock) = limiter(&config);
    for client in 0..10 {
        assert!(check(&limiter, client).allowed);
    }
    assert!(!limiter.wants_sweep());

    let allowed = (10..1000).filter(|&client| check(&limiter, client).allowed).count();
    assert_eq!(allowed, 3);
    assert_eq!(limiter.stats(), Stats { keys: 10, max_keys: 10, evicted: 0, overflowed: 990 });
    assert!(limiter.wants_sweep());
    assert_eq!(check(&limiter, 5).remaining, 1);

    clock.advance(Duration::from_secs(10));
    assert_eq!(limiter.sweep(), 10);
    assert!(!limiter.wants_sweep());
    assert_eq!(check(&limiter, 2000).remaining, 2);
    assert_eq!(limiter.stats().keys, 1);
}

#[test]
fn a_bound_of_nothing_still_limits() {
    let (limiter, _clock) = limiter(&config::RateLimit { max_keys: 0, ..config(1, SECOND, 2) });
    let allowed = (0..100).filter(|&client| check(&limiter, client).allowed).count();
    assert_eq!(allowed, 2);
}

#[test]
fn a_million_keys_have_a_cell_each() {
    const KEYS: u32 = 1_000_000;
    let (limiter, clock) = limiter(&config::RateLimit { max_keys: KEYS as usize, ..config(1, SECOND, 1) });
    assert!((0..KEYS).all(|client| check(&limiter, client).allowed));
    assert_eq!(limiter.stats().keys, KEYS as usize);
    assert!((0..KEYS).step_by(1000).all(|client| !check(&limiter, client).allowed));
    assert_eq!(limiter.stats().overflowed, 0);
    clock.advance(Duration::from_secs(2));
    assert_eq!(limiter.sweep(), u64::from(KEYS));
}

#[test]
fn a_limit_is_exact_over_threads_and_sweeps() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 300;
    const BURST: u32 = 5;
    let (limiter, clock) = limiter(&config(1, SECOND, BURST));
    let allowed = AtomicU32::new(0);
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (limiter, clock, allowed, barrier) = (&limiter, &clock, &allowed, &barrier);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    // In every round the cell of the last one is full again: a sweep may take it away
                    // at any moment, and may not take a token with it.
                    if barrier.wait().is_leader() {
                        clock.advance(Duration::from_secs(60));
                        allowed.store(0, Ordering::SeqCst);
                    }
                    barrier.wait();
                    for _ in 0..2 * BURST {
                        if thread == 0 {
                            limiter.sweep();
                        } else if check(limiter, 1).allowed {
                            allowed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    barrier.wait();
                    assert_eq!(allowed.load(Ordering::SeqCst), BURST);
                    assert_eq!(limiter.stats().keys, 1);
                }
            });
        }
    });
}

#[derive(Clone, Debug)]
enum Step {
    Check(u32),
    Advance(u64),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0_u32..6).prop_map(Step::Check),
        3 => (0_u64..3_000).prop_map(Step::Advance),
        1 => Just(Step::Sweep),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever happens in whatever order: a client never gets more than the burst and what has flowed in
    /// since the beginning; those that share a cell get no more than that together.
    #[test]
    fn nobody_gets_more_than_the_rate(
        steps in steps(),
        count in 1_u32..5,
        burst in 1_u32..5,
        max_keys in 0_usize..6,
    ) {
        let config = config::RateLimit { max_keys, ..config(count, SECOND, burst) };
        let (limiter, clock) = limiter(&config);
        let mut allowed = [0_u64; 6];
        let mut elapsed_ms = 0;
        for step in steps {
            match step {
                Step::Check(client) => {
                    let decision = check(&limiter, client);
                    allowed[client as usize] += u64::from(decision.allowed);
                    prop_assert!(decision.remaining < decision.quota);
                    prop_assert!(decision.allowed || (decision.remaining == 0 && decision.retry_after >= 1));
                    prop_assert!(decision.reset_after >= decision.retry_after);
                }
                Step::Advance(ms) => {
                    elapsed_ms += ms;
                    clock.advance(Duration::from_millis(ms));
                }
                Step::Sweep => { limiter.sweep(); }
            }
            prop_assert!(limiter.stats().keys <= max_keys);
            // A millionth more for the interval's being rounded down to whole nanoseconds.
            let most = u64::from(burst) + (elapsed_ms * u64::from(count) * 1_000_001) / 1_000_000_000;
            // With few cells a client may use its own and, at other times, the shared one.
            let cells = if max_keys < allowed.len() { 2 } else { 1 };
            prop_assert!(allowed.iter().all(|&allowed| allowed <= cells * most));
            prop_assert!(allowed.iter().sum::<u64>() <= (max_keys as u64 + 1) * most);
        }
    }
}
