//! `gatehouse run`: serves a configuration until it is told to stop.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config;
use crate::control::watch::FileWatch;
use crate::gateway::{Gateway, Wrong};
use crate::listener;
use crate::telemetry::events;

/// Serve a configuration
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "gateway.yaml")]
    pub config: PathBuf,
    /// How long requests may take to finish after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::duration)]
    pub drain_timeout: Duration,
    /// How messages are written to stderr
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

/// Serves until SIGTERM or SIGINT and then drains. `beside` runs next to it once everything is open.
pub fn run<F: Future<Output = ()>>(
    args: &RunArgs,
    beside: impl FnOnce(Arc<Gateway>) -> F,
) -> Result<(), Wrong> {
    events::install(match args.log_format {
        LogFormat::Human => events::Style::human(),
        LogFormat::Json => events::Style::Json,
    });
    listener::descriptors::raise_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Wrong::cannot)?;
    let served = runtime.block_on(serve(args, beside));
    events::flush(Duration::from_secs(1));
    // A blocking task that hangs (a name look-up, say) must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    served
}

async fn serve<F: Future<Output = ()>>(
    args: &RunArgs,
    beside: impl FnOnce(Arc<Gateway>) -> F,
) -> Result<(), Wrong> {
    let mut signals = Signals::new().map_err(Wrong::cannot)?;
    let source = config::read_source(&args.config).map_err(Wrong::unreadable)?;
    let gateway = Gateway::start(source).await?;
    events::info(format_args!("serving {}", args.config.display()));
    let watching = tokio::spawn(watch(gateway.clone()));
    let beside = beside(gateway.clone());
    tokio::pin!(beside);
    let mut beside_runs = true;
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Told::Reload => drop(gateway.reload().await),
                Told::Reopen => gateway.reopen_log(),
                Told::Stop => break,
            },
            () = &mut beside, if beside_runs => beside_runs = false,
        }
    }
    watching.abort();
    events::info(format_args!("stopping: requests have {:?} to finish", args.drain_timeout));
    tokio::select! {
        () = gateway.stop(args.drain_timeout) => events::info("stopped"),
        () = signals.second_stop() => {
            events::warn("stopped at once, at a second signal");
            events::flush(Duration::from_secs(1));
            #[expect(clippy::exit, reason = "whoever asks twice doesn't want to wait for anything")]
            std::process::exit(super::EXIT_INTERRUPTED);
        }
    }
    Ok(())
}

async fn watch(gateway: Arc<Gateway>) {
    let mut files = gateway.files();
    let mut watch = FileWatch::new();
    loop {
        let now = files.borrow_and_update().clone();
        watch.set_files(now);
        // What changed between the reading of the files and the start of the watch.
        gateway.reload_if_changed().await;
        loop {
            tokio::select! {
                () = watch.changed() => drop(gateway.reload_if_changed().await),
                changed = files.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

struct Signals {
    hangup: Signal,
    user1: Signal,
    terminate: Signal,
    interrupt: Signal,
}

enum Told {
    Reload,
    Reopen,
    Stop,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.user1.recv() => Told::Reopen,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
        }
    }

    async fn second_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
