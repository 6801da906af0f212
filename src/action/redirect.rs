//! A redirect to a place that may carry the path's parameters (RFC 9110 §15.4).

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use crate::exchange::{Content, Exchange};
use crate::http::response::Response;
use crate::http::template::Template;
use crate::reason::Reason;
use crate::refusal::{Refusal, Stop};

pub struct Redirect {
    pub to: Template,
    pub status: StatusCode,
}

impl Redirect {
    pub fn run(&self, exchange: &Exchange) -> Result<Response<Content>, Stop> {
        let to = self.to.render(&exchange.path, &exchange.params);
        let location = HeaderValue::from_str(&to)
            .map_err(|_| Refusal::new(Reason::InvalidPath, "the path can't stand in a Location field"))?;
        let mut response = Response::new(self.status, Content::Whole(Bytes::new()));
        response.fields.append(header::LOCATION, location);
        Ok(response)
    }
}
