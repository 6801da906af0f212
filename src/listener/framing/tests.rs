//! Bodies are followed to their end, however they are cut.

use proptest::prelude::*;

use super::*;

/// The content, the trailers and what is left, of a body that comes at once.
fn read(framing: &mut BodyFraming, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>, BytesMut), Malformed> {
    let (mut buffer, mut content, mut trailers) = (BytesMut::from(bytes), Vec::new(), Vec::new());
    while let Some(data) = framing.take(&mut buffer, &mut trailers)? {
        content.extend_from_slice(&data);
    }
    Ok((content, trailers, buffer))
}

#[test]
fn chunks_are_followed_to_the_end() {
    let body = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nx-sum: 1\r\ny:2\r\n\r\nnext";
    assert!(BodyFraming::chunked().ends_within(body));
    assert!(!BodyFraming::chunked().ends_within(&body[..body.len() - 5]));
    let mut framing = BodyFraming::chunked();
    let (content, trailers, rest) = read(&mut framing, body).expect("well-formed");
    assert!(framing.is_end());
    assert_eq!((&content[..], &rest[..]), (&b"abc0123456789"[..], &b"next"[..]));
    assert_eq!(trailers, b"x-sum: 1\r\ny:2\r\n");
}

#[test]
fn a_length_is_counted_down() {
    let mut framing = BodyFraming::length(5);
    assert!(framing.ends_within(b"12345") && !framing.ends_within(b"1234"));
    let (content, _, rest) = read(&mut framing, b"123").expect("well-formed");
    assert_eq!((&content[..], rest.len(), framing.left()), (&b"123"[..], 0, Some(2)));
    let (content, _, rest) = read(&mut framing, b"456").expect("well-formed");
    assert_eq!((&content[..], &rest[..], framing.is_end()), (&b"45"[..], &b"6"[..], true));
}

#[test]
fn malformed_chunks_are_refused() {
    for bad in [
        "\r\n",
        "x\r\n",
        " 3\r\nabc",
        "-1\r\n",
        "3\nabc",
        "3 \r\nabc",
        "3\r\nabcd",
        "3\r\nabc\n",
        "3;a\nb\r\n",
        "3;a\0\r\n",
        "3;\rx",
        "0\r\n\n",
        "0\r\nx: 1\n",
        "0\r\n x: 1\r\n",
        "1000000000000000\r\n",
    ] {
        assert!(read(&mut BodyFraming::chunked(), bad.as_bytes()).is_err(), "{bad:?}");
        assert!(!BodyFraming::chunked().ends_within(bad.as_bytes()), "{bad:?}");
    }
    let long = format!("0\r\nx: {}", "a".repeat(MAX_TRAILER_BYTES));
    assert!(read(&mut BodyFraming::chunked(), long.as_bytes()).is_err());
}

#[test]
fn extensions_are_bounded_by_the_content_that_comes_with_them() {
    let chunk = |size: usize| format!("{size:x};{}\r\n{}\r\n", "e".repeat(100), "c".repeat(size));
    // Signed chunks have as much in front of each.
    assert!(read(&mut BodyFraming::chunked(), chunk(100).repeat(1000).as_bytes()).is_ok());
    assert!(read(&mut BodyFraming::chunked(), chunk(1).repeat(160).as_bytes()).is_ok());
    let small = chunk(1).repeat(170) + "0\r\n\r\n";
    assert!(read(&mut BodyFraming::chunked(), small.as_bytes()).is_err());
    assert!(!BodyFraming::chunked().ends_within(small.as_bytes()));
}

proptest! {
    #[test]
    fn it_makes_no_difference_where_chunks_are_cut(
        text in "([1-3](;a)?\r\n[a-z]{1,3}\r?\n){0,3}(0\r\n(x: 1\r\n){0,2}\r\n)?n?",
        cut in 0usize..60,
    ) {
        let bytes = text.as_bytes();
        let mut at_once = BodyFraming::chunked();
        let whole = read(&mut at_once, bytes);
        prop_assert_eq!(at_once.is_end() && whole.is_ok(), BodyFraming::chunked().ends_within(bytes));
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let mut in_two = BodyFraming::chunked();
        let pieces = read(&mut in_two, first).and_then(|(mut content, mut trailers, mut rest)| {
            rest.extend_from_slice(second);
            while let Some(data) = in_two.take(&mut rest, &mut trailers)? {
                content.extend_from_slice(&data);
            }
            Ok((content, trailers, rest))
        });
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), length in 0u64..90) {
        let _ = read(&mut BodyFraming::chunked(), &bytes);
        let _ = BodyFraming::chunked().ends_within(&bytes);
        let _ = read(&mut BodyFraming::length(length), &bytes);
    }
}
