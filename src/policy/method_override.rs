//! A POST that asks in a field to be taken for another method.
//!
//! Such a request is matched, checked and sent on as one of that method, or not at all: what decides is the route
//! that takes the method that is asked for, and it must allow that.

use http::{HeaderName, Method};

use crate::config;
use crate::http::fields::Fields;

#[derive(Debug)]
pub struct MethodOverride {
    header: HeaderName,
    allow: Box<[Method]>,
}

impl MethodOverride {
    pub fn compile(config: &config::MethodOverride) -> MethodOverride {
        MethodOverride { header: config.header.clone(), allow: config.allow.as_slice().into() }
    }

    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// Whether a request may ask in this field for this method.
    pub fn allows(&self, header: &HeaderName, method: &Method) -> bool {
        self.header == *header && self.allow.contains(method)
    }

    /// Whether the request has the field, whatever it asks for.
    pub fn is_asked_for(&self, headers: &Fields) -> bool {
        headers.contains(&self.header)
    }
}

/// The method that the request asks for in this field. Services that know it take it in any case; here only capitals
/// are a method (RFC 9110 §9.1), so that is what is made of it.
pub fn asked(headers: &Fields, header: &HeaderName) -> Option<Method> {
    let value = headers.at_most_one(header)??;
    let value = value.trim_ascii();
    // Longer than any that somebody means.
    if value.len() > 32 {
        return None;
    }
    Method::from_bytes(&value.to_ascii_uppercase()).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    const HEADER: HeaderName = HeaderName::from_static("x-http-method-override");

    fn asked_with(values: &[&'static str]) -> Option<Method> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_static(value));
        }
        asked(&headers.into(), &HEADER)
    }

    #[test]
    fn one_method_in_any_case() {
        assert_eq!(asked_with(&["DELETE"]), Some(Method::DELETE));
        assert_eq!(asked_with(&[" patch "]), Some(Method::PATCH));
        for wrong in [&[][..], &[""], &["DELETE", "DELETE"], &["DELETE, PUT"], &["DELETE /"]] {
            assert_eq!(asked_with(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_what_is_listed_is_allowed_and_only_in_its_field() {
        let config = config::MethodOverride { header: HEADER, allow: vec![Method::PUT] };
        let compiled = MethodOverride::compile(&config);
        assert!(compiled.allows(&HEADER, &Method::PUT) && !compiled.allows(&HEADER, &Method::DELETE));
        assert!(!compiled.allows(&HeaderName::from_static("x-method"), &Method::PUT));
    }
}
