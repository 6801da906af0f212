//! What an instance is told of the time that it has, where its service wants to know: whoever knows that nobody waits any longer
//! can stop.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::Head;
use crate::http::fields;

/// The field in which gRPC tells it, in a form of its own.
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// A number of gRPC has so many digits at most.
const MOST_OF_GRPC: u128 = 99_999_999;

/// The same head, with `left` in the field of this name: in whole milliseconds, and never in less than one, since then it would not
/// be asked. Nobody else's word stands there, but for a client that speaks gRPC and has less time.
pub fn told(head: &Head, name: &HeaderName, left: Duration) -> Head {
    let mut head = head.clone();
    let milliseconds = left.as_millis().max(1);
    let value = if *name == GRPC_TIMEOUT {
        let of_client =
            head.headers.only(name).and_then(grpc).map_or(u128::MAX, |own| own.as_millis().max(1));
        match milliseconds.min(of_client) {
            short @ ..=MOST_OF_GRPC => format!("{short}m"),
            long => format!("{}S", (long / 1000).min(MOST_OF_GRPC)),
        }
    } else {
        milliseconds.to_string()
    };
    let value = HeaderValue::from_str(&value).expect("digits and a letter are visible ASCII");
    head.headers.insert(name.clone(), value);
    head
}

/// `100m`: up to eight digits and a unit.
fn grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number: u64 = fields::text(digits).filter(|_| is_number)?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;
    use crate::http::field_lines::FieldLines;
    use crate::http::fields::Fields;

    fn written(name: &'static str, of_client: &[&'static str], left: Duration) -> Vec<String> {
        let name = HeaderName::from_static(name);
        let mut headers = Fields::new();
        for value in of_client {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        let target = PathAndQuery::from_static("/");
        let lines = FieldLines::default();
        let head = Head { method: Method::GET, target, host: None, headers, lines, informational: None };
        let told = told(&head, &name, left);
        told.headers.get_all(&name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    #[test]
    fn the_time_is_told_once_in_the_form_of_the_field() {
        let ms = Duration::from_millis;
        for (name, of_client, left, value) in [
            ("x-timeout-ms", &[][..], Duration::from_micros(1_234_567), "1234"),
            ("x-timeout-ms", &["1", "2"], ms(500), "500"),
            ("x-timeout-ms", &[], Duration::from_micros(3), "1"),
            ("grpc-timeout", &[], ms(500), "500m"),
            ("grpc-timeout", &["100m"], ms(500), "100m"),
            ("grpc-timeout", &["1S"], ms(500), "500m"),
            ("grpc-timeout", &["1n"], ms(500), "1m"),
            ("grpc-timeout", &["99999999H"], ms(500), "500m"),
            // What is none counts for nothing.
            ("grpc-timeout", &["100m", "100m"], ms(500), "500m"),
            ("grpc-timeout", &["123456789m"], ms(500), "500m"),
            ("grpc-timeout", &["-1m"], ms(500), "500m"),
            ("grpc-timeout", &["m"], ms(500), "500m"),
            ("grpc-timeout", &[""], ms(500), "500m"),
            ("grpc-timeout", &["5x"], ms(500), "500m"),
            ("grpc-timeout", &[], Duration::from_secs(200_000), "200000S"),
        ] {
            assert_eq!(written(name, of_client, left), [value], "{name} {of_client:?} {left:?}");
        }
    }
}
