//! `gatehouse loadtest`: loads a server, and tells how it bears it.
//!
//! A client like any other, and no part of the gateway. Results go to stdout, all else to stderr. Exit codes: 0 it was
//! measured, 1 nothing good came of it, 2 the arguments don't fit or the target isn't to be loaded.

mod arguments;
mod compare;
mod cost;
mod endpoint;
mod engine;
mod find_max;
mod html;
mod outcome;
mod plan;
mod prepare;
mod progress;
mod record;
mod results;
mod scenario;
mod shape;
mod slo;
mod stats;
mod table;
mod timer;
mod traffic;
mod wire;

use std::io::{Write, stderr, stdout};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{SignalKind, signal};

pub use arguments::LoadArgs;

use super::{check, complain};
use crate::telemetry::events::colour;
use arguments::Refused;
use compare::Comparison;
use engine::Running;
use find_max::{Search, Step};
use html::Section;
use plan::{Load, Plan};
use prepare::Prepared;
use progress::Progress;
use record::Tally;
use results::{ObjectiveTold, Results};
use shape::Shape;
use slo::{Objective, Verdict};

/// As clap has it.
const MISUSE: u8 = 2;
/// Before each step of a search: connections are there, and what the step before has left is gone.
const STEP_WARMUP: Duration = Duration::from_millis(500);

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
    if args.cost {
        return costs(args);
    }
    // Read first: a test of minutes must not end with a file that isn't there.
    let before = args.compare.as_deref().map(earlier).transpose()?;
    let Prepared { plan, notes } = args.prepare()?;
    notes.iter().for_each(|note| complain(format_args!("note: {note}")));
    let mut results = match &args.slo {
        Some(objective) if args.find_max => find_max(args, &plan, objective)?,
        objective => {
            let (mut results, tally) = run(plan)?;
            results.objective = objective.as_ref().map(|objective| judged(objective, &tally).1);
            results
        }
    };
    results.comparison = before.map(|before| Comparison::of(&before, &results));
    if let Some(path) = &args.html {
        let page = html::page(&results, &sections(&results));
        std::fs::write(path, page)
            .map_err(|error| Refused::Missing(format!("{} can't be written: {error}", path.display())))?;
    }
    tell(args, &results)?;
    Ok(code(&results))
}

fn costs(args: &LoadArgs) -> Result<u8, Refused> {
    let tell = |route: &cost::RouteCosts| {
        let table = cost::table(route);
        // With --json the table is for people, who may not be there.
        let told = match args.json {
            true => stderr().write_all(table.as_bytes()).or(Ok(())),
            false => stdout().lock().write_all(table.as_bytes()),
        };
        told.map_err(unwritten)
    };
    let costs = cost::measure(args, |plan| run(plan).map(|(results, _)| results), tell)?;
    if args.json {
        let json = serde_json::to_string(&costs).map_err(|error| unwritten(error.into()))?;
        writeln!(stdout().lock(), "{json}").map_err(unwritten)?;
    }
    if costs.routes.is_empty() {
        complain("note: no route has a policy that could be taken away");
    }
    Ok(check::FINE)
}

fn unwritten(error: std::io::Error) -> Refused {
    Refused::Missing(format!("the results can't be written: {error}"))
}

fn code(results: &Results) -> u8 {
    // A server that answers nothing is not what anybody wanted to measure.
    let answers = results.whole.requests > results.whole.errors;
    let kept = results.objective.as_ref().is_none_or(|objective| objective.holds);
    let found = results.found.as_ref().is_none_or(|found| found.rate.is_some());
    let no_worse = results.comparison.as_ref().is_none_or(|comparison| !comparison.got_worse());
    if answers && kept && found && no_worse { check::FINE } else { check::WRONG }
}

/// The results of another test.
fn earlier(path: &std::path::Path) -> Result<Results, Refused> {
    Results::parse(&prepare::text(path)?)
        .map_err(|why| Refused::Missing(format!("{}: {why}", path.display())))
}

fn judged(objective: &Objective, tally: &Tally) -> (Verdict, ObjectiveTold) {
    let verdict = objective.judge(tally);
    let told = ObjectiveTold {
        objective: objective.text.clone(),
        holds: verdict.holds(),
        sure: verdict.is_sure(),
        seen: slo::seen(objective, tally),
    };
    (verdict, told)
}

