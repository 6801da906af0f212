//! The command line: arguments → a command → an exit code. One file a command.
//!
//! Exit codes: 0 fine, 1 the thing checked is wrong, 2 usage. Results go to stdout, all else to stderr.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "commands print what they find")]

pub mod check;
pub mod demo;
pub mod explain;
pub mod loadtest;
pub mod run;
pub mod schema;
pub mod token;

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Parser, Subcommand};

use crate::config;
use crate::gateway;
use crate::telemetry::events::colour;

/// As shells have it for a process that SIGINT ended.
pub(crate) const EXIT_INTERRUPTED: i32 = 130;

/// An API gateway in one binary and one YAML file
#[derive(Debug, Parser)]
#[command(name = "gatehouse", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    /// Say everything that is wrong with a configuration
    #[command(override_usage = "gatehouse check [-c FILE] [--json] [--explain ROUTE]")]
    Check {
        /// The configuration file
        #[arg(short, long, value_name = "FILE", default_value = "gateway.yaml")]
        config: PathBuf,
        /// Write the outcome as JSON to stdout
        #[arg(long)]
        json: bool,
        /// Tell what this route does: the plan of an aggregate's parts
        #[arg(long, value_name = "ROUTE")]
        explain: Option<String>,
    },
    Demo(demo::DemoArgs),
    Token(token::TokenArgs),
    Loadtest(Box<loadtest::LoadArgs>),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
}

/// Runs the command that the process was started with.
pub fn main() -> u8 {
    match Arguments::parse().command {
        Command::Run(args) => code(run::run(&args, |_| async {})),
        Command::Check { config, json, explain } => {
            let style = check::Style { json, colour: colour() };
            let done = check::run(
                &config,
                style,
                explain.as_deref(),
                &environment,
                gateway::check,
                &mut stdout().lock(),
                &mut stderr().lock(),
            );
            done.unwrap_or(check::WRONG)
        }
        Command::Demo(args) => demo::main(&args),
        Command::Token(args) => sign(&args),
        Command::Loadtest(args) => loadtest::main(&args),
        Command::Schema => match schema::run(&mut stdout().lock()) {
            Ok(()) => check::FINE,
            Err(_) => check::WRONG,
        },
    }
}

fn sign(args: &token::TokenArgs) -> u8 {
    let loaded = match args.config_path().map(load).transpose() {
        Ok(loaded) => loaded,
        Err(wrong) => {
            complain(wrong);
            return check::WRONG;
        }
    };
    let signed =
        token::run(args, loaded.as_ref(), SystemTime::now(), &mut stdout().lock(), &mut stderr().lock());
    match signed {
        Ok(()) => check::FINE,
        Err(why) => {
            complain(format_args!("error: {why}"));
            check::WRONG
        }
    }
}

/// A line on stderr; where nobody reads that, there is nothing to be done about it.
pub(crate) fn complain(what: impl std::fmt::Display) {
    let _ = writeln!(stderr(), "{what}");
}

fn load(path: &std::path::Path) -> Result<config::Config, String> {
    let source = config::read_source(path).map_err(|error| format!("error: {error}"))?;
    config::load(&source, &environment)
        .map(|loaded| loaded.config)
        .map_err(|problems| config::render(&problems, &source, colour()))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) fn code(result: Result<(), gateway::Wrong>) -> u8 {
    match result {
        Ok(()) => check::FINE,
        Err(wrong) => {
            complain(wrong);
            check::WRONG
        }
    }
}

/// `250ms`, `5s`, `2m`, `1h`: the notation of the configuration.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "write a number and ms, s, m or h: 30s".to_owned())
}

/// An error with all that has led to it.
pub(crate) fn spell_causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", spell_causes(cause)),
        None => error.to_string(),
    }
}
