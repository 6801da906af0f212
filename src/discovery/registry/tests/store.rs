//! The table itself, on a paused clock.

use super::*;
use crate::discovery::registry::store::{MAX_INSTANCES_IN_ALL, MAX_SERVICES};
use crate::discovery::registry::{StoreError, View};
use crate::service::discovered::MAX_INSTANCES;

fn store() -> Arc<Store> {
    Arc::new(Store::new(Duration::from_secs(30)))
}

fn ports(view: &View) -> Vec<u16> {
    view.instances.iter().map(|instance| instance.key.port).collect()
}

#[test]
fn only_a_change_makes_a_version_and_versions_only_rise() {
    let store = store();
    let nothing = store.view("users");
    assert_eq!((nothing.version, nothing.instances.len()), (0, 0));
    let first = store.register(announce("users", 1)).expect("room");
    assert!(first.created);
    let again = store.register(announce("users", 1)).expect("room");
    assert_eq!((again.created, again.version), (false, first.version));
    let alive = store.heartbeat(announce("users", 1)).expect("known");
    assert_eq!(alive.version, first.version);

    let heavier = announce("users", 1).with_weight(5).expect("valid");
    let changed = store.heartbeat(heavier).expect("known");
    assert!(changed.version > first.version);
    let still = store.heartbeat(announce("users", 1)).expect("known");
    assert_eq!(still.version, changed.version, "a heartbeat leaves alone what it doesn't name");
    assert_eq!(store.view("users").instances[0].weight, 5);
    let reset = store.register(announce("users", 1)).expect("room");
    assert!(reset.version > changed.version);
    assert_eq!(store.view("users").instances[0].weight, 1, "registering says all");

    store.deregister(&announce("users", 1).key).expect("known");
    let empty = store.view("users");
    assert!(empty.version > reset.version && empty.instances.is_empty());
    assert!(matches!(store.deregister(&announce("users", 1).key), Err(StoreError::Unknown(_))));
    assert!(matches!(store.heartbeat(announce("users", 1)), Err(StoreError::Unknown(_))));
}

#[test]
fn discover_takes_turns() {
    let store = store();
    assert_eq!(store.discover("users"), None);
    for port in 1..=3 {
        store.register(announce("users", port)).expect("room");
    }
    let turn = || store.discover("users").map(|instance| instance.key.port);
    assert_eq!([turn(), turn(), turn(), turn()], [Some(1), Some(2), Some(3), Some(1)]);
    store.deregister(&announce("users", 3).key).expect("known");
    store.deregister(&announce("users", 2).key).expect("known");
    assert_eq!(store.discover("users").map(|instance| instance.key.port), Some(1));
    store.deregister(&announce("users", 1).key).expect("known");
    assert_eq!(store.discover("users"), None);
}

#[test]
fn every_bound_holds_and_forgetting_makes_room() {
    let store = store();
    for port in 1..=MAX_INSTANCES as u16 {
        store.register(announce("users", port)).expect("room");
    }
    assert_eq!(store.register(announce("users", 60_000)), Err(StoreError::ServiceFull("users".into())));
    assert!(store.register(announce("users", 1)).is_ok(), "who is in stays in");

    for number in 1..MAX_SERVICES {
        store.register(announce(&format!("service-{number}"), 1)).expect("room");
    }
    assert_eq!(store.register(announce("one-more", 1)), Err(StoreError::TooManyServices));
    assert_eq!(store.subscribe("one-more").map(|_| ()), Err(StoreError::TooManyServices));
    store.deregister(&announce("service-1", 1).key).expect("known");
    assert!(store.register(announce("one-more", 1)).is_ok(), "the emptied service gave way");

    for number in 2..4 {
        for port in 2..=MAX_INSTANCES as u16 {
            let _ = store.register(announce(&format!("service-{number}"), port));
        }
    }
    assert_eq!(store.register(announce("service-20", 2)), Err(StoreError::TooManyInstances));
    let all: usize = store.list().iter().map(|listed| listed.instances.len()).sum();
    assert_eq!(all, MAX_INSTANCES_IN_ALL);
}

fn expiring(store: &Arc<Store>) -> JoinHandle<()> {
    let store = store.clone();
    tokio::spawn(async move { store.expire().await })
}

#[tokio::test(start_paused = true)]
async fn a_shorter_ttl_takes_effect_at_once() {
    let store = store();
    let expiry = expiring(&store);
    store.register(announce("users", 1)).expect("room");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.list()[0].instances[0].1.as_secs(), 10);
    let mut views = store.subscribe("users").expect("room");
    assert_eq!(ports(&views.look()), [1]);
    store.set_heartbeat_ttl(Duration::from_secs(5));
    tokio::time::timeout(Duration::from_secs(1), views.changed()).await.expect("within a second");
    assert!(views.look().instances.is_empty());
    expiry.abort();
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_takes_nobody_for_dead() {
    let store = store();
    let expiry = expiring(&store);
    store.register(announce("users", 1)).expect("room");
    tokio::time::sleep(Duration::from_secs(20)).await;
    store.register(announce("users", 2)).expect("room");
    // All at once, as after SIGSTOP and SIGCONT.
    tokio::time::advance(Duration::from_secs(100)).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(ports(&store.view("users")), [1, 2]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ports(&store.view("users")), [2], "it was silent for 30 s in which it could be heard");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(ports(&store.view("users")), [0; 0]);
    expiry.abort();
}

#[tokio::test(start_paused = true)]
async fn many_changes_in_a_row_are_told_together_and_the_last_one_always() {
    let store = store();
    let mut views = store.subscribe("users").expect("room");
    views.look();
    let registering = store.clone();
    let registering = tokio::spawn(async move {
        for port in 1..=1000 {
            registering.register(announce("users", port)).expect("room");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut told = 0;
    while views.look().instances.len() < 1000 {
        views.changed().await;
        told += 1;
    }
    assert!((25..40).contains(&told), "{told}");
    registering.await.expect("no panic");
}

/// Were every heartbeat to look at all instances, this would be two hundred million comparisons of names.
#[test]
fn heartbeats_of_ten_thousand_instances_find_theirs_at_once() {
    let store = store();
    let all: Vec<Announcement> = (1..=MAX_INSTANCES as u16).map(|port| announce("users", port)).collect();
    let began = std::time::Instant::now();
    for announcement in &all {
        store.register(announcement.clone()).expect("room");
    }
    for _ in 0..4 {
        for announcement in &all {
            store.heartbeat(announcement.clone()).expect("known");
        }
    }
    for announcement in all.iter().rev() {
        store.deregister(&announcement.key).expect("known");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
