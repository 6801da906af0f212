//! Sources that are asked over the network: what is told of them, how long they may take, and when they
//! are asked again.
//!
//! The last good set stays in force whatever such a source does. For a while, it even outlives a source that
//! comes back from a failure with next to nothing: one that lost its memory looks like that, and one that
//! stood still for so long that it takes everybody for dead who could not reach it. Those whom it has
//! forgotten need the time to announce themselves again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use rustls::RootCertStore;
use tokio::sync::watch;
use tokio::time::Instant;

use super::pulse::{Pulse, Standstill};
use super::target::{Host, Target, Wanted};
use crate::http::fetch::{self, FetchError, Fetcher};

/// For the head of an answer that needs no waiting. A server that accepts and is silent for so long hangs.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// For the body of an answer, once its head is there.
const BODY: Duration = Duration::from_secs(30);
/// How long a source that pushes changes may have none to tell before it is asked whether it is still there.
/// The sooner that is, the less likely is it that one that stood still goes on unnoticed, and lets leases
/// run out that nobody could renew.
pub const QUIET: Duration = Duration::from_secs(5);
/// How long after a failure, or a standstill, a set is not believed that has lost more than half of what was known before.
pub const DOUBT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// As long as nothing is known, requests fail.
const LONGEST_WITHOUT_ANY: Duration = Duration::from_secs(1);
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

/// What servers are asked with.
pub struct Clients {
    /// For questions whose answers may take their time.
    pub asking: Fetcher,
    /// For the trivial ones, once a second.
    pub feeling: Fetcher,
}

/// For servers at these addresses.
pub fn clients<'a>(addresses: impl IntoIterator<Item = &'a Uri>) -> Clients {
    let mut roots = RootCertStore::empty();
    // Reading the system's roots takes a while.
    if addresses.into_iter().any(|address| address.scheme_str() == Some("https")) {
        roots = fetch::system_roots();
    }
    Clients {
        asking: Fetcher::with_roots(roots.clone(), PATIENCE, 0),
        feeling: Fetcher::staying_connected(roots, PATIENCE),
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

/// What a server says beside a status: the message of its JSON (the detail, if it is a problem document), or
/// else its text.
fn detail_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Message {
        #[serde(alias = "detail")]
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
    /// `longest`: one of [`LONGEST_PAUSE`] and [`LONGEST_WITHOUT_ANY`].
    pub fn next(&mut self, longest: Duration) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(longest);
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
    before: Option<Before>,
    /// What it says, while that isn't believed.
    doubted: Option<Vec<Target>>,
    standstill: Standstill,
    pulse: Option<Pulse>,
}

/// What was known when the source failed or stood still.
struct Before {
    targets: Arc<[Target]>,
    /// Until when it is the measure of what the source says. `None` for as long as it fails.
    until: Option<Instant>,
}

impl Told {
    pub fn new(wanted: watch::Sender<Wanted>) -> Told {
        Told { wanted, before: None, doubted: None, standstill: Standstill::default(), pulse: None }
    }

    /// From now on, the server that answers at `uri` is watched for standing still.
    pub fn feel(&mut self, client: &Fetcher, uri: Uri) {
        self.pulse = Some(Pulse::of(client.clone(), uri, self.standstill.clone()));
    }

    /// The longest pause before a source that fails is asked again.
    pub fn longest_pause(&self) -> Duration {
        if self.wanted.borrow().targets.is_some() { LONGEST_PAUSE } else { LONGEST_WITHOUT_ANY }
    }

    /// The source says that there are these, and only these.
    pub fn targets(&mut self, targets: Vec<Target>) {
        let now = Instant::now();
        let stood_still = self.standstill.end().map(|end| end + DOUBT).filter(|until| now < *until);
        if let (None, Some(until)) = (&self.before, stood_still) {
            self.before = self.known().map(|targets| Before { targets, until: Some(until) });
        }
        if self.before.as_mut().is_some_and(|before| *before.until.get_or_insert(now + DOUBT) <= now) {
            self.before = None;
        }
        let lost = self.before.as_ref().filter(|before| targets.len() * 2 < before.targets.len());
        let targets = match lost {
            Some(before) => {
                let all = both(&before.targets, &targets);
                self.doubted = Some(targets);
                all
            }
            None => {
                self.doubted = None;
                targets
            }
        };
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.targets.as_deref() != Some(&targets);
            if changed {
                wanted.targets = Some(targets.into());
            }
            changed
        });
    }

    /// What it tells of the service beyond that.
    pub fn metadata(&mut self, metadata: Option<Arc<str>>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.metadata != metadata;
            wanted.metadata = metadata;
            changed
        });
    }

    /// It says what it said before, which may be believed by now.
    pub fn still(&mut self) {
        if let Some(targets) = self.doubted.take() {
            self.targets(targets);
        }
    }

    /// It answers as it should, but for this.
    pub fn well(&mut self, fault: Option<String>) {
        let doubt = "it is back, but names less than half of the instances that were known: these stay for";
        self.fault(if self.doubted.is_some() {
            Some(format!("{doubt} {}s", DOUBT.as_secs()))
        } else {
            fault
        });
    }

    /// It can't be asked.
    pub fn failed(&mut self, fault: String) {
        match &mut self.before {
            Some(before) => before.until = None,
            None => self.before = self.known().map(|targets| Before { targets, until: None }),
        }
        self.fault(Some(fault));
    }

    fn known(&self) -> Option<Arc<[Target]>> {
        self.wanted.borrow().targets.clone()
    }

    fn fault(&self, fault: Option<String>) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(&mut wanted.fault, fault.clone()) != fault);
    }
}

