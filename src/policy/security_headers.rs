//! Fields that tell browsers to be careful with a response.

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderName, HeaderValue};

use crate::config;
use crate::http::fields::Fields;
use crate::http::interned;

#[derive(Debug)]
pub struct SecurityHeaders {
    fields: Box<[(HeaderName, HeaderValue)]>,
    hsts: Option<HeaderValue>,
    replace: bool,
}

impl SecurityHeaders {
    /// `None` where there is nothing to say.
    pub fn compile(config: &config::SecurityHeaders) -> Option<SecurityHeaders> {
        if config.fields.is_empty() && config.hsts.is_none() {
            return None;
        }
        let fields = config.fields.iter().map(|(name, value)| (name.clone(), interned::value(value)));
        Some(SecurityHeaders {
            fields: fields.collect(),
            hsts: config.hsts.as_ref().map(interned::value),
            replace: config.replace,
        })
    }

    /// What the service says itself stays, unless it is to be replaced.
    pub fn apply(&self, response: &mut Fields, over_tls: bool) {
        for (name, value) in &self.fields {
            self.say(name, value, response);
        }
        // Over plain HTTP it must not be sent (RFC 6797 §7.2).
        if let Some(hsts) = self.hsts.as_ref().filter(|_| over_tls) {
            self.say(&STRICT_TRANSPORT_SECURITY, hsts, response);
        }
    }

    fn say(&self, name: &HeaderName, value: &HeaderValue, response: &mut Fields) {
        if self.replace || !response.contains(name) {
            response.insert(name.clone(), value.clone());
        }
    }
}
