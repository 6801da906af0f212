//! Static instances and DNS names, on a resolver that does what the test says and a paused clock.

use super::sought;
use super::*;
use crate::config::DnsSource;
use crate::discovery::initial;
use crate::service::discovered::MAX_INSTANCES;

const SECOND: Duration = Duration::from_secs(1);

fn dns(srv: bool) -> InstanceSource {
    let port = (!srv).then_some(8001);
    InstanceSource::Dns(DnsSource { name: at("users.internal".into()), port, refresh: 5 * SECOND, srv })
}

#[tokio::test(start_paused = true)]
async fn literals_are_known_before_anything_runs_and_published_once() {
    let source = fixed(&["127.0.0.1:8001", "[::1]:8002", "127.0.0.1:8001"]);
    let shared = Sources { resolver: Fake::new(), registry: None };
    let known = initial(&sought(source.clone()), &shared).expect("nothing to wait for");
    assert_eq!(known.iter().map(text).collect::<Vec<_>>(), ["127.0.0.1:8001*1", "[::1]:8002*1"]);
    assert_eq!(&*known[1].authority, "[::1]:8002");

    let sink = Sink::new();
    let _running = start_with(source, &sink, shared);
    sink.until_set(&["127.0.0.1:8001*1", "[::1]:8002*1"]).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(sink.said().sets.len(), 1);
    assert!(sink.said().faults.is_empty());
}

#[tokio::test(start_paused = true)]
async fn initial_tells_literals_from_names() {
    let shared = Sources { resolver: Fake::new(), registry: None };
    assert_eq!(initial(&sought(fixed(&["users.internal:8001"])), &shared), None);
    let mixed = initial(&sought(fixed(&["users.internal:8001", "127.0.0.1:1"])), &shared);
    assert_eq!(mixed.map(|set| set.len()), Some(1));
    assert_eq!(initial(&sought(dns(false)), &shared), None);
    assert_eq!(initial(&sought(InstanceSource::Registry), &shared), None);
}

