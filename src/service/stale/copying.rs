//! The body of an answer that is kept while it is passed on. What the client gets is the same, when it comes, as without; a copy that
//! grows too large is let go.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::kept::Kept;
use super::store::{Held, StaleStore};
use crate::reason::Reason;
use crate::service::UpstreamBody;

pub struct Copying {
    body: UpstreamBody,
    /// Until it is complete, or is not to be kept any more.
    copy: Option<Copy>,
}

struct Copy {
    store: Arc<StaleStore>,
    kept: Kept,
    held: Held,
    body: Vec<u8>,
}

impl Copying {
    /// Keeps `kept` with `body` in `store` once that is complete. Gives the body back if it can't be kept.
    pub(super) fn new(store: &Arc<StaleStore>, kept: Kept, body: UpstreamBody) -> Result<Self, UpstreamBody> {
        // Where the end of the connection is the end of the body, a crash looks like one.
        if body.ends_with_connection() {
            return Err(body);
        }
        let (mut held, told) = (store.hold(), body.size_hint().exact());
        let known = told.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let head = kept.head_bytes();
        if head.saturating_add(known) > store.largest() || !store.add(&mut held, head) {
            return Err(body);
        }
        let copy = Copy { store: store.clone(), kept, held, body: Vec::new() };
        let mut copying = Copying { body, copy: Some(copy) };
        copying.ended();
        Ok(copying)
    }

    pub fn send_on(&mut self, cx: &mut Context<'_>) {
        self.body.send_on(cx);
    }

    /// Keeps the copy if the body is through.
    fn ended(&mut self) {
        if self.body.is_end_stream()
            && let Some(copy) = self.copy.take()
        {
            copy.keep();
        }
    }
}

impl Copy {
    fn add(&mut self, data: &Bytes) -> bool {
        let fits = self.store.add(&mut self.held, data.len());
        if fits {
            self.body.extend_from_slice(data);
        }
        fits
    }

    fn keep(self) {
        let Copy { store, kept, held, body } = self;
        // Without the room that it had to grow.
        let body = Bytes::from(body.into_boxed_slice());
        store.put(Arc::new(kept.with_body(body, held)));
    }
}

impl Body for Copying {
    type Data = Bytes;
    type Error = Reason;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => return polled,
            Poll::Ready(Some(Err(_))) => self.copy = None,
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(copy)) = (frame.data_ref(), &mut self.copy)
                    && !copy.add(data)
                {
                    self.copy = None;
                }
            }
            Poll::Ready(None) => {}
        }
        self.ended();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
