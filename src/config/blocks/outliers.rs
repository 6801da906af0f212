//! `outlier_detection`: when an instance does so much worse than the others that it is taken out for some time.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::block::{Place, Value, block};
use crate::config::model::{At, OutlierDetection};
use crate::config::reader::{Form, Reader, has_variables, shown};
use crate::config::values::text_schema;
use crate::config::values::units::{Number, Percent, Wait};
use crate::config::yaml::{Kind, Node};

block! {
    /// Eject an instance that does worse than the others, for some time.
    "an outlier_detection block" OutlierBlock => OutlierDetection {
        /// Failures in a row that do it; `off` for never. Default 5.
        consecutive_failures: OrOff<Number<1, 1_000_000>>,
        /// Percentage points by which its share of failures is above what is usual among the others; `off` for never. Default 30%.
        failure_ratio: OrOff<Percent<1>>,
        /// How long its answers take, of what is usual among the others: above 100%; `off` for never. Default off.
        latency: OrOff<Above100>,
        /// Requests to it in an interval below which share and latency say nothing. Default 20.
        minimum_requests: Number<1, 1_000_000>,
        /// From one comparison to the next, 100ms or more. Default 10s.
        interval: At<Wait>,
        /// How long it gets no requests; as much longer with each further time. Default 30s.
        base_ejection_time: Wait,
        /// The longest. Default 5m.
        max_ejection_time: At<Wait>,
        /// The share of the instances that may be out at once. Default 50%.
        max_ejected: Percent<1>,
    }
}

/// Every instance is looked at in each.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

impl OutlierBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<OutlierDetection> {
        let consecutive_failures = self.consecutive_failures.optional::<OrOff<Number<1, 1_000_000>>>();
        let failure_ratio = self.failure_ratio.optional::<OrOff<Percent<1>>>();
        let latency = self.latency.or(OrOff::<Above100>(None));
        let (minimum_requests, interval) =
            (self.minimum_requests.or(20u32), self.interval.optional::<At<Wait>>());
        let base: Option<Duration> = self.base_ejection_time.or(seconds(30));
        let (max, max_ejected) = (self.max_ejection_time.optional::<At<Wait>>(), self.max_ejected.or(50u8));
        let (base, max): (Duration, Option<At<Wait>>) = (base?, max?);
        if let Some(max) = max.as_ref().filter(|max| max.value.0 < base) {
            reader.error(
                max.span,
                "max_ejection_time is shorter than base_ejection_time",
                "make it as long or longer",
            );
            return None;
        }
        let interval = interval?;
        if let Some(short) = interval.as_ref().filter(|interval| interval.value.0 < SHORTEST_INTERVAL) {
            reader.error(short.span, "this is too short to compare anything in", "write 100ms or more");
            return None;
        }
        let judged = OutlierDetection {
            consecutive_failures: consecutive_failures?.map_or(Some(5), |OrOff(most)| most.map(u32::from)),
            failure_ratio: failure_ratio?.map_or(Some(30), |OrOff(ratio)| ratio.map(u8::from)),
            latency: latency?.0.map(|percent| percent.0),
            minimum_requests: minimum_requests?,
            interval: interval.map_or(seconds(10), |interval| interval.value.0),
            base_ejection_time: base,
            max_ejection_time: max.map_or(seconds(300).max(base), |max| max.value.0),
            max_ejected: max_ejected?,
        };
        if judged.consecutive_failures.is_none() && judged.failure_ratio.is_none() && judged.latency.is_none()
        {
            reader.error(
                place.span,
                "with everything `off`, no instance is ever ejected",
                "keep one of `consecutive_failures`, `failure_ratio` and `latency`, or remove the block",
            );
            return None;
        }
        Some(judged)
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A percentage above 100.
struct Above100(u16);

const LARGEST: u16 = 10_000;

impl Value for Above100 {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "a percentage", remedy: "write a percentage above 100: 300%, or off" };
        let percent = reader.parse(node, &form, |text| match text.strip_suffix('%') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(digits.parse::<u16>().unwrap_or(u16::MAX))
            }
            None if text.parse::<u16>().is_ok_and(|times| (2..=100).contains(&times)) => {
                Err(Some(format!("for {text} times as long write {text}00%")))
            }
            _ => Err(None),
        })?;
        if !(101..=LARGEST).contains(&percent) {
            let found = if has_variables(node) { "this".to_owned() } else { shown(node) };
            reader.error(
                node.span,
                format!("{found} is outside 101% to {LARGEST}%"),
                "100% is what is usual: write 300%, say, for three times as long",
            );
            return None;
        }
        Some(Above100(percent))
    }

    fn schema() -> Json {
        text_schema("[0-9]+%")
    }
}

/// A value, or `off`.
struct OrOff<T>(Option<T>);

impl<T: Value> Value for OrOff<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        // For older YAML, `off` is another way to write false.
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off" || scalar.text == "false") {
            return Some(OrOff(None));
        }
        T::read(node, reader).map(|value| OrOff(Some(value)))
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "enum": ["off", false] }] })
    }
}
