//! Tells when a file that the configuration is made of may have changed.
//!
//! Directories are watched, not files: editors rename a new file over the old one, and a ConfigMap is a symlink
//! that is swapped. Where nothing can be watched, and for what a watch misses, a slow look at the files remains.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use notify::event::{Event, EventKind, ModifyKind};
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
    /// How the files, and those that links lead to, are called in their directories.
    names: Arc<ArcSwap<BTreeSet<OsString>>>,
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
            names: Arc::default(),
            events,
            notify,
        }
    }

    /// Watches these files from now on.
    pub fn set_files(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        self.files = files.into_iter().collect();
        self.seen = self.stamps();
        let names = self.paths().filter_map(|path| path.file_name().map(ToOwned::to_owned)).collect();
        self.names.store(Arc::new(names));
        if self.watcher.is_none() {
            let (notify, names) = (self.notify.clone(), self.names.clone());
            self.watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
                // A full channel already says that there is something to look at.
                if event.is_ok_and(|event| concerns(&event, &names.load())) {
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
        let parent = |path: PathBuf| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            parent.unwrap_or(Path::new(".")).to_owned()
        };
        self.paths().map(parent).collect()
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files.iter().flat_map(|file| [Some(file.clone()), std::fs::canonicalize(file).ok()]).flatten()
    }
}

/// Whatever may exchange a file does, and what is written into one of these. What is written into others doesn't:
/// an access log that lies beside the configuration would have it looked at hundreds of times a second.
fn concerns(event: &Event, names: &BTreeSet<OsString>) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) => {
            let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| names.contains(name));
            event.paths.is_empty() || event.paths.iter().any(is_ours)
        }
        _ => true,
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

#[cfg(test)]
mod tests {
    use notify::event::{AccessKind, CreateKind, DataChange, RenameMode};

    use super::*;

    #[test]
    fn what_is_written_beside_the_files_is_no_concern() {
        let names = BTreeSet::from(["gateway.yaml".into()]);
        let concerned = |kind, path: &str| concerns(&Event::new(kind).add_path(path.into()), &names);
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert!(concerned(written, "/etc/gatehouse/gateway.yaml"));
        assert!(!concerned(written, "/etc/gatehouse/access.log"));
        assert!(concerns(&Event::new(written), &names), "it may have been any of them");
        // A link on the way to them may be another: a ConfigMap's is called `..data`.
        for kind in [EventKind::Create(CreateKind::Any), EventKind::Modify(ModifyKind::Name(RenameMode::To))]
        {
            assert!(concerned(kind, "/etc/gatehouse/..data"));
        }
        assert!(!concerned(EventKind::Access(AccessKind::Any), "/etc/gatehouse/gateway.yaml"));
    }
}
