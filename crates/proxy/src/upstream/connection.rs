//! A connection to an endpoint, and the pool of idle ones that each worker keeps for it.
//!
//! Promise: a connection in use is owned by one exchange; giving it back needs no search; one that has
//! gone stale is found out before a request is written where the kernel has told us already.

use std::cell::{Cell, RefCell};
use std::future::Future;
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
use tokio_rustls::TlsConnector;

use crate::address::Address;
use crate::failure::Failure;
use crate::relay::End;
use crate::stream::{Care, Socket, Stream};
use crate::tls::{self, Offer};
use crate::upstream::config::{PoolPolicy, Protocol};
use crate::upstream::live::{InFlight, Live};
use crate::upstream::{Endpoint, Upstream, http2};
use crate::wire::Link;
use crate::world::World;

/// A connection to an endpoint.
pub struct Connection {
    /// The connection.
    pub link: Link,
    /// Counts at the endpoint while it is a tunnel.
    pub in_flight: Option<InFlight>,
    /// Its place among the endpoint's `max_connections`.
    _permit: Option<Place>,
    /// When it was connected.
    born: Instant,
    /// When it was seen idle first; the sweep notes it, so that giving back needs no clock.
    idle_since: Option<Instant>,
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

/// A place among an endpoint's `max_connections`; dropping it frees it.
pub type Place = OwnedSemaphorePermit;

/// The connections of one worker to one endpoint that can take an exchange: idle ones that speak HTTP/1, and
/// those that speak HTTP/2.
#[expect(clippy::vec_box, reason = "a connection moves between pool and exchange as one pointer")]
pub struct Pool {
    live: Arc<Live>,
    idle: RefCell<Vec<Box<Connection>>>,
    policy: Cell<PoolPolicy>,
    protocol: Cell<Protocol>,
    tls: RefCell<Option<Arc<tls::Client>>>,
    /// What the endpoint agreed to speak when it was last asked (ALPN).
    pub(super) agreed: Cell<Option<Spoken>>,
    /// Those that speak HTTP/2.
    pub http2: Rc<http2::Pool>,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Pool {
    /// An empty pool.
    pub fn new(live: &Arc<Live>, upstream: &Upstream) -> Pool {
        let policy = &upstream.policy;
        Pool {
            tls: RefCell::new(upstream.tls.clone()),
            protocol: Cell::new(policy.protocol),
            http2: http2::Pool::new(live, policy.http2, &policy.pool),
            ..Pool::plain(live, policy.pool)
        }
    }

    /// An empty pool for what belongs to no upstream: HTTP/1 without TLS.
    pub fn plain(live: &Arc<Live>, policy: PoolPolicy) -> Pool {
        Pool {
            live: Arc::clone(live),
            tls: RefCell::default(),
            idle: RefCell::default(),
            policy: Cell::new(policy),
            protocol: Cell::new(Protocol::Http1),
            agreed: Cell::new(None),
            http2: http2::Pool::new(live, http2::Policy::default(), &policy),
        }
    }

    /// Whether it is the pool of this endpoint.
    pub fn serves(&self, live: &Arc<Live>) -> bool {
        Arc::ptr_eq(&self.live, live)
    }

    /// Takes over what has changed.
    pub fn adopt(&self, upstream: &Upstream) {
        let policy = &upstream.policy;
        let tls = self.tls.replace(upstream.tls.clone());
        let same_tls = match (&tls, &upstream.tls) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if !same_tls || self.protocol.get() != policy.protocol {
            // What is there speaks what is not spoken any more.
            self.idle.borrow_mut().clear();
            self.http2.retire();
            self.agreed.set(None);
        } else if self.policy.get().max_connections != policy.pool.max_connections {
            // The idle ones hold places of the old limit.
            self.clear();
        }
        self.idle.borrow_mut().truncate(policy.pool.max_idle);
        self.policy.set(policy.pool);
        self.protocol.set(policy.protocol);
        self.http2.set_policy(policy);
    }

    /// What the pool may do.
    pub(super) fn policy(&self) -> PoolPolicy {
        self.policy.get()
    }

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.idle.borrow().len() + self.http2.idle()
    }

    /// Somebody waits for a place: closes all idle connections, but for those that ours are about to use.
    pub fn shed(&self) {
        self.idle.borrow_mut().clear();
        self.http2.shed();
    }

    /// Closes all idle connections.
    fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.http2.clear();
    }

