//! The thread that turns records into lines and writes them. It alone may wait for the output.
//!
//! A failing output (a full disk, a reader of stdout that has gone) is reported once, costs the
//! records that come meanwhile, and is tried again every second. Lines are never torn: after a
//! write that stopped in the middle of one, the next begins on a new line.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::access_log::{Counts, Message, Order, Output, QUEUE_BATCHES, Shared};
use super::events;
use super::record::{LineFormat, LogRecord};
use crate::clock::{self, Millis};

const BUFFER_BYTES: usize = 64 * 1024;
const RETRY_AFTER: Duration = Duration::from_secs(1);
const REPORT_LOSSES_EVERY: Duration = Duration::from_secs(60);

/// Returns when it is told to stop, having written what was queued by then.
pub(super) fn run(output: Output, queue: &Receiver<Message>, shared: &Shared) {
    let mut sink = Sink::new(output, &shared.counts);
    let mut losses = LossReport::default();
    sink.open();
    loop {
        let message = match queue.try_recv() {
            Ok(message) => message,
            Err(_) => {
                sink.flush();
                match queue.recv() {
                    Ok(message) => message,
                    Err(_) => return,
                }
            }
        };
        if take(message, &mut sink) == Next::Stop || late_order(queue, shared, &mut sink) == Next::Stop {
            return;
        }
        losses.report(shared.counts.dropped.load(Ordering::Relaxed), clock::now());
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

fn take(message: Message, sink: &mut Sink) -> Next {
    match message {
        Message::Batch(batch) => {
            for record in &batch.records {
                sink.write(record);
            }
            batch.recycle();
            Next::GoOn
        }
        Message::Order(order) => obey(order, sink),
    }
}

/// An order that found the queue full: what fills it comes first.
fn late_order(queue: &Receiver<Message>, shared: &Shared, sink: &mut Sink) -> Next {
    if !shared.has_late_order() {
        return Next::GoOn;
    }
    for message in queue.try_iter().take(QUEUE_BATCHES) {
        if take(message, sink) == Next::Stop {
            return Next::Stop;
        }
    }
    shared.take_late_order().map_or(Next::GoOn, |order| obey(order, sink))
}

fn obey(order: Order, sink: &mut Sink) -> Next {
    sink.flush();
    if order.output.is_some() || order.reopen {
        sink.output = order.output.unwrap_or(sink.output.clone());
        (sink.torn, sink.failed_at) = (false, None);
        sink.open();
    }
    if order.stop { Next::Stop } else { Next::GoOn }
}

/// Tells of losses at their beginning and then once in a while.
#[derive(Default)]
struct LossReport {
    told: u64,
    told_at: Option<Millis>,
}

impl LossReport {
    fn report(&mut self, dropped: u64, now: Millis) {
        let due = self.told_at.is_none_or(|told_at| now.since(told_at) >= REPORT_LOSSES_EVERY);
        if dropped > self.told && due {
            let more = dropped - self.told;
            events::warn(format_args!(
                "access log: {more} records dropped, the output is too slow or failing"
            ));
            (self.told, self.told_at) = (dropped, Some(now));
        }
    }
}

/// The output and the lines that are ready for it.
struct Sink<'a> {
    output: Output,
    counts: &'a Counts,
    format: LineFormat,
    buffer: Vec<u8>,
    lines: u64,
    target: Option<Box<dyn Write>>,
    /// Since the last try at a failing output.
    failed_at: Option<Millis>,
    /// The last byte that reached the output was not the end of a line.
    torn: bool,
}

impl<'a> Sink<'a> {
    fn new(output: Output, counts: &'a Counts) -> Self {
        Sink {
            output,
            counts,
            format: LineFormat::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES + 4096),
            lines: 0,
            target: None,
            failed_at: None,
            torn: false,
        }
    }

    fn write(&mut self, record: &LogRecord) {
        if self.output == Output::Off {
            return;
        }
        self.format.write(record, &mut self.buffer);
        self.lines += 1;
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if self.target.is_none() && self.failed_at.is_none_or(|at| clock::now().since(at) >= RETRY_AFTER) {
            self.open();
        }
        let written = match self.target.as_mut() {
            Some(target) => {
                let end_torn_line: &[u8] = if self.torn { b"\n" } else { b"" };
                let (bytes, result) = write_all(target, end_torn_line, &self.buffer);
                if let Some(&last) = bytes.last() {
                    self.torn = last != b'\n';
                }
                match result {
                    Ok(()) => {
                        self.recovered();
                        self.lines
                    }
                    Err(error) => {
                        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
                        self.failed(&error);
                        lines
                    }
                }
            }
            None => 0,
        };
        self.counts.written.fetch_add(written, Ordering::Relaxed);
        self.counts.dropped.fetch_add(self.lines - written, Ordering::Relaxed);
        self.buffer.clear();
        self.lines = 0;
    }

    fn open(&mut self) {
        match open(&self.output) {
            Ok(target) => self.target = target,
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if self.failed_at.is_none() {
            events::error(format_args!("access log: cannot write to {}: {error}", self.name()));
        }
        self.failed_at = Some(clock::now());
        self.target = None;
    }

    fn recovered(&mut self) {
        if self.failed_at.take().is_some() {
            events::info(format_args!("access log: writing to {} again", self.name()));
        }
    }

    fn name(&self) -> String {
        match &self.output {
            Output::Stdout => "stdout".into(),
            Output::File(path) => path.display().to_string(),
            Output::Off => "nowhere".into(),
        }
    }
}

/// The part of `lines` that was written, and how it ended.
fn write_all<'l>(out: &mut dyn Write, before: &[u8], lines: &'l [u8]) -> (&'l [u8], io::Result<()>) {
    for (is_lines, bytes) in [(false, before), (true, lines)] {
        let mut done = 0;
        while done < bytes.len() {
            let result = match out.write(&bytes[done..]) {
                Ok(0) => Err(io::Error::from(ErrorKind::WriteZero)),
                Ok(count) => {
                    done += count;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Somebody made our stdout non-blocking: wait as if it were not.
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Err(error) => Err(error),
            };
            return (if is_lines { &lines[..done] } else { b"" }, result);
        }
    }
    (lines, Ok(()))
}

fn open(output: &Output) -> io::Result<Option<Box<dyn Write>>> {
    Ok(Some(match output {
        Output::Off => return Ok(None),
        // A file of its own, because std's stdout looks for line ends in all that it writes.
        Output::Stdout => Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        Output::File(path) => Box::new(OpenOptions::new().append(true).create(true).open(path)?),
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::telemetry::record::tests::record;

    /// Takes so many bytes, then fails as a pipe does whose reader has gone.
    #[derive(Clone)]
    struct Pipe {
        takes: usize,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.takes == 0 {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let count = bytes.len().min(self.takes).min(100);
            self.takes -= count;
            self.taken.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn after_a_torn_line_the_next_begins_anew() {
        let counts = Counts::default();
        let mut line = Vec::new();
        LineFormat::new().write(&record("/"), &mut line);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let mut sink = Sink::new(Output::Stdout, &counts);
        sink.target = Some(Box::new(Pipe { takes: line.len() * 3 / 2, taken: taken.clone() }));
        for _ in 0..3 {
            sink.write(&record("/"));
        }
        sink.flush();
        assert!(sink.target.is_none() && sink.torn);
        let counted = || (counts.written.load(Ordering::Relaxed), counts.dropped.load(Ordering::Relaxed));
        assert_eq!(counted(), (1, 2));

        // The same pipe, read again.
        sink.target = Some(Box::new(Pipe { takes: usize::MAX, taken: taken.clone() }));
        sink.write(&record("/"));
        sink.flush();
        assert_eq!(counted(), (2, 2));
        let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        for whole in [lines[0], lines[2]] {
            serde_json::from_str::<serde_json::Value>(whole).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_opened_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("logs");
        let counts = Counts::default();
        let mut sink = Sink::new(Output::File(missing.join("access.log")), &counts);
        sink.open();
        assert!(sink.failed_at.is_some());
        std::fs::create_dir(&missing).unwrap();

        sink.write(&record("/too-soon"));
        sink.flush();
        assert_eq!(counts.dropped.load(Ordering::Relaxed), 1);
        tokio::time::advance(RETRY_AFTER).await;
        sink.write(&record("/in-time"));
        sink.flush();
        assert!(sink.failed_at.is_none());
        let text = std::fs::read_to_string(missing.join("access.log")).unwrap();
        assert!(text.contains("/in-time") && !text.contains("/too-soon"));
    }

    #[test]
    fn losses_are_told_at_once_and_then_once_in_a_while() {
        let mut losses = LossReport::default();
        losses.report(0, Millis(0));
        assert_eq!(losses.told_at, None);
        losses.report(5, Millis(10));
        losses.report(9, Millis(20));
        assert_eq!((losses.told, losses.told_at), (5, Some(Millis(10))));
        let later = Millis(10).plus(REPORT_LOSSES_EVERY);
        losses.report(9, later);
        assert_eq!((losses.told, losses.told_at), (9, Some(later)));
    }
}
