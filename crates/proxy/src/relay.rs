//! A tunnel: bytes both ways between a client and an endpoint after both switched protocols.
//!
//! Promise: full duplex with back-pressure; one side's end is passed on and the other goes on (half-close);
//! it ends when both are done, when one breaks, or when nothing moved for the idle time.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;

use crate::listener::LocalListener;
use crate::protocol::http1::Session;
use crate::upstream::connection::Connection;
use crate::wire::{Link, Outbox};

/// A tunnel to an endpoint.
pub struct Tunnel {
    connection: Box<Connection>,
}

/// One direction.
struct Way {
    outbox: Outbox,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Flowing,
    /// The source has ended; the end is passed on when all bytes have left.
    Ending,
    Ended,
}

impl Tunnel {
    /// Takes the endpoint's end.
    pub fn new(connection: Box<Connection>) -> Tunnel {
        Tunnel { connection }
    }

    /// Copies until it ends. Draining ends it too: after the drain deadline the worker drops it.
    pub async fn run(mut self, session: &Session, listener: &LocalListener) {
        let idle = listener.shared.timeouts.idle;
        let (mut up, mut down) = (Way::new(), Way::new());
        let endpoint = &mut self.connection.link;
        let conn = &session.conn;
        // Either end may break: there is nobody left to tell.
        let _ = poll_fn(|cx| {
            let client = &mut *conn.link.borrow_mut();
            let up_done = up.poll(client, endpoint, idle, cx)?;
            let down_done = down.poll(endpoint, client, idle, cx)?;
            match (up_done, down_done) {
                (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(io::Result::Ok(())),
                _ => Poll::Pending,
            }
        })
        .await;
    }
}

impl Way {
    fn new() -> Way {
        Way { outbox: Outbox::new(Vec::new()), phase: Phase::Flowing }
    }

    fn poll(
        &mut self,
        from: &mut Link,
        to: &mut Link,
        idle: Duration,
        cx: &mut Context<'_>,
    ) -> io::Result<Poll<()>> {
        loop {
            if to.poll_flush(&mut self.outbox, idle, cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
            match self.phase {
                Phase::Ended => return Ok(Poll::Ready(())),
                Phase::Ending if Pin::new(&mut to.stream).poll_shutdown(cx)?.is_pending() => {
                    return Ok(Poll::Pending);
                }
                Phase::Ending => self.phase = Phase::Ended,
                Phase::Flowing if from.buffer.is_empty() => match from.poll_fill_within(idle, cx)? {
                    Poll::Pending => return Ok(Poll::Pending),
                    Poll::Ready(0) => self.phase = Phase::Ending,
                    Poll::Ready(_) => {}
                },
                Phase::Flowing => self.outbox.put(from.buffer.split().freeze()),
            }
        }
    }
}
