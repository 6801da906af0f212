//! Numbers and what carries a unit: durations, sizes, percentages, rates, statuses.

use std::time::Duration;

use ::http::StatusCode;
use serde_json::Value as Json;

use super::{number_or_text_schema, text_schema};
use crate::config::block::Value;
use crate::config::model::{FailureKind, Rate, StatusRange};
use crate::config::reader::{Form, Reader, has_variables, shown};
use crate::config::yaml::Node;

/// An integer of `MIN` to `MAX`.
#[derive(Clone, Copy)]
pub(in crate::config) struct Number<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Value for Number<MIN, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "a whole number", remedy: "write digits only" };
        let number = reader.parse(node, &form, |text| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if digits { Ok(text.parse().unwrap_or(u64::MAX)) } else { Err(None) }
        })?;
        if !(MIN..=MAX).contains(&number) {
            let message = format!("{} is outside {MIN} to {MAX}", shown(node));
            reader.error(node.span, message, format!("write a number of {MIN} to {MAX}"));
            return None;
        }
        Some(Number(number))
    }

    fn schema() -> Json {
        let mut schema = number_or_text_schema("[0-9]+");
        schema["type"] = serde_json::json!(["integer", "string"]);
        schema["minimum"] = MIN.into();
        schema["maximum"] = MAX.into();
        schema
    }
}

macro_rules! number_into {
    ($($type:ty),*) => { $(
        impl<const MIN: u64, const MAX: u64> From<Number<MIN, MAX>> for $type {
            fn from(number: Number<MIN, MAX>) -> $type {
                const { assert!(MAX <= <$type>::MAX as u64) };
                number.0 as $type
            }
        }
    )* };
}
number_into!(u8, u16, u32, u64, usize);

const DURATION: Form =
    Form { name: "a duration", remedy: "write a whole number and a unit: 250ms, 5s, 2m or 1h" };

/// Longer than any wait that makes sense; a slip of the unit mostly.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Zero or longer.
impl Value for Duration {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let duration = reader.parse(node, &DURATION, duration)?;
        if duration > LONGEST {
            let message = format!("{} is longer than 720h", shown(node));
            reader.error(node.span, message, "write a shorter duration");
            return None;
        }
        Some(duration)
    }

    fn schema() -> Json {
        text_schema("[0-9]+(ms|s|m|h)")
    }
}

/// A duration longer than zero.
#[derive(Clone, Copy)]
pub(in crate::config) struct Wait(pub Duration);

impl Value for Wait {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let duration = Duration::read(node, reader)?;
        if duration.is_zero() {
            let message = format!("{} makes no sense here", shown(node));
            reader.error(
                node.span,
                message,
                "write a duration of 1ms or more, or remove the key for the default",
            );
            return None;
        }
        Some(Wait(duration))
    }

    fn schema() -> Json {
        text_schema("0*[1-9][0-9]*(ms|s|m|h)")
    }
}

impl From<Wait> for Duration {
    fn from(wait: Wait) -> Self {
        wait.0
    }
}

/// How long somebody else may remember something: whole seconds, up to ten years.
#[derive(Clone, Copy)]
pub(in crate::config) struct Age(Duration);

impl Value for Age {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const MOST: Duration = Duration::from_secs(87_600 * 3600);
        let age = reader.parse(node, &DURATION, duration)?;
        if age > MOST || age.subsec_millis() != 0 {
            let message = format!("{} is not in whole seconds, up to 87600h", shown(node));
            reader.error(node.span, message, "write 8760h for a year, or 0s for no time");
            return None;
        }
        Some(Age(age))
    }

    fn schema() -> Json {
        text_schema("[0-9]+(ms|s|m|h)")
    }
}

impl From<Age> for Duration {
    fn from(age: Age) -> Self {
        age.0
    }
}

/// A duration as the configuration writes it: `250ms`, `5s`, `2m`, `1h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    duration(text).ok()
}

fn duration(text: &str) -> Result<Duration, Option<String>> {
    let (number, unit) = number_and_unit(text);
    if number.is_empty() {
        return Err(None);
    }
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(Some(format!("a duration needs a unit: {number}s or {number}ms"))),
        "d" if number.len() < 4 => return Err(Some(format!("write it in hours: {}h", whole(number) * 24))),
        "sec" | "secs" | "seconds" | "S" => return Err(Some(format!("write {number}s"))),
        "min" | "mins" | "minutes" => return Err(Some(format!("write {number}m"))),
        "hour" | "hours" | "H" => return Err(Some(format!("write {number}h"))),
        "msec" | "millis" => return Err(Some(format!("write {number}ms"))),
        _ => return Err(None),
    };
    Ok(Duration::from_millis(whole(number).saturating_mul(milliseconds)))
}

