//! Tokens that have been verified, so that a signature is checked once and not once a request.
//!
//! Only successes are kept, and only for exactly the settings and keys that accepted them. The table
//! has a fixed number of small sets: a look-up and an insertion touch one of them, whatever tokens a
//! client thinks of. The hash only chooses the place; the whole token is compared, so two tokens whose
//! hashes collide cost a signature check and never an identity.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::Identity;

/// Together 8,192 tokens a worker.
const SETS: usize = 2048;
const WAYS: usize = 4;
/// Longer ones are checked each time, which bounds a full table to 32 MiB of tokens.
const MAX_REMEMBERED_BYTES: usize = 4 * 1024;

/// The settings and keys under which a token was accepted. Any change of either makes another stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub authenticator: u64,
    pub keys: u64,
}

/// The verified tokens of one worker.
#[derive(Debug, Default)]
pub struct TokenCache {
    table: RefCell<Table>,
    /// Fast, and seeded anew in each process. That is enough for choosing a place.
    hasher: foldhash::quality::RandomState,
    found: Cell<u64>,
    missed: Cell<u64>,
}

/// Empty until the first token is remembered.
type Table = Vec<[Option<Entry>; WAYS]>;

#[derive(Debug)]
struct Entry {
    hash: u64,
    stamp: Stamp,
    good_until: SystemTime,
    token: Box<[u8]>,
    identity: Arc<Identity>,
}

impl TokenCache {
    pub fn new() -> Self {
        TokenCache::default()
    }

    /// Whose token this is, when it was accepted under the same stamp and its time has not run out.
    pub fn find(&self, stamp: Stamp, token: &[u8], now: SystemTime) -> Option<Arc<Identity>> {
        let identity = self.look_up(stamp, token, now);
        let counter = if identity.is_some() { &self.found } else { &self.missed };
        counter.set(counter.get() + 1);
        identity
    }

    /// How many tokens were found, and how many were not.
    pub fn look_ups(&self) -> (u64, u64) {
        (self.found.get(), self.missed.get())
    }

    fn look_up(&self, stamp: Stamp, token: &[u8], now: SystemTime) -> Option<Arc<Identity>> {
        let hash = self.hash(token);
        let mut table = self.table.borrow_mut();
        let set = table.get_mut(place(hash))?;
        let way = set.iter().position(|entry| {
            entry.as_ref().is_some_and(|e| e.hash == hash && e.stamp == stamp && *e.token == *token)
        })?;
        if set[way].as_ref().is_some_and(|entry| now >= entry.good_until) {
            set[way] = None;
            return None;
        }
        // The most recently used stands first, so that the one to give way stands last.
        set[..=way].rotate_right(1);
        set[0].as_ref().map(|entry| entry.identity.clone())
    }

    /// Keeps a token that has just been accepted. It is forgotten at `good_until` at the latest.
    pub fn remember(&self, stamp: Stamp, token: &[u8], identity: &Arc<Identity>, good_until: SystemTime) {
        if token.len() > MAX_REMEMBERED_BYTES {
            return;
        }
        let hash = self.hash(token);
        let entry = Entry { hash, stamp, good_until, token: token.into(), identity: identity.clone() };
        let mut table = self.table.borrow_mut();
        if table.is_empty() {
            table.resize_with(SETS, Default::default);
        }
        let set = &mut table[place(hash)];
        // The same token under an older stamp can never be found again.
        let same = |e: &Entry| {
            e.hash == hash && e.stamp.authenticator == stamp.authenticator && e.token == entry.token
        };
        let way = set
            .iter()
            .position(|e| e.as_ref().is_some_and(same))
            .or_else(|| set.iter().position(Option::is_none))
            .unwrap_or(WAYS - 1);
        set[way] = Some(entry);
        set[..=way].rotate_right(1);
    }

    /// The number of tokens kept, run out ones among them.
    pub fn len(&self) -> usize {
        self.table.borrow().iter().flatten().flatten().count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn hash(&self, token: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(token);
        hasher.finish()
    }
}

fn place(hash: u64) -> usize {
    (hash % SETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const STAMP: Stamp = Stamp { authenticator: 1, keys: 1 };

    fn identity(subject: &str) -> Arc<Identity> {
        Arc::new(Identity {
            authenticator: "shop".into(),
            subject: Some(subject.into()),
            claims: serde_json::Map::new(),
            headers: Vec::new(),
            expires_at: at(100),
        })
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_found_until_its_time_runs_out() {
        let cache = TokenCache::new();
        assert_eq!(cache.find(STAMP, b"t", at(0)), None);
        cache.remember(STAMP, b"t", &identity("a"), at(100));
        assert_eq!(cache.find(STAMP, b"t", at(99)), Some(identity("a")));
        assert_eq!(cache.find(STAMP, b"u", at(99)), None);
        assert_eq!(cache.find(STAMP, b"t", at(100)), None);
        assert!(cache.is_empty(), "what has run out is gone");
    }

    #[test]
    fn another_stamp_forgets_it() {
        let cache = TokenCache::new();
        cache.remember(STAMP, b"t", &identity("a"), at(100));
        assert_eq!(cache.find(Stamp { keys: 2, ..STAMP }, b"t", at(0)), None);
        assert_eq!(cache.find(Stamp { authenticator: 2, ..STAMP }, b"t", at(0)), None);
        cache.remember(Stamp { keys: 2, ..STAMP }, b"t", &identity("b"), at(100));
        assert_eq!(cache.len(), 1, "the older one has been replaced");
        assert_eq!(cache.find(STAMP, b"t", at(0)), None);
    }

    #[test]
    fn the_number_is_bounded_and_the_used_ones_stay() {
        let cache = TokenCache::new();
        cache.remember(STAMP, b"in use", &identity("a"), at(100));
        for number in 0..3 * SETS * WAYS {
            cache.remember(STAMP, format!("token {number}").as_bytes(), &identity("x"), at(100));
            assert!(cache.find(STAMP, b"in use", at(0)).is_some(), "evicted after {number}");
        }
        assert!(cache.len() <= SETS * WAYS);
        assert!(cache.len() > SETS * WAYS / 2, "the sets fill evenly");
    }

    #[test]
    fn very_long_tokens_are_not_kept() {
        let cache = TokenCache::new();
        cache.remember(STAMP, &[b'a'; MAX_REMEMBERED_BYTES + 1], &identity("a"), at(100));
        assert!(cache.is_empty());
    }
}
