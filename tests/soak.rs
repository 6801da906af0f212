//! Load while the configuration is rewritten ten times a second and instances are killed and come back: no
//! request may fail that an instance could have answered, memory stays, limits and breakers keep their state.
//!
//! `GATEHOUSE_SOAK_SECONDS` says how long (10 s when it says nothing). A summary goes to stderr.

#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]
#![allow(clippy::print_stderr, reason = "a summary, and what the gateway said when it fails")]

#[path = "front_door/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the front-door tests use the rest")]
mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Client, Gateway, Origin, Session, eventually, origin};
use tokio::task::JoinSet;

const DOWN_FOR: Duration = Duration::from_millis(600);
const UP_FOR: Duration = Duration::from_millis(900);
const REWRITE_EVERY: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_grows() {
    let seconds = std::env::var("GATEHOUSE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(10));
    let fixed = [Instance::start("fixed").await, Instance::start("fixed").await];
    let registered = [Instance::start("registered").await, Instance::start("registered").await];
    let configuration = Configuration { fixed: [fixed[0].address, fixed[1].address] };
    let gateway = Arc::new(Gateway::start(&configuration.valid(1)));
    let over = Arc::new(AtomicBool::new(false));
    let beats =
        registered.each_ref().map(|one| tokio::spawn(announce(gateway.address("registry"), one.address)));
    prepare(&gateway).await;

    let start_rss = rss_kib(&gateway);
    let tally = Arc::new(Tally::default());
    let mut clients = JoinSet::new();
    for number in 0..20 {
        clients.spawn(ask(number, gateway.http(), tally.clone(), over.clone()));
    }
    let rewriting = tokio::spawn(rewrite(gateway.clone(), configuration, over.clone()));
    let killing = tokio::spawn(kill_in_turn(gateway.clone(), fixed, registered, over.clone()));
    tokio::time::sleep(length / 3).await;
    let warm_rss = rss_kib(&gateway);
    tokio::time::sleep(length - length / 3).await;
    over.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client panicked");
    }
    rewriting.await.expect("rewriting went on");
    let kills = killing.await.expect("killing went on");
    beats.iter().for_each(|beat| beat.abort());

    let end_rss = rss_kib(&gateway);
    let [applied, refused] = [reloads(&gateway, "applied").await, reloads(&gateway, "refused").await];
    let summary = format!(
        "{} requests in {length:?}, {} failed {:?}\n{kills} kills; reloads: {applied} applied, {refused} refused\n\
         resident: {start_rss} KiB at the start, {warm_rss} after a third, {end_rss} at the end",
        tally.answered.load(Relaxed) + tally.failed(),
        tally.failed(),
        tally.failures.lock().expect("no client panicked"),
    );
    // Past the capture of the test harness: it is worth reading when all is well, too.
    let _ = writeln!(std::io::stderr(), "{summary}");
    assert_eq!(tally.failed(), 0, "{summary}");
    assert!(applied as f64 > length.as_secs_f64() && refused as f64 > length.as_secs_f64(), "{summary}");
    // A quarter and 16 MiB are for what an allocator keeps.
    assert!(end_rss < warm_rss + warm_rss / 4 + 16 * 1024, "{summary}");
    state_was_kept(&gateway, length).await;
}

/// Uses up a limit and opens a breaker, both of which then have to last.
async fn prepare(gateway: &Gateway) {
    let client = Client::new(gateway.http());
    for path in ["/fixed", "/registered", "/both"] {
        let ready = || async { (client.get(path).await.status == 200).then_some(()) };
        eventually("the services answer", ready).await;
    }
    eventually("the limit is used up", || async {
        (client.get("/limited").await.status == 429).then_some(())
    })
    .await;
    let open = || async {
        let reply = client.get("/dead").await;
        (reply.status == 503 && reply.code() == "circuit_open").then_some(())
    };
    eventually("the breaker is open", open).await;
}

