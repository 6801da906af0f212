//! Whether a server that is waited for goes on at all.
//!
//! A watch is silent while nothing changes, and it is silent while its server stands still. The difference counts:
//! a server that went on again takes for dead whoever could not reach it meanwhile, and says so within a
//! moment. So it is asked something trivial once a second, and late answers are noted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::remote::{self, PATIENCE};
use crate::http::fetch::Fetcher;

/// Between one answer and the next question.
const BEAT: Duration = Duration::from_secs(1);
/// A server that takes longer stands still: leases and TTLs that run out in less are no use to anybody.
const LATE: Duration = Duration::from_millis(1500);
/// How long an answer takes that is there already.
const TO_READ: Duration = Duration::from_millis(100);
/// Answers are thrown away, but read, so that their connections can be used again.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Asks until dropped.
pub struct Pulse(AbortHandle);

/// When it last stood still, as far as was noticed.
#[derive(Clone, Debug, Default)]
pub struct Standstill(Arc<Mutex<Option<Until>>>);

#[derive(Clone, Copy, Debug)]
enum Until {
    Now,
    Then(Instant),
}

impl Pulse {
    /// Whatever `uri` answers with is a sign of life; so is a refusal, which those notice who wait for more.
    pub fn of(client: Fetcher, uri: Uri, noted: Standstill) -> Pulse {
        Pulse(tokio::spawn(feel(client, uri, noted)).abort_handle())
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Standstill {
    /// The end of the last one, which is now as long as it lasts.
    pub fn end(&self) -> Option<Instant> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| match until {
            Until::Now => Instant::now(),
            Until::Then(end) => end,
        })
    }

    /// One that is over, at that time.
    pub fn note(&self, end: Instant) {
        self.set(Until::Then(end));
    }

    fn set(&self, until: Until) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

async fn feel(client: Fetcher, uri: Uri, noted: Standstill) {
    loop {
        sleep(BEAT).await;
        let mut answer = std::pin::pin!(beat(&client, &uri));
        // If it was this process that stood still, the answer is there, and only has to be read.
        if timeout(LATE, &mut answer).await.is_err() && timeout(TO_READ, &mut answer).await.is_err() {
            noted.set(Until::Now);
            answer.await;
            noted.note(Instant::now());
        }
    }
}

async fn beat(client: &Fetcher, uri: &Uri) {
    let mut request = Request::new(Full::<Bytes>::default());
    *request.uri_mut() = uri.clone();
    if let Ok(response) = client.exchange(request, PATIENCE).await {
        // Late, cut off or too long, it was an answer.
        let _ = remote::whole(response, MAX_ANSWER_BYTES).await;
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use rustls::RootCertStore;
    use tokio::net::TcpListener;

    use super::*;
    use crate::http::small_server;

    fn client() -> Fetcher {
        Fetcher::with_roots(RootCertStore::empty(), PATIENCE, 0)
    }

    fn at(listener: &TcpListener) -> Uri {
        format!("http://{}/version", listener.local_addr().expect("bound")).parse().expect("a URL")
    }

    #[tokio::test]
    async fn a_server_that_stands_still_is_noted_until_it_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (uri, noted) = (at(&listener), Standstill::default());
        let _pulse = Pulse::of(client(), uri, noted.clone());
        // Connections are made and nobody answers.
        let begun = Instant::now();
        while noted.end().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it was never noted");
            sleep(Duration::from_millis(10)).await;
        }
        assert!(begun.elapsed() >= LATE);
        assert!(noted.end() >= Some(begun), "it lasts");
        tokio::spawn(small_server::serve(listener, async |_, _| small_server::text(StatusCode::OK, "{}")));
        while noted.end().is_some_and(|end| end + BEAT > Instant::now()) {
            assert!(begun.elapsed() < Duration::from_secs(40), "its answer was not noted");
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn who_refuses_does_not_stand_still() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let uri = at(&listener);
        drop(listener);
        let refused = timeout(LATE, beat(&client(), &uri)).await;
        assert!(refused.is_ok());
    }
}
