//! What is written is what is read, and nothing that a file can hold does harm.

use std::fs;

use super::*;
use crate::discovery::registry::state_file::{
    PAUSE, Restored, StateFileError, keep, restore, set_aside, write,
};

const TTL: Duration = Duration::from_secs(30);

#[test]
fn a_restart_finds_everybody_as_they_were() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state.json");
    let before = Store::new(TTL);
    assert_eq!(restore(&before, &path).expect("no file is fine"), None);
    let object = json!({ "a": [1, "\n", { "é": null }] });
    let object = object.as_object().expect("an object");
    let first = announce("users", 1).with_weight(3).and_then(|a| a.with_zone("z")).expect("valid");
    let first = first.with_version("1.2").and_then(|a| a.with_metadata(object)).expect("valid");
    before.register(first.with_service_metadata(object).expect("valid")).expect("room");
    before.register(announce("users", 2)).expect("room");
    let version = before.register(announce("orders", 7)).expect("room").version;
    write(&before, &path).expect("written");

    let after = Store::new(TTL);
    let restored = Restored { instances: 3, refused: 0, why: None };
    assert_eq!(restore(&after, &path).expect("good"), Some(restored));
    for name in ["users", "orders"] {
        let (was, is) = (before.view(name), after.view(name));
        assert_eq!(is.instances, was.instances);
        assert_eq!(is.metadata, was.metadata);
        assert!(is.version > version, "whoever has seen the old ones is told");
    }
    assert!(after.heartbeat(announce("users", 1)).is_ok());
    assert_eq!(restore(&before, &path).expect("good").map(|restored| restored.instances), Some(3), "again");
}

#[test]
fn what_is_damaged_is_told_and_the_rest_is_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state.json");
    let store = Store::new(TTL);
    let read = |text: &[u8]| {
        fs::write(&path, text).expect("writable");
        restore(&store, &path)
    };
    for text in [
        &b""[..],
        b"{}",
        b"[1]",
        b"{\"format\":1",
        b"\xff\xfe",
        b"{\"format\":1,\"version\":-1,\"instances\":[]}",
    ] {
        assert!(matches!(read(text), Err(StateFileError::Json(_))), "{text:?}");
    }
    let newer = read(b"{\"format\":2,\"services\":{}}").expect_err("unknown").to_string();
    assert_eq!(newer, "it has the format 2, and this version knows 1");
    let some = read(
        br#"{"format":1,"version":7,"instances":[
            {"service_name":"users","host":"127.0.0.1","port":0}, 7,
            {"service_name":"users","host":"127.0.0.1","port":1}]}"#,
    );
    let why = Some("\"port\" must be from 1 to 65535".to_owned());
    assert_eq!(some.expect("some are good"), Some(Restored { instances: 1, refused: 2, why }));
    fs::File::create(&path).and_then(|file| file.set_len(64 * 1024 * 1024 + 1)).expect("writable");
    assert!(matches!(restore(&store, &path), Err(StateFileError::TooLarge)));
    assert!(matches!(restore(&store, directory.path()), Err(StateFileError::NoFile)));
    assert!(
        set_aside(directory.path()).is_err() && directory.path().is_dir(),
        "a directory stays where it is"
    );
    assert!(matches!(restore(&store, "/dev/null".as_ref()), Err(StateFileError::NoFile)));
    assert!(matches!(restore(&store, &path.join("below")), Err(StateFileError::Read(_))));
    assert_eq!(store.view("users").instances.len(), 1, "what was there stays");
}

#[tokio::test(start_paused = true)]
async fn it_is_written_once_a_second_however_much_happens_and_the_last_change_is_in_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state.json");
    let store = Arc::new(Store::new(TTL));
    let keeping = tokio::spawn(keep(store.clone(), path.clone(), |outcome| panic!("{outcome:?}")));
    let mut texts = Vec::new();
    for port in 1..=100 {
        store.register(announce("users", port)).expect("room");
        tokio::time::sleep(PAUSE / 20).await;
        texts.extend(fs::read_to_string(&path));
    }
    texts.dedup();
    assert!((4..=7).contains(&texts.len()), "{}", texts.len());
    tokio::time::sleep(2 * PAUSE).await;
    let restarted = Store::new(TTL);
    let restored = restore(&restarted, &path).expect("good").expect("there");
    assert_eq!(restored.instances, 100);
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_is_told_once_and_tried_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("later/state.json");
    let store = Arc::new(Store::new(TTL));
    let (told, mut telling) = tokio::sync::mpsc::unbounded_channel();
    let report = move |outcome: Result<(), &std::io::Error>| told.send(outcome.is_ok()).expect("heard");
    let keeping = tokio::spawn(keep(store.clone(), path.clone(), report));
    assert_eq!(telling.recv().await, Some(false));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(telling.is_empty(), "told once");
    fs::create_dir(directory.path().join("later")).expect("writable");
    assert_eq!(telling.recv().await, Some(true));
    assert!(path.exists());
    keeping.abort();
}
