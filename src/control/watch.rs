//! Tells when a file that the configuration is made of may have changed.
//!
//! Directories are watched, not files: editors rename a new file over the old one, and a ConfigMap is a symlink
//! that is swapped. Where nothing can be watched, and for what a watch misses, a slow look at the files remains.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

const SETTLE: Duration = Duration::from_millis(30);
const SETTLE_AT_MOST: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub struct FileWatch {
    files: BTreeSet<PathBuf>,
    seen: Vec<Option<Stamp>>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    events: mpsc::Receiver<()>,
    notify: mpsc::Sender<()>,
}

/// What tells one version of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    changed: (i64, i64),
    inode: u64,
    length: u64,
    real_path: PathBuf,
}

impl Default for FileWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl FileWatch {
    pub fn new() -> Self {
        let (notify, events) = mpsc::channel(1);
        FileWatch {
            files: BTreeSet::new(),
            seen: Vec::new(),
            watcher: None,
            watched: BTreeSet::new(),
            events,
            notify,
        }
    }

    /// Watches these files from now on.
    pub fn set_files(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        self.files = files.into_iter().collect();
        self.seen = self.stamps();
        if self.watcher.is_none() {
            let notify = self.notify.clone();
            self.watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // A full channel already says that there is something to look at.
                if event.is_ok_and(|event| !event.kind.is_access()) {
                    let _ = notify.try_send(());
                }
            })
            .ok();
        }
        let wanted = self.directories();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        let mut watched: BTreeSet<PathBuf> = self.watched.intersection(&wanted).cloned().collect();
        for new in wanted.difference(&self.watched) {
            if watcher.watch(new, RecursiveMode::NonRecursive).is_ok() {
                watched.insert(new.clone());
            }
        }
        self.watched = watched;
    }

    /// Waits until one of the files may be another than before. May be dropped at any time.
    pub async fn changed(&mut self) {
        loop {
            let _ = tokio::time::timeout(LOOK_EVERY, self.events.recv()).await;
            if self.stamps() != self.seen {
                self.settle().await;
                return;
            }
        }
    }

    /// Waits until nobody has written for a moment: editors write in steps, and half a file is not a
    /// configuration. What others write in the same directory plays no part.
    async fn settle(&mut self) {
        let deadline = tokio::time::Instant::now() + SETTLE_AT_MOST;
        let mut stamps = self.stamps();
        loop {
            tokio::time::sleep(SETTLE).await;
            let now = self.stamps();
            if now == stamps || tokio::time::Instant::now() >= deadline {
                break;
            }
            stamps = now;
        }
        self.seen = self.stamps();
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.files.iter().map(|file| Stamp::of(file)).collect()
    }

    /// The directories in which the names of the files, and those that links lead to, are entries.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let mut directories = BTreeSet::new();
        for file in &self.files {
            let real = std::fs::canonicalize(file).ok();
            for path in [Some(file.clone()), real].into_iter().flatten() {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                directories.insert(parent.unwrap_or(Path::new(".")).to_owned());
            }
        }
        directories
    }
}

impl Stamp {
    fn of(file: &Path) -> Option<Stamp> {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Stamp {
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            length: metadata.len(),
            real_path: std::fs::canonicalize(file).ok()?,
        })
    }
}
