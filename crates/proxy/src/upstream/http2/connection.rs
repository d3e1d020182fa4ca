//! One HTTP/2 connection to an endpoint: a task moves its frames, exchanges take places on it.
//!
//! Promise: no more exchanges are on it than the endpoint and the policy allow; one that has been given up
//! (GOAWAY, age, an error) takes no new ones and ends those it has; it closes when nobody needs it.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{self, ResponseFuture, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};

use super::ping::{Pinger, Sign};
use super::{Policy, Pool};
use crate::facts::Scheme;
use crate::failure::Failure;
use crate::stream::Stream;
use crate::upstream::connection::{Origin, Place};
use crate::world::World;

/// What the crate says the endpoint allows before the endpoint has said anything: no endpoint can say this.
const UNKNOWN: usize = usize::MAX - 1;

/// A connection that carries several exchanges.
pub struct Connection {
    requests: RefCell<SendRequest<Bytes>>,
    /// What requests on it say: plain or over TLS.
    scheme: Scheme,
    /// Exchanges on it.
    open: Cell<usize>,
    /// Whether it has carried one already.
    origin: Cell<Origin>,
    /// When it was connected.
    pub(super) born: Instant,
    /// When it was seen idle first; the sweep notes it.
    pub(super) idle_since: Cell<Option<Instant>>,
}

/// Begins to speak HTTP/2, and waits until the endpoint has said what it allows: then it is known that it
/// speaks HTTP/2 at all, before a request is at stake.
///
/// # Errors
/// `ConnectFailed` when it closes, `UpstreamInvalid` when it speaks something else.
pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    policy: &Policy,
) -> Result<(SendRequest<Bytes>, client::Connection<S, Bytes>), Failure> {
    let failure = |error: &h2::Error| match error.is_library() {
        true => Failure::UpstreamInvalid,
        false => Failure::ConnectFailed,
    };
    let begun = builder(policy).handshake(stream).await;
    let (requests, mut connection) = begun.map_err(|error| failure(&error))?;
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(Failure::ConnectFailed)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(failure(&error))),
        Poll::Pending if connection.max_concurrent_send_streams() != UNKNOWN => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    Ok((requests, connection))
}

/// How much of an answer's head is accepted, in bytes.
const LARGEST_HEAD: u32 = 128 * 1024;

fn builder(policy: &Policy) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(UNKNOWN)
        .initial_window_size(policy.stream_window)
        .initial_connection_window_size(policy.connection_window)
        .max_frame_size(16 * 1024)
        .max_header_list_size(LARGEST_HEAD)
        .max_concurrent_reset_streams(100)
        .max_local_error_reset_streams(Some(1000))
        .max_send_buffer_size(256 * 1024);
    builder
}

impl Connection {
    pub(super) fn new(requests: SendRequest<Bytes>, scheme: Scheme, born: Instant) -> Rc<Connection> {
        Rc::new(Connection {
            requests: RefCell::new(requests),
            scheme,
            open: Cell::new(0),
            origin: Cell::new(Origin::Fresh),
            born,
            idle_since: Cell::new(None),
        })
    }

    /// Exchanges on it.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Exchanges that the endpoint allows on it.
    pub(super) fn allowed(&self) -> usize {
        self.requests.borrow().current_max_send_streams()
    }

    /// Whether it takes new exchanges, room or not: not after a GOAWAY or an error.
    pub(super) fn is_usable(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.requests.borrow_mut().poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    pub(super) fn slot(self: &Rc<Self>, pool: &Rc<Pool>) -> Slot {
        self.open.set(self.open.get() + 1);
        self.idle_since.set(None);
        let origin = self.origin.replace(Origin::Reused);
        Slot { connection: Rc::clone(self), pool: Rc::clone(pool), origin }
    }
}

/// A place for one exchange on a connection; dropping it gives the place to another.
pub struct Slot {
    connection: Rc<Connection>,
    pool: Rc<Pool>,
    /// Whether the connection carried an exchange before.
    pub origin: Origin,
}

impl Slot {
    /// What its request says: plain or over TLS.
    pub fn scheme(&self) -> Scheme {
        self.connection.scheme
    }

    /// Whether the endpoint takes extended CONNECT (RFC 8441).
    pub fn takes_connect(&self) -> bool {
        self.connection.requests.borrow().is_extended_connect_protocol_enabled()
    }

    /// Begins the exchange; with `end` the request has no body.
    ///
    /// # Errors
    /// The connection takes no more requests: nothing was sent.
    pub fn begin(
        &self,
        request: http::Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        // A handle of its own: the crate would make the next request wait for one that it holds back.
        let mut requests = self.connection.requests.borrow().clone();
        requests.send_request(request, end)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.open.set(self.connection.open.get() - 1);
        self.pool.freed(&self.connection);
    }
}

/// Moves the frames of a connection until it is over. `place` is its place among the endpoint's connections.
pub(super) async fn drive(
    mut frames: client::Connection<Stream, Bytes>,
    (connection, pool): (Weak<Connection>, Weak<Pool>),
    mut pinger: Option<Pinger>,
    place: Option<Place>,
) {
    poll_fn(|cx| {
        if Pin::new(&mut frames).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let open = connection.upgrade().map_or(0, |connection| connection.open.get());
        match pinger.as_mut().map(|pinger| pinger.poll(open, cx)) {
            Some(Sign::Dead) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    // Whoever is on it learns that it is over.
    drop(frames);
    drop(place);
    if let Some(pool) = pool.upgrade() {
        pool.forget(&connection);
    }
}

pub(super) fn pinger(
    frames: &mut client::Connection<Stream, Bytes>,
    policy: Policy,
    world: &World,
) -> Option<Pinger> {
    policy.ping?;
    Pinger::new(frames.ping_pong(), policy, world)
}
