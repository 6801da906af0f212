//! What a head is read as, what is refused, and that neither depends on how it was cut.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 400, fields: 5, target_bytes: 100 };

fn read(head: &str) -> Result<Option<RequestHead>, Malformed> {
    HeadReader::default().read(&mut BytesMut::from(head.as_bytes()), &LIMITS)
}

fn whole(head: &str) -> RequestHead {
    read(head).expect("well-formed").expect("whole")
}

fn reason(head: &str) -> Reason {
    read(head).expect_err(head).reason
}

#[test]
fn a_head_is_what_was_written() {
    let mut bytes = BytesMut::from(
        "\r\n\r\nM-SEARCH /a?b HTTP/1.1\r\nHost:a\r\nX-Empty:\r\nx: \t 1\t2 \t\r\nX: caf\u{e9}\r\n\r\nrest",
    );
    let head = HeadReader::default().read(&mut bytes, &LIMITS).expect("well-formed").expect("whole");
    assert_eq!(bytes, "rest");
    assert_eq!((head.method.as_str(), head.version), ("M-SEARCH", Version::HTTP_11));
    assert_eq!((head.target.path(), head.target.query()), ("/a", Some("b")));
    let fields: Vec<_> = head.fields.iter().collect();
    let expected: [(&[u8], &[u8]); 4] =
        [(b"host", b"a"), (b"x-empty", b""), (b"x", b"1\t2"), (b"x", "caf\u{e9}".as_bytes())];
    assert_eq!(fields, expected);
}

#[test]
fn a_head_tells_how_its_body_ends() {
    assert_eq!(whole("GET / HTTP/1.1\r\nhost: a\r\n\r\n").body, BodyFraming::length(0));
    assert_eq!(whole("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n").body, BodyFraming::length(5));
    assert_eq!(whole("POST / HTTP/1.1\r\nTransfer-Encoding:Chunked \r\n\r\n").body, BodyFraming::chunked());
    assert!(read("GET / HTTP/1.1\r\nhost: a\r\n").expect("so far it is right").is_none());
}

#[test]
fn a_head_tells_what_becomes_of_the_connection() {
    for (head, keeps_alive) in [
        ("GET / HTTP/1.1\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nConnection: x, close\r\nConnection: keep-alive\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nConnection: closed\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
    ] {
        assert_eq!(whole(head).keeps_alive, keeps_alive, "{head}");
    }
    let head = whole("GET / HTTP/1.1\r\nExpect: 100-Continue\r\nTE: gzip, Trailers\r\nUpgrade: x\r\n\r\n");
    assert!(head.expects_continue && head.takes_trailers && head.may_upgrade);
    let head = whole("GET / HTTP/1.0\r\nExpect: 100-continue\r\nTE: x-trailers\r\n\r\n");
    assert!(!head.expects_continue && !head.takes_trailers && !head.may_upgrade);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for fields in [
        "content-length: 3\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 3",
        "content-length: 3\r\ncontent-length: 3",
        "content-length: 3, 3",
        "content-length: +3",
        "content-length: -3",
        "content-length: 3 4",
        "content-length: 0x3",
        "content-length:",
        "content-length: 18446744073709551616",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding:\u{b}chunked",
        "x: a\r\n folded",
        "x: a\n",
        "x: a\rb",
        "x: a\0b",
        "x: a\u{7f}",
        "x : a",
        " x: a",
        "x\t: a",
        "x\0: a",
        "\u{e9}: a",
        ": a",
        "x",
    ] {
        let head = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        assert_eq!(reason(&head), Reason::InvalidRequest, "{fields}");
    }
    assert_eq!(reason("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"), Reason::InvalidRequest);
    assert_eq!(reason("GET / HTTP/1.1\r\nhost: a\r\n\n"), Reason::InvalidRequest);
    assert_eq!(reason("GET / HTTP/1.1\r\nhost: a\r\n\rx"), Reason::InvalidRequest);
}

#[test]
fn a_request_line_is_judged_as_soon_as_it_ends() {
    for line in
        ["GET /", "GET / HTTP/2.0", "GET / HTTP/0.9", "GET / http/1.1", "GET/ HTTP/1.1", "GET /#a HTTP/1.1"]
    {
        assert_eq!(reason(&format!("{line}\r\n")), Reason::InvalidRequest, "{line}");
    }
    assert_eq!(reason("GET / HTTP/1.1\n"), Reason::InvalidRequest);
}

#[test]
fn methods_and_targets_have_no_odd_bytes() {
    for line in [
        "G(T /",
        " /",
        "GET  /",
        "GET /a b",
        "GET\t/\t",
        "GET /\u{7f}",
        "GET /\0",
        "GET /\r",
        "GET ?a",
        "GET //\u{1}",
        "GET /?\u{1f}",
        "GET /?a b",
        "GET http://a\u{7f}/",
    ] {
        assert_eq!(reason(&format!("{line} HTTP/1.1\r\n\r\n")), Reason::InvalidRequest, "{line:?}");
    }
    let odd = b"GET /\xff HTTP/1.1\r\n\r\n";
    HeadReader::default().read(&mut BytesMut::from(&odd[..]), &LIMITS).expect_err("no text");
}

#[test]
fn limits_hold_before_the_end_has_come() {
    assert_eq!(reason(&format!("GET /{}", "a".repeat(170))), Reason::UriTooLong);
    assert_eq!(reason(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(101))), Reason::UriTooLong);
    assert_eq!(reason(&format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(400))), Reason::HeadersTooLarge);
    assert_eq!(reason(&format!("GET / HTTP/1.1\r\n{}", "x".repeat(400))), Reason::HeadersTooLarge);
    assert_eq!(reason(&format!("GET / HTTP/1.1\r\n{}", "x: a\r\n".repeat(6))), Reason::HeadersTooLarge);
    assert_eq!(reason(&"\r\n".repeat(300)), Reason::HeadersTooLarge);
    let exactly = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(LIMITS.bytes - 23));
    assert_eq!(exactly.len(), LIMITS.bytes);
    whole(&exactly);
    assert_eq!(reason(&exactly.replace("x:", "x: ")), Reason::HeadersTooLarge);
}

