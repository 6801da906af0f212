//! A listening socket that a worker's runtime watches, and whose connections it is not told of: of many, the only
//! request is there already when they are accepted, so that nobody has to be woken for them.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;

/// In the clothes of a stream: the runtime's own listening socket makes every connection known to it, while a stream
/// leaves it to us what is done once the socket is ready.
pub struct Listening(tokio::net::TcpStream);

impl Listening {
    /// `socket` doesn't block.
    pub fn new(socket: TcpListener) -> io::Result<Self> {
        let stream = TcpStream::from(OwnedFd::from(socket));
        Ok(Listening(tokio::net::TcpStream::from_std(stream)?))
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next connection, which doesn't block, and where it comes from.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accept = || Ok(acceptfrom_with(&self.0, flags)?);
        let (stream, peer) = self.0.async_io(Interest::READABLE, accept).await?;
        let peer = peer.map(SocketAddr::try_from).transpose()?.ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((stream.into(), peer))
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn connections_come_in_order_and_do_not_block() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback has ports");
        socket.set_nonblocking(true).expect("a plain option");
        let listening = Listening::new(socket).expect("a runtime is there");
        let address = listening.local_addr().expect("it is bound");
        for _ in 0..3 {
            // The second time, nobody is there yet when it is asked.
            let early = tokio::time::timeout(Duration::from_millis(1), listening.accept());
            assert!(early.await.is_err());
            let clients = [(); 2].map(|()| TcpStream::connect(address).expect("it listens"));
            for client in clients {
                let (stream, peer) = listening.accept().await.expect("one is waiting");
                assert_eq!(peer, client.local_addr().expect("it is connected"));
                let nothing = stream.peek(&mut [0]).map_err(|error| error.kind());
                assert_eq!(nothing, Err(io::ErrorKind::WouldBlock));
            }
        }
    }
}
