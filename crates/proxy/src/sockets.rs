//! Listening sockets: one for each worker on one address (SO_REUSEPORT), so that the kernel spreads connections and
//! no lock is shared; or those that the process before us handed over.
//!
//! Promise: an address that another process listens on is an error, although SO_REUSEPORT would let us
//! share it silently when that process is ours too.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};

/// What is shared by all workers and kept over changes by name and address.
pub struct Bound {
    /// The address as configured.
    pub configured: SocketAddr,
    /// The address that was bound: the port is the real one where 0 was configured.
    pub address: SocketAddr,
    pub(crate) connections: AtomicU32,
    closed: AtomicBool,
    /// Copies of the workers' sockets, for the process that may take over.
    copies: Mutex<Vec<TcpListener>>,
}

/// A socket that the process before us listened on, and the address it was configured with.
pub type Inherited = (SocketAddr, TcpListener);

impl Bound {
    /// Takes note of bound sockets.
    ///
    /// # Errors
    /// A socket cannot be copied: there are no descriptors left.
    pub fn new(configured: SocketAddr, sockets: &[TcpListener]) -> io::Result<Arc<Bound>> {
        let address = sockets.first().map_or(Ok(configured), TcpListener::local_addr)?;
        let copies = sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        let (connections, closed, copies) = (AtomicU32::new(0), AtomicBool::new(false), Mutex::new(copies));
        Ok(Arc::new(Bound { configured, address, connections, closed, copies }))
    }

    /// Takes the copies of the sockets, to hand them over or to close them.
    pub fn take_copies(&self) -> Vec<TcpListener> {
        std::mem::take(&mut self.copies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies of the sockets for another process.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn copies(&self) -> io::Result<Vec<TcpListener>> {
        self.copies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(TcpListener::try_clone)
            .collect()
    }

    /// Open connections of all workers.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// It was removed from the configuration.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        drop(self.take_copies());
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

/// Listens on `address`, once for each of `workers` at least: with the inherited sockets of this address, all of
/// them, because connections may wait in each; with new ones otherwise. With port 0 all get the same free port.
pub fn bind(
    address: SocketAddr,
    workers: usize,
    inherited: &mut Vec<Inherited>,
) -> io::Result<Vec<TcpListener>> {
    let ours = inherited.extract_if(.., |(configured, _)| *configured == address);
    let mut sockets: Vec<TcpListener> = ours.map(|(_, socket)| socket).collect();
    if sockets.is_empty() {
        if address.port() != 0 {
            // Tells whether somebody else listens; closed again at once.
            drop(socket(address, Share::No)?);
        }
        let first = socket(address, Share::Yes)?;
        first.listen(BACKLOG)?;
        sockets.push(first.into());
    }
    let address = sockets[0].local_addr()?;
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
        let first = bind("127.0.0.1:0".parse().unwrap(), 2, &mut Vec::new()).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(first[1].local_addr().unwrap(), address);
        assert_eq!(bind(address, 2, &mut Vec::new()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(address, 2, &mut Vec::new()).unwrap();
    }
}
