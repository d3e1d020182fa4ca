//! A connection to an endpoint, and the pool of idle ones that each worker keeps for it.
//!
//! Promise: a connection in use is owned by one exchange; giving it back needs no search; one that has
//! gone stale is found out before a request is written where the kernel has told us already.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::address::Address;
use crate::failure::Failure;
use crate::relay::End;
use crate::stream::{Care, Socket, Stream};
use crate::upstream::Endpoint;
use crate::upstream::config::PoolPolicy;
use crate::upstream::live::{InFlight, Live};
use crate::wire::Link;
use crate::world::World;

/// A connection to an endpoint.
pub struct Connection {
    /// The connection.
    pub link: Link,
    /// Counts at the endpoint while it is a tunnel.
    pub in_flight: Option<InFlight>,
    /// Its place among the endpoint's `max_connections`.
    _permit: Option<OwnedSemaphorePermit>,
    /// When it was seen idle first; the sweep notes it, so that giving back needs no clock.
    idle_since: Option<Instant>,
}

impl Connection {
    /// A connection that no limit of an endpoint counts.
    pub fn unlimited(link: Link) -> Box<Connection> {
        Box::new(Connection { link, in_flight: None, _permit: None, idle_since: None })
    }
}

/// A connection as one end of a tunnel.
impl End for Connection {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        self.link.poll_receive(cx)
    }

    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_send(bytes, cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_end(cx)
    }

    fn reset(&mut self) {
        self.link.stream.reset_on_close();
    }

    fn plain(&self) -> Option<&TcpStream> {
        self.link.plain()
    }
}

/// Whether a connection has carried an exchange before: if so, it may have gone stale unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Just connected.
    Fresh,
    /// From the pool.
    Reused,
}

/// The idle connections of one worker to one endpoint.
#[expect(clippy::vec_box, reason = "a connection moves between pool and exchange as one pointer")]
pub struct Pool {
    live: Arc<Live>,
    idle: RefCell<Vec<Box<Connection>>>,
    policy: Cell<PoolPolicy>,
}

impl Pool {
    /// An empty pool.
    pub fn new(live: &Arc<Live>, policy: PoolPolicy) -> Pool {
        Pool { live: Arc::clone(live), idle: RefCell::default(), policy: Cell::new(policy) }
    }

    /// Whether it is the pool of this endpoint.
    pub fn serves(&self, live: &Arc<Live>) -> bool {
        Arc::ptr_eq(&self.live, live)
    }

    /// Takes over a changed policy.
    pub fn set_policy(&self, policy: PoolPolicy) {
        if self.policy.get().max_connections != policy.max_connections {
            // The idle ones hold places of the old limit.
            self.idle.borrow_mut().clear();
        }
        self.idle.borrow_mut().truncate(policy.max_idle);
        self.policy.set(policy);
    }

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Closes all idle connections.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Closes the idle connections that are too old or that the endpoint has closed.
    pub fn sweep(&self, now: Instant) {
        let timeout = self.policy.get().idle_timeout;
        self.idle.borrow_mut().retain_mut(|connection| {
            let since = *connection.idle_since.get_or_insert(now);
            now.saturating_duration_since(since) < timeout && connection.link.stream.is_quiet(Care::Usual)
        });
    }

    /// An idle connection that looks alive.
    pub fn take(&self, now: Instant, care: Care) -> Option<Box<Connection>> {
        let timeout = self.policy.get().idle_timeout;
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut connection = idle.pop()?;
            let idle =
                connection.idle_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            if idle < timeout && connection.link.stream.is_quiet(care) {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose exchange has ended, if there is room and nobody waits for its place.
    pub fn give_back(&self, mut connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        let wanted = self.live.waiting.load(Ordering::Relaxed) > 0;
        if wanted || !connection.link.buffer.is_empty() || idle.len() >= self.policy.get().max_idle {
            return;
        }
        connection.link.rest();
        connection.link.deadline.clear();
        connection.idle_since = None;
        idle.push(connection);
    }
}

/// Waits for a place among the endpoint's connections, in the order of arrival.
async fn place(
    limit: &Arc<Semaphore>,
    live: &Arc<Live>,
    policy: PoolPolicy,
    world: &World,
    shed: impl FnOnce(),
) -> Result<OwnedSemaphorePermit, Failure> {
    if let Ok(permit) = Arc::clone(limit).try_acquire_owned() {
        return Ok(permit);
    }
    struct Waits<'a>(&'a Live);
    impl Drop for Waits<'_> {
        fn drop(&mut self) {
            self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let before = live.waiting.fetch_add(1, Ordering::Relaxed);
    let _waits = Waits(live);
    if before >= policy.queue {
        return Err(Failure::Overloaded);
    }
    // Other workers may sit on idle connections that hold the places.
    shed();
    let deadline = world.timers.deadline();
    deadline.set(world.clock.now(), policy.queue_timeout);
    match deadline.limit(Arc::clone(limit).acquire_owned()).await {
        Some(Ok(permit)) => Ok(permit),
        _ => Err(Failure::Overloaded),
    }
}

/// How a connection is made.
pub struct Dial<'a> {
    /// How long it may take.
    pub connect: Duration,
    /// Sent before anything else: a PROXY header, or nothing.
    pub header: &'a [u8],
}

/// Connects to an endpoint; `shed` asks all workers to give up idle connections to it.
///
/// Cancel-safe: dropping it abandons the attempt.
pub async fn dial(
    endpoint: &Endpoint,
    pool: &Rc<Pool>,
    world: &Rc<World>,
    how: &Dial<'_>,
    shed: impl FnOnce(),
) -> Result<Box<Connection>, Failure> {
    let permit = match &endpoint.limit {
        None => None,
        Some(limit) => Some(place(limit, &endpoint.live, pool.policy.get(), world, shed).await?),
    };
    let deadline = world.timers.deadline();
    deadline.set(world.clock.now(), how.connect);
    let socket = match deadline.limit(connect_any(endpoint, how.header)).await {
        None => return Err(Failure::ConnectTimeout),
        Some(Err(_)) => return Err(Failure::ConnectFailed),
        Some(Ok(socket)) => socket,
    };
    let link = Link::new(Stream::Plain(socket), world.clock, &world.timers);
    Ok(Box::new(Connection { link, in_flight: None, _permit: permit, idle_since: None }))
}

/// Tries the addresses of a name in the resolver's order, and sends the header.
async fn connect_any(endpoint: &Endpoint, header: &[u8]) -> io::Result<Socket> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &endpoint.addresses {
        match connect_to(address).await {
            Ok(mut socket) => {
                socket.write_all(header).await?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(address: &Address) -> io::Result<Socket> {
    match address {
        Address::Inet(address) => {
            let stream = TcpStream::connect(address).await?;
            let _ = stream.set_nodelay(true);
            Ok(Socket::Tcp(stream))
        }
        Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
    }
}
