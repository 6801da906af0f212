//! Responses written in the configuration: `respond`, and a service's `fallback`.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::Value as Json;

use crate::config::block::{Place, Value, block};
use crate::config::model::{At, StaticResponse};
use crate::config::reader::Reader;
use crate::config::values::body::JsonText;
use crate::config::values::http::{Direction, HeaderFields};
use crate::config::values::text_value;
use crate::config::values::units::FinalStatus;
use crate::config::yaml::Node;

/// What `respond` answers: 200 when it says nothing else.
pub(super) struct Respond(pub StaticResponse);

/// What a service answers when it can't be reached: 503 when it says nothing else.
pub(super) struct Fallback(pub StaticResponse);

/// A response whose status may be left open.
struct Written {
    status: Option<StatusCode>,
    response: StaticResponse,
}

impl Value for Respond {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        Written::read(node, reader).map(|written| Respond(written.or(StatusCode::OK)))
    }

    fn schema() -> Json {
        Written::schema()
    }
}

impl Value for Fallback {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        Written::read(node, reader).map(|written| Fallback(written.or(StatusCode::SERVICE_UNAVAILABLE)))
    }

    fn schema() -> Json {
        Written::schema()
    }
}

impl From<Fallback> for StaticResponse {
    fn from(fallback: Fallback) -> StaticResponse {
        fallback.0
    }
}

impl From<Respond> for StaticResponse {
    fn from(respond: Respond) -> StaticResponse {
        respond.0
    }
}

impl Written {
    fn or(self, default: StatusCode) -> StaticResponse {
        StaticResponse { status: self.status.unwrap_or(default), ..self.response }
    }
}

/// Text that may be empty and may span lines.
struct BodyText(String);

impl Value for BodyText {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        text_value(node, reader).map(BodyText)
    }

    fn schema() -> Json {
        serde_json::json!({ "type": ["string", "number", "boolean"] })
    }
}

block! {
    /// A response that the gateway gives by itself.
    "a response" ResponseBlock => Written {
        /// 200 to 599. Default 200 for `respond`, 503 for `fallback`.
        status: At<FinalStatus>,
        /// The body, as JSON.
        json: At<JsonText>,
        /// The body, as plain text.
        text: At<BodyText>,
        /// More header fields.
        headers: HeaderFields,
    }
}

impl ResponseBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Written> {
        let ResponseBlock { status, json, text, headers } = self;
        let mut right = true;
        if let (Some(json), Some(text)) = (json.value(), text.value()) {
            let span = json.span.max(text.span);
            reader.error(
                span,
                "both `json` and `text` are given",
                "keep one of them: a response has one body",
            );
            right = false;
        }
        let has_body = !json.is_absent() || !text.is_absent();
        if let Some(status) = status.value()
            && matches!(status.value.0.as_u16(), 204 | 205 | 304)
            && has_body
        {
            let message = format!("a {} response has no body", status.value.0.as_u16());
            reader.error(status.span, message, "remove `json` or `text`, or use status 200");
            right = false;
        }
        let headers = match headers.optional::<HeaderFields>() {
            Some(Some(fields)) => fields.checked(Direction::Response, reader),
            Some(None) => Some(Vec::new()),
            None => None,
        };
        let (body, usual_type) = match (json.optional::<At<JsonText>>()?, text.optional::<At<BodyText>>()?) {
            (Some(json), _) => (json.value.0, Some("application/json")),
            (None, Some(text)) => (text.value.0, Some("text/plain; charset=utf-8")),
            (None, None) => (String::new(), None),
        };
        let status = status.optional::<At<FinalStatus>>()?.map(|status| status.value.0);
        let mut headers = headers?;
        let own_type = headers.iter().position(|(name, _)| *name == CONTENT_TYPE);
        let content_type = match own_type {
            Some(index) => Some(headers.remove(index).1),
            None => usual_type.map(HeaderValue::from_static),
        };
        let response = StaticResponse {
            status: status.unwrap_or_default(),
            body: Bytes::from(body),
            content_type,
            headers,
        };
        right.then_some(Written { status, response })
    }
}
