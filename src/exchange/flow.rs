//! A body that is written while it goes out: a task that lays down one piece after the other, and goes on when the
//! client has taken it. What it asks of services is done meanwhile, whether or not the client takes anything.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::Frame;

use super::UpstreamRecord;
use crate::reason::Reason;

type Writer = Pin<Box<dyn Future<Output = Result<(), Reason>>>>;

pub struct Flow {
    /// `None` once it has written all, or has given up.
    writer: Option<Writer>,
    desk: Rc<Desk>,
    failure: Option<Reason>,
}

/// Where the writer lays what is to go out. It holds one piece.
#[derive(Default)]
pub struct Desk {
    piece: Cell<Option<Frame<Bytes>>>,
    record: Cell<Option<Box<UpstreamRecord>>>,
}

impl Desk {
    /// Lays a piece down in the place of none: the writer waits until the desk is free.
    pub fn lay(&self, piece: Frame<Bytes>) {
        self.piece.set(Some(piece));
    }

    /// The piece has been taken.
    pub fn is_free(&self) -> bool {
        let piece = self.piece.take();
        let is_free = piece.is_none();
        self.piece.set(piece);
        is_free
    }

    /// How far the service side is, for the log.
    pub fn note(&self, record: UpstreamRecord) {
        self.record.set(Some(Box::new(record)));
    }
}

impl Flow {
    pub fn new(desk: Rc<Desk>, writer: impl Future<Output = Result<(), Reason>> + 'static) -> Self {
        Flow { writer: Some(Box::pin(writer)), desk, failure: None }
    }

    /// Nothing more comes.
    pub fn is_end(&self) -> bool {
        self.writer.is_none() && self.failure.is_none() && self.desk.is_free()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if let Some(piece) = self.desk.piece.take() {
            return Poll::Ready(Some(Ok(piece)));
        }
        if let Some(reason) = self.failure.take() {
            return Poll::Ready(Some(Err(reason)));
        }
        self.write_on(cx);
        if let Some(piece) = self.desk.piece.take() {
            return Poll::Ready(Some(Ok(piece)));
        }
        if self.failure.is_some() {
            // What was told before it is worth sending on, which takes a pause.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.writer.is_none() { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Goes on as far as it can without a client that takes anything.
    pub fn write_on(&mut self, cx: &mut Context<'_>) {
        let Some(writer) = &mut self.writer else { return };
        if let Poll::Ready(result) = writer.as_mut().poll(cx) {
            self.writer = None;
            self.failure = result.err();
        }
    }

    /// What has become known of the service side since.
    pub fn news(&self) -> Option<UpstreamRecord> {
        self.desk.record.take().map(|record| *record)
    }
}
