//! The admin interface through its socket.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::view::*;
use super::*;

/// A gateway that answers what it is told to.
struct Stage {
    readiness: Mutex<Readiness>,
    outcome: Mutex<ReloadOutcome>,
    /// Reloads wait for this one when it is there.
    hold: Option<Arc<Notify>>,
    reloads_ended: Arc<Notify>,
}

impl Stage {
    fn new() -> Self {
        Stage {
            readiness: Mutex::new(Readiness::Ready),
            outcome: Mutex::new(ReloadOutcome::Unchanged),
            hold: None,
            reloads_ended: Arc::default(),
        }
    }
}

impl ControlSurface for Stage {
    fn ready(&self) -> Readiness {
        self.readiness.lock().unwrap().clone()
    }

    fn status(&self) -> GatewayStatus {
        let at = Moment(SystemTime::UNIX_EPOCH);
        let problem = ProblemStatus {
            severity: "error",
            line: Some(3),
            column: Some(5),
            message: "unknown key \"retrys\"".into(),
            remedy: "did you mean \"retries\"?".into(),
        };
        GatewayStatus {
            version: "0.1.0",
            started_at: at,
            uptime_seconds: 5,
            configuration_file: "gateway.yaml".into(),
            zone: None,
            generation: 1,
            workers: 2,
            draining: false,
            listeners: vec![ListenerStatus {
                name: "http".into(),
                address: "127.0.0.1:8000".parse().unwrap(),
                tls: false,
                certificates: vec![],
            }],
            maintenance: vec![],
            last_reload: Some(ReloadStatus {
                at,
                outcome: ReloadOutcome::Refused { problems: vec![problem] },
            }),
        }
    }

    fn services(&self) -> Vec<ServiceStatus> {
        vec![ServiceStatus {
            name: "users".into(),
            panicking: false,
            tls: false,
            groups: Vec::new(),
            balancing: BalancingStatus {
                consistent_hash: None,
                slow_start_ms: Some(30_000),
                sticky_cookie: None,
                local_zone: None,
                overprovisioning_percent: 140,
                panic_threshold_percent: None,
            },
            load_balancing: load_balancing_name(&crate::config::LoadBalancing::LeastRequests),
            source: SourceStatus::of(&crate::config::InstanceSource::Registry),
            metadata: None,
            retries: 1,
            hedging: None,
            concurrency: None,
            stale: Vec::new(),
            instances: vec![InstanceStatus {
                address: "127.0.0.1:8001".parse().unwrap(),
                weight: 2,
                zone: Some("a".into()),
                priority: 1,
                version: None,
                metadata: None,
                slow_start_percent: None,
                last_check: None,
                health: Health::Unchecked,
                ejection: None,
                ejections: None,
                breaker: BreakerStatus {
                    state: BreakerState::Open,
                    consecutive_failures: 5,
                    opened_at: Some(Moment(SystemTime::UNIX_EPOCH)),
                    next_probe_at: None,
                },
                route_breakers: Vec::new(),
                passed_over: Some(PassedOver::Unreachable),
                tls_failure: None,
                latency_ms: None,
                in_flight: 3,
                attempts: 10,
                failures: 5,
            }],
        }]
    }

    fn routes(&self) -> Vec<RouteStatus> {
        Vec::new()
    }

