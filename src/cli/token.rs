//! `gatehouse token`: signs a token for development, one that the configuration at hand accepts.
//!
//! The token goes to stdout alone, so that `$(gatehouse token …)` is a token; all else goes to stderr.

mod signing;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

pub use signing::{SignError, SigningKey, sign};

use super::spell_causes;
use crate::config::{self, Config};
use crate::policy::authenticate::algorithm;
use signing::{is_hmac, standard_claims};

/// The longest life that can be asked for.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Sign a token for development
#[derive(Clone, Debug, clap::Args)]
pub struct TokenArgs {
    /// The configuration that the token is for [default: gateway.yaml, unless --secret or --key is given]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The authenticator to take issuer, audience and secret from; needed when there are several
    #[arg(short, long, value_name = "NAME")]
    pub authenticator: Option<String>,
    /// The subject
    #[arg(long, value_name = "TEXT")]
    pub sub: Option<String>,
    /// Another claim, any number of times; the value is JSON where it parses as such, else text
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub claims: Vec<String>,
    /// How long the token is good for: 90s, 15m, 1h, 30d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = life)]
    pub expires_in: Duration,
    /// Sign with this secret
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    pub secret: Option<String>,
    /// Sign with the private key in this PEM file
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The algorithm to sign with [default: the first allowed one that fits the key]
    #[arg(long, value_name = "NAME", value_parser = algorithm_name)]
    pub alg: Option<Algorithm>,
    /// The name of the key, as the key set has it
    #[arg(long, value_name = "TEXT")]
    pub kid: Option<String>,
}

impl TokenArgs {
    /// The configuration to load for [`run`]; none is needed when a key is given and no file is.
    pub fn config_path(&self) -> Option<&Path> {
        match &self.config {
            Some(path) => Some(path),
            None if self.authenticator.is_none() && (self.secret.is_some() || self.key.is_some()) => None,
            None => Some(Path::new("gateway.yaml")),
        }
    }
}

/// Writes the token to `out` and everything that a human should know to `notes`.
pub fn run(
    args: &TokenArgs,
    config: Option<&Config>,
    now: SystemTime,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), String> {
    let authenticator = config.map(|config| choose(config, args.authenticator.as_deref())).transpose()?;
    let key = signing_key(args, authenticator)?.with_kid(args.kid.clone());
    let claims = standard_claims(authenticator, own_claims(args)?, now, args.expires_in);
    let token = key.sign(&claims).map_err(|error| spell_causes(&error))?;
    writeln!(out, "{token}").map_err(|error| format!("cannot write the token: {error}"))?;

    let whose = authenticator.map(|a| format!(" for authenticator {:?}", a.name.value)).unwrap_or_default();
    let life = args.expires_in.as_secs();
    // Notes are a courtesy: a closed stderr is no reason to fail.
    let _ = writeln!(notes, "signed with {:?}{whose}, good for {life} s", key.algorithm());
    if let Some(allowed) = authenticator.map(allowed)
        && !allowed.contains(&key.algorithm())
    {
        let _ = writeln!(notes, "warning: the authenticator does not allow {:?}", key.algorithm());
    }
    Ok(())
}

fn choose<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c config::Authenticator, String> {
    let names = || config.authenticators.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.authenticators.as_slice()) {
        (_, []) => Err("the configuration has no authenticator; sign with --secret or --key instead".into()),
        (None, [only]) => Ok(only),
        (None, _) => {
            Err(format!("there are several authenticators; choose with --authenticator one of {}", names()))
        }
        (Some(name), all) => all
            .iter()
            .find(|authenticator| *authenticator.name.value == *name)
            .ok_or_else(|| format!("there is no authenticator {name:?}; there are {}", names())),
    }
}

fn allowed(authenticator: &config::Authenticator) -> Vec<Algorithm> {
    authenticator.jwt.algorithms.iter().map(|a| algorithm(*a)).collect()
}

fn signing_key(
    args: &TokenArgs,
    authenticator: Option<&config::Authenticator>,
) -> Result<SigningKey, String> {
    let allowed = authenticator.map(allowed).unwrap_or_default();
    if let Some(path) = &args.key {
        let text =
            std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        return SigningKey::from_pem(&text, args.alg, &allowed)
            .map_err(|error| format!("{}: {}", path.display(), spell_causes(&error)));
    }
    if let Some(wanted) = args.alg.filter(|wanted| !is_hmac(wanted)) {
        return Err(format!("{wanted:?} needs a private key: give it with --key"));
    }
    match (&args.secret, authenticator) {
        (Some(secret), _) => {
            let first = allowed.into_iter().find(is_hmac).unwrap_or(Algorithm::HS256);
            Ok(SigningKey::secret(secret, args.alg.unwrap_or(first)))
        }
        (None, Some(authenticator)) => {
            SigningKey::of(authenticator, args.alg).map_err(|error| spell_causes(&error))
        }
        (None, None) => Err("there is nothing to sign with: give --config, --secret or --key".into()),
    }
}