async fn state_was_kept(gateway: &Gateway, length: Duration) {
    let client = Client::new(gateway.http());
    if length < Duration::from_secs(1000) {
        assert_eq!(client.get("/limited").await.status, 429);
    }
    assert_eq!(client.get("/dead").await.code(), "circuit_open");
    let services = gateway.api("/api/services").await;
    let dead = services["services"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "dead"));
    let instance = &dead.expect("it is configured")["instances"][0];
    assert_eq!(instance["breaker"]["state"], "open", "{instance}");
    assert_eq!(instance["attempts"], 3, "what opened it and no more: {instance}");
}

struct Configuration {
    fixed: [SocketAddr; 2],
}

impl Configuration {
    /// Two forms differ in a header, a route, a rate limit's rate, and the weight of an instance.
    fn valid(&self, form: u8) -> String {
        let [one, other] = self.fixed;
        let extra = match form {
            1 => "",
            _ => "  - { name: extra, match: { path: /extra }, respond: { text: extra } }\n",
        };
        format!(
            "registry: {{ bind: '127.0.0.1:0', heartbeat_ttl: 10s }}\n\
             services:\n\
             \x20 fixed:\n    instances: ['http://{one}', {{ url: 'http://{other}', weight: {form} }}]\n\
             \x20   load_balancing: least_requests\n    retries: {{ attempts: 2, budget: 20% }}\n\
             \x20 registered:\n    discovery: {{ registry: {{}} }}\n    retries: {{ attempts: 2, budget: 20% }}\n\
             \x20   health_check: {{ path: /health, interval: 500ms, timeout: 5s }}\n\
             \x20 dead:\n    instances: ['http://127.0.0.1:1']\n    retries: {{ attempts: 0 }}\n\
             \x20   circuit_breaker: {{ consecutive_failures: 3, open_for: 1h, max_open_for: 1h }}\n\
             rate_limits:\n  few: {{ key: route, rate: 1/h, burst: 2 }}\n  many: {{ key: ip, rate: {form}00000/s, \
             burst: 100000 }}\n\
             defaults: {{ rate_limits: [many], response_headers: {{ set: {{ x-form: '{form}' }} }} }}\n\
             routes:\n\
             \x20 - {{ name: fixed, match: {{ prefix: /fixed }}, forward: {{ service: fixed }} }}\n\
             \x20 - {{ name: registered, match: {{ prefix: /registered }}, forward: {{ service: registered }} }}\n\
             \x20 - {{ name: dead, match: {{ prefix: /dead }}, forward: {{ service: dead }} }}\n\
             \x20 - {{ name: limited, match: {{ path: /limited }}, rate_limits: [few], respond: {{ text: x }} }}\n\
             \x20 - name: both\n    match: {{ path: /both }}\n    aggregate:\n      timeout: 10s\n      parts:\n\
             \x20       fixed: {{ service: fixed, path: /fixed, required: true }}\n\
             \x20       registered: {{ service: registered, path: /registered, required: true }}\n{extra}"
        )
    }

    fn invalid(&self) -> String {
        self.valid(1).replace("forward: { service: dead }", "forward: { servise: dead }")
    }
}

async fn rewrite(gateway: Arc<Gateway>, configuration: Configuration, over: Arc<AtomicBool>) {
    let forms = [configuration.valid(2), configuration.invalid(), configuration.valid(1)];
    let mut turn = tokio::time::interval(REWRITE_EVERY);
    for number in (0..).take_while(|_| !over.load(Relaxed)) {
        turn.tick().await;
        let text = &forms[number % forms.len()];
        // In place or by a rename, as editors differ.
        if number % 2 == 0 {
            gateway.write(text);
        } else {
            let text = support::gateway::complete(text);
            std::fs::write(gateway.file("gateway.yaml"), text).expect("writable");
        }
    }
}

