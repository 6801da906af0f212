//! The keys behind a JWKS URL: written by the control side, read by every worker.
//!
//! Requests never fetch. They read the current list, and may ask for a fetch and wait a moment for its
//! end. However many ask, there is one fetch at a time, and a pause between two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::FutureExt;
use http::Uri;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::jwks::{self, JwksError, Origin};
use super::key::Key;

/// The least time between two fetches that requests ask for, from the end of the one. Made-up key names
/// must not turn the gateway into a load on the issuer. Fetches at their time don't count: a key that is
/// new just after one must not wait.
pub const REFETCH_PAUSE: Duration = Duration::from_secs(10);
/// The longest that a request waits for keys.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The keys of one URL.
#[derive(Debug)]
pub struct KeySet {
    url: Uri,
    refresh: Duration,
    keys: ArcSwap<Vec<Key>>,
    /// Grows with every change of `keys`, after it. 0: never fetched.
    version: AtomicU64,
    fetching: AtomicBool,
    /// The fetch under way, or about to begin, is one that a request asked for.
    on_request: AtomicBool,
    born: Instant,
    /// Milliseconds since `born`: when a request may next ask for a fetch, and when the control side
    /// begins one unasked.
    may_ask_from: AtomicU64,
    due: AtomicU64,
    /// The number of fetches that have ended, well or badly.
    ended: watch::Sender<u64>,
    asked: Notify,
    status: ArcSwap<KeySetStatus>,
}

/// What the admin API shows of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySetStatus {
    pub keys: usize,
    pub last_success: Option<Instant>,
    /// Of the last fetch, when it failed.
    pub last_error: Option<String>,
    pub failures_in_a_row: u32,
    /// Keys of the last good document that were left out, and why.
    pub notes: Vec<String>,
}

impl KeySet {
    pub fn new(url: Uri, refresh: Duration) -> Arc<KeySet> {
        Arc::new(KeySet {
            url,
            refresh,
            keys: ArcSwap::default(),
            version: AtomicU64::new(0),
            fetching: AtomicBool::new(false),
            on_request: AtomicBool::new(false),
            born: Instant::now(),
            may_ask_from: AtomicU64::new(0),
            due: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            asked: Notify::new(),
            status: ArcSwap::default(),
        })
    }

    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// The time between two fetches that nobody asked for.
    pub fn refresh(&self) -> Duration {
        self.refresh
    }

    pub fn status(&self) -> Arc<KeySetStatus> {
        self.status.load_full()
    }

    /// Grows with every change of the keys.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn ever_fetched(&self) -> bool {
        self.version() > 0
    }

    pub(super) fn keys(&self) -> Guard<Arc<Vec<Key>>> {
        self.keys.load()
    }

    // ------------------------------------------------------------ requests

    /// Asks for a fetch. False when none is under way, none is allowed yet and none is about to begin
    /// anyway: then there is nothing to wait for.
    pub fn request_refetch(&self) -> bool {
        if self.fetching.load(Ordering::Acquire) {
            return true;
        }
        if self.may_be_asked() {
            self.asked.notify_one();
            return true;
        }
        self.due.load(Ordering::Acquire) <= self.millis(Instant::now() + PATIENCE)
    }

    /// Asks for a fetch and waits for its end, or for [`PATIENCE`], whichever is first. Returns at once
    /// where [`KeySet::request_refetch`] finds nothing to wait for.
    pub async fn refetched(&self) {
        // Subscribed before asking: an end between the two is then not missed.
        let mut ended = self.ended.subscribe();
        if self.request_refetch() {
            let _ = tokio::time::timeout(PATIENCE, ended.changed()).await;
        }
    }

    // ------------------------------------------------------------ the control side

    /// Marks a fetch as under way until the returned value is dropped or told how it ended.
    pub fn begin(&self) -> Fetching<'_> {
        self.fetching.store(true, Ordering::Release);
        // What was asked for until now is this fetch.
        let _ = self.asked.notified().now_or_never();
        Fetching { set: self }
    }

    /// Waits until the time is `due`, or a request asks for a fetch and may.
    pub async fn due_or_asked(&self, due: Instant) {
        self.due.store(self.millis(due), Ordering::Release);
        let sleep = tokio::time::sleep_until(due);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return,
                () = self.asked.notified() => {
                    if self.may_be_asked() {
                        self.on_request.store(true, Ordering::Release);
                        return;
                    }
                }
            }
        }
    }

    fn may_be_asked(&self) -> bool {
        self.millis(Instant::now()) >= self.may_ask_from.load(Ordering::Acquire)
    }

    fn millis(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    fn publish(&self, list: jwks::KeyList) {
        let before = self.keys.load();
        let unchanged = self.ever_fetched()
            && before.len() == list.keys.len()
            && before.iter().zip(&list.keys).all(|(old, new)| old.repeats(new));
        self.status.store(Arc::new(KeySetStatus {
            keys: list.keys.len(),
            last_success: Some(Instant::now()),
            last_error: None,
            failures_in_a_row: 0,
            notes: list.notes,
        }));
        if !unchanged {
            self.keys.store(Arc::new(list.keys));
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    fn note_failure(&self, why: String) {
        let mut status = KeySetStatus::clone(&self.status.load());
        status.failures_in_a_row = status.failures_in_a_row.saturating_add(1);
        status.last_error = Some(why);
        self.status.store(Arc::new(status));
    }
}

/// A fetch that is under way. Dropping it ends the fetch, so an abandoned one leaves nobody waiting.
#[derive(Debug)]
pub struct Fetching<'s> {
    set: &'s KeySet,
}

impl Fetching<'_> {
    /// The fetch brought this document. Its keys replace the old ones, even by an explicitly empty
    /// list: an issuer that publishes one has withdrawn its keys. A document that is not a key set, or
    /// whose keys are all unusable, is a failure, and the last good keys stay.
    pub fn succeeded(self, document: &[u8]) -> Result<(), JwksError> {
        match jwks::parse(document, Origin::Url) {
            Ok(list) => {
                self.set.publish(list);
                Ok(())
            }
            Err(error) => {
                self.set.note_failure(error.to_string());
                Err(error)
            }
        }
    }

    /// The fetch brought nothing; the last good keys stay.
    pub fn failed(self, why: String) {
        self.set.note_failure(why);
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        let set = self.set;
        if set.on_request.swap(false, Ordering::AcqRel) {
            set.may_ask_from.store(set.millis(Instant::now() + REFETCH_PAUSE), Ordering::Release);
        }
        set.fetching.store(false, Ordering::Release);
        set.ended.send_modify(|ended| *ended += 1);
    }
}
