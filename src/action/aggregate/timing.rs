//! How long the parts took: for the log, and for a client that may ask.

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use subtle::ConstantTimeEq;

use super::Part;
use super::board::Board;
use crate::http::fields::Fields;

pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The field by which a client asks for the times of the parts, and what has to be in it.
pub struct ServerTiming {
    pub name: HeaderName,
    pub value: Box<[u8]>,
}

impl ServerTiming {
    /// Whether the client asks and may know. The field goes no further.
    pub fn is_asked(&self, headers: &mut Fields) -> bool {
        let is_asked = headers.only(&self.name).is_some_and(|value| value.ct_eq(&self.value).into());
        headers.remove(&self.name);
        is_asked
    }
}

/// `{"user":12.345}`
pub fn object(parts: &[Part], board: &Board) -> Box<str> {
    let mut text = String::new();
    for (part, took) in asked(parts, board) {
        text.push(if text.is_empty() { '{' } else { ',' });
        let _ = write!(text, "{}:{}", serde_json::Value::from(&*part.name), milliseconds(took));
    }
    text.push_str(if text.is_empty() { "{}" } else { "}" });
    text.into()
}

/// `user;dur=12.345, total;dur=13.001` (Server Timing §3). A name that is no token is told as a description, in ASCII.
pub fn field(parts: &[Part], board: &Board, total: Duration) -> Option<HeaderValue> {
    let mut text = String::new();
    for (place, (part, took)) in asked(parts, board).enumerate() {
        let is_token = part.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if is_token {
            text.push_str(&part.name);
        } else {
            let plain =
                |c: char| if c.is_ascii() && !c.is_control() && c != '"' && c != '\\' { c } else { '?' };
            let name: String = part.name.chars().map(plain).collect();
            let _ = write!(text, "part-{place};desc=\"{name}\"");
        }
        let _ = write!(text, ";dur={}, ", milliseconds(took));
    }
    let _ = write!(text, "total;dur={}", milliseconds(total));
    HeaderValue::from_str(&text).ok()
}

fn asked<'a>(parts: &'a [Part], board: &'a Board) -> impl Iterator<Item = (&'a Part, Duration)> {
    let calls = parts.iter().enumerate().filter(|(_, part)| part.call().is_some());
    calls.filter_map(|(place, part)| board.outcome(place).map(|outcome| (part, outcome.took)))
}

fn milliseconds(took: Duration) -> String {
    format!("{}.{:03}", took.as_millis(), took.as_micros() % 1000)
}
