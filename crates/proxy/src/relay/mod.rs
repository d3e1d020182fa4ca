//! A tunnel: bytes both ways between two ends, after both switched protocols or where there never was one.
//!
//! Promise: full duplex with back-pressure (nothing is received that the other end has no room for); one
//! side's end is passed on and the other goes on (half-close); it ends when both are done, when one breaks
//! (the other is reset then), or when nothing moved either way for the idle time. A bulk stream between two
//! plain TCP sockets moves without being copied (`splice`).

mod splice;

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::bandwidth::Throttle;
use crate::wire::Link;
use crate::world::World;
use splice::Pipe;

/// One end of a tunnel. All of its functions are cancel-safe.
pub trait End {
    /// The next bytes; empty when this end has sent its last.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>>;

    /// Sends `bytes`; what has left is taken off them. Ready when all has.
    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that nothing more will be sent.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Makes sure that dropping it looks like a break to its peer, not like an orderly end.
    fn reset(&mut self);

    /// The TCP socket, when nothing stands between this end and it, and nothing of it was read ahead.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    /// Whether its last bytes say that both directions are over, in a protocol that both peers speak: nothing that
    /// still comes from the other end is wanted.
    fn ends_both(&self) -> bool {
        false
    }
}

/// An end that outlives the exchange that opened it: the exchange is over with the head that switches, and what follows
/// holds no snapshot.
pub struct Lasting {
    /// The end.
    pub end: Box<dyn End>,
    /// For how long nothing may move.
    pub idle: Duration,
    /// How fast bytes may move.
    pub throttle: Option<Box<Throttle>>,
}

/// A connection that belongs to nobody else.
impl End for Link {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        Link::poll_receive(self, cx)
    }

    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Link::poll_send(self, bytes, cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Link::poll_end(self, cx)
    }

    fn reset(&mut self) {
        self.stream.reset_on_close();
    }

    fn plain(&self) -> Option<&TcpStream> {
        Link::plain(self)
    }
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both ends sent their last.
    Done,
    /// The client's end broke.
    ClientBroke,
    /// The endpoint's end broke.
    EndpointBroke,
    /// Nothing moved for the idle time.
    Idle,
}

/// What moved through a tunnel, and how it ended.
#[derive(Clone, Copy, Debug)]
pub struct Relayed {
    /// Bytes from the client to the endpoint.
    pub up: u64,
    /// Bytes from the endpoint to the client.
    pub down: u64,
    /// How it ended.
    pub ended: Ended,
}

/// Copies until the tunnel ends. `idle`: for how long nothing may move.
pub async fn run(client: &mut dyn End, endpoint: &mut dyn End, idle: Duration, world: &World) -> Relayed {
    let (mut up, mut down) = (Way::new(), Way::new());
    let deadline = world.timers.deadline();
    deadline.set(world.clock.now(), idle);
    let ended = poll_fn(|cx| {
        let before = up.stirred + down.stirred;
        let ended = match (up.poll(client, endpoint, cx), down.poll(endpoint, client, cx)) {
            (Poll::Ready(Err(Broke::Source)), _) | (_, Poll::Ready(Err(Broke::Sink))) => Ended::ClientBroke,
            (Poll::Ready(Err(Broke::Sink)), _) | (_, Poll::Ready(Err(Broke::Source))) => Ended::EndpointBroke,
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Ended::Done,
            // A socket's close says it, without waiting for the peer's. TLS has a farewell of its own.
            (_, Poll::Ready(Ok(()))) if closes_both(client, endpoint) => Ended::Done,
            _ => {
                if up.stirred + down.stirred != before {
                    deadline.set(world.clock.now(), idle);
                }
                match deadline.poll_passed(cx) {
                    true => Ended::Idle,
                    false => return Poll::Pending,
                }
            }
        };
        Poll::Ready(ended)
    })
    .await;
    if ended != Ended::Done {
        client.reset();
        endpoint.reset();
    }
    Relayed { up: up.moved, down: down.moved, ended }
}

