//! The policies of routes: authentication, authorisation, CORS, header changes, defaults.

use std::collections::HashSet;
use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::{Value as Json, json};

use super::access::IpFilterBody;
use super::browser::Security;
use super::references::{AuthenticatorRef, RateLimitRef};
use crate::config::block::{Field, Place, Value, block};
use crate::config::model::{
    At, Authenticate, ClaimRule, Cors, CorsOrigins, Defaults, HeaderEdit, Maintenance, Ref,
};
use crate::config::reader::Reader;
use crate::config::values::http::{Direction, HeaderFields, Origin, may_edit};
use crate::config::values::units::Size;
use crate::config::values::{NonEmpty, choice};
use crate::config::yaml::{Kind, Node};

/// Sizes of bodies: anything that a counter can hold.
pub(super) type BodySize = Size<0, { u64::MAX >> 1 }>;

block! {
    /// Who may call: whoever one of these authenticators knows.
    "an authenticate block" AuthenticateBlock => Authenticate {
        /// Names of authenticators; any one of them suffices.
        with: NonEmpty<AuthenticatorRef> ["[shop]"],
        /// Only requests of these methods need it. Default: all.
        methods: Vec<Method>,
    }
}

impl AuthenticateBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Authenticate> {
        let (with, methods) = (self.with.required::<Vec<AuthenticatorRef>>(), self.methods.or(Vec::new()));
        Some(Authenticate { with: refs(with?), methods: methods? })
    }
}

pub(super) fn refs<R: Into<Ref>>(references: Vec<R>) -> Vec<Ref> {
    references.into_iter().map(Into::into).collect()
}

/// The rules of an `authorize` block.
pub(super) struct Authorize(pub Vec<ClaimRule>);

block! {
    /// What a caller's token must say.
    "an authorize block" AuthorizeBlock => Authorize {
        /// Every claim named must hold one of its values.
        claims: Claims ["{ role: [admin] }"],
    }
}

impl AuthorizeBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<Authorize> {
        let Claims(rules) = self.claims.required()?;
        if rules.is_empty() {
            reader.error(
                place.span,
                "authorize without a claim lets everyone in",
                "name a claim, or remove authorize",
            );
            return None;
        }
        Some(Authorize(rules))
    }
}

/// `claim: value`, or `claim: [values]`.
struct Claims(Vec<ClaimRule>);

impl Value for Claims {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of claims")?;
        let rules = entries.iter().map(|entry| {
            let values = match entry.value.kind {
                Kind::List(_) => NonEmpty::read(&entry.value, reader)?.0,
                _ => vec![String::read(&entry.value, reader)?],
            };
            Some(ClaimRule { claim: entry.key.to_string(), values })
        });
        let rules: Vec<Option<ClaimRule>> = rules.collect();
        rules.into_iter().collect::<Option<Vec<ClaimRule>>>().map(Claims)
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": { "anyOf": [String::schema(), NonEmpty::<String>::schema()] },
        })
    }
}

/// CORS as written: methods left open follow the route's.
pub(super) struct CorsBody {
    methods: Option<Vec<Method>>,
    cors: Cors,
}

