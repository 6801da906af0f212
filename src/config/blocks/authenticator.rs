//! `authenticators`: how a caller proves who they are: by a token (JWT), or by a certificate.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use serde_json::{Value as Json, json};

use super::listener::located;
use crate::config::block::{Field, Place, Value, block};
use crate::config::model::{At, Jwt, JwtAlgorithm, JwtKey, TokenSource};
use crate::config::reader::{Form, Reader, has_variables};
use crate::config::secret::Secret;
use crate::config::text::{alternatives, quoted};
use crate::config::values::http::{CookieName, Direction, may_edit};
use crate::config::values::net::Url;
use crate::config::values::units::Wait;
use crate::config::values::{FilePath, NonEmpty, choice, choice_schema};
use crate::config::yaml::{Kind, Node};

/// An authenticator without its name, which is its key.
pub(super) enum AuthenticatorBody {
    Jwt(Jwt),
    Certificate(CertificateBody),
}

pub(super) struct CertificateBody {
    pub subjects: Vec<String>,
    pub header: Option<HeaderName>,
}

block! {
    /// A way for callers to prove who they are.
    "an authenticator" AuthenticatorBlock => AuthenticatorBody {
        /// A signed token (RFC 7519).
        jwt: Jwt,
        /// The certificate that a client showed, by the names in it.
        client_certificate: CertificateBody,
    }
    later { "api_key", "basic", "forward" }
}

impl AuthenticatorBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<AuthenticatorBody> {
        match (self.jwt.is_absent(), self.client_certificate.is_absent()) {
            (true, true) if !place.strays => {
                reader.error(
                    place.span,
                    "an authenticator needs the key \"jwt\" or \"client_certificate\"",
                    "add `jwt:` with `algorithms` and `keys`",
                );
            }
            (false, false) => {
                let message = "`jwt` and `client_certificate` exclude each other";
                let remedy = "write an authenticator for each: a route may name both";
                reader.error(place.span, message, remedy);
                return None;
            }
            _ => {}
        }
        let jwt = self.jwt.required().map(AuthenticatorBody::Jwt);
        jwt.or(self.client_certificate.required().map(AuthenticatorBody::Certificate))
    }
}

block! {
    /// Which certificates of clients are good. A listener's `client_certificates` says whom to trust.
    "a client_certificate block" CertificateBlock => CertificateBody {
        /// Names in the certificate, of hosts or URIs, any of which suffices; one star stands for any text.
        subjects: NonEmpty<Subject> ["[\"spiffe://shop/*\"]"],
        /// A header that tells the service the name. Clients' own are removed.
        header: At<HeaderName>,
    }
}

impl CertificateBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<CertificateBody> {
        let (subjects, header) =
            (self.subjects.required::<Vec<Subject>>(), self.header.optional::<At<HeaderName>>());
        let header = match header? {
            Some(name) if !may_edit(&name.value, Direction::Request, name.span, reader) => return None,
            header => header.map(|name| name.value),
        };
        Some(CertificateBody { subjects: subjects?.into_iter().map(|subject| subject.0).collect(), header })
    }
}

/// A name, or several by a star.
struct Subject(String);

