//! What a service gets that is dead: no more than its requests and the budget, whatever kills it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::raw::RawOrigin;
use crate::support::{Gateway, Origin, one_service};

const REQUESTS: usize = 10_000;
/// 20 % of them.
const BUDGET: usize = 2_000;

/// Four workers, no breaker in the way, and all the retries that one may ask for.
fn config(instances: &[String], more: &str) -> String {
    let settings = format!(
        "circuit_breaker: {{ consecutive_failures: 1000000, failure_ratio: off }}, \
         retries: {{ attempts: 10, backoff: {{ base: 0s }}, budget: 20%, {more} }}"
    );
    format!(
        "workers: 4\nobservability: {{ access_log: {{ output: off }} }}\n{}",
        one_service(instances, &settings)
    )
}

/// Sends so many requests over sixteen connections; gives how many of them were answered with `status`.
async fn load(gateway: &Gateway, status: &'static str) -> usize {
    let (left, answered) = (Arc::new(AtomicUsize::new(REQUESTS)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    let address = gateway.http();
    for _ in 0..16 {
        let (left, answered) = (left.clone(), answered.clone());
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let mut buffer = vec![0; 16 * 1024];
            while left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it reads");
                let head = answer(&mut stream, &mut buffer).await;
                answered.fetch_add(usize::from(head.starts_with(&format!("HTTP/1.1 {status}"))), SeqCst);
            }
        });
    }
    tasks.join_all().await;
    answered.load(SeqCst)
}

/// The head of an answer, whose body is read as well.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> String {
    let mut filled = 0;
    loop {
        let length = stream.read(&mut buffer[filled..]).await.expect("it answers");
        assert!(length > 0, "it has closed");
        filled += length;
        let text = String::from_utf8_lossy(&buffer[..filled]).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let told = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let wanted = told.and_then(|length| length.parse().ok()).expect("it tells the length");
        if body.len() >= wanted {
            return head.to_owned();
        }
    }
}

/// Where it took longer than the ten seconds that the budget looks back on, the first of them may have had its floor.
fn most(extra: usize, began: Instant) {
    let floor = if began.elapsed() < Duration::from_secs(10) { 0 } else { 100 };
    assert!(extra <= BUDGET + floor, "{REQUESTS} requests caused {extra} extra attempts");
}

/// Answers everything with 503, and counts it.
async fn busy(seen: &Arc<AtomicUsize>) -> RawOrigin {
    let seen = seen.clone();
    RawOrigin::start(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            // A request comes at once, and the next after its answer.
            while stream.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {
                seen.fetch_add(1, SeqCst);
                let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn ten_thousand_requests_to_a_service_that_answers_503() {
    let seen = Arc::default();
    let origins = [busy(&seen).await, busy(&seen).await];
    let gateway = Gateway::start(&config(&[origins[0].url(), origins[1].url()], ""));
    let began = Instant::now();
    assert_eq!(load(&gateway, "503").await, REQUESTS);
    let seen = seen.load(SeqCst);
    most(seen - REQUESTS, began);
    assert!(seen - REQUESTS > BUDGET / 2, "the budget is there to be used: {}", seen - REQUESTS);
    assert_eq!(gateway.service("users").await["retries"], seen - REQUESTS);
}

#[tokio::test]
async fn ten_thousand_requests_to_a_service_that_refuses() {
    let origin = Origin::text("").await;
    origin.kill();
    crate::support::eventually("the port is closed", || async {
        TcpStream::connect(origin.address).await.is_err().then_some(())
    })
    .await;
    let gateway = Gateway::start(&config(&[origin.url()], ""));
    let began = Instant::now();
    assert_eq!(load(&gateway, "502").await, REQUESTS);
    let tried = gateway.metric("gatehouse_upstream_requests_total", &["outcome=\"connect_failure\""]).await;
    most(tried as usize - REQUESTS, began);
}

/// Each connection is good for one request, and closed when the next has come: none of these may cost two.
#[tokio::test]
async fn ten_thousand_requests_to_a_service_that_closes_what_it_keeps() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let counter = counter.clone();
        async move {
            for answers in [true, false] {
                // A request comes at once or not at all.
                if stream.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {
                    counter.fetch_add(1, SeqCst);
                }
                if answers {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx").await;
                }
            }
        }
    })
    .await;
    let gateway = Gateway::start(&config(&[origin.url()], ""));
    let began = Instant::now();
    let well = load(&gateway, "200").await;
    let seen = seen.load(SeqCst);
    most(seen - REQUESTS, began);
    assert!(well > REQUESTS / 2, "{well}");
}
