//! Attempts of one request that are under way at the same time, each at another instance: the first good answer is taken,
//! the others are cancelled.
//!
//! An attempt is joined by another when its instance has fallen silent, or when half of the time for its answer is over: by
//! as many as the request has retries, out of the same budget. Hedging is one more, of a budget of its own.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header;
use tokio::time::Instant;

use super::Picked;
use super::call::{Progress, Tries};
use super::errand::{Attempted, Errand, How};
use super::pool::Waits;
use super::silence::Hope;
use crate::clock::Millis;

/// As many as there may be retries.
const MOST: usize = 10;

pub(super) type Running<'r> = Pin<Box<dyn Future<Output = Attempted> + 'r>>;

/// An attempt under way.
pub(super) struct Runner<'r> {
    pub attempt: Running<'r>,
    pub address: SocketAddr,
    pub hope: &'r Cell<Hope>,
    pub is_hedge: bool,
    /// What it hopes for is known already.
    pub is_known: bool,
}

impl<'r> Runner<'r> {
    /// Of an attempt that is to be joined by another already.
    pub fn known(attempt: Running<'r>, address: SocketAddr, hope: &'r Cell<Hope>) -> Self {
        Runner { attempt, address, hope, is_hedge: false, is_known: true }
    }
}

/// What the attempts that join others hope for.
#[derive(Default)]
pub(super) struct Hopes([Cell<Hope>; MOST]);

/// Waits for an attempt, or until it is to be joined by another.
// What it comes to is large, and every function that it goes through would copy it.
#[inline(always)]
pub(super) fn alone<'a>(
    mut attempt: Pin<&'a mut (impl Future<Output = Attempted> + ?Sized)>,
    hope: &'a Cell<Hope>,
) -> impl Future<Output = Option<Attempted>> + 'a {
    poll_fn(move |cx| match attempt.as_mut().poll(cx) {
        Poll::Ready(attempted) => Poll::Ready(Some(attempted)),
        Poll::Pending if hope.get() != Hope::Good => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
}

impl Tries<'_> {
    /// Goes on with these attempts, and one `more` if there may be one. What comes back is for the caller to judge; the
    /// others are settled here, or cancelled where they are still under way.
    pub async fn race(
        &mut self,
        running: Vec<Runner<'_>>,
        mut more: bool,
        progress: &mut dyn Progress,
    ) -> Attempted {
        let (errand, hopes) = (self.errand, Hopes::default());
        let (mut running, mut begun) = (running, 0);
        let mut kept: Option<(SocketAddr, Attempted)> = None;
        loop {
            if more
                && let Some(hope) = hopes.0.get(begun)
                && let Some(picked) = self.another(&running, progress)
            {
                begun += 1;
                let address = picked.instance().address;
                let now = Instant::now();
                let how =
                    How { at: Millis::of(now), response: self.left(), fresh: false, waits: Waits::Long };
                let attempt = Box::pin(async move { errand.attempt(picked, now, how, hope).await });
                running.push(Runner { attempt, address, hope, is_hedge: false, is_known: false });
            }
            let Some((runner, attempted)) = poll_fn(|cx| poll_next(&mut running, cx)).await else {
                more = true;
                continue;
            };
            if errand.is_good(&attempted) {
                kept.into_iter().for_each(|(_, other)| errand.settle(other));
                self.tell(&runner, progress);
                return attempted;
            }
            // Whoever judges the last of them counts that one.
            if !running.is_empty() {
                self.count_in_vain(&attempted);
            }
            // An answer is worth more than none, and the later one is worth more than the one before.
            let (best, other) = match kept.take() {
                Some(before) if before.1.is_ok() && attempted.is_err() => (before, Some(attempted)),
                Some(before) => ((runner.address, attempted), Some(before.1)),
                None => ((runner.address, attempted), None),
            };
            other.into_iter().for_each(|other| errand.settle(other));
            if running.is_empty() {
                progress.answered_by(best.0);
                return best.1;
            }
            kept = Some(best);
            more = running.iter().all(|runner| runner.is_known);
        }
    }

    fn tell(&self, winner: &Runner<'_>, progress: &mut dyn Progress) {
        progress.answered_by(winner.address);
        if winner.is_hedge {
            self.errand.service.metrics.hedge_won(self.errand.caller.worker);
        }
    }

    /// An instance for one more attempt beside those that are under way, out of the budget for retries.
    fn another(&mut self, running: &[Runner<'_>], progress: &mut dyn Progress) -> Option<Picked> {
        let Errand { service, caller, call, .. } = self.errand;
        let retries = &service.settings.retries;
        let waiting = running.iter().filter(|runner| runner.hope.get() != Hope::Good).count() as u32;
        let may = self.may_repeat(false, waiting)
            && call.body.is_at_hand()
            // Two tunnels would both be begun.
            && call.head.headers.value(&header::UPGRADE).is_none()
            && !self.left().is_zero();
        if !may {
            return None;
        }
        let now = Instant::now();
        let at = Millis::of(now);
        if !service.budget.try_retry(retries.budget, at) {
            service.metrics.retry_refused(caller.worker);
            return None;
        }
        let tried = &self.tried[..self.tried_count];
        let picked = service.pick(caller.worker, call.wish, tried, at, &mut self.rng).ok();
        let Some(picked) = picked.filter(|picked| !tried.contains(&picked.instance().id)) else {
            service.budget.give_retry_back(at);
            return None;
        };
        self.joined(&picked);
        progress.attempt(picked.instance().address, now);
        Some(picked)
    }
}

/// The next of them that ends, or `None` when one has lost hope.
fn poll_next<'r>(
    running: &mut Vec<Runner<'r>>,
    cx: &mut Context<'_>,
) -> Poll<Option<(Runner<'r>, Attempted)>> {
    for index in 0..running.len() {
        let runner = &mut running[index];
        if let Poll::Ready(attempted) = runner.attempt.as_mut().poll(cx) {
            return Poll::Ready(Some((running.remove(index), attempted)));
        }
        if !runner.is_known && runner.hope.get() != Hope::Good {
            runner.is_known = true;
            return Poll::Ready(None);
        }
    }
    Poll::Pending
}
