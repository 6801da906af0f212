//! A stretch of network between the gateway and an instance, which can be told to lose what it carries.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Whole,
    /// Taken and never delivered, on connections that are there and on new ones.
    Parted,
    /// Only what the instance says is lost.
    Deaf,
    /// Connections that are there go on losing everything; new ones are whole.
    Forgotten,
    /// A connection on which so many bytes of a request were delivered is parted from then on.
    PartedInRequest(usize),
    /// Likewise, of an answer.
    PartedInAnswer(usize),
}

pub struct Relay {
    pub address: SocketAddr,
    network: watch::Sender<Network>,
    task: AbortHandle,
}

impl Relay {
    pub async fn start(to: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has ports");
        let address = listener.local_addr().expect("it was bound");
        let (network, told) = watch::channel(Network::Whole);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(carry(stream, to, told.clone()));
            }
        });
        Relay { address, network, task: task.abort_handle() }
    }

    pub fn is(&self, network: Network) {
        self.network.send_replace(network);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(near: TcpStream, to: SocketAddr, network: watch::Receiver<Network>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let began = *network.borrow();
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let carried = Carried { network, began, runs: Default::default(), parted: AtomicBool::new(false) };
    tokio::join!(
        copy(near_read, far_write, &carried, Way::There),
        copy(far_read, near_write, &carried, Way::Back)
    );
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// What both ways of a connection know of each other.
struct Carried {
    network: watch::Receiver<Network>,
    began: Network,
    /// Bytes of the present request and of the present answer: each ends where the other begins.
    runs: [AtomicUsize; 2],
    parted: AtomicBool,
}

impl Carried {
    /// How many of so many bytes more are delivered.
    fn delivers(&self, way: Way, bytes: usize) -> usize {
        let run = self.runs[way as usize].fetch_add(bytes, Relaxed);
        self.runs[1 - way as usize].store(0, Relaxed);
        let now = *self.network.borrow();
        if self.parted.load(Relaxed) || self.is_lost(now, way) {
            return 0;
        }
        let most = match now {
            Network::PartedInRequest(most) if way == Way::There => most,
            Network::PartedInAnswer(most) if way == Way::Back => most,
            _ => return bytes,
        };
        let delivered = most.saturating_sub(run).min(bytes);
        self.parted.store(delivered < bytes, Relaxed);
        delivered
    }

    fn is_lost(&self, now: Network, way: Way) -> bool {
        match now {
            Network::Whole | Network::PartedInRequest(_) | Network::PartedInAnswer(_) => false,
            Network::Parted => true,
            Network::Deaf => way == Way::Back,
            Network::Forgotten => self.began != Network::Forgotten,
        }
    }
}

/// What is lost once stays lost: a connection with a gap never closes by itself, and nothing comes of it any more.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, carried: &Carried, way: Way) {
    let mut buffer = [0; 4096];
    let mut has_gap = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let delivered = carried.delivers(way, length);
        if !has_gap && to.write_all(&buffer[..delivered]).await.is_err() {
            return;
        }
        has_gap |= delivered < length;
    }
    has_gap |= carried.parted.load(Relaxed) || carried.is_lost(*carried.network.borrow(), way);
    if has_gap {
        // Nor does its end arrive.
        std::future::pending::<()>().await;
    }
}
