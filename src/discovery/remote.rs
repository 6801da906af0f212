//! Sources that are asked over the network: what is told of them, how long they may take, and when they
//! are asked again.
//!
//! The last good set stays in force whatever such a source does. It even outlives a source that comes back
//! from a failure with nothing at all, for a while: a store that lost its memory looks just like that, and
//! those it has forgotten need the time to announce themselves again.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use rustls::RootCertStore;
use tokio::sync::watch;
use tokio::time::Instant;

use super::target::{Target, Wanted};
use crate::http::fetch::{self, FetchError, Fetcher};

/// For the head of an answer that needs no waiting. A server that accepts and is silent for so long hangs.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// For the body of an answer, once its head is there.
const BODY: Duration = Duration::from_secs(30);
/// How long a source that pushes changes may have none to tell before it is asked whether it is still there.
pub const QUIET: Duration = Duration::from_secs(10);
/// How long "none at all", said first thing after a failure, is not believed.
pub const DOUBT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Texts of servers that errors repeat are cut off here.
const MAX_DETAIL_CHARS: usize = 200;
/// Answers larger than this are read on the pool for blocking work: the control side has one thread.
const LARGE: usize = 128 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{}", .0.with_causes())]
    Fetch(#[from] FetchError),
    #[error("it answered {status}: {detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("its answer can't be understood: {0}")]
    Unreadable(String),
    #[error("it ended the watch")]
    Ended,
    #[error("it cancelled the watch: {0}")]
    Cancelled(String),
    #[error("the token may not see the service's nodes: the answer was filtered until nothing was left")]
    Filtered,
}

/// A client for servers at these addresses.
pub fn client<'a>(addresses: impl IntoIterator<Item = &'a Uri>) -> Fetcher {
    let secure = addresses.into_iter().any(|address| address.scheme_str() == Some("https"));
    // Reading the system's roots takes a while.
    match secure {
        true => Fetcher::new(PATIENCE, 0),
        false => Fetcher::with_roots(RootCertStore::empty(), PATIENCE, 0),
    }
}

/// Asks, and returns an answer of status 200. `patience` is for its head.
pub async fn ask(
    client: &Fetcher,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Response<Incoming>, RemoteError> {
    let response = client.exchange(request, patience).await?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => {
            let detail = whole(response, 16 * 1024).await.unwrap_or_default();
            Err(RemoteError::Refused { status, detail: detail_of(&detail) })
        }
    }
}

pub async fn whole(response: Response<Incoming>, max_bytes: usize) -> Result<Bytes, RemoteError> {
    let whole = tokio::time::timeout(BODY, fetch::whole(response.into_body(), max_bytes));
    Ok(whole.await.unwrap_or(Err(FetchError::Timeout(BODY)))?)
}

/// Reads an answer without holding up what else the control side does.
pub async fn read<T: Send + 'static>(
    answer: Bytes,
    reading: impl FnOnce(&[u8]) -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    if answer.len() < LARGE {
        return reading(&answer);
    }
    let read = tokio::task::spawn_blocking(move || reading(&answer)).await;
    read.unwrap_or_else(|_| Err(RemoteError::Unreadable("reading it broke off".to_owned())))
}

/// What a server says beside a status: the message of its JSON, or else its text.
fn detail_of(body: &[u8]) -> String {
    #[derive(Default, serde::Deserialize)]
    struct Message {
        message: String,
    }
    match serde_json::from_slice::<Message>(body) {
        Ok(Message { message }) => printable(&message),
        Err(_) => printable(&String::from_utf8_lossy(body)),
    }
}

/// Foreign text for a message: one line, of bounded length.
pub fn printable(text: &str) -> String {
    let line = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(MAX_DETAIL_CHARS).collect()
}

/// The pauses between questions to a source that fails: growing, and half of each at random, so that
/// gateways that lost it together come back apart.
#[derive(Default)]
pub struct Pauses {
    failures: u32,
}

