//! `gatehouse token`: what it signs is accepted, and what it can't sign it explains.

use std::path::Path;
use std::process::{Command, Output};

use super::*;

fn token(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    command.arg("token").args(arguments).current_dir(directory).env("NO_COLOR", "1");
    command.output().expect("the binary was built with the tests")
}

fn signed_by_command(directory: &Path, arguments: &[&str]) -> String {
    let output = token(directory, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    let token = String::from_utf8(output.stdout).expect("a token is ASCII");
    assert_eq!(token.lines().count(), 1, "the token alone goes to stdout");
    token.trim_end().to_owned()
}

#[tokio::test]
async fn what_it_signs_is_accepted() {
    let keys = format!(
        "keys: [{{ secret: \"{SECRET}\" }}, {{ public_key: {} }}, {{ public_key: {} }}]",
        vector("rsa.pub").display(),
        vector("ed25519.pub").display()
    );
    let routes = "routes: [{ name: in, match: { prefix: / }, authenticate: { with: [shop] }, \
                  authorize: { claims: { role: [admin] } }, respond: { text: in } }]\n";
    let gateway = Gateway::start(&(authenticator("HS256, HS512, PS256, EdDSA", &keys) + routes));
    let (rsa, ed) = (vector("rsa.key"), vector("ed25519.key"));
    let (rsa, ed) = (rsa.to_str().expect("UTF-8"), ed.to_str().expect("UTF-8"));
    for more in [
        &[][..],
        &["--alg", "HS512"],
        &["-a", "shop", "--key", rsa],
        &["-c", "gateway.yaml", "--key", ed, "--kid", "x"],
        &["-a", "shop", "--secret", SECRET],
    ] {
        let token =
            signed_by_command(gateway.path(), &[&["--claim", "role=admin", "--sub", "me"], more].concat());
        assert_eq!(with_token(&gateway, &token).await.status, 200, "{more:?}");
    }
    assert_eq!(gateway.log_entry(|entry| entry["status"] == 200)["subject"], "me");
    let plain = signed_by_command(gateway.path(), &[]);
    assert_eq!(with_token(&gateway, &plain).await.code(), "not_authorized");
    let expired = signed_by_command(gateway.path(), &["--expires-in", "0s", "--claim", "role=[\"admin\"]"]);
    assert_eq!(with_token(&gateway, &expired).await.code(), "token_expired");
    let other = signed_by_command(gateway.path(), &["--claim", "aud=other"]);
    assert_eq!(with_token(&gateway, &other).await.code(), "token_audience");
}

#[test]
fn what_it_cannot_do_it_explains() {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let listener = "listeners: [{ name: http, bind: \"127.0.0.1:0\" }]\nroutes: []\n";
    std::fs::write(directory.path().join("none.yaml"), listener).expect("writable");
    let shop = secret_authenticator();
    std::fs::write(directory.path().join("one.yaml"), format!("{shop}{listener}")).expect("writable");
    std::fs::write(directory.path().join("bad.yaml"), format!("{shop}{listener}rutes: []\n"))
        .expect("writable");
    for (arguments, code, says) in [
        (&[][..], 1, "there is no file gateway.yaml"),
        (&["-c", "none.yaml"], 1, "no authenticator"),
        (&["-c", "one.yaml", "-a", "x"], 1, "there is no authenticator \"x\"; there are shop"),
        (&["-c", "one.yaml", "--claim", "novalue"], 1, "NAME=VALUE"),
        (&["-c", "one.yaml", "--alg", "RS256"], 1, "needs a private key"),
        (&["-c", "one.yaml", "--key", "missing.key"], 1, "cannot be read"),
        (&["-c", "bad.yaml"], 1, "did you mean \"routes\"?"),
        (&["--alg", "none", "--secret", "x"], 2, "there are HS256"),
        (&["--expires-in", "1w", "--secret", "x"], 2, "90s, 15m, 1h, 30d"),
        (&["--secret", "x", "--key", "y"], 2, "cannot be used with"),
    ] {
        let output = token(directory.path(), arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!said.contains(SECRET), "{said}");
    }
}
