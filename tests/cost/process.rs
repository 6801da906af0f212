//! A gateway as a process of its own, in a directory of its own, for as long as it is looked at.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

/// A hundred thousand routes under valgrind take a minute to start with.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Process {
    /// Of its first listener.
    pub address: SocketAddr,
    directory: TempDir,
    child: Child,
    said: Receiver<String>,
}

impl Process {
    /// `under` is given the directory, and makes the command that is to have `run -c FILE` appended.
    pub fn start(under: impl FnOnce(&Path) -> Command, configuration: &str) -> Process {
        let directory = tempfile::tempdir().expect("there is a directory for temporary files");
        std::fs::write(directory.path().join("gateway.yaml"), configuration)
            .expect("the directory takes files");
        let mut child = under(directory.path())
            .args(["run", "-c"])
            .arg(directory.path().join("gateway.yaml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("its command is there");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (say, said) = channel();
        // It is read to its end in any case, because a full pipe would stop the gateway.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        let mut process = Process { address: ([127, 0, 0, 1], 0).into(), directory, child, said };
        process.address = process.listening();
        process
    }

    /// The address of the next listener that it tells of: those for traffic come before the admin's.
    pub fn listening(&self) -> SocketAddr {
        let line = self.said("listening on ");
        let address = line.split("listening on ").nth(1).and_then(|rest| rest.split(' ').next());
        address.and_then(|address| address.parse().ok()).expect("an address follows")
    }

    /// Waits for it to say that.
    pub fn said(&self, words: &str) -> String {
        loop {
            let line = self.said.recv_timeout(PATIENCE).expect("the gateway lives, and says how it goes on");
            if line.contains(words) {
                return line;
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the gateway has ended before");
    }

    /// Lets it end in order.
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.child.wait().expect("it is a child of this process");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
