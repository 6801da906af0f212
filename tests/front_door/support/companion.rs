//! Other people's servers, started by the tests: on ports of their own, with data that goes away, and ended
//! by their own process id.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::Client;

/// What a server may take on a machine that has much else to do.
const STARTING: Duration = Duration::from_secs(60);

pub struct Companion {
    command: Command,
    /// Where it answers, and a path that it answers with 200 once it is ready.
    address: SocketAddr,
    ready: (&'static str, &'static str),
    child: Option<Child>,
}

impl Companion {
    /// Starts it, and waits until it answers a POST of `ready.1` to `ready.0` (a GET, if that is empty).
    pub async fn start(
        command: Command,
        address: SocketAddr,
        ready: (&'static str, &'static str),
    ) -> Companion {
        let mut companion = Companion { command, address, ready, child: None };
        companion.restart().await;
        companion
    }

    /// As it was started first. It must not run.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let deadline = Instant::now() + STARTING;
        self.spawn();
        while !self.answers().await {
            assert!(Instant::now() < deadline, "{:?} doesn't answer", self.command.get_program());
            // What was at its address before may not have left yet.
            if let Some(child) = &mut self.child
                && child.try_wait().expect("it is our child").is_some()
            {
                self.spawn();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn spawn(&mut self) {
        let name = self.command.get_program().to_owned();
        let child = self.command.spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{name:?}: {error}: ./test.sh installs it")));
    }

    async fn answers(&self) -> bool {
        let method = if self.ready.1.is_empty() { http::Method::GET } else { http::Method::POST };
        let reply = Client::new(self.address).try_send(method, self.ready.0, self.ready.1.into()).await;
        reply.is_ok_and(|reply| reply.status == 200)
    }

    /// `kill -9`, as a crash would end it.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill is everywhere").success());
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A free port that the kernel gives to nobody by itself, so that it is still free for a server that comes
/// back.
pub fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const LOWEST: u16 = 20_000;
    const RANGE: u16 = 12_000;
    // Tests that run at the same time in other processes begin elsewhere.
    let first = std::process::id().wrapping_mul(61) % u32::from(RANGE);
    loop {
        let next = NEXT.fetch_add(1, Relaxed);
        let port = LOWEST + (first as u16 + next) % RANGE;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