/// One of each pair goes and comes back, then the other, so that there is always one.
async fn kill_in_turn(
    gateway: Arc<Gateway>,
    mut fixed: [Instance; 2],
    mut registered: [Instance; 2],
    over: Arc<AtomicBool>,
) -> usize {
    for number in 0.. {
        tokio::time::sleep(UP_FOR).await;
        if over.load(Relaxed) {
            return number;
        }
        let turn = number % 2;
        fixed[turn].kill();
        registered[1 - turn].kill();
        tokio::time::sleep(DOWN_FOR).await;
        fixed[turn].revive().await;
        registered[1 - turn].revive().await;
        until_back(&gateway, "fixed", &fixed[turn], &over).await;
        until_back(&gateway, "registered", &registered[1 - turn], &over).await;
    }
    0
}

/// There is one to answer only once the gateway can know of it, which takes the longer, the busier the machine is.
/// Without requests a breaker doesn't close: they end when it is `over`.
async fn until_back(gateway: &Gateway, service: &str, instance: &Instance, over: &AtomicBool) {
    let is_back = || async {
        let seen = gateway.instance(service, instance.address).await?;
        let is_used = seen["health"] != "unhealthy" && seen["breaker"]["state"] == "closed";
        (is_used || over.load(Relaxed)).then_some(())
    };
    eventually("an instance that is up again is used", is_back).await;
}

struct Instance {
    name: &'static str,
    address: SocketAddr,
    origin: Origin,
}

impl Instance {
    async fn start(name: &'static str) -> Instance {
        let origin = Origin::start(move |_| answer(name)).await;
        Instance { name, address: origin.address, origin }
    }

    fn kill(&self) {
        self.origin.kill();
    }

    async fn revive(&mut self) {
        let name = self.name;
        // What it saw is of no interest and would only grow.
        self.origin = Origin::start_at(self.address, move |_| answer(name)).await;
    }
}

fn answer(name: &str) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    origin::json(format!("{{\"from\":\"{name}\"}}"))
}

/// Heartbeats, whether or not the instance is up: a crash tells nobody.
async fn announce(registry: SocketAddr, instance: SocketAddr) {
    let client = Client::new(registry).header("content-type", "application/json");
    let body = format!(
        "{{\"service_name\":\"registered\",\"host\":\"{}\",\"port\":{}}}",
        instance.ip(),
        instance.port()
    );
    loop {
        let _ = client.try_send(http::Method::POST, "/registry/register", body.clone().into()).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    fn failed(&self) -> u64 {
        self.failures.lock().expect("no client panicked").values().sum()
    }

    fn fail(&self, kind: String) {
        *self.failures.lock().expect("no client panicked").entry(kind).or_default() += 1;
    }
}

/// Asks one thing after another over a connection that is kept, every fifth client by HTTP/2.
async fn ask(number: usize, address: SocketAddr, tally: Arc<Tally>, over: Arc<AtomicBool>) {
    let open = || async {
        match number % 5 {
            4 => Ok(Session::open_http2(address).await),
            _ => Session::try_open(address).await,
        }
    };
    let mut session = open().await.expect("the gateway accepts");
    let paths = ["/fixed/a", "/registered/b", "/both"];
    for turn in number.. {
        if over.load(Relaxed) {
            return;
        }
        let path = paths[turn % paths.len()];
        let began = Instant::now();
        match session.try_get(path).await {
            Ok(reply) if reply.status == 200 => {
                tally.answered.fetch_add(1, Relaxed);
            }
            Ok(reply) => {
                let code = reply.json()["code"].as_str().unwrap_or("no code").to_owned();
                tally.fail(format!("{path}: {} {code} after {:?}", reply.status, began.elapsed().as_secs()));
            }
            Err(error) => {
                tally.fail(format!("{path}: {error}"));
                session = open().await.expect("the gateway accepts");
            }
        }
    }
}

fn rss_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

async fn reloads(gateway: &Gateway, result: &str) -> u64 {
    gateway.metric("gatehouse_config_reloads_total", &[&format!("result=\"{result}\"")]).await as u64
}
