//! Connections: accepted, bounded in number and time, drained at the end.
//!
//! Promise: a client that is slow, silent or greedy holds one of a fixed number of connections, and that for
//! a bounded time; when asked to stop, answers under way are finished and idle connections closed.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::address::is_loopback;
use crate::{Gateway, endpoints};

/// What a connection may hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Open at once; further ones wait in the socket's backlog.
    pub(crate) connections: usize,
    /// From the start of a head to its end, and between two requests.
    pub(crate) head: Duration,
    /// Of a connection; an answer under way is finished after it.
    pub(crate) life: Duration,
    /// For finishing that answer, also when the server stops.
    pub(crate) grace: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 128,
    head: Duration::from_secs(10),
    life: Duration::from_secs(120),
    grace: Duration::from_secs(10),
};

/// Bytes of a request head. There is no limit for bodies: no endpoint reads one, and a connection whose
/// request had a body that was not read is closed.
const HEAD_LIMIT: usize = 16 << 10;

/// Serves the admin endpoints until `shutdown` is ready, then finishes what is under way.
///
/// # Errors
/// The listener's address is not loopback, or cannot be told. Failures to accept are waited out.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<dyn Gateway>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_within(listener, gateway, shutdown, BOUNDS).await
}

pub(crate) async fn serve_within(
    listener: TcpListener,
    gateway: Arc<dyn Gateway>,
    shutdown: impl Future<Output = ()>,
    bounds: Bounds,
) -> io::Result<()> {
    if !is_loopback(listener.local_addr()?.ip()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the admin endpoints listen on loopback only",
        ));
    }
    let router = endpoints::router(gateway);
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &slots) => match accepted {
                Ok((stream, slot)) => {
                    connections.spawn(connection(stream, slot, router.clone(), stopped.clone(), bounds));
                }
                // Out of descriptors or memory: others have to give some back first.
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
        }
    }
    drop(listener);
    drop(stop);
    // Each ends within `grace` by itself.
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn connection(
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
    router: Router,
    mut stopped: watch::Receiver<()>,
    bounds: Bounds,
) {
    // An answer is one write: waiting for more of it would only delay it.
    _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        // Errors are the client's: it left, or sent what is not HTTP.
        _ = &mut connection => return,
        _ = stopped.changed() => {}
        () = sleep(bounds.life) => {}
    }
    connection.as_mut().graceful_shutdown();
    _ = timeout(bounds.grace, connection).await;
}
