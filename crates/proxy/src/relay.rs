//! A tunnel: bytes both ways between two ends, after both switched protocols or where there never was one.
//!
//! Promise: full duplex with back-pressure (nothing is received that the other end has no room for); one
//! side's end is passed on and the other goes on (half-close); it ends when both are done, when one breaks
//! (the other is reset then), or when nothing moved either way for the idle time.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use crate::world::World;

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
        let before = up.moved + down.moved;
        let ended = match (up.poll(client, endpoint, cx), down.poll(endpoint, client, cx)) {
            (Poll::Ready(Err(Broke::Source)), _) | (_, Poll::Ready(Err(Broke::Sink))) => Ended::ClientBroke,
            (Poll::Ready(Err(Broke::Sink)), _) | (_, Poll::Ready(Err(Broke::Source))) => Ended::EndpointBroke,
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Ended::Done,
            _ => {
                if up.moved + down.moved != before {
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

/// One direction.
struct Way {
    /// Received and not sent yet.
    held: Bytes,
    /// Bytes received.
    moved: u64,
    phase: Phase,
}

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
        Way { held: Bytes::new(), moved: 0, phase: Phase::Flowing }
    }

    fn poll(
        &mut self,
        from: &mut dyn End,
        to: &mut dyn End,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broke>> {
        loop {
            if !self.held.is_empty() {
                ready!(to.poll_send(&mut self.held, cx)).map_err(|_| Broke::Sink)?;
            }
            match self.phase {
                Phase::Ended => return Poll::Ready(Ok(())),
                Phase::Ending => {
                    ready!(to.poll_end(cx)).map_err(|_| Broke::Sink)?;
                    self.phase = Phase::Ended;
                }
                Phase::Flowing => {
                    self.held = ready!(from.poll_receive(cx)).map_err(|_| Broke::Source)?;
                    self.moved += self.held.len() as u64;
                    if self.held.is_empty() {
                        self.phase = Phase::Ending;
                    }
                }
            }
        }
    }
}