    fn metrics(&self, format: Format) -> String {
        format!("{format:?}\n")
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = ReloadOutcome> + Send + '_>> {
        Box::pin(async {
            if let Some(hold) = &self.hold {
                hold.notified().await;
            }
            self.reloads_ended.notify_one();
            self.outcome.lock().unwrap().clone()
        })
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn start(stage: Arc<Stage>, token: Option<&str>) -> (SocketAddr, Arc<Admin>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Admin::new(stage, token.map(Secret::new));
    tokio::spawn(admin.clone().serve(listener));
    (address, admin)
}

/// `head`: a request line and fields, one a line.
async fn ask(address: SocketAddr, head: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = head.replace('\n', "\r\n");
    let host = if head.contains("host:") { "" } else { "host: localhost\r\n" };
    let request = format!("{head}\r\n{host}content-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.into() }
}

#[tokio::test]
async fn health_and_readiness() {
    let stage = Arc::new(Stage::new());
    let (address, _) = start(stage.clone(), Some("secret")).await;
    let alive = ask(address, "GET /health HTTP/1.1\nhost: anything.example").await;
    assert_eq!((alive.status, alive.json()), (200, json!({ "status": "ok" })));
    let ready = ask(address, "GET /ready HTTP/1.1").await;
    assert_eq!((ready.status, ready.json()), (200, json!({ "status": "ready" })));

    *stage.readiness.lock().unwrap() = Readiness::NotReady(vec!["draining".into()]);
    let draining = ask(address, "GET /ready HTTP/1.1").await;
    assert_eq!(draining.status, 503);
    assert_eq!(draining.json(), json!({ "status": "not_ready", "reasons": ["draining"] }));
    assert_eq!(ask(address, "GET /health HTTP/1.1").await.status, 200);
}

#[tokio::test]
async fn what_is_known_is_shown() {
    let (address, _) = start(Arc::new(Stage::new()), None).await;
    let services = ask(address, "GET /api/services HTTP/1.1").await;
    assert!(services.head.contains("content-type: application/json"), "{}", services.head);
    assert!(services.head.contains("cache-control: no-store"));
    assert!(!services.head.contains("access-control"));
    assert_eq!(
        services.json(),
        json!({ "services": [{
            "name": "users",
            "load_balancing": "least_requests",
            "balancing": { "slow_start_ms": 30_000, "overprovisioning_percent": 140 },
            "panicking": false,
            "tls": false,
            "source": { "kind": "registry", "state": "ok" },
            "retries": 1,
            "instances": [{
                "address": "127.0.0.1:8001",
                "weight": 2,
                "zone": "a",
                "priority": 1,
                "health": "unchecked",
                "breaker": {
                    "state": "open", "consecutive_failures": 5, "opened_at": "1970-01-01T00:00:00.000Z",
                },
                "passed_over": "unreachable",
                "in_flight": 3,
                "attempts": 10,
                "failures": 5,
            }],
        }] })
    );
    let status = ask(address, "GET /api/status HTTP/1.1").await.json();
    assert_eq!(status["configuration_file"], "gateway.yaml");
    assert_eq!(
        status["last_reload"],
        json!({
            "at": "1970-01-01T00:00:00.000Z",
            "result": "refused",
            "problems": [{
                "severity": "error", "line": 3, "column": 5,
                "message": "unknown key \"retrys\"", "remedy": "did you mean \"retries\"?",
            }],
        })
    );
    assert_eq!(ask(address, "GET /api/routes HTTP/1.1").await.json(), json!({ "routes": [] }));
    let head_only = ask(address, "HEAD /api/routes HTTP/1.1").await;
    assert_eq!((head_only.status, &*head_only.body), (200, ""));
}

#[tokio::test]
async fn metrics_in_both_forms() {
    let (address, _) = start(Arc::new(Stage::new()), None).await;
    let older = ask(address, "GET /metrics HTTP/1.1").await;
    assert_eq!(older.body, "Prometheus\n");
    assert!(older.head.contains("content-type: text/plain; version=0.0.4"));
    let newer = ask(address, "GET /metrics HTTP/1.1\naccept: application/openmetrics-text").await;
    assert_eq!(newer.body, "OpenMetrics\n");
    assert!(newer.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problems() {
    let (address, _) = start(Arc::new(Stage::new()), None).await;
    let missing = ask(address, "GET /api/nothing HTTP/1.1").await;
    assert!(missing.head.contains("content-type: application/problem+json"));
    assert_eq!((missing.status, &missing.json()["code"]), (404, &json!("not_found")));
    let wrong = ask(address, "GET /api/reload HTTP/1.1").await;
    assert_eq!((wrong.status, &wrong.json()["status"]), (405, &json!(405)));
    assert!(wrong.head.contains("allow: post"));
    let wrong = ask(address, "POST /metrics HTTP/1.1").await;
    assert_eq!(wrong.status, 405);
    assert!(wrong.head.contains("allow: get, head"));
}

#[tokio::test]
async fn the_token_guards_all_but_the_probes() {
    let (address, admin) = start(Arc::new(Stage::new()), Some("secret")).await;
    for path in ["/metrics", "/api/status", "/api/nothing"] {
        let refused = ask(address, &format!("GET {path} HTTP/1.1")).await;
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.head.contains("www-authenticate: bearer realm=\"gatehouse admin\""));
        assert!(!refused.body.contains("secret"));
    }
    let with = "GET /api/status HTTP/1.1\nauthorization: Bearer secret";
    assert_eq!(ask(address, with).await.status, 200);
    admin.set_token(Some(Secret::new("another")));
    assert_eq!(ask(address, with).await.status, 401);
}

#[tokio::test]
async fn rebound_names_and_foreign_pages_are_refused() {
    let (address, _) = start(Arc::new(Stage::new()), None).await;
    let rebound = ask(address, "GET /api/status HTTP/1.1\nhost: evil.example").await;
    assert_eq!((rebound.status, &rebound.json()["code"]), (403, &json!("host_not_allowed")));
    let absolute = ask(address, "GET http://evil.example/api/status HTTP/1.1\nhost: localhost").await;
    assert_eq!(absolute.status, 403);
    let foreign = ask(address, "POST /api/reload HTTP/1.1\norigin: http://evil.example").await;
    assert_eq!((foreign.status, &foreign.json()["code"]), (403, &json!("cross_site")));
}

#[tokio::test]
async fn a_reload_tells_what_came_of_it() {
    let stage = Arc::new(Stage::new());
    let (address, _) = start(stage.clone(), None).await;
    let post = "POST /api/reload HTTP/1.1";
    let answer = ask(address, post).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "result": "unchanged" })));

