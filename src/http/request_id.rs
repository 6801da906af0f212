//! The identifier of a request: the client's own when it is a harmless one, else a new one.
//!
//! Invariant: an id is 1 to 128 characters of `A-Z a-z 0-9 - . _ ~ : / + = @`, so it can stand in a
//! header, a log line, JSON and a URL's path without being escaped.

use std::fmt;

use http::HeaderName;

use super::field_lines::Sink;
use super::fields::Fields;
use super::{hex, random};
use crate::clock;

const MAX_LENGTH: usize = 128;
const UUID_LENGTH: usize = 36;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Text);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Text {
    Given(Box<[u8]>),
    Made([u8; UUID_LENGTH]),
}

impl RequestId {
    /// The id that the request brings in the field `name`, or a new one when there is none, more than
    /// one, or one with other characters.
    pub fn of(headers: &Fields, name: &HeaderName) -> RequestId {
        match headers.only(name) {
            Some(value) if is_harmless(value) => RequestId(Text::Given(value.into())),
            _ => RequestId::fresh(),
        }
    }

    /// A UUID of version 7 (RFC 9562 §5.7): later ones sort behind earlier ones.
    pub fn fresh() -> RequestId {
        // A clock before 1970 gives ids that are still unique, only not in order.
        let since_epoch = clock::recent_since_epoch();
        let millis = since_epoch.as_secs() * 1000 + u64::from(since_epoch.subsec_millis());
        RequestId(Text::Made(uuid_v7(millis, random::bits_128())))
    }

    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Given(text) => text,
            Text::Made(text) => text,
        }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("every constructor lets only visible ASCII in")
    }

    /// Writes it into the request that is forwarded.
    pub fn write(&self, name: &HeaderName, to: &mut Sink<'_>) {
        to.set_text(name, self.as_bytes());
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_harmless(id: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/+=@".contains(byte);
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(allowed)
}

/// 48 bits of milliseconds, the version, 12 random bits, the variant, 62 random bits.
fn uuid_v7(unix_ms: u64, random: u128) -> [u8; UUID_LENGTH] {
    const VERSION: u128 = 7 << 76;
    const VARIANT: u128 = 0b10 << 62;
    const RANDOM_BITS: u128 = !(u128::MAX << 76) & !(0b11 << 62);
    let bits = (u128::from(unix_ms) << 80) | VERSION | VARIANT | (random & RANDOM_BITS);

    let bytes = bits.to_be_bytes();
    let mut text = [b'-'; UUID_LENGTH];
    hex::write(&mut text[..8], &bytes[..4]);
    hex::write(&mut text[9..13], &bytes[4..6]);
    hex::write(&mut text[14..18], &bytes[6..8]);
    hex::write(&mut text[19..23], &bytes[8..10]);
    hex::write(&mut text[24..], &bytes[10..]);
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NAME: HeaderName = HeaderName::from_static("x-request-id");

    fn of(values: &[&str]) -> RequestId {
        let mut headers = Fields::new();
        for value in values {
            headers.append(NAME, HeaderValue::from_str(value).unwrap());
        }
        RequestId::of(&headers, &NAME)
    }

    #[test]
    fn harmless_ids_of_clients_are_kept() {
        let longest = "a".repeat(MAX_LENGTH);
        for id in ["1", "req-42", "01JD.9_~:/+=@", "4bf92f3577b34da6", &longest] {
            assert_eq!(of(&[id]).as_str(), id);
        }
    }

    #[test]
    fn anything_else_is_replaced() {
        let too_long = "a".repeat(MAX_LENGTH + 1);
        for id in ["", " ", "a b", "a\"b", "<script>", "${jndi:x}", "a,b", "a\tb", &too_long] {
            let made = of(&[id]);
            assert_ne!(made.as_str(), id);
            assert_eq!(made.as_str().len(), UUID_LENGTH);
        }
        assert_eq!(of(&["one", "two"]).as_str().len(), UUID_LENGTH);
        assert_eq!(of(&[]).as_str().len(), UUID_LENGTH);
    }

    #[test]
    fn a_uuid_has_its_version_variant_and_time() {
        // The example of RFC 9562, appendix A.6.
        let text = uuid_v7(0x017F22E279B0, (0xCC3 << 64) | 0x18C4DC0C0C07398F);
        assert_eq!(std::str::from_utf8(&text).unwrap(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    }

    #[test]
    fn fresh_ids_differ_and_later_milliseconds_sort_behind() {
        let ids: std::collections::HashSet<String> =
            (0..10_000).map(|_| RequestId::fresh().to_string()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(uuid_v7(1_000, u128::MAX) < uuid_v7(1_001, 0));
    }
}
