//! Whatever an instance sends is a response or an error, and which of them doesn't depend on how it was cut.

use bytes::BytesMut;
use gatehouse::service::http1::decode::{Body, Invalid, Step, take_head};

pub fn response(input: &[u8]) {
    let Some((cut, odd, bytes)) = super::cuts(input) else { return };
    let to_head = odd % 2 == 1;
    // Of two things that are wrong, either may be found first.
    let whole = read(&[bytes], to_head).map_err(drop);
    let in_two = read(&[&bytes[..cut], &bytes[cut..]], to_head).map_err(drop);
    assert_eq!(whole, in_two, "the cut makes a difference");
    if let Ok(Some(read)) = whole {
        assert!(read.data.len() + read.rest <= bytes.len(), "nothing is made up");
    }
}

#[derive(Debug, PartialEq)]
struct Read {
    head: (u16, http::HeaderMap),
    data: Vec<u8>,
    trailers: Option<http::HeaderMap>,
    ended: bool,
    /// Bytes behind the end.
    rest: usize,
}

fn read(pieces: &[&[u8]], to_head: bool) -> Result<Option<Read>, Invalid> {
    let mut unread = BytesMut::new();
    let mut reading: Option<(Read, Body)> = None;
    for piece in pieces {
        unread.extend_from_slice(piece);
        if reading.is_none() {
            let Some(head) = take_head(&mut unread)? else { continue };
            let body = head.body(to_head)?;
            let head = (head.response.status.as_u16(), head.response.fields.to_map());
            let read = Read { head, data: Vec::new(), trailers: None, ended: false, rest: 0 };
            reading = Some((read, body));
        }
        let Some((read, body)) = &mut reading else { continue };
        while !read.ended {
            match body.next(&mut unread)? {
                Step::More => break,
                Step::Data(data) => read.data.extend_from_slice(&data),
                Step::Trailers(trailers) => (read.trailers, read.ended) = (Some(trailers), true),
                Step::End => read.ended = true,
            }
            read.ended |= body.is_end();
        }
        read.rest = unread.len();
    }
    Ok(reading.map(|(read, _)| read))
}