#[tokio::test(start_paused = true)]
async fn a_failing_name_keeps_its_addresses_and_holds_up_no_other() {
    let resolver = Fake::new();
    resolver.answers("a", &["10.0.0.1"]);
    resolver.answers("b", &["10.0.0.2"]);
    let sink = Sink::new();
    let _running = start(fixed(&["a:1", "b:1"]), &sink, resolver.clone());
    sink.until_set(&["10.0.0.1:1*1", "10.0.0.2:1*1"]).await;

    resolver.fails("a", ResolveError::Timeout);
    resolver.answers("b", &["10.0.0.3"]);
    sink.until_set(&["10.0.0.1:1*1", "10.0.0.3:1*1"]).await;
    sink.until("the failure was not told", |said| !said.faults.is_empty()).await;
    tokio::time::sleep(300 * SECOND).await;
    assert_eq!(sink.said().faults, [Some("a: no answer within 5s".to_owned())], "told once");

    resolver.answers("a", &["10.0.0.4"]);
    sink.until_set(&["10.0.0.4:1*1", "10.0.0.3:1*1"]).await;
    sink.until("the recovery was not told", |said| said.faults.last() == Some(&None)).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_name_delays_the_first_set_by_a_second_at_most() {
    let resolver = Fake::new();
    resolver.answers("fast", &["10.0.0.1"]);
    resolver.answers_after(30 * SECOND, "slow", &["10.0.0.2"]);
    let sink = Sink::new();
    let begun = tokio::time::Instant::now();
    let _running = start(fixed(&["fast:1", "slow:1", "10.0.0.9:1"]), &sink, resolver);
    sink.until_set(&["10.0.0.1:1*1", "10.0.0.9:1*1"]).await;
    assert!(begun.elapsed() <= 2 * SECOND, "{:?}", begun.elapsed());
    sink.until_set(&["10.0.0.1:1*1", "10.0.0.2:1*1", "10.0.0.9:1*1"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_unresolvable_name_publishes_nothing_and_is_asked_ever_more_slowly() {
    let resolver = Fake::new();
    let sink = Sink::new();
    let _running = start(dns(false), &sink, resolver.clone());
    sink.until("the failure was not told", |said| !said.faults.is_empty()).await;
    tokio::time::sleep(60 * SECOND).await;
    assert!(sink.said().sets.is_empty());
    // After 1, 2 and 4 s, then each 5 s, which is the refresh interval.
    assert!((10..=16).contains(&resolver.times_asked("users.internal")));
    resolver.answers("users.internal", &["10.0.0.1"]);
    sink.until_set(&["10.0.0.1:8001*1"]).await;
}

#[tokio::test(start_paused = true)]
async fn every_address_is_an_instance_and_a_rotated_answer_is_no_change() {
    let resolver = Fake::new();
    resolver.answers("users.internal", &["10.0.0.2", "10.0.0.1"]);
    let sink = Sink::new();
    let _running = start(dns(false), &sink, resolver.clone());
    sink.until_set(&["10.0.0.1:8001*1", "10.0.0.2:8001*1"]).await;
    resolver.answers("users.internal", &["10.0.0.1", "10.0.0.2"]);
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(sink.said().sets.len(), 1);
    assert!(resolver.times_asked("users.internal") >= 4);
}

#[tokio::test(start_paused = true)]
async fn a_ttl_that_is_shorter_than_the_refresh_counts_but_never_below_a_second() {
    for (ttl, at_least, at_most) in [(0, 55, 60), (2, 28, 30), (5, 11, 12), (3600, 11, 12)] {
        for srv in [false, true] {
            let resolver = Fake::new();
            resolver.has_ttl(ttl * SECOND);
            resolver.answers("users.internal", &["10.0.0.1"]);
            resolver.answers_srv(Ok(vec![]));
            let sink = Sink::new();
            let _running = start(dns(srv), &sink, resolver.clone());
            tokio::time::sleep(59 * SECOND).await;
            let asked = resolver.times_asked("users.internal");
            assert!((at_least..=at_most).contains(&asked), "{asked} times at a TTL of {ttl}s, SRV: {srv}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_an_explicit_empty_answer_empties_the_set() {
    let resolver = Fake::new();
    resolver.answers("users.internal", &["10.0.0.1"]);
    let sink = Sink::new();
    let _running = start(dns(false), &sink, resolver.clone());
    sink.until_set(&["10.0.0.1:8001*1"]).await;
    for error in [
        ResolveError::NoSuchName,
        ResolveError::Refused("SERVFAIL".into()),
        ResolveError::Inconclusive,
        ResolveError::Timeout,
        ResolveError::Failed("no connections available".into()),
    ] {
        resolver.fails("users.internal", error);
        tokio::time::sleep(20 * SECOND).await;
    }
    assert_eq!(sink.said().sets.len(), 1);
    assert_eq!(sink.said().faults.len(), 5);
    resolver.answers("users.internal", &[]);
    sink.until_set(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn srv_records_bring_ports_and_weights_and_their_failure_keeps_them() {
    let record =
        |priority, weight, port, target: &str| SrvRecord { priority, weight, port, target: target.into() };
    let resolver = Fake::new();
    resolver.answers("a.internal.", &["10.0.0.1"]);
    resolver.answers("b.internal.", &["10.0.0.2"]);
    resolver.answers_srv(Ok(vec![
        record(1, 3, 8001, "b.internal."),
        record(1, 0, 8002, "a.internal."),
        record(2, 9, 8003, "a.internal."),
    ]));
    let sink = Sink::new();
    let _running = start(dns(true), &sink, resolver.clone());
    sink.until_set(&["10.0.0.1:8002*1", "10.0.0.2:8001*3", "10.0.0.1:8003*9"]).await;

    resolver.answers_srv(Err(ResolveError::Refused("SERVFAIL".into())));
    let fault = Some("SRV records of users.internal: the name server answered SERVFAIL".to_owned());
    sink.until("the failure was not told", |said| said.faults == [fault.clone()]).await;
    assert_eq!(sink.said().sets.len(), 1);

    resolver.answers_srv(Ok(vec![record(0, 0, 0, ".")]));
    sink.until_set(&[]).await;
    assert_eq!(sink.said().faults.last(), Some(&None));
}

#[tokio::test(start_paused = true)]
async fn a_set_has_at_most_its_bound_and_says_what_it_left_out() {
    let addresses: Vec<String> =
        (0..MAX_INSTANCES as u32 + 6).map(|n| std::net::Ipv4Addr::from(n + 1).to_string()).collect();
    let resolver = Fake::new();
    resolver.answers("users.internal", &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let sink = Sink::new();
    let _running = start(dns(false), &sink, resolver);
    sink.until("nothing was published", |said| {
        said.sets.last().is_some_and(|set| set.len() == MAX_INSTANCES)
    })
    .await;
    sink.until("nothing was said", |said| {
        said.faults == [Some(format!("6 instances beyond the first {MAX_INSTANCES} are left out"))]
    })
    .await;
}

/// A resolver whose first answer is a panic.
struct Breaks(Fake, std::sync::atomic::AtomicBool);

impl Resolve for Breaks {
    fn addresses<'a>(&'a self, name: &'a str) -> Answering<'a, IpAddr> {
        if !self.1.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return Box::pin(async { panic!("a defect in a library") });
        }
        self.0.addresses(name)
    }

    fn srv<'a>(&'a self, name: &'a str) -> Answering<'a, SrvRecord> {
        self.0.srv(name)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_breaks_off_is_a_failure_like_any_other() {
    let resolver = Breaks(Fake::default(), false.into());
    resolver.0.answers("users.internal", &["10.0.0.1"]);
    let sink = Sink::new();
    let _running = start(dns(false), &sink, Arc::new(resolver));
    sink.until_set(&["10.0.0.1:8001*1"]).await;
    assert_eq!(
        sink.said().faults,
        [Some("users.internal: the lookup failed: the resolver broke off".to_owned()), None]
    );
}