/// Those that were known, and those of the new ones that are elsewhere.
fn both(before: &[Target], new: &[Target]) -> Vec<Target> {
    let places: HashSet<(&Host, u16)> = before.iter().map(|target| (&target.host, target.port)).collect();
    let elsewhere = new.iter().filter(|target| !places.contains(&(&target.host, target.port)));
    before.iter().chain(elsewhere).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> (Told, watch::Receiver<Wanted>) {
        let (sender, receiver) = watch::channel(Wanted::default());
        (Told::new(sender), receiver)
    }

    fn some(ports: std::ops::Range<u16>) -> Vec<Target> {
        ports.filter_map(|port| Target::from_authority(&format!("127.0.0.1:{port}"), 1, None)).collect()
    }

    fn ports(wanted: &watch::Receiver<Wanted>) -> Option<Vec<u16>> {
        wanted.borrow().targets.as_ref().map(|targets| targets.iter().map(|target| target.port).collect())
    }

    fn doubts(wanted: &watch::Receiver<Wanted>) -> bool {
        wanted.borrow().fault.as_ref().is_some_and(|fault| fault.starts_with("it is back, but"))
    }

    #[tokio::test(start_paused = true)]
    async fn any_set_is_believed_of_a_source_that_has_not_failed() {
        let (mut told, wanted) = told();
        told.failed("refused".to_owned());
        told.targets(vec![]);
        told.well(None);
        assert_eq!(ports(&wanted), Some(vec![]), "nothing was known that could be lost");
        told.targets(some(1..9));
        told.targets(vec![]);
        told.well(None);
        assert_eq!((ports(&wanted), wanted.borrow().fault.clone()), (Some(vec![]), None));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_most_have_to_be_there_for_a_while() {
        let (mut told, wanted) = told();
        told.targets(some(1..5));
        told.failed("refused".to_owned());
        assert_eq!(wanted.borrow().fault.as_deref(), Some("refused"));
        told.targets(some(1..3));
        told.well(None);
        assert_eq!((ports(&wanted), doubts(&wanted)), (Some(vec![1, 2]), false), "half of them will do");
        told.targets(vec![]);
        told.well(None);
        assert_eq!((ports(&wanted), doubts(&wanted)), (Some(vec![1, 2, 3, 4]), true));
        told.targets(some(4..6).split_off(1));
        told.well(None);
        assert_eq!((ports(&wanted), doubts(&wanted)), (Some(vec![1, 2, 3, 4, 5]), true), "a new one is used");
        told.targets(some(5..7));
        told.well(None);
        assert_eq!((ports(&wanted), doubts(&wanted)), (Some(vec![5, 6]), false));
        tokio::time::sleep(DOUBT - Duration::from_secs(1)).await;
        told.targets(vec![]);
        told.well(None);
        assert!(doubts(&wanted), "less than {DOUBT:?} have passed");
        tokio::time::sleep(Duration::from_secs(1)).await;
        told.still();
        told.well(None);
        assert_eq!((ports(&wanted), doubts(&wanted)), (Some(vec![]), false));
    }

    #[tokio::test(start_paused = true)]
    async fn failing_again_begins_anew() {
        let (mut told, wanted) = told();
        told.targets(some(1..5));
        for _ in 0..5 {
            told.failed("refused".to_owned());
            tokio::time::sleep(DOUBT * 2).await;
            told.targets(some(1..2));
            told.well(None);
            assert_eq!((ports(&wanted), doubts(&wanted)), (Some(vec![1, 2, 3, 4]), true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_standstill_most_have_to_be_there_for_a_while() {
        let (mut told, wanted) = told();
        told.targets(some(1..11));
        told.standstill.note(Instant::now());
        tokio::time::sleep(Duration::from_secs(1)).await;
        // They run out one after the other.
        told.targets(some(1..7));
        assert_eq!(ports(&wanted).map(|ports| ports.len()), Some(6));
        told.targets(some(1..3));
        told.well(None);
        assert_eq!((ports(&wanted), doubts(&wanted)), (Some((1..11).collect()), true));
        told.targets(some(1..11));
        told.well(None);
        assert!(!doubts(&wanted));
        tokio::time::sleep(DOUBT).await;
        told.targets(vec![]);
        told.well(None);
        assert_eq!((ports(&wanted), doubts(&wanted)), (Some(vec![]), false), "that was long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn as_long_as_nothing_is_known_pauses_are_short() {
        let (mut told, _wanted) = told();
        told.failed("refused".to_owned());
        assert_eq!(told.longest_pause(), LONGEST_WITHOUT_ANY);
        told.targets(vec![]);
        assert_eq!(told.longest_pause(), LONGEST_PAUSE);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut pauses = Pauses::default();
        let taken: Vec<Duration> = (0..20).map(|_| pauses.next(LONGEST_PAUSE)).collect();
        assert!(taken[0] <= FIRST_PAUSE && taken[0] >= FIRST_PAUSE / 2);
        assert!(taken[19] <= LONGEST_PAUSE && taken[19] >= LONGEST_PAUSE / 2);
        pauses.reset();
        assert!(pauses.next(LONGEST_PAUSE) <= FIRST_PAUSE);
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
