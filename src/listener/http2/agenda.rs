//! Which parts of an HTTP/2 connection have something to do. All of them are polled by the connection's task, and only
//! those that were woken: what one of them wakes during the task's turn is looked at in the same turn.
//!
//! No wake is lost: a part is noted before the task is asked for, and the task looks once more after saying that it
//! sleeps.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};

pub struct Agenda {
    /// One bit a part.
    noted: Box<[AtomicU64]>,
    /// The task has its turn, or has been woken for one.
    awake: AtomicBool,
    /// The connection's task, which stays the same for its life.
    task: OnceLock<Waker>,
}

struct Part {
    agenda: Arc<Agenda>,
    number: usize,
}

impl Agenda {
    pub fn new(parts: usize) -> Arc<Self> {
        let words = parts.div_ceil(u64::BITS as usize);
        Arc::new(Agenda {
            noted: (0..words).map(|_| AtomicU64::new(0)).collect(),
            awake: AtomicBool::new(true),
            task: OnceLock::new(),
        })
    }

    /// The waker of a part.
    pub fn waker(self: &Arc<Self>, number: usize) -> Waker {
        debug_assert!(number / 64 < self.noted.len());
        Arc::new(Part { agenda: self.clone(), number }).into()
    }

    /// The connection's task has its turn.
    pub fn begin(&self, cx: &Context<'_>) {
        self.task.get_or_init(|| cx.waker().clone());
        self.awake.store(true, SeqCst);
    }

    /// The turn is over, unless something was noted meanwhile.
    pub fn is_over(&self) -> bool {
        self.awake.store(false, SeqCst);
        if self.is_empty() {
            return true;
        }
        self.awake.store(true, SeqCst);
        false
    }

    pub fn is_empty(&self) -> bool {
        self.noted.iter().all(|word| word.load(SeqCst) == 0)
    }

    /// Notes a part, in the task's turn.
    pub fn note(&self, number: usize) {
        let (word, bit) = place(number);
        if let Some(word) = self.noted.get(word) {
            word.fetch_or(bit, SeqCst);
        }
    }

    /// Whether the part was noted, which it then is no more.
    pub fn take(&self, number: usize) -> bool {
        let (word, bit) = place(number);
        self.noted.get(word).is_some_and(|word| word.fetch_and(!bit, SeqCst) & bit != 0)
    }

    /// The first that is noted of the parts from `number` on.
    pub fn next(&self, number: usize) -> Option<usize> {
        let (first, bit) = place(number);
        let mut mask = !(bit - 1);
        for (index, word) in self.noted.iter().enumerate().skip(first) {
            let found = word.load(SeqCst) & mask;
            if found != 0 {
                return Some(index * 64 + found.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }
}

impl Wake for Part {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.agenda.note(self.number);
        if !self.agenda.awake.swap(true, SeqCst)
            && let Some(task) = self.agenda.task.get()
        {
            task.wake_by_ref();
        }
    }
}

fn place(number: usize) -> (usize, u64) {
    (number / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn parts_are_found_in_order() {
        let agenda = Agenda::new(200);
        for number in [0, 63, 64, 199] {
            agenda.note(number);
        }
        let mut found = Vec::new();
        while let Some(number) = agenda.next(found.last().map_or(0, |last| last + 1)) {
            assert!(agenda.take(number) && !agenda.take(number));
            found.push(number);
        }
        assert_eq!(found, [0, 63, 64, 199]);
        assert!(agenda.is_empty());
    }

    #[test]
    fn the_task_is_woken_once_and_only_while_it_sleeps() {
        let count = Arc::<Count>::default();
        let waker = Waker::from(count.clone());
        let agenda = Agenda::new(2);
        agenda.begin(&Context::from_waker(&waker));
        agenda.waker(1).wake();
        assert!(!agenda.is_over(), "it was noted in the turn");
        assert_eq!(count.0.load(SeqCst), 0);
        assert!(agenda.take(1) && agenda.is_over());
        agenda.waker(0).wake();
        agenda.waker(1).wake();
        assert_eq!(count.0.load(SeqCst), 1);
        agenda.begin(&Context::from_waker(&waker));
        assert_eq!((agenda.next(0), agenda.next(1)), (Some(0), Some(1)));
    }
}
