//! The gateway under callgrind, and what its report says.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
    pub address: SocketAddr,
    process: Child,
    directory: PathBuf,
}

impl Gateway {
    pub fn start(binary: &Path, configuration: &str) -> Gateway {
        let directory = std::env::temp_dir().join(format!("gatehouse-cost-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("there is a directory for temporary files");
        let file = directory.join("gateway.yaml");
        std::fs::write(&file, configuration).expect("the directory takes files");
        let mut process = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind"])
            .arg(format!("--callgrind-out-file={}", directory.join("counts").display()))
            .arg(binary)
            .args(["run", "-c"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("valgrind is installed (on Debian: apt install valgrind)");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split("listening on ").nth(1)?.split(' ').next()?.parse().ok())
            .expect("the gateway says where it listens");
        // Nobody else reads what it says, and a full pipe would stop it.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Gateway { address, process, directory }
    }

    /// Lets it end in order, and reads what was counted.
    pub fn stop(mut self) -> Counts {
        let ended = Command::new("kill").arg(self.process.id().to_string()).status();
        assert!(ended.is_ok_and(|status| status.success()), "the gateway has ended before");
        self.process.wait().expect("it is a child of this process");
        let report = std::fs::read_to_string(self.directory.join("counts")).expect("callgrind reports");
        let _ = std::fs::remove_dir_all(&self.directory);
        read(&report)
    }
}

/// The format is described in Valgrind's manual: a function is named in full where it occurs first, as
/// `cfn=(ID) NAME`, later by its ID, and the line after a `cfn` counts the calls.
fn read(report: &str) -> Counts {
    let mut counts = Counts { instructions: 0, allocations: 0 };
    let mut allocators = HashSet::new();
    let mut called = "";
    for line in report.lines() {
        if let Some(total) = line.strip_prefix("totals: ") {
            counts.instructions = total.trim().parse().expect("a number");
        } else if let Some((kind, function)) = line.split_once('=') {
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
    }
    assert!(counts.instructions > 0 && counts.allocations > 0, "the report has both counts");
    counts
}

/// jemalloc's ways in that may give memory. What it calls itself has other names.
fn is_allocator(name: &str) -> bool {
    let name = name.split('\'').next().unwrap_or_default();
    ["_rjem_malloc", "_rjem_mallocx", "_rjem_calloc", "_rjem_realloc", "_rjem_rallocx"].contains(&name)
}
