//! `registry.state_file`: who is registered, kept on disk, so that a restart doesn't empty the registry.
//!
//! The file is replaced as a whole, so that it is never seen half-written, and no more often than [`PAUSE`]
//! allows. What it holds are announcements, which are checked like any other when they are read. It says nothing of
//! heartbeats: those who are restored count as just heard of, and leave when they stay silent for the TTL.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::{self, BodyError};
use super::instance::Written;
use super::store::{Store, StoreError};

/// Between two times that it is written.
pub const PAUSE: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);
/// More than the registry can hold comes to.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
const FORMAT: u32 = 1;

/// What came of reading it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub instances: usize,
    pub refused: usize,
    /// Why the first of those was refused.
    pub why: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error("it can't be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is no file")]
    NoFile,
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it is not what a registry writes: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it has the format {0}, and this version knows {FORMAT}")]
    Format(u32),
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Read1<'a> {
    version: u64,
    #[serde(borrow)]
    instances: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct Write1<'a> {
    format: u32,
    /// The newest of any service.
    version: u64,
    instances: Vec<Written<'a>>,
}

/// Registers whom the file names. `None` where there is no file.
pub fn restore(store: &Store, path: &Path) -> Result<Option<Restored>, StateFileError> {
    match fs::metadata(path) {
        // Opening a pipe would wait for its other end.
        Ok(found) if !found.is_file() => return Err(StateFileError::NoFile),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut text = Vec::new();
    if File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut text)? as u64 > MAX_BYTES {
        return Err(StateFileError::TooLarge);
    }
    // First of all: another format may have nothing else in common with this one.
    let Format { format } = serde_json::from_slice(&text)?;
    if format != FORMAT {
        return Err(StateFileError::Format(format));
    }
    let read: Read1<'_> = serde_json::from_slice(&text)?;
    store.continue_after(read.version);
    let mut restored = Restored::default();
    for announcement in read.instances {
        match register(store, announcement) {
            Ok(()) => restored.instances += 1,
            Err(refused) => {
                restored.refused += 1;
                restored.why.get_or_insert_with(|| refused.to_string());
            }
        }
    }
    Ok(Some(restored))
}

fn register(store: &Store, announcement: &RawValue) -> Result<(), Refused> {
    store.register(body::announcement(announcement.get().as_bytes())?)?;
    Ok(())
}

/// Moves a file that can't be used out of the way, so that it can be looked at. Returns where it is.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("only a file is"));
    }
    let aside = beside(path, ".damaged");
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Writes the file at once, and again after changes. `report` is told when that begins to fail and when it
/// works again. Runs until dropped.
pub async fn keep(store: Arc<Store>, path: PathBuf, report: impl Fn(Result<(), &io::Error>)) {
    let mut versions = store.versions();
    let mut failing = false;
    loop {
        versions.mark_unchanged();
        let (written, to) = (store.clone(), path.clone());
        let outcome = tokio::task::spawn_blocking(move || write(&written, &to)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("writing broke off")));
        if failing != outcome.is_err() {
            failing = outcome.is_err();
            report(outcome.as_ref().map(|_| ()));
        }
        tokio::time::sleep(if failing { RETRY } else { PAUSE }).await;
        // The store that sends the versions is held here.
        if !failing && versions.changed().await.is_err() {
            return;
        }
    }
}

/// Writes it now. Waits for the disk.
pub fn write(store: &Store, path: &Path) -> io::Result<()> {
    static WRITING: Mutex<()> = Mutex::new(());
    // Whoever comes last has the newest to write.
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let text = text(store)?;
    let new = beside(path, ".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // Without it a crash of the machine may bring the old file back, which is no worse than a late one.
    if let Some(Ok(directory)) = path.parent().filter(|parent| !parent.as_os_str().is_empty()).map(File::open)
    {
        let _ = directory.sync_all();
    }
    Ok(())
}

fn text(store: &Store) -> serde_json::Result<Vec<u8>> {
    let listed = store.list();
    let instances = listed.iter().flat_map(|service| {
        service.instances.iter().enumerate().map(|(index, (instance, _))| Written {
            // One of them speaks for the service.
            service_metadata: (index == 0).then_some(&service.metadata),
            ..instance.written()
        })
    });
    let version = listed.iter().map(|service| service.version).max().unwrap_or_default();
    let mut text = serde_json::to_vec(&Write1 { format: FORMAT, version, instances: instances.collect() })?;
    text.push(b'\n');
    Ok(text)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
