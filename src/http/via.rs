//! `Via` on what is sent to instances (RFC 9110 §7.6.3).
//!
//! A gateway must write it on requests and may on responses. It is left out there: it would tell
//! every client what stands in front, and cost its bytes in every response.

use http::Version;
use http::header::{HeaderValue, VIA};

use super::field_lines::Sink;

/// Appends this gateway after those that the request came through. `received` is the version in
/// which the client sent the request.
pub fn append(to: &mut Sink<'_>, received: Version) {
    static HTTP_10: HeaderValue = HeaderValue::from_static("1.0 gatehouse");
    static HTTP_11: HeaderValue = HeaderValue::from_static("1.1 gatehouse");
    static HTTP_2: HeaderValue = HeaderValue::from_static("2.0 gatehouse");
    to.append(
        &VIA,
        match received {
            Version::HTTP_2 => &HTTP_2,
            Version::HTTP_10 => &HTTP_10,
            _ => &HTTP_11,
        },
    );
}

#[cfg(test)]
mod tests {
    use crate::http::fields::Fields;

    use super::*;

    #[test]
    fn it_is_appended_after_the_client_s_own() {
        let mut headers = Fields::new();
        headers.append(VIA, HeaderValue::from_static("1.1 edge"));
        append(&mut Sink::Fields(&mut headers), Version::HTTP_2);
        append(&mut Sink::Fields(&mut headers), Version::HTTP_11);
        let all: Vec<_> = headers.get_all(&VIA).collect();
        assert_eq!(all, [b"1.1 edge" as &[u8], b"2.0 gatehouse", b"1.1 gatehouse"]);
    }
}
