//! The gateway under callgrind, and what its reports say.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::Process;

/// What was counted, or may be.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub instructions: u64,
    pub allocations: u64,
}

/// The gateway as it is released, made now.
pub fn build() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--bin", "gatehouse", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(target())
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the release build failed");
    target().join("release/gatehouse")
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target directory")
}

pub struct Gateway {
    process: Process,
}

impl Gateway {
    /// Counts from its first instruction on, until [`Gateway::stop`].
    pub fn start(binary: &Path, configuration: &str) -> Gateway {
        Gateway::with(&[], binary, configuration)
    }

    /// Counts only within [`Gateway::count`], and is ten times as fast before.
    pub fn start_uncounted(binary: &Path, configuration: &str) -> Gateway {
        Gateway::with(&["--instr-atstart=no", "--separate-threads=yes"], binary, configuration)
    }

    fn with(options: &[&str], binary: &Path, configuration: &str) -> Gateway {
        let valgrind = |directory: &Path| {
            let mut command = Command::new("valgrind");
            command
                .args(["--quiet", "--tool=callgrind"])
                .args(options)
                .arg(format!("--callgrind-out-file={}", directory.join("counts").display()))
                .arg(binary);
            command
        };
        Gateway { process: Process::start(valgrind, configuration) }
    }

    pub fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// The instructions of the busiest thread, which is the worker, while `work` is done. Only once.
    pub fn count(&self, work: impl FnOnce()) -> u64 {
        self.control("--zero");
        work();
        self.control("--dump");
        let directory = self.process.file("");
        let reports = std::fs::read_dir(directory).expect("it is there").flatten();
        reports
            .filter(|file| file.file_name().to_string_lossy().starts_with("counts.1-"))
            .map(|file| std::fs::read_to_string(file.path()).expect("callgrind reports"))
            .filter_map(|report| totals(&report))
            .max()
            .expect("there is a report of each thread")
    }

    /// From here on instructions are followed, so that they can be counted.
    pub fn follow(&self) {
        self.control("--instr=on");
    }

    fn control(&self, command: &str) {
        let pid = self.process.id().to_string();
        let obeyed = Command::new("callgrind_control")
            .args([command, &pid])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(obeyed.is_ok_and(|status| status.success()), "callgrind takes the command {command}");
    }

    /// Lets it end in order, and reads what was counted.
    pub fn stop(mut self) -> Counts {
        self.process.stop();
        read(&std::fs::read_to_string(self.process.file("counts")).expect("callgrind reports"))
    }
}

fn totals(report: &str) -> Option<u64> {
    report.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}

/// The format is described in Valgrind's manual: a function is named in full where it occurs first, as
/// `cfn=(ID) NAME`, later by its ID, and the line after a `cfn` counts the calls.
fn read(report: &str) -> Counts {
    let mut counts = Counts { instructions: totals(report).expect("they are counted"), allocations: 0 };
    let mut allocators = HashSet::new();
    let mut called = "";
    for (kind, function) in report.lines().filter_map(|line| line.split_once('=')) {
        match kind {
            "fn" | "cfn" => {
                let (id, name) = function.split_once(' ').unwrap_or((function, ""));
                if is_allocator(name) {
                    allocators.insert(id);
                }
                if kind == "cfn" {
                    called = id;
                }
            }
            "calls" if allocators.contains(called) => {
                let calls = function.split(' ').next().and_then(|calls| calls.parse::<u64>().ok());
                counts.allocations += calls.expect("a number");
            }
            _ => {}
        }
    }
    assert!(counts.instructions > 0 && counts.allocations > 0, "the report has both counts");
    counts
}

/// jemalloc's ways in that may give memory. What it calls itself has other names.
fn is_allocator(name: &str) -> bool {
    let name = name.split('\'').next().unwrap_or_default();
    ["_rjem_malloc", "_rjem_mallocx", "_rjem_calloc", "_rjem_realloc", "_rjem_rallocx"].contains(&name)
}
