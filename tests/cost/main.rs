//! What a request costs: instructions and allocations in the gateway itself, counted by callgrind.
//!
//! Times change with the machine and its mood; these counts hardly do, so they are what guards against a
//! change that makes requests dearer: it fails when one is above its bound. With the argument `scale`, or one of
//! `counts`, `times` and `starts`, it tells how the cost changes with the number of routes, instances, keys, connections
//! and workers instead.

#![expect(clippy::print_stdout, reason = "it is a program that prints a table")]

mod callgrind;
mod guard;
mod load;
mod native;
mod process;
mod scale;
mod shape;
mod traffic;

use std::process::ExitCode;

fn main() -> ExitCode {
    let binary = callgrind::build();
    let asked = |table: &str| std::env::args().any(|argument| argument == table || argument == "scale");
    if asked("counts") {
        scale::counts(&binary);
    }
    if asked("times") {
        native::times(&binary);
    }
    if asked("starts") {
        native::starts(&binary);
    }
    if ["counts", "times", "starts"].into_iter().any(asked) {
        return ExitCode::SUCCESS;
    }
    if guard::holds(&binary) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
