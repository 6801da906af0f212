//! The order, the bounds, and what is left over when requests come, leave and give up on many threads.

use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::time::{Instant, timeout, timeout_at};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn bulkhead(max: u32, queue: u32) -> Arc<Bulkhead> {
    Bulkhead::new(BulkheadLimits { max: Max::Fixed(max), queue })
}

fn admitted(bulkhead: &Arc<Bulkhead>) -> Slot {
    match bulkhead.enter() {
        Entry::Admitted(slot) => slot,
        other => panic!("{other:?}"),
    }
}

fn queued(bulkhead: &Arc<Bulkhead>) -> Waiting {
    match bulkhead.enter() {
        Entry::Queued(waiting) => waiting,
        other => panic!("{other:?}"),
    }
}

fn load(in_flight: u32, waiting: u32) -> BulkheadLoad {
    BulkheadLoad { in_flight, waiting }
}

#[tokio::test]
async fn those_beyond_max_wait_in_order_and_those_beyond_the_queue_are_refused() {
    let bulkhead = bulkhead(2, 2);
    let (one, two) = (admitted(&bulkhead), admitted(&bulkhead));
    let (mut first, mut second) = (pin!(queued(&bulkhead)), pin!(queued(&bulkhead)));
    assert!(matches!(bulkhead.enter(), Entry::Refused));
    assert_eq!(bulkhead.load(), load(2, 2));
    assert!(poll!(&mut second).is_pending() && poll!(&mut first).is_pending());
    drop(one);
    assert!(poll!(&mut second).is_pending(), "it overtook the first");
    let Poll::Ready(third) = poll!(&mut first) else { panic!("its turn has come") };
    drop((two, third));
    drop(second.await);
    assert_eq!(bulkhead.load(), load(0, 0));
}

#[tokio::test]
async fn nobody_overtakes_between_a_turn_and_its_being_taken() {
    let bulkhead = bulkhead(1, 1);
    let slot = admitted(&bulkhead);
    let waits = queued(&bulkhead);
    drop(slot);
    let next = queued(&bulkhead);
    drop(waits.await);
    drop(next.await);
    assert_eq!(bulkhead.load(), load(0, 0));
}

#[tokio::test]
async fn who_gives_up_leaves_nothing_behind() {
    let bulkhead = bulkhead(1, 3);
    let slot = admitted(&bulkhead);
    let (first, second, third) = (queued(&bulkhead), queued(&bulkhead), queued(&bulkhead));
    drop(first);
    assert_eq!(bulkhead.load(), load(1, 2));
    drop(slot);
    // Its turn has come, and nobody has told it yet.
    drop(second);
    drop(third.await);
    assert_eq!(bulkhead.load(), load(0, 0));
}

#[tokio::test]
async fn a_higher_max_lets_those_in_who_wait_and_a_lower_one_waits_for_those_inside() {
    let bulkhead = bulkhead(1, 3);
    let one = admitted(&bulkhead);
    let (first, second, third) = (queued(&bulkhead), queued(&bulkhead), queued(&bulkhead));
    bulkhead.set(BulkheadLimits { max: Max::Fixed(3), queue: 3 });
    let (two, three) = (first.await, second.await);
    assert_eq!(bulkhead.load(), load(3, 1));
    bulkhead.set(BulkheadLimits { max: Max::Fixed(1), queue: 0 });
    assert!(matches!(bulkhead.enter(), Entry::Refused));
    drop((one, two));
    let mut third = pin!(third);
    assert!(poll!(&mut third).is_pending());
    drop(three);
    drop(third.await);
    assert_eq!(bulkhead.load(), load(0, 0));
}

/// Four threads with runtimes of their own, as workers are; some give up while they wait, and `max` changes all the time.
#[test]
fn no_turn_is_lost_and_max_holds_over_threads() {
    let bulkhead = bulkhead(3, 64);
    let (inside, most, served, gave_up) =
        (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let visit = async |slot: Slot| {
        most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
        tokio::task::yield_now().await;
        inside.fetch_sub(1, SeqCst);
        served.fetch_add(1, SeqCst);
        drop(slot);
    };
    let client = async |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        for turn in 0..500 {
            if turn % 50 == 0 {
                bulkhead.set(BulkheadLimits { max: Max::Fixed(rng.u32(1..=3)), queue: 64 });
            }
            let slot = match bulkhead.enter() {
                Entry::Admitted(slot) => slot,
                Entry::Refused => continue,
                Entry::Queued(mut waiting) if rng.u8(..) < 64 => {
                    let deadline = Instant::now() + Duration::from_micros(rng.u64(..200));
                    match timeout_at(deadline, &mut waiting).await {
                        Ok(slot) => slot,
                        Err(_) => {
                            gave_up.fetch_add(1, SeqCst);
                            continue;
                        }
                    }
                }
                Entry::Queued(waiting) => timeout(PATIENCE, waiting).await.expect("its turn never came"),
            };
            visit(slot).await;
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = &client;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let clients = (0..8).map(|n| client(thread * 8 + n));
                runtime.expect("a runtime").block_on(futures_util::future::join_all(clients));
            });
        }
    });
    assert_eq!(bulkhead.load(), load(0, 0));
    let (most, served, gave_up) = (most.into_inner(), served.into_inner(), gave_up.into_inner());
    assert!(most <= 3, "{most} at once");
    assert!(served + gave_up == 32 * 500 && served > 8_000, "{served} {gave_up}");
}
