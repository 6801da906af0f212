//! Health checks against servers that answer, fail, hang and lie.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::*};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::*;
use crate::service::discovered::{Discovered, Publish};
use crate::service::{HealthProbe, HttpProbe, Protocol};

/// An instance whose answer can be changed: a status, 0 to hang, 1 to close without a word.
struct Origin {
    address: SocketAddr,
    answer: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
    last_head: Arc<Mutex<String>>,
}

impl Origin {
    async fn start(answer: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(AtomicU16::new(answer)),
            checks: Arc::default(),
            last_head: Arc::default(),
        };
        let (answer, checks, last_head) =
            (origin.answer.clone(), origin.checks.clone(), origin.last_head.clone());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                checks.fetch_add(1, SeqCst);
                let (answer, last_head) = (answer.load(SeqCst), last_head.clone());
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    let length = stream.read(&mut head).await.unwrap_or(0);
                    *last_head.lock().unwrap() = String::from_utf8_lossy(&head[..length]).into_owned();
                    match answer {
                        0 => std::future::pending().await,
                        1 => {}
                        status => {
                            // A body far longer than anybody should read.
                            let reply = format!("HTTP/1.1 {status} X\r\ncontent-length: 9999999\r\n\r\nbody");
                            let _ = stream.write_all(reply.as_bytes()).await;
                        }
                    }
                });
            }
        });
        origin
    }

    fn found(&self) -> Discovered {
        Discovered {
            address: self.address,
            weight: 1,
            authority: "users.internal:8001".into(),
            zone: None,
            priority: 0,
        }
    }
}

fn http(body: Option<&str>) -> HealthProbe {
    let (status, body) = (vec![200..=299], body.map(str::to_owned));
    HealthProbe::Http(HttpProbe { path: "/health?full=1".into(), status, body })
}

fn settings() -> HealthSettings {
    HealthSettings {
        probe: http(None),
        protocol: Protocol::Http1,
        interval: Duration::from_millis(20),
        jitter: 0.1,
        timeout: Duration::from_secs(10),
        healthy_after: 2,
        unhealthy_after: 3,
        panic_threshold: None,
    }
}

fn instance(instances: &Instances, index: usize) -> Arc<Instance> {
    instances.current().instances().nth(index).unwrap().clone()
}

/// Waits for a condition, with a deadline that no slow machine should meet.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::task::yield_now().await;
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_instance_goes_out_and_comes_back() {
    let origin = Origin::start(204).await;
    let instances = Instances::new(1);
    instances.publish(vec![origin.found()]);
    let one = instance(&instances, 0);
    assert_eq!(one.health(), Health::Unchecked);
    let task = tokio::spawn(run(instances.clone(), settings()));
    until("the first check", || one.health() == Health::Healthy).await;
    let head = origin.last_head.lock().unwrap().to_lowercase();
    assert!(head.starts_with("get /health?full=1 http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: users.internal:8001\r\n"), "{head}");
    assert!(head.contains("\r\nuser-agent: gatehouse-health\r\n"), "{head}");
    assert_eq!(one.last_check().unwrap().failure, None);

    origin.answer.store(500, SeqCst);
    until("it is taken out", || one.health() == Health::Unhealthy).await;
    assert_eq!(one.last_check().unwrap().failure.as_deref(), Some("status 500"));
    origin.answer.store(200, SeqCst);
    until("it is back", || one.health() == Health::Healthy).await;
    origin.answer.store(1, SeqCst);
    until("closing is failing", || one.health() == Health::Unhealthy).await;

    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(one.health(), Health::Unhealthy, "what is known stays");
    forget(&instances);
    assert_eq!((one.health(), one.last_check()), (Health::Unchecked, None));
}

