//! Which instance a request goes to.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use crate::support::{Client, Gateway, Origin, one_service, origin};

async fn three() -> [Origin; 3] {
    [Origin::text("a").await, Origin::text("b").await, Origin::text("c").await]
}

fn urls(origins: &[Origin]) -> Vec<String> {
    origins.iter().map(Origin::url).collect()
}

/// The numbers of requests that the origins saw of `requests`, made one after another.
async fn counts<const N: usize>(gateway: &Gateway, origins: &[Origin; N], requests: usize) -> [usize; N] {
    let client = Client::new(gateway.http());
    for _ in 0..requests {
        assert_eq!(client.get("/").await.status, 200);
    }
    origins.each_ref().map(Origin::count)
}

/// Makes requests on many connections at once, so that some are always in flight.
async fn load(gateway: &Gateway, clients: usize, requests: usize) {
    let client = Client::new(gateway.http());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in 0..requests {
                client.get("/").await;
            }
        });
    }
    tasks.join_all().await;
}

#[track_caller]
fn about(count: usize, wanted: usize, slack: usize) {
    assert!(count.abs_diff(wanted) <= slack, "{count} where {wanted} were expected");
}

#[tokio::test]
async fn round_robin_gives_each_the_same_whatever_its_weight() {
    let origins = three().await;
    let [a, b, c] = [origins[0].url(), origins[1].url(), origins[2].url()];
    let gateway = Gateway::start(&format!(
        "services: {{ users: {{ load_balancing: round_robin, \
           instances: [{{ url: \"{a}\", weight: 9 }}, \"{b}\", \"{c}\"] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    ));
    for count in counts(&gateway, &origins, 60).await {
        about(count, 20, 2); // each of the two workers has rounds of its own
    }
}

#[tokio::test]
async fn weighted_gives_each_its_share() {
    let origins = three().await;
    let [a, b, c] = [origins[0].url(), origins[1].url(), origins[2].url()];
    let gateway = Gateway::start(&format!(
        "services: {{ users: {{ load_balancing: weighted, \
           instances: [\"{a}\", {{ url: \"{b}\", weight: 2 }}, {{ url: \"{c}\", weight: 5 }}] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    ));
    let [a, b, c] = counts(&gateway, &origins, 160).await;
    about(a, 20, 4);
    about(b, 40, 4);
    about(c, 100, 6);
}

#[tokio::test]
async fn random_is_even_in_the_long_run() {
    let origins = three().await;
    let gateway = Gateway::start(&one_service(&urls(&origins), "load_balancing: random"));
    for count in counts(&gateway, &origins, 300).await {
        about(count, 100, 55); // nearly seven standard deviations
    }
}

#[tokio::test]
async fn least_requests_spares_the_slow_one() {
    let origins = [slow().await, Origin::text("b").await, Origin::text("c").await];
    let gateway = Gateway::start(&one_service(&urls(&origins), "load_balancing: least_requests"));
    load(&gateway, 8, 40).await;
    let [slow, b, c] = origins.each_ref().map(Origin::count);
    assert_eq!(slow + b + c, 320);
    assert!(slow < 70, "the slow instance got {slow} of 320");
}

/// And finds it out of its answers alone: with one request at a time, all instances are idle.
#[tokio::test]
async fn peak_ewma_spares_the_slow_one() {
    let origins = [slow().await, Origin::text("b").await, Origin::text("c").await];
    let gateway = Gateway::start(&one_service(&urls(&origins), "load_balancing: peak_ewma"));
    let [slow, b, c] = counts(&gateway, &origins, 100).await;
    assert_eq!(slow + b + c, 100);
    assert!(slow <= 6, "the slow instance got {slow} of 100");
    let shown = gateway.instance("users", origins[0].address).await.expect("it is there");
    assert!(shown["latency_ms"].as_f64().is_some_and(|latency| latency >= 150.0), "{shown}");
}

async fn slow() -> Origin {
    Origin::start_slow(|_| async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        Response::new(Full::new(Bytes::from_static(b"slow")))
    })
    .await
}

#[tokio::test]
async fn the_share_of_a_dead_instance_is_divided() {
    for rule in ["round_robin", "weighted", "random", "least_requests", "peak_ewma"] {
        let origins = three().await;
        let gateway = Gateway::start(&one_service(&urls(&origins), &format!("load_balancing: {rule}")));
        origins[1].kill();
        let [a, dead, c] = counts(&gateway, &origins, 120).await;
        assert_eq!(dead, 0);
        about(a, 60, if rule == "round_robin" || rule == "weighted" { 8 } else { 40 });
        assert_eq!(a + c, 120, "{rule}");
    }
}

#[tokio::test]
async fn an_instance_that_fails_fast_attracts_nothing() {
    for rule in ["least_requests", "random", "round_robin", "peak_ewma"] {
        let slow_and_well = |_| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            origin::status(200)
        };
        let failing = Origin::status(500).await;
        let well = [Origin::start_slow(slow_and_well).await, Origin::start_slow(slow_and_well).await];
        let urls = [failing.url(), well[0].url(), well[1].url()];
        // A 500 is no failure for this breaker, so nothing but the rule keeps requests away.
        let gateway = Gateway::start(&one_service(&urls, &format!("load_balancing: {rule}")));
        load(&gateway, 8, 30).await;
        let share = failing.count();
        assert!(share <= 240 * 45 / 100, "{rule}: the failing instance got {share} of 240");
        if rule == "least_requests" {
            assert!(share <= 240 / 3, "{rule}: the failing instance got {share} of 240");
        }
        if rule == "peak_ewma" {
            assert!(share <= 240 / 10, "{rule}: the failing instance got {share} of 240");
        }
    }
}
