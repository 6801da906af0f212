//! What a token costs a request: remembered from an earlier one, and verified for the first time.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use gatehouse::config::{self, At, JwtAlgorithm, JwtKey, Problems, Secret, Span};
use gatehouse::http::fields::Fields;
use gatehouse::identity::Identity;
use gatehouse::policy::authenticate::{Authenticator, TokenCache};
use http::{HeaderValue, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

const SECRET: &str = "a-secret-for-benchmarks-of-more-than-32-bytes";
const NOW: u64 = 1_700_000_000;

/// More than the places that one token can be remembered in: asked in turn, with settings of the same
/// wording, each has forgotten the token when its turn comes again.
const FORGETFUL: usize = 8;

fn vector(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(vector(name)).expect("a file of the repository")
}

fn at<T>(value: T) -> At<T> {
    At { value, span: Span::default() }
}

fn authenticator(algorithm: JwtAlgorithm, key: JwtKey) -> Arc<Authenticator> {
    let config = config::Authenticator {
        name: at("shop".to_owned()),
        jwt: config::Jwt {
            issuer: Some("https://id.example.com/".into()),
            audience: vec!["shop-api".into()],
            algorithms: vec![algorithm],
            leeway: Duration::from_secs(30),
            keys: vec![key],
            token_from: vec![config::TokenSource::Bearer],
            claim_headers: vec![("sub".into(), header::HeaderName::from_static("x-user-id"))],
        },
    };
    Authenticator::compile(&config, None, &mut Problems::default()).expect("a good configuration")
}

fn request(algorithm: Algorithm, key: &EncodingKey) -> Fields {
    let claims = json!({
        "iss": "https://id.example.com/",
        "aud": ["shop-api"],
        "sub": "5b1d7e8a-3f0c-4a53-9d64-6f1f5b0e6f11",
        "iat": NOW - 60,
        "exp": NOW + 600,
        "scope": "orders:read orders:write",
        "role": ["editor"],
    });
    let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, key).expect("the key fits");
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("tokens are ASCII");
    Fields::from_iter([(header::AUTHORIZATION, value)])
}

fn authenticate(
    authenticator: &Authenticator,
    headers: &Fields,
    cache: &TokenCache,
    now: SystemTime,
) -> Arc<Identity> {
    let verdict = authenticator.authenticate(headers, cache, now).now_or_never();
    verdict.expect("only fetched keys are waited for").expect("the token is good")
}

fn tokens(c: &mut Criterion) {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let secret = || JwtKey::Secret(at(Secret::new(SECRET)));
    let public = |name: &'static str| move || JwtKey::PublicKey(at(vector(name)));
    let rsa = EncodingKey::from_rsa_pem(&pem("rsa.key")).expect("a key");
    let p256 = EncodingKey::from_ec_pem(&pem("p256.key")).expect("a key");
    let hmac = EncodingKey::from_secret(SECRET.as_bytes());
    let kinds: [(&str, JwtAlgorithm, &dyn Fn() -> JwtKey, Fields); 3] = [
        ("HS256", JwtAlgorithm::HS256, &secret, request(Algorithm::HS256, &hmac)),
        ("RS256", JwtAlgorithm::RS256, &public("rsa.pub"), request(Algorithm::RS256, &rsa)),
        ("ES256", JwtAlgorithm::ES256, &public("p256.pub"), request(Algorithm::ES256, &p256)),
    ];
    let mut group = c.benchmark_group("token");
    for (name, algorithm, key, headers) in &kinds {
        let cache = TokenCache::new();
        let one = authenticator(*algorithm, key());
        group.bench_function(format!("{name}/remembered"), |b| {
            b.iter(|| authenticate(&one, black_box(headers), &cache, now));
        });
        let several: Vec<_> = (0..FORGETFUL).map(|_| authenticator(*algorithm, key())).collect();
        let mut turns = several.iter().cycle();
        group.bench_function(format!("{name}/verified"), |b| {
            b.iter(|| {
                let turn = turns.next().expect("a cycle has no end");
                authenticate(turn, black_box(headers), &cache, now)
            });
        });
        assert!(cache.len() <= 4, "one token was remembered in more places than it has");
    }
    group.finish();
}

criterion_group!(benches, tokens);
criterion_main!(benches);
