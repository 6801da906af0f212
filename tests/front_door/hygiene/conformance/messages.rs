//! Requests as HTTP/2 has them (RFC 9113 §8). What has no meaning in it has none behind the gateway either: nothing of
//! these reaches the service.

use super::*;

const LAST: u8 = END_HEADERS | END_STREAM;
const MALFORMED: Due = Due::Stream(1, &[PROTOCOL_ERROR]);

type Fields<'f> = &'f [(&'f str, &'f str)];

fn request(fields: Fields<'_>) -> Vec<u8> {
    frame(HEADERS, LAST, 1, &block(fields))
}

/// A GET with some more fields.
fn with(more: Fields<'_>) -> Vec<u8> {
    request(&[&GET, more].concat())
}

/// A GET in which a pseudo-field is replaced by these.
fn but(name: &str, by: Fields<'_>) -> Vec<u8> {
    let fields = GET.iter().flat_map(|field| if field.0 == name { by } else { std::slice::from_ref(field) });
    request(&fields.copied().collect::<Vec<_>>())
}

/// A POST with a body and this block behind it.
fn trailed(trailers: &[u8]) -> Vec<u8> {
    [post(1), frame(DATA, 0, 1, b"test"), frame(HEADERS, LAST, 1, trailers)].concat()
}

