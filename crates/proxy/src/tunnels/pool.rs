//! One place: the tunnels of one route in one domain, and who waits for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_tunnel::registration::Version;
use tokio::sync::oneshot;

use super::{PlaceShared, SCHEME, Slot, Standing, Tunnel, Tunnels};

/// The tunnels of one place. Used under the registry's lock only.
pub(super) struct Pool {
    pub(super) shared: Arc<PlaceShared>,
    /// Of 1.0, the longest idle first; some of them are not pooled any more.
    idle: VecDeque<Arc<Tunnel>>,
    idle_count: usize,
    /// Of 3.0.
    mux: Vec<Arc<Tunnel>>,
    next: usize,
    /// Registered, and given no requests.
    pub(super) dark: Vec<Arc<Tunnel>>,
    prefers: Version,
    waiters: VecDeque<oneshot::Sender<Slot>>,
    /// All that are open, also those in use.
    pub(super) open: usize,
    /// When the last one went.
    gone_at: Option<Instant>,
    /// Tunnels of each connector.
    instances: HashMap<Box<str>, usize>,
}

impl Pool {
    pub(super) fn new(domain: &str, route: &str, now: Instant) -> Pool {
        let route = if route.is_empty() { "*" } else { route };
        let label = match domain {
            "" => format!("{SCHEME}{route}"),
            domain => format!("{SCHEME}{route}@{domain}"),
        };
        Pool {
            shared: Arc::new(PlaceShared { label: label.into(), waiting: AtomicUsize::new(0) }),
            idle: VecDeque::new(),
            idle_count: 0,
            mux: Vec::new(),
            next: 0,
            dark: Vec::new(),
            prefers: Version::V3,
            waiters: VecDeque::new(),
            open: 0,
            gone_at: Some(now),
            instances: HashMap::new(),
        }
    }

    /// Whether requests for it wait rather than go elsewhere: it has tunnels, or lost the last one just now.
    pub(super) fn is_alive(&self, now: Instant, within: Duration) -> bool {
        self.open > 0 || self.gone_at.is_some_and(|gone| now.saturating_duration_since(gone) < within)
    }

    /// Whether anybody may still think of it.
    pub(super) fn is_kept(&self, now: Instant, keep: Duration) -> bool {
        self.is_alive(now, keep) || !self.waiters.is_empty()
    }

    /// A connector has opened a tunnel; true when it is that connector's first here.
    pub(super) fn entered(&mut self, tunnel: &Tunnel) -> bool {
        self.open += 1;
        let count = self.instances.entry(tunnel.origin.instance.clone()).or_default();
        *count += 1;
        *count == 1
    }

    /// A tunnel is over; true when it was its connector's last here.
    pub(super) fn left(&mut self, tunnel: &Arc<Tunnel>, now: Instant) -> bool {
        self.withdraw(tunnel, Standing::Gone);
        self.dark.retain(|other| !Arc::ptr_eq(other, tunnel));
        self.open = self.open.saturating_sub(1);
        self.gone_at = Some(now);
        let Some(count) = self.instances.get_mut(&tunnel.origin.instance) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.instances.remove(&tunnel.origin.instance);
        }
        is_last
    }

    /// It takes no requests from now on.
    pub(super) fn withdraw(&mut self, tunnel: &Arc<Tunnel>, standing: Standing) {
        let was = tunnel.standing();
        tunnel.set_standing(standing);
        match tunnel.origin.version {
            _ if was != Standing::Pooled => {}
            // It stays in the queue until somebody meets it there.
            Version::V1 => self.idle_count -= 1,
            Version::V3 => self.mux.retain(|other| !Arc::ptr_eq(other, tunnel)),
        }
        if self.idle.len() > 2 * self.idle_count + 16 {
            self.idle.retain(|tunnel| tunnel.standing() == Standing::Pooled);
        }
    }

    /// It can be taken: who waits gets it first.
    pub(super) fn offer(&mut self, tunnels: &Arc<Tunnels>, tunnel: &Arc<Tunnel>) {
        tunnel.set_standing(Standing::Pooled);
        match tunnel.origin.version {
            Version::V3 => self.mux.push(Arc::clone(tunnel)),
            Version::V1 => {
                self.idle.push_back(Arc::clone(tunnel));
                self.idle_count += 1;
            }
        }
        self.serve(tunnels);
    }

    /// Gives tunnels to who waits, in order, while there are some.
    pub(super) fn serve(&mut self, tunnels: &Arc<Tunnels>) {
        self.forget_gone();
        while !self.waiters.is_empty() {
            let Some(slot) = self.take(tunnels) else { return };
            if let Some(mut unused) = self.hand_out(slot)
                && let Some(tunnel) = unused.tunnel.take()
            {
                // Not by drop: that would want the lock that is held.
                self.put_back(&tunnel);
            }
        }
    }

    /// Gives a slot to the first who still waits; gives it back when nobody does.
    fn hand_out(&mut self, mut slot: Slot) -> Option<Slot> {
        while let Some(waiter) = self.waiters.pop_front() {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            match waiter.send(slot) {
                Ok(()) => return None,
                Err(unused) => slot = unused,
            }
        }
        Some(slot)
    }

    fn forget_gone(&mut self) {
        while self.waiters.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiters.pop_front();
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Joins the queue; `None` when it is full.
    pub(super) fn wait(&mut self, most: usize) -> Option<oneshot::Receiver<Slot>> {
        self.forget_gone();
        if self.waiters.len() >= most {
            self.waiters.retain(|waiter| !waiter.is_closed());
            self.shared.waiting.store(self.waiters.len(), Ordering::Relaxed);
        }
        if self.waiters.len() >= most {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiters.push_back(sender);
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        Some(receiver)
    }

    /// A tunnel that has room: of both versions by turns.
    pub(super) fn take(&mut self, tunnels: &Arc<Tunnels>) -> Option<Slot> {
        let (taken, other) = match self.prefers {
            Version::V3 => (self.take_mux().or_else(|| self.take_idle()), Version::V1),
            Version::V1 => (self.take_idle().or_else(|| self.take_mux()), Version::V3),
        };
        let tunnel = taken?;
        self.prefers = other;
        tunnel.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Slot { tunnels: Arc::clone(tunnels), tunnel: Some(tunnel) })
    }

    fn take_idle(&mut self) -> Option<Arc<Tunnel>> {
        loop {
            let tunnel = self.idle.pop_front()?;
            if tunnel.standing() == Standing::Pooled {
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

    /// It was not used.
    pub(super) fn put_back(&mut self, tunnel: &Arc<Tunnel>) {
        tunnel.in_flight.fetch_sub(1, Ordering::Relaxed);
        if tunnel.origin.version == Version::V1 && tunnel.standing() == Standing::Out {
            tunnel.set_standing(Standing::Pooled);
            self.idle.push_front(Arc::clone(tunnel));
            self.idle_count += 1;
        }
    }

    /// All that are registered and not in use as a 1.0 one is: what is shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        let idle = self.idle.iter().filter(|tunnel| tunnel.standing() == Standing::Pooled);
        idle.chain(&self.mux).chain(&self.dark)
    }

    /// Idle tunnels of 1.0, and those of 3.0.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.idle_count, self.mux.len())
    }

    /// All that can be taken, taken out.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Tunnel>> {
        self.idle_count = 0;
        let idle = self.idle.drain(..).filter(|tunnel| tunnel.standing() == Standing::Pooled);
        idle.chain(self.mux.drain(..)).chain(self.dark.drain(..)).collect()
    }
}
