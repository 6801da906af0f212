//! An instance that does what it is told, at run time: right, wrong, late, half or not at all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// What every good answer is.
pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nall twenty are here.";
/// Where its body begins.
pub const HEAD_BYTES: usize = ANSWER.len() - 20;

/// What an instance does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Nobody listens, and what was connected is reset.
    Refuse,
    /// Connections wait in the kernel; those that are there are not read.
    Deaf,
    /// So many bytes of the good answer, and then…
    Cut(usize, End),
    /// Likewise, each time as many as chance will have it; never all.
    CutAnywhere(End),
    /// Byte by byte.
    Drip(Duration),
    /// These bytes instead of the good answer, and the connection stays open or is closed.
    Say(&'static [u8], Then),
    /// A good answer on every connection before anything is asked on it.
    Early,
    /// Connections are closed, without a word, as soon as they have nothing to do.
    CloseIdle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Reset,
    Close,
    Hang,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Close,
    Stay,
}

pub struct Faulty {
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    seen: Seen,
    task: AbortHandle,
    /// Keeps the port while nobody listens there.
    _port: TcpSocket,
}

/// Requests by method and the first segment of their path.
type Seen = Arc<Mutex<HashMap<(String, String), usize>>>;

impl Faulty {
    pub async fn start() -> Faulty {
        let port = bound(([127, 0, 0, 1], 0).into());
        let address = port.local_addr().expect("it was bound");
        let (fault, told) = watch::channel(Fault::None);
        let seen = Seen::default();
        let task =
            tokio::spawn(listen(bound(address).listen(1024).expect("it was bound"), told, seen.clone()));
        Faulty { address, fault, seen, task: task.abort_handle(), _port: port }
    }

    pub fn does(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that it has read whole.
    pub fn seen(&self, method: &str, service: &str) -> usize {
        let seen = self.seen.lock().expect("nobody panics while counting");
        seen.get(&(method.to_owned(), service.to_owned())).copied().unwrap_or(0)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("the loopback is IPv4");
    socket.set_reuseaddr(true).expect("a plain option");
    socket.set_reuseport(true).expect("a plain option");
    socket.bind(address).expect("the port is free");
    socket
}

async fn listen(listener: TcpListener, mut fault: watch::Receiver<Fault>, seen: Seen) {
    let address = listener.local_addr().expect("it was bound");
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let present = *fault.borrow_and_update();
        match present {
            Fault::Refuse => listener = None,
            _ if listener.is_none() => listener = bound(address).listen(1024).ok(),
            _ => {}
        }
        let accepting = async {
            match &listener {
                Some(listener) if present != Fault::Deaf => listener.accept().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepting => if let Ok((stream, _)) = accepted {
                let _ = stream.set_nodelay(true);
                let connection =
                    Connection { stream, unread: BytesMut::new(), fault: fault.clone(), has_answered: false };
                connections.spawn(connection.serve(seen.clone()));
            },
            changed = fault.changed() => if changed.is_err() { return },
        }
    }
}

struct Connection {
    stream: TcpStream,
    unread: BytesMut,
    fault: watch::Receiver<Fault>,
    /// Before it was asked.
    has_answered: bool,
}

impl Connection {
    async fn serve(mut self, seen: Seen) {
        if *self.fault.borrow() == Fault::Early {
            self.has_answered = self.stream.write_all(ANSWER).await.is_ok();
        }
        while let Some(asked) = self.request().await {
            *seen.lock().expect("nobody panics while counting").entry(asked).or_default() += 1;
            if !self.answer().await {
                return;
            }
        }
    }

    /// Method and service of the next request, once all of it has come; `None` at the end.
    async fn request(&mut self) -> Option<(String, String)> {
        let mut began = false;
        loop {
            let present = *self.fault.borrow_and_update();
            match present {
                Fault::Refuse => {
                    self.reset();
                    return None;
                }
                Fault::CloseIdle if self.unread.is_empty() && began => return None,
                _ => {}
            }
            if let Some(asked) = take_request(&mut self.unread).filter(|_| present != Fault::Deaf) {
                return Some(asked);
            }
            let reading = async {
                match present {
                    Fault::Deaf => std::future::pending().await,
                    _ => self.stream.read_buf(&mut self.unread).await,
                }
            };
            tokio::select! {
                read = reading => if read.unwrap_or(0) == 0 { return None },
                changed = self.fault.changed() => if changed.is_err() { return None },
            }
            began = true;
        }
    }

    /// Whether the connection is still one to read from.
    async fn answer(&mut self) -> bool {
        if std::mem::take(&mut self.has_answered) {
            return true;
        }
        let fault = *self.fault.borrow();
        let (bytes, end) = match fault {
            Fault::Cut(bytes, end) => (&ANSWER[..bytes], Some(end)),
            Fault::CutAnywhere(end) => (&ANSWER[..fastrand::usize(..ANSWER.len())], Some(end)),
            Fault::Say(bytes, Then::Close) => (bytes, Some(End::Close)),
            Fault::Say(bytes, Then::Stay) => (bytes, None),
            Fault::Drip(pause) => return self.drip(pause).await,
            _ => (ANSWER, None),
        };
        if self.stream.write_all(bytes).await.is_err() {
            return false;
        }
        match end {
            None => true,
            Some(End::Close) => false,
            Some(End::Reset) => {
                self.reset();
                false
            }
            Some(End::Hang) => {
                while *self.fault.borrow() == fault && self.fault.changed().await.is_ok() {}
                // What hung goes on where it was.
                self.stream.write_all(&ANSWER[bytes.len()..]).await.is_ok()
            }
        }
    }

    async fn drip(&mut self, pause: Duration) -> bool {
        for byte in ANSWER {
            if self.stream.write_all(&[*byte]).await.is_err() {
                return false;
            }
            tokio::time::sleep(pause).await;
        }
        true
    }

    /// What is closed now says so with a RST.
    fn reset(&self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

/// Takes a request with its body (by content-length) out of what has come, if all of it has.
fn take_request(unread: &mut BytesMut) -> Option<(String, String)> {
    let end = unread.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&unread[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().expect("a number"));
    if unread.len() < end + length {
        return None;
    }
    unread.advance(end + length);
    let mut words = head.split([' ', '/', '?']).filter(|word| !word.is_empty());
    Some((words.next()?.to_ascii_uppercase(), words.next()?.to_owned()))
}
