//! The gateway's own messages: what it did and what went wrong, on stderr, for people.
//!
//! ```text
//! 2026-11-21T08:31:00Z info  reloaded gateway.yaml: route users changed
//! ```
//!
//! Usable from anywhere. Once [`install`] has run, a caller never waits: lines go through a bounded
//! queue to a thread that writes them, and are lost and counted when it is full. One place in the
//! code may say `BURST` things in `WINDOW`; the rest is counted and mentioned later.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use super::json::write_string;
use super::rfc3339::rfc3339;
use crate::clock::{self, Millis};

const BURST: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);
const QUEUE_LINES: usize = 1024;

static LOG: OnceLock<EventLog> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// How a message becomes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Human { colour: bool },
    Json,
}

impl Style {
    /// For people at this process's stderr: coloured on a terminal, unless `NO_COLOR` is set.
    pub fn human() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style::Human { colour: !no_color && io::stderr().is_terminal() }
    }
}

/// Whether people read stderr on a terminal that shows colours, and have not asked for none.
pub fn colour() -> bool {
    matches!(Style::human(), Style::Human { colour: true })
}

/// Begins to write through a thread of its own. Before that, and in commands that do not serve,
/// messages are written at once. Only the first call counts.
pub fn install(style: Style) {
    if LOG.get().is_none()
        && let Some(log) = EventLog::start(style, Box::new(io::stderr()))
    {
        // Two threads installing at once: one log wins, the other's thread ends with its queue.
        let _ = LOG.set(log);
    }
}

/// Something happened as it should.
#[track_caller]
pub fn info(message: impl Display) {
    log(Level::Info, &message);
}

/// Something is wrong that the gateway lives with.
#[track_caller]
pub fn warn(message: impl Display) {
    log(Level::Warn, &message);
}

/// Something failed that somebody should look at.
#[track_caller]
pub fn error(message: impl Display) {
    log(Level::Error, &message);
}

/// Waits until everything said so far is written; false when that takes longer than `within`.
/// To be called before the process ends.
pub fn flush(within: Duration) -> bool {
    LOG.get().is_none_or(|log| log.flush(within))
}

#[track_caller]
fn log(level: Level, message: &dyn Display) {
    match LOG.get() {
        Some(log) => log.say(level, message, Location::caller(), clock::now()),
        None => {
            let line = line(Style::human(), level, &message.to_string());
            let _ = io::stderr().write_all(&line);
        }
    }
}

struct EventLog {
    style: Style,
    queue: SyncSender<Message>,
    repeats: Mutex<Repeats>,
    lost: &'static AtomicU64,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl EventLog {
    /// `None` when the system gives no thread.
    fn start(style: Style, out: Box<dyn Write + Send>) -> Option<Self> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        // One log lives as long as the process; tests make a few more.
        let lost: &'static AtomicU64 = Box::leak(Box::default());
        let thread = std::thread::Builder::new().name("events".into());
        thread.spawn(move || write_lines(style, lines, lost, out)).ok()?;
        Some(EventLog { style, queue, repeats: Mutex::default(), lost })
    }

    fn say(&self, level: Level, message: &dyn Display, site: Site, now: Millis) {
        // Held for a look into a small map, never while writing.
        let admitted = self.repeats.lock().unwrap_or_else(PoisonError::into_inner).admit(site, now);
        let text = match admitted {
            None => return,
            Some(0) => message.to_string(),
            Some(hidden) => format!("{message} ({hidden} more like it were not shown)"),
        };
        if self.queue.try_send(Message::Line(line(self.style, level, &text))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, within: Duration) -> bool {
        let (done, written) = sync_channel(1);
        // A full queue means a stuck stderr: there is nothing to wait for.
        self.queue.try_send(Message::Flush(done)).is_ok() && written.recv_timeout(within).is_ok()
    }
}

