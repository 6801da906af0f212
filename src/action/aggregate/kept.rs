//! The last good answers of parts: under what they are kept, and for which failures one of them stands in.
//!
//! Invariant: an answer that is not told to be everybody's is found only by a request with which the service is told the same
//! of who asks: the same credentials, cookies, claims and fields of the client's own.

use std::fmt::Write;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, Method, StatusCode};
use tokio::time::Instant;

use super::part::{PartCall, PartError};
use crate::clock::{self, Millis};
use crate::exchange::Exchange;
use crate::http::fields::Fields;
use crate::http::forwarded::{self, Scheme};
use crate::identity::Identity;
use crate::request::Request;
use crate::service::{Asked, Caller, Failure, Stale};

/// The request of the client, as far as the answers to its parts are kept by it.
pub struct Asker {
    /// `https://shop.example.com`
    origin: String,
    /// The gateway's own word, which is another each time.
    request_id: HeaderName,
    /// In which services are told of claims.
    identity_headers: Vec<HeaderName>,
}

/// What an answer is kept under, but for the target of its request.
pub struct Keys {
    /// Where the client asks, and the fields that the part sets.
    common: String,
    /// Who asks, where the service is told anything of that.
    own: Option<String>,
    headers: Fields,
    request_id: HeaderName,
    identity_headers: Vec<HeaderName>,
}

/// The answer that a request may get: its own, or everybody's.
pub struct Kept {
    own: Asked,
    /// Where there is a difference.
    public: Option<Asked>,
}

/// A good answer of before, in its part's shape.
#[derive(Debug)]
pub struct Old {
    pub value: Bytes,
    pub age_s: u64,
}

impl Asker {
    /// Before anything of the request is taken out of it.
    pub fn of(exchange: &Exchange, request: &Request) -> Self {
        let scheme = match exchange.connection.facts.scheme() {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        let host = request.host.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        Asker {
            origin: format!("{scheme}://{}", host.to_ascii_lowercase()),
            request_id: exchange.snapshot.request_id_header.clone(),
            identity_headers: exchange.snapshot.identity_headers.clone(),
        }
    }

    /// `headers` are as the part gets them, without the fields that it `sets` itself.
    pub fn keys<'f>(
        &self,
        headers: &Fields,
        identity: Option<&Identity>,
        sets: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) -> Keys {
        let mut common = self.origin.clone();
        for (name, value) in sets {
            common.extend(["\n", name, ": ", &String::from_utf8_lossy(value)]);
        }
        let claims = identity.iter().flat_map(|identity| &identity.headers);
        let claims = claims.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let of_client = headers.iter().filter(|(name, _)| self.tells_who(name));
        let mut digest = Context::new(&SHA256);
        let mut is_told = false;
        for (name, value) in of_client.chain(claims) {
            is_told = true;
            for text in [name, value] {
                digest.update(&(text.len() as u64).to_le_bytes());
                digest.update(text);
            }
        }
        Keys {
            common,
            own: is_told.then(|| digits(digest.finish().as_ref())),
            headers: headers.clone(),
            request_id: self.request_id.clone(),
            identity_headers: self.identity_headers.clone(),
        }
    }

    /// Whether a service may go by the field when it decides what this client may see. All but those of which everybody
    /// knows that they say something else.
    fn tells_who(&self, name: &[u8]) -> bool {
        !(forwarded::claims_origin(name)
            || name == self.request_id.as_str().as_bytes()
            || name.starts_with(b"sec-")
            || matches!(
                name,
                b"accept"
                    | b"baggage"
                    | b"cache-control"
                    | b"connection"
                    | b"dnt"
                    | b"early-data"
                    | b"host"
                    | b"max-forwards"
                    | b"origin"
                    | b"pragma"
                    | b"priority"
                    | b"referer"
                    | b"save-data"
                    | b"traceparent"
                    | b"tracestate"
                    | b"upgrade-insecure-requests"
                    | b"user-agent"
                    | b"via"
            ))
    }
}