/// Whether the end of `from` is passed on by closing the socket `to`.
fn closes_both(to: &dyn End, from: &dyn End) -> bool {
    from.ends_both() && to.plain().is_some()
}

/// One direction.
struct Way {
    /// Received and not sent yet.
    held: Bytes,
    /// Bytes received.
    moved: u64,
    /// Counted up whenever bytes came or left.
    stirred: u64,
    /// In use while the stream is a bulk one.
    pipe: Option<Pipe>,
    /// Little came through the pipe last time: it is given up when it is empty.
    sparse: bool,
    phase: Phase,
}

/// A stream is a bulk one when so many bytes have passed ...
const BULK: u64 = 64 * 1024;
/// ... and so many came at once.
const LARGE: usize = 16 * 1024;
/// When fewer come at once it is none any more: for little, copying costs less.
const SMALL: usize = 4 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Flowing,
    /// The source has ended; the end is being passed on.
    Ending,
    Ended,
}

/// Which end of a direction failed.
#[derive(Clone, Copy)]
enum Broke {
    Source,
    Sink,
}

impl Way {
    fn new() -> Way {
        Way { held: Bytes::new(), moved: 0, stirred: 0, pipe: None, sparse: false, phase: Phase::Flowing }
    }

    fn poll(
        &mut self,
        from: &mut dyn End,
        to: &mut dyn End,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broke>> {
        loop {
            if !self.held.is_empty() {
                let before = self.held.len();
                let sent = to.poll_send(&mut self.held, cx);
                self.stirred += u64::from(self.held.len() < before);
                ready!(sent).map_err(|_| Broke::Sink)?;
            }
            match self.phase {
                Phase::Ended => return Poll::Ready(Ok(())),
                Phase::Ending => {
                    if !closes_both(to, from) {
                        ready!(to.poll_end(cx)).map_err(|_| Broke::Sink)?;
                    }
                    self.phase = Phase::Ended;
                }
                Phase::Flowing => {
                    let received = match ready!(self.poll_splice(from, to, cx)) {
                        Some(received) => received?,
                        None => ready!(self.poll_copy(from, to, cx))?,
                    };
                    self.moved += received as u64;
                    if received == 0 {
                        self.phase = Phase::Ending;
                        self.pipe.take().into_iter().for_each(Pipe::give_back);
                    }
                }
            }
        }
    }

    /// Receives; the bytes are sent in the next round.
    fn poll_copy(
        &mut self,
        from: &mut dyn End,
        to: &mut dyn End,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Broke>> {
        self.held = ready!(from.poll_receive(cx)).map_err(|_| Broke::Source)?;
        self.stirred += 1;
        let received = self.held.len();
        let bulk = received >= LARGE && self.moved >= BULK;
        if bulk && from.plain().is_some() && to.plain().is_some() {
            // Without a pipe the stream goes on being copied.
            self.pipe = Pipe::take().ok();
        }
        Poll::Ready(Ok(received))
    }

    /// Moves bytes through the pipe, if there is one: gives how many came.
    fn poll_splice(
        &mut self,
        from: &dyn End,
        to: &dyn End,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<usize, Broke>>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(None) };
        let (Some(source), Some(sink)) = (from.plain(), to.plain()) else {
            // A socket does not stop being one.
            return Poll::Ready(Some(Err(Broke::Source)));
        };
        match ready!(pipe.poll_drain(sink, &mut self.stirred, cx)) {
            Ok(()) if self.sparse => {
                self.sparse = false;
                self.pipe.take().into_iter().for_each(Pipe::give_back);
                Poll::Ready(None)
            }
            Ok(()) => {
                let filled = ready!(pipe.poll_fill(source, &mut self.stirred, cx));
                self.sparse = matches!(filled, Ok(0..SMALL));
                Poll::Ready(Some(filled))
            }
            Err(broke) => Poll::Ready(Some(Err(broke))),
        }
    }
}