/// Leading digits and the rest.
fn number_and_unit(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// A number that is too large counts as the largest, which every caller refuses.
fn whole(digits: &str) -> u64 {
    digits.parse().unwrap_or(u64::MAX)
}

/// Bytes, at most `MAX`.
#[derive(Clone, Copy)]
pub(in crate::config) struct Size<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Value for Size<MIN, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form =
            Form { name: "a size", remedy: "write a whole number and a unit: 512B, 64KiB, 1MiB or 2GiB" };
        let size = reader.parse(node, &form, size)?;
        if !(MIN..=MAX).contains(&size) {
            let message = format!("{} is outside {} to {}", shown(node), bytes(MIN), bytes(MAX));
            reader.error(node.span, message, format!("write a size of {} to {}", bytes(MIN), bytes(MAX)));
            return None;
        }
        Some(Size(size))
    }

    fn schema() -> Json {
        let mut schema = number_or_text_schema("[0-9]+(B|KiB|MiB|GiB)?");
        schema["type"] = serde_json::json!(["integer", "string"]);
        schema
    }
}

impl<const MIN: u64, const MAX: u64> From<Size<MIN, MAX>> for u64 {
    fn from(size: Size<MIN, MAX>) -> u64 {
        size.0
    }
}

impl<const MIN: u64, const MAX: u64> From<Size<MIN, MAX>> for usize {
    fn from(size: Size<MIN, MAX>) -> usize {
        usize::try_from(size.0).unwrap_or(usize::MAX)
    }
}

fn size(text: &str) -> Result<u64, Option<String>> {
    let (number, unit) = number_and_unit(text);
    if number.is_empty() {
        return Err(None);
    }
    let unit = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "K" | "k" | "KB" | "kB" | "kb" | "Ki" | "kib" => return Err(Some(format!("write {number}KiB"))),
        "M" | "m" | "MB" | "mb" | "Mi" | "mib" => return Err(Some(format!("write {number}MiB"))),
        "G" | "g" | "GB" | "gb" | "Gi" | "gib" => return Err(Some(format!("write {number}GiB"))),
        _ => return Err(None),
    };
    Ok(whole(number).saturating_mul(unit))
}

/// Bytes a second; 0 for `off`.
#[derive(Clone, Copy)]
pub(in crate::config) struct ByteRate(u64);

const MOST_BYTES_A_SECOND: u64 = 1 << 30;

impl Value for ByteRate {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "a number of bytes a second",
            remedy: "write a size per second, 100B/s or 1KiB/s, or off",
        };
        let rate = reader.parse(node, &form, |text| match text.split_once('/') {
            None if text == "off" || text == "false" => Ok(0),
            None if size(text).is_ok() => Err(Some(format!("write {text}/s"))),
            Some((bytes, "s")) => match size(bytes) {
                Ok(0) => Err(Some("write off".to_owned())),
                Ok(rate) => Ok(rate),
                Err(remedy) => Err(remedy.map(|remedy| remedy + "/s")),
            },
            _ => Err(None),
        })?;
        if rate > MOST_BYTES_A_SECOND {
            let message = format!("{} is faster than {}/s", shown(node), bytes(MOST_BYTES_A_SECOND));
            reader.error(node.span, message, "write a slower rate");
            return None;
        }
        Some(ByteRate(rate))
    }

    fn schema() -> Json {
        // To many a reader of YAML, off is false.
        serde_json::json!({ "anyOf": [text_schema("off|0*[1-9][0-9]*(B|KiB|MiB|GiB)?/s"), { "const": false }] })
    }
}

impl From<ByteRate> for u64 {
    fn from(rate: ByteRate) -> u64 {
        rate.0
    }
}

/// A size in the largest unit that leaves a whole number.
fn bytes(size: u64) -> String {
    match size {
        0 => "0B".to_owned(),
        s if s % (1 << 30) == 0 => format!("{}GiB", s >> 30),
        s if s % (1 << 20) == 0 => format!("{}MiB", s >> 20),
        s if s % (1 << 10) == 0 => format!("{}KiB", s >> 10),
        s => format!("{s}B"),
    }
}

/// Per cent, `MIN` to 100.
#[derive(Clone, Copy)]
pub(in crate::config) struct Percent<const MIN: u8>(pub u8);

impl<const MIN: u8> Value for Percent<MIN> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "a percentage", remedy: "write a whole number and a per cent sign: 20%" };
        let percent = reader.parse(node, &form, |text| match text.strip_suffix('%') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(whole(digits))
            }
            None if text.parse::<u8>().is_ok_and(|n| n > 1) => Err(Some(format!("write {text}%"))),
            _ => Err(None),
        })?;
        match u8::try_from(percent) {
            Ok(percent) if (MIN..=100).contains(&percent) => Some(Percent(percent)),
            _ => {
                let message = format!("{} is outside {MIN}% to 100%", shown(node));
                reader.error(node.span, message, format!("write a percentage of {MIN}% to 100%"));
                None
            }
        }
    }

    fn schema() -> Json {
        text_schema("[0-9]+%")
    }
}

impl<const MIN: u8> From<Percent<MIN>> for u8 {
    fn from(percent: Percent<MIN>) -> u8 {
        percent.0
    }
}

