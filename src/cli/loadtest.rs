//! `gatehouse loadtest`: loads a server, and tells how it bears it.
//!
//! A client like any other, and no part of the gateway. Results go to stdout, all else to stderr. Exit codes: 0 it was
//! measured, 1 nothing good came of it, 2 the arguments don't fit or the target isn't to be loaded.

mod arguments;
mod endpoint;
mod engine;
mod outcome;
mod plan;
mod prepare;
mod progress;
mod record;
mod results;
mod scenario;
mod shape;
mod stats;
mod table;
mod timer;
mod traffic;
mod wire;

use std::io::{Write, stderr, stdout};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use arguments::LoadArgs;

use super::{check, complain};
use crate::telemetry::events::colour;
use arguments::Refused;
use engine::Running;
use plan::Plan;
use prepare::Prepared;
use progress::Progress;
use results::Results;

/// As clap has it.
const MISUSE: u8 = 2;

pub fn main(args: &LoadArgs) -> u8 {
    crate::listener::descriptors::raise_limit();
    match load(args) {
        Ok(code) => code,
        Err(Refused::Usage(why)) => {
            complain(format_args!("error: {why}"));
            MISUSE
        }
        Err(Refused::Missing(why)) => {
            complain(format_args!("error: {why}"));
            check::WRONG
        }
        Err(Refused::Wrong(why)) => {
            complain(why);
            check::WRONG
        }
    }
}

fn load(args: &LoadArgs) -> Result<u8, Refused> {
    let Prepared { plan, notes } = args.prepare()?;
    notes.iter().for_each(|note| complain(format_args!("note: {note}")));
    let results = run(plan)?;
    tell(args, &results)?;
    // A server that answers nothing is not what anybody wanted to measure.
    Ok(if results.whole.requests > results.whole.errors { check::FINE } else { check::WRONG })
}

/// Runs it to its end, or until it is interrupted.
fn run(plan: Plan) -> Result<Results, Refused> {
    let plan = Arc::new(plan);
    let failed = |error: std::io::Error| Refused::Missing(format!("the test can't run: {error}"));
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (running, interrupted) = runtime.block_on(watch(&plan)).map_err(failed)?;
    let ended = running.finish(&plan).map_err(failed)?;
    Ok(Results::of(&plan, &ended, started, interrupted))
}

async fn watch(plan: &Arc<Plan>) -> std::io::Result<(Running, bool)> {
    let mut running = Running::start(plan)?;
    let mut progress = progress::is_watched().then(|| Progress::new(colour()));
    let mut tick = tokio::time::interval(progress::EVERY);
    let mut interrupted = false;
    loop {
        tokio::select! {
            () = running.ended() => break,
            pressed = tokio::signal::ctrl_c(), if !interrupted => {
                pressed?;
                interrupted = true;
                running.stop();
            }
            _ = tick.tick(), if progress.is_some() => {
                if let Some(progress) = &mut progress {
                    progress.show(plan, &running.glimpse());
                }
            }
        }
    }
    if let Some(progress) = &mut progress {
        progress.clear();
    }
    Ok((running, interrupted))
}

fn tell(args: &LoadArgs, results: &Results) -> Result<(), Refused> {
    let failed = |error: std::io::Error| Refused::Missing(format!("the results can't be written: {error}"));
    if !args.json {
        return stdout().lock().write_all(table::table(results).as_bytes()).map_err(failed);
    }
    // For people, who may not be there.
    let _ = stderr().write_all(table::table(results).as_bytes());
    let json = serde_json::to_string(results).map_err(|error| failed(error.into()))?;
    writeln!(stdout().lock(), "{json}").map_err(failed)
}
