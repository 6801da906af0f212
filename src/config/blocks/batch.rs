//! `batch`: many requests in one.

use std::time::Duration;

use http::Method;

use crate::config::block::{Place, block};
use crate::config::model::{BatchAction, Match};
use crate::config::reader::Reader;
use crate::config::source::Span;
use crate::config::values::units::{Number, Size, Wait};

block! {
    /// A POST with a list of requests is answered with the list of their answers, each as its own route gives it.
    "a batch of requests" BatchActionBlock => BatchAction {
        /// Requests of one batch. Default 20.
        max_items: Number<1, 1000>,
        /// Of these, how many are under way at the same time. Default 8.
        concurrency: Number<1, 100>,
        /// For all of them together. Default 10s.
        timeout: Wait,
        /// The largest batch. Default 1MiB.
        max_body: Size<1, { 64 << 20 }>,
        /// The largest answer to one of them. Default 1MiB.
        max_answer: Size<1, { 64 << 20 }>,
        /// All answers together, fields included, which are held until the last has come. Default 8MiB.
        max_answers: Size<1, { 256 << 20 }>,
    }
}

impl BatchActionBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<BatchAction> {
        let (max_items, concurrency) = (self.max_items.or(20usize), self.concurrency.or(8usize));
        let (timeout, max_body) = (self.timeout.or(Duration::from_secs(10)), self.max_body.or(1u64 << 20));
        let gives_all = !self.max_answers.is_absent();
        let (max_answer, max_answers) = (self.max_answer.or(1u64 << 20), self.max_answers.or(8u64 << 20));
        let batch = BatchAction {
            max_items: max_items?,
            concurrency: concurrency?,
            timeout: timeout?,
            max_body: max_body?,
            max_answer: max_answer?,
            max_answers: max_answers?,
        };
        if batch.max_answer <= batch.max_answers {
            return Some(batch);
        }
        let all = if gives_all { "`max_answers`" } else { "the 8MiB that all answers may have together" };
        let message = format!("`max_answer` is larger than {all}, so that no answer can be as large");
        reader.error(place.span, message, "write a larger `max_answers`, or a smaller `max_answer`");
        None
    }
}

/// A batch has a body, and asks for more than reading.
pub(super) fn check_method(matches: &Match, span: Span, reader: &mut Reader<'_>) {
    if !matches.methods.is_empty() && !matches.methods.contains(&Method::POST) {
        let message = "a batch is a POST, and this route takes none";
        reader.error(span, message, "add POST to the `methods` of its match, or remove them");
    }
}
