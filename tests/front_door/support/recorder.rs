//! An origin that keeps every request as the bytes that came, and reads them with a parser that isn't the gateway's
//! and forgives nothing. What it can't read is a fault of the gateway's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// One request, as an instance that takes every byte at its word understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub method: String,
    pub target: String,
    /// Names as they came.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
    /// The head, byte for byte.
    pub head: String,
}

impl Recorded {
    /// The values of all fields of this name, in any case.
    pub fn all(&self, name: &str) -> Vec<String> {
        let named = self.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }
}

pub struct Recorder {
    pub address: SocketAddr,
    said: Arc<Mutex<Said>>,
    task: AbortHandle,
}

#[derive(Default)]
struct Said {
    requests: Vec<Recorded>,
    faults: Vec<String>,
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nreached";

impl Recorder {
    /// Answers everything with 200 and `reached`, on as many connections as there are.
    pub async fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has ports");
        let address = listener.local_addr().expect("it was bound");
        let said = Arc::<Mutex<Said>>::default();
        let saying = said.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(record(stream, saying.clone()));
            }
        });
        Recorder { address, said, task: task.abort_handle() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far. Fails when anything came that is none.
    pub fn requests(&self) -> Vec<Recorded> {
        let said = self.said.lock().expect("no reader panicked");
        assert!(said.faults.is_empty(), "the gateway sent {:#?}", said.faults);
        said.requests.clone()
    }

    pub fn count(&self) -> usize {
        self.requests().len()
    }

    pub fn last(&self) -> Recorded {
        self.requests().pop().expect("a request has come")
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn record(mut stream: TcpStream, said: Arc<Mutex<Said>>) {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match parse(&bytes) {
            Ok(Some((request, length))) => {
                bytes.drain(..length);
                said.lock().expect("no reader panicked").requests.push(request);
                if stream.write_all(ANSWER).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(fault) => {
                let shown = String::from_utf8_lossy(&bytes).into_owned();
                return said.lock().expect("no reader panicked").faults.push(format!("{fault}: {shown:?}"));
            }
        }
        match stream.read(&mut piece).await {
            Ok(length @ 1..) => bytes.extend_from_slice(&piece[..length]),
            // A request that is given up ends with its connection.
            _ => return,
        }
    }
}

/// The request at the front of `bytes` and how long it is; `None` when its end has not come.
pub fn parse(bytes: &[u8]) -> Result<Option<(Recorded, usize)>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
        return if bytes.contains(&0) { Err("a NUL".into()) } else { Ok(None) };
    };
    lines_are_clean(&bytes[..end])?;
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(&bytes[..end]) {
        Ok(httparse::Status::Complete(length)) if length == end => {}
        other => return Err(format!("the head is read as {other:?}")),
    }
    let mut request = Recorded {
        method: parsed.method.unwrap_or_default().into(),
        target: parsed.path.unwrap_or_default().into(),
        fields: owned(parsed.headers),
        body: Vec::new(),
        trailers: Vec::new(),
        head: String::from_utf8_lossy(&bytes[..end]).into_owned(),
    };
    if parsed.version != Some(1) {
        return Err("another version".into());
    }
    check_head(&request)?;
    let rest = &bytes[end..];
    if request.has("transfer-encoding") {
        let Some((body, trailers, length)) = chunked(rest)? else { return Ok(None) };
        (request.body, request.trailers) = (body, trailers);
        return Ok(Some((request, end + length)));
    }
    let length = request.all("content-length").first().map_or(Ok(0), |length| length.parse::<usize>());
    let length = length.map_err(|_| "Content-Length is no number")?;
    let Some(body) = rest.get(..length) else { return Ok(None) };
    request.body = body.to_vec();
    Ok(Some((request, end + length)))
}

fn owned(fields: &[httparse::Header<'_>]) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// CR and LF stand together or not at all.
fn lines_are_clean(head: &[u8]) -> Result<(), String> {
    let broken = (0..head.len()).any(|at| match head[at] {
        b'\r' => head.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || head[at - 1] != b'\r',
        b'\t' => false,
        byte => byte < b' ' || byte == 0x7f,
    });
    if broken { Err("a control character".into()) } else { Ok(()) }
}

/// What an instance must never be asked to decide.
fn check_head(request: &Recorded) -> Result<(), String> {
    let target = &request.target;
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#')
    {
        return Err("the target is no path".into());
    }
    if request.all("host").len() != 1 {
        return Err("not one Host".into());
    }
    let (lengths, codings) = (request.all("content-length"), request.all("transfer-encoding"));
    if lengths.len() + codings.len() > 1 {
        return Err("more than one way to tell the length".into());
    }
    if codings.iter().any(|coding| coding != "chunked") {
        return Err("another coding".into());
    }
    if lengths.iter().any(|length| length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("a length that is no number".into());
    }
    let ends_here =
        ["keep-alive", "proxy", "proxy-connection", "proxy-authorization", "http2-settings", "expect"];
    if let Some(field) = ends_here.iter().find(|field| request.has(field)) {
        return Err(format!("{field} was passed on"));
    }
    match (request.all("connection").join(","), request.has("te"), request.has("upgrade")) {
        (connection, te, upgrade)
            if connection
                == if te {
                    "te"
                } else if upgrade {
                    "upgrade"
                } else {
                    ""
                }
                && !(te && upgrade) =>
        {
            Ok(())
        }
        odd => Err(format!("Connection, TE and Upgrade are {odd:?}")),
    }
}

type Chunked = (Vec<u8>, Vec<(String, Vec<u8>)>, usize);

/// Without extensions, without leading zeros: as the gateway writes it.
fn chunked(bytes: &[u8]) -> Result<Option<Chunked>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let digits = std::str::from_utf8(&bytes[at..at + line]).map_err(|_| "a chunk's size is no text")?;
        let size = usize::from_str_radix(digits, 16).map_err(|_| format!("a chunk's size is {digits:?}"))?;
        if format!("{size:x}") != digits {
            return Err(format!("a chunk's size is {digits:?}"));
        }
        at += line + 2;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !data.ends_with(b"\r\n") {
            return Err("a chunk is longer than its size".into());
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Ok(Some((body, Vec::new(), at + 2)));
    }
    let Some(end) = find(&bytes[at..], b"\r\n\r\n").map(|end| at + end + 4) else { return Ok(None) };
    lines_are_clean(&bytes[at..end])?;
    let mut fields = [httparse::EMPTY_HEADER; 64];
    match httparse::parse_headers(&bytes[at..end], &mut fields) {
        Ok(httparse::Status::Complete((length, trailers))) if length == end - at => {
            Ok(Some((body, owned(trailers), end)))
        }
        other => Err(format!("the trailers are read as {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgives_nothing() {
        let fine = b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: 1\r\n\r\nGET";
        let (request, length) = parse(fine).expect("well-formed").expect("whole");
        assert_eq!((&request.body[..], request.trailers.len(), length), (&b"abc"[..], 1, fine.len() - 3));
        for bad in [
            "GET /a HTTP/1.0\r\nhost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
            "GET /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\nx: a\nb\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx",
            "GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n03\r\nabc\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a\r\nabc\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
