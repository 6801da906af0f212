//! Instances that are replaced one after the other, through each of the sources, while requests go on: none
//! of these is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response};
use tokio::task::JoinSet;

use crate::support::told::Told;
use crate::support::{Client, Gateway, Origin, eventually};

const INSTANCES: usize = 3;
const ROUNDS: usize = 6;
const CLIENTS: usize = 6;
/// How long an instance that has left goes on before it ends, in case a request is still on its way to it.
const GRACE: Duration = Duration::from_millis(100);

/// An origin that takes a moment, and how many requests it has at the moment.
struct Busy {
    origin: Origin,
    present: Arc<AtomicUsize>,
}

impl Busy {
    async fn start() -> Busy {
        let present = Arc::new(AtomicUsize::new(0));
        let counted = present.clone();
        let origin = Origin::start_slow(move |_| {
            let present = counted.clone();
            async move {
                present.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                present.fetch_sub(1, Relaxed);
                Response::new("done".into())
            }
        })
        .await;
        Busy { origin, present }
    }

    /// Ends it as a process ends that finishes what it has.
    async fn drain(self) {
        let mut quiet_since = Instant::now();
        eventually("its requests are over", || {
            if self.present.load(Relaxed) > 0 {
                quiet_since = Instant::now();
            }
            let over = quiet_since.elapsed() >= GRACE;
            async move { over.then_some(()) }
        })
        .await;
    }
}

/// Clients that ask one thing after the other until they are told to stop.
struct Load {
    over: Arc<AtomicBool>,
    clients: JoinSet<(usize, Vec<String>)>,
}

impl Load {
    fn begin(gateway: SocketAddr, methods: &[Method]) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for method in methods.iter().cycle().take(CLIENTS).cloned() {
            let over = over.clone();
            clients.spawn(async move {
                let client = Client::new(gateway);
                let (mut done, mut failed) = (0, Vec::new());
                while !over.load(Relaxed) {
                    let body = if method == Method::POST { "an order" } else { "" };
                    match client.try_send(method.clone(), "/", Bytes::from(body)).await {
                        Ok(reply) if reply.status == 200 && reply.text() == "done" => done += 1,
                        Ok(reply) => failed.push(format!("{method}: {} {}", reply.status, reply.text())),
                        Err(error) => failed.push(format!("{method}: {error}")),
                    }
                }
                (done, failed)
            });
        }
        Load { over, clients }
    }

    async fn end(mut self) {
        self.over.store(true, Relaxed);
        let (mut done, mut failed) = (0, Vec::new());
        while let Some(client) = self.clients.join_next().await {
            let (some, lost) = client.expect("a client ends in order");
            done += some;
            failed.extend(lost);
        }
        assert!(failed.is_empty(), "{} of {} were lost: {failed:#?}", failed.len(), failed.len() + done);
        assert!(done > 20 * ROUNDS, "{done} requests are no load");
    }
}

/// Replaces all instances twice. `drained`: those that leave finish what they have; otherwise they are gone at
/// the moment in which the source is told.
async fn roll(source: &Told, methods: &[Method], drained: bool) {
    let mut present = Vec::new();
    for _ in 0..INSTANCES {
        let new = Busy::start().await;
        source.add(new.origin.address).await;
        present.push(new);
    }
    let gateway = Gateway::start(&source.configuration("load_balancing: round_robin"));
    let count = || async { gateway.service("users").await["instances"].as_array().map_or(0, Vec::len) };
    eventually("all are known", || async { (count().await == INSTANCES).then_some(()) }).await;
    let load = Load::begin(gateway.http(), methods);
    for _ in 0..ROUNDS {
        let new = Busy::start().await;
        let joins = new.origin.address;
        source.add(joins).await;
        eventually("it has joined", || gateway.instance("users", joins)).await;
        eventually("it has requests", || async { (new.origin.count() >= 10).then_some(()) }).await;
        present.push(new);
        let old = present.remove(0);
        let leaves = old.origin.address;
        source.remove(leaves).await;
        if drained {
            let gone = || async { gateway.instance("users", leaves).await.is_none().then_some(()) };
            eventually("it has left", gone).await;
            old.drain().await;
        }
    }
    load.end().await;
    assert_eq!(gateway.service("users").await["source"]["state"], "ok");
}

const ANY: &[Method] = &[Method::GET, Method::POST];

#[tokio::test]
async fn a_rolling_restart_through_a_file_loses_nothing() {
    roll(&Told::file(), ANY, true).await;
}

#[tokio::test]
async fn a_rolling_restart_through_etcd_loses_nothing() {
    roll(&Told::etcd().await, ANY, true).await;
}

#[tokio::test]
async fn a_rolling_restart_through_consul_loses_nothing() {
    let Some(consul) = Told::consul().await else { return };
    roll(&consul, ANY, true).await;
}

/// What can be repeated is repeated elsewhere.
#[tokio::test]
async fn instances_that_end_abruptly_lose_nothing_that_can_be_repeated() {
    roll(&Told::file(), &[Method::GET], false).await;
    roll(&Told::etcd().await, &[Method::GET], false).await;
}
