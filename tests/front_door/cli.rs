//! The command line: what goes where, and the exit codes (0 fine, 1 wrong, 2 usage).

use std::path::Path;
use std::process::{Command, Output, Stdio};

const GOOD: &str = "listeners: [{ name: http, bind: '127.0.0.1:0' }]\n\
     authenticators: { shop: { jwt: { issuer: me, algorithms: [HS256], keys: [{ secret: 'a secret of thirty-two bytes, or so' }] } } }\n\
     routes: [{ name: ping, match: { path: /ping }, respond: { text: pong } }]\n";

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn gatehouse(directory: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    let Output { status, stdout, stderr } = command
        .args(arguments)
        .current_dir(directory)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built with the tests");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes text");
    Ran { code: status.code().expect("it ended by itself"), out: text(stdout), err: text(stderr) }
}

fn with(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    std::fs::write(directory.path().join("gateway.yaml"), text).expect("writable");
    directory
}

#[test]
fn check_tells_right_from_wrong() {
    let ran = gatehouse(with(GOOD).path(), &["check"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert!(ran.err.contains("gateway.yaml is fine: 1 listener, 0 services, 1 route"), "{}", ran.err);

    let ran = gatehouse(with(&GOOD.replace("respond", "respnd")).path(), &["check"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(
        ran.err.contains("did you mean \"respond\"?") && ran.err.contains("gateway.yaml:3:"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("^^^^^^"), "{}", ran.err);

    // What only shows when it is put together.
    let tls = "listeners: [{ name: a, bind: '127.0.0.1:0', tls: { certificates: [{ certificate: a.crt, private_key: a.key }] } }]\nroutes: []\n";
    let ran = gatehouse(with(tls).path(), &["check"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("a.crt"), "{}", ran.err);

    let ran = gatehouse(with(&GOOD.replace("respond", "respnd")).path(), &["check", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&ran.out).expect("it is JSON");
    assert_eq!((ran.code, &told["problems"][0]["line"]), (1, &3.into()), "{told}");

    let ran = gatehouse(with(GOOD).path(), &["check", "-c", "nowhere.yaml"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("nowhere.yaml"), "{}", ran.err);
}

#[test]
fn run_refuses_what_check_refuses() {
    for command in ["run", "demo"] {
        let ran = gatehouse(with(&GOOD.replace("respond", "respnd")).path(), &[command]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        assert!(ran.err.contains("did you mean \"respond\"?"), "{}", ran.err);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has ports");
    let address = taken.local_addr().expect("it is bound").to_string();
    let ran = gatehouse(with(&GOOD.replace("127.0.0.1:0", &address)).path(), &["run"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains(&address) && ran.err.contains("another process has this port"), "{}", ran.err);
}

#[test]
fn schema_is_json_schema() {
    let ran = gatehouse(with(GOOD).path(), &["schema"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let schema: serde_json::Value = serde_json::from_str(&ran.out).expect("it is JSON");
    jsonschema::validator_for(&schema).expect("it is a schema");
    assert!(schema["$schema"].as_str().is_some_and(|of| of.contains("json-schema.org")));
}

#[test]
fn token_is_alone_on_stdout() {
    let ran = gatehouse(with(GOOD).path(), &["token", "--sub", "ada", "--claim", "role=admin"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!((ran.out.trim_end().split('.').count(), ran.out.lines().count()), (3, 1));
    let ran = gatehouse(with(GOOD).path(), &["token", "-c", "nowhere.yaml"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
}

#[test]
fn usage_is_explained_and_misuse_is_2() {
    let directory = with(GOOD);
    let help = gatehouse(directory.path(), &["--help"]);
    assert_eq!(help.code, 0);
    for command in ["run", "check", "demo", "token", "loadtest", "schema"] {
        assert!(help.out.contains(command), "{}", help.out);
        assert_eq!(gatehouse(directory.path(), &[command, "--help"]).code, 0);
    }
    assert_eq!(gatehouse(directory.path(), &["--version"]).code, 0);
    for misuse in [
        &["explode"][..],
        &[],
        &["run", "--nonsense"],
        &["run", "--drain-timeout", "soon"],
        &["check", "a", "b"],
    ] {
        let ran = gatehouse(directory.path(), misuse);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{misuse:?}: {}", ran.err);
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    for arguments in [&["schema"][..], &["token"], &["check", "--json"]] {
        let (reader, writer) = std::io::pipe().expect("there are pipes");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        let directory = with(GOOD);
        let broken = writer.try_clone().expect("a descriptor is left");
        let status =
            command.args(arguments).current_dir(directory.path()).stdout(writer).stderr(broken).status();
        assert_ne!(status.expect("it runs").code(), Some(101), "{arguments:?}");
    }
    let (reader, writer) = std::io::pipe().expect("there are pipes");
    drop(reader);
    let directory = with("nonsense: 1\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    let status = command.args(["run"]).current_dir(directory.path()).stderr(writer).status();
    assert_eq!(status.expect("it runs").code(), Some(1));
}
