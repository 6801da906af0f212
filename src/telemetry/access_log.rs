//! The access log's side that workers see: records go in, in batches, and nobody waits.
//!
//! A worker keeps its records until there are `BATCH_RECORDS` of them or its tick comes, and hands
//! the whole batch to the writer's thread through a bounded queue. When the queue is full, which
//! means that the output has been too slow for a while, the batch is dropped and counted.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::record::LogRecord;
use super::writer;
use crate::config;

/// Waking the writer's thread and taking turns with it costs some 20 µs where both have one core. So a batch is as long
/// as what a busy worker answers between two of its ticks.
const BATCH_RECORDS: usize = 256;
/// About 65,000 records when batches are full: a third of a second at 200,000 requests a second.
pub(super) const QUEUE_BATCHES: usize = 256;
const EMPTY_BATCHES_KEPT: usize = 2;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout,
    File(PathBuf),
    Off,
}

impl From<&config::LogOutput> for Output {
    fn from(written: &config::LogOutput) -> Self {
        match written {
            config::LogOutput::Stdout => Output::Stdout,
            config::LogOutput::File(path) => Output::File(path.clone()),
            config::LogOutput::Off => Output::Off,
        }
    }
}

/// The control side's handle. Dropping it stops the writer's thread without waiting for it.
pub struct AccessLog {
    shared: Arc<Shared>,
    /// Receives once, when the writer's thread has written everything and ends.
    ended: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Starts the writer's thread. An output that cannot be opened is no error: it is reported as an
    /// event and tried again.
    pub fn start(output: Output) -> io::Result<Self> {
        let (queue, batches) = sync_channel(QUEUE_BATCHES);
        let shared = Arc::new(Shared {
            queue,
            enabled: AtomicBool::new(output != Output::Off),
            late_order: Mutex::default(),
            counts: Counts::default(),
        });
        let (done, ended) = sync_channel(1);
        let of_thread = shared.clone();
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            writer::run(output, &batches, &of_thread);
            let _ = done.try_send(());
        })?;
        Ok(AccessLog { shared, ended: Mutex::new(ended) })
    }

    /// One for each worker.
    pub fn sender(&self) -> LogSender {
        LogSender { shared: self.shared.clone(), home: Arc::default(), batch: RefCell::default() }
    }

    /// What was handed over before goes to the old output.
    pub fn set_output(&self, output: Output) {
        self.shared.enabled.store(output != Output::Off, Ordering::Relaxed);
        self.shared.order(Order { output: Some(output), ..Order::default() });
    }

    /// Opens the file again, after a log rotation has renamed it.
    pub fn reopen(&self) {
        self.shared.order(Order { reopen: true, ..Order::default() });
    }

    /// Lines written since the start.
    pub fn written(&self) -> u64 {
        self.shared.counts.written.load(Ordering::Relaxed)
    }

    /// Records that were lost: the queue was full or the output failed.
    pub fn dropped(&self) -> u64 {
        self.shared.counts.dropped.load(Ordering::Relaxed)
    }

    /// Writes what was handed over (senders hand over when they are dropped) and ends the thread.
    /// False when the output did not take it all within the time; the process may end all the same.
    pub fn shutdown(&self, within: Duration) -> bool {
        self.shared.order(Order { stop: true, ..Order::default() });
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(within) {
            Ok(()) => true,
            // A second shutdown finds the thread gone.
            Err(error) => error == std::sync::mpsc::RecvTimeoutError::Disconnected,
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.order(Order { stop: true, ..Order::default() });
    }
}

/// A worker's own end. Not shared between threads, so nothing in it is contended.
pub struct LogSender {
    shared: Arc<Shared>,
    home: Arc<Home>,
    batch: RefCell<Vec<LogRecord>>,
}

impl LogSender {
    /// False while the output is off: a caller need not even make a record.
    pub fn enabled(&self) -> bool {
        self.shared.enabled.load(Ordering::Relaxed)
    }

    pub fn push(&self, record: LogRecord) {
        if !self.enabled() {
            return;
        }
        let mut batch = self.batch.borrow_mut();
        if batch.capacity() == 0 {
            *batch = self.home.take();
        }
        batch.push(record);
        if batch.len() >= BATCH_RECORDS {
            self.hand_over(std::mem::take(&mut *batch));
        }
    }

    /// To be called every few milliseconds, so that no record waits long for its batch to fill.
    pub fn flush(&self) {
        let mut batch = self.batch.borrow_mut();
        if !batch.is_empty() {
            self.hand_over(std::mem::take(&mut *batch));
        }
    }

    fn hand_over(&self, records: Vec<LogRecord>) {
        let batch = Message::Batch(Batch { records, home: self.home.clone() });
        let (Err(TrySendError::Full(refused)) | Err(TrySendError::Disconnected(refused))) =
            self.shared.queue.try_send(batch)
        else {
            return;
        };
        if let Message::Batch(batch) = refused {
            self.shared.counts.dropped.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
            batch.recycle();
        }
    }
}

impl Drop for LogSender {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What the handle, the senders and the writer's thread share.
pub(super) struct Shared {
    queue: SyncSender<Message>,
    enabled: AtomicBool,
    /// For which there was no room in the queue, and all that follow until it is obeyed.
    late_order: Mutex<Option<Order>>,
    pub(super) counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
}

pub(super) enum Message {
    Batch(Batch),
    /// Its place in the queue tells what belongs to the time before it.
    Order(Order),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) output: Option<Output>,
    pub(super) reopen: bool,
    pub(super) stop: bool,
}

