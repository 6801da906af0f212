//! Keys behind a URL, on the paused clock: who waits, for how long, and how often is fetched.

use std::sync::Mutex;

use bytes::Bytes;
use jsonwebtoken::Algorithm;
use serde_json::json;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

use super::*;
use crate::control::keys::{Outcome, run};
use crate::http::fetch::FetchError;
use crate::policy::authenticate::{KeySet, PATIENCE, REFETCH_PAUSE};

const REFRESH: Duration = Duration::from_secs(600);

/// An issuer that takes a second to answer, with what the test last told it to, and counts.
#[derive(Clone)]
struct Issuer {
    state: Arc<Mutex<State>>,
}

struct State {
    /// `None`: down.
    document: Option<String>,
    fetches: Vec<Instant>,
    outcomes: Vec<Outcome>,
}

impl Issuer {
    /// An issuer, the authenticator that trusts it, and the control side's task between them.
    fn start(document: Option<String>) -> (Issuer, Arc<Authenticator>) {
        let url = at(http::Uri::from_static("https://issuer.test/jwks.json"));
        let config = written(&[JwtAlgorithm::RS256], vec![JwtKey::JwksUrl { url, refresh: REFRESH }]);
        let authenticator = compiled(&config);
        let state = State { document, fetches: Vec::new(), outcomes: Vec::new() };
        let issuer = Issuer { state: Arc::new(Mutex::new(state)) };
        let (set, task) = (authenticator.key_sets()[0].clone(), issuer.clone());
        tokio::spawn(async move {
            let report = |outcome| task.lock().outcomes.push(outcome);
            run(&set, |_| task.answer(), report).await;
        });
        (issuer, authenticator)
    }

