//! Authentication: which of a route's requests need a token, and whose token it is.
//!
//! A token is believed when one of the route's authenticators has verified it; an [`Identity`] exists
//! in no other way. See `authenticator` for the order of the checks and `key_set` for fetched keys.

mod authenticator;
mod cache;
mod certificate;
mod challenge;
mod claim_headers;
mod claims;
mod compile;
mod json;
pub mod jwks;
mod key;
mod key_set;
mod pem;
pub mod token;
mod token_source;

use std::sync::Arc;
use std::time::SystemTime;

use http::Method;

pub use authenticator::Authenticator;
pub use cache::TokenCache;
pub use certificate::CertificateRule;
pub use compile::algorithm;
pub use jwks::{JwksError, MAX_JWKS_BYTES};
pub use key_set::{Fetching, KeySet, KeySetStatus, PATIENCE, REFETCH_PAUSE};

use crate::config;
use crate::http::fields::Fields;
use crate::identity::{ClientNames, Identity, Refusal};
use crate::reason::Reason;
use authenticator::Decision;

/// A route's `authenticate` block, compiled.
#[derive(Debug)]
pub struct Authentication {
    /// Any one of them suffices.
    with: Vec<Arc<Authenticator>>,
    /// So does any of these.
    certificates: Box<[Arc<CertificateRule>]>,
    /// Empty: every method.
    methods: Vec<Method>,
}

impl Authentication {
    /// `resolve` gives the authenticator of a name. `None` when it does not know one: `config::load`
    /// has checked the names, so that is an authenticator with a problem of its own.
    pub fn compile(
        config: &config::Authenticate,
        resolve: impl Fn(&str) -> Option<Arc<Authenticator>>,
    ) -> Option<Authentication> {
        let with = config.with.iter().map(|name| resolve(name)).collect::<Option<Vec<_>>>()?;
        Some(Authentication { with, certificates: Box::default(), methods: config.methods.clone() })
    }

    /// The same, where a certificate by one of these rules suffices, too.
    pub fn or_certificates(self, certificates: Box<[Arc<CertificateRule>]>) -> Authentication {
        Authentication { certificates, ..self }
    }

    /// What the certificate says that the client showed, where that decides: otherwise tokens do.
    pub fn by_certificate(&self, names: Option<&ClientNames>) -> Option<Result<Arc<Identity>, Refusal>> {
        if self.certificates.is_empty() {
            return None;
        }
        let accepted = names.and_then(|names| self.certificates.iter().find_map(|rule| rule.accept(names)));
        match accepted {
            Some(identity) => Some(Ok(identity)),
            None => self.with.is_empty().then(|| Err(certificate::refusal(names))),
        }
    }

    /// Whether every request that `other` takes for somebody's this one takes for the same.
    pub fn asks_the_same(&self, other: &Authentication) -> bool {
        fn are_same<T>(some: &[Arc<T>], others: &[Arc<T>]) -> bool {
            some.len() == others.len() && some.iter().zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
        }
        are_same(&self.with, &other.with) && are_same(&self.certificates, &other.certificates)
    }

    /// Whether a request with this method needs a token. HEAD is a GET without the body, and so is its
    /// protection. `post` is not POST (RFC 9110 §9.1), but some services take it for that.
    pub fn applies_to(&self, method: &Method) -> bool {
        let listed = |method: &Method| {
            self.methods.iter().any(|listed| listed.as_str().eq_ignore_ascii_case(method.as_str()))
        };
        self.methods.is_empty()
            || listed(method)
            || (method.as_str().eq_ignore_ascii_case("HEAD") && listed(&Method::GET))
    }

    /// Whose token the request has, by whichever authenticator accepts it first. All are asked what
    /// they know at once before any waits for keys. The refusal is the most telling of theirs.
    pub async fn authenticate(
        &self,
        headers: &Fields,
        cache: &TokenCache,
        now: SystemTime,
    ) -> Result<Arc<Identity>, Refusal> {
        // What the second has accepted before must not cost the first a signature each time.
        if self.with.len() > 1
            && let Some(identity) = self.with.iter().find_map(|a| a.remembered(headers, cache, now))
        {
            return Ok(identity);
        }
        let mut told = MostTelling::default();
        let mut waiting = Vec::new();
        for authenticator in &self.with {
            match authenticator.decide(headers, cache, now) {
                Decision::Accepted(identity) => return Ok(identity),
                Decision::Refused(refusal) => told.add(refusal),
                Decision::KeysWanted(_) => waiting.push(authenticator),
            }
        }
        for authenticator in waiting {
            match authenticator.authenticate(headers, cache, now).await {
                Ok(identity) => return Ok(identity),
                Err(refusal) => told.add(refusal),
            }
        }
        Err(told.refusal())
    }
}

/// The refusal of the authenticator that got furthest with the token.
#[derive(Default)]
struct MostTelling {
    refusal: Option<Refusal>,
}

impl MostTelling {
    fn add(&mut self, refusal: Refusal) {
        if self.refusal.as_ref().is_none_or(|known| progress(refusal.reason) > progress(known.reason)) {
            self.refusal = Some(refusal);
        }
    }

    fn refusal(self) -> Refusal {
        self.refusal.unwrap_or_else(|| Refusal {
            reason: Reason::Internal,
            detail: "no authenticator was asked".into(),
            challenge: None,
        })
    }
}

/// How far a token had come when it was refused. Missing keys beat a failed signature: they may be the
/// ones that would have accepted it.
fn progress(reason: Reason) -> u8 {
    match reason {
        Reason::TokenMissing => 0,
        Reason::TokenMalformed => 1,
        Reason::TokenAlgorithm => 2,
        Reason::TokenKeyUnknown => 3,
        Reason::TokenSignature => 4,
        Reason::KeysUnavailable => 5,
        Reason::TokenIssuer => 6,
        Reason::TokenAudience => 7,
        Reason::TokenNotYetValid => 8,
        Reason::TokenExpired => 9,
        _ => 10,
    }
}

#[cfg(test)]
mod tests;
