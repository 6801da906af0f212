//! One `authenticators` entry, compiled: from a request's headers to an identity or a refusal.
//!
//! The order is fixed: the token's form, its algorithm, its signature, and only then its claims.
//! Nothing in the claims is looked at, let alone reported, while the signature is not known to be good.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderName;
use jsonwebtoken::Algorithm;

use super::cache::{Stamp, TokenCache};
use super::challenge::Realm;
use super::claims::Expected;
use super::key::{Key, KeyType};
use super::key_set::{KeySet, PATIENCE};
use super::token::{Fault, Unverified};
use super::token_source::{self, TokenSource};
use super::{claim_headers, compile, json, token};
use crate::config;
use crate::http::fields::Fields;
use crate::identity::{Identity, Refusal};
use crate::reason::Reason;

/// The most signatures that are computed for one token. A set that names its keys needs one.
const MAX_ATTEMPTS: usize = 16;

/// What accepts tokens of one kind. Shared by all workers, never changed; its [`KeySet`]s are filled
/// by the control side.
#[derive(Debug)]
pub struct Authenticator {
    /// Distinguishes this one from every other that this process ever compiled.
    pub(super) id: u64,
    pub(super) name: Arc<str>,
    pub(super) algorithms: Vec<Algorithm>,
    /// Secrets, PEM files and JWKS files.
    pub(super) fixed: Vec<Key>,
    pub(super) remote: Vec<Arc<KeySet>>,
    pub(super) expected: Expected,
    pub(super) sources: Vec<TokenSource>,
    pub(super) claim_headers: Vec<(String, HeaderName)>,
    pub(super) realm: Realm,
    pub(super) origin: compile::Origin,
}

/// What can be said about a request without waiting.
#[derive(Debug)]
pub(super) enum Decision {
    Accepted(Arc<Identity>),
    Refused(Refusal),
    /// Refused with the keys that are there; newer ones may say otherwise.
    KeysWanted(Refusal),
}

impl Authenticator {
    /// Compiles `config`, reading its key files. An authenticator whose settings and key files are the
    /// same as those of `previous` is `previous`, with its keys and its remembered tokens; key sets
    /// from URLs live on wherever URL and refresh time do. `None` when a problem has been reported.
    pub fn compile(
        config: &config::Authenticator,
        previous: Option<&Arc<Authenticator>>,
        problems: &mut config::Problems,
    ) -> Option<Arc<Authenticator>> {
        compile::compile(config, previous, problems)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key sets that the control side has to keep filled.
    pub fn key_sets(&self) -> &[Arc<KeySet>] {
        &self.remote
    }

    /// The fields that identities of this authenticator bring. A client's own must be removed from
    /// every request that is forwarded, whether it was authenticated or not.
    pub fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.claim_headers.iter().map(|(_, name)| name)
    }

    /// Who the request's token is for. Waits only for keys, and then for 2 s at most.
    pub async fn authenticate(
        &self,
        headers: &Fields,
        cache: &TokenCache,
        now: SystemTime,
    ) -> Result<Arc<Identity>, Refusal> {
        match self.decide(headers, cache, now) {
            Decision::Accepted(identity) => Ok(identity),
            Decision::Refused(refusal) => Err(refusal),
            Decision::KeysWanted(_) => {
                self.refetched().await;
                match self.decide(headers, cache, now) {
                    Decision::Accepted(identity) => Ok(identity),
                    Decision::Refused(refusal) | Decision::KeysWanted(refusal) => Err(refusal),
                }
            }
        }
    }

    /// The remembered identity of the request's token: no signature, no allocation, no waiting.
    pub fn remembered(&self, headers: &Fields, cache: &TokenCache, now: SystemTime) -> Option<Arc<Identity>> {
        let token = token_source::find(&self.sources, headers).ok()??;
        cache.find(self.stamp(), token, now)
    }

    pub(super) fn decide(&self, headers: &Fields, cache: &TokenCache, now: SystemTime) -> Decision {
        let token = match token_source::find(&self.sources, headers) {
            Ok(Some(token)) => token,
            Ok(None) => return Decision::Refused(self.realm.token_missing()),
            Err(fault) => return Decision::Refused(self.realm.refusal(fault)),
        };
        // Read before the keys are: what an older list accepts is never remembered for a newer one.
        let stamp = self.stamp();
        if let Some(identity) = cache.find(stamp, token, now) {
            return Decision::Accepted(identity);
        }
        match self.verify(token, now) {
            Ok((identity, good_until)) => {
                let identity = Arc::new(identity);
                cache.remember(stamp, token, &identity, good_until);
                Decision::Accepted(identity)
            }
            Err(Refused { fault, keys_wanted: false }) => Decision::Refused(self.realm.refusal(fault)),
            Err(Refused { fault, keys_wanted: true }) => Decision::KeysWanted(self.realm.refusal(fault)),
        }
    }

