//! Fields that ask a service to take a request for one with another method.
//!
//! Many frameworks do so unasked. Routes, authentication and limits have decided on the method of the request line, so
//! that none of these fields is passed on: a POST that was allowed would be a DELETE that nobody has looked at.

use http::HeaderName;

/// As Rails, Symfony, Express, ASP.NET and the APIs of Google and IBM know them.
pub static NAMES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// `name` is in lower case.
pub fn overrides_method(name: &[u8]) -> bool {
    // Few fields have one of these lengths, and this runs for every field of every request.
    matches!(name.len(), 13 | 17 | 22) && NAMES.iter().any(|known| known.as_str().as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_known() {
        for name in &NAMES {
            assert!(overrides_method(name.as_str().as_bytes()), "{name}");
        }
        for other in ["x-http-methods", "x-http-metho", "x-forwarded-method", "method"] {
            assert!(!overrides_method(other.as_bytes()), "{other}");
        }
    }
}
