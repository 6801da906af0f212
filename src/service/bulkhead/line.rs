//! Requests that wait, in the order in which they came; any of them may leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// Bounded by whoever lets requests in.
#[derive(Debug, Default)]
pub struct Line {
    next: u64,
    /// By number: the first came first.
    waiting: BTreeMap<u64, Arc<Turn>>,
}

/// Whether it is somebody's turn.
#[derive(Debug, Default)]
pub struct Turn {
    has_come: AtomicBool,
    waker: AtomicWaker,
}

impl Line {
    /// Appends one, and gives its number.
    pub fn push(&mut self) -> (u64, Arc<Turn>) {
        let number = self.next;
        self.next += 1;
        let turn = Arc::<Turn>::default();
        self.waiting.insert(number, turn.clone());
        (number, turn)
    }

    pub fn pop(&mut self) -> Option<Arc<Turn>> {
        self.waiting.pop_first().map(|(_, turn)| turn)
    }

    /// Whether it was there still.
    pub fn remove(&mut self, number: u64) -> bool {
        self.waiting.remove(&number).is_some()
    }
}

impl Turn {
    pub fn come(&self) {
        self.has_come.store(true, Release);
    }

    /// After [`Turn::come`], without a lock held.
    pub fn wake(&self) {
        self.waker.wake();
    }

    pub fn poll_come(&self, cx: &mut Context<'_>) -> bool {
        if self.has_come.load(Acquire) {
            return true;
        }
        self.waker.register(cx.waker());
        // It may have come before there was anybody to wake.
        self.has_come.load(Acquire)
    }
}
