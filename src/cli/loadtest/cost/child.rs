//! A gateway as a process of its own, whose processor time is read from outside.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Lines that it may say before it serves.
const MOST_LINES: usize = 1000;

/// A directory of our own, for configurations that may hold secrets; removed in the end.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> std::io::Result<Directory> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("gatehouse-cost-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Directory(path))
    }

    pub fn write(&self, name: &str, text: &str) -> std::io::Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Ends with this value.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts this same program with the configuration, and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it doesn't, with what it said.
    pub fn start(configuration: &Path) -> Result<Process, String> {
        let program =
            std::env::current_exe().map_err(|error| format!("where this program is is unknown: {error}"))?;
        let mut child = Command::new(program)
            .args(["run", "--drain-timeout", "1s", "-c"])
            .arg(configuration)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("a gateway can't be started: {error}"))?;
        let said = child.stderr.take();
        let mut process = Process { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut lines = BufReader::new(said.ok_or("its messages can't be read")?).lines();
        let mut all = Vec::new();
        for line in lines.by_ref().map_while(Result::ok).take(MOST_LINES) {
            if let Some(address) = line.split("listening on ").nth(1).and_then(|rest| rest.split(' ').next())
            {
                process.address = address.parse().map_err(|_| format!("it listens at {address:?}"))?;
            }
            if line.contains("serving ") && process.address.port() != 0 {
                // What it says from now on is read, so that it never waits for us, and forgotten.
                std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
                return Ok(process);
            }
            all.push(line);
        }
        Err(format!("a gateway without the policy does not start:\n{}", all.join("\n")))
    }

    /// Nanoseconds of processor time that its threads have used so far.
    pub fn processor_time(&self) -> std::io::Result<u64> {
        let mut sum = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // One that has just ended has nothing to say.
            let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            sum += text.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