impl Pauses {
    pub fn next(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What a source is told to have said, with the rule that the last good set stays.
pub struct Told {
    wanted: watch::Sender<Wanted>,
    failing: bool,
    /// Since when it says that there is none, though nobody believes it.
    doubted: Option<Instant>,
}

impl Told {
    pub fn new(wanted: watch::Sender<Wanted>) -> Told {
        Told { wanted, failing: false, doubted: None }
    }

    /// The source says that there are these, and only these.
    pub fn targets(&mut self, targets: Vec<Target>) {
        let loses_all =
            targets.is_empty() && self.wanted.borrow().targets.as_ref().is_some_and(|t| !t.is_empty());
        if loses_all && (self.failing || self.doubted.is_some()) {
            let since = *self.doubted.get_or_insert_with(Instant::now);
            if since.elapsed() < DOUBT {
                return;
            }
        }
        self.doubted = None;
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.targets.as_deref() != Some(&targets);
            if changed {
                wanted.targets = Some(targets.into());
            }
            changed
        });
    }

    /// It answers as it should, but for this.
    pub fn well(&mut self, fault: Option<String>) {
        self.failing = false;
        let doubt = self.doubted.map(|_| {
            let seconds = DOUBT.as_secs();
            format!("it is back, but without any instance: the last known stay until it has said so for {seconds}s")
        });
        self.fault(doubt.or(fault));
    }

    /// It can't be asked.
    pub fn failed(&mut self, fault: String) {
        self.failing = true;
        self.doubted = None;
        self.fault(Some(fault));
    }

    fn fault(&self, fault: Option<String>) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(&mut wanted.fault, fault.clone()) != fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> (Told, watch::Receiver<Wanted>) {
        let (sender, receiver) = watch::channel(Wanted::default());
        (Told::new(sender), receiver)
    }

    fn one() -> Vec<Target> {
        Target::from_authority("127.0.0.1:1", 1, None).into_iter().collect()
    }

    fn count(wanted: &watch::Receiver<Wanted>) -> Option<usize> {
        wanted.borrow().targets.as_ref().map(|targets| targets.len())
    }

    #[tokio::test(start_paused = true)]
    async fn none_at_all_is_believed_unless_it_follows_a_failure() {
        let (mut told, wanted) = told();
        told.failed("refused".to_owned());
        told.targets(vec![]);
        assert_eq!(count(&wanted), Some(0), "nothing was known that could be lost");
        told.targets(one());
        told.well(None);
        told.targets(vec![]);
        assert_eq!(count(&wanted), Some(0));

        told.targets(one());
        told.failed("refused".to_owned());
        assert_eq!(wanted.borrow().fault.as_deref(), Some("refused"));
        for _ in 0..DOUBT.as_secs() {
            told.targets(vec![]);
            told.well(None);
            assert_eq!(count(&wanted), Some(1));
            assert!(wanted.borrow().fault.as_ref().is_some_and(|fault| fault.starts_with("it is back")));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        told.targets(vec![]);
        told.well(None);
        assert_eq!((count(&wanted), wanted.borrow().fault.clone()), (Some(0), None));
    }

    #[tokio::test(start_paused = true)]
    async fn one_instance_ends_the_doubt() {
        let (mut told, wanted) = told();
        told.targets(one());
        told.failed("refused".to_owned());
        told.targets(vec![]);
        told.targets(one());
        told.well(None);
        told.targets(vec![]);
        assert_eq!(count(&wanted), Some(0));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut pauses = Pauses::default();
        let taken: Vec<Duration> = (0..20).map(|_| pauses.next()).collect();
        assert!(taken[0] <= FIRST_PAUSE && taken[0] >= FIRST_PAUSE / 2);
        assert!(taken[19] <= LONGEST_PAUSE && taken[19] >= LONGEST_PAUSE / 2);
        pauses.reset();
        assert!(pauses.next() <= FIRST_PAUSE);
    }

    #[test]
    fn details_are_one_short_line() {
        assert_eq!(
            detail_of(b"{\"error\":\"x\",\"message\":\"permission denied\",\"code\":7}"),
            "permission denied"
        );
        assert_eq!(detail_of(b"No cluster\nleader\x1b[1m "), "No cluster leader [1m");
        assert_eq!(detail_of(&[b'x'; 10_000]).len(), MAX_DETAIL_CHARS);
    }
}