impl Value for Subject {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "a name in a certificate",
            remedy: "write a URI or a host, with one `*` at most: spiffe://shop/* or *.clients.internal",
        };
        reader.parse(node, &form, |text| {
            let right = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            match text.matches('*').count() {
                0 | 1 if right && text != "*" => Ok(Subject(text.to_owned())),
                1 if right => Err(Some("every certificate is what `mode: required` lets in".to_owned())),
                _ => Err(None),
            }
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

block! {
    /// Which tokens are good, and where they are found.
    "a jwt block" JwtBlock => Jwt {
        /// `iss` must be this. Default: not checked.
        issuer: String,
        /// `aud` must hold one of these. Default: not checked.
        audience: Audience,
        /// The algorithms that a token may be signed with.
        algorithms: NonEmpty<At<JwtAlgorithm>> ["[RS256]"],
        /// How far clocks may be apart. Default 30s, at most 1h.
        leeway: At<Duration>,
        /// What signatures are checked with.
        keys: NonEmpty<At<JwtKey>> ["[{ jwks_url: https://id.example.com/.well-known/jwks.json }]"],
        /// Where the token is looked for; the first one present counts. Default [bearer].
        token_from: NonEmpty<TokenSource>,
        /// Claims that the service gets as headers; the client's own headers of those names are removed.
        claim_headers: ClaimHeaders,
    }
}

impl JwtBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Jwt> {
        let fits = fitting(&self.algorithms, &self.keys, reader);
        let leeway = self.leeway.optional::<At<Duration>>()?;
        if let Some(leeway) = leeway.as_ref().filter(|leeway| leeway.value > Duration::from_secs(3600)) {
            reader.error(
                leeway.span,
                "a leeway of more than an hour lets expired tokens in",
                "write 30s, or 5m at most",
            );
            return None;
        }
        let issuer = self.issuer.optional();
        let audience = self.audience.optional::<Audience>();
        let algorithms: Vec<At<JwtAlgorithm>> = self.algorithms.required()?;
        let keys: Vec<At<JwtKey>> = self.keys.required()?;
        let token_from = self.token_from.or(vec![TokenSource::Bearer]);
        let claim_headers = self.claim_headers.optional::<ClaimHeaders>();
        fits.then_some(Jwt {
            issuer: issuer?,
            audience: audience?.map_or_else(Vec::new, |audience| audience.0),
            algorithms: algorithms.into_iter().map(|algorithm| algorithm.value).collect(),
            leeway: leeway.map_or(Duration::from_secs(30), |leeway| leeway.value),
            keys: keys.into_iter().map(|key| key.value).collect(),
            token_from: token_from?,
            claim_headers: claim_headers?.map_or_else(Vec::new, |claims| claims.0),
        })
    }
}

/// Whether every algorithm has a key that can check it, and every key an algorithm: anything else
/// is a mistake that would show up as tokens refused for no visible reason.
fn fitting(
    algorithms: &Field<NonEmpty<At<JwtAlgorithm>>>,
    keys: &Field<NonEmpty<At<JwtKey>>>,
    reader: &mut Reader<'_>,
) -> bool {
    let (Some(NonEmpty(algorithms)), Some(NonEmpty(keys))) = (algorithms.value(), keys.value()) else {
        return true;
    };
    let mut right = true;
    for algorithm in algorithms {
        if !keys.iter().any(|key| can_check(&key.value, algorithm.value)) {
            let remedy = match secret_length(algorithm.value) {
                Some(_) => "add `{ secret: … }` to `keys`, or remove the algorithm",
                None => "add a public_key, jwks_file or jwks_url to `keys`, or remove the algorithm",
            };
            reader.error(algorithm.span, format!("no key here can check {:?}", algorithm.value), remedy);
            right = false;
        }
    }
    for key in keys {
        if !algorithms.iter().any(|algorithm| can_check(&key.value, algorithm.value)) {
            let remedy = match key.value {
                JwtKey::Secret(_) => "add HS256 to `algorithms`, or remove the key",
                _ => "add RS256, ES256 or the like to `algorithms`, or remove the key",
            };
            reader.error(key.span, "none of the algorithms uses this key", remedy);
            right = false;
        }
        if let JwtKey::Secret(secret) = &key.value {
            right &= long_enough(secret, algorithms, reader);
        }
    }
    right
}

fn can_check(key: &JwtKey, algorithm: JwtAlgorithm) -> bool {
    match key {
        JwtKey::Secret(_) => secret_length(algorithm).is_some(),
        JwtKey::PublicKey(_) => secret_length(algorithm).is_none(),
        // A key set holds keys of any type.
        JwtKey::JwksFile(_) | JwtKey::JwksUrl { .. } => true,
    }
}

/// The bytes that a secret for the algorithm must have; `None` for public keys.
fn secret_length(algorithm: JwtAlgorithm) -> Option<usize> {
    match algorithm {
        JwtAlgorithm::HS256 => Some(32),
        JwtAlgorithm::HS384 => Some(48),
        JwtAlgorithm::HS512 => Some(64),
        _ => None,
    }
}

/// RFC 7518 §3.2: a secret as long as the hash, or longer.
fn long_enough(secret: &At<Secret>, algorithms: &[At<JwtAlgorithm>], reader: &mut Reader<'_>) -> bool {
    let length = secret.value.expose().len();
    let hashes = || algorithms.iter().filter_map(|a| Some((secret_length(a.value)?, a.value)));
    let remedy = |bytes: usize| format!("make one with `openssl rand -base64 {bytes}`");
    if let Some((bytes, algorithm)) = hashes().min_by_key(|(bytes, _)| *bytes)
        && length < bytes
    {
        let message = format!("this secret is too short for {algorithm:?}, which needs {bytes} bytes");
        reader.error(secret.span, message, remedy(bytes));
        return false;
    }
    if let Some((bytes, algorithm)) = hashes().max_by_key(|(bytes, _)| *bytes)
        && length < bytes
    {
        let message = format!("this secret is too short for {algorithm:?}, which should have {bytes} bytes");
        reader.warning(secret.span, message, remedy(bytes));
    }
    true
}

/// One text, or a list.
struct Audience(Vec<String>);

impl Value for Audience {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.kind {
            Kind::List(_) => NonEmpty::read(node, reader).map(|list| Audience(list.0)),
            _ => String::read(node, reader).map(|one| Audience(vec![one])),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [String::schema(), NonEmpty::<String>::schema()] })
    }
}

const ALGORITHMS: [(&str, JwtAlgorithm); 12] = [
    ("HS256", JwtAlgorithm::HS256),
    ("HS384", JwtAlgorithm::HS384),
    ("HS512", JwtAlgorithm::HS512),
    ("RS256", JwtAlgorithm::RS256),
    ("RS384", JwtAlgorithm::RS384),
    ("RS512", JwtAlgorithm::RS512),
    ("PS256", JwtAlgorithm::PS256),
    ("PS384", JwtAlgorithm::PS384),
    ("PS512", JwtAlgorithm::PS512),
    ("ES256", JwtAlgorithm::ES256),
    ("ES384", JwtAlgorithm::ES384),
    ("EdDSA", JwtAlgorithm::EdDSA),
];

