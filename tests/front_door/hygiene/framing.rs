//! Where a body ends, told in two ways or in one that not everybody understands (RFC 9112 §6, §11.2).

use super::place;

/// A body that is empty to one reader, and to the other a request of its own.
fn smuggling(fields: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n")
}

async fn all_refused(fields: &[&str]) {
    let place = place().await;
    for fields in fields {
        place.refuses(smuggling(fields).as_bytes(), 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn cl_te_is_refused() {
    all_refused(&[
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 6\r\nX: 1\r\ntransfer-encoding:chunked",
        "content-length:\t6\r\nTRANSFER-ENCODING:\tChunked\t",
        "Content-Length: 6\r\nTransfer-Encoding: identity",
        "Content-Length: 6\r\nTransfer-Encoding:",
    ])
    .await;
}

#[tokio::test]
async fn te_cl_is_refused() {
    all_refused(&[
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: chunked\r\nContent-length: x",
        "Transfer-Encoding: gzip\r\nContent-Length: 6",
    ])
    .await;
}

#[tokio::test]
async fn te_te_is_refused() {
    all_refused(&[
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: x",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
    ])
    .await;
}

#[tokio::test]
async fn obfuscated_transfer_encoding_is_refused() {
    all_refused(&[
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunke",
        "Transfer-Encoding: x chunked",
        "Transfer-Encoding: chunked x",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked;",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chun\tked",
        "Transfer-Encoding: chu\0nked",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: \x0cchunked",
        "Transfer-Encoding: chunked\u{a0}",
        "Transfer-Encoding: \u{212a}chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\x0b: chunked",
        " Transfer-Encoding: chunked",
        "X: 1\r\n Transfer-Encoding: chunked",
        "X: 1\nTransfer-Encoding: chunked",
        "X: 1\rTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding:\n chunked",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-\u{131}ncoding: chunked",
        "Transfer-Encoding\u{a0}: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer-Encoding: chunked\u{85}",
        "Transfer-Encoding: chunked\u{feff}",
        "Transfer-Encoding: \u{feff}chunked",
        "Transfer-Encoding: chunked\u{2028}",
        "Transfer-Encoding: chunked chunked",
        "Transfer-Encoding: chunked, cow",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: \\chunked",
        "Transfer-Encoding: c\u{4b}",
        "Transfer-Encoding: [chunked]",
        "Transfer-Encoding: (x) chunked",
        "Transfer-Encoding:chunked:",
        "Transfer-Encoding:: chunked",
        "Transfer-Encoding chunked",
        "Transfer Encoding: chunked",
        "\0Transfer-Encoding: chunked",
        "X: 1\r\r\nTransfer-Encoding: chunked",
        "X: 1\n\rTransfer-Encoding: chunked",
        "X: 1\r\n\tTransfer-Encoding: chunked",
        "\u{feff}Transfer-Encoding: chunked",
    ])
    .await;
}

/// These names are other fields, and not this one to anybody.
#[tokio::test]
async fn names_like_transfer_encoding_frame_nothing() {
    let place = place().await;
    for field in ["X-Transfer-Encoding: chunked", "Transfer-Encodings: chunked", "TransferEncoding: chunked"]
    {
        let seen = place.passes_with(&format!("{field}\r\n")).await;
        assert!(!seen.has("transfer-encoding") && seen.body.is_empty(), "{}", seen.head);
    }
    // And one that is to who makes variables of names.
    let seen = place.passes_with("Transfer_Encoding: chunked\r\nContent_Length: 5\r\n").await;
    assert!(!seen.has("transfer_encoding") && !seen.has("content_length"), "{}", seen.head);
}

#[tokio::test]
async fn repeated_content_length_is_refused() {
    all_refused(&[
        "Content-Length: 6\r\nContent-Length: 6",
        "Content-Length: 6\r\nContent-Length: 5",
        "Content-Length: 0\r\nContent-Length: 6",
        "Content-Length: 6\r\nX: 1\r\ncontent-length: 06",
        "Content-Length: 6, 6",
        "Content-Length: 6,6",
        "Content-Length: 5, 6",
        "Content-Length: 6,",
    ])
    .await;
}

#[tokio::test]
async fn malformed_content_length_is_refused() {
    all_refused(&[
        "Content-Length:",
        "Content-Length: \t",
        "Content-Length: -1",
        "Content-Length: -0",
        "Content-Length: +6",
        "Content-Length: 0x6",
        "Content-Length: 1_0",
        "Content-Length: 6 6",
        "Content-Length: 6.0",
        "Content-Length: 6e0",
        "Content-Length: 6 ;",
        "Content-Length: 6a",
        "Content-Length: 6\u{a0}",
        "Content-Length: 6\0",
        "Content-Length: \0 6",
        "Content-Length: 6;6",
        "Content-Length: 6:",
        "Content-Length: 06 06",
        "Content-Length: 0b110",
        "Content-Length: 0o6",
        "Content-Length: 1e1",
        "Content-Length: ++6",
        "Content-Length: (x) 6",
        "Content-Length: \u{ff16}",
        "Content-Length:: 6",
        "Content-Length: 6\r\n 0",
        "Content-Length: 4294967296\r\nContent-Length: 0",
        "\0Content-Length: 6",
        "Content-Length\0: 6",
        "Content-Length\u{a0}: 6",
        "Content Length: 6",
        "Content-Length: \"6\"",
        "Content-Length: \u{0666}",
        "Content-Length: 6\x0b",
        "Content-Length: 9223372036854775808",
        "Content-Length: 18446744073709551615",
        "Content-Length: 18446744073709551622",
        "Content-Length: 99999999999999999999999999",
        "Content-Length : 6",
        "Content-Length\t: 6",
        " Content-Length: 6",
        "Content-Length\x0b: 6",
        "Content-Length:\r\n 6",
    ])
    .await;
}

#[tokio::test]
async fn http_1_0_with_transfer_encoding_is_refused() {
    let place = place().await;
    place
        .refuses_all(
            &[
                "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
                "POST / HTTP/1.0\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
                "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            ],
            "invalid_request",
        )
        .await;
}

/// Whatever the client wrote, the instance is told one length, in one way.
#[tokio::test]
async fn the_length_that_is_forwarded_is_the_one_that_was_understood() {
    let place = place().await;
    let head = "POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    for (fields, body, length) in [
        ("Content-Length: 5", "hello", "5"),
        ("Content-Length: 0005", "hello", "5"),
        ("content-length:\t5\t ", "hello", "5"),
        ("Content-Length: 0", "", "0"),
        ("Content-Length: 00000000000000000000000000000000005", "hello", "5"),
    ] {
        let seen = place.passes(format!("{head}{fields}\r\n\r\n{body}")).await;
        assert_eq!((seen.all("content-length"), &seen.body[..]), (vec![length.to_owned()], body.as_bytes()));
    }
    for field in ["Transfer-Encoding: chunked", "transfer-encoding:CHUNKED\t"] {
        let seen = place.passes(format!("{head}{field}\r\n\r\n0005;x=y\r\nhello\r\n000\r\n\r\n")).await;
        assert_eq!((seen.all("transfer-encoding"), &seen.body[..]), (vec!["chunked".into()], &b"hello"[..]));
    }
}

/// What stands behind a refused request is never looked at: where that one ends is in doubt.
#[tokio::test]
async fn nothing_behind_a_request_in_doubt_is_a_request() {
    let place = place().await;
    let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
    for bad in [
        "GET / HTTP/3.0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(),
        "get / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        smuggling("Content-Length: 6\r\nTransfer-Encoding: chunked"),
        smuggling("Expect: 100-continue, x\r\nContent-Length: 5"),
    ] {
        let before = place.origin.count();
        let answer = crate::support::raw::exchange(place.gateway.http(), format!("{good}{bad}{good}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("reached").count(), 1, "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 4").count(), 1, "{answer}");
        assert!(answer.contains("reachedHTTP/1.1 4"), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
        assert_eq!(place.origin.count(), before + 1);
    }
}
