//! What an item was answered: received whole and within bounds, for the document and for the items that take values of it.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::text::Fault;
use crate::action::aggregate::body::{self, Coding};
use crate::exchange::ResponseBody;
use crate::http::fields::Fields;
use crate::http::problem;
use crate::http::response::Response;
use crate::reason::Reason;

pub struct Answer {
    pub status: StatusCode,
    /// Those that are told.
    pub fields: Fields,
    pub body: Body,
}

pub enum Body {
    None,
    /// One value, as it was written.
    Json(Bytes),
    /// UTF-8.
    Text(Bytes),
    Binary(Bytes),
}

/// How large an answer may be.
pub struct Room {
    /// Its body.
    pub of_one: u64,
    /// For all of this one and of those that come behind it.
    pub left: Rc<Cell<u64>>,
    /// By this one.
    pub taken: u64,
}

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), Reason> {
        let left = self.left.get().checked_sub(bytes as u64).ok_or(Reason::BatchAnswerTooLarge)?;
        self.left.set(left);
        self.taken += bytes as u64;
        Ok(())
    }

    /// Nothing is kept of it after all.
    fn give_back(&mut self) {
        self.left.set(self.left.get() + std::mem::take(&mut self.taken));
    }
}

impl Answer {
    /// An answer of the gateway's own, as a request by itself would have got it.
    pub fn refused(fault: &Fault, request_id: &str) -> Self {
        let Response { status, fields, body, .. } = problem::respond(fault.reason, &fault.detail, request_id);
        Answer { status, fields, body: Body::Json(body) }
    }

    pub fn has_failed(&self) -> bool {
        self.status.is_client_error() || self.status.is_server_error()
    }

    pub async fn receive(
        response: Response<ResponseBody>,
        is_head: bool,
        deadline: Instant,
        mut room: Room,
        request_id: &str,
    ) -> Self {
        let Response { status, mut fields, body, .. } = response;
        let collected = match is_head {
            true => Ok(Bytes::new()),
            false => collect(body, deadline, &mut room).await,
        };
        let body = collected.and_then(|whole| read(whole, &mut fields, &mut room));
        fields.retain(|name, _| is_told(name));
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        match body.and_then(|body| room.take(bytes).map(|()| body)) {
            Ok(body) => Answer { status, fields, body },
            Err(reason) => {
                room.give_back();
                Answer::refused(&Fault::new(reason, reason.description()), request_id)
            }
        }
    }
}

async fn collect(mut body: ResponseBody, deadline: Instant, room: &mut Room) -> Result<Bytes, Reason> {
    let mut whole = BytesMut::new();
    loop {
        let data = match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_) => {
                body.give_up(Reason::BatchTimeout);
                return Err(Reason::BatchTimeout);
            }
            Ok(None) => break,
            Ok(Some(frame)) => match frame?.into_data() {
                Ok(data) => data,
                Err(_trailers) => continue,
            },
        };
        if (whole.len() + data.len()) as u64 > room.of_one || room.take(data.len()).is_err() {
            body.give_up(Reason::BatchAnswerTooLarge);
            return Err(Reason::BatchAnswerTooLarge);
        }
        whole.extend_from_slice(&data);
    }
    body.end();
    Ok(whole.freeze())
}

/// Nobody asked for an encoded answer; one that can't be read stays as it came, and says how it is encoded.
fn read(whole: Bytes, fields: &mut Fields, room: &mut Room) -> Result<Body, Reason> {
    if whole.is_empty() {
        return Ok(Body::None);
    }
    let Ok(coding) = body::coding(fields) else { return Ok(Body::Binary(whole)) };
    let whole = match coding {
        Coding::Plain => whole,
        coding => match body::decode(whole.clone(), coding, room.of_one) {
            Ok(decoded) => {
                room.take(decoded.len().saturating_sub(whole.len()))?;
                decoded
            }
            Err(error) if error.reason() == Reason::PartTooLarge => return Err(Reason::BatchAnswerTooLarge),
            Err(_) => return Ok(Body::Binary(whole)),
        },
    };
    fields.remove(&header::CONTENT_ENCODING);
    if fields.get(&header::CONTENT_TYPE).is_some_and(is_json) {
        // What says that it is JSON, and isn't, must not be taken for a string of JSON.
        return Ok(body::json(whole.clone()).map_or(Body::Binary(whole), Body::Json));
    }
    Ok(match std::str::from_utf8(&whole) {
        Ok(_) => Body::Text(whole),
        Err(_) => Body::Binary(whole),
    })
}

/// Whether that is the Content-Type of JSON (RFC 8259 §11, RFC 6839 §3.1).
pub fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let essence = essence.to_ascii_lowercase();
    essence == b"application/json" || (essence.starts_with(b"application/") && essence.ends_with(b"+json"))
}

/// Not what is about the connection or the length, nor what a browser keeps from the scripts of pages.
fn is_told(name: &[u8]) -> bool {
    const UNTOLD: [&[u8]; 7] = [
        b"connection",
        b"content-length",
        b"keep-alive",
        b"set-cookie",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    !UNTOLD.contains(&name) && !name.starts_with(b"access-control-")
}
