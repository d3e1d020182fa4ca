//! The tunnels of one place that can be taken, lit or dark.

use std::collections::VecDeque;
use std::sync::Arc;

use sluice_tunnel::registration::Version;

use super::darkness::Shade;
use super::{Standing, Tunnel};

/// Tunnels that can be taken. Used under the registry's lock only.
pub(super) struct Shelf {
    /// What stands on it.
    standing: Standing,
    /// Of 1.0, the longest idle first; some of them do not stand here any more.
    idle: VecDeque<Arc<Tunnel>>,
    idle_count: usize,
    /// Of 3.0.
    mux: Vec<Arc<Tunnel>>,
    next: usize,
    prefers: Version,
}

impl Shelf {
    pub(super) fn new(shade: Shade) -> Shelf {
        Shelf {
            standing: match shade {
                Shade::Lit => Standing::Pooled,
                Shade::Dark => Standing::Dark,
            },
            idle: VecDeque::new(),
            idle_count: 0,
            mux: Vec::new(),
            next: 0,
            prefers: Version::V3,
        }
    }

    /// It can be taken, after those of 1.0 that are here.
    pub(super) fn push_back(&mut self, tunnel: &Arc<Tunnel>) {
        tunnel.set_standing(self.standing);
        match tunnel.origin.version {
            Version::V3 => self.mux.push(Arc::clone(tunnel)),
            Version::V1 => {
                self.idle.push_back(Arc::clone(tunnel));
                self.idle_count += 1;
            }
        }
    }

    /// One of 1.0 was not used: it is the next again.
    pub(super) fn push_front(&mut self, tunnel: &Arc<Tunnel>) {
        tunnel.set_standing(self.standing);
        self.idle.push_front(Arc::clone(tunnel));
        self.idle_count += 1;
    }

    /// It stood here, and does no longer.
    pub(super) fn forget(&mut self, tunnel: &Arc<Tunnel>) {
        match tunnel.origin.version {
            // It stays in the queue until somebody meets it there.
            Version::V1 => self.idle_count -= 1,
            Version::V3 => self.mux.retain(|other| !Arc::ptr_eq(other, tunnel)),
        }
        if self.idle.len() > 2 * self.idle_count + 16 {
            self.idle.retain(|tunnel| tunnel.standing() == self.standing);
        }
    }

    /// A tunnel that has room: of both versions by turns.
    pub(super) fn take(&mut self) -> Option<Arc<Tunnel>> {
        let (taken, other) = match self.prefers {
            Version::V3 => (self.take_mux().or_else(|| self.take_idle()), Version::V1),
            Version::V1 => (self.take_idle().or_else(|| self.take_mux()), Version::V3),
        };
        let tunnel = taken?;
        self.prefers = other;
        Some(tunnel)
    }

    fn take_idle(&mut self) -> Option<Arc<Tunnel>> {
        loop {
            let tunnel = self.idle.pop_front()?;
            if tunnel.standing() == self.standing {
                tunnel.set_standing(Standing::Out);
                self.idle_count -= 1;
                return Some(tunnel);
            }
        }
    }

    fn take_mux(&mut self) -> Option<Arc<Tunnel>> {
        for _ in 0..self.mux.len() {
            self.next = (self.next + 1) % self.mux.len();
            let tunnel = &self.mux[self.next];
            if tunnel.in_flight() < tunnel.origin.streams {
                return Some(Arc::clone(tunnel));
            }
        }
        None
    }

    /// Idle tunnels of 1.0, and those of 3.0.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.idle_count, self.mux.len())
    }

    /// All that stand here.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        let idle = self.idle.iter().filter(|tunnel| tunnel.standing() == self.standing);
        idle.chain(&self.mux)
    }

    /// All that stand here, taken off.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<Tunnel>> {
        self.idle_count = 0;
        let standing = self.standing;
        let idle = self.idle.drain(..).filter(move |tunnel| tunnel.standing() == standing);
        idle.chain(self.mux.drain(..))
    }
}