    async fn answer(&self) -> Result<Bytes, FetchError> {
        self.lock().fetches.push(Instant::now());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let document = self.lock().document.clone();
        document.map(Bytes::from).ok_or(FetchError::Timeout(Duration::from_secs(1)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it held")
    }

    fn fetches(&self) -> usize {
        self.lock().fetches.len()
    }

    fn publishes(&self, document: Option<String>) {
        self.lock().document = document;
    }
}

fn keys(kid: &str) -> Option<String> {
    Some(json!({ "keys": [jwk("rsa.pub", Some(kid))] }).to_string())
}

/// The verdict, and how long it took.
async fn ask(authenticator: &Authenticator, kid: &str) -> (Option<Reason>, Duration) {
    let start = Instant::now();
    let headers = bearer(&token(Algorithm::RS256, Some(kid)));
    let verdict = authenticator.authenticate(&headers, &TokenCache::new(), now()).await;
    (verdict.err().map(|refusal| refusal.reason), start.elapsed())
}

fn start_asking(
    worker: &LocalSet,
    authenticator: &Arc<Authenticator>,
    kid: &'static str,
) -> JoinHandle<(Option<Reason>, Duration)> {
    let authenticator = authenticator.clone();
    worker.spawn_local(async move { ask(&authenticator, kid).await })
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

fn set(authenticator: &Authenticator) -> &KeySet {
    &authenticator.key_sets()[0]
}

#[tokio::test(start_paused = true)]
async fn the_first_request_waits_for_the_first_keys() {
    let (issuer, authenticator) = Issuer::start(keys("k1"));
    let (reason, took) = ask(&authenticator, "k1").await;
    assert_eq!(reason, None);
    assert_eq!(took, Duration::from_secs(1), "the time of the fetch");
    assert_eq!(ask(&authenticator, "k1").await, (None, Duration::ZERO));
    assert_eq!(issuer.fetches(), 1);
    assert_eq!(issuer.lock().outcomes, [Outcome::Changed { keys: 1, notes: vec![] }]);
}

#[tokio::test(start_paused = true)]
async fn without_any_keys_the_answer_is_that_there_are_none() {
    let (issuer, authenticator) = Issuer::start(None);
    let (reason, took) = ask(&authenticator, "k1").await;
    assert_eq!(reason, Some(Reason::KeysUnavailable));
    assert!(took <= PATIENCE, "{took:?}");
    // Far apart attempts: nothing to wait for, so the refusal comes at once.
    pass(Duration::from_secs(35)).await;
    while issuer.fetches() < 7 {
        pass(Duration::from_millis(100)).await;
    }
    pass(Duration::from_secs(2)).await;
    // The first of them asks for one more.
    for expected in [Duration::from_secs(1), Duration::ZERO] {
        let (reason, took) = ask(&authenticator, "k1").await;
        assert_eq!((reason, took), (Some(Reason::KeysUnavailable), expected));
    }
    assert!(judge(&authenticator, &token(Algorithm::RS256, None)).expect_err("no keys").challenge.is_none());
    issuer.publishes(keys("k1"));
    pass(Duration::from_secs(70)).await;
    assert_eq!(ask(&authenticator, "k1").await.0, None, "it comes back by itself");
}

#[tokio::test(start_paused = true)]
async fn attempts_at_a_source_that_is_down_get_rarer_up_to_a_minute() {
    let (issuer, authenticator) = Issuer::start(None);
    pass(Duration::from_secs(600)).await;
    let fetches = issuer.lock().fetches.clone();
    let pauses: Vec<f64> = fetches.windows(2).map(|w| (w[1] - w[0]).as_secs_f64() - 1.0).collect();
    for (pause, expected) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
        assert!((expected * 0.89..=expected * 1.11).contains(pause), "{pauses:?}");
    }
    let status = set(&authenticator).status();
    assert_eq!(status.failures_in_a_row as usize, issuer.lock().outcomes.len());
    assert!(status.last_error.as_deref().is_some_and(|e| e.contains("no answer")), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_costs_one_fetch_however_many_ask() {
    let (issuer, authenticator) = Issuer::start(keys("k1"));
    assert_eq!(ask(&authenticator, "k1").await.0, None);
    pass(REFETCH_PAUSE).await;
    issuer.publishes(Some(
        json!({ "keys": [jwk("rsa.pub", Some("k1")), jwk("rsa.pub", Some("k2"))] }).to_string(),
    ));
    let worker = LocalSet::new();
    let asks: Vec<_> = (0..50).map(|_| start_asking(&worker, &authenticator, "k2")).collect();
    worker.await;
    for asked in asks {
        assert_eq!(asked.await.expect("no panic"), (None, Duration::from_secs(1)));
    }
    assert_eq!(issuer.fetches(), 2);

    // Made-up names right after: refused at once, without a fetch.
    for _ in 0..50 {
        let (reason, took) = ask(&authenticator, "k3").await;
        assert_eq!((reason, took), (Some(Reason::TokenKeyUnknown), Duration::ZERO));
    }
    assert_eq!(issuer.fetches(), 2);
    // And later: one more.
    pass(REFETCH_PAUSE).await;
    for _ in 0..50 {
        assert_eq!(ask(&authenticator, "k3").await.0, Some(Reason::TokenKeyUnknown));
    }
    pass(Duration::from_secs(5)).await;
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_known_name_or_none_never_asks_for_a_fetch() {
    let (issuer, authenticator) = Issuer::start(keys("k1"));
    assert_eq!(ask(&authenticator, "k1").await.0, None);
    pass(REFETCH_PAUSE).await;
    let cache = TokenCache::new();
    for kid in [Some("k1"), None] {
        let good = token(Algorithm::RS256, kid);
        let bad = format!("{}AAAA", &good[..good.len() - 4]);
        let refusal = authenticator.authenticate(&bearer(&bad), &cache, now()).await.expect_err("bad");
        assert_eq!(refusal.reason, Reason::TokenSignature);
    }
    pass(Duration::from_secs(5)).await;
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_are_refreshed_and_kept_while_the_source_fails() {
    let (issuer, authenticator) = Issuer::start(keys("k1"));
    assert_eq!(ask(&authenticator, "k1").await.0, None);
    let version = set(&authenticator).version();
    for bad in [None, Some("<html>".to_owned()), Some(r#"{"keys":[{"kty":"AKP"}]}"#.to_owned())] {
        issuer.publishes(bad);
        let before = issuer.fetches();
        while issuer.fetches() < before + 3 {
            pass(Duration::from_secs(10)).await;
        }
        assert_eq!(ask(&authenticator, "k1").await, (None, Duration::ZERO), "the last good keys stay");
        assert_eq!(set(&authenticator).version(), version);
    }
    issuer.publishes(keys("k2"));
    pass(Duration::from_secs(100)).await;
    assert_eq!(ask(&authenticator, "k2").await.0, None);
    assert_eq!(set(&authenticator).status().failures_in_a_row, 0);
    assert_eq!(set(&authenticator).status().last_error, None);

    let before = issuer.fetches();
    pass(REFRESH * 10).await;
    assert!((before + 8..=before + 12).contains(&issuer.fetches()), "about one in each interval");
    assert!(issuer.lock().outcomes.ends_with(&[Outcome::Unchanged]));
}

#[tokio::test(start_paused = true)]
async fn an_explicitly_empty_set_withdraws_the_keys() {
    let (issuer, authenticator) = Issuer::start(keys("k1"));
    assert_eq!(ask(&authenticator, "k1").await.0, None);
    issuer.publishes(Some(r#"{"keys":[]}"#.to_owned()));
    pass(REFRESH * 2).await;
    let (reason, _) = ask(&authenticator, "k1").await;
    assert_eq!(reason, Some(Reason::TokenKeyUnknown), "known to be none, so not a 503");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_fetch_holds_a_request_no_longer_than_its_patience() {
    let url = at(http::Uri::from_static("https://issuer.test/"));
    let config = written(&[JwtAlgorithm::RS256], vec![JwtKey::JwksUrl { url, refresh: REFRESH }]);
    let authenticator = compiled(&config);
    let set = authenticator.key_sets()[0].clone();
    let stuck = tokio::spawn(async move {
        run(&set, |_| std::future::pending::<Result<Bytes, FetchError>>(), |_| ()).await;
    });
    assert_eq!(ask(&authenticator, "k1").await, (Some(Reason::KeysUnavailable), PATIENCE));
    // Whoever waits while the task is dropped is released.
    let worker = LocalSet::new();
    let waiting = start_asking(&worker, &authenticator, "k1");
    worker.run_until(pass(Duration::from_millis(500))).await;
    stuck.abort();
    worker.await;
    assert_eq!(waiting.await.expect("no panic"), (Some(Reason::KeysUnavailable), Duration::from_millis(500)));
}
