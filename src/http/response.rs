//! A response as the gateway passes it on: what is between an instance's bytes and a client's.

use bytes::Bytes;
use http::StatusCode;

use super::fields::Fields;

pub struct Response<B> {
    pub status: StatusCode,
    pub fields: Fields,
    /// An instance's own words for the status, where they aren't the usual ones (RFC 9112 §4). No line breaks.
    pub phrase: Option<Box<Bytes>>,
    pub body: B,
}

impl<B> Response<B> {
    pub fn new(status: StatusCode, body: B) -> Self {
        Response { status, fields: Fields::new(), phrase: None, body }
    }

    pub fn map<C>(self, change: impl FnOnce(B) -> C) -> Response<C> {
        let Response { status, fields, phrase, body } = self;
        Response { status, fields, phrase, body: change(body) }
    }
}
