//! A gateway that is started before its sources: it serves, says what is missing, and has the instances as soon
//! as it is told.

use std::time::{Duration, Instant};

use crate::support::relay::Relay;
use crate::support::told::Told;
use crate::support::{Client, Gateway, Origin, eventually};

/// Between the source's first answer and the first request that is served: the best of some tries, which says how fast
/// it is, and not how busy the machine is.
const BOUND: Duration = Duration::from_millis(100);
/// What stands between the two, in requests that have nothing to wait for.
const REQUESTS: u32 = 20;

async fn comes_late(mut source: Told, is_it: fn(usize, &[u8]) -> bool) {
    let origin = Origin::text("a").await;
    source.add(origin.address).await;
    let relay = Relay::to(source.address().expect("it listens"), is_it).await;
    let discovery = source.discovery(Some(relay.address));
    let configuration = format!(
        "services: {{ users: {{ discovery: {discovery} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    );
    let mut took = Vec::new();
    for _ in 0..3 {
        source.process().kill();
        let gateway = Gateway::start(&configuration);
        let client = Client::new(gateway.http());
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.code().as_str()), (503, "no_instance"));
        eventually("it says why", || async {
            let source = gateway.service("users").await["source"].clone();
            (source["state"] == "failing" && source["updated_at"].is_null()).then_some(())
        })
        .await;
        assert_eq!(gateway.metric("gatehouse_discovery_up", &["service=\"users\""]).await, 0.0);
        relay.listen_anew();
        source.process().restart().await;
        eventually("it is served", || async { (client.get("/").await.status == 200).then_some(()) }).await;
        let late = relay.said().expect("it was asked").elapsed();
        let began = Instant::now();
        client.get("/").await;
        took.push((late, began.elapsed()));
        // The instances come first.
        eventually("its source is well", || async {
            (gateway.service("users").await["source"]["state"] == "ok").then_some(())
        })
        .await;
    }
    assert!(took.iter().any(|&(late, request)| late < BOUND + request * REQUESTS), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_before_its_etcd_serves_as_soon_as_it_is_told() {
    let listed = |_, bytes: &[u8]| memchr::memmem::find(bytes, b"\"kvs\"").is_some();
    comes_late(Told::etcd().await, listed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_before_its_consul_serves_as_soon_as_it_is_told() {
    let Some(consul) = Told::consul().await else { return };
    let listed = |_, bytes: &[u8]| memchr::memmem::find(bytes, b"\"Node\"").is_some();
    comes_late(consul, listed).await;
}
