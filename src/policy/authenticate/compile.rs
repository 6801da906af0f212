//! From the configuration of an authenticator to the form that requests run against.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::Uri;
use jsonwebtoken::Algorithm;

use super::authenticator::Authenticator;
use super::challenge::Realm;
use super::claims::Expected;
use super::jwks::{self, MAX_JWKS_BYTES};
use super::key::{Key, KeyType};
use super::key_set::KeySet;
use super::pem;
use crate::config::{self, At, JwtAlgorithm, JwtKey, Problems};

/// RFC 7518 §3.2 asks for as many bits as the hash has.
const SHORT_SECRET_BYTES: usize = 32;

/// What an authenticator was compiled from: only for telling, at the next reload, whether it changed.
#[derive(Debug, PartialEq)]
pub struct Origin {
    written: config::Authenticator,
    /// Of the content of each key file, in their order.
    files: Vec<[u8; 32]>,
}

pub fn compile(
    config: &config::Authenticator,
    previous: Option<&Arc<Authenticator>>,
    problems: &mut Problems,
) -> Option<Arc<Authenticator>> {
    let jwt = &config.jwt;
    let contents: Vec<Option<Vec<u8>>> = jwt.keys.iter().map(|key| read_key_file(key, problems)).collect();
    if jwt.keys.iter().zip(&contents).any(|(key, content)| key_file(key).is_some() && content.is_none()) {
        return None;
    }
    let files = contents.iter().flatten().map(|content| sha256(content)).collect();
    let origin = Origin { written: config.clone(), files };
    if let Some(previous) = previous.filter(|previous| previous.origin == origin) {
        return Some(previous.clone());
    }

    let algorithms: Vec<Algorithm> = jwt.algorithms.iter().map(|a| algorithm(*a)).collect();
    let mut keys =
        Keys { algorithms: &algorithms, previous, problems, fixed: Vec::new(), remote: Vec::new() };
    let mut sound = true;
    for (key, content) in jwt.keys.iter().zip(&contents) {
        sound &= keys.add(key, content.as_deref().unwrap_or_default());
    }
    let Keys { fixed, remote, .. } = keys;
    sound.then(|| {
        Arc::new(Authenticator {
            id: next_id(),
            name: config.name.as_str().into(),
            algorithms,
            fixed,
            remote,
            expected: Expected {
                issuer: jwt.issuer.clone(),
                audience: jwt.audience.clone(),
                leeway: jwt.leeway,
            },
            sources: jwt.token_from.iter().map(Into::into).collect(),
            claim_headers: jwt.claim_headers.clone(),
            realm: Realm::new(&config.name),
            origin,
        })
    })
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn sha256(content: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, content).as_ref());
    sum
}

/// The keys of an authenticator while they are collected.
struct Keys<'c> {
    algorithms: &'c [Algorithm],
    previous: Option<&'c Arc<Authenticator>>,
    problems: &'c mut Problems,
    fixed: Vec<Key>,
    remote: Vec<Arc<KeySet>>,
}

