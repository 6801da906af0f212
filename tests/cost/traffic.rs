//! Both ends of the gateway: origins that answer at once, and clients that ask one after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

const CONNECTIONS: usize = 8;
const BODY: &str = "{\"id\":1,\"name\":\"Ada\",\"roles\":[\"admin\",\"author\"],\"active\":true}";

pub struct Origin {
    pub address: SocketAddr,
}

impl Origin {
    /// It answers until the process ends.
    pub fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                std::thread::spawn(move || answer(connection));
            }
        });
        Origin { address }
    }
}

fn answer(connection: TcpStream) {
    let response = format!(
        "HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\nserver: origin\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nx-origin: 1\r\n\r\n{BODY}",
        BODY.len()
    );
    let _ = connection.set_nodelay(true);
    let Ok(mut writer) = connection.try_clone() else { return };
    let mut reader = BufReader::new(connection);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if line == b"\r\n" && writer.write_all(response.as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}

/// A request as browsers and clients of APIs send it, with a token that is good for an hour.
pub fn request(secret: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs();
    let claims = json!({ "iss": "bench", "sub": "user-1", "exp": now + 3600 });
    let token =
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()))
            .expect("claims are JSON");
    format!(
        "GET /api/users/1?fields=all HTTP/1.1\r\nhost: shop.example.com\r\nuser-agent: bench/1.0\r\n\
         accept: application/json\r\naccept-encoding: gzip, br\r\nauthorization: Bearer {token}\r\n\r\n"
    )
}

/// Sends `requests` over a few connections in turn. Panics at any answer that isn't the origin's.
pub fn send(gateway: SocketAddr, request: &str, requests: u64) {
    let mut connections: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(gateway)).collect();
    let mut answer = [0; 4096];
    for number in 0..requests {
        let connection = &mut connections[number as usize % CONNECTIONS];
        connection.write_all(request.as_bytes()).expect("the gateway reads");
        let mut length = 0;
        while !answer[..length].ends_with(BODY.as_bytes()) {
            let read = connection.read(&mut answer[length..]).expect("the gateway answers");
            assert!(read > 0, "no answer: {}", String::from_utf8_lossy(&answer[..length]));
            length += read;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

fn connect(gateway: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(gateway).expect("the gateway listens");
    connection.set_nodelay(true).expect("it is a TCP connection");
    connection.set_read_timeout(Some(Duration::from_secs(60))).expect("it is no zero");
    connection
}
