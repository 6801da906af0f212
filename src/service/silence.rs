//! Instances that have stopped answering without having gone: stopped, hung, cut off from their network.
//!
//! Nothing tells of them but silence, and a slow answer is silent, too. So it is held against what else is known. An instance
//! is silent when nothing has come of it since a request was sent there, for twice as long as its own answers have taken of
//! late, and meanwhile another has answered a request that was sent later, in a quarter of that time. Then requests that
//! may be sent twice are sent elsewhere as well ([`super::race`]), and further ones pass the instance over, as long as there
//! are others, until it answers.
//!
//! What is written for it by each request is the worker's own.

use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

use tokio::time::Instant;

use super::errand::Errand;
use super::{Health, InstanceRef};
use crate::clock::Millis;

/// Looked at so often within `timeouts.silence`.
pub(super) const LOOKS: u32 = 4;
/// So many requests that wait for an instance, and the first look is enough.
const CROWD: u32 = 4;
/// How many times longer than its own answers an instance may take, and with nobody else to compare it with.
const LONGER: u32 = 2;
const MUCH_LONGER: u32 = 4;
/// How many times faster others must be.
const FASTER: u32 = 4;
/// From one request that tries a silent instance to the next.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// One worker's last answer: of one instance, or of any of a service.
#[derive(Debug, Default)]
pub(super) struct Heard {
    sent_at: AtomicU64,
    at: AtomicU64,
}

impl Heard {
    /// A request that was sent then is answered now. To be called by one worker only.
    pub fn note(&self, sent: Millis, now: Millis) {
        self.sent_at.store(sent.0, Relaxed);
        self.at.store(now.0, Relaxed);
    }

    pub fn is_after(&self, moment: Millis) -> bool {
        self.at.load(Relaxed) > moment.0
    }

    /// Whether a request that was sent no sooner than `moment` was answered, and within `longest`.
    fn is_prompt(&self, moment: Millis, longest: Duration) -> bool {
        let (sent, at) = (self.sent_at.load(Relaxed), self.at.load(Relaxed));
        // Another worker may be between its two stores: then `at` is the older one.
        sent >= moment.0 && at > moment.0 && u128::from(at.saturating_sub(sent)) <= longest.as_millis()
    }
}

/// The longest that good answers of an instance have taken, as one worker has seen it in this minute and the one before.
#[derive(Debug, Default)]
pub(super) struct Slowest {
    /// Each one word of the minute, from 1, and milliseconds.
    present: AtomicU64,
    before: AtomicU64,
}

const MINUTE_MS: u64 = 60_000;

impl Slowest {
    /// To be called by one worker only.
    pub fn note(&self, took: Duration, now: Millis) {
        let took = (took.as_millis() as u64).min(u64::from(u32::MAX));
        let (minute, present) = (now.0 / MINUTE_MS + 1, self.present.load(Relaxed));
        if present >> 32 != minute {
            self.before.store(present, Relaxed);
            self.present.store(minute << 32 | took, Relaxed);
        } else if took > u64::from(present as u32) {
            self.present.store(minute << 32 | took, Relaxed);
        }
    }

    /// `None` without an answer.
    pub fn of_late(&self, now: Millis) -> Option<Duration> {
        let minute = now.0 / MINUTE_MS + 1;
        let words = [&self.present, &self.before].map(|word| word.load(Relaxed));
        let recent = words.into_iter().filter(|word| *word > 0 && (word >> 32) + 1 >= minute);
        recent.map(|word| Duration::from_millis(u64::from(word as u32))).max()
    }
}

/// Whether an instance is silent, and when the next request may see if it still is; 0 while it isn't.
#[derive(Debug, Default)]
pub(super) struct Silence(AtomicU64);

impl Silence {
    pub fn begin(&self, now: Millis) {
        if !self.is_on() {
            self.0.store(now.plus(TRY_EVERY).0.max(1), Relaxed);
        }
    }

    /// Says whether it was on.
    pub fn end(&self) -> bool {
        let was_on = self.is_on();
        if was_on {
            self.0.store(0, Relaxed);
        }
        was_on
    }