    /// Waits for a fetch of each key set, together no longer than [`PATIENCE`].
    pub(super) async fn refetched(&self) {
        for set in &self.remote {
            set.request_refetch();
        }
        let all = async {
            for set in &self.remote {
                set.refetched().await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }

    fn stamp(&self) -> Stamp {
        Stamp { authenticator: self.id, keys: self.remote.iter().map(|set| set.version()).sum() }
    }

    fn verify(&self, token: &[u8], now: SystemTime) -> Result<(Identity, SystemTime), Refused> {
        let token = token::parse(token)?;
        if !self.algorithms.contains(&token.algorithm) {
            return Err(Fault::new(Reason::TokenAlgorithm, "the token's algorithm is not allowed").into());
        }
        self.check_signature(&token)?;
        let claims = json::object(&token.claims).map_err(|_| {
            Fault::malformed("the token's claims are not a JSON object with each member once")
        })?;
        let accepted = self.expected.check(&claims, now)?;
        let headers = claim_headers::build(&self.claim_headers, &claims)?;
        let identity = Identity {
            authenticator: self.name.clone(),
            subject: accepted.subject,
            claims,
            headers,
            expires_at: accepted.expires_at,
        };
        Ok((identity, accepted.good_until))
    }

    fn check_signature(&self, token: &Unverified<'_>) -> Result<(), Refused> {
        let mut search = Search::default();
        if self.fixed.iter().any(|key| search.try_key(key, token))
            || self.remote.iter().any(|set| set.keys().iter().any(|key| search.try_key(key, token)))
        {
            return Ok(());
        }
        // A key with the token's name is there, so newer ones would not help; and URLs bring no secrets.
        let secret_only = KeyType::Secret.fits(token.algorithm);
        if search.name_known || secret_only || self.remote.is_empty() {
            return Err(search.fault(token).into());
        }
        if self.remote.iter().any(|set| !set.ever_fetched()) {
            let fault =
                Fault::new(Reason::KeysUnavailable, "the keys to check the token with are not there yet");
            return Err(Refused { fault, keys_wanted: true });
        }
        Err(Refused { fault: search.fault(token), keys_wanted: token.kid.is_some() })
    }
}

struct Refused {
    fault: Fault,
    keys_wanted: bool,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused { fault, keys_wanted: false }
    }
}

/// What a walk over the keys has seen, for telling why none of them did it.
#[derive(Default)]
struct Search {
    attempts: usize,
    /// There is some key.
    any: bool,
    /// Some key is of the type and for the algorithm that the token names.
    fitting: bool,
    /// Some fitting key has a name.
    fitting_named: bool,
    /// Some key has the token's `kid`.
    name_known: bool,
}

impl Search {
    /// Whether `key` made the signature. With a `kid`, keys of other names are left out; keys without
    /// a name are not, since a secret or a PEM file has no way to have one.
    fn try_key(&mut self, key: &Key, token: &Unverified<'_>) -> bool {
        let fits = key.fits(token.algorithm);
        self.any = true;
        self.fitting |= fits;
        if let (Some(wanted), Some(name)) = (&token.kid, &key.kid) {
            self.fitting_named |= fits;
            if **wanted != **name {
                return false;
            }
            self.name_known = true;
        }
        if !fits || self.attempts == MAX_ATTEMPTS {
            return false;
        }
        self.attempts += 1;
        key.verify(token)
    }

    fn fault(&self, token: &Unverified<'_>) -> Fault {
        let name_unknown = token.kid.is_some() && !self.name_known;
        if !self.any || (name_unknown && self.fitting_named) {
            Fault::new(Reason::TokenKeyUnknown, "no key with the token's kid is known")
        } else if !self.fitting || (self.attempts == 0 && self.name_known) {
            Fault::new(Reason::TokenAlgorithm, "the token's algorithm fits none of the keys")
        } else {
            Fault::new(Reason::TokenSignature, "the token's signature does not verify")
        }
    }
}
