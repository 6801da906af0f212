//! Where in a request a token is: `Authorization: Bearer`, or a cookie.
//!
//! What is there twice is refused rather than chosen from: the service behind may choose the other.

use http::header;

use super::token::Fault;
use crate::config;
use crate::http::cookie;
use crate::http::fields::Fields;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    Bearer,
    Cookie(Box<str>),
}

impl From<&config::TokenSource> for TokenSource {
    fn from(written: &config::TokenSource) -> Self {
        match written {
            config::TokenSource::Bearer => TokenSource::Bearer,
            config::TokenSource::Cookie(name) => TokenSource::Cookie(name.as_str().into()),
        }
    }
}

/// The token of the first source that the request has one for. `Ok(None)`: it has none.
pub fn find<'h>(sources: &'h [TokenSource], headers: &'h Fields) -> Result<Option<&'h [u8]>, Fault> {
    for source in sources {
        let found = match source {
            TokenSource::Bearer => bearer(headers)?,
            TokenSource::Cookie(name) => cookie(headers, name.as_bytes())?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// RFC 6750 §2.1. Another scheme than Bearer, in any case (RFC 9110 §11.1), is no token.
fn bearer(headers: &Fields) -> Result<Option<&[u8]>, Fault> {
    let mut fields = headers.get_all(&header::AUTHORIZATION);
    let Some(value) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Fault::malformed("the request has more than one Authorization field"));
    }
    let scheme = value.split(|byte| *byte == b' ').next().unwrap_or(value);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    let token = value[scheme.len()..].trim_ascii();
    if token.is_empty() {
        return Err(Fault::malformed("the Authorization field has no token"));
    }
    Ok(Some(token))
}

fn cookie<'h>(headers: &'h Fields, name: &'h [u8]) -> Result<Option<&'h [u8]>, Fault> {
    let mut values = cookie::values(headers, name);
    let value = values.next();
    if values.next().is_some() {
        return Err(Fault::malformed("the request has the token's cookie more than once"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::reason::Reason;

    fn look(sources: &[TokenSource], fields: &[(&str, &str)]) -> Result<Option<String>, Reason> {
        let mut headers = Fields::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).expect("a test's own name");
            headers.append(name, HeaderValue::try_from(*value).expect("a test's own value"));
        }
        find(sources, &headers)
            .map(|found| found.map(|token| String::from_utf8_lossy(token).into_owned()))
            .map_err(|fault| fault.reason)
    }

    #[test]
    fn bearer_is_found_whatever_its_case() {
        let look = |value: &str| look(&[TokenSource::Bearer], &[("authorization", value)]);
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c", "Bearer a.b.c "] {
            assert_eq!(look(value), Ok(Some("a.b.c".into())), "{value:?}");
        }
        for value in ["Basic dTpw", "Bearera.b.c", "a.b.c", "Token a.b.c", ""] {
            assert_eq!(look(value), Ok(None), "{value:?}");
        }
        for value in ["Bearer", "Bearer ", "bearer   "] {
            assert_eq!(look(value), Err(Reason::TokenMalformed), "{value:?}");
        }
        assert_eq!(look("Bearer a b"), Ok(Some("a b".into())), "refused when it is taken apart");
    }

    #[test]
    fn two_authorization_fields_are_refused() {
        let fields = [("authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")];
        assert_eq!(look(&[TokenSource::Bearer], &fields), Err(Reason::TokenMalformed));
        let fields = [("authorization", "Basic x"), ("authorization", "Bearer a.b.c")];
        assert_eq!(look(&[TokenSource::Bearer], &fields), Err(Reason::TokenMalformed));
    }

    #[test]
    fn cookies_are_parsed_and_counted() {
        let sources = [TokenSource::Cookie("token".into())];
        let look = |fields: &[(&str, &str)]| look(&sources, fields);
        for value in [
            "token=a.b.c",
            "x=1; token=a.b.c; y=2",
            "x=1;token=\"a.b.c\"",
            "; ;token= a.b.c ;",
            "z;token=a.b.c",
        ] {
            assert_eq!(look(&[("cookie", value)]), Ok(Some("a.b.c".into())), "{value:?}");
        }
        assert_eq!(look(&[("cookie", "x=1"), ("cookie", "token=t")]), Ok(Some("t".into())));
        for value in ["Token=t", "xtoken=t", "tokenx=t", "x=token=t", "token"] {
            assert_eq!(look(&[("cookie", value)]), Ok(None), "{value:?}");
        }
        assert_eq!(look(&[("cookie", "token=")]), Ok(Some(String::new())), "present, and refused later");
        assert_eq!(look(&[("cookie", "token=a; token=b")]), Err(Reason::TokenMalformed));
        assert_eq!(look(&[("cookie", "token=a"), ("cookie", "token=a")]), Err(Reason::TokenMalformed));
    }

    #[test]
    fn the_first_source_that_is_present_counts() {
        let sources = [TokenSource::Cookie("t".into()), TokenSource::Bearer];
        let both = [("authorization", "Bearer b"), ("cookie", "t=c")];
        assert_eq!(look(&sources, &both), Ok(Some("c".into())));
        assert_eq!(look(&sources, &both[..1]), Ok(Some("b".into())));
        assert_eq!(look(&sources[..1], &both[..1]), Ok(None));
        let broken = [("authorization", "Bearer"), ("cookie", "t=c")];
        assert_eq!(look(&sources, &broken), Ok(Some("c".into())), "a later source is not looked at");
    }
}
