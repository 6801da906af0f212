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
    /// Nothing has been told since, so that the failure may be.
    has_paused: bool,
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
        Flow { writer: Some(Box::pin(writer)), desk, failure: None, has_paused: false }
    }

    /// Nothing more comes.
    pub fn is_end(&self) -> bool {
        self.writer.is_none() && self.failure.is_none() && self.desk.is_free()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if self.desk.is_free() {
            self.write_on(cx);
        }
        if let Some(piece) = self.desk.piece.take() {
            self.has_paused = false;
            return Poll::Ready(Some(Ok(piece)));
        }
        if self.writer.is_some() {
            return Poll::Pending;
        }
        if self.failure.is_some() && !self.has_paused {
            // What was told before it is worth sending on, which takes a pause.
            self.has_paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.failure.take().map(Err))
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::task::noop_waker;

    use super::*;

    /// Writes these, then ends so.
    fn flow(pieces: &'static [&'static str], result: Result<(), Reason>) -> Flow {
        let desk = Rc::new(Desk::default());
        let lays = desk.clone();
        Flow::new(desk, async move {
            for piece in pieces {
                poll_fn(|_| if lays.is_free() { Poll::Ready(()) } else { Poll::Pending }).await;
                lays.lay(Frame::data(Bytes::from_static(piece.as_bytes())));
            }
            result
        })
    }

    fn next(flow: &mut Flow) -> Poll<Option<Result<Bytes, Reason>>> {
        let waker = noop_waker();
        let polled = flow.poll_frame(&mut Context::from_waker(&waker));
        polled.map_ok(|frame| frame.into_data().expect("nothing but data is laid down"))
    }

    #[test]
    fn pieces_come_one_by_one_and_the_end_with_the_last() {
        let mut flow = flow(&["a", "b"], Ok(()));
        assert!(!flow.is_end());
        assert_eq!(next(&mut flow), Poll::Ready(Some(Ok("a".into()))));
        // The client takes nothing for a while: what is laid down stays.
        for _ in 0..3 {
            flow.write_on(&mut Context::from_waker(&noop_waker()));
            assert!(!flow.is_end());
        }
        assert_eq!(next(&mut flow), Poll::Ready(Some(Ok("b".into()))));
        assert!(flow.is_end());
        assert_eq!(next(&mut flow), Poll::Ready(None));
    }

    #[test]
    fn a_failure_comes_behind_all_that_was_written_and_a_pause() {
        let mut flow = flow(&["a"], Err(Reason::PartFailed));
        assert_eq!(next(&mut flow), Poll::Ready(Some(Ok("a".into()))));
        assert!(!flow.is_end());
        assert!(next(&mut flow).is_pending());
        assert_eq!(next(&mut flow), Poll::Ready(Some(Err(Reason::PartFailed))));
        assert_eq!(next(&mut flow), Poll::Ready(None));
    }
}
