//! A second attempt when the first is slow.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::block::{Place, Value, block};
use crate::config::model::{HedgeAfter, Hedging};
use crate::config::reader::Reader;
use crate::config::values::units::{Percent, Wait};
use crate::config::yaml::{Kind, Node};

block! {
    /// Ask another instance when the first is slow, and take the first good answer.
    "a hedging block" HedgingBlock => Hedging {
        /// When: a time, or `p95` for what 95 of 100 answers have come within lately.
        after: HedgeAfter ["100ms"],
        /// Share of the service's requests of the last 10s that may get a second attempt. Default 5%.
        budget: Percent<1>,
    }
}

impl HedgingBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Hedging> {
        let (after, budget) = (self.after.required(), self.budget.or(5u8));
        Some(Hedging { after: after?, budget: budget? })
    }
}

impl Value for HedgeAfter {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.text == "p95" => Some(HedgeAfter::Percentile95),
            Kind::Scalar(scalar) if !scalar.text.starts_with(|c: char| c.is_ascii_digit()) => {
                let message = format!("{} is no time to wait for", crate::config::reader::shown(node));
                reader.error(node.span, message, "write a duration as in 100ms, or p95");
                None
            }
            _ => Wait::read(node, reader).map(|after| HedgeAfter::Time(Duration::from(after))),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [Wait::schema(), { "const": "p95" }] })
    }
}
