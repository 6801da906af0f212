//! A GET, over HTTP/1.1 or 2, whose status, and text in the body where that is wanted, say whether the instance is well.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::check::{CheckError, MAX_BODY_BYTES, MAX_HEAD_BYTES, beside};
use crate::service::HttpProbe;
use crate::service::stream::Stream;

pub async fn get(stream: Stream, authority: &HeaderValue, expected: &HttpProbe) -> Result<(), CheckError> {
    let request = Request::get(expected.path.as_str())
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "gatehouse-health")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(CheckError::Request)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(CheckError::Exchange)?;
    let exchange =
        async { judge(sender.send_request(request).await.map_err(CheckError::Exchange)?, expected).await };
    beside(exchange, connection).await
}

/// As [`get`], of an instance that is spoken to in HTTP/2.
pub async fn get_http2(
    stream: Stream,
    scheme: &str,
    authority: &HeaderValue,
    expected: &HttpProbe,
) -> Result<(), CheckError> {
    let uri = Uri::builder().scheme(scheme).authority(authority.as_bytes()).path_and_query(&*expected.path);
    let request = Request::get(uri.build().map_err(CheckError::Request)?)
        .header(header::USER_AGENT, "gatehouse-health")
        .header(header::ACCEPT, "*/*")
        .body(Empty::<Bytes>::new())
        .map_err(CheckError::Request)?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(CheckError::Exchange)?;
    let exchange =
        async { judge(sender.send_request(request).await.map_err(CheckError::Exchange)?, expected).await };
    beside(exchange, connection).await
}

async fn judge(response: Response<Incoming>, expected: &HttpProbe) -> Result<(), CheckError> {
    let status = response.status();
    if !expected.status.iter().any(|range| range.contains(&status.as_u16())) {
        return Err(CheckError::Status(status));
    }
    match &expected.body {
        Some(text) => find(text.as_bytes(), response.into_body()).await,
        // Not read: the connection ends with the check.
        None => Ok(()),
    }
}

/// Reads the body until the text has come, or as much as may be read.
async fn find(text: &[u8], body: Incoming) -> Result<(), CheckError> {
    let mut body = pin!(body);
    let mut read = Vec::new();
    let finder = memchr::memmem::Finder::new(text);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(CheckError::Body)?.into_data() else { continue };
        // What was searched already can be the beginning of the text at most.
        let searched = read.len().saturating_sub(text.len());
        read.extend_from_slice(&data[..data.len().min(MAX_BODY_BYTES - read.len())]);
        if finder.find(&read[searched..]).is_some() {
            return Ok(());
        }
        if read.len() == MAX_BODY_BYTES {
            return Err(CheckError::UnexpectedSoFar);
        }
    }
    Err(CheckError::Unexpected)
}