impl CorsBody {
    /// Without methods of its own it allows those of the route, or else the usual ones.
    pub fn on(self, route_methods: &[Method]) -> Cors {
        const USUAL: [Method; 6] =
            [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let methods = self.methods.unwrap_or_else(|| match route_methods {
            [] => USUAL.to_vec(),
            methods => methods.to_vec(),
        });
        Cors { methods, ..self.cors }
    }
}

block! {
    /// Which pages of other origins may call, from a browser.
    "a cors block" CorsBlock => CorsBody {
        /// Origins as browsers write them, or [*] for any.
        origins: At<NonEmpty<At<Origin>>> ["[https://shop.example.com]"],
        /// Default: those of the route's match, or else GET, HEAD, POST, PUT, PATCH and DELETE.
        methods: Vec<Method>,
        /// Request headers that may be sent. Default: those that the browser asks for.
        headers: Vec<At<HeaderName>>,
        /// Response headers that the page may read; [*] for all of them, without credentials.
        expose_headers: Vec<At<HeaderName>>,
        /// Whether cookies and tokens may be sent along. Never with [*]. Default false.
        credentials: At<bool>,
        /// How long a browser may remember the answer. Default: as the browser likes.
        max_age: Duration,
    }
}

impl CorsBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<CorsBody> {
        let any = |origin: &At<Origin>| matches!(origin.value, Origin::Any);
        let wildcard = self.origins.value().and_then(|list| list.value.0.iter().find(|origin| any(origin)));
        let mut right = true;
        if let (Some(wildcard), Some(credentials)) = (wildcard, self.credentials.value())
            && credentials.value
        {
            reader.error(
                wildcard.span,
                "any origin together with credentials would let every page act as its visitor",
                "name the origins, or remove `credentials: true`",
            );
            right = false;
        }
        if let (Some(wildcard), Some(origins)) = (wildcard, self.origins.value())
            && origins.value.0.len() > 1
        {
            reader.error(wildcard.span, "`*` already means any origin", "keep `*` alone, or remove it");
            right = false;
        }
        right &= self.check_stars(reader);
        let credentials =
            self.credentials.optional::<At<bool>>()?.is_some_and(|credentials| credentials.value);
        let origins = self.origins.required::<At<NonEmpty<At<Origin>>>>()?.value.0;
        let exact = origins.into_iter().map(|origin| match origin.value {
            Origin::Any => None,
            Origin::Exact(origin) => Some(origin),
        });
        let origins = exact.collect::<Option<Vec<String>>>().map_or(CorsOrigins::Any, CorsOrigins::Exact);
        let cors = Cors {
            origins,
            methods: Vec::new(),
            headers: names(self.headers.or(Vec::new())?),
            expose_headers: names(self.expose_headers.or(Vec::new())?),
            credentials,
            max_age: self.max_age.optional()?,
        };
        let methods = self.methods.optional::<Vec<Method>>()?.filter(|methods| !methods.is_empty());
        right.then_some(CorsBody { methods, cors })
    }

    /// A star is a wildcard in the answer where no credentials are, and the name of a field where they are (Fetch
    /// §3.3.5): whoever writes one means the former.
    fn check_stars(&self, reader: &mut Reader<'_>) -> bool {
        let star = |list: &Field<Vec<At<HeaderName>>>| {
            let stars = list.value()?.iter().find(|name| name.value.as_str() == "*")?;
            Some(stars.span)
        };
        let with_credentials = self.credentials.value().is_some_and(|credentials| credentials.value);
        let mut right = true;
        if let Some(span) = star(&self.headers) {
            let remedy = "leave the key out: then a page may send whatever it asks for";
            reader.error(span, "`*` is not the name of a header", remedy);
            right = false;
        }
        if let Some(span) = star(&self.expose_headers).filter(|_| with_credentials) {
            let message = "together with credentials, browsers take `*` for the name of a header";
            reader.error(span, message, "name the headers, or remove `credentials: true`");
            right = false;
        }
        right
    }
}

fn names(written: Vec<At<HeaderName>>) -> Vec<HeaderName> {
    written.into_iter().map(|name| name.value).collect()
}

/// Header changes on requests.
pub(super) struct RequestEdit(pub HeaderEdit);

/// Header changes on responses.
pub(super) struct ResponseEdit(pub HeaderEdit);

impl Value for RequestEdit {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        Edit::read(node, reader)?.checked(Direction::Request, reader).map(RequestEdit)
    }

    fn schema() -> Json {
        Edit::schema()
    }
}

impl Value for ResponseEdit {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        Edit::read(node, reader)?.checked(Direction::Response, reader).map(ResponseEdit)
    }

    fn schema() -> Json {
        Edit::schema()
    }
}

impl From<RequestEdit> for HeaderEdit {
    fn from(edit: RequestEdit) -> HeaderEdit {
        edit.0
    }
}

impl From<ResponseEdit> for HeaderEdit {
    fn from(edit: ResponseEdit) -> HeaderEdit {
        edit.0
    }
}

