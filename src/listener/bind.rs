//! Sockets to listen on: one for each worker on the same address, among which the kernel spreads
//! connections (SO_REUSEPORT).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// Connections that wait to be accepted. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {cause}")]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    pub cause: io::Error,
}

/// One socket per worker. With port 0 the kernel chooses one for the first, and the others share it.
/// `ours` are addresses that this process listens on and will leave.
pub fn bind(address: SocketAddr, workers: usize, ours: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let failed = |cause| BindError { address, cause };
    // Without this look, a second gateway would quietly share the port: SO_REUSEPORT asks nobody.
    if address.port() != 0 && !ours.iter().any(|open| overlap(*open, address)) {
        let probe = socket(address).map_err(failed)?;
        probe.bind(&address.into()).map_err(failed)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    let mut address = address;
    for _ in 0..workers.max(1) {
        let socket = socket(address).map_err(failed)?;
        socket.set_reuse_port(true).map_err(failed)?;
        socket.bind(&address.into()).map_err(failed)?;
        // The sockets of its connections come with it, which saves a system call for each (Linux, BSD).
        socket.set_tcp_nodelay(true).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr().map_err(failed)?;
        sockets.push(listener);
    }
    Ok(sockets)
}

/// The same port, and an address that is the same or stands for all of them.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (all || one.ip() == other.ip())
}

/// From now on the kernel answers nobody who wants to connect: they try again and find the socket closed.
/// Handshakes that have begun go on, and so do connections.
pub fn refuse_new(socket: &impl AsFd) {
    // A classic BPF program that looks at a segment from its TCP header on: with SYN set, it is dropped.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    let program = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_ANY_BIT, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    // Without it, connections of the last moment are reset instead of refused: no reason to stop here.
    let _ = SockRef::from(socket).attach_filter(&program);
}

// Instructions as in linux/bpf_common.h: BPF_LD|BPF_B|BPF_ABS, BPF_JMP|BPF_JSET|BPF_K, BPF_RET|BPF_K.
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Otherwise connections of a run before this one would hold the port for a minute.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, Ipv4Addr, TcpStream};
    use std::time::Duration;

    use super::*;

    const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn bound(address: SocketAddr, ours: &[SocketAddr]) -> Result<TcpListener, io::ErrorKind> {
        let sockets = bind(address, 1, ours).map_err(|error| error.cause.kind());
        sockets.map(|sockets| sockets.into_iter().next().expect("one was asked for"))
    }

    #[test]
    fn every_worker_has_a_socket_on_the_same_port() {
        let sockets = bind(ANYWHERE, 3, &[]).expect("the loopback has ports");
        let ports: Vec<_> = sockets.iter().map(|s| s.local_addr().expect("it is bound").port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]));
    }

    #[test]
    fn a_port_in_use_is_refused_even_by_a_socket_that_would_share_it() {
        let first = bound(ANYWHERE, &[]).expect("the loopback has ports");
        let taken = first.local_addr().expect("it is bound");
        assert_eq!(bound(taken, &[]).err(), Some(io::ErrorKind::AddrInUse));
        let wider = SocketAddr::from((Ipv4Addr::UNSPECIFIED, taken.port()));
        assert_eq!(bound(wider, &[]).err(), Some(io::ErrorKind::AddrInUse));
        assert!(bound(wider, &[taken]).is_ok(), "what will be left does not stand in the way");
    }

    #[test]
    fn a_socket_that_refuses_new_ones_gives_out_those_that_are_there() {
        let listener = bound(ANYWHERE, &[]).expect("the loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let mut before = TcpStream::connect(address).expect("it listens");
        refuse_new(&listener);
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
        assert_eq!(late.map_err(|error| error.kind()).err(), Some(io::ErrorKind::TimedOut));
        let (mut accepted, _) = listener.accept().expect("one is waiting");
        drop(listener);
        before.write_all(b"x").expect("the connection is whole");
        let mut byte = [0];
        accepted.set_nonblocking(false).expect("a plain option");
        accepted.read_exact(&mut byte).expect("the connection is whole");
        let after = TcpStream::connect(address);
        assert_eq!(after.map_err(|error| error.kind()).err(), Some(io::ErrorKind::ConnectionRefused));
    }
}
