//! One document out of many services' answers. The parts are fetched at once; they stand in the document
//! in the order and under the names of the configuration, whichever came first.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::parts::{self, PartError};
use super::upstream_request;
use crate::exchange::{Content, Exchange};
use crate::http::field_lines::FieldLines;
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::refusal::{Refusal, Stop};
use crate::request::Request;
use crate::service::Wish;

pub use super::parts::Part;

pub struct Aggregate {
    pub parts: Vec<Part>,
    /// For all parts together.
    pub timeout: Duration,
}

impl Aggregate {
    pub async fn run(
        &self,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Response<Content>, Stop> {
        let wishes = self.wishes(exchange, &request.headers);
        let mut headers = std::mem::take(&mut request.headers);
        let lines =
            upstream_request::rewrite(&mut headers, request.notable, exchange, request.host.as_deref());
        parts::request_fields(&mut headers);
        let results = self.fetch(exchange, &headers, &lines, &wishes).await?;
        let mut response = Response::new(StatusCode::OK, Content::Whole(self.splice(&results)));
        response.fields.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// Which instances the parts would like to go to; empty where no service goes by that.
    fn wishes(&self, exchange: &Exchange, headers: &Fields) -> Vec<Wish> {
        if !self.parts.iter().any(|part| part.service.has_wishes()) {
            return Vec::new();
        }
        let wish = |part: &Part| {
            let target = part.target(exchange);
            target.map(|target| super::wish(&part.service, exchange, target.path(), headers))
        };
        self.parts.iter().map(|part| wish(part).unwrap_or_default()).collect()
    }

    /// All parts, in their order. A required one that fails ends it there and then, and cancels the rest.
    async fn fetch(
        &self,
        exchange: &mut Exchange,
        headers: &Fields,
        lines: &FieldLines,
        wishes: &[Wish],
    ) -> Result<Vec<Result<Bytes, PartError>>, Stop> {
        let worker = exchange.connection.worker.clone();
        let deadline = Instant::now() + self.timeout;
        let began = Instant::now();
        let mut running: FuturesUnordered<_> = self
            .parts
            .iter()
            .enumerate()
            .map(|(position, part)| {
                let target = part.target(exchange);
                let wish = wishes.get(position).copied().unwrap_or_default();
                let (caller, headers, lines) = (worker.caller(), headers.clone(), lines.clone());
                async move {
                    let mut attempts = super::Attempts::default();
                    let result =
                        part.fetch(caller, target, wish, (headers, lines), deadline, &mut attempts).await;
                    (position, result, attempts.count)
                }
            })
            .collect();
        let mut results: Vec<Option<Result<Bytes, PartError>>> = Vec::new();
        results.resize_with(self.parts.len(), || None);
        exchange.upstream.began = Some(began);
        while let Some((position, result, attempts)) = running.next().await {
            exchange.upstream.attempts += attempts;
            let part = &self.parts[position];
            if let (true, Err(error)) = (part.required, &result) {
                exchange.upstream.took = Some(began.elapsed());
                return Err(failed(part, error).into());
            }
            results[position] = Some(result);
        }
        exchange.upstream.took = Some(began.elapsed());
        Ok(results.into_iter().flatten().collect())
    }

    fn splice(&self, results: &[Result<Bytes, PartError>]) -> Bytes {
        let size: usize = results.iter().flatten().map(|part| part.len() + 32).sum();
        let mut document = BytesMut::with_capacity(size + 64);
        let mut errors = Vec::new();
        for (part, result) in self.parts.iter().zip(results) {
            document.extend_from_slice(if document.is_empty() { b"{" } else { b"," });
            member(&mut document, &part.name);
            match result {
                Ok(value) => document.extend_from_slice(value),
                Err(error) => {
                    document.extend_from_slice(&part.fallback);
                    errors.push(serde_json::json!({
                        "part": &*part.name,
                        "status": error.status().as_u16(),
                        "reason": error.reason().code(),
                    }));
                }
            }
        }
        if !errors.is_empty() {
            document.extend_from_slice(b",");
            member(&mut document, "_errors");
            document.extend_from_slice(serde_json::Value::Array(errors).to_string().as_bytes());
        }
        document.extend_from_slice(b"}");
        document.freeze()
    }
}

fn member(document: &mut BytesMut, name: &str) {
    document.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
    document.extend_from_slice(b":");
}

fn failed(part: &Part, error: &PartError) -> Refusal {
    let detail = match error {
        PartError::Status(status) => {
            format!("the required part {} was answered with {}", part.name, status.as_u16())
        }
        other => format!("the required part {} failed: {}", part.name, other.reason().code()),
    };
    Refusal::new(error.reason_of_whole(), detail)
}
