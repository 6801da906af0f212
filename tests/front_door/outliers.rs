//! Outlier detection: an instance that does worse than the others is ejected for some time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::Duration;

use crate::support::{Client, Gateway, Origin, eventually, one_service, origin};

/// An origin that answers every so many requests with 500, or never with 0, and takes its time.
async fn failing_each(turns: u16, delay: Duration) -> (Origin, Arc<AtomicU16>) {
    let turns = Arc::new(AtomicU16::new(turns));
    let (current, seen) = (turns.clone(), AtomicU16::new(0));
    let answer = move |_| {
        let (turns, turn) = (current.load(SeqCst), seen.fetch_add(1, SeqCst));
        async move {
            tokio::time::sleep(delay).await;
            origin::status(if turns != 0 && turn % turns == 0 { 500 } else { 200 })
        }
    };
    (Origin::start_slow(answer).await, turns)
}

async fn origins<const N: usize>(all: [(u16, u64); N]) -> Vec<(Origin, Arc<AtomicU16>)> {
    let mut origins = Vec::new();
    for (turns, ms) in all {
        origins.push(failing_each(turns, Duration::from_millis(ms)).await);
    }
    origins
}

fn urls(origins: &[(Origin, Arc<AtomicU16>)]) -> Vec<String> {
    origins.iter().map(|(origin, _)| origin.url()).collect()
}

/// Breakers and retries that are in nobody's way.
fn settings(outliers: &str) -> String {
    format!(
        "load_balancing: round_robin, retries: {{ attempts: 0 }}, \
         circuit_breaker: {{ consecutive_failures: 1000, failure_ratio: off, failures: [connect_failure, 500-599] }}, \
         outlier_detection: {{ interval: 300ms, minimum_requests: 10, {outliers} }}"
    )
}

async fn ejection(gateway: &Gateway, origin: &Origin) -> Option<serde_json::Value> {
    let shown = gateway.instance("users", origin.address).await.expect("it is there");
    Some(shown["ejection"].clone()).filter(|ejection| !ejection.is_null())
}

/// Sends requests until the instance is ejected, and says why it is.
async fn until_ejected(gateway: &Gateway, client: &Client, origin: &Origin) -> serde_json::Value {
    eventually("it is ejected", || async {
        for _ in 0..30 {
            client.get("/").await;
        }
        ejection(gateway, origin).await
    })
    .await
}

#[tokio::test]
async fn one_that_fails_more_often_than_the_others_is_out_for_some_time() {
    let all = origins([(2, 0), (0, 0), (0, 0)]).await;
    let (ill, turns) = &all[0];
    let gateway = Gateway::start(&one_service(
        &urls(&all),
        &settings("consecutive_failures: off, base_ejection_time: 2s"),
    ));
    let client = Client::new(gateway.http());
    let shown = gateway.instance("users", ill.address).await.expect("it is there");
    assert_eq!((shown["ejections"].as_u64(), &shown["ejection"]), (Some(0), &serde_json::Value::Null));

    let ejection_of_it = until_ejected(&gateway, &client, ill).await;
    assert_eq!(ejection_of_it["reason"], "failure_ratio", "{ejection_of_it}");
    let why = ejection_of_it["why"].as_str().expect("it is text").to_owned();
    assert!(why.contains("% of ") && why.ends_with(" requests failed, where 0% is usual"), "{why}");
    assert!(ejection_of_it["at"].is_string() && ejection_of_it["until"].is_string(), "{ejection_of_it}");
    let before = ill.count();
    for _ in 0..12 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(ill.count(), before, "it gets no requests");
    let address = format!("instance=\"{}\"", ill.address);
    assert_eq!(gateway.metric("gatehouse_instance_ejected", &[&address]).await, 1.0);
    let labels = [address.as_str(), "reason=\"failure_ratio\""];
    assert_eq!(gateway.metric("gatehouse_instance_ejections_total", &labels).await, 1.0);
    gateway.wait_for(&format!(
        "service users: {} does worse than the others and is ejected for 2.0 s: {why}",
        ill.address
    ));

    turns.store(0, SeqCst);
    gateway.wait_for(&format!("service users: {} is no longer ejected", ill.address));
    assert_eq!(ejection(&gateway, ill).await, None);
    let before = ill.count();
    for _ in 0..12 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(ill.count() >= before + 3, "it has its share again");
    assert_eq!(gateway.metric("gatehouse_instance_ejected", &[&address]).await, 0.0);
    assert_eq!(gateway.instance("users", ill.address).await.expect("it is there")["ejections"], 1);
}

