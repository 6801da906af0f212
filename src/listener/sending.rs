//! A response on its way out: its body, frame by frame, as the client takes it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::StatusCode;
use hyper::body::Body;

use super::encode::{self, Asked, BodyEnd};
use super::outbound::Outbound;
use crate::buffers::Buffers;
use crate::exchange::ResponseBody;
use crate::http::response::Response;

pub struct Sending {
    /// `None` once all of it has been taken: with it, the exchange is over.
    body: Option<ResponseBody>,
    end: BodyEnd,
    asked: Asked,
    failed: bool,
    /// The connection ends with this response.
    pub closes: bool,
    /// What follows is a tunnel.
    pub switches: bool,
}

impl Sending {
    /// Appends the head to `out`.
    pub fn begin(response: Response<ResponseBody>, asked: Asked, out: &mut BytesMut) -> Self {
        let (end, closes) = encode::head(out, &response, response.body.request_id(), asked);
        let Response { status, body, .. } = response;
        let has_body = end != BodyEnd::None && !body.is_end_stream();
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        Sending { body: has_body.then_some(body), end, asked, failed: false, closes, switches }
    }

    /// Takes what there is of the body, as far as there is room for it. Pending when the body has to go on first.
    pub fn poll_gather(&mut self, out: &mut Outbound, buffers: &Buffers, cx: &mut Context<'_>) -> Poll<()> {
        while out.has_room()
            && let Some(body) = &mut self.body
        {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let is_last = body.is_end_stream();
                    match frame.into_data() {
                        Ok(data) => self.end.push(data, is_last, out, buffers),
                        Err(frame) => {
                            let trailers = frame.into_trailers().unwrap_or_default();
                            self.end.trailers(&trailers, self.asked, out, buffers);
                        }
                    }
                    if is_last {
                        self.end.end(out, buffers);
                        if let Some(body) = self.body.take() {
                            body.end();
                        }
                    }
                }
                Some(Err(_)) => {
                    self.failed = true;
                    self.body = None;
                }
                None => {
                    self.end.end(out, buffers);
                    self.body = None;
                }
            }
        }
        Poll::Ready(())
    }

    /// Sends on what is left of the request, while the client takes nothing: it may read the response only when
    /// it has sent everything.
    pub fn send_on(&mut self, cx: &mut Context<'_>) {
        if let Some(body) = &mut self.body {
            body.send_on(cx);
        }
    }

    /// Nothing more comes of the body.
    pub fn is_over(&self) -> bool {
        self.body.is_none()
    }

    /// The client has got less than it was promised.
    pub fn broke_off(&self) -> bool {
        self.failed || !self.end.is_kept()
    }
}