impl Shared {
    fn order(&self, order: Order) {
        let mut late = self.late_order.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(earlier) = &mut *late else {
            if let Err(TrySendError::Full(Message::Order(order))) = self.queue.try_send(Message::Order(order))
            {
                *late = Some(order);
            }
            return;
        };
        earlier.output = order.output.or(earlier.output.take());
        earlier.reopen |= order.reopen;
        earlier.stop |= order.stop;
    }

    pub(super) fn has_late_order(&self) -> bool {
        self.late_order.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn take_late_order(&self) -> Option<Order> {
        self.late_order.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

pub(super) struct Batch {
    pub(super) records: Vec<LogRecord>,
    home: Arc<Home>,
}

impl Batch {
    /// Gives the emptied vector back to the worker that it came from.
    pub(super) fn recycle(mut self) {
        self.records.clear();
        self.home.put(self.records);
    }
}

/// A worker's empty batches. Only that worker and the writer's thread look into it, and neither
/// waits for the other: who finds it taken goes without.
#[derive(Default)]
struct Home {
    empty: Mutex<Vec<Vec<LogRecord>>>,
}

impl Home {
    fn take(&self) -> Vec<LogRecord> {
        let kept = self.empty.try_lock().ok().and_then(|mut empty| empty.pop());
        kept.unwrap_or_else(|| Vec::with_capacity(BATCH_RECORDS))
    }

    fn put(&self, records: Vec<LogRecord>) {
        if let Ok(mut empty) = self.empty.try_lock()
            && empty.len() < EMPTY_BATCHES_KEPT
        {
            empty.push(records);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;
    use crate::telemetry::record::tests::record;

    const SOON: Duration = Duration::from_secs(10);

    fn paths(file: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let path = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_owned()
        };
        text.lines().map(path).collect()
    }

    fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn everything_handed_over_is_written_in_order_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let log = AccessLog::start(Output::File(file.clone())).unwrap();
        let sender = log.sender();
        let expected: Vec<_> = (0..BATCH_RECORDS * 20 + 7).map(|n| format!("/{n}")).collect();
        for path in &expected {
            sender.push(record(path));
        }
        drop(sender);
        assert!(log.shutdown(SOON));
        assert_eq!(paths(&file), expected);
        assert_eq!((log.written(), log.dropped()), (expected.len() as u64, 0));
        assert!(log.shutdown(SOON), "a second shutdown has nothing to wait for");
    }

    #[test]
    fn a_flushed_record_is_on_disk_without_more_traffic() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let log = AccessLog::start(Output::File(file.clone())).unwrap();
        let sender = log.sender();
        sender.push(record("/only"));
        assert_eq!(log.written(), 0);
        sender.flush();
        wait_until("the line is written", || paths(&file) == ["/only"]);
    }

    #[test]
    fn a_renamed_file_is_left_on_reopen() {
        let directory = tempfile::tempdir().unwrap();
        let (file, rotated) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
        let log = AccessLog::start(Output::File(file.clone())).unwrap();
        let sender = log.sender();
        sender.push(record("/before"));
        sender.flush();
        wait_until("the file exists", || file.exists());
        std::fs::rename(&file, &rotated).unwrap();
        log.reopen();
        wait_until("the file is opened again", || file.exists());
        sender.push(record("/after"));
        sender.flush();
        assert!(log.shutdown(SOON));
        assert_eq!((paths(&rotated), paths(&file)), (vec!["/before".into()], vec!["/after".into()]));
    }

    #[test]
    fn the_output_changes_while_running() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("1"), directory.path().join("2"));
        let log = AccessLog::start(Output::File(first.clone())).unwrap();
        let sender = log.sender();
        sender.push(record("/1"));
        sender.flush();
        log.set_output(Output::Off);
        assert!(!sender.enabled());
        sender.push(record("/lost on purpose"));
        sender.flush();
        log.set_output(Output::File(second.clone()));
        sender.push(record("/2"));
        sender.flush();
        assert!(log.shutdown(SOON));
        assert_eq!((paths(&first), paths(&second)), (vec!["/1".into()], vec!["/2".into()]));
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn an_output_that_takes_nothing_costs_records_but_no_time() {
        let log = AccessLog::start(Output::File("/dev/full".into())).unwrap();
        let sender = log.sender();
        sender.push(record("/"));
        sender.flush();
        wait_until("the loss is counted", || log.dropped() == 1);
        assert_eq!(log.written(), 0);
        assert!(log.shutdown(SOON));
    }

    /// A sender to a queue of two batches that nobody reads yet.
    fn unread() -> (LogSender, Arc<Shared>, Receiver<Message>) {
        let (queue, batches) = sync_channel(2);
        let shared = Arc::new(Shared {
            queue,
            enabled: AtomicBool::new(true),
            late_order: Mutex::default(),
            counts: Counts::default(),
        });
        let sender = LogSender { shared: shared.clone(), home: Arc::default(), batch: RefCell::default() };
        (sender, shared, batches)
    }

    #[test]
    fn orders_are_obeyed_although_the_queue_was_full() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let (sender, shared, batches) = unread();
        for path in ["/1", "/2"] {
            sender.push(record(path));
            sender.flush();
        }
        let second = directory.path().join("second.log");
        shared.order(Order { output: Some(Output::File(second.clone())), ..Order::default() });
        shared.order(Order { stop: true, ..Order::default() });
        writer::run(Output::File(file.clone()), &batches, &shared);
        assert_eq!(paths(&file), ["/1", "/2"]);
        assert!(second.exists());
    }

    #[test]
    fn a_full_queue_drops_batches_and_counts_them() {
        let (sender, shared, batches) = unread();
        for _ in 0..BATCH_RECORDS * 5 {
            sender.push(record("/"));
        }
        assert_eq!(shared.counts.dropped.load(Ordering::Relaxed) as usize, BATCH_RECORDS * 3);
        assert_eq!(batches.try_iter().count(), 2);
    }
}
