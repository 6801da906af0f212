//! `discovery: { file: … }` — instances from a YAML or JSON file, read again whenever it changes.
//!
//! The directory is watched, not the file: editors replace files by renaming, and Kubernetes swaps
//! a symlink beside them. A slow poll covers file systems that tell of no change. A file that is
//! missing, broken or too large leaves the last good list in force.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::target::{Target, Wanted};
use crate::config::{self, Problems};
use crate::service::discovered::MAX_INSTANCES;

/// Two hundred bytes for each of as many instances as a set holds.
pub const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;
const POLL: Duration = Duration::from_secs(2);
/// Quiet for this long after a change, a file is taken to be complete: half a YAML list is a list.
const SETTLE: Duration = Duration::from_millis(20);
/// A file that never comes to rest is read all the same.
const SETTLE_AT_MOST: Duration = Duration::from_millis(60);

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
            Target::from_authority(&instance.authority, instance.weight, instance.zone.map(Into::into))
        })
        .collect())
}

/// Keeps `wanted` at what the file says. Runs until dropped.
pub async fn follow(path: PathBuf, wanted: watch::Sender<Wanted>) {
    let mut watched = Watched::default();
    let mut stamp = None;
    loop {
        let directories = off_runtime({
            let path = path.clone();
            move || directories(&path)
        });
        // Watched before it is read: a change in between is told, not missed.
        watched.set(directories.await.unwrap_or_default());
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
    let stamp = std::fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
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

/// Tells one content of a file from another without reading it. `changed` can't be set back, as
/// modification times can.
#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A directory as it is now: one that was removed and made again must be watched again.
#[derive(PartialEq)]
struct Directory {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Where a change to the file shows: its own directory, and that of the file a symlink leads to.
fn directories(path: &Path) -> Vec<Directory> {
    let own = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let target = path.canonicalize().ok().and_then(|real| real.parent().map(Path::to_path_buf));
    let mut found: Vec<Directory> = Vec::new();
    for directory in std::iter::once(own.to_path_buf()).chain(target) {
        let Ok(metadata) = std::fs::metadata(&directory) else { continue };
        let (device, inode) = (metadata.dev(), metadata.ino());
        if !found.iter().any(|known| (known.device, known.inode) == (device, inode)) {
            found.push(Directory { path: directory, device, inode });
        }
    }
    found
}

#[derive(Default)]
struct Watched {
    directories: Vec<Directory>,
    /// `None` where watching isn't possible: then there is the poll.
    watcher: Option<RecommendedWatcher>,
    changed: Arc<Notify>,
}

impl Watched {
    fn set(&mut self, directories: Vec<Directory>) {
        if self.watcher.is_some() && self.directories == directories {
            return;
        }
        self.watcher = self.watch(&directories).ok();
        self.directories = directories;
    }

    fn watch(&self, directories: &[Directory]) -> notify::Result<RecommendedWatcher> {
        let changed = self.changed.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(&event.kind)) {
                changed.notify_one();
            }
        })?;
        for directory in directories {
            watcher.watch(&directory.path, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    async fn settled(&self) {
        let give_up = Instant::now() + SETTLE_AT_MOST;
        while Instant::now() < give_up {
            if tokio::time::timeout(SETTLE, self.changed.notified()).await.is_err() {
                return;
            }
        }
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
