//! Tells one content of a file from another without reading it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `changed` can't be set back, as modification times can.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file as it is now; `None` where there is none that can be looked at.
    pub fn of(path: &Path) -> Option<Stamp> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
