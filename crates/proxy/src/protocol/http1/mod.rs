//! HTTP/1 server connections: one task each, one exchange after the other.
//!
//! Promise: a connection between two exchanges owns no buffer and a small task; everything an exchange
//! needs lives in a box that exists from its first byte to its last. Drain ends idle connections at once
//! and the others after their exchange.

mod answer;
mod conn;
mod exchange;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

pub use conn::Conn;

use super::{Arrival, http2, tunnel};
use crate::listener::LocalListener;
use crate::relay::Lasting;
use crate::wire::Link;

/// What a connection does after an exchange.
pub enum Next {
    /// It waits for another request.
    Again,
    /// It waits for this request: nothing of it has arrived.
    Wait,
    /// It closes, letting the client read what was sent.
    Close,
    /// It closes at once: nobody is there, or nothing more can come.
    Gone,
    /// It goes on in HTTP/2: the preface stands in the buffer.
    Http2,
    /// It goes on as a tunnel.
    Tunnel(Box<Lasting>),
}

/// One connection and who it belongs to.
pub struct Session {
    /// Where it lives, and who is at the other end.
    pub arrival: Arrival,
    /// The connection.
    pub conn: Rc<Conn>,
}

/// How long a connection that was accepted while we stop may take to begin its request.
const LAST_CHANCE: std::time::Duration = std::time::Duration::from_millis(500);

/// Serves a connection until it ends.
pub async fn serve(session: Session, listener: Rc<LocalListener>) {
    let mut listener = listener;
    let mut served = 0;
    let mut now = session.arrival.worker.world.clock.now();
    loop {
        if !session.conn.has_bytes() && !session.wait(&listener, served, now).await {
            return;
        }
        let running = session.arrival.worker.running();
        listener = running.listener(&listener);
        // In a block, and boxed: what comes after has no room in the task of an idle connection.
        let rest: LocalFuture = {
            let (next, ended) = Box::pin(exchange::run(&session, &listener, running, served + 1)).await;
            match next {
                Next::Wait => {
                    session.conn.rest_between();
                    continue;
                }
                Next::Again => {
                    served += 1;
                    now = ended;
                    session.conn.rest_between();
                    continue;
                }
                Next::Gone => return,
                Next::Close => Box::pin(async move { session.conn.linger(ended).await }),
                Next::Http2 => {
                    let Some((arrival, link)) = session.leave() else { return };
                    Box::pin(http2::serve(arrival, listener, link))
                }
                // It is part of no configuration any more.
                Next::Tunnel(lasting) => {
                    drop(listener);
                    let Some((arrival, link)) = session.leave() else { return };
                    Box::pin(tunnel::serve(arrival.worker, link, lasting))
                }
            }
        };
        return rest.await;
    }
}

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

impl Session {
    /// A connection that has begun.
    pub fn new(arrival: Arrival, link: Link) -> Session {
        Session { conn: Conn::new(link), arrival }
    }

    /// The connection alone, when HTTP/1 is over on it.
    fn leave(self) -> Option<(Arrival, Link)> {
        Some((self.arrival, Rc::into_inner(self.conn).map(Conn::into_link)?))
    }

    /// Waits for the first byte of a request; false when the connection is over instead. A client that
    /// was accepted while we stop has a moment for its first request.
    async fn wait(&self, listener: &LocalListener, served: u32, now: Instant) -> bool {
        self.conn.link.borrow_mut().expect_within(now, listener.shared.timeouts.idle);
        let mut last_chance = false;
        poll_fn(|cx| {
            let mut link = self.conn.link.borrow_mut();
            if let Poll::Ready(ready) = link.stream.poll_read_ready(cx) {
                return Poll::Ready(ready.is_ok());
            }
            if self.arrival.worker.is_draining() || listener.is_closed() {
                if served > 0 {
                    return Poll::Ready(false);
                }
                if !last_chance {
                    last_chance = true;
                    link.expect_within(self.arrival.worker.world.clock.now(), LAST_CHANCE);
                }
            }
            if link.deadline.poll_passed(cx) { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Running;

    type Run<F> = fn(&'static Session, &'static Rc<LocalListener>, Rc<Running>, u32) -> F;
    type Serve<F> = fn(Session, Rc<LocalListener>) -> F;

    fn size_of_run<F>(_: Run<F>) -> usize {
        size_of::<F>()
    }

    fn size_of_serve<F>(_: Serve<F>) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_exchange_and_an_idle_connection_stay_small() {
        let exchange = size_of_run(|session, listener, running, served| {
            exchange::run(session, listener, running, served)
        });
        assert!(exchange <= 4224, "the future of an exchange has grown to {exchange} bytes");
        let idle = size_of_serve(serve) + size_of::<Conn>();
        assert!(idle <= 448, "the task and state of an idle connection has grown to {idle} bytes");
    }
}
