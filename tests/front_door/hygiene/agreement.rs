//! The property behind all the others: what a service reads is what the gateway has decided on.
//!
//! Requests are mutated at random and sent over one connection each. Whatever of them reaches the service is read there
//! by a parser that isn't the gateway's and forgives nothing (`support/recorder.rs`), and compared with what the
//! gateway's log says it has decided: as many requests, each with that method, that path and so many bytes of a body.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::{Place, place};
use crate::support::frames::{DATA, END_STREAM, Frames, Outcome};
use crate::support::raw;

/// The same at each run, unless `PROPTEST_CASES` asks for more.
fn runner(cases: u32) -> (TestRunner, u32) {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    (TestRunner::deterministic(), asked.unwrap_or(cases).min(Config::default().max_global_rejects * 100))
}

fn one_of(all: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    prop::sample::select(all.to_vec()).prop_map(str::to_owned)
}

fn methods() -> impl Strategy<Value = String> {
    one_of(&["GET", "POST", "POST", "POST", "HEAD", "OPTIONS", "PUT", "PUT", "get", "TRACE"])
}

fn targets() -> impl Strategy<Value = String> {
    let piece = one_of(&[
        "/", "/", "a", "b", "..", ".", "%2e", "%2f", "%5c", "//", ";", "\\", "?", "#", " ", "%", "%00",
        "%c0%ae", "\u{e9}", "http://a", "*", "\t", "\r", "\n",
    ]);
    prop_oneof![
        7 => Just("/x".to_owned()),
        3 => prop::collection::vec(piece, 1..6).prop_map(|pieces| format!("/{}", pieces.concat())),
        1 => one_of(&["http://a/x", "http://b/x", "*", "a:80", "", "http://a"]),
    ]
}

/// One that tells a length, mostly; whole, and with something in it that does not belong there.
fn field_lines() -> impl Strategy<Value = String> {
    let name = one_of(&[
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "transfer-encoding",
        "Connection",
        "Host",
        "Expect",
        "TE",
        "Trailer",
        "Upgrade",
        "X",
        "x-user-id",
        "X-Forwarded-For",
        "Content_Length",
        "Content-Length ",
        " X",
        "",
    ]);
    let value = one_of(&[
        "5",
        "0",
        "05",
        "+5",
        "5, 5",
        "5,6",
        "0x5",
        "chunked",
        "Chunked",
        "chunked, identity",
        "identity",
        "xchunked",
        "close",
        "keep-alive",
        "content-length",
        "transfer-encoding, host",
        "100-continue",
        "trailers",
        "h2c",
        "a",
        "",
        "\u{e9}",
        "a\0b",
        "\x0b5",
        "5\t",
    ]);
    let colon = one_of(&[":", ": ", ": ", ": ", ":\t", " :"]);
    let end = one_of(&["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n ", "\r\r\n"]);
    (name, colon, value, end).prop_map(|(name, colon, value, end)| format!("{name}{colon}{value}{end}"))
}

fn bodies() -> impl Strategy<Value = String> {
    let chunk = one_of(&[
        "5\r\nhello\r\n",
        "5;a=b\r\nhello\r\n",
        "05\r\nhello\r\n",
        "5\nhello\r\n",
        "0x5\r\nhello\r\n",
        "6\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "0\r\n\r\n",
        "0\r\n\r\n",
        "0\r\nX: 1\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
    ]);
    prop_oneof![
        2 => Just("hello".to_owned()),
        1 => Just(String::new()),
        3 => prop::collection::vec(chunk, 1..4).prop_map(|chunks| chunks.concat()),
    ]
}

/// A request in which one thing or another may be wrong.
fn requests() -> impl Strategy<Value = String> {
    let framing = prop_oneof![
        Just("Content-Length: 5\r\n".to_owned()),
        Just("Transfer-Encoding: chunked\r\n".to_owned()),
        Just(String::new()),
    ];
    let version =
        one_of(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "http/1.1"]);
    let fields = prop_oneof![
        3 => Just(String::new()),
        2 => prop::collection::vec(field_lines(), 1..3).prop_map(|lines| lines.concat()),
    ];
    (methods(), targets(), version, framing, fields, bodies()).prop_map(
        |(method, target, version, framing, fields, body)| {
            format!("{method} {target} {version}\r\nHost: a\r\n{framing}{fields}\r\n{body}")
        },
    )
}

/// Two of them, with bytes changed here and there, and an orderly one behind.
fn connections() -> impl Strategy<Value = Vec<u8>> {
    let odd = prop::sample::select(vec![b'\r', b'\n', 0, b' ', b'\t', b':', b'0', b'5', b';', 0xe9, b'A']);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), odd), 0..2);
    (requests(), requests(), changes, any::<bool>()).prop_map(|(first, second, changes, is_changed)| {
        let mut bytes = [first, second].concat().into_bytes();
        for (at, byte) in changes.into_iter().filter(|_| is_changed) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend_from_slice(b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        bytes
    })
}

