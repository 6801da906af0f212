//! `Via` on what is sent to instances (RFC 9110 §7.6.3).
//!
//! A gateway must write it on requests and may on responses. It is left out there: it would tell
//! every client what stands in front, and cost its bytes in every response.

use http::Version;
use http::header::{HeaderMap, HeaderValue, VIA};

/// Appends this gateway after those that the request came through. `received` is the version in
/// which the client sent the request.
pub fn append(headers: &mut HeaderMap, received: Version) {
    let value = match received {
        Version::HTTP_2 => "2.0 gatehouse",
        Version::HTTP_10 => "1.0 gatehouse",
        Version::HTTP_3 => "3.0 gatehouse",
        _ => "1.1 gatehouse",
    };
    headers.append(VIA, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_appended_after_the_client_s_own() {
        let mut headers = HeaderMap::new();
        headers.append(VIA, HeaderValue::from_static("1.1 edge"));
        append(&mut headers, Version::HTTP_2);
        append(&mut headers, Version::HTTP_11);
        let all: Vec<_> = headers.get_all(VIA).iter().collect();
        assert_eq!(all, ["1.1 edge", "2.0 gatehouse", "1.1 gatehouse"]);
    }
}