    pub fn is_on(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// Whether a request is to pass the instance over. Once in a while one is not.
    pub fn holds(&self, now: Millis) -> bool {
        let until = self.0.load(Relaxed);
        if until == 0 {
            return false;
        }
        let next = now.plus(TRY_EVERY).0;
        now.0 < until || self.0.compare_exchange(until, next, Relaxed, Relaxed).is_err()
    }
}

/// Why an instance gets requests only where there is no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The last try to connect failed.
    Unreachable,
    /// It answers nobody, while others answer.
    Silent,
}

/// What an attempt that waits for its answer has come to think of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hope {
    #[default]
    Good,
    /// It takes remarkably long.
    Little,
    /// The instance is silent.
    None,
}

impl Errand<'_> {
    /// What a request has to hope for that has waited for the answer of an instance since `since`. `longest`: how long it
    /// may wait at most.
    pub fn hope(&self, instance: &InstanceRef, since: Instant, now: Instant, longest: Duration) -> Hope {
        let Some(silence) = self.service.settings.silence else { return Hope::Good };
        let (sent, waited) = (Millis::of(since), now.saturating_duration_since(since));
        let is_heard = instance.was_heard_after(sent);
        // What others have found out holds for this request, too.
        let is_known = instance.health() == Health::Unhealthy || instance.silence.is_on();
        if !is_heard && is_known {
            return Hope::None;
        }
        let usual = instance.slowest_of_late(Millis::of(now));
        let is_long = waited >= silence || waited >= silence / LOOKS && instance.waiting() >= CROWD;
        let is_longer = usual.is_none_or(|usual| waited >= usual * LONGER);
        let others_answer = || self.service.heard.all().any(|heard| heard.is_prompt(sent, waited / FASTER));
        if !is_heard && is_long && is_longer && others_answer() {
            return Hope::None;
        }
        // There may be no other requests to learn anything from.
        let is_strange =
            waited >= silence.saturating_mul(2) && usual.is_some_and(|usual| waited >= usual * MUCH_LONGER);
        if is_strange || waited >= longest / 2 { Hope::Little } else { Hope::Good }
    }

    /// An answer has come.
    pub fn heard(&self, instance: &InstanceRef, sent: Millis, now: Millis, is_good: bool) {
        instance.heard(sent, now, is_good);
        // Failing is no proof that an answer was to be had.
        if is_good {
            self.service.heard.of(self.caller.worker).note(sent, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_a_later_request_that_took_little_is_prompt() {
        let heard = Heard::default();
        assert!(!heard.is_prompt(Millis(0), Duration::MAX), "nothing was ever heard");
        heard.note(Millis(1_000), Millis(1_050));
        let prompt = |moment, longest| heard.is_prompt(Millis(moment), Duration::from_millis(longest));
        assert!(prompt(1_000, 50) && prompt(900, 60));
        assert!(!prompt(1_001, 50), "it was sent before");
        assert!(!prompt(1_000, 49), "it took too long");
        assert!(heard.is_after(Millis(1_049)) && !heard.is_after(Millis(1_050)));
    }

    #[test]
    fn the_slowest_answer_is_remembered_for_a_minute_or_two() {
        let slowest = Slowest::default();
        let of_late = |now| slowest.of_late(Millis(now)).map(|took| took.as_millis());
        assert_eq!(of_late(0), None);
        for (took, now) in [(0, 0), (700, 10), (30, 59_999)] {
            slowest.note(Duration::from_millis(took), Millis(now));
        }
        assert_eq!([of_late(0), of_late(119_999), of_late(120_000)], [Some(700), Some(700), None]);
        slowest.note(Duration::from_millis(20), Millis(60_000));
        assert_eq!([of_late(60_000), of_late(120_000), of_late(180_000)], [Some(700), Some(20), None]);
        slowest.note(Duration::from_millis(10), Millis(600_000));
        assert_eq!(of_late(600_000), Some(10));
    }

    #[test]
    fn one_request_in_five_seconds_tries_a_silent_instance() {
        let silence = Silence::default();
        assert!(!silence.holds(Millis(0)));
        silence.begin(Millis(1_000));
        silence.begin(Millis(3_000));
        assert!(silence.is_on() && silence.holds(Millis(5_999)));
        assert!(!silence.holds(Millis(6_000)), "one tries");
        assert!(silence.holds(Millis(6_000)) && silence.holds(Millis(10_999)));
        assert!(!silence.holds(Millis(11_000)));
        silence.end();
        assert!(!silence.is_on() && !silence.holds(Millis(11_001)));
    }
}
