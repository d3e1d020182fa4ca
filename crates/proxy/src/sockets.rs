//! Listening sockets: what is bound, and how: one socket for each worker on one address (SO_REUSEPORT), so that the kernel spreads
//! connections and no lock is shared.
//!
//! Promise: an address that another process listens on is an error, although SO_REUSEPORT would let us
//! share it silently when that process is ours too.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

/// What is shared by all workers and kept over changes by name and address.
pub struct Bound {
    /// The address as configured.
    pub configured: SocketAddr,
    /// The address that was bound: the port is the real one where 0 was configured.
    pub address: SocketAddr,
    pub(crate) connections: AtomicU32,
    closed: AtomicBool,
}

impl Bound {
    /// Takes note of a bound socket.
    pub fn new(configured: SocketAddr, address: SocketAddr) -> Arc<Bound> {
        let (connections, closed) = (AtomicU32::new(0), AtomicBool::new(false));
        Arc::new(Bound { configured, address, connections, closed })
    }

    /// Open connections of all workers.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// It was removed from the configuration.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether it was removed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

const BACKLOG: i32 = 4096;

/// Whether other sockets may bind the same address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    No,
    Yes,
}

/// Binds and listens on `address`, once for each of `workers`. With port 0 all get the same free port.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // Tells whether somebody else listens; closed again at once.
        drop(socket(address, Share::No)?);
    }
    let first = socket(address, Share::Yes)?;
    first.listen(BACKLOG)?;
    let first = TcpListener::from(first);
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        let socket = socket(address, Share::Yes)?;
        socket.listen(BACKLOG)?;
        sockets.push(socket.into());
    }
    Ok(sockets)
}

fn socket(address: SocketAddr, share: Share) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share == Share::Yes {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // "[::]" means every IPv6 address; IPv4 has its own listener.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it: one system call for each listener instead of each connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_an_error_even_where_it_could_be_shared() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(first[1].local_addr().unwrap(), address);
        assert_eq!(bind(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(address, 2).unwrap();
    }
}
