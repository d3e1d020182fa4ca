//! Sockets that accept connections: what runs of them in one snapshot, and each worker's part.

pub mod accept;
pub mod admit;
pub mod arrive;
pub mod proxy_header;
pub mod secure;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::model::ListenerPolicy;
use crate::observe::metrics::{ListenerCells, Registry};
use crate::sockets::Bound;
use crate::tls;

/// A worker's part of a listener.
pub struct LocalListener {
    /// What was written about it.
    pub shared: Arc<ListenerPolicy>,
    /// Its name: the worker's own copy, see `upstream::Local::name`.
    pub name: Arc<str>,
    /// Its socket.
    pub bound: Arc<Bound>,
    /// TLS of its clients.
    pub tls: Option<Arc<tls::Server>>,
    /// Counters.
    pub cells: Arc<ListenerCells>,
}

impl LocalListener {
    /// A worker's part.
    pub fn new(
        shared: &Arc<ListenerPolicy>,
        bound: &Arc<Bound>,
        tls: Option<&Arc<tls::Server>>,
        (registry, worker): (&Registry, usize),
    ) -> LocalListener {
        let cells = registry.listener(worker, &shared.name);
        LocalListener {
            shared: Arc::clone(shared),
            name: Arc::from(&*shared.name),
            bound: Arc::clone(bound),
            tls: tls.cloned(),
            cells,
        }
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
