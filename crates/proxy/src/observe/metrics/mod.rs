//! Metrics: cells that workers count in, merged when somebody looks.
//!
//! Promise: a request costs a few plain stores into cells that only its worker writes ([`cells`]). Labels
//! are resolved to cells when a snapshot is built ([`Registry::route`] and its siblings). A scrape reads the
//! cells of all workers and adds them up; it takes no lock that a request could wait for.
//!
//! Cells live in the registry by their labels, so counters go on across reloads. Those that no snapshot
//! holds any more are kept, up to [`UNHELD_KEPT`] of each kind; beyond, the oldest are dropped.

pub mod cells;
pub mod exposition;
pub mod histogram;
mod render;
mod resources;
mod series;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub use cells::{
    ConsumerCells, Counter, EndpointCells, Gauge, ListenerCells, RouteCells, Summary, UpstreamCells,
};
pub use exposition::{Exposition, Format, Kind, Value};
use series::Series;

use super::access_log::Counts;

/// How many label sets of a kind (routes, upstreams, endpoints, listeners) are kept that no snapshot holds.
pub const UNHELD_KEPT: usize = 1_000;

/// Something that adds families to a scrape: gauges whose truth lives elsewhere, such as an endpoint's state.
pub trait Collector: Send + Sync {
    /// Adds samples. Called on the thread that answers the scrape; it may take its time, but not a lock that
    /// a worker needs.
    fn collect(&self, out: &mut Exposition);
}

/// How a load of the configuration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// This revision runs now.
    Applied(u64),
    /// The document had problems; what ran before runs on.
    Refused,
}

/// All metrics of this process.
pub struct Registry {
    routes: Series<RouteCells, 1>,
    upstreams: Series<UpstreamCells, 1>,
    endpoints: Series<EndpointCells, 2>,
    listeners: Series<ListenerCells, 1>,
    consumers: Series<ConsumerCells, 1>,
    reloads: Reloads,
    access_log: Arc<Counts>,
    collectors: Mutex<Vec<Arc<dyn Collector>>>,
}

/// Written by the control thread only, so plain loads and stores are enough here too.
#[derive(Default)]
struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    revision: AtomicU64,
    last_applied: AtomicBool,
    /// Seconds since the epoch of the last load that was applied.
    at: AtomicU64,
}

impl Registry {
    /// A registry for `workers` workers, numbered from 0.
    pub fn new(workers: usize) -> Registry {
        Registry {
            routes: Series::new(workers, UNHELD_KEPT),
            upstreams: Series::new(workers, UNHELD_KEPT),
            endpoints: Series::new(workers, UNHELD_KEPT),
            listeners: Series::new(workers, UNHELD_KEPT),
            consumers: Series::new(workers, UNHELD_KEPT),
            reloads: Reloads::default(),
            access_log: Arc::default(),
            collectors: Mutex::new(Vec::new()),
        }
    }

    /// The cells of a route on a worker. The empty name is for exchanges that found no route. This and its
    /// siblings take a lock and allocate: call them when a snapshot is built, never for a request.
    pub fn route(&self, worker: usize, route: &str) -> Arc<RouteCells> {
        self.routes.get(worker, [route])
    }

    /// The cells of an upstream on a worker.
    pub fn upstream(&self, worker: usize, upstream: &str) -> Arc<UpstreamCells> {
        self.upstreams.get(worker, [upstream])
    }

    /// The cells of an upstream's endpoint on a worker.
    pub fn endpoint(&self, worker: usize, upstream: &str, endpoint: &str) -> Arc<EndpointCells> {
        self.endpoints.get(worker, [upstream, endpoint])
    }

    /// The cells of a listener on a worker.
    pub fn listener(&self, worker: usize, listener: &str) -> Arc<ListenerCells> {
        self.listeners.get(worker, [listener])
    }

    /// The cells of a consumer on a worker.
    pub fn consumer(&self, worker: usize, consumer: &str) -> Arc<ConsumerCells> {
        self.consumers.get(worker, [consumer])
    }

    /// What became of the access log's lines.
    pub fn access_log(&self) -> Arc<Counts> {
        self.access_log.clone()
    }

    /// Adds a collector, for good: for what lives as long as the process.
    pub fn register(&self, collector: Arc<dyn Collector>) {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).push(collector);
    }

    /// Notes how a load of the configuration ended, the first one included. Control thread only.
    pub fn reloaded(&self, reload: Reload, now: SystemTime) {
        let reloads = &self.reloads;
        reloads.last_applied.store(reload != Reload::Refused, Relaxed);
        match reload {
            Reload::Applied(revision) => {
                let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                reloads.revision.store(revision, Relaxed);
                reloads.at.store(seconds, Relaxed);
                reloads.applied.fetch_add(1, Relaxed);
            }
            Reload::Refused => _ = reloads.refused.fetch_add(1, Relaxed),
        }
    }

    /// Everything, as text. Costs time in proportion to the number of series, and reads /proc: for the
    /// control thread or a blocking one, never for a worker.
    pub fn render(&self, format: Format) -> String {
        let mut out = Exposition::new(format);
        self.write(&mut out);
        resources::collect(&mut out);
        // Copied first: a collector may register another one.
        let collectors = self.collectors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for collector in collectors {
            collector.collect(&mut out);
        }
        out.finish()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
