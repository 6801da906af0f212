//! A response written in the configuration; also what a service falls back to.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::config;
use crate::exchange::Content;
use crate::http::response::Response;

#[derive(Clone, Debug)]
pub struct Respond {
    status: StatusCode,
    body: Bytes,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Respond {
    pub fn compile(response: &config::StaticResponse) -> Self {
        let content_type = response.content_type.clone().map(|value| (header::CONTENT_TYPE, value));
        Respond {
            status: response.status,
            body: response.body.clone(),
            // A type given among the headers stands in the place of ours.
            fields: content_type.into_iter().chain(response.headers.iter().cloned()).collect(),
        }
    }

    pub fn run(&self) -> Response<Content> {
        let mut response = Response::new(self.status, Content::Whole(self.body.clone()));
        for (name, value) in &self.fields {
            response.fields.insert(name.clone(), value.clone());
        }
        response
    }
}
