//! Load of wrk on gateways that run as they are, and what it costs them of the processor's time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::traffic::BODY;

const WINDOW: Duration = Duration::from_millis(1_000);

/// Which processors a process may use, so that load and gateway don't share one if there are enough.
pub fn on_processors(first: usize, last: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &format!("{first}-{last}")]).arg(program);
    command
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// For what makes load: all processors but the first two, or the last.
fn on_the_others(program: &Path) -> Command {
    on_processors(2.min(processors() - 1), processors() - 1, program)
}

/// Answers at once, and knows how many requests it has answered: a gateway with a route that needs no service.
pub struct NativeOrigin {
    process: Process,
    admin: SocketAddr,
}

impl NativeOrigin {
    pub fn start(binary: &Path) -> NativeOrigin {
        let configuration = format!(
            "workers: 1
listeners: [{{ name: http, bind: '0.0.0.0:0', limits: {{ idle_timeout: 600s }} }}]
admin: {{ bind: '127.0.0.1:0' }}
observability: {{ access_log: {{ output: off }} }}
routes: [{{ name: all, match: {{ prefix: / }}, respond: {{ status: 200, text: '{BODY}' }} }}]
"
        );
        let process = Process::start(|_| on_the_others(binary), &configuration);
        let admin = process.listening();
        NativeOrigin { process, admin }
    }

    pub fn port(&self) -> u16 {
        self.process.address.port()
    }

    fn answered(&self) -> f64 {
        let mut connection = TcpStream::connect(self.admin).expect("the origin listens");
        let asked =
            connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        asked.expect("the origin reads");
        let mut metrics = String::new();
        connection.read_to_string(&mut metrics).expect("the origin answers");
        assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
        let line = metrics.lines().find(|line| line.starts_with("http_requests_total{"));
        line.map_or(0.0, |line| {
            line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count")
        })
    }
}

#[derive(Clone, Copy)]
pub struct Window {
    /// Of the whole process.
    pub microseconds_a_request: f64,
    pub requests_a_second: f64,
}

/// Loads the gateway over so many connections, and looks at a second of it after all of them are in use.
pub fn window(gateway: &Process, origin: &NativeOrigin, connections: usize, script: &Path) -> Window {
    let settling = Duration::from_millis(400 + connections as u64 / 4);
    let mut wrk = on_the_others(Path::new("wrk"));
    let seconds = (settling + WINDOW).as_secs() + 1;
    wrk.args(["-t1", "--timeout", "10s", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "-s"])
        .arg(script)
        .arg(format!("http://{}", gateway.address))
        .stdout(Stdio::piped());
    let load = wrk.spawn().expect("wrk is installed (on Debian: apt install wrk)");
    std::thread::sleep(settling);
    let (answered, used, at) = (origin.answered(), processor_ns(gateway.id()), Instant::now());
    std::thread::sleep(WINDOW);
    let requests = origin.answered() - answered;
    let (used, took) = (processor_ns(gateway.id()) - used, at.elapsed());
    let said = load.wait_with_output().expect("it is a child of this process").stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "wrk: {said}");
    assert!(requests > 0.0, "nothing was answered: {said}");
    Window {
        microseconds_a_request: used as f64 / 1000.0 / requests,
        requests_a_second: requests / took.as_secs_f64(),
    }
}

/// The kernel counts it to the nanosecond here, where `stat` has hundredths of a second.
fn processor_ns(process: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|times| times.split(' ').next()?.parse::<u64>().ok())
        .sum()
}
