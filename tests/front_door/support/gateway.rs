//! The gateway as a process of its own, in a directory of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::{PATIENCE, eventually};

pub struct Gateway {
    child: Child,
    lines: Arc<Lines>,
    stdout: Arc<Lines>,
    pub directory: tempfile::TempDir,
}

#[derive(Default)]
struct Lines {
    text: Mutex<Vec<String>>,
    more: Condvar,
}

impl Gateway {
    /// Starts with this configuration and waits until it serves. A configuration without `listeners` gets
    /// one, `http`; one without `admin` gets that too. Both on a port that the kernel chooses.
    pub fn start(configuration: &str) -> Gateway {
        Self::start_in(
            tempfile::tempdir().expect("there is a directory for temporary files"),
            configuration,
            &[],
        )
    }

    pub fn start_in(directory: tempfile::TempDir, configuration: &str, arguments: &[&str]) -> Gateway {
        let gateway = Self::spawn(directory, configuration, arguments, &[]);
        gateway.wait_for("serving ");
        gateway
    }

    /// Starts and does not wait.
    pub fn spawn(
        directory: tempfile::TempDir,
        configuration: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Gateway {
        std::fs::write(directory.path().join("gateway.yaml"), complete(configuration)).expect("writable");
        let drain_timeout = match arguments.contains(&"--drain-timeout") {
            true => &[][..],
            false => &["--drain-timeout", "5s"],
        };
        let arguments = [&["run"], arguments, drain_timeout].concat();
        Self::command(directory, &arguments, environment)
    }

    /// Starts the program in `directory` with exactly these arguments.
    pub fn command(
        directory: tempfile::TempDir,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Gateway {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        command.args(arguments).current_dir(directory.path()).envs(environment.iter().copied());
        Self::of(directory, command, Stdio::piped())
    }

    /// Starts with an output for the access log of the test's own.
    pub fn with_stdout(directory: tempfile::TempDir, configuration: &str, stdout: Stdio) -> Gateway {
        std::fs::write(directory.path().join("gateway.yaml"), complete(configuration)).expect("writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        command.args(["run", "--drain-timeout", "5s"]).current_dir(directory.path());
        let gateway = Self::of(directory, command, stdout);
        gateway.wait_for("serving ");
        gateway
    }

    /// Starts what `command` says, of which nothing but the arguments is the test's.
    pub fn of(directory: tempfile::TempDir, mut command: Command, stdout: Stdio) -> Gateway {
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built with the tests");
        let lines = Lines::read(child.stderr.take().expect("piped"));
        let stdout = child.stdout.take().map(Lines::read).unwrap_or_default();
        Gateway { child, lines, stdout, directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the listener of this name is (`admin` and `registry` are names too).
    pub fn address(&self, name: &str) -> SocketAddr {
        let suffix = format!(" ({name})");
        let line = self.lines.wait_for(|line| line.contains("listening on ") && line.ends_with(&suffix));
        let address = line.split("listening on ").nth(1).and_then(|rest| rest.split(' ').next());
        address.and_then(|address| address.parse().ok()).expect("the line has an address")
    }

    pub fn http(&self) -> SocketAddr {
        self.address("http")
    }

    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// Waits for a message on stderr that contains `text`.
    pub fn wait_for(&self, text: &str) -> String {
        self.lines.wait_for(|line| line.contains(text))
    }

    /// Everything on stderr so far.
    pub fn messages(&self) -> String {
        self.lines.text.lock().expect("no reader panicked").join("\n")
    }

    /// Everything on stdout so far: the access log, mostly.
    pub fn log_lines(&self) -> Vec<String> {
        self.stdout.text.lock().expect("no reader panicked").clone()
    }

    /// Waits for an access log entry of which `wanted` holds.
    pub fn log_entry(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON");
        parse(&self.stdout.wait_for(|line| wanted(&parse(line))))
    }

    /// Waits for a line on stdout that contains `text`.
    pub fn wait_for_output(&self, text: &str) -> String {
        self.stdout.wait_for(|line| line.contains(text))
    }

    /// Writes another configuration, as `start` would, and waits until it serves.
    pub async fn reconfigure(&self, configuration: &str) {
        let before = self.generation().await;
        self.write(configuration);
        eventually("the new configuration serves", || async {
            (self.generation().await > before).then_some(())
        })
        .await;
    }

    /// Writes another configuration and does not wait.
    pub fn write(&self, configuration: &str) {
        // As editors do it: a new file in the place of the old one. The addresses stay.
        let new = self.file("gateway.yaml.new");
        std::fs::write(&new, complete(configuration)).expect("writable");
        std::fs::rename(new, self.file("gateway.yaml")).expect("writable");
    }

    /// `POST /api/reload`.
    pub async fn ask_to_reload(&self) -> super::Reply {
        super::Client::new(self.admin()).post("/api/reload", "").await
    }

    pub async fn generation(&self) -> u64 {
        self.api("/api/status").await["generation"].as_u64().expect("a number")
    }

    /// `GET` of an admin document.
    pub async fn api(&self, path: &str) -> serde_json::Value {
        let reply = super::Client::new(self.admin()).get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// What `/api/services` says of a service.
    pub async fn service(&self, name: &str) -> serde_json::Value {
        let all = self.api("/api/services").await;
        let services = all["services"].as_array().expect("a list").clone();
        services
            .into_iter()
            .find(|service| service["name"] == name)
            .unwrap_or_else(|| panic!("no {name} in {all}"))
    }

    /// What `/api/services` says of an instance, if the service has it.
    pub async fn instance(&self, service: &str, address: SocketAddr) -> Option<serde_json::Value> {
        let service = self.service(service).await;
        let instances = service["instances"].as_array().expect("a list").clone();
        instances.into_iter().find(|instance| instance["address"] == address.to_string())
    }

    /// The sum over a metric's samples whose labels contain all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = super::Client::new(self.admin()).get("/metrics").await.text();
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill is everywhere").success());
    }

    /// Waits for the process to end by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end; it said:\n{}", self.messages());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// As `wait_for_end`, while the test's own tasks go on.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() {
            assert!(Instant::now() < deadline, "it did not end; it said:\n{}", self.messages());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.wait_for_end()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the gateway said:\n{}", self.messages());
        }
        let said = self.messages();
        assert!(!said.contains("panicked at") || std::thread::panicking(), "the gateway panicked:\n{said}");
    }
}

impl Lines {
    fn read(from: impl std::io::Read + Send + 'static) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        let reading = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                reading.text.lock().expect("no reader panicked").push(line);
                reading.more.notify_all();
            }
        });
        lines
    }

    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.text.lock().expect("no reader panicked");
        loop {
            if let Some(line) = text.iter().rev().find(|line| wanted(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let there = text.join("\n");
                // Or the gateway's own drop would find it poisoned, and a second panic ends all tests.
                drop(text);
                panic!("waited in vain for a line; there were:\n{there}");
            }
            text = self.more.wait_timeout(text, left).expect("no reader panicked").0;
        }
    }
}

/// Adds what every test needs and few want to write.
pub fn complete(configuration: &str) -> String {
    let has = |key: &str| configuration.lines().any(|line| line.starts_with(key));
    let mut text = String::new();
    for (key, block) in [
        ("listeners:", "listeners: [{ name: http, bind: \"127.0.0.1:0\" }]\n"),
        ("admin:", "admin: { bind: \"127.0.0.1:0\" }\n"),
        ("workers:", "workers: 2\n"),
    ] {
        if !has(key) {
            text += block;
        }
    }
    text + configuration
}
