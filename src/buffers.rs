//! The buffers that a worker's connections read into. A connection has one only while there is something in
//! it: what is idle holds none, and what wakes up gets one that is warm.

use std::cell::RefCell;

use bytes::BytesMut;

/// A request or response of ordinary size, head and body, comes with one read.
pub const BUFFER_BYTES: usize = 32 * 1024;

/// More than this many spare ones are given back to the allocator: a burst's buffers don't stay for ever.
const MAX_SPARE: usize = 64;

#[derive(Default)]
pub struct Buffers {
    spare: RefCell<Vec<BytesMut>>,
}

impl Buffers {
    /// An empty buffer with room for [`BUFFER_BYTES`].
    pub fn take(&self) -> BytesMut {
        self.spare.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
    }

    /// As [`give`](Self::give), if there is one.
    pub fn give_back(&self, buffer: &mut BytesMut) {
        if buffer.capacity() > 0 {
            self.give(std::mem::take(buffer));
        }
    }

    /// Takes back a buffer that nobody needs any more. One of which somebody still holds a piece is left to
    /// whoever drops the last piece.
    pub fn give(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MAX_SPARE
            && buffer.try_reclaim(BUFFER_BYTES)
            && buffer.capacity() <= 2 * BUFFER_BYTES
        {
            spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_once_nobody_holds_a_piece_of_it() {
        let buffers = Buffers::default();
        let mut first = buffers.take();
        first.extend_from_slice(b"head and body");
        let place = first.as_ptr();
        let piece = first.split_to(4).freeze();
        buffers.give(first);
        assert!(buffers.spare.borrow().is_empty());
        assert_eq!(piece, "head");

        let mut second = buffers.take();
        assert_ne!(second.as_ptr(), place);
        second.extend_from_slice(b"head and body");
        drop(second.split_to(4));
        buffers.give(second);
        let third = buffers.take();
        assert!(third.is_empty() && third.capacity() >= BUFFER_BYTES);
        assert!(buffers.spare.borrow().is_empty());
    }

    #[test]
    fn neither_many_nor_large_ones_are_kept() {
        let buffers = Buffers::default();
        buffers.give(BytesMut::with_capacity(4 * BUFFER_BYTES));
        buffers.give(BytesMut::with_capacity(16));
        assert!(buffers.spare.borrow().is_empty());
        for _ in 0..2 * MAX_SPARE {
            buffers.give(BytesMut::with_capacity(BUFFER_BYTES));
        }
        assert_eq!(buffers.spare.borrow().len(), MAX_SPARE);
    }
}
