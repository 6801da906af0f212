//! The word that a worker's connections should come to an end: a flag and those to wake for it.
//! One for each listener of a worker, so a listener that a reload removes drains alone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::clients::Seat;

#[derive(Default)]
pub struct Drain {
    begun: Cell<bool>,
    open: Cell<usize>,
    next: Cell<u64>,
    /// The keys are our own numbers: nobody can choose them so that they collide.
    waiting: RefCell<HashMap<u64, Waker, foldhash::fast::FixedState>>,
    left: Notify,
}

/// A connection's place in the count of open ones, given up when dropped.
pub struct Drained {
    id: u64,
    drain: std::rc::Rc<Drain>,
    registered: Cell<bool>,
    /// Its place among the connections of its client, given up at the same time.
    _seat: Option<Box<Seat>>,
}

impl Drain {
    pub fn begin(&self) {
        self.begun.set(true);
        for (_, waker) in self.waiting.borrow_mut().drain() {
            waker.wake();
        }
    }

    pub fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Returns when one of the open connections has ended since this was last asked.
    pub async fn room(&self) {
        self.left.notified().await;
    }

    pub fn join(self: &std::rc::Rc<Self>) -> Drained {
        self.join_with(None)
    }

    /// The same for a connection that its client has a number of.
    pub fn join_with(self: &std::rc::Rc<Self>, seat: Option<Box<Seat>>) -> Drained {
        self.open.set(self.open.get() + 1);
        let id = self.next.get();
        self.next.set(id + 1);
        Drained { id, drain: self.clone(), registered: Cell::new(false), _seat: seat }
    }
}

impl Drained {
    pub fn drain(&self) -> &std::rc::Rc<Drain> {
        &self.drain
    }

    /// Ready once draining has begun. The waker is kept from the first call on: a task's stays the same.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.drain.has_begun() {
            return Poll::Ready(());
        }
        if !self.registered.replace(true) {
            self.drain.waiting.borrow_mut().insert(self.id, cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        self.drain.open.set(self.drain.open.get() - 1);
        self.drain.left.notify_one();
        if self.registered.get() {
            self.drain.waiting.borrow_mut().remove(&self.id);
        }
    }
}
