//! The batch of a configuration in the form that requests run against.

use super::Batch;
use crate::config;

impl Batch {
    pub fn compile(written: &config::BatchAction) -> Self {
        Batch {
            max_items: written.max_items,
            concurrency: written.concurrency,
            timeout: written.timeout,
            max_body: written.max_body,
            max_answer: written.max_answer,
            max_answers: written.max_answers,
        }
    }
}