#[tokio::test]
async fn a_hanging_and_a_dead_instance_are_unhealthy_and_say_why() {
    let hanging = Origin::start(0).await;
    // Bound, so that nobody else gets the port, but not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = socket.local_addr().unwrap();
    let instances = Instances::new(1);
    instances.publish(vec![hanging.found(), Discovered { address: dead, ..hanging.found() }]);
    let settings = HealthSettings { timeout: Duration::from_millis(30), ..settings() };
    let task = tokio::spawn(run(instances.clone(), settings));
    let (one, two) = (instance(&instances, 0), instance(&instances, 1));
    until("both are out", || [&one, &two].iter().all(|one| one.health() == Health::Unhealthy)).await;
    assert_eq!(one.last_check().unwrap().failure.as_deref(), Some("no answer within 30ms"));
    let failure = two.last_check().unwrap().failure.unwrap();
    assert!(failure.starts_with("cannot connect: "), "{failure}");
    task.abort();
}

#[tokio::test]
async fn who_joins_is_checked_at_once_and_who_left_no_more() {
    let (first, second) = (Origin::start(200).await, Origin::start(200).await);
    let instances = Instances::new(1);
    instances.publish(vec![first.found()]);
    // So long an interval that a second check in this test would be a mistake.
    let settings = HealthSettings { interval: Duration::from_secs(3600), ..settings() };
    let task = tokio::spawn(run(instances.clone(), settings));
    until("the first is checked", || first.checks.load(SeqCst) == 1).await;
    instances.publish(vec![second.found()]);
    until("the second is checked", || second.checks.load(SeqCst) == 1).await;
    let second_instance = instance(&instances, 0);
    until("the second is healthy", || second_instance.health() == Health::Healthy).await;
    assert_eq!(first.checks.load(SeqCst), 1);
    task.abort();
}

#[tokio::test]
async fn too_few_healthy_ones_are_a_reason_to_panic() {
    let (first, second) = (Origin::start(500).await, Origin::start(200).await);
    let instances = Instances::new(1);
    instances.publish(vec![first.found(), second.found()]);
    let settings = HealthSettings { panic_threshold: Some(60), ..settings() };
    let task = tokio::spawn(run(instances.clone(), settings));
    until("one of two is too few", || instances.is_panicking()).await;
    instances.publish(vec![second.found()]);
    until("one of one is enough", || !instances.is_panicking()).await;
    second.answer.store(500, SeqCst);
    until("none is too few", || instances.is_panicking()).await;
    second.answer.store(200, SeqCst);
    until("it is back", || !instances.is_panicking()).await;
    second.answer.store(500, SeqCst);
    until("none is too few", || instances.is_panicking()).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    forget(&instances);
    assert!(!instances.is_panicking());
}

#[test]
fn thresholds_count_results_in_a_row() {
    let settings = settings(); // 2 good, 3 bad
    let mut streak = Streak::default();
    let mut health = Health::Unchecked;
    let mut run = |results: &[bool]| {
        for &good in results {
            health = streak.next(health, good, &settings);
        }
        health
    };
    assert_eq!(run(&[false, false]), Health::Unchecked, "two bad ones say nothing yet");
    assert_eq!(run(&[true]), Health::Healthy);
    assert_eq!(run(&[false, false, true, false, false]), Health::Healthy);
    assert_eq!(run(&[false]), Health::Unhealthy);
    assert_eq!(run(&[true, false, true]), Health::Unhealthy);
    assert_eq!(run(&[true]), Health::Healthy);
}

#[test]
fn many_are_not_checked_at_the_same_moment() {
    let interval = Duration::from_secs(5);
    let spreads = [0, 1, 1000, 2500, 10_000].map(|new| spread(new, interval).as_millis());
    assert_eq!(spreads, [0, 2, 2000, 5000, 5000]);
    let jittered = |jitter, chance| jittered(interval, jitter, chance).as_millis();
    assert_eq!([0.0, 0.5, 1.0].map(|chance| jittered(0.1, chance)), [4500, 5000, 5500]);
    assert_eq!([0.0, 0.5, 1.0].map(|chance| jittered(0.0, chance)), [5000; 3]);
    assert_eq!([0.0, 1.0].map(|chance| jittered(1.0, chance)), [0, 10_000]);
}
