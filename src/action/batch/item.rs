//! An item as a request of the batch's client: what it has from the batch, and what it may not say by itself.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use tokio::time::Instant;

use super::board::Board;
use super::read::{Item, ItemBody, ItemRequest};
use super::text::Fault;
use crate::action::aggregate::body;
use crate::exchange::{Arrived, Exchange, Incoming};
use crate::http::field_lines::Sink;
use crate::http::fields::Fields;
use crate::http::notable::Notable;
use crate::http::target::{self, Target};
use crate::http::{alike, hop_by_hop, method_override};
use crate::reason::Reason;
use crate::request::Request;
use crate::snapshot::Snapshot;

/// What all items of a batch have alike.
pub struct Ground<'e> {
    pub exchange: &'e Exchange,
    /// The fields that every item begins with.
    fields: Fields,
    max_body: u64,
}

impl<'e> Ground<'e> {
    /// Takes the client's fields out of `request`.
    pub fn of(exchange: &'e Exchange, request: &mut Request, max_body: u64) -> Self {
        let mut fields = std::mem::take(&mut request.headers);
        hop_by_hop::strip_request(&mut fields, request.notable);
        fields.retain(|name, _| !is_of_the_batch(name) && !method_override::overrides_method(name));
        exchange.snapshot.override_headers.iter().for_each(|name| fields.remove(name));
        if let Some(host) =
            request.host.as_ref().and_then(|host| HeaderValue::from_maybe_shared(host.clone()).ok())
        {
            fields.insert(header::HOST, host);
        }
        // One id for all, as for the parts of an aggregate; and what they lead to is below the batch in a trace.
        let mut sink = Sink::Fields(&mut fields);
        if let Some(id) = &exchange.request_id {
            id.write(&exchange.snapshot.request_id_header, &mut sink);
        }
        if let Some(trace) = &exchange.trace {
            trace.write(&mut sink);
        }
        Ground { exchange, fields, max_body }
    }

    pub fn request_id(&self) -> &str {
        self.exchange.request_id.as_ref().map_or("", |id| id.as_str())
    }

    /// The exchange of an item, with all values in their places.
    pub fn exchange_of(
        &self,
        items: &[Item],
        place: usize,
        board: &Board,
        deadline: Instant,
    ) -> Result<Box<Exchange>, Fault> {
        let item = &items[place];
        let request = item.request.as_ref().map_err(Fault::clone)?;
        for need in &item.needs {
            if board.answer(*need).is_none_or(|answer| answer.has_failed()) {
                let name = items[*need].id.clone().unwrap_or_else(|| format!("number {}", need + 1).into());
                let detail = format!("the item {name}, which this one waits for, has failed");
                return Err(Fault::new(Reason::BatchDependencyFailed, detail));
            }
        }
        if deadline <= Instant::now() {
            return Err(Fault::new(Reason::BatchTimeout, Reason::BatchTimeout.description()));
        }
        let (fields, body) = (self.fields_of(request, board)?, self.body_of(request, board)?);
        let declared = (!body.is_empty()).then_some(body.len() as u64);
        let target = self.target_of(request, board)?;
        let incoming = Incoming { target, fields, body: body::held(body), declared };
        let arrived = Arrived {
            method: request.method.clone(),
            version: self.exchange.version,
            incoming,
            upgrade: None,
            interim: None,
        };
        Ok(Exchange::within(self.exchange, arrived))
    }

    fn target_of(&self, request: &ItemRequest, board: &Board) -> Result<Target, Fault> {
        let text = request.path.target(board, self.exchange.connection.settings.limits.max_uri_bytes)?;
        let is_whole = !text.contains('#');
        target::path_of(text).filter(|_| is_whole).map(Target::Path).ok_or_else(|| {
            Fault::new(
                Reason::BatchItemInvalid,
                "the path of this item is none: it begins with a slash and has no fragment",
            )
        })
    }

    fn fields_of(&self, request: &ItemRequest, board: &Board) -> Result<Fields, Fault> {
        let limits = &self.exchange.connection.settings.limits;
        if request.fields.len() > limits.max_headers {
            let (count, most) = (request.fields.len(), limits.max_headers);
            let detail = format!("this item has {count} fields; {most} are allowed");
            return Err(Fault::new(Reason::HeadersTooLarge, detail));
        }
        let mut fields = self.fields.clone();
        let most = limits.max_header_bytes;
        let mut left = most;
        for (place, (name, text)) in request.fields.iter().enumerate() {
            let value = text.field(board, left)?;
            let bytes = name.as_str().len() + value.len();
            left = left.checked_sub(bytes).ok_or_else(|| {
                let detail =
                    format!("the fields of this item have more than the {most} bytes that are allowed");
                Fault::new(Reason::HeadersTooLarge, detail)
            })?;
            // What the batch has of that name goes.
            match request.fields[..place].iter().any(|(known, _)| known == name) {
                true => fields.append(name.clone(), value),
                false => fields.insert(name.clone(), value),
            }
        }
        let is_json = matches!(request.body, ItemBody::Json(_) | ItemBody::Template(_));
        if is_json && !fields.contains(&header::CONTENT_TYPE) {
            fields.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(fields)
    }

    fn body_of(&self, request: &ItemRequest, board: &Board) -> Result<Bytes, Fault> {
        match &request.body {
            ItemBody::None => Ok(Bytes::new()),
            ItemBody::Json(bytes) | ItemBody::Plain(bytes) => Ok(bytes.clone()),
            ItemBody::Template(template) => {
                template.render(board, usize::try_from(self.max_body).unwrap_or(usize::MAX))
            }
        }
    }
}

/// What was said of the batch and its body, and is true of none of its items: how it is written, under which conditions
/// it is to be done, that it is to be done once, that somebody has signed it.
fn is_of_the_batch(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 14] = [
        b"accept",
        b"accept-encoding",
        b"connection",
        b"digest",
        b"expect",
        b"host",
        b"idempotency-key",
        b"max-forwards",
        b"range",
        b"repr-digest",
        b"signature",
        b"signature-input",
        b"te",
        b"trailer",
    ];
    NAMES.contains(&name) || name.starts_with(b"content-") || name.starts_with(b"if-")
}

/// What an item may not say: for which host it is and over what connection, who asks and from where, what the gateway
/// says itself, and what browsers say of pages.
pub fn is_taken(name: &HeaderName, snapshot: &Snapshot) -> bool {
    static TAKEN: [HeaderName; 9] = [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::COOKIE,
        header::HOST,
        header::PROXY_AUTHORIZATION,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::VIA,
    ];
    const SPOKEN_FOR: Notable = Notable::CONNECTION
        .and(Notable::HOP)
        .and(Notable::EXPECT)
        .and(Notable::TRACE_PARENT)
        .and(Notable::TRACE_STATE)
        .and(Notable::ORIGIN)
        .and(Notable::ORIGIN_CLAIM)
        .and(Notable::CONTENT_LENGTH)
        .and(Notable::MAX_FORWARDS);
    let fields = Fields::from_iter([(name.clone(), HeaderValue::from_static(""))]);
    let mut ours = TAKEN.iter().chain(&snapshot.identity_headers).chain([&snapshot.request_id_header]);
    let text = name.as_str();
    text.starts_with("sec-")
        || Notable::of(&fields).has(SPOKEN_FOR)
        || ours.any(|known| alike::reads_alike(text.as_bytes(), known.as_str().as_bytes()))
}
