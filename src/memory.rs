//! Whether the process has memory for new work. The control side looks at it from time to time; requests look at one
//! flag, where there is a limit at all.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// `max_memory`, and whether the process has come up to it.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    is_full: AtomicBool,
}

impl Memory {
    pub fn new(limit: u64) -> Self {
        Memory { limit, is_full: AtomicBool::new(false) }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// New requests are refused.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Relaxed)
    }

    /// Notes how many bytes are in use. Says when that has changed anything. What was full takes new work only once
    /// a tenth is free, so that it does not go to and fro with each request.
    pub fn note(&self, used: u64) -> Option<bool> {
        let was_full = self.is_full();
        let is_full = used >= if was_full { self.limit - self.limit / 10 } else { self.limit };
        self.is_full.store(is_full, Relaxed);
        (is_full != was_full).then_some(is_full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_again_when_a_tenth_is_free() {
        let memory = Memory::new(1000);
        assert_eq!((memory.note(999), memory.is_full()), (None, false));
        assert_eq!((memory.note(1000), memory.is_full()), (Some(true), true));
        assert_eq!((memory.note(900), memory.is_full()), (None, true));
        assert_eq!((memory.note(899), memory.is_full()), (Some(false), false));
        assert_eq!(memory.note(950), None);
    }
}
