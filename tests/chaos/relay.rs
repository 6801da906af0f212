//! A stretch of network between the gateway and an instance, which can be told to lose what it carries.

use std::net::SocketAddr;

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
    let there = {
        let network = network.clone();
        copy(near_read, far_write, move || loses(*network.borrow(), began, false))
    };
    let back = copy(far_read, near_write, move || loses(*network.borrow(), began, true));
    tokio::join!(there, back);
}

fn loses(now: Network, began: Network, is_answer: bool) -> bool {
    match now {
        Network::Whole => false,
        Network::Parted => true,
        Network::Deaf => is_answer,
        Network::Forgotten => began != Network::Forgotten,
    }
}

/// What is lost once stays lost: a connection with a gap never closes by itself, and nothing comes of it any more.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, loses: impl Fn() -> bool) {
    let mut buffer = [0; 4096];
    let mut has_gap = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        has_gap |= loses();
        if !has_gap && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    has_gap |= loses();
    if has_gap {
        // Nor does its end arrive.
        std::future::pending::<()>().await;
    }
}