    *stage.outcome.lock().unwrap() = ReloadOutcome::Applied { changes: vec!["route users changed".into()] };
    let answer = ask(address, post).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "result": "applied", "changes": ["route users changed"] }));

    let problem = ProblemStatus {
        severity: "error",
        line: None,
        column: None,
        message: "cannot read gateway.yaml".into(),
        remedy: "check that the file exists".into(),
    };
    *stage.outcome.lock().unwrap() = ReloadOutcome::Refused { problems: vec![problem] };
    let answer = ask(address, post).await;
    assert_eq!(answer.status, 422);
    assert!(answer.head.contains("content-type: application/problem+json"));
    let document = answer.json();
    assert_eq!(
        (&document["code"], &document["result"]),
        (&json!("configuration_refused"), &json!("refused"))
    );
    assert_eq!(
        document["problems"],
        json!([{
            "severity": "error", "message": "cannot read gateway.yaml", "remedy": "check that the file exists",
        }])
    );
}

#[tokio::test]
async fn a_reload_runs_to_its_end_without_its_caller() {
    let hold = Arc::new(Notify::new());
    let stage = Arc::new(Stage { hold: Some(hold.clone()), ..Stage::new() });
    let surface: Arc<dyn ControlSurface> = stage.clone();
    let mut call = Box::pin(api::reload(surface));
    // Polled once, so that the reload has begun; then the caller hangs up.
    let polled = polled_once(call.as_mut()).await;
    assert!(polled.is_none());
    drop(call);
    hold.notify_one();
    tokio::time::timeout(Duration::from_secs(10), stage.reloads_ended.notified()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_takes_too_long_is_not_waited_for() {
    let stage = Stage { hold: Some(Arc::new(Notify::new())), ..Stage::new() };
    let answer = api::reload(Arc::new(stage)).await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
}

/// What the future gives when it is polled once.
async fn polled_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