impl Keys<'_> {
    /// False when an error has been reported.
    fn add(&mut self, key: &JwtKey, content: &[u8]) -> bool {
        match key {
            JwtKey::Secret(secret) => self.add_secret(secret),
            JwtKey::PublicKey(path) => self.add_public_key(path, content),
            JwtKey::JwksFile(path) => self.add_jwks_file(path, content),
            JwtKey::JwksUrl { url, refresh } => self.add_url(url, *refresh),
        }
    }

    fn add_url(&mut self, url: &At<Uri>, refresh: Duration) -> bool {
        let host = url.host().unwrap_or_default();
        if !matches!(url.scheme_str(), Some("http" | "https")) || host.is_empty() {
            let remedy = "write it whole: https://id.example.com/.well-known/jwks.json";
            self.problems.error(url.span, "the URL of a key set has no scheme and host", remedy);
            return false;
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let remedy = "take the part before the @ out; key sets are public";
            self.problems.error(url.span, "the URL of a key set has a user name", remedy);
            return false;
        }
        if url.scheme_str() == Some("http") && !is_loopback(host) {
            self.problems.warning(
                url.span,
                "the keys are fetched without TLS, so whoever is in between can put in their own",
                "use https",
            );
        }
        let lives_on = |set: &&Arc<KeySet>| *set.url() == url.value && set.refresh() == refresh;
        let known = self.previous.and_then(|previous| previous.remote.iter().find(lives_on));
        let set = known.cloned().unwrap_or_else(|| KeySet::new(url.value.clone(), refresh));
        if !self.remote.iter().any(|other| Arc::ptr_eq(other, &set)) {
            self.remote.push(set);
        }
        true
    }

    fn add_secret(&mut self, secret: &At<config::Secret>) -> bool {
        let bytes = secret.expose().as_bytes();
        let Ok(key) = Key::secret(bytes) else {
            self.problems.error(
                secret.span,
                "the secret is empty",
                "set it to at least 32 random characters: `openssl rand -base64 32` makes some",
            );
            return false;
        };
        if bytes.len() < SHORT_SECRET_BYTES {
            self.problems.warning(
                secret.span,
                format!("the secret has {} bytes, and fewer than 32 can be guessed", bytes.len()),
                "use at least 32 random characters: `openssl rand -base64 32` makes some",
            );
        }
        self.warn_if_unused(secret.span, &[key.key_type]);
        self.fixed.push(key);
        true
    }

    fn add_public_key(&mut self, path: &At<PathBuf>, content: &[u8]) -> bool {
        match pem::public_key(content) {
            Ok(key) => {
                self.warn_if_unused(path.span, &[key.key_type]);
                self.fixed.push(key);
                true
            }
            Err(error) => {
                let message = format!("{} cannot be used: {error}", path.display());
                self.problems.error(path.span, message, error.remedy());
                false
            }
        }
    }

    fn add_jwks_file(&mut self, path: &At<PathBuf>, content: &[u8]) -> bool {
        let list = match jwks::parse(content, jwks::Origin::File) {
            Ok(list) => list,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|c| format!(": {c}")).unwrap_or_default();
                self.problems.error(
                    path.span,
                    format!("{} cannot be used: {error}{cause}", path.display()),
                    "the file must be a JSON Web Key Set: {\"keys\": [ … ]} with RSA, EC or OKP keys",
                );
                return false;
            }
        };
        for note in &list.notes {
            self.problems.warning(
                path.span,
                format!("{}: {note}", path.display()),
                "the other keys are used; correct this one, or take it out",
            );
        }
        let types: Vec<KeyType> = list.keys.iter().map(|key| key.key_type).collect();
        self.warn_if_unused(path.span, &types);
        self.fixed.extend(list.keys);
        true
    }

    fn warn_if_unused(&mut self, span: config::Span, types: &[KeyType]) {
        let fits = |key_type: &KeyType| self.algorithms.iter().any(|a| key_type.fits(*a));
        if let Some(key_type) = types.first().filter(|_| !types.iter().any(fits)) {
            self.problems.warning(
                span,
                format!("a {key_type} fits none of the allowed algorithms, so it is never used"),
                "add its algorithm to `algorithms`, or take the key out",
            );
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn key_file(key: &JwtKey) -> Option<&At<PathBuf>> {
    match key {
        JwtKey::PublicKey(path) | JwtKey::JwksFile(path) => Some(path),
        JwtKey::Secret(_) | JwtKey::JwksUrl { .. } => None,
    }
}

fn read_key_file(key: &JwtKey, problems: &mut Problems) -> Option<Vec<u8>> {
    let path = key_file(key)?;
    match read_bounded(path) {
        Ok(content) if content.len() <= MAX_JWKS_BYTES => Some(content),
        Ok(_) => {
            let message = format!("{} is larger than 256 KiB", path.display());
            problems.error(path.span, message, "name a file with keys; they take a few KiB");
            None
        }
        Err(error) => {
            let message = format!("{} cannot be read: {error}", path.display());
            let remedy =
                "check the name, which starts from the configuration's directory, and the permissions";
            problems.error(path.span, message, remedy);
            None
        }
    }
}

/// At most one byte more than may be used.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_JWKS_BYTES as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// The configuration's name for an algorithm in the library's words.
pub fn algorithm(written: JwtAlgorithm) -> Algorithm {
    match written {
        JwtAlgorithm::HS256 => Algorithm::HS256,
        JwtAlgorithm::HS384 => Algorithm::HS384,
        JwtAlgorithm::HS512 => Algorithm::HS512,
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}
