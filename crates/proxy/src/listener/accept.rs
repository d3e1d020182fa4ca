//! The accept loop of one listener on one worker.
//!
//! Promise: it never ends on an error; when the process is out of descriptors it waits; at the listener's
//! connection limit it stops accepting, so that further clients wait in the kernel's backlog; when the
//! listener is removed, what waits in the backlog is served before the socket closes.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::{LocalListener, arrive};
use crate::stream::Socket;
use crate::worker::Worker;

/// How long accepting pauses at the limit or without descriptors.
const PAUSE: Duration = Duration::from_millis(20);

/// So many connections that wait in the backlog are still served when the listener goes.
const LAST_ACCEPTS: u32 = 1024;

/// A socket that connections come from.
pub enum Acceptor {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix stream socket; its peers have no address and count as 127.0.0.1:0.
    Unix(UnixListener),
}

impl Acceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, SocketAddr)>> {
        Poll::Ready(Ok(match self {
            Acceptor::Tcp(socket) => {
                let (stream, peer) = ready!(socket.poll_accept(cx))?;
                (Socket::Tcp(stream), peer)
            }
            Acceptor::Unix(socket) => {
                let (stream, _) = ready!(socket.poll_accept(cx))?;
                (Socket::Unix(stream), SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0))
            }
        }))
    }
}

/// Accepts until the listener is removed or the worker drains.
pub async fn run(worker: Rc<Worker>, mut listener: Rc<LocalListener>, socket: Acceptor) {
    let deadline = worker.world.timers.deadline();
    let mut last = LAST_ACCEPTS;
    let mut failing = false;
    while last > 0 {
        if listener.is_closed() || worker.is_draining() {
            last -= 1;
        }
        // Looked at again now and then: a drain or a removed listener wakes nobody here.
        deadline.set(worker.world.clock.now(), Duration::from_secs(1));
        let accepted = poll_fn(|cx| match socket.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            _ if listener.is_closed() || worker.is_draining() => Poll::Ready(None),
            Poll::Pending if deadline.poll_passed(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        match accepted {
            Some(Ok((socket, peer))) => {
                failing = false;
                // It may have changed while nobody came.
                listener = worker.running().listener(&listener);
                arrive::arrive(&worker, &listener, socket, peer);
            }
            // The client gave up while it waited; or there are no descriptors: wait for some.
            Some(Err(error)) if is_about_the_client(&error) => {}
            Some(Err(error)) => {
                // Said once for each time it begins, not fifty times a second.
                if !std::mem::replace(&mut failing, true) {
                    let fields: [(&str, &dyn std::fmt::Display); 2] =
                        [("listener", &listener.shared.name), ("error", &error)];
                    worker.gateway.diagnostics.warn("accept failed", &fields);
                }
                deadline.set(worker.world.clock.now(), PAUSE);
                deadline.passed().await;
            }
            None if listener.is_closed() || worker.is_draining() => return,
            None => {}
        }
        listener = worker.running().listener(&listener);
        while listener.bound.connections() >= listener.shared.connections
            && !listener.is_closed()
            && !worker.is_draining()
        {
            deadline.set(worker.world.clock.now(), PAUSE);
            deadline.passed().await;
            listener = worker.running().listener(&listener);
        }
    }
}

fn is_about_the_client(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted)
}
