//! Cookies of a request (RFC 6265 §4.2.1), over several fields as HTTP/2 may split them (RFC 9113 §8.2.3).

use http::{HeaderName, header};

use super::fields::Fields;

static COOKIE: HeaderName = header::COOKIE;

/// The values of all cookies of that name, in their order. Names are case-sensitive; a value may stand in double quotes.
pub fn values<'h>(fields: &'h Fields, name: &'h [u8]) -> impl Iterator<Item = &'h [u8]> {
    fields.get_all(&COOKIE).flat_map(|field| field.split(|byte| *byte == b';')).filter_map(move |pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        (pair[..equals].trim_ascii() == name).then(|| unquoted(pair[equals + 1..].trim_ascii()))
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn all_values_of_a_name_are_found_in_their_order() {
        let mut fields = Fields::new();
        for value in ["a=1; b=2;a=\"3\"", "; =x; a; a= 4 ; A=5; ba=6"] {
            fields.append(header::COOKIE, HeaderValue::from_static(value));
        }
        let of = |name: &str| -> Vec<String> {
            values(&fields, name.as_bytes())
                .map(|value| String::from_utf8_lossy(value).into_owned())
                .collect()
        };
        assert_eq!(of("a"), ["1", "3", "4"]);
        assert_eq!(of("b"), ["2"]);
        assert!(of("c").is_empty());
    }
}
