//! How many requests a service may have at once.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::block::{Place, Value, block};
use crate::config::model::{At, Concurrency, ConcurrencyLimit};
use crate::config::reader::Reader;
use crate::config::values::units::{Number, Wait};
use crate::config::yaml::{Kind, Node};

type Count = Number<1, 1_000_000>;

block! {
    /// Requests of the service at once, over all workers and instances.
    "a concurrency block" ConcurrencyBlock => Concurrency {
        /// Requests in flight: a number, or `adaptive` for as many as the service does well with.
        max: MaxValue ["1000"],
        /// The least that `max: adaptive` comes to. Default 4.
        floor: At<Count>,
        /// The most that it comes to. Default 1000.
        ceiling: At<Count>,
        /// Further requests that wait until others have ended; those beyond are refused. Default 0.
        queue: Number<0, 1_000_000>,
        /// How long one waits. Default 250ms.
        queue_timeout: At<Wait>,
    }
}

impl ConcurrencyBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Concurrency> {
        let (max, queue) = (self.max.required(), self.queue.or(0u32));
        let (floor, ceiling) = (self.floor.optional(), self.ceiling.optional());
        let queue_timeout = self.queue_timeout.optional::<At<Wait>>()?;
        if let (Some(0), Some(timeout)) = (queue, &queue_timeout) {
            reader.warning(
                timeout.span,
                "nobody waits, because `queue` is 0",
                "add `queue: 200`, or remove it",
            );
        }
        Some(Concurrency {
            max: limit(max?, floor?, ceiling?, reader)?,
            queue: queue?,
            queue_timeout: queue_timeout.map_or(Duration::from_millis(250), |timeout| timeout.value.0),
        })
    }
}

fn limit(
    max: MaxValue,
    floor: Option<At<Count>>,
    ceiling: Option<At<Count>>,
    reader: &mut Reader<'_>,
) -> Option<ConcurrencyLimit> {
    if let MaxValue::Fixed(max) = max {
        let Some(stray) = floor.or(ceiling) else { return Some(ConcurrencyLimit::Fixed(max)) };
        reader.error(
            stray.span,
            "a number for `max` has no bounds of its own",
            "remove it, or write `max: adaptive`",
        );
        return None;
    }
    let number = |count: &At<Count>| u32::from(count.value);
    let most = ceiling.as_ref().map(number);
    let least = floor.as_ref().map_or(4.min(most.unwrap_or(4)), number);
    let most = most.unwrap_or(1000.max(least));
    if most < least {
        let span = ceiling.map_or_else(Default::default, |ceiling| ceiling.span);
        reader.error(span, "ceiling is less than floor", format!("write {least} or more"));
        return None;
    }
    Some(ConcurrencyLimit::Adaptive { floor: least, ceiling: most })
}

enum MaxValue {
    Fixed(u32),
    Adaptive,
}

impl Value for MaxValue {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.text == "adaptive" => Some(MaxValue::Adaptive),
            Kind::Scalar(scalar) if !scalar.text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                let message = format!("{} is no limit", crate::config::reader::shown(node));
                reader.error(node.span, message, "write a number, or adaptive");
                None
            }
            _ => Count::read(node, reader).map(|count| MaxValue::Fixed(count.into())),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [Count::schema(), { "const": "adaptive" }] })
    }
}