    /// Closes the idle connections that are too old or that the endpoint has closed.
    pub fn sweep(&self, now: Instant) {
        let policy = self.policy.get();
        self.idle.borrow_mut().retain_mut(|connection| {
            let since = *connection.idle_since.get_or_insert(now);
            now.saturating_duration_since(since) < policy.idle_timeout
                && connection.is_young(policy, now)
                && connection.link.stream.is_quiet(Care::Usual)
        });
        self.http2.sweep(now);
    }

    /// An idle connection that looks alive.
    pub fn take(&self, now: Instant, care: Care) -> Option<Box<Connection>> {
        let policy = self.policy.get();
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut connection = idle.pop()?;
            let idle =
                connection.idle_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            let is_wanted = idle < policy.idle_timeout && connection.is_young(policy, now);
            if is_wanted && connection.link.stream.is_quiet(care) {
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

impl Connection {
    /// A connection over a new stream.
    pub fn new(stream: Stream, place: Option<Place>, world: &World) -> Box<Connection> {
        let link = Link::new(stream, world.clock, &world.timers);
        let born = world.clock.now();
        Box::new(Connection { link, in_flight: None, _permit: place, born, idle_since: None })
    }

    fn is_young(&self, policy: PoolPolicy, now: Instant) -> bool {
        policy.max_age.is_none_or(|most| now.saturating_duration_since(self.born) < most)
    }
}

/// Waits for a place among the endpoint's connections, in the order of arrival; `shed` asks all workers to
/// give up idle connections to it.
pub(super) async fn place(
    limit: &Arc<Semaphore>,
    live: &Arc<Live>,
    policy: PoolPolicy,
    world: &World,
    shed: impl FnOnce(),
) -> Result<Place, Failure> {
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

/// Connects to the endpoint `index`, whatever is spoken with it; `shed` asks all workers to give up idle
/// connections to it.
///
/// Cancel-safe: dropping it abandons the attempt.
pub async fn dial(
    (upstream, index): (&Upstream, usize),
    pool: &Rc<Pool>,
    world: &Rc<World>,
    how: &Dial<'_>,
    shed: impl FnOnce(),
) -> Result<Box<Connection>, Failure> {
    let endpoint = &upstream.endpoints[index];
    let permit = match &endpoint.limit {
        None => None,
        Some(limit) => Some(place(limit, &endpoint.live, pool.policy.get(), world, shed).await?),
    };
    let (stream, _) = within(how, world, connect((upstream, endpoint), how, Offer::Nothing)).await?;
    Ok(Connection::new(stream, permit, world))
}

/// Connects to the endpoint `index` and says what is spoken on the connection. Cancel-safe.
pub(super) async fn open(
    (upstream, index): (&Upstream, usize),
    how: &Dial<'_>,
    world: &World,
) -> Result<(Stream, Spoken), Failure> {
    let offer = match upstream.policy.protocol {
        Protocol::Http1 => Offer::Http1,
        Protocol::Http2 => Offer::Http2,
        Protocol::Auto => Offer::Both,
    };
    let endpoint = &upstream.endpoints[index];
    let (stream, agreed) = within(how, world, connect((upstream, endpoint), how, offer)).await?;
    let spoken = match (upstream.policy.protocol, agreed) {
        (Protocol::Http2, _) | (Protocol::Auto, Some(Spoken::Http2)) => Spoken::Http2,
        _ => Spoken::Http1,
    };
    Ok((stream, spoken))
}

async fn within<T>(
    how: &Dial<'_>,
    world: &World,
    dialling: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let deadline = world.timers.deadline();
    deadline.set(world.clock.now(), how.connect);
    deadline.limit(dialling).await.unwrap_or(Err(Failure::ConnectTimeout))
}

/// Connects, and shakes hands where the upstream has TLS; says what ALPN agreed on.
async fn connect(
    (upstream, endpoint): (&Upstream, &Endpoint),
    how: &Dial<'_>,
    offer: Offer,
) -> Result<(Stream, Option<Spoken>), Failure> {
    let socket = connect_any(endpoint, how.header).await.map_err(|_| Failure::ConnectFailed)?;
    let Some(tls) = &upstream.tls else { return Ok((Stream::Plain(socket), None)) };
    let name = tls.server_name(&endpoint.address).ok_or(Failure::UpstreamTlsFailed)?;
    let connector = TlsConnector::from(Arc::clone(tls.config(offer)));
    let stream = connector.connect(name, socket).await.map_err(|error| tls_failure(&error))?;
    let agreed = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Some(Spoken::Http2),
        Some(_) => Some(Spoken::Http1),
        None => None,
    };
    Ok((Stream::Client(Box::new(stream)), agreed))
}

fn tls_failure(error: &io::Error) -> Failure {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match error {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Failure::UpstreamUntrusted
        }
        _ => Failure::UpstreamTlsFailed,
    }
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
