//! Steady load: clients that ask again and again, each over a connection that it keeps, and write down what they got.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use tokio::task::JoinSet;

use crate::scene::RULES;
use crate::support::{Reply, Session};

/// From one request of a client to its next. It waits for an answer before.
const PACE: Duration = Duration::from_millis(20);
/// What some requests, each as slow as any may be, take one after another on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// A client plays so many users.
const USERS: usize = 6;

pub struct Load {
    clients: JoinSet<()>,
    notes: Vec<Arc<Notes>>,
    over: Arc<AtomicBool>,
}

/// What the clients of one rule have seen.
pub struct Notes {
    pub rule: &'static str,
    asked: Vec<AtomicUsize>,
    failures: Mutex<BTreeMap<String, usize>>,
    /// When the requests that are not answered yet began.
    waiting: Mutex<BTreeMap<usize, Instant>>,
    took: Mutex<Vec<Duration>>,
}

impl Load {
    /// `clients` for each balancing rule.
    pub fn start(gateway: SocketAddr, method: &Method, clients: usize) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let mut load = Load { clients: JoinSet::new(), notes: Vec::new(), over };
        for (rule, _) in RULES {
            let notes = Arc::new(Notes {
                rule,
                asked: (0..clients).map(|_| AtomicUsize::new(0)).collect(),
                failures: Mutex::default(),
                waiting: Mutex::default(),
                took: Mutex::default(),
            });
            for number in 0..clients {
                let client = Client {
                    gateway,
                    method: method.clone(),
                    number,
                    notes: notes.clone(),
                    over: load.over.clone(),
                    cookies: Default::default(),
                };
                load.clients.spawn(client.run());
            }
            load.notes.push(notes);
        }
        load
    }

    /// Waits until each client has asked so many times more.
    pub async fn go_on(&self, requests: usize) {
        let asked = || self.notes.iter().flat_map(|notes| &notes.asked);
        let wanted: Vec<usize> = asked().map(|count| count.load(Relaxed) + requests).collect();
        let behind = || asked().zip(&wanted).filter(|(count, wanted)| count.load(Relaxed) < **wanted).count();
        let deadline = Instant::now() + PATIENCE;
        while behind() > 0 {
            assert!(
                Instant::now() < deadline,
                "{} of the clients have not made {requests} more requests\n{}",
                behind(),
                self.summary()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it, and says what there was.
    pub async fn end(mut self, what: &str) -> Vec<Arc<Notes>> {
        self.over.store(true, Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no client panicked");
        }
        // Past the capture of the test harness.
        let _ = writeln!(std::io::stderr(), "{what}:\n{}", self.summary());
        std::mem::take(&mut self.notes)
    }

    fn summary(&self) -> String {
        self.notes.iter().map(|notes| notes.summary() + "\n").collect()
    }
}

impl Notes {
    pub fn asked(&self) -> usize {
        self.asked.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub fn failed(&self) -> usize {
        self.failures.lock().expect("no client panicked").values().sum()
    }

    /// How often a request failed with what.
    pub fn failures(&self) -> BTreeMap<String, usize> {
        self.failures.lock().expect("no client panicked").clone()
    }

    /// What so many of 1000 requests took at most.
    pub fn per_mille(&self, share: usize) -> Duration {
        let mut took = self.took.lock().expect("no client panicked").clone();
        took.sort_unstable();
        took.get((took.len() * share / 1000).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub fn summary(&self) -> String {
        format!(
            "  {:16} {:5} requests, {} failed {:?}; half within {:?}, 99 % within {:?}, all within {:?}, waiting for {:?}",
            self.rule,
            self.asked(),
            self.failed(),
            self.failures(),
            self.per_mille(500),
            self.per_mille(990),
            self.per_mille(1000),
            self.waiting()
        )
    }

    /// How long those that are not answered yet have waited.
    fn waiting(&self) -> Vec<Duration> {
        let waiting = self.waiting.lock().expect("no client panicked");
        waiting.values().map(Instant::elapsed).collect()
    }
}

struct Client {
    gateway: SocketAddr,
    method: Method,
    number: usize,
    notes: Arc<Notes>,
    over: Arc<AtomicBool>,
    /// What each user was told to come back with.
    cookies: [Option<String>; USERS],
}

impl Client {
    async fn run(mut self) {
        let mut session = Session::open(self.gateway).await;
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 0.. {
            pace.tick().await;
            if self.over.load(Relaxed) {
                return;
            }
            let began = Instant::now();
            self.notes.waiting.lock().expect("no client panicked").insert(self.number, began);
            let answered = self.ask(&mut session, turn).await;
            self.notes.waiting.lock().expect("no client panicked").remove(&self.number);
            self.notes.took.lock().expect("no client panicked").push(began.elapsed());
            if let Err(failure) = answered {
                *self.notes.failures.lock().expect("no client panicked").entry(failure).or_default() += 1;
            }
            self.notes.asked[self.number].fetch_add(1, Relaxed);
            if !session.is_open() {
                session = Session::open(self.gateway).await;
            }
        }
    }

    async fn ask(&mut self, session: &mut Session, turn: usize) -> Result<(), String> {
        let user = turn % USERS;
        let target = format!("/{}/of/{user}", self.notes.rule);
        let mut head = Request::builder().method(self.method.clone()).uri(target);
        // A few keys could all belong to the other instances.
        head = head.header("x-user", format!("{}-{turn}", self.number));
        // Now and then a user is a new one.
        self.cookies[fastrand::usize(..USERS)].take_if(|_| fastrand::u8(..8) == 0);
        if let Some(cookie) = &self.cookies[user] {
            head = head.header("cookie", cookie);
        }
        let has_body = matches!(self.method, Method::POST | Method::PUT);
        let body = if has_body { Bytes::from_static(b"a body") } else { Bytes::new() };
        match session.try_send(head, body).await {
            Ok(reply) if reply.status == 200 => {
                // A wrong body would be worse than none.
                let is_right = matches!(&*reply.body, b"all twenty are here." | b"a process");
                self.remember(&reply, user);
                if is_right { Ok(()) } else { Err(format!("wrong body {:?}", reply.text())) }
            }
            Ok(reply) if reply.header("content-type") == Some("application/problem+json") => {
                Err(reply.code())
            }
            Ok(reply) => Err(format!("status {}", reply.status)),
            Err(error) => {
                // The rest of a connection that broke off is of no use.
                *session = Session::open(self.gateway).await;
                Err(format!("broken off: {error}"))
            }
        }
    }

    fn remember(&mut self, reply: &Reply, user: usize) {
        if let Some(cookie) = reply.header("set-cookie").and_then(|cookie| cookie.split(';').next()) {
            self.cookies[user] = Some(cookie.to_owned());
        }
    }
}
