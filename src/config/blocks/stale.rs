//! The last good answers of a route, for the time of errors.

use serde_json::{Value as Json, json};

use crate::config::block::{Place, Value, block};
use crate::config::model::StaleIfError;
use crate::config::reader::Reader;
use crate::config::values::units::{Size, Wait};
use crate::config::yaml::{Kind, Node};

const USUAL_BYTES: usize = 16 << 20;

block! {
    /// Keep the last good answers, and give them where there would be an error.
    "a stale_if_error block" StaleBlock => StaleIfError {
        /// How long an answer may be given.
        r#for: Wait ["10m"],
        /// Of all answers of the route, over all workers. Default 16MiB.
        max_size: Size<65_536, 4_294_967_296>,
    }
}

impl StaleBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<StaleIfError> {
        let (keep_for, max_bytes) = (self.r#for.required(), self.max_size.or(USUAL_BYTES));
        Some(StaleIfError { keep_for: keep_for?, max_bytes: max_bytes? })
    }
}

/// `10m`, or `{ for: 10m, max_size: 16MiB }`.
pub(super) struct StaleIfErrorValue(pub StaleIfError);

impl Value for StaleIfErrorValue {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let stale = match node.kind {
            Kind::Map(_) => StaleIfError::read(node, reader)?,
            _ => {
                let Wait(keep_for) = Wait::read(node, reader)?;
                StaleIfError { keep_for, max_bytes: USUAL_BYTES }
            }
        };
        Some(StaleIfErrorValue(stale))
    }

    fn schema() -> Json {
        json!({ "anyOf": [Wait::schema(), StaleIfError::schema()] })
    }
}