struct Edit {
    set: Option<HeaderFields>,
    remove: Vec<At<HeaderName>>,
}

block! {
    /// Changes to header fields.
    "a header block" EditBlock => Edit {
        /// Fields to set, in place of those that are there.
        set: HeaderFields,
        /// Names of fields to remove.
        remove: Vec<At<HeaderName>>,
    }
}

impl EditBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Edit> {
        let (set, remove) = (self.set.optional(), self.remove.or(Vec::new()));
        Some(Edit { set: set?, remove: remove? })
    }
}

impl Edit {
    fn checked(self, direction: Direction, reader: &mut Reader<'_>) -> Option<HeaderEdit> {
        let mut right = true;
        let set = match self.set {
            Some(fields) => fields.checked(direction, reader),
            None => Some(Vec::new()),
        };
        let set_names: HashSet<&HeaderName> = set.iter().flatten().map(|(name, _)| name).collect();
        for name in &self.remove {
            right &= may_edit(&name.value, direction, name.span, reader);
            if set_names.contains(&name.value) {
                let message = format!("the header {} is both set and removed", name.value);
                reader.error(name.span, message, "keep one of them: `set` replaces what is there");
                right = false;
            }
        }
        let remove = self.remove.into_iter().map(|name| name.value).collect();
        let set = set?;
        right.then_some(HeaderEdit { set, remove })
    }
}

block! {
    /// Policies of every route and of the gateway's own replies.
    "the defaults block" DefaultsBlock => Defaults {
        /// Names of rate limits that hold everywhere.
        rate_limits: Vec<RateLimitRef>,
        /// The header that carries the request's id.
        request_id: RequestId,
        /// Header changes on responses.
        response_headers: ResponseEdit,
        /// The largest request body. Default: no bound.
        max_body: BodySize,
        /// Answer with 503 for as long as something is being done.
        maintenance: Maintenance,
        /// Which addresses may call at all.
        ip_filter: IpFilterBody,
        /// Fields that tell browsers to be careful: true, false, or what to say.
        security_headers: Security,
    }
    later { "compression" }
}

impl DefaultsBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Defaults> {
        let rate_limits: Vec<RateLimitRef> = self.rate_limits.or(Vec::new())?;
        Some(Defaults {
            rate_limits: refs(rate_limits),
            request_id_header: self.request_id.or(RequestId(REQUEST_ID))?.0,
            response_headers: self.response_headers.or(HeaderEdit::default())?,
            max_body: self.max_body.optional()?,
            maintenance: self.maintenance.optional()?,
            ip_filter: self.ip_filter.optional::<IpFilterBody>()?.map(|filter| filter.0),
            security_headers: self.security_headers.optional::<Security>()?.map(|security| security.0),
        })
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What holds when there is no `defaults` block.
pub(super) fn no_defaults() -> Defaults {
    Defaults {
        rate_limits: Vec::new(),
        request_id_header: REQUEST_ID,
        response_headers: HeaderEdit::default(),
        max_body: None,
        maintenance: None,
        ip_filter: None,
        security_headers: None,
    }
}

struct RequestId(HeaderName);

block! {
    /// The request's id: taken from a trusted peer's request, or made; sent upstream and back.
    "a request_id block" RequestIdBlock => RequestId {
        /// Default x-request-id.
        header: At<HeaderName>,
    }
}

impl RequestIdBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<RequestId> {
        match self.header.optional::<At<HeaderName>>()? {
            None => Some(RequestId(REQUEST_ID)),
            Some(name) => {
                may_edit(&name.value, Direction::Request, name.span, reader).then_some(RequestId(name.value))
            }
        }
    }
}

/// `refuse` or `keep`.
impl Value for crate::config::model::EncodedSlashes {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        choice(node, reader, "a way with encoded slashes", &SLASHES, &[])
    }

    fn schema() -> Json {
        crate::config::values::choice_schema(&SLASHES)
    }
}

const SLASHES: [(&str, crate::config::model::EncodedSlashes); 2] = [
    ("refuse", crate::config::model::EncodedSlashes::Refuse),
    ("keep", crate::config::model::EncodedSlashes::Keep),
];