/// Step by step; each is told on stderr. The results are those of the last step at the rate that was found.
fn find_max(args: &LoadArgs, plan: &Plan, objective: &Objective) -> Result<Results, Refused> {
    let mut search = Search::from(args.rate.unwrap_or(find_max::FIRST));
    let mut steps = Vec::new();
    let mut best = None;
    while let Some(rate) = search.next() {
        let time = args.step.unwrap_or_else(|| find_max::step_time(objective.requests_needed(), rate));
        let warmup = STEP_WARMUP.min(time / 4);
        let load = Load::Open(Shape::constant(rate, warmup + time));
        let (results, tally) = run(Plan { load, warmup, requests: None, ..plan.clone() })?;
        if results.interrupted {
            break;
        }
        let (verdict, told) = judged(objective, &tally);
        complain(format_args!("{}/s {}: {}", table::number(rate), verdict.words(), told.seen));
        steps.push(Step {
            rate,
            achieved: results.rate,
            requests: results.whole.requests,
            holds: told.holds,
            sure: told.sure,
            seen: told.seen,
        });
        if verdict.holds() || best.is_none() {
            best = Some(results);
        }
        search.tell(verdict);
    }
    let mut results =
        best.ok_or_else(|| Refused::Missing("it was ended before anything was found".into()))?;
    results.found = Some(search.found(&objective.text, steps));
    Ok(results)
}

fn sections(results: &Results) -> Vec<Section> {
    let mut sections = Vec::new();
    if let Some(found) = &results.found {
        let heads = ["rate", "", "sent", "requests", "seen"].map(str::to_owned).to_vec();
        let row = |step: &Step| {
            let verdict = if step.holds { "holds" } else { "fails" };
            vec![
                format!("{}/s", table::number(step.rate)),
                verdict.to_owned(),
                format!("{}/s", table::number(step.achieved)),
                table::count(step.requests),
                step.seen.clone(),
            ]
        };
        let rows = std::iter::once(heads).chain(found.steps.iter().map(row)).collect();
        sections.push(Section { title: "The highest rate", rows, note: Some(found.words()) });
    }
    if let Some(objective) = &results.objective {
        let verdict = if objective.holds { "holds" } else { "fails" };
        let rows = vec![vec![objective.objective.clone(), verdict.to_owned()]];
        sections.push(Section { title: "Objective", rows, note: Some(objective.seen.clone()) });
    }
    if let Some(comparison) = &results.comparison {
        let note = (!comparison.notes.is_empty()).then(|| comparison.notes.join("; "));
        sections.push(Section { title: "Compared with before", rows: comparison.table(), note });
    }
    sections
}

/// Runs it to its end, or until it is interrupted.
fn run(plan: Plan) -> Result<(Results, Tally), Refused> {
    let plan = Arc::new(plan);
    let failed = |error: std::io::Error| Refused::Missing(format!("the test can't run: {error}"));
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (running, interrupted) = runtime.block_on(watch(&plan)).map_err(failed)?;
    let ended = running.finish(&plan).map_err(failed)?;
    Ok((Results::of(&plan, &ended, started, interrupted), ended.recorder.whole()))
}

async fn watch(plan: &Arc<Plan>) -> std::io::Result<(Running, bool)> {
    // Before anything is sent: from then on there is something to tell.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut running = Running::start(plan)?;
    let mut progress = progress::is_watched().then(|| Progress::new(colour()));
    let mut tick = tokio::time::interval(progress::EVERY);
    let mut interrupted = false;
    loop {
        tokio::select! {
            () = running.ended() => break,
            _ = interrupts.recv(), if !interrupted => {
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
    if !args.json {
        return stdout().lock().write_all(table::table(results).as_bytes()).map_err(unwritten);
    }
    // For people, who may not be there.
    let _ = stderr().write_all(table::table(results).as_bytes());
    let json = serde_json::to_string(results).map_err(|error| unwritten(error.into()))?;
    writeln!(stdout().lock(), "{json}").map_err(unwritten)
}
