//! `stale_if_error`: the last good answers of a route or of a part, to be given where there would be an error (RFC 5861 §4).

mod copying;
mod kept;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, header};

pub use copying::Copying;
pub use kept::Kept;
pub use store::{StaleHeld, StaleStore};

use super::UpstreamBody;
use crate::clock::Millis;
use crate::http::caching::CacheControl;
use crate::http::fields::Fields;

/// What a route or a part that keeps answers does so with.
#[derive(Debug)]
pub struct Stale {
    pub keep_for: Duration,
    pub store: Arc<StaleStore>,
}

/// A request, as far as answers are kept and found by it.
pub struct Asked {
    /// Scheme, authority, path and query, and what else tells one request from another.
    pub key: String,
    pub method: Method,
    /// As the client sent them.
    pub headers: Fields,
    /// Somebody has said who he is.
    pub is_identified: bool,
    /// The key tells whose answer it is: it leads nobody else there.
    pub is_own: bool,
    pub has_body: bool,
    /// Fields in which the service reads what the gateway says, not the client.
    pub spoken_for: Vec<HeaderName>,
}

impl Asked {
    /// Whether a kept answer to the same could be given (RFC 9110 §9.3.2 for HEAD).
    fn may_be_answered(&self) -> bool {
        (self.method == Method::GET || self.method == Method::HEAD) && !self.has_body
    }

    fn may_be_kept(&self) -> bool {
        self.method == Method::GET && !self.has_body && !CacheControl::of(&self.headers).no_store
    }

    fn has_cookie(&self) -> bool {
        self.headers.contains(&header::COOKIE)
    }

    /// What the field says, all lines of it. `None` when that is not the client's word.
    fn value_of(&self, name: &HeaderName) -> Option<Vec<u8>> {
        let is_ours =
            self.spoken_for.contains(name) || crate::http::forwarded::claims_origin(name.as_str().as_bytes());
        let lines: Vec<&[u8]> = self.headers.get_all(name).collect();
        (!is_ours).then(|| lines.join(&b", "[..]))
    }
}

impl Stale {
    /// The last good answer to the request, if there is one that may be given.
    pub fn find(&self, asked: &Asked, now: Millis) -> Option<Arc<Kept>> {
        let wanted = |kept: &Kept| kept.answers(asked, self.keep_for, now);
        asked.may_be_answered().then(|| self.store.find(&asked.key, wanted)).flatten()
    }

    /// What an answer with this head is to be kept as, if it is.
    pub fn to_keep(
        &self,
        asked: &Asked,
        status: StatusCode,
        response: &Fields,
        at: Millis,
        delay: Duration,
    ) -> Option<Kept> {
        (status == kept::GOOD).then(|| Kept::of(asked, response, at, delay, SystemTime::now())).flatten()
    }

    /// Keeps the answer once its body is complete; gives that back if it can't be.
    pub fn copy(&self, kept: Kept, body: UpstreamBody) -> Result<Copying, UpstreamBody> {
        Copying::new(&self.store, kept, body)
    }

    /// Keeps an answer whose body is here already, if there is room for it. Its fields are let go.
    pub fn put(&self, kept: Kept, body: &[u8]) {
        let (kept, mut held) = (kept.without_fields(), self.store.hold());
        if self.store.add(&mut held, kept.head_bytes() + body.len()) {
            self.store.put(Arc::new(kept.with_body(Bytes::copy_from_slice(body), held)));
        }
    }

    /// An answer says that what was there is no more what it was: it is gone, or a request has changed it
    /// (RFC 9111 §4.4).
    pub fn learn(&self, asked: &Asked, status: StatusCode) {
        let is_gone = matches!(status.as_u16(), 404 | 410) && asked.method == Method::GET;
        let is_changed = !asked.method.is_safe() && (status.is_success() || status.is_redirection());
        if is_gone || is_changed {
            self.store.forget(&asked.key);
        }
    }
}
