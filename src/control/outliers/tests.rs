//! Outlier detection on the paused clock: requests by the workers of a service, and who is ejected when.

use std::path::PathBuf;

use tokio::time::advance;

use super::*;
use crate::config;
use crate::per_worker::WorkerId;
use crate::service::discovered::{Discovered, Publish};
use crate::service::{EjectionReason, Service, Wish};
use crate::telemetry::metrics::Metrics;

const WORKERS: usize = 2;
const NOBODY: [u16; 0] = [];

struct World {
    service: Arc<Service>,
    task: tokio::task::JoinHandle<()>,
}

fn found(count: u16) -> Vec<Discovered> {
    let one = |port| Discovered {
        priority: 0,
        address: ([127, 0, 0, 1], port).into(),
        weight: 1,
        authority: format!("users:{port}").into(),
        zone: None,
    };
    (1..=count).map(one).collect()
}

impl World {
    /// So many instances, with no breaker in the way.
    async fn new(instances: u16, settings: &str) -> World {
        let text = format!(
            "listeners: [{{ name: http, bind: \"127.0.0.1:0\" }}]\n\
             services: {{ users: {{ instances: [\"http://127.0.0.1:1\"],\n\
             circuit_breaker: {{ consecutive_failures: 1000000, failure_ratio: off }},\n\
             outlier_detection: {{ {settings} }} }} }}\n\
             routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
        );
        let source = config::Source { path: PathBuf::from("gateway.yaml"), text: text.into() };
        let config = config::load(&source, &|_| None).expect("it is a good one").config;
        let service = Service::compile(&config.services[0], None, WORKERS, &Metrics::new(WORKERS));
        service.instances.publish(found(instances));
        let settings = service.settings.outlier_detection.expect("it is written");
        let task = tokio::spawn(run(service.instances.clone(), settings));
        settle().await;
        World { service, task }
    }

    fn instance(&self, port: u16) -> Arc<Instance> {
        let set = self.service.instances.current();
        set.instances().find(|instance| instance.address.port() == port).expect("it is there").clone()
    }

    fn ejected(&self) -> Vec<u16> {
        let set = self.service.instances.current();
        let ejected = set.instances().filter(|instance| instance.is_ejected());
        ejected.map(|instance| instance.address.port()).collect()
    }

    /// One request on this instance, which fails or doesn't.
    fn request(&self, worker: usize, port: u16, failed: bool) {
        let settings = &self.service.settings.breaker;
        let others: Vec<u64> = self
            .service
            .instances
            .current()
            .instances()
            .filter(|instance| instance.address.port() != port)
            .map(|instance| instance.id)
            .collect();
        let mut rng = fastrand::Rng::with_seed(1);
        let picked = self
            .service
            .pick(WorkerId(worker), Wish::default(), &others, clock::now(), &mut rng)
            .expect("nothing is in its way");
        assert_eq!(picked.instance().address.port(), port);
        match failed {
            true => picked.admission.failure(clock::now(), settings),
            false => picked.admission.success(clock::now(), settings),
        }
    }

