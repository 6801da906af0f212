//! One good answer, and whom it may be given to in place of an error.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::Asked;
use super::store::Held;
use crate::clock::Millis;
use crate::http::caching::{self, CacheControl};
use crate::http::fields::Fields;

/// What an answer takes besides the bytes of its texts.
const OVERHEAD_BYTES: usize = 256;
/// What a field takes besides its name and value.
const FIELD_BYTES: usize = 72;

/// An answer that is kept, or is being copied while it is passed on.
pub struct Kept {
    pub key: String,
    /// When its head came.
    pub at: Millis,
    pub body: Bytes,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// The fields of the request that it depends on, as they were.
    vary: Vec<(HeaderName, Vec<u8>)>,
    is_public: bool,
    /// How old it was then.
    age: Duration,
    fresh_for: Duration,
    /// For how long from then on its origin lets it be used; `None` without a bound.
    usable_for: Option<Duration>,
    /// What it counts in its store, until it is dropped.
    _held: Option<Held>,
}

impl Kept {
    /// The answer to `asked` with this head, which has come at `at`, `delay` after it was asked for: if it may be kept.
    /// RFC 9111 §3, and stricter where that leaves it to the origin to think of the right field.
    pub fn of(
        asked: &Asked,
        response: &Fields,
        at: Millis,
        delay: Duration,
        now: SystemTime,
    ) -> Option<Kept> {
        let control = CacheControl::of(response);
        if !asked.may_be_kept()
            || control.no_store
            || control.private
            // Not to be used without asking first, which has just failed.
            || control.no_cache
            || response.contains(&header::SET_COOKIE)
        {
            return None;
        }
        let age = caching::age(response, delay, now);
        let fresh_for = caching::freshness(response, &control).saturating_sub(age);
        let usable_for = match control.stale_if_error {
            _ if control.must_revalidate => Some(fresh_for),
            Some(longer) => Some(fresh_for + longer),
            // Of the bounds for shared caches it is implied that they hold (RFC 9111 §5.2.2.10).
            None => control.shared_max_age.map(|_| fresh_for),
        };
        if usable_for.is_some_and(|usable_for| usable_for.is_zero()) {
            return None;
        }
        let names = caching::vary(response)?.into_iter();
        let vary = names.map(|name| Some((asked.value_of(&name)?, name)).map(|(value, name)| (name, value)));
        let kept = Kept {
            key: asked.key.clone(),
            at,
            body: Bytes::new(),
            fields: owned(response),
            vary: vary.collect::<Option<_>>()?,
            is_public: control.public,
            age,
            fresh_for,
            usable_for,
            _held: None,
        };
        kept.may_be_shown_to(asked).then_some(kept)
    }

    /// For whoever gives the body alone.
    pub fn without_fields(self) -> Kept {
        Kept { fields: Vec::new(), ..self }
    }

    /// With its body, and what both count.
    pub fn with_body(self, body: Bytes, held: Held) -> Kept {
        Kept { body, _held: Some(held), ..self }
    }

    /// The same for another store.
    pub fn with_held(&self, held: Held) -> Kept {
        Kept {
            key: self.key.clone(),
            at: self.at,
            body: self.body.clone(),
            fields: self.fields.clone(),
            vary: self.vary.clone(),
            is_public: self.is_public,
            age: self.age,
            fresh_for: self.fresh_for,
            usable_for: self.usable_for,
            _held: Some(held),
        }
    }

    /// Whether it is what `asked` wants, may be used at `now`, and is no older than `keep_for`.
    pub fn answers(&self, asked: &Asked, keep_for: Duration, now: Millis) -> bool {
        let since = now.since(self.at);
        since <= self.usable_for.unwrap_or(keep_for).min(keep_for)
            && self.vary.iter().all(|(name, value)| asked.value_of(name).as_ref() == Some(value))
            && self.may_be_shown_to(asked)
    }

    /// What was answered to somebody who said who he is, or is to be given to such a one, is nobody else's unless it is
    /// said to be everybody's (RFC 9111 §3.5). A cookie says so, too, mostly; then it is enough if
    /// the answer is told to depend on it. Where the key tells who asks, there is nobody else.
    fn may_be_shown_to(&self, asked: &Asked) -> bool {
        let varies_by_cookie = || self.vary.iter().any(|(name, _)| *name == header::COOKIE);
        self.is_public || asked.is_own || !(asked.is_identified || asked.has_cookie() && !varies_by_cookie())
    }

    /// Whether it is the answer to the same requests as `other`.
    pub fn is_same(&self, other: &Kept) -> bool {
        self.key == other.key && self.vary == other.vary
    }

    /// How old it is at `now` (RFC 9111 §4.2.3), and how much longer it is fresh, in seconds; less than nothing when it
    /// has been stale for so long.
    pub fn age_and_freshness(&self, now: Millis) -> (u64, i64) {
        let since = now.since(self.at);
        let left = self.fresh_for.as_secs() as i64 - since.as_secs() as i64;
        ((self.age + since).as_secs(), left)
    }

    /// The fields of the answer, with its length.
    pub fn fields(&self) -> Fields {
        let mut fields: Fields = self.fields.iter().cloned().collect();
        fields.insert(header::CONTENT_LENGTH, self.body.len().into());
        fields
    }

    /// What it takes without its body.
    pub fn head_bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| FIELD_BYTES + name.as_str().len() + value.len());
        let vary = self.vary.iter().map(|(name, value)| FIELD_BYTES + name.as_str().len() + value.len());
        OVERHEAD_BYTES + self.key.len() + fields.sum::<usize>() + vary.sum::<usize>()
    }
}

/// Copies that keep no buffer of a connection alive. Ages are told anew.
fn owned(response: &Fields) -> Vec<(HeaderName, HeaderValue)> {
    let own = |(name, value): (&[u8], &[u8])| {
        let name = HeaderName::from_bytes(name).ok().filter(|name| name != header::AGE)?;
        Some((name, HeaderValue::from_bytes(value).ok()?))
    };
    response.iter().filter_map(own).collect()
}

/// Answers with this status are kept.
pub const GOOD: StatusCode = StatusCode::OK;
