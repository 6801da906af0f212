//! HPACK (RFC 7541).

use super::*;

const LAST: u8 = END_HEADERS | END_STREAM;
/// §4.3 of RFC 9113 asks for the second; `h2` says the first.
const WRONG: Due = Due::Connection(&[PROTOCOL_ERROR, COMPRESSION_ERROR]);

/// A GET whose fields end with these bytes.
fn then(bytes: &[u8]) -> Vec<u8> {
    frame(HEADERS, LAST, 1, &[&block(&GET), bytes].concat())
}

/// One that begins with them.
fn first(bytes: &[u8]) -> Vec<u8> {
    frame(HEADERS, LAST, 1, &[bytes, &block(&GET)].concat())
}

#[tokio::test]
async fn what_has_no_meaning_ends_the_connection() {
    let place = place().await;
    place
        .conforms_and_keeps_all_back(&[
            ("2.3.3: an index without an entry", then(&[0x80 | 70]), WRONG),
            ("2.3.3: a name by such an index", then(&[0x40 | 62, 1, b'x']), WRONG),
            ("2.3.3: an index far beyond", then(&[0xff, 0xff, 0xff, 0x7f]), WRONG),
            ("4.2: a size behind the fields", then(&[0x20]), WRONG),
            ("5.1: an integer without end", then(&[&[0x7f][..], &[0xff; 12], &[0]].concat()), WRONG),
            (
                "5.1: a length that overflows",
                then(&[0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, b'x']),
                WRONG,
            ),
            (
                "5.2: padding of more than seven bits",
                then(&[0, 1, b'x', 0x84, 0x49, 0x50, 0x9f, 0xff]),
                WRONG,
            ),
            ("5.2: padding of zeros", then(&[0, 1, b'x', 0x83, 0x49, 0x50, 0x90]), WRONG),
            (
                "5.2: the end of a string within",
                then(&[0, 1, b'x', 0x88, 0xff, 0xff, 0xff, 0xfd, 0x49, 0x50, 0x9f, 0xff]),
                WRONG,
            ),
            ("5.2: a string that ends too soon", then(&[0, 1, b'x', 9, b'y']), WRONG),
            ("5.2: a name and no value", then(&[0, 1, b'x']), WRONG),
            ("6.1: index 0", then(&[0x80]), WRONG),
            ("6.3: a size beyond what was set", first(&[0x3f, 0xe2, 0x1f]), WRONG),
            ("4.3: a block that is none", frame(HEADERS, LAST, 1, &[0xff; 20]), WRONG),
            (
                "4.3: one that ends with its CONTINUATION",
                [begun(1), frame(CONTINUATION, END_HEADERS, 1, &[0x40])].concat(),
                WRONG,
            ),
        ])
        .await;
}

/// RFC 7541 appendix C: three requests of one connection, as they are and in Huffman's code.
#[tokio::test]
async fn the_examples_of_the_appendix() {
    let place = place().await;
    let plain = [
        &b"\x82\x86\x84\x41\x0fwww.example.com"[..],
        b"\x82\x86\x84\xbe\x58\x08no-cache",
        b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
    ];
    let coded = [
        &b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..],
        b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
    ];
    for blocks in [plain, coded] {
        let mut client = Frames::connect(place.gateway.http()).await;
        for (block, stream) in blocks.iter().zip([1, 3, 5]) {
            let due = Due::Answer(stream);
            let seen = outcome(&mut client, &frame(HEADERS, LAST, stream, block), due).await;
            assert!(seen.is(due), "{seen:?}");
        }
        let [.., first, second, third] = &place.origin.requests()[..] else { panic!("there were three") };
        for (seen, target) in [(first, "/"), (second, "/"), (third, "/index.html")] {
            assert_eq!(
                (seen.target.as_str(), seen.all("host")),
                (target, vec!["www.example.com".to_owned()])
            );
        }
        assert_eq!(second.all("cache-control"), ["no-cache"]);
        assert_eq!(third.all("custom-key"), ["custom-value"]);
    }
}

#[tokio::test]
async fn every_way_of_writing_a_field() {
    let place = place().await;
    for (name, bytes, field, value) in [
        ("6.1: indexed", &[0x80 | 19][..], "accept", ""),
        ("6.2.1: put into the table", &[0x40, 1, b'x', 1, b'1'], "x", "1"),
        ("6.2.1: its name by number", &[0x40 | 58, 1, b'1'], "user-agent", "1"),
        ("6.2.2: kept out", &[0, 1, b'x', 1, b'1'], "x", "1"),
        ("6.2.2: its name by number", &[0x0f, 58 - 15, 1, b'1'], "user-agent", "1"),
        ("6.2.3: never to be put there", &[0x10, 1, b'x', 1, b'1'], "x", "1"),
        ("6.2.3: its name by number", &[0x1f, 58 - 15, 1, b'1'], "user-agent", "1"),
        ("6.2.1: and used", &[0x40, 1, b'x', 1, b'1', 0x80 | 62], "x", "1"),
        ("5.2: an empty value", &[0, 1, b'x', 0], "x", ""),
        ("5.2: an empty value in Huffman's code", &[0, 1, b'x', 0x80], "x", ""),
        ("5.1: a number longer than it need be", &[0, 0x01, b'x', 0x7f, 0x80, 0x00], "x", &"7".repeat(127)),
    ] {
        let mut bytes = then(bytes);
        if value.len() > 9 {
            bytes = frame(HEADERS, LAST, 1, &[&bytes[9..], value.as_bytes()].concat());
        }
        place.conforms(&[(name, bytes, Due::Answer(1))]).await;
        assert!(place.origin.last().all(field).iter().all(|seen| seen == value), "{name}");
        assert!(place.origin.last().has(field), "{name}");
    }
    place
        .conforms(&[
            ("6.3: a size of nothing", first(&[0x20]), Due::Answer(1)),
            ("6.3: two sizes", first(&[0x20, 0x3f, 0xe1, 0x1f]), Due::Answer(1)),
            ("6.3: the size there is", first(&[0x3f, 0xe1, 0x1f]), Due::Answer(1)),
        ])
        .await;
    // 4.4: an entry larger than the table empties it, and is no error.
    let large = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4000]].concat();
    place.conforms(&[("4.4: an entry larger than the table", then(&large), Due::Answer(1))]).await;
    // 2.3.2: what one request has put into the table, the next may use, and a reset one's as well.
    let mut client = Frames::connect(place.gateway.http()).await;
    let bytes = [then(&[0x40, 1, b'x', 1, b'1']), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat();
    let next = frame(HEADERS, LAST, 3, &[&block(&GET)[..], &[0x80 | 62]].concat());
    let seen = outcome(&mut client, &[bytes, next].concat(), Due::Answer(3)).await;
    assert!(seen.answered.contains(&3) && place.origin.last().all("x") == ["1"], "{seen:?}");
}
