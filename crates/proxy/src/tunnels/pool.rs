//! One place: the tunnels of one route in one domain, and who waits for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_tunnel::registration::Version;
use tokio::sync::oneshot;

use super::darkness::{Darkness, Shade};
use super::shelf::Shelf;
use super::{PlaceShared, SCHEME, Slot, Standing, Tunnel, Tunnels};

/// The tunnels of one place. Used under the registry's lock only.
pub(super) struct Pool {
    pub(super) shared: Arc<PlaceShared>,
    lit: Shelf,
    dark: Shelf,
    waiters: VecDeque<oneshot::Sender<Slot>>,
    /// All that are open, also those in use.
    pub(super) open: usize,
    /// When the last one went.
    gone_at: Option<Instant>,
    /// When a dark one was taken last.
    dark_at: Option<Instant>,
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
            lit: Shelf::new(Shade::Lit),
            dark: Shelf::new(Shade::Dark),
            waiters: VecDeque::new(),
            open: 0,
            gone_at: Some(now),
            dark_at: None,
            instances: HashMap::new(),
        }
    }

    fn shelf(&mut self, shade: Shade) -> &mut Shelf {
        match shade {
            Shade::Lit => &mut self.lit,
            Shade::Dark => &mut self.dark,
        }
    }

    /// Whether requests for it wait rather than go elsewhere: it has tunnels, or lost the last one just now.
    pub(super) fn is_alive(&self, now: Instant, within: Duration) -> bool {
        self.open > 0 || is_lately(self.gone_at, now, within)
    }

    /// The same of requests that use what is dark.
    pub(super) fn is_alive_dark(&self, now: Instant, within: Duration) -> bool {
        self.dark.counts() != (0, 0) || is_lately(self.dark_at, now, within)
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
        match was {
            Standing::Pooled => self.lit.forget(tunnel),
            Standing::Dark => self.dark.forget(tunnel),
            Standing::Out | Standing::Gone => {}
        }
    }

    /// It can be taken.
    pub(super) fn offer(&mut self, tunnel: &Arc<Tunnel>, shade: Shade) {
        self.shelf(shade).push_back(tunnel);
    }

    /// Gives tunnels to who waits, in order, while there are some where requests look.
    pub(super) fn serve(&mut self, tunnels: &Arc<Tunnels>, darkness: &Darkness) {
        self.forget_gone();
        while !self.waiters.is_empty() {
            let Some(slot) = self.take(tunnels, darkness.used()) else { return };
            if let Some(mut unused) = self.hand_out(slot)
                && let Some(tunnel) = unused.tunnel.take()
            {
                // Not by drop: that would want the lock that is held.
                self.put_back(&tunnel, darkness.shade_of(&tunnel));
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

    /// A tunnel that has room.
    pub(super) fn take(&mut self, tunnels: &Arc<Tunnels>, shade: Shade) -> Option<Slot> {
        let tunnel = self.shelf(shade).take()?;
        tunnel.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Slot { tunnels: Arc::clone(tunnels), tunnel: Some(tunnel) })
    }

    /// A dark one was taken.
    pub(super) fn note_dark(&mut self, now: Instant) {
        self.dark_at = Some(now);
    }

    /// It was not used.
    pub(super) fn put_back(&mut self, tunnel: &Arc<Tunnel>, shade: Shade) {
        tunnel.in_flight.fetch_sub(1, Ordering::Relaxed);
        if tunnel.origin.version == Version::V1 && tunnel.standing() == Standing::Out {
            self.shelf(shade).push_front(tunnel);
        }
    }

    /// All that are registered and not in use as a 1.0 one is: what is shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        self.lit.all().chain(self.dark.all())
    }

    /// Idle tunnels of 1.0, and those of 3.0.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.lit.counts()
    }

    /// Those of both that are dark.
    pub(super) fn dark(&self) -> usize {
        let (idle, multiplexed) = self.dark.counts();
        idle + multiplexed
    }

    /// All that can be taken, taken out.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Tunnel>> {
        self.lit.drain().chain(self.dark.drain()).collect()
    }
}

fn is_lately(moment: Option<Instant>, now: Instant, within: Duration) -> bool {
    moment.is_some_and(|moment| now.saturating_duration_since(moment) < within)
}