fn own_claims(args: &TokenArgs) -> Result<Map<String, Value>, String> {
    let mut claims = Map::new();
    if let Some(subject) = &args.sub {
        claims.insert("sub".into(), subject.as_str().into());
    }
    for claim in &args.claims {
        let (name, value) = claim
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| format!("--claim {claim:?} is not of the form NAME=VALUE"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        claims.insert(name.into(), value);
    }
    Ok(claims)
}

fn life(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err("write a number and one of s, m, h, d: 90s, 15m, 1h, 30d".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "write a whole number before the unit: 1h".to_owned())?;
    let life = Duration::from_secs(number.saturating_mul(unit));
    if life > LONGEST_LIFE { Err("ten years are the most".into()) } else { Ok(life) }
}

fn algorithm_name(text: &str) -> Result<Algorithm, String> {
    text.parse().map_err(|_| {
        "there are HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA".into()
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use clap::Parser;
    use http::{HeaderValue, header};
    use serde_json::json;

    use super::*;
    use crate::config::{At, Jwt, JwtAlgorithm, JwtKey, Secret, Span, TokenSource};
    use crate::policy::authenticate::{Authenticator, TokenCache};

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        token: TokenArgs,
    }

    fn args(line: &str) -> TokenArgs {
        Line::try_parse_from(std::iter::once("token").chain(line.split_whitespace())).expect(line).token
    }

    fn vector(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
    }

    fn at<T>(value: T) -> At<T> {
        At { value, span: Span::default() }
    }

    fn authenticator(name: &str, algorithms: &[JwtAlgorithm], key: JwtKey) -> config::Authenticator {
        config::Authenticator {
            name: at(name.to_owned()),
            jwt: Jwt {
                issuer: Some("https://id.example.com/".into()),
                audience: vec!["shop-api".into(), "other".into()],
                algorithms: algorithms.to_vec(),
                leeway: Duration::ZERO,
                keys: vec![key],
                token_from: vec![TokenSource::Bearer],
                claim_headers: Vec::new(),
            },
        }
    }

    fn secret() -> JwtKey {
        JwtKey::Secret(at(Secret::new("a secret of more than thirty-two bytes, for tests")))
    }

    /// Only what `run` reads of a configuration.
    fn config(authenticators: Vec<config::Authenticator>) -> Config {
        Config {
            zone: None,
            workers: config::Workers::Auto,
            max_memory: None,
            listeners: Vec::new(),
            trusted_proxies: Vec::new(),
            admin: None,
            registry: None,
            services: Vec::new(),
            authenticators,
            certificate_authenticators: Vec::new(),
            rate_limits: Vec::new(),
            defaults: config::Defaults {
                rate_limits: Vec::new(),
                request_id_header: http::HeaderName::from_static("x-request-id"),
                response_headers: config::HeaderEdit::default(),
                max_body: None,
                maintenance: None,
                ip_filter: None,
                security_headers: None,
            },
            routes: Vec::new(),
            access_log: config::AccessLog { output: config::LogOutput::Off },
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    /// The token and the notes.
    fn ran(args: &TokenArgs, config: Option<&Config>) -> Result<(String, String), String> {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        run(args, config, now(), &mut out, &mut notes)?;
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ok((text(out), text(notes)))
    }

    async fn accepted(authenticator: &config::Authenticator, token: &str) -> Map<String, Value> {
        let mut problems = config::Problems::default();
        let authenticator = Authenticator::compile(authenticator, None, &mut problems).expect("compiles");
        let value = HeaderValue::try_from(format!("Bearer {token}")).expect("ASCII");
        let headers = crate::http::fields::Fields::from_iter([(header::AUTHORIZATION, value)]);
        let identity =
            authenticator.authenticate(&headers, &TokenCache::new(), now()).await.expect("accepted");
        identity.claims.clone()
    }

    #[tokio::test]
    async fn the_token_is_one_that_the_authenticator_accepts() {
        let shop = authenticator("shop", &[JwtAlgorithm::RS256, JwtAlgorithm::HS384], secret());
        let config = config(vec![shop.clone()]);
        let args = args(
            r#"--sub u1 --claim role=admin --claim n=7 --claim list=["a","b"] --claim text=a=b --expires-in 15m"#,
        );
        let (out, notes) = ran(&args, Some(&config)).expect("signed");
        let token = out.strip_suffix('\n').expect("a line");
        assert!(!token.contains(char::is_whitespace), "the token alone");
        assert_eq!(notes, "signed with HS384 for authenticator \"shop\", good for 900 s\n");
        let expected = json!({
            "iss": "https://id.example.com/", "aud": ["shop-api", "other"], "sub": "u1",
            "iat": 1_700_000_000, "exp": 1_700_000_900, "role": "admin", "n": 7, "list": ["a", "b"], "text": "a=b",
        });
        assert_eq!(Value::Object(accepted(&shop, token).await), expected);
        let claims = Map::from_iter([("sub".to_owned(), json!("demo"))]);
        let token = sign(&shop, claims, now(), Duration::from_secs(60)).expect("signed");
        assert_eq!(accepted(&shop, &token).await["sub"], "demo");
    }

    #[tokio::test]
    async fn every_kind_of_private_key_signs() {
        use JwtAlgorithm::*;
        for (private, public, allowed, options, used) in [
            ("rsa.key", "rsa.pub", vec![PS512, RS256], "", "PS512"),
            ("rsa.key", "rsa.pub", vec![PS512, RS256], "--alg RS256", "RS256"),
            ("rsa-pkcs1.key", "rsa.pub", vec![RS512], "", "RS512"),
            ("p256.key", "p256.pub", vec![ES256], "--kid k1", "ES256"),
            ("p256-sec1.key", "p256.pub", vec![ES256], "", "ES256"),
            ("p384.key", "p384.pub", vec![ES384], "", "ES384"),
            ("ed25519.key", "ed25519.pub", vec![EdDSA], "", "EdDSA"),
        ] {
            let shop = authenticator("shop", &allowed, JwtKey::PublicKey(at(vector(public))));
            let args = args(&format!("--key {} {options}", vector(private).display()));
            let (out, notes) = ran(&args, Some(&config(vec![shop.clone()]))).expect(private);
            assert!(notes.contains(used) && !notes.contains("warning"), "{private}: {notes}");
            accepted(&shop, out.trim_end()).await;
            let header =
                out.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).expect("base64url");
            let header: Value = serde_json::from_slice(&header).expect("JSON");
            assert_eq!(header["alg"], used);
            assert_eq!(header.get("kid").is_some(), options.contains("kid"));
        }
    }

    #[test]
    fn without_a_configuration_a_secret_or_a_key_is_enough() {
        let given = args("--secret hush --alg HS512 --claim exp=1");
        assert_eq!(given.config_path(), None);
        let (out, notes) = ran(&given, None).expect("signed");
        assert_eq!(out.split('.').count(), 3);
        assert!(notes.starts_with("signed with HS512, good"), "{notes}");
        assert_eq!(args("").config_path(), Some(Path::new("gateway.yaml")));
        assert_eq!(args("-c a.yaml --secret x").config_path(), Some(Path::new("a.yaml")));
    }

    #[test]
    fn what_cannot_be_signed_is_explained() {
        let public = JwtKey::PublicKey(at(vector("rsa.pub")));
        let rsa = authenticator("rsa", &[JwtAlgorithm::RS256], public);
        let shop = authenticator("shop", &[JwtAlgorithm::HS256], secret());
        let both = config(vec![rsa.clone(), shop]);
        let only = config(vec![rsa]);
        let key = |name: &str| format!("--key {}", vector(name).display());
        for (line, config, expected) in [
            ("".to_owned(), Some(&both), "one of rsa, shop"),
            ("--authenticator x".into(), Some(&both), "no authenticator \"x\""),
            ("".into(), Some(&only), "with --key"),
            ("".into(), Some(&config(Vec::new())), "no authenticator"),
            ("".into(), None, "nothing to sign with"),
            ("--alg RS256 --secret x".into(), None, "needs a private key"),
            (key("rsa.pub"), None, "no private key"),
            (key("no-such.key"), None, "cannot be read"),
            (format!("{} --alg ES256", key("rsa.key")), None, "RSA key cannot sign with ES256"),
            ("--secret x --claim noequals".into(), None, "NAME=VALUE"),
            ("--secret x --claim =v".into(), None, "NAME=VALUE"),
        ] {
            let error = ran(&args(&line), config).expect_err(&line);
            assert!(error.contains(expected), "{line}: {error}");
        }
        let (_, notes) = ran(&args("--authenticator rsa --secret x"), Some(&both)).expect("signed anyway");
        assert!(notes.contains("warning: the authenticator does not allow HS256"), "{notes}");
    }

    #[test]
    fn times_have_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h", 3600), ("30d", 2_592_000), ("0s", 0)] {
            assert_eq!(life(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "1", "1.5h", "-1h", "1 h", "1w", "99999999999999999999s", "11000d"] {
            assert!(life(text).is_err(), "{text}");
        }
    }
}
