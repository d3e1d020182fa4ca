//! What an endpoint is right now: health, load, latency, breaker. Shared by all workers, kept by identity
//! (upstream name and address) over configuration changes.
//!
//! Promise: reading and writing take no lock; every number returns to zero when traffic ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sluice_traffic::Moment;
use sluice_traffic::breaker::Breaker;
use sluice_traffic::ejection::Ejection;
use sluice_traffic::latency::PeakEwma;

pub use sluice_traffic::health::Health;

use crate::gate::Permit;

/// How fast an endpoint's latency is forgotten.
const LATENCY_MEMORY: Duration = Duration::from_secs(10);

/// The live state of one endpoint.
pub struct Live {
    in_flight: AtomicU32,
    health: AtomicU8,
    /// Since when it has been up again, in nanoseconds of the clock; 0: since the start.
    up_since: AtomicU64,
    /// Requests that wait for one of its connections.
    pub waiting: AtomicUsize,
    /// When it has had its share of requests, for the bucket that limits how fast they come.
    pub turn: AtomicU64,
    /// Its breaker.
    pub breaker: Breaker,
    /// Its passive ejection.
    pub ejection: Ejection,
    /// How long it takes to answer.
    pub latency: PeakEwma,
}

impl Default for Live {
    fn default() -> Live {
        Live {
            in_flight: AtomicU32::new(0),
            health: AtomicU8::new(Health::Unknown as u8),
            up_since: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            turn: AtomicU64::new(0),
            breaker: Breaker::default(),
            ejection: Ejection::default(),
            latency: PeakEwma::new(LATENCY_MEMORY),
        }
    }
}

impl Live {
    /// Attempts at it that have not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What active checks say.
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            1 => Health::Healthy,
            2 => Health::Unhealthy,
            _ => Health::Unknown,
        }
    }

    /// Notes what active checks say. Coming back starts its slow start.
    pub fn set_health(&self, health: Health, now: Moment) {
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        if health == Health::Healthy && before == Health::Unhealthy as u8 {
            self.up_since.store(now.0.max(1), Ordering::Relaxed);
        }
    }

    /// How long it has been up again; `None` when it has been up since the start.
    pub fn up_for(&self, now: Moment) -> Option<u64> {
        match self.up_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(now.0.saturating_sub(since)),
        }
    }
}

/// An attempt in flight; ends when it is dropped.
pub struct InFlight(Arc<Live>, Option<Permit>);

impl InFlight {
    /// Counts an attempt.
    pub fn begin(live: &Arc<Live>) -> InFlight {
        live.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(live), None)
    }

    /// Keeps a place at the endpoint until it ends.
    pub fn holding(self, place: Option<Permit>) -> InFlight {
        let mut own = self;
        own.1 = place;
        own
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
