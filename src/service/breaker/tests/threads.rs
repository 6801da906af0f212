//! The breaker on many threads at once.

use super::*;

const THREADS: usize = 8;

/// All threads ask at the same moment, again and again: never more, never fewer than the number allowed.
#[test]
fn exactly_so_many_probes_are_out_whoever_asks() {
    let (breaker, mut settings) = (Breaker::new(THREADS), settings());
    settings.half_open_requests = 3;
    fail(&breaker, 3, 0, &settings);
    let (barrier, admitted) = (Barrier::new(THREADS), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 1..=500 {
                    barrier.wait();
                    let pass = breaker.admit(Millis(1000), &settings);
                    admitted.fetch_add(u32::from(pass.is_some()), SeqCst);
                    barrier.wait();
                    assert_eq!(admitted.load(SeqCst), 3 * round);
                    assert_eq!(breaker.status().probes, 3);
                    barrier.wait();
                    if let Some(pass) = pass {
                        breaker.ignored(pass);
                    }
                }
            });
        }
    });
    assert_eq!(breaker.status().probes, 0);
}

/// No order in which probes come and go lets one more out than allowed, or loses a place.
#[test]
fn no_place_is_lost_or_given_twice_under_contention() {
    let (breaker, mut settings) = (Breaker::new(THREADS), settings());
    settings.half_open_requests = 2;
    settings.open_for = Duration::ZERO;
    settings.max_open_for = Duration::ZERO;
    settings.failure_ratio = None;
    settings.consecutive_failures = 1;
    fail(&breaker, 1, 0, &settings);
    // Whatever their epoch: a verdict ends one for all its probes at once, but the others are at the instance still.
    let out = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (breaker, settings, out) = (&breaker, &settings, &out);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread as u64);
                let worker = WorkerId(thread);
                for _ in 0..4_000 {
                    let Some(pass) = breaker.admit(Millis(0), settings) else { continue };
                    if pass.probe {
                        assert!(out.fetch_add(1, SeqCst) < 2, "a third probe is out");
                    }
                    if rng.bool() {
                        std::thread::yield_now();
                    }
                    let probe = pass.probe;
                    if probe {
                        out.fetch_sub(1, SeqCst);
                    }
                    match rng.u8(0..10) {
                        0..3 => breaker.success(pass, worker, Millis(0), settings),
                        3..5 => breaker.failure(pass, worker, Millis(0), settings),
                        _ => breaker.ignored(pass),
                    }
                }
            });
        }
    });
    // Wherever it ended, all that were out are back, and it still works.
    let opens = breaker.status().opens;
    assert!(opens > 1);
    assert_eq!(breaker.status().probes, 0);
    while breaker.status().state != BreakerState::Closed {
        succeed(&breaker, 1, 0, &settings);
    }
    fail(&breaker, 1, 0, &settings);
    assert_eq!(breaker.status().opens, opens + 1);
    let probes = [breaker.admit(Millis(0), &settings), breaker.admit(Millis(0), &settings)];
    assert!(probes.iter().all(Option::is_some));
    assert!(breaker.admit(Millis(0), &settings).is_none());
}