impl Keys {
    pub fn with(self, target: &PathAndQuery) -> Kept {
        let Keys { common, own, headers, request_id, identity_headers } = self;
        let key = format!("{target} {common}");
        let asked = |key, is_own, is_identified, spoken_for| Asked {
            key,
            method: Method::GET,
            headers: headers.clone(),
            is_identified,
            is_own,
            has_body: false,
            spoken_for,
        };
        let Some(own) = own else {
            return Kept { own: asked(key, true, false, vec![request_id]), public: None };
        };
        let own_key = format!("{key}\n\n{own}");
        // Everybody else's claims are others.
        let spoken_for = identity_headers.into_iter().chain([request_id.clone()]).collect();
        Kept {
            own: asked(own_key, true, false, vec![request_id]),
            public: Some(asked(key, false, true, spoken_for)),
        }
    }
}

fn digits(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Kept {
    fn all(&self) -> impl Iterator<Item = &Asked> {
        // Where it is everybody's, it is kept for everybody.
        self.public.iter().chain([&self.own])
    }

    /// The latest of the answers that may be given.
    fn find(&self, stale: &Stale) -> Option<Old> {
        let now = clock::now();
        let kept = self.all().filter_map(|asked| stale.find(asked, now)).max_by_key(|kept| kept.at)?;
        let (age_s, _) = kept.age_and_freshness(Millis::of(Instant::now()));
        Some(Old { value: kept.body.clone(), age_s })
    }

    fn keep(&self, stale: &Stale, fetched: &Fetched, value: &[u8]) {
        let (at, delay) = (clock::now(), fetched.began.elapsed());
        let of = |asked| stale.to_keep(asked, fetched.status, &fetched.fields, at, delay);
        if let Some(kept) = self.all().find_map(of).filter(|_| fetched.is_surely_whole) {
            stale.put(kept, value);
        }
    }

    fn learn(&self, stale: &Stale, status: StatusCode) {
        self.all().for_each(|asked| stale.learn(asked, status));
    }
}

/// An answer that has come, before it is brought into its shape.
pub struct Fetched {
    pub body: Bytes,
    pub status: StatusCode,
    pub fields: Fields,
    pub began: Instant,
    /// Its end was told otherwise than by that of the connection.
    pub is_surely_whole: bool,
}

impl PartCall {
    /// What has come of a request, in its shape: kept for later where it is good, and where it is not, with the last good one.
    pub fn with_kept(
        &self,
        kept: Option<Box<Kept>>,
        fetched: Result<Fetched, PartError>,
        shaped: impl FnOnce(Bytes) -> Result<Bytes, PartError>,
        caller: Caller<'_>,
    ) -> (Result<Bytes, PartError>, Option<Old>) {
        let (Some(stale), Some(kept)) = (&self.service.stale, kept) else {
            return (fetched.and_then(|fetched| shaped(fetched.body)), None);
        };
        match &fetched {
            Ok(Fetched { status, .. }) | Err(PartError::Status(status)) => kept.learn(stale, *status),
            Err(_) => {}
        }
        let result = fetched.and_then(|mut fetched| {
            let value = shaped(std::mem::take(&mut fetched.body))?;
            kept.keep(stale, &fetched, &value);
            Ok(value)
        });
        let old = match &result {
            Err(error) if self.is_outage(error) => kept.find(stale),
            _ => None,
        };
        if old.is_some() {
            self.service.metrics.gave_stale(caller.worker);
        }
        (result, old)
    }

    /// Whether nothing came that says anything. A service that says no (there is no such thing, this client may not see it) is
    /// not overruled, nor is one whose answer looks otherwise than it did.
    fn is_outage(&self, error: &PartError) -> bool {
        match error {
            PartError::Call(error) => error.reason().status().is_server_error(),
            PartError::Status(status) => {
                let failures = &self.service.settings.breaker_failures;
                status.is_server_error() || failures.contains(Failure::Status(*status))
            }
            PartError::Body(_)
            | PartError::TooLarge
            | PartError::NotJson
            | PartError::NotText
            | PartError::TimedOut => true,
            _ => false,
        }
    }
}