#[tokio::test]
async fn exchanges() {
    let place = place().await;
    let trailers = |flags| frame(HEADERS, flags, 1, &block(&[("x-test", "ok")]));
    place
        .conforms(&[
            ("8.1: GET", get(1), Due::Answer(1)),
            ("8.1: POST", [post(1), frame(DATA, END_STREAM, 1, b"test")].concat(), Due::Answer(1)),
            ("8.1: POST with trailers", trailed(&block(&[("x-test", "ok")])), Due::Answer(1)),
            ("8.1: trailers of no field", trailed(&[]), Due::Answer(1)),
            ("8.1: trailers without a body", [post(1), trailers(LAST)].concat(), Due::Answer(1)),
            (
                "8.1: DATA behind trailers",
                [post(1), trailers(LAST), frame(DATA, END_STREAM, 1, b"test")].concat(),
                Due::Stream(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
            ),
        ])
        .await;
    let second = [post(1), frame(DATA, 0, 1, b"test"), trailers(END_HEADERS)].concat();
    let third = [second.clone(), frame(DATA, END_STREAM, 1, b"test")].concat();
    place
        .conforms_and_keeps_all_back(&[
            ("8.1: a second head that ends nothing", second, MALFORMED),
            ("8.1: and more of the body behind it", third, MALFORMED),
        ])
        .await;
    // 8.1: no DATA for HEAD, whatever its length would be.
    let mut client = Frames::connect(place.gateway.http()).await;
    let head = GET.map(|(name, value)| (name, if name == ":method" { "HEAD" } else { value }));
    let seen = outcome(&mut client, &request(&head), Due::Answer(1)).await;
    assert!(seen.is(Due::Answer(1)) && seen.data == 0, "{seen:?}");
}

#[tokio::test]
async fn fields() {
    let place = place().await;
    place
        .conforms_and_keeps_all_back(&[
            ("8.2: a name with a capital", with(&[("X-TEST", "ok")]), MALFORMED),
            ("8.2.1: a name with a space", with(&[("x test", "ok")]), MALFORMED),
            ("8.2.1: a value with CR", with(&[("x-test", "o\rk")]), MALFORMED),
            ("8.2.1: a value with LF", with(&[("x-test", "o\nk")]), MALFORMED),
            ("8.2.1: a value with NUL", with(&[("x-test", "o\0k")]), MALFORMED),
            ("8.2.1: a value with a blank before it", with(&[("x-test", " ok")]), MALFORMED),
            ("8.2.1: a value with a blank behind it", with(&[("x-test", "ok\t")]), MALFORMED),
            ("8.2.2: connection", with(&[("connection", "keep-alive")]), MALFORMED),
            ("8.2.2: keep-alive", with(&[("keep-alive", "timeout=5")]), MALFORMED),
            ("8.2.2: proxy-connection", with(&[("proxy-connection", "keep-alive")]), MALFORMED),
            ("8.2.2: transfer-encoding", with(&[("transfer-encoding", "chunked")]), MALFORMED),
            ("8.2.2: upgrade", with(&[("upgrade", "h2c")]), MALFORMED),
            ("8.2.2: te but trailers", with(&[("te", "trailers, deflate;q=0.5")]), MALFORMED),
        ])
        .await;
    place.conforms(&[("8.2.2: te: trailers", with(&[("te", "trailers")]), Due::Answer(1))]).await;
}

#[tokio::test]
async fn pseudo_fields() {
    let place = place().await;
    place
        .conforms_and_keeps_all_back(&[
            ("8.3: an unknown one", with(&[(":test", "ok")]), MALFORMED),
            ("8.3: one of responses", with(&[(":status", "200")]), MALFORMED),
            ("8.3: behind a field", but(":path", &[("x-test", "ok"), (":path", "/ok")]), MALFORMED),
            ("8.3.1: an empty :path", but(":path", &[(":path", "")]), MALFORMED),
            ("8.3.1: no :method", but(":method", &[]), MALFORMED),
            ("8.3.1: no :scheme", but(":scheme", &[]), MALFORMED),
            ("8.3.1: no :path", but(":path", &[]), MALFORMED),
            ("8.3.1: two of :method", but(":method", &[(":method", "GET"), (":method", "GET")]), MALFORMED),
            ("8.3.1: two of :scheme", but(":scheme", &[(":scheme", "http"), (":scheme", "http")]), MALFORMED),
            ("8.3.1: two of :path", but(":path", &[(":path", "/ok"), (":path", "/ok")]), MALFORMED),
            ("8.3.1: two of :authority", with(&[(":authority", "a.example")]), MALFORMED),
            ("8.3.1: a :path that is none", but(":path", &[(":path", "ok")]), MALFORMED),
            ("8.3.1: one with a fragment", but(":path", &[(":path", "/ok#top")]), MALFORMED),
            ("8.3.1: one with a fragment behind a query", but(":path", &[(":path", "/ok?a#b")]), MALFORMED),
            ("8.5: CONNECT with :path", but(":method", &[(":method", "CONNECT")]), MALFORMED),
        ])
        .await;
}

/// 8.1: they have none. One of them may be written in many ways.
#[tokio::test]
async fn pseudo_fields_in_trailers() {
    let place = place().await;
    // `:path: /z`, put into the table by the head; the trailers say it by its number.
    let head = [&block(&post_fields()[..3])[..], &[0x44, 2], b"/z"].concat();
    let by_number = [
        frame(HEADERS, END_HEADERS, 1, &head),
        frame(DATA, 0, 1, b"test"),
        frame(HEADERS, LAST, 1, &[0x80 | 62]),
    ]
    .concat();
    let cut = [
        post(1),
        frame(HEADERS, END_STREAM, 1, &block(&[("x", "1")])),
        frame(CONTINUATION, END_HEADERS, 1, &block(&[(":path", "/b")])),
    ]
    .concat();
    place
        .conforms_and_keeps_all_back(&[
            ("8.1: :method of the static table", trailed(&[0x82]), MALFORMED),
            ("8.1: :path with its name by number", trailed(&[4, 2, b'/', b'b']), MALFORMED),
            ("8.1: and put into the table", trailed(&[0x44, 2, b'/', b'b']), MALFORMED),
            ("8.1: and never to be put there", trailed(&[0x14, 2, b'/', b'b']), MALFORMED),
            (":status spelt out", trailed(&block(&[(":status", "200")])), MALFORMED),
            ("8.1: an unknown one", trailed(&block(&[(":test", "ok")])), MALFORMED),
            ("8.1: behind a field", trailed(&block(&[("x-test", "ok"), (":path", "/b")])), MALFORMED),
            ("8.1: in Huffman's code", trailed(&[0, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'x']), MALFORMED),
            ("8.1: by its number in the table", by_number, MALFORMED),
            ("8.1: in CONTINUATION", cut, MALFORMED),
        ])
        .await;
}

#[tokio::test]
async fn lengths() {
    let place = place().await;
    let posted = |length: &str, data: &[&[u8]]| {
        let mut bytes = frame(
            HEADERS,
            END_HEADERS,
            1,
            &block(&[&post_fields()[..], &[("content-length", length)]].concat()),
        );
        for (number, piece) in data.iter().enumerate() {
            let flags = if number + 1 == data.len() { END_STREAM } else { 0 };
            bytes.extend(frame(DATA, flags, 1, piece));
        }
        bytes
    };
    place
        .conforms_and_keeps_all_back(&[
            ("8.1.1: a length of less", posted("1", &[b"test"]), MALFORMED),
            ("8.1.1: a length of more", posted("9", &[b"test"]), MALFORMED),
            ("8.1.1: of the sum of two less", posted("5", &[b"test", b"test"]), MALFORMED),
            ("8.1.1: of the sum of two more", posted("9", &[b"test", b"test"]), MALFORMED),
            ("8.1.1: of nothing, and some", posted("0", &[b"test"]), MALFORMED),
        ])
        .await;
    place
        .conforms(&[
            ("8.1.1: the right one", posted("8", &[b"test", b"test"]), Due::Answer(1)),
            ("8.1.1: of nothing", posted("0", &[b""]), Due::Answer(1)),
        ])
        .await;
}
