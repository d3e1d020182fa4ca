//! Sockets that accept connections: what runs of them in one snapshot, and each worker's part.

pub mod accept;
pub mod bind;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use sluice_http::h1::Limits;

use crate::observe::metrics::{ListenerCells, Registry};
use crate::pipeline::forwarded;

/// A listener, checked: defaults applied.
#[derive(Clone, Debug)]
pub struct ListenerPolicy {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Who is believed, and what endpoints are told.
    pub forwarded: forwarded::Policy,
    /// Times.
    pub timeouts: ListenerTimeouts,
    /// Limits of heads.
    pub limits: Limits,
    /// The most bytes of a request body.
    pub body_limit: u64,
    /// The most open connections.
    pub connections: u32,
    /// Requests of one connection.
    pub requests_per_connection: u32,
}

/// Times of a listener, with defaults.
#[derive(Clone, Copy, Debug)]
pub struct ListenerTimeouts {
    /// For a head.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Without a byte of a body.
    pub stall: Duration,
    /// For an exchange.
    pub total: Option<Duration>,
}

/// What is shared by all workers and kept over changes by name and address.
pub struct Bound {
    /// The address as configured.
    pub configured: SocketAddr,
    /// The address that was bound: the port is the real one where 0 was configured.
    pub address: SocketAddr,
    connections: AtomicU32,
    closed: AtomicBool,
}

impl Bound {
    /// Takes note of a bound socket.
    pub fn new(configured: SocketAddr, address: SocketAddr) -> Arc<Bound> {
        let (connections, closed) = (AtomicU32::new(0), AtomicBool::new(false));
        Arc::new(Bound { configured, address, connections, closed })
    }

    /// Open connections of all workers.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// It was removed from the configuration.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether it was removed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// A worker's part of a listener.
pub struct LocalListener {
    /// What was written about it.
    pub shared: Arc<ListenerPolicy>,
    /// Its socket.
    pub bound: Arc<Bound>,
    /// Counters.
    pub cells: Arc<ListenerCells>,
}

impl LocalListener {
    /// A worker's part.
    pub fn new(
        shared: &Arc<ListenerPolicy>,
        bound: &Arc<Bound>,
        registry: &Registry,
        worker: usize,
    ) -> LocalListener {
        let cells = registry.listener(worker, &shared.name);
        LocalListener { shared: Arc::clone(shared), bound: Arc::clone(bound), cells }
    }

    /// Whether it was removed from the configuration.
    pub fn is_closed(&self) -> bool {
        self.bound.is_closed()
    }
}

/// An open connection; counts until it is dropped.
pub struct Open {
    bound: Arc<Bound>,
    cells: Arc<ListenerCells>,
    worker: Rc<Cell<usize>>,
}

impl Open {
    /// Counts a connection of a listener and of a worker.
    pub fn count(listener: &LocalListener, worker: &Rc<Cell<usize>>) -> Open {
        listener.bound.connections.fetch_add(1, Ordering::Relaxed);
        listener.cells.opened();
        worker.set(worker.get() + 1);
        Open {
            bound: Arc::clone(&listener.bound),
            cells: Arc::clone(&listener.cells),
            worker: Rc::clone(worker),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.bound.connections.fetch_sub(1, Ordering::Relaxed);
        self.cells.closed();
        self.worker.set(self.worker.get() - 1);
    }
}
