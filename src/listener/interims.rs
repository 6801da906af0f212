//! Interim responses (1xx) on their way to an HTTP/1.1 client: bytes that its connection writes in front of the
//! final response.

use std::cell::{Cell, OnceCell, RefCell};
use std::task::Waker;

use http::StatusCode;

use crate::http::fields::Fields;
use crate::http::interim;
use crate::service::InformationalSink;

/// Bytes that may wait for the client; what does not fit is left out, as RFC 9110 §15.2 allows.
const MAX_BYTES: usize = 16 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Those of one connection.
#[derive(Debug, Default)]
pub struct Interims {
    /// A request waits for its final response: only then is there anything to be in front of.
    open: Cell<bool>,
    waiting: Cell<bool>,
    bytes: RefCell<Vec<u8>>,
    /// The connection's task, which stays the same for its life.
    task: OnceCell<Waker>,
}

impl Interims {
    /// The task to wake when there is something for the connection to do.
    pub fn set_task(&self, waker: &Waker) {
        self.task.get_or_init(|| waker.clone());
    }

    pub fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    pub fn open(&self) {
        self.open.set(true);
    }

    /// What has come so far; nothing more comes before the next request.
    pub fn close(&self) -> Option<Vec<u8>> {
        self.open.set(false);
        self.take()
    }

    /// The bytes that wait to be written, if any.
    pub fn take(&self) -> Option<Vec<u8>> {
        if !self.waiting.get() {
            return None;
        }
        self.waiting.set(false);
        Some(self.bytes.take())
    }

    /// The client may send its body (RFC 9110 §10.1.1).
    pub fn go_on(&self) {
        if self.open.get() {
            self.bytes.borrow_mut().extend_from_slice(CONTINUE);
            self.waiting.set(true);
            self.wake();
        }
    }
}

impl InformationalSink for Interims {
    fn interim(&self, status: StatusCode, fields: &Fields) {
        if !self.open.get() || !interim::may_pass(status) {
            return;
        }
        let mut bytes = self.bytes.borrow_mut();
        let before = bytes.len();
        interim::encode_http1(status, fields, &mut bytes);
        if bytes.len() > MAX_BYTES {
            bytes.truncate(before);
            return;
        }
        self.waiting.set(true);
        drop(bytes);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(interims: &Interims) {
        let mut fields = Fields::new();
        fields.insert(http::header::LINK, "</style.css>; rel=preload".parse().expect("a constant"));
        interims.interim(StatusCode::EARLY_HINTS, &fields);
    }

    #[test]
    fn they_are_bounded() {
        let interims = Interims::default();
        interims.open();
        (0..10_000).for_each(|_| hint(&interims));
        let bytes = interims.take().expect("some were kept");
        assert!(bytes.len() <= MAX_BYTES);
        assert!(bytes.starts_with(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"));
        assert_eq!(interims.take(), None);
    }

    #[test]
    fn none_comes_without_a_request_that_waits() {
        let interims = Interims::default();
        hint(&interims);
        interims.go_on();
        assert_eq!(interims.take(), None);
        interims.open();
        interims.go_on();
        assert_eq!(interims.close().as_deref(), Some(CONTINUE));
        hint(&interims);
        assert_eq!(interims.take(), None);
    }
}