impl Value for Rate {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "a rate",
            remedy: "write a number of 1 or more per second, minute or hour: 100/s, 6000/m or 50/h",
        };
        reader.parse(node, &form, |text| {
            let (count, per) = text.split_once('/').ok_or(None)?;
            let seconds = match per {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                "sec" | "second" => return Err(Some(format!("write {count}/s"))),
                "min" | "minute" => return Err(Some(format!("write {count}/m"))),
                "hour" => return Err(Some(format!("write {count}/h"))),
                _ => return Err(None),
            };
            if !count.bytes().all(|b| b.is_ascii_digit()) {
                return Err(None);
            }
            match count.parse() {
                Ok(count @ 1..) => Ok(Rate { count, per: Duration::from_secs(seconds) }),
                _ => Err(None),
            }
        })
    }

    fn schema() -> Json {
        text_schema("0*[1-9][0-9]*/(s|m|h)")
    }
}

const STATUSES: Form =
    Form { name: "a status or a range of statuses", remedy: "write one as in 404, or a range as in 500-599" };

impl Value for StatusRange {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &STATUSES, statuses)
    }

    fn schema() -> Json {
        number_or_text_schema("[1-5][0-9][0-9](-[1-5][0-9][0-9])?")
    }
}

fn statuses(text: &str) -> Result<StatusRange, Option<String>> {
    if let [digit @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] = text.as_bytes() {
        let hundred = char::from(*digit);
        return Err(Some(format!("write {hundred}00-{hundred}99")));
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| match text.parse() {
        Ok(status @ 100..=599u16) if text.len() == 3 => Ok(status),
        _ => Err(None),
    };
    let (from, to) = (status(from)?, status(to)?);
    if from > to {
        return Err(Some(format!("write the lower one first: {to}-{from}")));
    }
    Ok(StatusRange { from, to })
}

impl Value for FailureKind {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const WORDS: [(&str, FailureKind); 3] = [
            ("connect_failure", FailureKind::ConnectFailure),
            ("reset", FailureKind::Reset),
            ("timeout", FailureKind::Timeout),
        ];
        let form = Form {
            name: "a failure",
            remedy: "write connect_failure, reset, timeout, a status as in 502, or a range as in 500-599",
        };
        let text = reader.text(node, &form)?.into_owned();
        if let Some((_, kind)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Some(*kind);
        }
        match statuses(&text) {
            Ok(range) => Some(FailureKind::Status(range)),
            Err(remedy) => {
                let near = match has_variables(node) {
                    true => None,
                    false => reader.suggestions.nearest(&text, WORDS.iter().map(|(word, _)| *word)),
                };
                let remedy = remedy
                    .filter(|_| !has_variables(node))
                    .or(near.map(|near| format!("did you mean \"{near}\"?")))
                    .unwrap_or_else(|| form.remedy.to_owned());
                reader.error(node.span, format!("{} is not {}", shown(node), form.name), remedy);
                None
            }
        }
    }

    fn schema() -> Json {
        number_or_text_schema("connect_failure|reset|timeout|[1-5][0-9][0-9](-[1-5][0-9][0-9])?")
    }
}

/// A final status, 200 to 599: 1xx are interim and no response of their own.
#[derive(Clone, Copy)]
pub(in crate::config) struct FinalStatus(pub StatusCode);

impl Value for FinalStatus {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "the status of a response", remedy: "write a number of 200 to 599" };
        reader.parse(node, &form, |text| {
            let status = text.parse().ok().filter(|status| (200..=599u16).contains(status)).ok_or(None)?;
            StatusCode::from_u16(status).map(FinalStatus).map_err(|_| None)
        })
    }

    fn schema() -> Json {
        let mut schema = number_or_text_schema("[2-5][0-9][0-9]");
        schema["type"] = serde_json::json!(["integer", "string"]);
        schema["minimum"] = 200.into();
        schema["maximum"] = 599.into();
        schema
    }
}

impl From<FinalStatus> for StatusCode {
    fn from(status: FinalStatus) -> StatusCode {
        status.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("30"), Err(Some("a duration needs a unit: 30s or 30ms".to_owned())));
        assert_eq!(duration("1d"), Err(Some("write it in hours: 24h".to_owned())));
        for wrong in ["", "s", "-5s", "1.5s", "5 s", "5s ", "5S5"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(duration("99999999999999999999h"), Ok(Duration::from_millis(u64::MAX)));
    }

    #[test]
    fn sizes() {
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("2GiB"), Ok(1 << 31));
        assert_eq!(size("64KB"), Err(Some("write 64KiB".to_owned())));
        assert_eq!(size("1.5MiB"), Err(None));
        assert_eq!(bytes(65_536), "64KiB");
    }

    #[test]
    fn status_ranges() {
        assert_eq!(statuses("404"), Ok(StatusRange { from: 404, to: 404 }));
        assert_eq!(statuses("200-299"), Ok(StatusRange { from: 200, to: 299 }));
        assert_eq!(statuses("5xx"), Err(Some("write 500-599".to_owned())));
        assert_eq!(statuses("299-200"), Err(Some("write the lower one first: 200-299".to_owned())));
        for wrong in ["", "99", "600", "0404", "200-", "-299", "abc"] {
            assert_eq!(statuses(wrong), Err(None), "{wrong:?}");
        }
    }
}
