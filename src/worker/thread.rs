//! The thread of a worker: a single-threaded runtime that opens and drains listeners as it is told.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::Worker;
use crate::listener::{Acceptor, Drain, Listening, Settings, accept};
use crate::per_worker::WorkerId;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::LogSender;
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;

pub enum Command {
    /// `id` names the listener in later commands and is never used twice.
    Open { id: u64, socket: StdListener, settings: Settings },
    /// For connections from now on.
    Change { id: u64, settings: Settings },
    /// Say so when the commands before this one have taken effect.
    Tell(oneshot::Sender<()>),
    /// Bring the counts of the routes up to date, and let go of this.
    Settle(std::sync::mpsc::SyncSender<()>),
    /// Stop accepting and let the connections finish.
    Close { id: u64 },
    /// Close everything, wait so long for what is running, and end the thread.
    Stop { within: Duration },
}

/// The way to a worker.
#[derive(Clone)]
pub struct Commands(mpsc::UnboundedSender<Command>);

impl Commands {
    /// A worker that has ended takes no commands; there is nothing left to tell it.
    pub fn send(&self, command: Command) {
        let _ = self.0.send(command);
    }

    /// Waits until the counts of the routes hold all that these workers know of, but no longer than `within`: one that
    /// hangs has counts that are some moments old. Blocks.
    pub fn settle(all: &[Commands], within: Duration) {
        let (settled, settling) = std::sync::mpsc::sync_channel(0);
        all.iter().for_each(|commands| commands.send(Command::Settle(settled.clone())));
        drop(settled);
        // Nobody sends anything: it ends when the last worker has let go, or at the deadline.
        let _ = settling.recv_timeout(within);
    }
}

pub struct WorkerHandle {
    commands: Commands,
    thread: JoinHandle<()>,
}

impl WorkerHandle {
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    pub fn send(&self, command: Command) {
        self.commands.send(command);
    }

    /// Waits until all commands so far have taken effect. One that hangs or has ended is not waited for.
    pub async fn settled(&self) {
        let (done, settled) = oneshot::channel();
        self.send(Command::Tell(done));
        let _ = tokio::time::timeout(Duration::from_secs(1), settled).await;
    }

    /// Waits for the thread to end. Blocks.
    pub fn join(self) {
        if self.thread.join().is_err() {
            events::error("a worker ended by a panic");
        }
    }
}

/// Starts a worker. It accepts nothing before it is told to.
pub fn start(
    id: WorkerId,
    workers: usize,
    published: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    log: LogSender,
) -> std::io::Result<WorkerHandle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new().name(format!("worker-{}", id.0)).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return events::error(format_args!("worker {} can't start: {error}", id.0)),
        };
        let worker = Worker::new(id, workers, published, metrics, log);
        let local = LocalSet::new();
        local.block_on(&runtime, run(worker.clone(), receiver));
        // What is still running after the drain is cut off here.
        drop(local);
        worker.log.flush();
    })?;
    Ok(WorkerHandle { commands: Commands(commands), thread })
}

struct Open {
    drain: Rc<Drain>,
    settings: Rc<RefCell<Rc<Settings>>>,
}

async fn run(worker: Rc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut open: HashMap<u64, Open> = HashMap::new();
    let mut closing: Vec<Rc<Drain>> = Vec::new();
    let ticking = worker.clone();
    tokio::task::spawn_local(async move { ticking.pulse.run(|| ticking.pulsed()).await });
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Open { id, socket, settings }) => {
                    if let Some(listening) = listen(socket, settings, &worker) {
                        open.insert(id, listening);
                    }
                }
                Some(Command::Change { id, settings }) => {
                    if let Some(listener) = open.get(&id) {
                        *listener.settings.borrow_mut() = Rc::new(settings);
                    }
                }
                Some(Command::Tell(done)) => drop(done.send(())),
                Some(Command::Settle(settled)) => {
                    worker.tally.settle();
                    drop(settled);
                }
                Some(Command::Close { id }) => {
                    if let Some(listener) = open.remove(&id) {
                        listener.drain.begin();
                        closing.push(listener.drain);
                    }
                }
                Some(Command::Stop { within }) => {
                    closing.extend(open.into_values().map(|listener| listener.drain));
                    return drain(&closing, within).await;
                }
                None => return,
            },
            _ = second.tick() => {
                worker.tick();
                closing.retain(|drain| drain.open() > 0);
            }
        }
    }
}

fn listen(socket: StdListener, settings: Settings, worker: &Rc<Worker>) -> Option<Open> {
    let socket = match Listening::new(socket) {
        Ok(socket) => socket,
        Err(error) => {
            events::error(format_args!("listener {} can't be served: {error}", settings.name));
            return None;
        }
    };
    let drain = Rc::new(Drain::default());
    let settings = Rc::new(RefCell::new(Rc::new(settings)));
    let acceptor = Acceptor { socket, settings: settings.clone() };
    tokio::task::spawn_local(accept(acceptor, worker.clone(), drain.clone()));
    Some(Open { drain, settings })
}

/// Looks every few milliseconds, which at the end of a process is often enough.
async fn drain(drains: &[Rc<Drain>], within: Duration) {
    let deadline = Instant::now() + within;
    drains.iter().for_each(|drain| drain.begin());
    while Instant::now() < deadline {
        let open = drains.iter().map(|drain| drain.open()).sum::<usize>();
        if open == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left = drains.iter().map(|drain| drain.open()).sum::<usize>();
    if left > 0 {
        events::warn(format_args!("{left} connections were cut off at the end of the drain timeout"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_waited_for_until_all_have_settled_but_not_for_one_that_hangs() {
        let (sender, mut commands) = mpsc::unbounded_channel();
        let (hanging, kept) = mpsc::unbounded_channel();
        let settles = std::thread::spawn(move || drop(commands.blocking_recv()));
        Commands::settle(&[Commands(sender.clone())], Duration::from_secs(3600));
        settles.join().expect("it only takes a command");
        // The first has ended by now; the other never looks at its commands.
        Commands::settle(&[Commands(sender), Commands(hanging)], Duration::from_millis(1));
        assert_eq!(kept.len(), 1);
    }
}