#[test]
fn a_trailer_section_is_read_like_fields() {
    let read = |section: &'static str| trailers(Bytes::from_static(section.as_bytes()), &LIMITS);
    let map = read("x-sum: 1\r\nX-B:2\r\n").expect("well-formed");
    assert_eq!((map.len(), &map["x-sum"], &map["x-b"]), (2, &"1".parse().unwrap(), &"2".parse().unwrap()));
    for bad in ["x\r\n", "x: 1", "x: 1\n", "x : 1\r\n", " x: 1\r\n", "x: \0\r\n", "\r\n"] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
    assert!(trailers(Bytes::from("x: 1\r\n".repeat(6)), &LIMITS).is_err());
}

/// What can be compared of a head.
fn told(head: Option<RequestHead>) -> Option<String> {
    head.map(|head| {
        let RequestHead { method, target, fields, body, keeps_alive, .. } = head;
        format!("{method} {target:?} {:?} {body:?} {keeps_alive}", fields.to_map())
    })
}

proptest! {
    #[test]
    fn it_makes_no_difference_where_the_bytes_are_cut(
        text in "(\r\n)?(GET|POST /a) (HTTP/1.1)?\r?\n((content-length|transfer-encoding|x): (chunked|1|2)\r?\n){0,4}(\r\n)?\\PC{0,9}",
        cuts in proptest::collection::vec(0usize..120, 0..4),
    ) {
        let bytes = text.as_bytes();
        let mut at_once = BytesMut::from(bytes);
        let whole = HeadReader::default().read(&mut at_once, &LIMITS).map(told);
        let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let (mut at, mut in_pieces) = (0, Ok(None));
        for cut in cuts {
            buffer.extend_from_slice(&bytes[at..cut]);
            at = cut;
            if matches!(in_pieces, Ok(None)) {
                in_pieces = reader.read(&mut buffer, &LIMITS).map(told);
            }
        }
        prop_assert_eq!(&whole, &in_pieces);
        if matches!(whole, Ok(Some(_))) {
            prop_assert_eq!(at_once, buffer);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = HeadReader::default().read(&mut BytesMut::from(&bytes[..]), &LIMITS);
        let mut head = BytesMut::from("GET / HTTP/1.1\r\n");
        head.extend_from_slice(&bytes);
        let _ = HeadReader::default().read(&mut head, &LIMITS);
        let _ = trailers(Bytes::from(bytes), &LIMITS);
    }

    /// Another parser, which is less strict, reads the same.
    #[test]
    fn what_passes_is_read_alike_by_another_parser(
        text in "[A-Z(a ]{1,3} /[a#\u{7f}\u{e9}]{0,2} HTTP/1.[012]\r?\n((content-length|x|transfer-encoding| y)[: \t]{1,2}(chunked|1|[ -~\t\r\0]{0,4})\r?\n){0,3}\r\n",
    ) {
        let mut bytes = BytesMut::from(text.as_bytes());
        let Ok(Some(head)) = HeadReader::default().read(&mut bytes, &LIMITS) else { return Ok(()) };
        let mut fields = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut fields);
        let parsed = request.parse(text.as_bytes());
        prop_assert_eq!(parsed, Ok(httparse::Status::Complete(text.len() - bytes.len())));
        prop_assert_eq!(request.method, Some(head.method.as_str()));
        prop_assert_eq!(request.path.map(str::to_owned), head.target.into_path().map(|path| path.to_string()));
        let theirs: Vec<_> = request.headers.iter().map(|f| (f.name.to_lowercase(), f.value)).collect();
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let ours: Vec<_> = head.fields.iter().map(|(name, value)| (text(name), value)).collect();
        prop_assert_eq!(ours, theirs);
    }
}