#[tokio::test]
async fn one_that_answers_much_more_slowly_is_out() {
    let all = origins([(0, 40), (0, 1), (0, 1)]).await;
    // One request after the other, so that there are few in an interval.
    let settings = settings("latency: 400%").replace("minimum_requests: 10", "minimum_requests: 3");
    let gateway = Gateway::start(&one_service(&urls(&all), &settings));
    let client = Client::new(gateway.http());
    let ejection = until_ejected(&gateway, &client, &all[0].0).await;
    assert_eq!(ejection["reason"], "latency", "{ejection}");
    let why = ejection["why"].as_str().expect("it is text");
    assert!(why.starts_with("answers take ") && why.ends_with(" ms is usual"), "{why}");
    let shown = gateway.instance("users", all[0].0.address).await.expect("it is there");
    assert!(shown["latency_ms"].as_f64().is_some_and(|latency| latency >= 40.0), "{shown}");
}

/// Others are always quicker, so that no answer of it is ever waited for.
#[tokio::test]
async fn one_that_others_outrun_is_out_as_well() {
    let all = origins([(0, 5_000), (0, 1), (0, 1)]).await;
    let settings = settings("latency: 400%").replace("minimum_requests: 10", "minimum_requests: 3")
        + ", hedging: { after: 40ms, budget: 100% }, timeouts: { silence: off }";
    let gateway = Gateway::start(&one_service(&urls(&all), &settings));
    let ejection = until_ejected(&gateway, &Client::new(gateway.http()), &all[0].0).await;
    assert_eq!(ejection["reason"], "latency", "{ejection}");
}

#[tokio::test]
async fn when_all_fail_no_more_than_the_share_are_out_and_they_are_the_last_resort() {
    let all = origins([(1, 0), (1, 0), (1, 0), (1, 0)]).await;
    let gateway = Gateway::start(&one_service(&urls(&all), &settings("max_ejected: 25%")));
    let client = Client::new(gateway.http());
    let ejected = async || {
        let mut ejected = Vec::new();
        for (index, (origin, _)) in all.iter().enumerate() {
            if ejection(&gateway, origin).await.is_some() {
                ejected.push(index);
            }
        }
        ejected
    };
    let out = eventually("one is out", || async {
        for _ in 0..40 {
            assert_eq!(client.get("/").await.status, 500);
        }
        Some(ejected().await).filter(|ejected| !ejected.is_empty())
    })
    .await;
    for _ in 0..3 {
        let before = all[out[0]].0.count();
        for _ in 0..40 {
            client.get("/").await;
        }
        assert_eq!(all[out[0]].0.count(), before);
        assert_eq!(ejected().await, out, "one of four is a quarter");
    }
    // Nobody else is there any more.
    all[out[0]].1.store(0, SeqCst);
    all.iter().enumerate().filter(|(index, _)| *index != out[0]).for_each(|(_, (origin, _))| origin.kill());
    let retrying =
        settings("max_ejected: 25%").replace("attempts: 0", "attempts: 3, on: [connect_failure, reset]");
    gateway.reconfigure(&one_service(&urls(&all), &retrying)).await;
    assert_eq!(ejected().await, out, "it outlives a reload");
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn what_is_no_failure_ejects_nobody_and_taking_the_block_out_ends_it() {
    let all = origins([(1, 0), (0, 0)]).await;
    let (ill, _) = &all[0];
    let quiet = settings("base_ejection_time: 1h, max_ejection_time: 1h");
    let unnamed = quiet.replace("500-599", "503");
    let gateway = Gateway::start(&one_service(&urls(&all), &unnamed));
    let client = Client::new(gateway.http());
    let fails = |statuses: &[u16]| statuses.iter().filter(|status| **status == 500).count();
    let some = async || {
        let mut statuses = Vec::new();
        for _ in 0..30 {
            statuses.push(client.get("/").await.status);
        }
        statuses
    };
    // Two whole intervals at least, told by the clock of the gateway's own answers.
    let began = std::time::Instant::now();
    let mut failed = 0;
    while began.elapsed() < Duration::from_millis(700) {
        failed += fails(&some().await);
    }
    // As many as it takes to pass it over; a 500 is none that `failures` names.
    assert!(failed >= 2, "{failed}");
    assert_eq!(ejection(&gateway, ill).await, None);

    gateway.reconfigure(&one_service(&urls(&all), &quiet)).await;
    let ejection_of_it = until_ejected(&gateway, &client, ill).await;
    // Which of the two comes first depends on where in an interval the block came.
    let reason = ejection_of_it["reason"].as_str();
    assert!(matches!(reason, Some("consecutive_failures" | "failure_ratio")), "{ejection_of_it}");
    assert_eq!(fails(&some().await), 0);
    gateway.reconfigure(&one_service(&urls(&all), "retries: { attempts: 0 }")).await;
    let shown = gateway.instance("users", ill.address).await.expect("it is there");
    assert!(shown["ejection"].is_null() && shown["ejections"].is_null(), "{shown}");
}
