//! Who a client is by the certificate that it showed in the handshake, where the chain and the key were checked.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::config;
use crate::identity::{ClientNames, Identity, Refusal};
use crate::reason::Reason;

/// An authenticator that goes by names in certificates, compiled.
#[derive(Debug)]
pub struct CertificateRule {
    name: Arc<str>,
    subjects: Box<[Pattern]>,
    header: Option<HeaderName>,
}

/// Text of which one star stands for some more.
#[derive(Debug, PartialEq)]
enum Pattern {
    Exact(Box<str>),
    Around(Box<str>, Box<str>),
}

/// The last second of the year 9999: the connection, and what was shown there, outlives every request on it.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

impl CertificateRule {
    pub fn compile(config: &config::CertificateAuthenticator) -> CertificateRule {
        CertificateRule {
            name: config.name.as_str().into(),
            subjects: config.subjects.iter().map(|subject| Pattern::of(subject)).collect(),
            header: config.header.clone(),
        }
    }

    /// The first name that the rule is for.
    pub fn accept(&self, names: &ClientNames) -> Option<Arc<Identity>> {
        let name = names.iter().find(|name| self.subjects.iter().any(|subject| subject.is(name)))?;
        let field = |header: &HeaderName| Some((header.clone(), HeaderValue::from_str(name).ok()?));
        let claims = Map::from_iter([("sub".to_owned(), Value::from(name))]);
        Some(Arc::new(Identity {
            authenticator: self.name.clone(),
            subject: Some(name.to_owned()),
            claims,
            headers: self.header.as_ref().and_then(field).into_iter().collect(),
            expires_at: UNIX_EPOCH + END_OF_TIME,
        }))
    }
}

/// Why none of the rules accepts the client.
pub fn refusal(names: Option<&ClientNames>) -> Refusal {
    let (reason, detail) = match names {
        None => (Reason::CertificateMissing, "the client showed no certificate"),
        Some(_) => {
            (Reason::CertificateDenied, "the names in the client's certificate are not among those allowed")
        }
    };
    Refusal { reason, detail: detail.into(), challenge: None }
}

impl Pattern {
    /// Hosts are the same in any case, and are in lower case in [`ClientNames`].
    fn of(subject: &str) -> Pattern {
        let subject = if subject.contains("://") { subject.to_owned() } else { subject.to_ascii_lowercase() };
        match subject.split_once('*') {
            Some((before, behind)) => Pattern::Around(before.into(), behind.into()),
            None => Pattern::Exact(subject.into()),
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Pattern::Exact(subject) => **subject == *name,
            Pattern::Around(before, behind) => {
                name.len() > before.len() + behind.len()
                    && name.starts_with(&**before)
                    && name.ends_with(&**behind)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_some_text() {
        let is = |subject: &str, name: &str| Pattern::of(subject).is(name);
        assert!(is("spiffe://shop/*", "spiffe://shop/orders") && is("spiffe://shop/*", "spiffe://shop/a/b"));
        assert!(is("spiffe://*/orders", "spiffe://shop/orders") && is("*.Example.com", "a.example.com"));
        assert!(is("orders.internal", "orders.internal"));
        for (subject, name) in [
            ("spiffe://shop/*", "spiffe://shop/"),
            ("spiffe://shop/*", "spiffe://shopping/orders"),
            ("spiffe://shop/*", "x-spiffe://shop/orders"),
            ("spiffe://Shop/*", "spiffe://shop/orders"),
            ("orders.internal", "orders.internal.example"),
            ("*.example.com", "example.com"),
            ("ab*ba", "aba"),
        ] {
            assert!(!is(subject, name), "{subject} {name}");
        }
    }

    #[test]
    fn the_name_is_the_subject() {
        let config = config::CertificateAuthenticator {
            name: config::At { value: "mesh".into(), span: config::Span::default() },
            subjects: vec!["spiffe://shop/*".into()],
            header: Some(HeaderName::from_static("x-client")),
        };
        let rule = CertificateRule::compile(&config);
        let names = ClientNames::new(["a.example".to_owned(), "spiffe://shop/orders".to_owned()]);
        let identity = rule.accept(&names).expect("it is one of the shop's");
        assert_eq!(identity.subject.as_deref(), Some("spiffe://shop/orders"));
        assert_eq!(identity.claim("sub"), Some(&"spiffe://shop/orders".into()));
        assert_eq!(identity.headers[0].1, "spiffe://shop/orders");
        assert!(rule.accept(&ClientNames::new(["a.example".to_owned()])).is_none());
    }
}
