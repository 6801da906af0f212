//! Instance files on a real file system: what editors, scripts and Kubernetes do to them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use super::sought;
use super::*;
use crate::discovery::initial;

fn file(path: &Path) -> InstanceSource {
    InstanceSource::File(at(path.to_path_buf()))
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(|port| format!("- http://127.0.0.1:{port}\n")).collect()
}

async fn until_ports(sink: &Sink, ports: &[u16]) {
    let set: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}*1")).collect();
    sink.until_set(&set.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn writing_renaming_and_removing_are_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users.yaml");
    fs::write(&path, list(&[1])).expect("written");
    let shared = Sources { resolver: Fake::new(), registry: None };
    let known = initial(&sought(file(&path)), &shared).expect("readable");
    assert_eq!(known.iter().map(text).collect::<Vec<_>>(), ["127.0.0.1:1*1"]);

    let sink = Sink::new();
    let _running = start_with(file(&path), &sink, shared);
    until_ports(&sink, &[1]).await;

    fs::write(&path, list(&[1, 2])).expect("written in place");
    until_ports(&sink, &[1, 2]).await;

    let beside = directory.path().join("users.yaml.tmp");
    fs::write(&beside, r#"{"instances": [{"url": "http://127.0.0.1:3"}]}"#).expect("written");
    fs::rename(&beside, &path).expect("renamed over it");
    until_ports(&sink, &[3]).await;

    fs::remove_file(&path).expect("removed");
    sink.until("the missing file was not told", |said| {
        matches!(said.faults.last(), Some(Some(fault)) if fault.contains("users.yaml: can't be read: No such file"))
    })
    .await;
    assert_eq!(sink.set().map(|set| set.len()), Some(1), "the last good set stays");

    fs::write(&path, "[]").expect("written");
    sink.until_set(&[]).await;
    assert_eq!(sink.said().faults.last(), Some(&None));
}

#[tokio::test]
async fn a_broken_file_keeps_the_set_and_tells_the_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users.yaml");
    fs::write(&path, list(&[1])).expect("written");
    let sink = Sink::new();
    let _running = start(file(&path), &sink, Fake::new());
    until_ports(&sink, &[1]).await;
    let told = |part: &'static str| {
        sink.until(part, move |said| matches!(said.faults.last(), Some(Some(fault)) if fault.contains(part)))
    };

    fs::write(&path, "- http://127.0.0.1:1\n- { ulr: http://127.0.0.1:2 }\n").expect("written");
    told("users.yaml:2:5: unknown key \"ulr\": did you mean \"url\"? (and 1 more problem)").await;
    fs::write(&path, "").expect("written");
    told("users.yaml:1:1: the file says nothing").await;
    fs::write(&path, b"- http://127.0.0.1:1\n# \xff\n").expect("written");
    told("users.yaml: line 2 is not UTF-8").await;
    fs::write(&path, " ".repeat(2 * 1024 * 1024 + 1)).expect("written");
    told("users.yaml: is larger than 2048 KiB").await;
    fs::write(&path, list(&(1..=10_001).collect::<Vec<_>>())).expect("written");
    told("users.yaml: line 10001 begins instance 10001: a service has at most 10000").await;
    assert_eq!(sink.said().sets.len(), 1, "nothing else was ever published");

    fs::write(&path, list(&[1])).expect("written");
    sink.until("the recovery was not told", |said| said.faults.last() == Some(&None)).await;
}

