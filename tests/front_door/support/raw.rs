//! Bytes in, bytes out: for what no well-behaved client or server would send.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::PATIENCE;

/// Sends the bytes and reads until the gateway closes, or has answered `responses` heads with their bodies
/// (by content-length).
pub async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the gateway listens");
    stream.write_all(bytes.as_ref()).await.expect("the gateway reads");
    read_until_close(&mut stream).await
}

/// A `GET` with this target, byte for byte: the status, and what follows the head.
pub async fn get(address: SocketAddr, target: &str, fields: &str) -> (u16, String) {
    let request = format!("GET {target} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n{fields}\r\n");
    let answer = exchange(address, request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {head:?}")), body.to_owned())
}

/// What comes until the other side closes.
pub async fn read_until_close(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    assert!(read.is_ok(), "it did not close; so far: {}", String::from_utf8_lossy(&all));
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until `end` has come.
pub async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut byte = [0u8; 1];
        while !all.ends_with(end.as_bytes()) {
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                break;
            }
            all.push(byte[0]);
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(read.is_ok(), "{end:?} did not come; so far: {text}");
    text
}

/// An origin that does with each connection what the test says.
pub struct RawOrigin {
    pub address: SocketAddr,
    connections: Arc<Mutex<usize>>,
    task: AbortHandle,
}

impl RawOrigin {
    pub async fn start<F>(handle: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static) -> RawOrigin
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has ports");
        let address = listener.local_addr().expect("it was bound");
        let connections = Arc::new(Mutex::new(0));
        let counter = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut count = counter.lock().expect("nobody panics while counting");
                    *count += 1;
                    *count
                };
                tokio::spawn(handle(stream, number));
            }
        });
        RawOrigin { address, connections, task: task.abort_handle() }
    }

    /// Reads one request head and answers with these bytes, then closes.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> RawOrigin {
        let bytes: Arc<Vec<u8>> = Arc::new(bytes.into());
        Self::start(move |mut stream, _| {
            let bytes = bytes.clone();
            async move {
                read_until(&mut stream, "\r\n\r\n").await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().expect("nobody panics while counting")
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address whose queue of connections is full, so that connecting there takes for ever. It lasts as long as
/// what is returned with it.
pub async fn unreachable() -> (String, impl Sized) {
    let socket = tokio::net::TcpSocket::new_v4().expect("the loopback is IPv4");
    socket.bind("127.0.0.1:0".parse().expect("a constant")).expect("the kernel chooses a port");
    let listener = socket.listen(1).expect("it was bound");
    let address = listener.local_addr().expect("it was bound");
    let mut held = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(std::time::Duration::from_millis(200), TcpStream::connect(address)).await
    {
        held.push(stream);
        assert!(held.len() < 100, "the queue never fills up");
    }
    (format!("http://{address}"), (listener, held))
}

/// One HTTP/1.1 connection for many requests.
pub struct KeptAlive {
    stream: TcpStream,
}

impl KeptAlive {
    pub async fn connect(address: SocketAddr) -> KeptAlive {
        KeptAlive { stream: TcpStream::connect(address).await.expect("the gateway listens") }
    }

    /// `GET`s each target, byte for byte, one after the other: status and body of each, connecting
    /// anew where the gateway closes.
    pub async fn get_all(self, targets: &[String]) -> Vec<(u16, String)> {
        let address = self.stream.peer_addr().expect("it is connected");
        let mut stream = tokio::io::BufReader::new(self.stream);
        let mut answers = Vec::with_capacity(targets.len());
        for target in targets {
            let request = format!("GET {target} HTTP/1.1\r\nhost: a.example\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("the gateway reads");
            let (status, body, closes) = read_response(&mut stream).await;
            answers.push((status, body));
            if closes {
                stream = tokio::io::BufReader::new(TcpStream::connect(address).await.expect("it listens"));
            }
        }
        answers
    }
}

/// Status, body (by content-length) and whether the connection ends.
async fn read_response(stream: &mut tokio::io::BufReader<TcpStream>) -> (u16, String, bool) {
    use tokio::io::AsyncBufReadExt;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read_line(&mut head)).await.expect("it answers");
        assert!(read.expect("a head is text") > 0, "closed after {head:?}");
    }
    let head = head.to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length = field("content-length:").map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("the body is whole");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, String::from_utf8_lossy(&body).into_owned(), field("connection:") == Some("close"))
}

/// Reads so many bytes.
pub async fn read_bytes(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes)).await;
    read.expect("the bytes come in time").expect("they come before the end");
    bytes
}

/// Reads the head of a message.
pub async fn read_head(stream: &mut TcpStream) -> String {
    read_until(stream, "\r\n\r\n").await
}

/// Waits until the other side has closed, whatever it still sends.
pub async fn closed(stream: &mut TcpStream) {
    let mut scratch = vec![0; 64 * 1024];
    let reading = async { while stream.read(&mut scratch).await.unwrap_or(0) > 0 {} };
    tokio::time::timeout(PATIENCE, reading).await.expect("the other side closes");
}
