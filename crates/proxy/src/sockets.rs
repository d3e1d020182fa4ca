//! Listening sockets: one for each worker on one address (SO_REUSEPORT), so that the kernel spreads
//! connections and no lock is shared; of a Unix socket one copy for each worker; or those that the process
//! before us handed over.
//!
//! Promise: an address that another process listens on is an error, although SO_REUSEPORT would let us
//! share it silently when that process is ours too. The file of a Unix socket goes when we stop listening,
//! unless another process listens on.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::address::Address;
use crate::client_counts::ClientCounts;

/// Whether connections or datagrams come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Connections.
    Stream,
    /// Datagrams.
    Datagram,
}

/// What is listened on: a socket's identity over changes and from process to process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// What comes.
    pub transport: Transport,
    /// Where.
    pub address: Address,
}

const DATAGRAM: &str = "udp:";

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.transport == Transport::Datagram { DATAGRAM } else { "" };
        write!(f, "{prefix}{}", self.address)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let (transport, text) = match text.strip_prefix(DATAGRAM) {
            Some(rest) => (Transport::Datagram, rest),
            None => (Transport::Stream, text),
        };
        let address = match Address::unix(text) {
            Some(address) => address?,
            None => Address::Inet(text.parse().map_err(|_| format!("`{text}` is not an address"))?),
        };
        Ok(Place { transport, address })
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listening {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix stream socket.
    Unix(UnixListener),
    /// UDP.
    Udp(UdpSocket),
}

impl Listening {
    /// A socket that was handed over with its place.
    pub fn from_fd(place: &Place, fd: OwnedFd) -> Listening {
        match (place.transport, &place.address) {
            (Transport::Datagram, _) => Listening::Udp(fd.into()),
            (Transport::Stream, Address::Inet(_)) => Listening::Tcp(fd.into()),
            (Transport::Stream, Address::Unix(_)) => Listening::Unix(fd.into()),
        }
    }

    fn try_clone(&self) -> io::Result<Listening> {
        Ok(match self {
            Listening::Tcp(socket) => Listening::Tcp(socket.try_clone()?),
            Listening::Unix(socket) => Listening::Unix(socket.try_clone()?),
            Listening::Udp(socket) => Listening::Udp(socket.try_clone()?),
        })
    }

    /// The address it is bound to, if it has one of this kind.
    fn inet(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Listening::Tcp(socket) => socket.local_addr().map(Some),
            Listening::Udp(socket) => socket.local_addr().map(Some),
            Listening::Unix(_) => Ok(None),
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listening::Tcp(socket) => socket.as_fd(),
            Listening::Unix(socket) => socket.as_fd(),
            Listening::Udp(socket) => socket.as_fd(),
        }
    }
}

/// What is shared by all workers and kept over changes by name and place.
pub struct Bound {
    /// The place as configured.
    pub configured: Place,
    /// The address that was bound: the port is the real one where 0 was configured.
    pub address: Address,
    pub(crate) connections: AtomicU32,
    /// The connections of each client.
    pub clients: Arc<ClientCounts>,
    closed: AtomicBool,
    /// Another process listens on the same sockets.
    handed_over: AtomicBool,
    /// The file of a Unix socket, as it was when it was bound.
    file: Option<(u64, u64)>,
    /// Copies of the workers' sockets, for the process that may take over.
    copies: Mutex<Vec<Listening>>,
}

/// A socket that the process before us listened on, and the place it was configured with.
pub type Inherited = (Place, Listening);

impl Bound {
    /// Takes note of bound sockets.
    ///
    /// # Errors
    /// A socket cannot be copied: there are no descriptors left.
    pub fn new(configured: &Place, sockets: &[Listening]) -> io::Result<Arc<Bound>> {
        let real = sockets.first().map_or(Ok(None), Listening::inet)?;
        let file = match &configured.address {
            Address::Unix(path) => identity(path),
            Address::Inet(_) => None,
        };
        Ok(Arc::new(Bound {
            configured: configured.clone(),
            address: real.map_or_else(|| configured.address.clone(), Address::Inet),
            connections: AtomicU32::new(0),
            clients: Arc::default(),
            closed: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            file,
            copies: Mutex::new(sockets.iter().map(Listening::try_clone).collect::<io::Result<_>>()?),
        }))
    }

    /// Copies of the sockets for another process.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn copies(&self) -> io::Result<Vec<Listening>> {
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.iter().map(Listening::try_clone).collect()
    }

    /// The IP address and port clients reach; those of Unix sockets count as 127.0.0.1:0.
    pub fn reached(&self) -> SocketAddr {
        self.address.inet().unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0))
    }

    /// Open connections of all workers.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Gives up the copies, and the file of a Unix socket: nothing new is wanted. The workers' own sockets
    /// still serve what waits in them.
    pub fn retire(&self) {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let (Address::Unix(path), Some(file)) = (&self.configured.address, self.file)
            && !self.is_handed_over()
            && identity(path) == Some(file)
        {
            // Whoever removed it first had our wish.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Sets who may connect to a Unix socket.
    ///
    /// # Errors
    /// The file is not there any more, or not ours.
    pub fn set_mode(&self, mode: Option<u32>) -> io::Result<()> {
        match (&self.configured.address, mode) {
            (Address::Unix(path), Some(mode)) => std::fs::set_permissions(path, Permissions::from_mode(mode)),
            _ => Ok(()),
        }
    }

    /// It was removed from the configuration.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.retire();
    }

    /// Whether it was removed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Another process listens on these sockets from now on.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }

    /// Whether another process listens on them.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }
}