    /// A hundred requests on an instance, spread over the workers, so many of which fail.
    fn hundred(&self, port: u16, failures: usize) {
        (0..100).for_each(|turn| {
            self.request(turn % WORKERS, port, turn * failures / 100 != (turn + 1) * failures / 100)
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets the task do what there is to do at this moment.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn seconds(seconds: u64) {
    for _ in 0..seconds * 10 {
        advance(Duration::from_millis(100)).await;
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_fails_more_than_the_others_is_out_for_longer_each_time() {
    let world =
        World::new(4, "consecutive_failures: off, base_ejection_time: 20s, max_ejection_time: 50s").await;
    for lasts in [20, 40, 50, 50] {
        for port in 1..=4 {
            world.hundred(port, if port == 2 { 40 } else { 5 });
        }
        assert_eq!(world.ejected(), NOBODY, "it is judged at the end of the interval");
        seconds(10).await;
        assert_eq!(world.ejected(), [2]);
        let ejection = world.instance(2).ejection().expect("it is ejected");
        assert_eq!(ejection.reason, EjectionReason::FailureRatio);
        assert_eq!(ejection.why, "40% of 100 requests failed, where 5% is usual");
        seconds(lasts - 1).await;
        assert_eq!(world.ejected(), [2], "after {lasts} seconds less one");
        seconds(1).await;
        assert_eq!(world.ejected(), NOBODY, "after {lasts} seconds");
    }
    // An interval of each round was spent in rotation, and 20 seconds make up for one.
    seconds(300).await;
    (1..=4).for_each(|port| world.hundred(port, if port == 2 { 100 } else { 0 }));
    seconds(10).await;
    let ejection = world.instance(2).ejection().expect("it is ejected");
    assert_eq!(ejection.until.since(ejection.at), Duration::from_secs(20));
    assert_eq!(world.instance(2).ejections()[1], (EjectionReason::FailureRatio, 5));
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_those_of_a_worker_or_all_there_were() {
    let world = World::new(3, "consecutive_failures: 5, failure_ratio: off").await;
    // Each worker sees four, with a success between: never five.
    for worker in 0..WORKERS {
        (0..9).for_each(|turn| world.request(worker, 1, turn != 4));
    }
    // Nobody sees five, but there is no success among them.
    (0..5).for_each(|turn| world.request(turn % WORKERS, 2, true));
    (0..4).for_each(|_| world.request(0, 3, true));
    seconds(10).await;
    assert_eq!(world.ejected(), [2]);
    assert_eq!(world.instance(2).ejection().expect("it is").why, "5 failures in a row");
    world.instance(2).readmit(clock::now());
    // The run goes on over the intervals.
    world.request(1, 3, true);
    seconds(10).await;
    assert_eq!(world.ejected(), [3]);
    world.instance(3).readmit(clock::now());
    (0..5).for_each(|_| world.request(1, 1, true));
    world.request(1, 1, false);
    seconds(10).await;
    assert_eq!(world.ejected(), [1], "that it has come to an end does not undo it");
}

#[tokio::test(start_paused = true)]
async fn slow_answers_are_held_against_those_of_the_others() {
    let world = World::new(3, "latency: 300%").await;
    let answer = |port: u16, ms: u64| {
        let others: Vec<u64> =
            (1..=3).filter(|other| *other != port).map(|other| world.instance(other).id).collect();
        let mut rng = fastrand::Rng::with_seed(1);
        for turn in 0..30 {
            let picked = world
                .service
                .pick(WorkerId(turn % WORKERS), Wish::default(), &others, clock::now(), &mut rng)
                .expect("nothing is in its way");
            picked.instance().waited(Duration::from_millis(ms), true, clock::now());
            picked.admission.success(clock::now(), &world.service.settings.breaker);
        }
    };
    for (port, ms) in [(1, 20), (2, 25), (3, 40)] {
        answer(port, ms);
    }
    seconds(10).await;
    assert_eq!(world.ejected(), NOBODY, "twice as long is not three times as long");
    for (port, ms) in [(1, 20), (2, 25), (3, 400)] {
        answer(port, ms);
    }
    seconds(10).await;
    assert_eq!(world.ejected(), [3]);
    assert_eq!(world.instance(3).ejection().expect("it is").reason, EjectionReason::Latency);
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_share_and_never_the_last() {
    for (instances, share, most) in [(1, 100, 0), (2, 10, 1), (4, 50, 2), (5, 50, 2), (3, 100, 2)] {
        let world = World::new(instances, &format!("max_ejected: {share}%")).await;
        for _ in 0..3 {
            (1..=instances).for_each(|port| world.hundred(port, 100));
            seconds(10).await;
        }
        assert_eq!(world.ejected().len(), most, "{instances} instances, {share}%");
    }
    let world = World::new(4, "max_ejected: 50%").await;
    world.instance(1).set_health(Health::Unhealthy);
    world.instance(2).set_health(Health::Unhealthy);
    (3..=4).for_each(|port| world.hundred(port, 100));
    seconds(10).await;
    assert_eq!(world.ejected().len(), 1, "two of four are out already, and one must be left");
}

#[tokio::test(start_paused = true)]
async fn a_set_that_shrinks_gets_some_back_and_who_joins_is_counted() {
    let world = World::new(4, "").await;
    world.hundred(1, 100);
    seconds(10).await;
    world.hundred(2, 100);
    seconds(10).await;
    assert_eq!(world.ejected(), [1, 2]);
    world.service.instances.publish(found(3));
    settle().await;
    assert_eq!(world.ejected(), [2], "the one whose time would be over first is back");
    world.service.instances.publish(found(8));
    settle().await;
    world.hundred(8, 100);
    seconds(10).await;
    assert_eq!(world.ejected(), [2, 8]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_not_there_is_back_as_soon_as_it_can_be_reached() {
    let world = World::new(2, "").await;
    world.hundred(1, 100);
    world.instance(1).set_unreachable();
    seconds(10).await;
    assert_eq!(world.ejected(), [1]);
    world.instance(1).reached(clock::now());
    assert_eq!(world.ejected(), NOBODY);
    seconds(10).await;
    // What happened before it came back is not held against it.
    world.hundred(1, 100);
    world.instance(1).set_unreachable();
    world.instance(1).reached(clock::now());
    seconds(10).await;
    assert_eq!(world.ejected(), NOBODY);
    // What it does from then on is.
    world.hundred(1, 100);
    world.instance(1).set_unreachable();
    world.instance(1).reached(clock::now());
    world.hundred(1, 67);
    world.hundred(2, 0);
    seconds(10).await;
    assert_eq!(world.ejected(), [1]);
    let ejection = world.instance(1).ejection().expect("it is ejected");
    assert_eq!(ejection.reason, EjectionReason::FailureRatio);
    assert_eq!(ejection.why, "67% of 100 requests failed, where 0% is usual");
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_and_goes_is_out_for_all_of_the_time() {
    let world = World::new(2, "").await;
    let one = world.instance(1);
    for _ in 0..3 {
        world.hundred(1, 100);
        one.set_unreachable();
        one.reached(clock::now());
    }
    one.set_unreachable();
    seconds(10).await;
    assert_eq!(world.ejected(), [1]);
    one.reached(clock::now());
    assert_eq!(world.ejected(), [1], "it could be reached before, and failed");
    seconds(30).await;
    assert_eq!(world.ejected(), NOBODY);
}

#[tokio::test(start_paused = true)]
async fn an_ejection_outlives_the_task_until_it_is_forgotten() {
    let world = World::new(2, "").await;
    world.hundred(1, 100);
    seconds(10).await;
    world.task.abort();
    let settings = world.service.settings.outlier_detection.expect("it is written");
    let settings = OutlierSettings { consecutive_failures: Some(7), ..settings };
    let task = tokio::spawn(run(world.service.instances.clone(), settings));
    seconds(15).await;
    assert_eq!(world.ejected(), [1]);
    seconds(15).await;
    assert_eq!(world.ejected(), NOBODY, "the next task ends it");
    world.hundred(1, 100);
    seconds(10).await;
    task.abort();
    settle().await;
    forget(&world.service.instances);
    assert_eq!(world.ejected(), NOBODY);
    let before = world.instance(1).tallied();
    world.hundred(1, 100);
    assert_eq!(world.instance(1).tallied(), before, "nothing is counted any more");
}
