//! How many requests a half-open instance gets: so many as it is written, whoever sends them and however they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Client, Gateway, Origin, eventually, one_service, origin};

/// An origin that fails until it hangs, and counts who is there.
struct Hanging {
    origin: Origin,
    hangs: Arc<AtomicBool>,
    here: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    lets_go: Arc<tokio::sync::Semaphore>,
}

/// Counts a request that is at the origin, however it leaves.
struct Here(Arc<AtomicUsize>);

impl Drop for Here {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

async fn hanging() -> Hanging {
    let (hangs, here, most) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let lets_go = Arc::new(tokio::sync::Semaphore::new(0));
    let shared = (hangs.clone(), here.clone(), most.clone(), lets_go.clone());
    let origin = Origin::start_slow(move |seen| {
        let (hangs, here, most, lets_go) = shared.clone();
        async move {
            if !hangs.load(SeqCst) || seen.target == "/fails" {
                return origin::status(503);
            }
            let now = here.fetch_add(1, SeqCst) + 1;
            let _here = Here(here);
            most.fetch_max(now, SeqCst);
            lets_go.acquire().await.expect("it is never closed").forget();
            origin::status(200)
        }
    })
    .await;
    Hanging { origin, hangs, here, most, lets_go }
}

fn config(origin: &Origin, probes: u32, more: &str) -> String {
    let settings = format!(
        "retries: {{ attempts: 0 }}, circuit_breaker: {{ consecutive_failures: 2, failure_ratio: off, open_for: 200ms, \
         max_open_for: 200ms, half_open_requests: {probes}{more} }}"
    );
    format!("workers: 4\n{}", one_service(&[origin.url()], &settings))
}

/// Opens the breaker, after which the origin hangs.
async fn open(gateway: &Gateway, hanging: &Hanging) {
    let client = Client::new(gateway.http());
    eventually("it opens", || async {
        client.get("/").await;
        (client.get("/").await.code_or_empty() == "circuit_open").then_some(())
    })
    .await;
    hanging.hangs.store(true, SeqCst);
}

trait Code {
    fn code_or_empty(&self) -> String;
}

impl Code for crate::support::Reply {
    fn code_or_empty(&self) -> String {
        if self.header("content-type") == Some("application/problem+json") {
            self.code()
        } else {
            String::new()
        }
    }
}

/// Asks again and again, over all workers, until it is told to stop. What is not let through is answered at once.
fn ask(gateway: &Gateway) -> (JoinSet<()>, Arc<AtomicBool>) {
    let (mut tasks, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    for _ in 0..12 {
        let (client, stop) = (Client::new(gateway.http()), stop.clone());
        tasks.spawn(async move {
            while !stop.load(SeqCst) {
                client.get("/").await;
            }
        });
    }
    (tasks, stop)
}

async fn wait_for(hanging: &Hanging, probes: usize) {
    eventually("so many probes hang", || async { (hanging.here.load(SeqCst) == probes).then_some(()) }).await;
}

#[tokio::test]
async fn hung_probes_of_all_workers_are_as_many_as_is_written() {
    for probes in [1, 3] {
        let hanging = hanging().await;
        let gateway = Gateway::start(&config(&hanging.origin, probes, ""));
        open(&gateway, &hanging).await;
        let (mut asking, stop) = ask(&gateway);
        wait_for(&hanging, probes as usize).await;
        let before = hanging.origin.count();
        // A hundred more are refused meanwhile.
        for _ in 0..100 {
            assert_eq!(Client::new(gateway.http()).get("/").await.code(), "circuit_open");
        }
        assert_eq!(hanging.origin.count(), before);
        assert_eq!(hanging.most.load(SeqCst), probes as usize);
        stop.store(true, SeqCst);
        hanging.lets_go.add_permits(10_000);
        while asking.join_next().await.is_some() {}
        assert_eq!(Client::new(gateway.http()).get("/").await.status, 200, "they were well: it is closed");
    }
}

/// One of three fails, so that it opens again, while the two others hang: they go on taking their places.
#[tokio::test]
async fn a_probe_that_hangs_over_a_reopening_keeps_its_place() {
    let hanging = hanging().await;
    let gateway = Gateway::start(&config(&hanging.origin, 3, ""));
    open(&gateway, &hanging).await;
    let held = JoinSet::new();
    let held = tokio::sync::Mutex::new(held);
    eventually("two hang", || async {
        let client = Client::new(gateway.http());
        if hanging.here.load(SeqCst) < 2 {
            held.lock().await.spawn(async move { client.get("/").await });
        }
        (hanging.here.load(SeqCst) == 2).then_some(())
    })
    .await;
    let client = Client::new(gateway.http());
    eventually("the third fails", || async {
        (client.get("/fails").await.code_or_empty().is_empty()).then_some(())
    })
    .await;
    let (mut asking, stop) = ask(&gateway);
    wait_for(&hanging, 3).await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.code(), "circuit_open");
    }
    assert_eq!(hanging.most.load(SeqCst), 3);
    stop.store(true, SeqCst);
    hanging.lets_go.add_permits(10_000);
    while asking.join_next().await.is_some() {}
    while held.lock().await.join_next().await.is_some() {}
}

/// The place of a client that leaves is free again, and only then.
#[tokio::test]
async fn cancelled_probes_make_way() {
    let hanging = hanging().await;
    let gateway = Gateway::start(&config(&hanging.origin, 2, ""));
    open(&gateway, &hanging).await;
    for _ in 0..5 {
        let leaving = tokio::sync::Mutex::new(Vec::new());
        eventually("two hang", || async {
            let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
            leaving.lock().await.push(stream);
            (hanging.here.load(SeqCst) == 2).then_some(())
        })
        .await;
        drop(leaving);
        wait_for(&hanging, 0).await;
    }
    assert_eq!(hanging.most.load(SeqCst), 2);
    assert_eq!(
        gateway.instance("users", hanging.origin.address).await.expect("it is there")["breaker"]["state"],
        "half_open"
    );
}

/// A reload in the midst of it changes how many there may be, and forgets none that is there.
#[tokio::test]
async fn a_reload_forgets_no_probe() {
    let hanging = hanging().await;
    let gateway = Gateway::start(&config(&hanging.origin, 2, ""));
    open(&gateway, &hanging).await;
    let (mut asking, stop) = ask(&gateway);
    wait_for(&hanging, 2).await;
    gateway.reconfigure(&config(&hanging.origin, 2, ", window: 20s")).await;
    for _ in 0..50 {
        assert_eq!(Client::new(gateway.http()).get("/").await.code(), "circuit_open");
    }
    assert_eq!(hanging.most.load(SeqCst), 2);
    gateway.reconfigure(&config(&hanging.origin, 3, "")).await;
    wait_for(&hanging, 3).await;
    gateway.reconfigure(&config(&hanging.origin, 1, "")).await;
    for _ in 0..50 {
        assert_eq!(Client::new(gateway.http()).get("/").await.code(), "circuit_open");
    }
    assert_eq!(hanging.most.load(SeqCst), 3);
    stop.store(true, SeqCst);
    hanging.lets_go.add_permits(10_000);
    while asking.join_next().await.is_some() {}
    assert_eq!(Client::new(gateway.http()).get("/").await.status, 200);
}
