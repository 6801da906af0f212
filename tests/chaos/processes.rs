//! Instances that are processes of their own, ended by `kill -9` and stopped by SIGSTOP.

use std::time::Duration;

use http::Method;

use crate::load::Load;
use crate::scene::{RULES, configuration};
use crate::support::{Gateway, companion, eventually};

const SOON: Duration = Duration::from_secs(6);

/// An instance: another gateway, which answers by itself. It comes back where it was.
struct Process {
    port: u16,
    running: Option<Gateway>,
}

impl Process {
    fn start() -> Process {
        let mut process = Process { port: companion::port(), running: None };
        process.begin();
        process
    }

    fn begin(&mut self) {
        let configuration = format!(
            "listeners: [{{ name: http, bind: '127.0.0.1:{}' }}]\nobservability: {{ access_log: {{ output: off }} }}\n\
             routes: [{{ name: all, match: {{ prefix: / }}, respond: {{ text: a process }} }}]\n",
            self.port
        );
        self.running = Some(Gateway::start(&configuration));
    }

    /// `kill -9`, and the kernel closes what was open.
    fn kill(&mut self) {
        let mut process = self.running.take().expect("it runs");
        process.signal("KILL");
        process.wait_for_end();
    }

    fn signal(&self, name: &str) {
        self.running.as_ref().expect("it runs").signal(name);
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

struct Scene {
    gateway: Gateway,
    processes: Vec<Process>,
}

impl Scene {
    fn start(settings: &str) -> Scene {
        let processes: Vec<Process> = (0..3).map(|_| Process::start()).collect();
        let urls: Vec<String> = processes.iter().map(Process::url).collect();
        Scene { gateway: Gateway::start(&configuration(&urls, settings)), processes }
    }

    /// Waits until the services use this instance again. There is load meanwhile.
    async fn until_used(&self, instance: usize) {
        for (rule, _) in RULES {
            let address = companion::local(self.processes[instance].port);
            let attempts = || async {
                let seen = self.gateway.instance(rule, address).await.expect("it is configured");
                seen["attempts"].as_u64().expect("a number")
            };
            let before = attempts().await;
            let is_used = || async { (attempts().await > before + 2).then_some(()) };
            eventually(&format!("{rule} uses {address} again"), is_used).await;
        }
    }

    async fn end(self, load: Load, what: &str) {
        for notes in load.end(what).await {
            assert_eq!(notes.failed(), 0, "{what}: {}", notes.summary());
            assert!(notes.per_mille(1000) < SOON, "{what}: {}", notes.summary());
            let label = format!("service=\"{}\"", notes.rule);
            let attempts = self.gateway.metric("gatehouse_upstream_requests_total", &[&label]).await as usize;
            let allowed = notes.asked() + (notes.asked() / 5).max(100);
            assert!(attempts <= allowed, "{what}: {attempts} attempts\n{}", notes.summary());
        }
    }
}

/// One after the other is killed and started again, so that there are always two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed() {
    let mut scene = Scene::start("");
    let load = Load::start(scene.gateway.http(), &Method::GET, 2);
    load.go_on(10).await;
    for instance in 0..3 {
        scene.processes[instance].kill();
        load.go_on(15).await;
        scene.processes[instance].begin();
        scene.until_used(instance).await;
    }
    scene.end(load, "kill -9, one after the other").await;
}

/// Two of three at once: two attempts in a row may go wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_killed_at_once() {
    let mut scene = Scene::start("");
    let load = Load::start(scene.gateway.http(), &Method::GET, 2);
    load.go_on(10).await;
    scene.processes[0].kill();
    scene.processes[1].kill();
    load.go_on(40).await;
    scene.end(load, "kill -9 of two of three").await;
}

/// It accepts connections as far as its kernel does, and answers nothing until it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped() {
    let scene = Scene::start("");
    let load = Load::start(scene.gateway.http(), &Method::GET, 3);
    load.go_on(10).await;
    for instance in 0..2 {
        scene.processes[instance].signal("STOP");
        load.go_on(40).await;
        scene.processes[instance].signal("CONT");
        scene.until_used(instance).await;
    }
    scene.end(load, "SIGSTOP, one after the other").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stopped_at_once() {
    let scene = Scene::start("");
    let load = Load::start(scene.gateway.http(), &Method::GET, 3);
    load.go_on(10).await;
    scene.processes[1].signal("STOP");
    scene.processes[2].signal("STOP");
    load.go_on(60).await;
    scene.end(load, "SIGSTOP of two of three").await;
}

/// With checks, what was stopped is used again as soon as they say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_under_health_checks() {
    let scene = Scene::start("health_check: { path: /health, interval: 200ms, timeout: 200ms }");
    let load = Load::start(scene.gateway.http(), &Method::GET, 3);
    load.go_on(10).await;
    scene.processes[0].signal("STOP");
    load.go_on(40).await;
    scene.processes[0].signal("CONT");
    scene.until_used(0).await;
    scene.end(load, "SIGSTOP with health checks").await;
}
