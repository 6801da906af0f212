//! What is not done, and why.

use super::loadtest;

#[tokio::test]
async fn what_is_not_this_machine_is_not_loaded() {
    // An address that is nobody's (RFC 5737).
    for arguments in [
        &["http://192.0.2.1/", "--requests", "1"][..],
        &["http://127.0.0.1/", "--connect", "192.0.2.1:80", "--requests", "1"],
    ] {
        let ran = loadtest(arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
        assert!(ran.err.contains("192.0.2.1") && ran.err.contains("--yes-i-may-load-this"), "{}", ran.err);
    }
}

#[tokio::test]
async fn misuse_is_explained() {
    for (arguments, told) in [
        (&[][..], "URL"),
        (&["127.0.0.1:80"], "is no URL to load"),
        (&["http://127.0.0.1/", "--rate", "0"], "--rate"),
        (&["http://127.0.0.1/", "--streams", "2"], "--http2"),
        (&["http://127.0.0.1/", "--duration", "10"], "number and"),
        (&["http://127.0.0.1/", "-H", "x"], "NAME: VALUE"),
    ] {
        let ran = loadtest(arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(told), "{arguments:?}: {}", ran.err);
    }
    let ran = loadtest(&["http://127.0.0.1/", "--body", "nowhere.json"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("nowhere.json can't be read"), "{}", ran.err);
}
