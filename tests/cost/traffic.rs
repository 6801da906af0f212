//! Both ends of the gateway: origins that answer at once, and clients that ask one after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

pub const CONNECTIONS: usize = 8;
pub const BODY: &str = "{\"id\":1,\"name\":\"Ada\",\"roles\":[\"admin\",\"author\"],\"active\":true}";

pub struct Origin {
    pub port: u16,
}

impl Origin {
    /// It answers until the process ends, on every address of the loopback interface.
    pub fn start() -> Origin {
        let listener = TcpListener::bind("0.0.0.0:0").expect("there are ports");
        let port = listener.local_addr().expect("it is bound").port();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                std::thread::spawn(move || answer(connection));
            }
        });
        Origin { port }
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

/// Connections of clients that ask one after the other.
pub struct Clients {
    connections: Vec<TcpStream>,
    next: usize,
    answers: Vec<u8>,
}

impl Clients {
    pub fn connect(gateway: SocketAddr, connections: usize) -> Clients {
        let connections = (0..connections).map(|_| connect(gateway)).collect();
        Clients { connections, next: 0, answers: Vec::new() }
    }

    /// Sends `requests`, which are so many, over the next connection in one piece. Panics at any answer that isn't
    /// the origin's.
    pub fn ask(&mut self, requests: &str, count: usize) {
        // A round begins with another connection than the one before, so that what is asked for with a period doesn't
        // always come to the same one.
        let length = self.connections.len();
        let place = (self.next + self.next / length) % length;
        self.next += 1;
        let connection = &mut self.connections[place];
        connection.write_all(requests.as_bytes()).expect("the gateway reads");
        self.answers.clear();
        while memchr::memmem::find_iter(&self.answers, BODY).count() < count {
            let mut piece = [0; 16 * 1024];
            let read = connection.read(&mut piece).expect("the gateway answers");
            assert!(read > 0, "no answer: {}", String::from_utf8_lossy(&self.answers));
            self.answers.extend_from_slice(&piece[..read]);
        }
        assert!(self.answers.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

fn connect(gateway: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(gateway).expect("the gateway listens");
    connection.set_nodelay(true).expect("it is a TCP connection");
    connection.set_read_timeout(Some(Duration::from_secs(60))).expect("it is no zero");
    connection
}
