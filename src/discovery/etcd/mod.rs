//! `discovery: { etcd: … }` — every key below a prefix is an instance.
//!
//! The keys are read once, at some revision, and from there on etcd tells what changes. A watch that is
//! silent for [`QUIET`] is opened anew from where it stood, and the keys are counted: a server that hangs,
//! that has lost the others, or that has been set back is noticed that way. Whatever goes wrong ends in
//! reading all keys again, from the next endpoint.

mod keys;
mod server;
mod wire;

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::remote::{LONGEST_PAUSE, PATIENCE, Pauses, QUIET, RemoteError, Told, printable};
use super::target::Wanted;
use crate::config::EtcdSource;
use crate::http::fetch::FetchError;
use keys::Keys;
use server::{Server, Watch};
use wire::News;

/// One change is told at once; of many in a row, what came within this is told together: composing a set
/// of thousands for each of thousands of changes would take longer than they take to come.
const TOGETHER: Duration = Duration::from_millis(40);
/// Where there are too many keys, all are read again after a change, but no more often than this.
const TOO_MANY: Duration = Duration::from_secs(1);

/// Keeps `wanted` at what etcd says. Runs until dropped.
pub async fn follow(source: EtcdSource, wanted: watch::Sender<Wanted>) {
    let mut following = Following {
        server: Server::new(&source),
        keys: Keys::default(),
        told: Told::new(wanted),
        endpoints: source.endpoints.len(),
        untried: source.endpoints.len(),
        pauses: Pauses::default(),
    };
    for endpoint in source.endpoints.iter().cycle() {
        following.server.turn_to(endpoint);
        let Err(error) = following.session().await;
        following.untried = following.untried.saturating_sub(1);
        // Another may do as well: nothing has failed before all have.
        if following.untried == 0 {
            following.told.failed(format!("{}: {error}", following.server.address()));
            following.untried = following.endpoints;
            tokio::time::sleep(following.pauses.next(following.told.longest_pause())).await;
        }
    }
}

struct Following {
    server: Server,
    keys: Keys,
    told: Told,
    endpoints: usize,
    /// How many of them may still be tried before the source has failed.
    untried: usize,
    pauses: Pauses,
}

/// Why a watch is no longer read.
enum End {
    /// It had nothing more to tell.
    Quiet,
    /// It doesn't lead on from what is known.
    Lost,
}

impl Following {
    /// Follows one server until it fails.
    async fn session(&mut self) -> Result<Infallible, RemoteError> {
        let mut in_vain = Pauses::default();
        if let Some((client, uri)) = self.server.heart() {
            self.told.feel(client, uri);
        }
        loop {
            let listed = self.server.list().await?;
            self.keys.replace(listed);
            self.tell();
            while let End::Quiet = self.watched(&mut in_vain).await? {
                let counted = self.server.count().await?;
                if !self.keys.agree_with(&counted) {
                    break;
                }
                self.told.still();
            }
            tokio::time::sleep(in_vain.next(LONGEST_PAUSE)).await;
        }
    }

    /// Opens a watch from where the keys are, and follows it.
    async fn watched(&mut self, in_vain: &mut Pauses) -> Result<End, RemoteError> {
        let mut watch = self.server.watch(self.keys.at.revision + 1).await?;
        let created = tokio::time::timeout(PATIENCE, watch.next());
        match created.await.unwrap_or(Err(FetchError::Timeout(PATIENCE).into()))? {
            News::Created(at) if self.keys.follow_on(at) => {}
            _ => return Ok(End::Lost),
        }
        self.untried = self.endpoints;
        self.pauses.reset();
        self.told.well(self.keys.fault());
        let mut untold = false;
        let end = self.read(&mut watch, &mut untold, in_vain).await;
        if untold {
            self.tell();
        }
        end
    }

    async fn read(
        &mut self,
        watch: &mut Watch,
        untold: &mut bool,
        in_vain: &mut Pauses,
    ) -> Result<End, RemoteError> {
        let mut quiet_from = Instant::now() + QUIET;
        let mut tell_from = Instant::now();
        loop {
            let line = tokio::select! {
                line = watch.next() => line?,
                () = tokio::time::sleep_until(tell_from), if *untold => {
                    self.tell_all(untold, &mut tell_from);
                    continue;
                }
                () = tokio::time::sleep_until(quiet_from) => {
                    in_vain.reset();
                    return Ok(End::Quiet);
                }
            };
            match line {
                News::Changed { revision, changes } => {
                    *untold |= !changes.is_empty();
                    self.keys.change(changes, revision);
                }
                News::Created(_) => continue,
                News::Compacted => return Ok(End::Lost),
            }
            in_vain.reset();
            if self.keys.are_too_many() {
                tokio::time::sleep(TOO_MANY).await;
                return Ok(End::Lost);
            }
            quiet_from = Instant::now() + QUIET;
            if *untold && Instant::now() >= tell_from {
                self.tell_all(untold, &mut tell_from);
            }
        }
    }

    fn tell_all(&mut self, untold: &mut bool, tell_from: &mut Instant) {
        self.tell();
        self.told.well(self.keys.fault());
        *untold = false;
        *tell_from = Instant::now() + TOGETHER;
    }

    fn tell(&mut self) {
        // Keys of which none is an instance are no empty set, but garbage.
        if let Some(targets) = self.keys.targets() {
            self.told.targets(targets);
        }
    }
}
