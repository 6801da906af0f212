//! Keeps key sets from URLs filled: at the start, at intervals, and when a request asks.
//!
//! A source that is down or answers with something else than a key set changes nothing: the last good
//! keys stay, the failure is told, and attempts go on, further and further apart.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::http::fetch::{FetchError, Fetcher};
use crate::policy::authenticate::{KeySet, MAX_JWKS_BYTES};

const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// After the first failure; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What became of a fetch, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The keys are others than before.
    Changed {
        keys: usize,
        notes: Vec<String>,
    },
    Unchanged,
    Failed {
        why: String,
        failures_in_a_row: u32,
    },
}

type Report = Arc<dyn Fn(&KeySet, Outcome) + Send + Sync>;

/// The tasks that keep the key sets of the current snapshot filled.
pub struct KeyRefresh {
    /// Made when the first set comes: reading the system's roots takes a while.
    fetcher: OnceLock<Fetcher>,
    report: Report,
    running: Vec<(Arc<KeySet>, AbortHandle)>,
}

impl KeyRefresh {
    /// `report` is told of every fetch.
    pub fn new(report: impl Fn(&KeySet, Outcome) + Send + Sync + 'static) -> KeyRefresh {
        KeyRefresh { fetcher: OnceLock::new(), report: Arc::new(report), running: Vec::new() }
    }

    /// Fetches for exactly these sets from now on. Sets that were there before go on undisturbed.
    pub fn apply<'s>(&mut self, sets: impl IntoIterator<Item = &'s Arc<KeySet>>) {
        let mut before = std::mem::take(&mut self.running);
        for set in sets {
            let same = |(other, _): &(Arc<KeySet>, AbortHandle)| Arc::ptr_eq(other, set);
            if self.running.iter().any(same) {
                continue;
            }
            let task = match before.iter().position(same) {
                Some(position) => before.swap_remove(position),
                None => (set.clone(), self.start(set.clone())),
            };
            self.running.push(task);
        }
        before.iter().for_each(|(_, task)| task.abort());
    }

    /// The sets that are kept filled, for the admin API.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        self.running.iter().map(|(set, _)| set)
    }

    fn start(&self, set: Arc<KeySet>) -> AbortHandle {
        let fetcher = self.fetcher.get_or_init(|| Fetcher::new(FETCH_TIMEOUT, MAX_JWKS_BYTES)).clone();
        let report = self.report.clone();
        tokio::spawn(async move {
            let fetch = |uri| fetcher.get(uri);
            run(&set, fetch, |outcome| report(&set, outcome)).await;
        })
        .abort_handle()
    }
}

impl Drop for KeyRefresh {
    fn drop(&mut self) {
        self.running.iter().for_each(|(_, task)| task.abort());
    }
}

/// Fetches `set`'s keys over and over. Ends by being dropped.
pub async fn run<F, A>(set: &KeySet, fetch: F, report: impl Fn(Outcome))
where
    F: Fn(Uri) -> A,
    A: Future<Output = Result<Bytes, FetchError>>,
{
    loop {
        let outcome = fetch_once(set, &fetch).await;
        let pause = match &outcome {
            Outcome::Failed { failures_in_a_row, .. } => pause_after(*failures_in_a_row, set.refresh()),
            _ => around(set.refresh()),
        };
        report(outcome);
        set.due_or_asked(Instant::now() + pause).await;
    }
}

async fn fetch_once<F, A>(set: &KeySet, fetch: &F) -> Outcome
where
    F: Fn(Uri) -> A,
    A: Future<Output = Result<Bytes, FetchError>>,
{
    let version = set.version();
    let fetching = set.begin();
    let failure = match fetch(set.url().clone()).await {
        Ok(document) => fetching.succeeded(&document).err().map(|error| error.to_string()),
        Err(error) => {
            let why = error.with_causes();
            fetching.failed(why.clone());
            Some(why)
        }
    };
    let status = set.status();
    match failure {
        Some(why) => Outcome::Failed { why, failures_in_a_row: status.failures_in_a_row },
        None if set.version() == version => Outcome::Unchanged,
        None => Outcome::Changed { keys: status.keys, notes: status.notes.clone() },
    }
}

/// Never longer than the usual interval: a source that is back is noticed at least as soon as ever.
fn pause_after(failures: u32, refresh: Duration) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    around(doubled.min(LONGEST_PAUSE).min(refresh))
}

/// Within a tenth of `pause`, so that many gateways do not fetch in step.
fn around(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, StatusCode};
    use tokio::net::TcpListener;

    use super::*;
    use crate::http::small_server;

    const DEADLINE: Duration = Duration::from_secs(20);
    const SET: &str =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    /// An issuer that counts, and the URL of its keys.
    async fn issuer() -> (Uri, Arc<AtomicUsize>) {
        let fetches = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/jwks.json", listener.local_addr().expect("bound"));
        let counter = fetches.clone();
        let answer = move |_: SocketAddr, _: Request<Bytes>| {
            counter.fetch_add(1, Ordering::Relaxed);
            async { small_server::text(StatusCode::OK, SET) }
        };
        tokio::spawn(small_server::serve(listener, answer));
        (url.parse().expect("made above"), fetches)
    }

    async fn until(mut condition: impl FnMut() -> bool) {
        let end = std::time::Instant::now() + DEADLINE;
        while !condition() {
            assert!(std::time::Instant::now() < end, "the condition never came");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn sets_are_filled_over_http_and_survive_a_reload() {
        let (url, fetches) = issuer().await;
        let (kept, gone) = (KeySet::new(url.clone(), DEADLINE), KeySet::new(url.clone(), DEADLINE));
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut refresh = KeyRefresh::new(move |set, outcome| {
            let _ = tell.send((set.url().clone(), outcome));
        });
        refresh.apply([&kept, &gone, &kept]);
        assert_eq!(refresh.sets().count(), 2);
        until(|| kept.ever_fetched() && gone.ever_fetched()).await;
        let expected = (url.clone(), Outcome::Changed { keys: 1, notes: vec![] });
        assert_eq!(told.recv().await, Some(expected));

        let new = KeySet::new(url, DEADLINE);
        refresh.apply([&kept, &new]);
        until(|| new.ever_fetched()).await;
        assert_eq!(fetches.load(Ordering::Relaxed), 3, "the kept one was not fetched again");
        assert!(refresh.sets().any(|set| Arc::ptr_eq(set, &kept)));
        until(|| Arc::strong_count(&gone) == 1).await;
        drop(refresh);
        until(|| Arc::strong_count(&kept) == 1).await;
    }

    #[test]
    fn pauses_grow_to_the_longest_and_never_past_the_interval() {
        let hour = Duration::from_secs(3600);
        for (failures, expected) in [(1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (u32::MAX, 60.0)] {
            let pause = pause_after(failures, hour).as_secs_f64();
            assert!((expected * 0.89..=expected * 1.11).contains(&pause), "{failures}: {pause}");
        }
        assert!(pause_after(9, Duration::from_secs(5)) <= Duration::from_millis(5500));
    }
}
