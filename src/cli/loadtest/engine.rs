//! Runs a plan: threads, each with a runtime, connections and a recorder of its own.
//!
//! With an open load a request is sent when it is due, on a free connection or, while there are fewer than allowed, a new
//! one. It waits when there is none; its latency counts from when it was due all the same. With a closed load every
//! connection sends one request after another.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until, timeout};

use super::outcome::{Fault, Outcome};
use super::plan::{Load, Plan};
use super::record::{Glimpse, Recorder};
use super::timer::Timer;
use super::wire::Lane;

/// How often a connection that the shape leaves idle looks whether it is wanted.
const IDLE_LOOK: Duration = Duration::from_millis(5);
/// A server that refuses connections is not asked as fast as it can refuse.
const AFTER_NO_CONNECTION: Duration = Duration::from_millis(10);

/// A test that runs.
pub struct Running {
    parts: Vec<Arc<Part>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    stop: watch::Sender<bool>,
    done: watch::Receiver<usize>,
    pub begun: Instant,
}

/// What a thread shares with whoever watches.
struct Part {
    recorder: Mutex<Recorder>,
    in_flight: AtomicUsize,
}

/// A test that has ended.
pub struct Ended {
    pub recorder: Recorder,
    /// From the end of the warm-up to the end of what was sent; with a closed load, of what was answered.
    pub elapsed: Duration,
}

impl Running {
    /// Must be called in a runtime, in which nothing of the test runs.
    ///
    /// # Errors
    ///
    /// When a thread or its runtime can't be made.
    pub fn start(plan: &Arc<Plan>) -> std::io::Result<Running> {
        let begun = Instant::now();
        let (stop, stopped) = watch::channel(false);
        let (finished, done) = watch::channel(0);
        let numbers = Arc::new(AtomicU64::new(0));
        let finished = Arc::new(finished);
        let mut running = Running { parts: Vec::new(), threads: Vec::new(), stop, done, begun };
        for index in 0..plan.threads {
            let part = Arc::new(Part {
                recorder: Mutex::new(Recorder::new(&plan.frame())),
                in_flight: AtomicUsize::new(0),
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (plan, stopped, finished) = (plan.clone(), stopped.clone(), finished.clone());
            let (mine, numbers) = (part.clone(), numbers.clone());
            let thread = std::thread::Builder::new().name(format!("load-{index}")).spawn(move || {
                let local = LocalSet::new();
                let driver = Rc::new(Driver::new(index, plan, mine, numbers, begun));
                local.block_on(&runtime, driver.run(stopped));
                // Counted when the future of the test has ended, whatever connections are still open.
                finished.send_modify(|count| *count += 1);
            })?;
            running.parts.push(part);
            running.threads.push(thread);
        }
        Ok(running)
    }

    /// Ends it early: what is in flight is waited for, nothing more is sent.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the end.
    pub async fn ended(&mut self) {
        let all = self.threads.len();
        // An error is a thread that has gone without saying so, which joining it shows.
        let _ = self.done.wait_for(|count| *count == all).await;
    }

    /// How it goes just now.
    pub fn glimpse(&self) -> Glimpse {
        let elapsed = self.begun.elapsed();
        let mut all = Glimpse::default();
        self.parts.iter().for_each(|part| part.recorder().glimpse_into(&mut all, elapsed));
        all.in_flight = self.parts.iter().map(|part| part.in_flight.load(Relaxed)).sum();
        all
    }

    fn recorded(&self) -> Recorder {
        let mut parts = self.parts.iter().map(|part| part.recorder());
        let mut all = parts.next().map(|first| first.clone()).expect("there is one thread at least");
        parts.for_each(|part| all.merge(&part));
        all
    }

    /// After [`Running::ended`].
    ///
    /// # Errors
    ///
    /// When a thread has panicked.
    pub fn finish(mut self, plan: &Plan) -> std::io::Result<Ended> {
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| std::io::Error::other("a thread of the load test has panicked"))?;
        }
        let recorder = self.recorded();
        let whole = match &plan.load {
            // What was sent in the time of the schedule; how long the last answers took is no part of the rate.
            Load::Open(shape) if !*self.stop.borrow() => {
                plan.requests.and_then(|most| shape.due(most)).unwrap_or(shape.duration())
            }
            _ => recorder.last_end,
        };
        Ok(Ended { recorder, elapsed: whole.saturating_sub(plan.warmup) })
    }
}

impl Part {
    fn recorder(&self) -> std::sync::MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's half of the work.
struct Driver {
    index: usize,
    plan: Arc<Plan>,
    part: Arc<Part>,
    /// Of requests with a closed load, over all threads.
    numbers: Arc<AtomicU64>,
    begun: Instant,
    free: RefCell<Vec<Lane>>,
    freed: Notify,
    /// Connections that may still be opened.
    unopened: Cell<usize>,
    stopping: Cell<bool>,
}

impl Driver {
    fn new(
        index: usize,
        plan: Arc<Plan>,
        part: Arc<Part>,
        numbers: Arc<AtomicU64>,
        begun: Instant,
    ) -> Driver {
        // Each thread its share, the first ones what is left over.
        let share = plan.connections / plan.threads + usize::from(index < plan.connections % plan.threads);
        Driver {
            index,
            plan,
            part,
            numbers,
            begun,
            free: RefCell::new(Vec::new()),
            freed: Notify::new(),
            unopened: Cell::new(share),
            stopping: Cell::new(false),
        }
    }

