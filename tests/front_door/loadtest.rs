//! `gatehouse loadtest`, as the program that users run, against origins that know what came to them.

mod measuring;
mod refusals;
mod reports;
mod traffic;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a load test said and how it ended.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The results, of a test with `--json`.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }
}

pub fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    command.arg("loadtest").args(arguments).current_dir(directory).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs it in a directory of its own, to its end.
pub async fn loadtest(arguments: &[&str]) -> Ran {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    loadtest_in(directory.path(), arguments).await
}

/// Runs it while origins of this test's runtime answer.
pub async fn loadtest_in(directory: &Path, arguments: &[&str]) -> Ran {
    let mut command = command(directory, arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let Output { status, stdout, stderr } = output.expect("the binary was built with the tests");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes text");
    Ran { code: status.code().expect("it ended by itself"), out: text(stdout), err: text(stderr) }
}
