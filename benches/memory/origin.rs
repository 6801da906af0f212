//! An origin for `benches/memory.sh`, of the standard library alone: it reads requests with their bodies, and answers those
//! whose path ends in `/large` with 64 KiB, all others with a short text. Its arguments are ports.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

const LARGE_BYTES: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let mut listening = Vec::new();
    for port in std::env::args().skip(1) {
        let listener = TcpListener::bind(("127.0.0.1", port.parse().map_err(io::Error::other)?))?;
        listening.push(thread::spawn(move || accept(&listener)));
    }
    for thread in listening {
        let _ = thread.join();
    }
    Ok(())
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // A connection that breaks off is the gateway's to give up.
        thread::spawn(move || serve(stream));
    }
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let small = response(br#"{"id":1,"name":"Ada","roles":["admin","author"]}"#);
    let large = response(&vec![b'x'; LARGE_BYTES]);
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(request) = read_request(&mut reader)? {
        writer.write_all(if request.is_large { &large } else { &small })?;
    }
    Ok(())
}

fn response(body: &[u8]) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    response
}

struct Request {
    is_large: bool,
}

/// `None` at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let is_large = line.split(' ').nth(1).is_some_and(|path| path.ends_with("/large"));
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let field = line.trim_end();
        if field.is_empty() {
            break;
        }
        if let Some((name, value)) = field.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(Some(Request { is_large }))
}
