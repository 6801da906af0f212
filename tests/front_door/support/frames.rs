//! HTTP/2 frame by frame, for what no library would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a response of status 200.
    Ok,
    /// With one of another status.
    Refused,
    /// The stream was reset, with this code.
    Reset(u32),
    /// The connection was ended, with this code.
    GoAway(u32),
    /// It was closed without a word.
    Closed,
}

pub struct Frames {
    pub stream: TcpStream,
    /// The number of the next stream that is opened here.
    next_stream: u32,
}

impl Frames {
    pub async fn connect(address: SocketAddr) -> Frames {
        Self::connect_with(address, &[]).await
    }

    /// Without anything sent yet.
    pub fn over(stream: TcpStream) -> Frames {
        Frames { stream, next_stream: 1 }
    }

    /// With settings: pairs of a number and a value.
    pub async fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Frames {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("a plain option");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("it reads");
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let mut frames = Frames { stream, next_stream: 1 };
        frames.send(SETTINGS, 0, 0, &payload).await;
        frames
    }

    /// The other side of a connection: what the client that opened it takes for a server.
    pub async fn accept(mut stream: TcpStream) -> Frames {
        let _ = stream.set_nodelay(true);
        let mut preface = [0; 24];
        let _ = tokio::time::timeout(PATIENCE, stream.read_exact(&mut preface)).await;
        let mut frames = Frames { stream, next_stream: 2 };
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// The stream of the next request; `None` at the end. Its body, if it has one, is not looked at.
    pub async fn asked(&mut self) -> Option<u32> {
        loop {
            // However long that takes.
            let frame = self.next().await?;
            match frame.kind {
                HEADERS => return Some(frame.stream),
                SETTINGS if frame.flags == 0 => {
                    self.send(SETTINGS, 1, 0, &[]).await;
                }
                _ => {}
            }
        }
    }

    /// Waits until the other side has read what was sent (RFC 9113 §6.7).
    pub async fn until_read(&mut self) {
        self.send(PING, 0, 0, b"are you?").await;
        while let Some(frame) = self.read().await {
            match frame.kind {
                PING if frame.flags == 1 => return,
                SETTINGS if frame.flags == 0 => {
                    self.send(SETTINGS, 1, 0, &[]).await;
                }
                _ => {}
            }
        }
    }

    /// Whether it was taken.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.stream.write_all(&frame(kind, flags, stream, payload)).await.is_ok()
    }

    /// Opens a stream with these fields, pseudo-fields included; its number.
    pub async fn request(&mut self, fields: &[(&str, &str)], ends: bool) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block(fields)).await;
        stream
    }

    /// The next frame; `None` at the end.
    pub async fn read(&mut self) -> Option<Frame> {
        tokio::time::timeout(PATIENCE, self.next()).await.expect("a frame or the end comes in time")
    }

    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until the stream has its final response, or neither it nor the connection has a future.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some(frame) = self.read().await {
            match frame.kind {
                // Indexed fields of the static table: `:status: 200`. Interim responses are spelt out.
                HEADERS if frame.stream == stream && frame.payload.first() == Some(&0x88) => {
                    return Outcome::Ok;
                }
                HEADERS if frame.stream == stream => return Outcome::Refused,
                RST_STREAM if frame.stream == stream => return Outcome::Reset(code(&frame.payload)),
                GOAWAY if code(&frame.payload[4..]) != 0 => {
                    return Outcome::GoAway(code(&frame.payload[4..]));
                }
                SETTINGS if frame.flags == 0 => {
                    self.send(SETTINGS, 1, 0, &[]).await;
                }
                _ => {}
            }
        }
        Outcome::Closed
    }

    /// Reads until the connection ends; the code of its GOAWAY, if there was one.
    pub async fn goaway(&mut self) -> Option<u32> {
        let mut told = None;
        while let Some(frame) = self.read().await {
            if frame.kind == GOAWAY {
                told = Some(code(&frame.payload[4..]));
            }
        }
        told
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn code(payload: &[u8]) -> u32 {
    payload.get(..4).map_or(u32::MAX, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
}

/// Fields as HPACK's literals without indexing and without Huffman's code (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(text.chars().count(), &mut block);
            // A character is a byte: how else would one of 0xe9 be written.
            block.extend(text.chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")));
        }
    }
    block
}

/// With a prefix of seven bits (RFC 7541 §5.1).
fn integer(value: usize, block: &mut Vec<u8>) {
    if value < 127 {
        return block.push(value as u8);
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// What a plain GET has, in the order in which it has to come.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/ok")];