fn write_lines(style: Style, lines: Receiver<Message>, lost: &AtomicU64, mut out: Box<dyn Write + Send>) {
    for message in lines {
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let text = format!("{count} messages were lost because stderr was too slow");
            let _ = out.write_all(&line(style, Level::Warn, &text));
        }
        // Nobody is left to tell when stderr does not take a line.
        match message {
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

fn line(style: Style, level: Level, message: &str) -> Vec<u8> {
    let time = rfc3339(SystemTime::now());
    let (name, colour) = match level {
        Level::Info => ("info", "32"),
        Level::Warn => ("warn", "33"),
        Level::Error => ("error", "31"),
    };
    let message = match style {
        Style::Json => {
            let mut out = format!("{{\"time\":\"{time}\",\"level\":\"{name}\",\"message\":").into_bytes();
            write_string(message.as_bytes(), &mut out);
            out.extend_from_slice(b"}\n");
            return out;
        }
        Style::Human { .. } => shown(message),
    };
    match style {
        Style::Human { colour: true } => {
            format!("\x1b[2m{time}\x1b[0m \x1b[{colour}m{name:<5}\x1b[0m {message}\n")
        }
        _ => format!("{time} {name:<5} {message}\n"),
    }
    .into_bytes()
}

/// A message may quote foreign text: without its control characters, except that line breaks (as in
/// a list of configuration problems) become indented lines.
fn shown(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for character in message.trim_end().chars() {
        match character {
            '\n' => out.push_str("\n  "),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

type Site = &'static Location<'static>;

/// How often each place in the code has spoken lately. Bounded by the number of such places.
#[derive(Default)]
struct Repeats {
    sites: HashMap<Site, Window>,
}

struct Window {
    began: Millis,
    said: u32,
    hidden: u64,
}

impl Repeats {
    /// `None`: not now. Otherwise the number of messages of this place that were held back before.
    fn admit(&mut self, site: Site, now: Millis) -> Option<u64> {
        let window = self.sites.entry(site).or_insert(Window { began: now, said: 0, hidden: 0 });
        if now.since(window.began) >= WINDOW {
            let hidden = window.hidden;
            *window = Window { began: now, said: 1, hidden: 0 };
            return Some(hidden);
        }
        if window.said == BURST {
            window.hidden += 1;
            return None;
        }
        window.said += 1;
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn plain(text: &str) -> String {
        String::from_utf8(line(Style::Human { colour: false }, Level::Warn, text)).unwrap()
    }

    #[test]
    fn a_line_for_people() {
        let line = plain("dns of orders is silent");
        let (time, rest) = line.split_at(20);
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(rest, " warn  dns of orders is silent\n");
        assert_eq!(&plain("a\x1b[2Jb\u{9b}c")[20..], " warn  a\\u{1b}[2Jb\\u{9b}c\n");
        assert_eq!(&plain("two problems:\none\ntwo\n")[20..], " warn  two problems:\n  one\n  two\n");
    }

    #[test]
    fn colour_is_around_the_level_only() {
        let line = String::from_utf8(line(Style::Human { colour: true }, Level::Error, "no")).unwrap();
        assert!(line.ends_with("\x1b[31merror\x1b[0m no\n"), "{line:?}");
    }

    #[test]
    fn json_is_one_line_whatever_is_said() {
        let line = line(Style::Json, Level::Error, "a \"quoted\"\nthing");
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&value["level"], &value["message"]), (&"error".into(), &"a \"quoted\"\nthing".into()));
    }

    #[test]
    fn a_place_that_repeats_itself_is_held_back_and_says_so_later() {
        let page = Page::default();
        let log = EventLog::start(Style::Human { colour: false }, Box::new(page.clone())).unwrap();
        let site = Location::caller();
        for n in 0..BURST + 30 {
            log.say(Level::Info, &format_args!("again {n}"), site, Millis(5));
        }
        log.say(Level::Info, &"another place", other_place(), Millis(5));
        log.say(Level::Info, &"again at last", site, Millis(5).plus(WINDOW));
        assert!(log.flush(Duration::from_secs(10)));
        let lines = page.lines();
        assert_eq!(lines.len() as u32, BURST + 2);
        assert!(lines[0].ends_with(" info  again 0"));
        assert!(lines[BURST as usize].ends_with("another place"));
        assert!(lines[BURST as usize + 1].ends_with("again at last (30 more like it were not shown)"));
    }

    fn other_place() -> Site {
        #[track_caller]
        fn here() -> Site {
            Location::caller()
        }
        here()
    }

    /// A stderr that takes nothing until it is let go.
    struct Stuck(Receiver<()>, Page);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_stderr_holds_up_nobody_and_losses_are_told() {
        let (release, held) = sync_channel::<()>(0);
        let page = Page::default();
        let out = Stuck(held, page.clone());
        let log = EventLog::start(Style::Human { colour: false }, Box::new(out)).unwrap();
        let said = QUEUE_LINES + 100;
        for n in 0..said {
            // A new window each time, so that only the queue limits.
            let now = Millis(n as u64 * WINDOW.as_millis() as u64);
            log.say(Level::Info, &"line", Location::caller(), now);
        }
        assert!(!log.flush(Duration::from_millis(1)));
        drop(release);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !log.flush(Duration::from_millis(100)) {
            assert!(std::time::Instant::now() < deadline);
        }
        let lines = page.lines();
        let told: Vec<_> = lines.iter().filter(|line| line.contains("were lost")).collect();
        let lost: usize =
            told.iter().map(|line| line.split(' ').nth(3).unwrap().parse::<usize>().unwrap()).sum();
        assert_eq!(lines.len() - told.len() + lost, said);
        assert!(lost > 0);
    }
}