/// Tells one file from another that took its place.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

const BACKLOG: i32 = 4096;

/// Whether other sockets may bind the same address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    No,
    Yes,
}

/// Listens, once for each of `workers` at least: with the inherited sockets of this place, all of them,
/// because connections may wait in each; with new ones otherwise. With port 0 all get the same free port.
/// `mode`: who may connect to a Unix socket; its file was never open to others.
pub fn bind(
    place: &Place,
    mode: Option<u32>,
    workers: usize,
    inherited: &mut Vec<Inherited>,
) -> io::Result<Vec<Listening>> {
    let ours = inherited.extract_if(.., |(configured, _)| *configured == *place);
    let mut sockets: Vec<Listening> = ours.map(|(_, socket)| socket).collect();
    match &place.address {
        Address::Inet(address) => bind_inet(place.transport, *address, workers, &mut sockets)?,
        Address::Unix(path) => {
            if sockets.is_empty() {
                sockets.push(Listening::Unix(bind_unix(path, mode)?));
            }
            while sockets.len() < workers {
                sockets.push(sockets[0].try_clone()?);
            }
        }
    }
    Ok(sockets)
}

fn bind_inet(
    transport: Transport,
    address: SocketAddr,
    workers: usize,
    sockets: &mut Vec<Listening>,
) -> io::Result<()> {
    if sockets.is_empty() {
        if address.port() != 0 {
            // Tells whether somebody else listens; closed again at once.
            drop(socket(transport, address, Share::No)?);
        }
        sockets.push(listen(transport, address)?);
    }
    let address = sockets[0].inet()?.unwrap_or(address);
    while sockets.len() < workers {
        sockets.push(listen(transport, address)?);
    }
    Ok(())
}

fn listen(transport: Transport, address: SocketAddr) -> io::Result<Listening> {
    let socket = socket(transport, address, Share::Yes)?;
    match transport {
        Transport::Stream => {
            socket.listen(BACKLOG)?;
            Ok(Listening::Tcp(socket.into()))
        }
        Transport::Datagram => Ok(Listening::Udp(socket.into())),
    }
}

fn socket(transport: Transport, address: SocketAddr, share: Share) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = match transport {
        Transport::Stream => Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?,
        Transport::Datagram => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
    };
    if transport == Transport::Stream {
        // For UDP it would mean what SO_REUSEPORT means.
        socket.set_reuse_address(true)?;
    }
    if share == Share::Yes {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // "[::]" means every IPv6 address; IPv4 has its own listener.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    if transport == Transport::Stream {
        // Accepted sockets inherit it: one system call for each listener instead of each connection.
        socket.set_tcp_nodelay(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if let Some(mode) = mode {
        // Before anybody can connect: the socket does not listen yet.
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes the socket file of a process that has ended without removing it.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(file) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let knock = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // With a full backlog it would wait otherwise.
    knock.set_nonblocking(true)?;
    match knock.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    fn bind(place: &Place, workers: usize) -> io::Result<Vec<Listening>> {
        super::bind(place, Some(0o600), workers, &mut Vec::new())
    }

    #[test]
    fn an_address_in_use_is_an_error_even_where_it_could_be_shared() {
        for transport in ["", DATAGRAM] {
            let first = bind(&place(&format!("{transport}127.0.0.1:0")), 2).unwrap();
            let address = first[0].inet().unwrap().unwrap();
            assert_eq!(first[1].inet().unwrap(), Some(address));
            let same = place(&format!("{transport}{address}"));
            assert_eq!(bind(&same, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(first);
            bind(&same, 2).unwrap();
        }
    }

    #[test]
    fn a_unix_socket_replaces_a_dead_one_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("sluice-sockets-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("s");
        let place = place(&format!("unix:{}", path.display()));
        let sockets = bind(&place, 3).unwrap();
        assert_eq!(sockets.len(), 3);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&place, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        let sockets = bind(&place, 1).unwrap();
        let bound = Bound::new(&place, &sockets).unwrap();
        bound.hand_over();
        bound.retire();
        assert!(path.exists(), "another process listens on it");
        Bound::new(&place, &sockets).unwrap().retire();
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&place, 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn places_are_written_and_read_alike() {
        for text in ["127.0.0.1:80", "udp:[::1]:53", "unix:/run/a.sock"] {
            assert_eq!(place(text).to_string(), text);
        }
        assert_ne!(place("127.0.0.1:53"), place("udp:127.0.0.1:53"));
    }
}
