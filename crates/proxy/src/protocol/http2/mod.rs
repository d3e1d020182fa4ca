//! HTTP/2 server connections (RFC 9113): one task for the connection, one for each of its streams.
//!
//! Promise: the frames are the h2 crate's work, everything that means something is the same code as for
//! HTTP/1. A connection that floods is closed and counted by what it did; at a drain, when the listener
//! goes, when it is idle or old, the client is told by GOAWAY which streams still run, and these end.

mod answer;
mod body;
mod exchange;
mod guard;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use sluice_http::h2::{Breach, Flood};

use super::Arrival;
use crate::config::model::Http2Policy;
use crate::listener::LocalListener;
use crate::wire::Link;
use crate::world::Deadline;
use guard::Guard;

/// The head that stands at the start of every HTTP/2 connection, as an HTTP/1 parser sees it (RFC 9113
/// section 3.4); six more bytes follow.
pub const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// How long a connection may take to close after it was told to.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One connection and who it belongs to.
struct Session {
    arrival: Arrival,
    /// What the client did that closes the connection.
    flood: Rc<Cell<Option<Flood>>>,
    /// Streams that have begun and not ended.
    open: Cell<usize>,
    /// Streams that have begun, ever.
    served: Cell<u32>,
}

/// What the loop of a connection has learnt.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are streams, and none is kept")]
enum Event {
    Stream(http::Request<RecvStream>, SendResponse<Bytes>),
    /// The client has closed, in order or not.
    Closed,
    Broken(h2::Error),
    Flooded(Flood),
    /// It shall take no further streams.
    Enough,
    /// It had its time to close.
    TimedOut,
}

/// Whether a connection takes further streams.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// GOAWAY was sent: streams that run end.
    Closing,
    /// Only what is to be said last is left.
    Last,
}

/// Serves a connection until it ends.
pub async fn serve(arrival: Arrival, mut listener: Rc<LocalListener>, link: Link) {
    let flood = Rc::new(Cell::new(None));
    let worker = Rc::clone(&arrival.worker);
    let policy = listener.shared.http2;
    let guard = Guard::new(link, worker.world.clock, Rc::clone(&flood));
    let deadline = worker.world.timers.deadline();
    deadline.set(worker.world.clock.now(), listener.shared.timeouts.head);
    let handshake = builder(&policy, &listener).handshake::<_, Bytes>(guard);
    let mut connection = match deadline.limit(handshake).await {
        Some(Ok(connection)) => connection,
        Some(Err(error)) => return note(&listener, flood.get(), &error),
        None => return,
    };
    let session = Rc::new(Session { arrival, flood, open: Cell::new(0), served: Cell::new(0) });
    let born = worker.world.clock.now();
    let mut phase = Phase::Open;
    deadline.set(born, listener.shared.timeouts.idle);
    loop {
        match poll_fn(|cx| session.poll(&mut connection, &listener, (phase, &deadline), cx)).await {
            Event::Stream(request, respond) => {
                listener = worker.running().listener(&listener);
                let (own, through) = (Rc::clone(&session), Rc::clone(&listener));
                session.begin();
                let started = worker.world.clock.now();
                worker.world.spawn(async move {
                    let _open = Open(Rc::clone(&own));
                    // Boxed once, where it stays: a task is moved about before it runs.
                    Box::pin(exchange::run((&own, &through), started, request, respond)).await;
                });
                let old = started.saturating_duration_since(born) > policy.max_age;
                if (old || session.served.get() >= listener.shared.requests_per_connection)
                    && phase == Phase::Open
                {
                    phase = Phase::Closing;
                    connection.graceful_shutdown();
                }
            }
            Event::Enough => {
                phase = Phase::Closing;
                connection.graceful_shutdown();
                if session.open.get() == 0 {
                    deadline.set(worker.world.clock.now(), LAST_WORDS);
                }
            }
            Event::Flooded(flood) => {
                listener.cells.flooded(flood);
                phase = Phase::Last;
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                deadline.set(worker.world.clock.now(), LAST_WORDS);
            }
            Event::Broken(error) => return note(&listener, None, &error),
            Event::Closed | Event::TimedOut => return,
        }
    }
}

/// Counts how a connection broke, when it was the client's doing.
fn note(listener: &LocalListener, flood: Option<Flood>, error: &h2::Error) {
    let reason = error.reason().filter(|_| error.is_library());
    // The frame layer counts one thing that the watch cannot see: streams that it has to reset itself.
    let resets = (reason == Some(Reason::ENHANCE_YOUR_CALM)).then_some(Flood::MadeYouReset);
    match (flood.or(resets), reason.and_then(|reason| Breach::of_code(reason.into()))) {
        (Some(flood), _) => listener.cells.flooded(flood),
        (None, Some(breach)) => listener.cells.breached(breach),
        (None, None) => {}
    }
}

fn builder(policy: &Http2Policy, listener: &LocalListener) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(policy.max_streams)
        .initial_window_size(policy.stream_window)
        .initial_connection_window_size(policy.connection_window)
        .max_frame_size(16 * 1024)
        .max_header_list_size(u32::try_from(listener.shared.limits.head).unwrap_or(u32::MAX))
        // The watch is stricter about these two, and counts them by name.
        .max_pending_accept_reset_streams(2_000)
        .data_frame_budget(64 * 1024 * 1024)
        .max_concurrent_reset_streams(50)
        .max_local_error_reset_streams(Some(100))
        .max_send_buffer_size(256 * 1024)
        .enable_connect_protocol();
    builder
}

impl Session {
    fn begin(&self) {
        self.open.set(self.open.get() + 1);
        self.served.set(self.served.get().saturating_add(1));
    }

    /// What happens next on the connection. Polling it moves all of its streams' frames.
    fn poll(
        &self,
        connection: &mut Connection<Guard, Bytes>,
        listener: &LocalListener,
        (phase, deadline): (Phase, &Deadline),
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        let polled = connection.poll_accept(cx);
        if phase != Phase::Last
            && let Some(flood) = self.flood.get()
        {
            return Poll::Ready(Event::Flooded(flood));
        }
        match polled {
            Poll::Ready(Some(Ok((request, respond)))) => return Poll::Ready(Event::Stream(request, respond)),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::Broken(error)),
            Poll::Ready(None) => return Poll::Ready(Event::Closed),
            Poll::Pending => {}
        }
        let worker = &self.arrival.worker;
        if phase == Phase::Open && (worker.is_draining() || listener.is_closed()) {
            return Poll::Ready(Event::Enough);
        }
        if self.open.get() > 0 && phase != Phase::Last {
            // The streams have times of their own; when the last has ended, the connection's begins.
            deadline.set(worker.world.clock.now(), listener.shared.timeouts.idle);
        }
        match deadline.poll_passed(cx) {
            false => Poll::Pending,
            true if phase == Phase::Open => Poll::Ready(Event::Enough),
            true => Poll::Ready(Event::TimedOut),
        }
    }
}

/// A stream that runs; counts until it is dropped.
struct Open(Rc<Session>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}
