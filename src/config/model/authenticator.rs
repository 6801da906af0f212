//! Authenticators and rate limits: named checks that routes refer to.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::At;
use crate::config::secret::Secret;

/// An authenticator that goes by tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Authenticator {
    pub name: At<String>,
    pub jwt: Jwt,
}

/// An authenticator that goes by the names in a client's certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateAuthenticator {
    pub name: At<String>,
    /// Never empty. A star stands for any text, in one place of each.
    pub subjects: Vec<String>,
    /// Set to the name on the way to the service.
    pub header: Option<HeaderName>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Jwt {
    pub issuer: Option<String>,
    /// Empty: not checked. Otherwise one of them must be in the token's `aud`.
    pub audience: Vec<String>,
    /// Never empty.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Default 30 s.
    pub leeway: Duration,
    /// Never empty.
    pub keys: Vec<JwtKey>,
    /// Never empty; the first one present in a request is the one that counts.
    pub token_from: Vec<TokenSource>,
    pub claim_headers: Vec<(String, HeaderName)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

#[derive(Clone, Debug, PartialEq)]
pub enum JwtKey {
    Secret(At<Secret>),
    PublicKey(At<PathBuf>),
    JwksFile(At<PathBuf>),
    /// `refresh` defaults to 10 min.
    JwksUrl {
        url: At<http::Uri>,
        refresh: Duration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    Bearer,
    Cookie(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    pub name: At<String>,
    /// Never empty.
    pub key: Vec<KeyPart>,
    pub rate: Rate,
    /// 1 or more; defaults to the number of `rate`.
    pub burst: u32,
    /// Default 100,000.
    pub max_keys: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    Ip,
    Route,
    Header(HeaderName),
    Claim(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// 1 or more.
    pub count: u32,
    /// One second, minute or hour.
    pub per: Duration,
}
