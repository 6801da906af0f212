//! `discovery: { file: … }` — instances from a YAML or JSON file, read again whenever it changes.
//!
//! The directory is watched, not the file: editors replace files by renaming, and Kubernetes swaps
//! a symlink beside them. A slow poll covers file systems that tell of no change. A file that is
//! missing, broken or too large leaves the last good list in force; one that is being written is waited for.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::stamp::Stamp;
use super::target::{Scheme, Target, Wanted};
use crate::config::{self, Problems};
use crate::service::discovered::MAX_INSTANCES;

/// Two hundred bytes for each of as many instances as a set holds.
pub const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;
const POLL: Duration = Duration::from_secs(2);
/// Quiet for this long after a change, a file is taken to be complete: half a YAML list is a list.
const SETTLE: Duration = Duration::from_millis(20);
/// A file that never comes to rest is read all the same.
const SETTLE_AT_MOST: Duration = Duration::from_millis(60);
/// So is one that somebody has written to and keeps open.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("can't be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("is not a regular file")]
    NotAFile,
    #[error("is larger than {} KiB", MAX_FILE_BYTES / 1024)]
    TooLarge,
    #[error("line {line} is not UTF-8")]
    NotUtf8 { line: usize },
    #[error("{}", in_words(.0))]
    Wrong(Problems),
    #[error("line {line} begins instance {}: a service has at most {MAX_INSTANCES}", MAX_INSTANCES + 1)]
    TooMany { line: u32 },
}

/// Reads the file once. Blocks as long as its disk does.
pub fn read(path: &Path) -> Result<Vec<Target>, FileError> {
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
        FileError::NotUtf8 { line }
    })?;
    let instances = config::parse_instance_file(text).map_err(FileError::Wrong)?;
    if let Some(first) = instances.get(MAX_INSTANCES) {
        return Err(FileError::TooMany { line: first.authority.span.line });
    }
    Ok(instances
        .into_iter()
        .filter_map(|instance| {
            let zone = instance.zone.map(Into::into);
            let target = Target::from_authority(&instance.authority, instance.weight, zone)?;
            let scheme = if instance.is_https { Scheme::Https } else { Scheme::Http };
            Some(target.with_priority(instance.priority).with_scheme(Some(scheme)))
        })
        .collect())
}

/// Keeps `wanted` at what the file says. Runs until dropped.
pub async fn follow(path: PathBuf, wanted: watch::Sender<Wanted>) {
    let mut watched = Watched::default();
    let mut stamp = None;
    loop {
        let places = off_runtime({
            let path = path.clone();
            move || Places::of(&path)
        });
        // Watched before it is read: a change in between is told, not missed.
        watched.set(places.await.unwrap_or_default());
        let look = off_runtime({
            let path = path.clone();
            move || look(&path, stamp)
        });
        if let Some(Some((seen, content))) = look.await {
            stamp = seen;
            wanted.send_if_modified(|wanted| apply(wanted, content, &path));
        }
        tokio::select! {
            () = watched.changed.notified() => watched.settled().await,
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Runs on the pool for blocking work; `None` when that is being shut down.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

type Content = Result<Vec<Target>, FileError>;

/// The file's new content, or `None` when it is the one that `before` belongs to.
fn look(path: &Path, before: Option<Stamp>) -> Option<(Option<Stamp>, Content)> {
    let stamp = Stamp::of(path);
    if stamp.is_some() && stamp == before {
        return None;
    }
    Some((stamp, read(path)))
}

/// Puts the content in force; says whether that changes anything.
fn apply(wanted: &mut Wanted, content: Content, path: &Path) -> bool {
    let now = match content {
        Ok(targets) => Wanted::now(targets),
        Err(error) => {
            let separator = if matches!(error, FileError::Wrong(_)) { ":" } else { ": " };
            Wanted {
                targets: wanted.targets.clone(),
                fault: Some(format!("{}{separator}{error}", path.display())),
                ..Wanted::default()
            }
        }
    };
    std::mem::replace(wanted, now) != *wanted
}

/// A directory as it is now: one that was removed and made again must be watched again.
#[derive(PartialEq)]
struct Directory {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Where a change to the file shows.
#[derive(Default, PartialEq)]
struct Places {
    /// Its own directory, and that of the file a symlink leads to.
    directories: Vec<Directory>,
    /// What it is called there.
    names: Vec<OsString>,
}

impl Places {
    fn of(path: &Path) -> Places {
        let mut places = Places::default();
        let own = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        places.add(own, path);
        if let Ok(target) = path.canonicalize()
            && let Some(directory) = target.parent()
        {
            places.add(directory, &target);
        }
        places
    }

    fn add(&mut self, directory: &Path, file: &Path) {
        self.names.extend(file.file_name().map(OsString::from));
        let Ok(metadata) = std::fs::metadata(directory) else { return };
        let (device, inode) = (metadata.dev(), metadata.ino());
        if !self.directories.iter().any(|known| (known.device, known.inode) == (device, inode)) {
            self.directories.push(Directory { path: directory.to_path_buf(), device, inode });
        }
    }
}

#[derive(Default)]
struct Watched {
    places: Places,
    /// `None` where watching isn't possible: then there is the poll.
    watcher: Option<RecommendedWatcher>,
    changed: Arc<Notify>,
    /// Somebody has written to the file and has not closed it.
    open: Arc<AtomicBool>,
}

impl Watched {
    fn set(&mut self, places: Places) {
        if self.watcher.is_some() && self.places == places {
            return;
        }
        self.watcher = self.watch(&places).ok();
        self.places = places;
    }

    fn watch(&self, places: &Places) -> notify::Result<RecommendedWatcher> {
        let (changed, open, names) = (self.changed.clone(), self.open.clone(), places.names.clone());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let event = event.unwrap_or_default();
            if event
                .paths
                .iter()
                .filter_map(|path| path.file_name())
                .any(|name| names.iter().any(|n| n == name))
                && let Some(now) = leaves_open(&event.kind)
            {
                open.store(now, Relaxed);
            }
            if is_change(&event.kind) {
                changed.notify_one();
            }
        })?;
        for directory in &places.directories {
            watcher.watch(&directory.path, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    async fn settled(&self) {
        let begun = Instant::now();
        loop {
            let open = self.open.load(Relaxed);
            let at_most = begun + if open { WRITTEN_WITHIN } else { SETTLE_AT_MOST };
            let quiet = if open { at_most } else { at_most.min(Instant::now() + SETTLE) };
            let is_quiet = tokio::time::timeout_at(quiet, self.changed.notified()).await.is_err();
            if is_quiet || Instant::now() >= at_most {
                return;
            }
        }
    }
}

/// Whether somebody who writes in place has more to say; `None` where the event tells nothing of it.
fn leaves_open(kind: &EventKind) -> Option<bool> {
    match kind {
        EventKind::Modify(ModifyKind::Data(_)) => Some(true),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(false),
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => Some(false),
        _ => None,
    }
}

/// Our own reading is an event too; taken for a change it would never end.
fn is_change(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

/// `3:5: unknown key "ur": did you mean "url"? (and 2 more problems)`
fn in_words(problems: &Problems) -> String {
    let mut all = problems.iter();
    let Some(first) = all.next() else { return String::new() };
    let mut text = format!("{}:{}: {}: {}", first.span.line, first.span.column, first.message, first.remedy);
    match all.count() {
        0 => {}
        1 => text.push_str(" (and 1 more problem)"),
        more => text.push_str(&format!(" (and {more} more problems)")),
    }
    text
}