#[tokio::test]
async fn a_swapped_symlink_is_followed_as_kubernetes_swaps_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let version = |name: &str, ports: &[u16]| {
        let version = directory.path().join(name);
        fs::create_dir(&version).expect("made");
        fs::write(version.join("users.yaml"), list(ports)).expect("written");
    };
    version("..1", &[1]);
    symlink("..1", directory.path().join("..data")).expect("linked");
    symlink("..data/users.yaml", directory.path().join("users.yaml")).expect("linked");
    let sink = Sink::new();
    let _running = start(file(&directory.path().join("users.yaml")), &sink, Fake::new());
    until_ports(&sink, &[1]).await;

    version("..2", &[2]);
    symlink("..2", directory.path().join("..data_tmp")).expect("linked");
    fs::rename(directory.path().join("..data_tmp"), directory.path().join("..data")).expect("swapped");
    until_ports(&sink, &[2]).await;
    // The watch has moved on to where the link now leads.
    fs::write(directory.path().join("..2/users.yaml"), list(&[3])).expect("written");
    until_ports(&sink, &[3]).await;
}

#[tokio::test]
async fn a_directory_that_comes_later_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("later/users.yaml");
    let sink = Sink::new();
    assert_eq!(initial(&sought(file(&path)), &Sources { resolver: Fake::new(), registry: None }), None);
    let _running = start(file(&path), &sink, Fake::new());
    sink.until("the missing file was not told", |said| !said.faults.is_empty()).await;
    assert!(sink.said().sets.is_empty());
    fs::create_dir(directory.path().join("later")).expect("made");
    fs::write(&path, list(&[1])).expect("written");
    until_ports(&sink, &[1]).await;
}

#[tokio::test]
async fn names_in_files_are_resolved() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users.json");
    fs::write(
        &path,
        r#"["http://users.internal:7", {"url": "http://127.0.0.1:8", "weight": 3, "zone": "a"}]"#,
    )
    .expect("written");
    let resolver = Fake::new();
    resolver.answers("users.internal", &["10.0.0.1"]);
    let sink = Sink::new();
    let _running = start(file(&path), &sink, resolver);
    sink.until_set(&["10.0.0.1:7*1", "127.0.0.1:8*3"]).await;
}

#[tokio::test]
async fn a_change_shows_long_before_the_poll() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users.yaml");
    fs::write(&path, list(&[1])).expect("written");
    let sink = Sink::new();
    let _running = start(file(&path), &sink, Fake::new());
    until_ports(&sink, &[1]).await;
    let mut quickest = Duration::MAX;
    for port in 2..12 {
        let begun = Instant::now();
        fs::write(&path, list(&[port])).expect("written");
        until_ports(&sink, &[port]).await;
        quickest = quickest.min(begun.elapsed());
    }
    // The quickest of ten: how fast it is, not how busy the machine is.
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
}

#[tokio::test]
async fn a_file_is_read_when_its_writer_has_closed_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users.yaml");
    fs::write(&path, list(&[1, 2, 3])).expect("written");
    let sink = Sink::new();
    let _running = start(file(&path), &sink, Fake::new());
    until_ports(&sink, &[1, 2, 3]).await;
    let mut writer = fs::File::create(&path).expect("it is there");
    for port in [4, 5, 6] {
        writer.write_all(list(&[port]).as_bytes()).expect("written");
        // For longer than a file has to be quiet.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(sink.said().sets.len(), 1);
    drop(writer);
    until_ports(&sink, &[4, 5, 6]).await;
    assert_eq!(sink.said().sets.len(), 2, "half a list is a list");
    assert_eq!(sink.said().faults, []);

    // Who never closes it is not waited for in vain.
    let mut writer = fs::File::create(&path).expect("it is there");
    writer.write_all(list(&[7]).as_bytes()).expect("written");
    until_ports(&sink, &[7]).await;
    drop(writer);
    // What others write beside it is none of its business.
    let mut other = fs::File::create(directory.path().join("access.log")).expect("made");
    other.write_all(b"x").expect("written");
    let begun = Instant::now();
    fs::write(&path, list(&[8])).expect("written");
    until_ports(&sink, &[8]).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_no_file_is_not_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let sink = Sink::new();
    let _running = start(file(directory.path()), &sink, Fake::new());
    sink.until(
        "the directory was not refused",
        |said| matches!(said.faults.last(), Some(Some(fault)) if fault.ends_with("is not a regular file")),
    )
    .await;
}