    async fn run(self: Rc<Driver>, mut stopped: watch::Receiver<bool>) {
        let driver = self.clone();
        let all = async move {
            match &driver.plan.load {
                Load::Open(_) => driver.open().await,
                Load::Closed(_) => driver.closed().await,
            }
        };
        tokio::select! {
            () = all => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        self.stopping.set(true);
        self.idle().await;
    }

    /// Sends what is due when it is due.
    async fn open(self: &Rc<Driver>) {
        let timer = Timer::new();
        let shape = self.plan.load.shape();
        let end = self.begun + shape.duration();
        let last = self.plan.requests.unwrap_or(u64::MAX);
        let mut number = self.index as u64;
        // What waited for a connection was not late because of this program.
        let mut held_up_until = Duration::ZERO;
        while let Some(due) = shape.due(number).filter(|_| number < last) {
            timer.until(self.begun + due).await;
            let lane = match self.free_lane() {
                Some(lane) => Some(lane),
                None => {
                    let lane = self.wait_for_lane(end).await;
                    held_up_until = self.begun.elapsed();
                    lane
                }
            };
            let Some(lane) = lane else { return self.leave_unsent(number, last, end) };
            let lag = self.begun.elapsed().saturating_sub(due.max(held_up_until));
            self.part.recorder().record_lag(due, lag);
            self.part.in_flight.fetch_add(1, Relaxed);
            let driver = self.clone();
            spawn_local(async move { driver.one(lane, number, Some(due)).await });
            number += self.plan.threads as u64;
        }
    }

    /// The end of the test has come before the requests from this number on could be sent.
    fn leave_unsent(&self, mut number: u64, last: u64, end: Instant) {
        let shape = self.plan.load.shape();
        let end = end - self.begun;
        let unsent =
            Outcome::Failed(Fault::Unsent, "all connections were in use until the end of the test".into());
        let mut recorder = self.part.recorder();
        while let Some(due) = shape.due(number).filter(|_| number < last) {
            recorder.record(self.plan.target_of(number), due, end.max(due), &unsent);
            number += self.plan.threads as u64;
        }
    }

    /// As many at once as the shape says, each after the one before.
    async fn closed(self: &Rc<Driver>) {
        let threads = self.plan.threads;
        let share = (self.unopened.get() * self.plan.streams) as u64;
        let lanes = (0..share).map(|mine| {
            let (driver, place) = (self.clone(), mine as usize * threads + self.index);
            spawn_local(driver.in_turn(place))
        });
        for lane in lanes.collect::<Vec<_>>() {
            let _ = lane.await;
        }
    }

    /// One of the lanes of a closed load; `place` says from which level on it is wanted.
    async fn in_turn(self: Rc<Driver>, place: usize) {
        let shape = self.plan.load.shape();
        let last = self.plan.requests.unwrap_or(u64::MAX);
        loop {
            let now = self.begun.elapsed();
            if now >= shape.duration() || self.stopping.get() {
                return;
            }
            if place as f64 >= shape.level(now).ceil() {
                tokio::time::sleep(IDLE_LOOK).await;
                continue;
            }
            let number = self.numbers.fetch_add(1, Relaxed);
            if number >= last {
                return;
            }
            let Some(lane) = self.free_lane() else { return };
            self.part.in_flight.fetch_add(1, Relaxed);
            if self.clone().one(lane, number, None).await.is_some_and(|fault| fault.is_without_connection()) {
                tokio::time::sleep(AFTER_NO_CONNECTION).await;
            }
        }
    }

    /// One request, counted as in flight already, from beginning to end. Its latency counts from when it is `due`,
    /// else from now.
    async fn one(self: Rc<Driver>, mut lane: Lane, number: u64, due: Option<Duration>) -> Option<Fault> {
        let target = self.plan.target_of(number);
        let endpoint = &self.plan.endpoint;
        let since = due.unwrap_or_else(|| self.begun.elapsed());
        let outcome = match self.plan.targets[target].request(endpoint, number) {
            Ok(request) => match timeout(self.plan.timeout, lane.send(endpoint, request)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    lane.abandon();
                    Outcome::Failed(Fault::Timeout, format!("no answer within {:?}", self.plan.timeout))
                }
            },
            Err(error) => Outcome::Failed(Fault::Protocol, error.to_string()),
        };
        self.part.recorder().record(target, since, self.begun.elapsed(), &outcome);
        self.part.in_flight.fetch_sub(1, Relaxed);
        // The one used last comes first, so that no more connections are open than the load needs.
        self.free.borrow_mut().push(lane);
        self.freed.notify_one();
        match outcome {
            Outcome::Answered { .. } => None,
            Outcome::Failed(fault, _) => Some(fault),
        }
    }

    fn free_lane(&self) -> Option<Lane> {
        let free = self.free.borrow_mut().pop();
        free.or_else(|| {
            self.unopened.set(self.unopened.get().checked_sub(1)?);
            let mut lanes = Lane::of_one_connection(&self.plan.endpoint, self.plan.streams);
            let first = lanes.pop();
            self.free.borrow_mut().append(&mut lanes);
            first
        })
    }

    async fn wait_for_lane(&self, end: Instant) -> Option<Lane> {
        loop {
            tokio::select! {
                () = self.freed.notified() => {}
                () = sleep_until(end) => return self.free_lane(),
            }
            if let Some(lane) = self.free_lane() {
                return Some(lane);
            }
        }
    }

    /// Waits until nothing is in flight. Every request has its own time limit.
    async fn idle(&self) {
        while self.part.in_flight.load(Relaxed) > 0 {
            self.freed.notified().await;
        }
    }
}