impl Place {
    /// What the service has read since, of which each request must be one that the gateway has logged.
    fn agrees_since(&self, before: usize, sent: &str) -> usize {
        let seen = self.origin.requests();
        for request in &seen[before..] {
            let id = request.all("x-request-id");
            let [id] = &id[..] else { panic!("{sent:?} became {}", request.head) };
            let entry = self.gateway.log_entry(|entry| entry["request_id"] == id.as_str());
            let path = request.target.split('?').next().expect("there is a first");
            assert_eq!(entry["method"], request.method.as_str(), "{sent:?} became {}", request.head);
            assert_eq!(entry["path"], path, "{sent:?} became {}", request.head);
            assert_eq!(entry["bytes_in"], request.body.len(), "{sent:?} became {}", request.head);
            assert!(request.all("x-user-id").is_empty(), "{sent:?} became {}", request.head);
            assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"], "{sent:?} became {}", request.head);
        }
        seen.len() - before
    }
}

#[tokio::test]
async fn what_a_service_reads_is_what_was_decided_on() {
    let place = place().await;
    let (mut runner, cases) = runner(400);
    let strategy = connections();
    let mut passed = 0;
    for _ in 0..cases {
        let bytes = strategy.new_tree(&mut runner).expect("nothing is rejected").current();
        let told = String::from_utf8_lossy(&bytes).into_owned();
        let before = place.origin.count();
        let mut stream = tokio::net::TcpStream::connect(place.gateway.http()).await.expect("it listens");
        // A request may wait for the rest of its body: the client has nothing more to say.
        let (_, _) = (
            tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await,
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await,
        );
        let mut answer = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
        // A reset is an end as well.
        let _ = tokio::time::timeout(crate::support::PATIENCE, reading).await.expect("it ends");
        passed += place.agrees_since(before, &told);
    }
    // The mutations leave enough of them whole, and spoil enough.
    assert!(
        passed > cases as usize / 20 && passed < 3 * cases as usize,
        "{passed} of {cases} were passed on"
    );
}

#[tokio::test]
async fn what_a_service_reads_of_http_2_is_what_was_decided_on() {
    let place = place().await;
    let (mut runner, cases) = runner(200);
    let name = one_of(&[
        "x",
        "X",
        "content-length",
        "transfer-encoding",
        "connection",
        "host",
        "te",
        "expect",
        "x-user-id",
        "x\r\ny",
        "x y",
        ":path",
        "cookie",
        "content_length",
        "trailer",
        "x-forwarded-for",
    ]);
    let value = one_of(&[
        "1",
        "5",
        "",
        "chunked",
        "trailers",
        "a.example",
        "b",
        "1\r\nhost: b",
        " 5",
        "5\t",
        "\u{e9}",
        "a\0",
        "100-continue",
    ]);
    let fields = prop::collection::vec((name, value), 0..3);
    let strategy =
        (methods(), targets(), fields, one_of(&["", "hello", "hello!", "0\r\n\r\nGET /b HTTP/1.1\r\n\r\n"]));
    let mut passed = 0;
    for _ in 0..cases {
        let (method, target, fields, body) =
            strategy.new_tree(&mut runner).expect("nothing is rejected").current();
        let before = place.origin.count();
        let mut head = vec![
            (":method", &*method),
            (":scheme", "http"),
            (":authority", "a.example"),
            (":path", &*target),
        ];
        head.extend(fields.iter().map(|(name, value)| (&**name, &**value)));
        let mut client = Frames::connect(place.gateway.http()).await;
        let stream = client.request(&head, body.is_empty()).await;
        if !body.is_empty() {
            client.send(DATA, END_STREAM, stream, body.as_bytes()).await;
        }
        let outcome = client.outcome(stream).await;
        let came = place.agrees_since(before, &format!("{head:?} {body:?}"));
        assert!(
            came <= 1 && (outcome != Outcome::Ok || method == "OPTIONS" || came == 1),
            "{head:?} → {outcome:?}"
        );
        passed += came;
    }
    assert!(passed > cases as usize / 20 && passed < cases as usize, "{passed} of {cases} were passed on");
}

/// The recorder would notice: this is what it has to be told apart from.
#[tokio::test]
async fn an_orderly_request_is_agreed_upon() {
    let place = place().await;
    let request = "POST /a/../x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    raw::exchange(place.gateway.http(), request).await;
    assert_eq!(place.agrees_since(0, request), 1);
    assert_eq!(place.origin.last().target, "/x?y");
}