impl Value for JwtAlgorithm {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text.eq_ignore_ascii_case("none")) {
            reader.error(
                node.span,
                "a token without a signature proves nothing",
                "name the algorithm that tokens are signed with",
            );
            return None;
        }
        choice(node, reader, "an algorithm for tokens", &ALGORITHMS, &["ES512"])
    }

    fn schema() -> Json {
        choice_schema(&ALGORITHMS)
    }
}

block! {
    /// A key, or where keys are: exactly one of `secret`, `public_key`, `jwks_file` and `jwks_url`.
    "a key" KeyBlock => JwtKey {
        /// Shared with who signs, for HS256, HS384 and HS512. Best as `${VARIABLE}`.
        secret: At<Secret>,
        /// A PEM file.
        public_key: At<FilePath>,
        /// A JSON Web Key Set in a file.
        jwks_file: At<FilePath>,
        /// A JSON Web Key Set at a URL.
        jwks_url: At<Url>,
        /// How often to fetch `jwks_url`. Default 10m.
        refresh: At<Wait>,
    }
}

impl KeyBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<JwtKey> {
        const KINDS: [&str; 4] = ["secret", "public_key", "jwks_file", "jwks_url"];
        let KeyBlock { secret, public_key, jwks_file, jwks_url, refresh } = self;
        let given =
            [!secret.is_absent(), !public_key.is_absent(), !jwks_file.is_absent(), !jwks_url.is_absent()];
        let count = given.iter().filter(|given| **given).count();
        if count == 0 && place.strays {
            return None;
        }
        if count != 1 {
            let message = if count == 0 { "this key has no content" } else { "this is more than one key" };
            let remedy = match count {
                0 => format!("write {}", alternatives(&KINDS)),
                _ => "give each an item of its own in `keys`".to_owned(),
            };
            reader.error(place.span, message, remedy);
            return None;
        }
        if let Some(refresh) = refresh.value().filter(|_| jwks_url.is_absent()) {
            reader.error(refresh.span, "only `jwks_url` is refreshed", "remove `refresh`: files are watched");
            return None;
        }
        let refresh = refresh.optional::<At<Wait>>();
        let file = |path: At<FilePath>| -> At<PathBuf> { located(path) };
        let secret = secret.optional::<At<Secret>>()?.map(JwtKey::Secret);
        let public_key = public_key.optional::<At<FilePath>>()?.map(file).map(JwtKey::PublicKey);
        let jwks_file = jwks_file.optional::<At<FilePath>>()?.map(file).map(JwtKey::JwksFile);
        let jwks_url = jwks_url.optional::<At<Url>>()?;
        let refresh = refresh?.map_or(Duration::from_secs(600), |refresh| refresh.value.0);
        let jwks_url =
            jwks_url.map(|url| JwtKey::JwksUrl { url: At { value: url.value.0, span: url.span }, refresh });
        secret.or(public_key).or(jwks_file).or(jwks_url)
    }
}

/// `bearer`, or `{ cookie: name }`.
impl Value for TokenSource {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(node.kind, Kind::Map(_)) {
            return CookieSource::read(node, reader).map(|source| TokenSource::Cookie(source.0));
        }
        choice(node, reader, "a place for tokens", &[("bearer", ())], &[]).map(|()| TokenSource::Bearer)
    }

    fn schema() -> Json {
        json!({ "anyOf": [choice_schema(&[("bearer", ())]), CookieSource::schema()] })
    }
}

struct CookieSource(String);

block! {
    /// A token in a cookie.
    "a place for tokens" CookieBlock => CookieSource {
        /// The cookie's name.
        cookie: CookieName ["token"],
    }
}

impl CookieBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<CookieSource> {
        self.cookie.required().map(CookieSource)
    }
}

/// `claim: header`.
struct ClaimHeaders(Vec<(String, HeaderName)>);

impl Value for ClaimHeaders {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of claims")?;
        let mut pairs: Vec<(String, HeaderName)> = Vec::with_capacity(entries.len());
        let mut carried: HashMap<HeaderName, &str> = HashMap::new();
        let mut right = true;
        for entry in entries {
            let Some(name) = HeaderName::read(&entry.value, reader) else {
                right = false;
                continue;
            };
            right &= may_edit(&name, Direction::Request, entry.value.span, reader);
            if let Some(claim) = carried.insert(name.clone(), &entry.key) {
                let shown = if has_variables(&entry.value) {
                    "this header".to_owned()
                } else {
                    quoted(name.as_str())
                };
                let message = format!("{shown} already carries the claim {}", quoted(claim));
                reader.error(entry.value.span, message, "give each claim a header of its own");
                right = false;
            }
            pairs.push((entry.key.to_string(), name));
        }
        right.then_some(ClaimHeaders(pairs))
    }

    fn schema() -> Json {
        json!({ "type": ["object", "null"], "additionalProperties": HeaderName::schema() })
    }
}
