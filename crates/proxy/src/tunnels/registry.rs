//! All tunnels of the process, by place.
//!
//! One lock for all of it: held for a few pointer moves for each exchange, and longer only when somebody asks for a
//! report, a connector deregisters, or a reload changes what is dark.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_tunnel::registration::{Unregistered, Version};
use tokio::sync::oneshot;

use super::config::Policy;
use super::darkness::{Darkness, Shade};
use super::line::Order;
use super::mailbox::mailbox;
use super::pool::Pool;
use super::watch::Watching;
use super::{End, Entered, Origin, Refused, Slot, Standing, Tunnel, Unknown, Wanted};
use crate::observe::diagnostic::Diagnostics;

/// Diagnostic lines in a second, at most.
const LINES: u32 = 20;

/// Why there is no tunnel at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nobody ever registered such a route, or long ago.
    Unknown,
    /// None is free now: wait.
    Busy,
    /// So many wait already that nobody else may.
    Crowded,
}

/// All tunnels of the process.
pub struct Tunnels {
    state: Mutex<State>,
    pub(super) diagnostics: Diagnostics,
    pub(super) watching: Watching,
    numbers: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) refused: Vec<AtomicU64>,
    pub(super) unregistered: Vec<AtomicU64>,
    pub(super) ends: Vec<AtomicU64>,
}

/// Routes of a domain.
type Routes = HashMap<Box<str>, Pool>;

#[derive(Default)]
struct State {
    domains: HashMap<Box<str>, Routes>,
    routes: usize,
    addresses: HashMap<IpAddr, usize>,
    policy: Policy,
    darkness: Darkness,
    is_draining: bool,
    lines: u32,
    lines_since: Option<Instant>,
}

impl Tunnels {
    /// None yet.
    pub fn new(diagnostics: &Diagnostics) -> Arc<Tunnels> {
        let counters = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Tunnels {
            state: Mutex::default(),
            diagnostics: diagnostics.clone(),
            watching: Watching::default(),
            numbers: AtomicU64::new(1),
            accepted: AtomicU64::new(0),
            refused: counters(Refused::ALL.len()),
            unregistered: counters(Unregistered::ALL.len()),
            ends: counters(End::ALL.len()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a document says.
    pub fn set_policy(self: &Arc<Self>, policy: Policy) {
        self.set_trace(policy.trace);
        self.change_darkness(|state| {
            state.darkness.write(policy.dark_addresses.clone(), policy.dark_routes.clone());
            state.policy = policy;
        });
    }

    /// Changes what is dark, or the rest of what is set: every tunnel goes where it stands from now on.
    fn change_darkness<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let state = &mut *self.lock();
        let changed = change(state);
        if !state.is_draining {
            for pool in state.domains.values_mut().flat_map(HashMap::values_mut) {
                for tunnel in pool.take_all() {
                    pool.offer(&tunnel, state.darkness.shade_of(&tunnel));
                }
                pool.serve(self, &state.darkness);
            }
        }
        changed
    }

    /// Changes what is dark.
    pub(super) fn with_darkness<T>(self: &Arc<Self>, change: impl FnOnce(&mut Darkness) -> T) -> T {
        self.change_darkness(|state| change(&mut state.darkness))
    }

    /// Asks what is dark.
    pub(super) fn ask_darkness<T>(&self, ask: impl FnOnce(&Darkness) -> T) -> T {
        ask(&self.lock().darkness)
    }

    /// Enters a tunnel whose registration was found in order; from now on it can be taken.
    ///
    /// # Errors
    /// There are too many, or the gateway stops.
    pub fn enter(self: &Arc<Self>, origin: Origin, now: Instant) -> Result<Entered, Refused> {
        let entered = self.try_enter(origin, now);
        match &entered {
            Ok(_) => _ = self.accepted.fetch_add(1, Ordering::Relaxed),
            Err(refused) => self.note_refused(*refused),
        }
        entered
    }

    fn try_enter(self: &Arc<Self>, origin: Origin, now: Instant) -> Result<Entered, Refused> {
        let state = &mut *self.lock();
        if state.is_draining {
            return Err(Refused::Draining);
        }
        let address = origin.peer.ip();
        if state.addresses.get(&address).is_some_and(|count| *count >= state.policy.per_address) {
            return Err(Refused::AddressLimit);
        }
        state.make_room(&origin, now)?;
        let most = state.policy.per_route;
        let pool = state.pool(&origin.domain, &origin.route, now);
        if pool.open >= most {
            return Err(Refused::RouteLimit);
        }
        let (orders, receiver) = mailbox();
        let tunnel = Arc::new(Tunnel {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            place: Arc::clone(&pool.shared),
            origin,
            orders,
            in_flight: AtomicUsize::new(0),
            exchanges: AtomicU64::new(0),
            standing: AtomicU8::new(Standing::Out as u8),
            is_used: AtomicBool::new(false),
        });
        let is_first = pool.entered(&tunnel);
        *state.addresses.entry(address).or_default() += 1;
        if let Some(pool) = state.domains.get_mut(&*tunnel.origin.domain)
            && let Some(pool) = pool.get_mut(&*tunnel.origin.route)
        {
            pool.offer(&tunnel, state.darkness.shade_of(&tunnel));
            pool.serve(self, &state.darkness);
        }
        if is_first && state.may_say(now) {
            self.say("a connector has registered", &tunnel, None);
        }
        Ok(Entered { tunnel, orders: receiver })
    }

    /// A tunnel is over.
    pub(super) fn remove(&self, tunnel: &Arc<Tunnel>, end: End, now: Instant) {
        self.ends[end as usize].fetch_add(1, Ordering::Relaxed);
        let state = &mut *self.lock();
        let is_last = state
            .known(&tunnel.origin.domain, &tunnel.origin.route)
            .is_some_and(|pool| pool.left(tunnel, now));
        let address = tunnel.origin.peer.ip();
        if let Some(count) = state.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                state.addresses.remove(&address);
            }
        }
        if is_last && state.may_say(now) {
            self.say("a connector has left", tunnel, Some(end));
        }
    }

    fn say(&self, message: &str, tunnel: &Tunnel, end: Option<End>) {
        let Origin { peer, component, instance, version, .. } = &tunnel.origin;
        let mut fields: Vec<(&str, &dyn Display)> = vec![
            ("route", &tunnel.place.label),
            ("peer", peer),
            ("component", component),
            ("instance", instance),
            ("version", version),
        ];
        if let Some(end) = &end {
            fields.push(("reason", end));
        }
        self.diagnostics.info(message, &fields);
    }

    /// Counts a registration that was refused.
    pub(super) fn note_refused(&self, refused: Refused) {
        self.refused[refused as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a registration that was malformed.
    pub(super) fn note_unregistered(&self, unregistered: Unregistered) {
        self.unregistered[unregistered as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a tunnel that has room.
    ///
    /// # Errors
    /// There is none at once.
    pub fn take(self: &Arc<Self>, wanted: &Wanted, now: Instant) -> Result<Slot, Missing> {
        self.lock().find(self, wanted, now).map_err(|missing| missing.0)
    }

    /// Takes a tunnel that has room, or joins those who wait for one. A slot that comes to nobody goes back.
    ///
    /// # Errors
    /// Nobody may wait.
    pub fn wait(
        self: &Arc<Self>,
        wanted: &Wanted,
        now: Instant,
    ) -> Result<Result<Slot, oneshot::Receiver<Slot>>, Missing> {
        let state = &mut *self.lock();
        let place = match state.find(self, wanted, now) {
            Ok(slot) => return Ok(Ok(slot)),
            Err((Missing::Busy, place)) => place,
            Err((missing, _)) => return Err(missing),
        };
        let most = state.policy.waiting;
        let Some((domain, route)) = wanted.places.get(place) else { return Err(Missing::Unknown) };
        let waiting = state.pool(domain, route, now).wait(most);
        waiting.map(Err).ok_or(Missing::Crowded)
    }

    /// Whether a route has or had tunnels lately.
    pub fn knows(&self, domain: &str, route: &str, now: Instant) -> bool {
        let state = &mut *self.lock();
        let keep = state.policy.keep;
        state.known(domain, route).is_some_and(|pool| pool.is_kept(now, keep))
    }

    /// A tunnel was not used.
    pub(super) fn give_back(self: &Arc<Self>, tunnel: &Arc<Tunnel>) {
        let state = &mut *self.lock();
        if state.is_draining {
            tunnel.tell(Order::Drain);
        } else {
            let (domains, darkness) = (&mut state.domains, &state.darkness);
            if let Some(pool) = known(domains, &tunnel.origin.domain, &tunnel.origin.route) {
                pool.put_back(tunnel, darkness.shade_of(tunnel));
                pool.serve(self, darkness);
            }
        }
    }

    /// An exchange in it is over.
    pub(super) fn released(self: &Arc<Self>, tunnel: &Arc<Tunnel>) {
        tunnel.in_flight.fetch_sub(1, Ordering::Relaxed);
        if tunnel.origin.version == Version::V3 && tunnel.place.waiting.load(Ordering::Relaxed) > 0 {
            let State { domains, darkness, .. } = &mut *self.lock();
            if let Some(pool) = known(domains, &tunnel.origin.domain, &tunnel.origin.route) {
                pool.serve(self, darkness);
            }
        }
    }

    /// A connector takes no more requests for a route: its idle tunnels close, in all domains. Gives how many tunnels
    /// that concerns.
    pub fn retire(&self, route: &str, instance: &str) -> usize {
        let state = &mut *self.lock();
        let mut count = 0;
        for pool in state.domains.values_mut().filter_map(|routes| routes.get_mut(route)) {
            let mine = |tunnel: &&Arc<Tunnel>| *tunnel.origin.instance == *instance;
            let tunnels: Vec<Arc<Tunnel>> = pool.shown().filter(mine).cloned().collect();
            count += tunnels.len();
            for tunnel in tunnels {
                pool.withdraw(&tunnel, Standing::Out);
                tunnel.tell(Order::Retire);
            }
        }
        count
    }

    /// The gateway stops: no tunnel is taken any more; idle ones close, the others after their last exchange.
    pub fn drain(&self) {
        let state = &mut *self.lock();
        state.is_draining = true;
        for pool in state.domains.values_mut().flat_map(HashMap::values_mut) {
            for tunnel in pool.take_all() {
                tunnel.set_standing(Standing::Out);
                tunnel.tell(Order::Drain);
            }
        }
    }

    /// Whether there is no tunnel at all.
    pub fn is_empty(&self) -> bool {
        self.lock().addresses.is_empty()
    }

    /// Works with all places, in the order of their names.
    pub(super) fn each(&self, mut work: impl FnMut(&str, &str, &Pool)) {
        let state = self.lock();
        let mut places: Vec<(&str, &str, &Pool)> = Vec::with_capacity(state.routes);
        for (domain, routes) in &state.domains {
            places.extend(routes.iter().map(|(route, pool)| (&**domain, &**route, pool)));
        }
        places.sort_unstable_by_key(|(domain, route, _)| (*route, *domain));
        places.into_iter().for_each(|(domain, route, pool)| work(domain, route, pool));
    }
}

fn known<'a>(domains: &'a mut HashMap<Box<str>, Routes>, domain: &str, route: &str) -> Option<&'a mut Pool> {
    domains.get_mut(domain)?.get_mut(route)
}

impl State {
    fn known(&mut self, domain: &str, route: &str) -> Option<&mut Pool> {
        known(&mut self.domains, domain, route)
    }

    fn pool(&mut self, domain: &str, route: &str, now: Instant) -> &mut Pool {
        if self.known(domain, route).is_none() {
            self.routes += 1;
            let routes = self.domains.entry(Box::from(domain)).or_default();
            routes.insert(Box::from(route), Pool::new(domain, route, now));
        }
        let routes = self.domains.entry(Box::from(domain)).or_default();
        routes.entry(Box::from(route)).or_insert_with(|| Pool::new(domain, route, now))
    }

    /// Forgets routes that nobody knows any more, when there are as many as there may be.
    fn make_room(&mut self, origin: &Origin, now: Instant) -> Result<(), Refused> {
        if self.routes < self.policy.routes || self.known(&origin.domain, &origin.route).is_some() {
            return Ok(());
        }
        let keep = self.policy.keep;
        for routes in self.domains.values_mut() {
            routes.retain(|_, pool| pool.is_kept(now, keep));
        }
        self.domains.retain(|_, routes| !routes.is_empty());
        self.routes = self.domains.values().map(HashMap::len).sum();
        match self.routes < self.policy.routes {
            true => Ok(()),
            false => Err(Refused::RoutesLimit),
        }
    }

    /// A tunnel from the first place that serves; else why there is none, and the place to wait at.
    fn find(
        &mut self,
        tunnels: &Arc<Tunnels>,
        wanted: &Wanted,
        now: Instant,
    ) -> Result<Slot, (Missing, usize)> {
        let keep = self.policy.keep;
        let mut known = None;
        let shade = self.darkness.used();
        for (index, (domain, route)) in wanted.places.iter().enumerate() {
            let is_named_dark = shade == Shade::Dark && self.darkness.has_route(route);
            let Some(pool) = self.known(domain, route) else { continue };
            if let Some(slot) = pool.take(tunnels, shade) {
                if shade == Shade::Dark {
                    pool.note_dark(now);
                }
                return Ok(slot);
            }
            let is_alive = match shade {
                Shade::Dark if !is_named_dark => pool.is_alive_dark(now, wanted.wait),
                Shade::Lit | Shade::Dark => pool.is_alive(now, wanted.wait),
            };
            if is_alive {
                // Not to a place that serves less specific requests: bursts would leak there.
                return Err((Missing::Busy, index));
            }
            if known.is_none() && pool.is_kept(now, keep) {
                known = Some(index);
            }
        }
        match (known, wanted.unknown) {
            (Some(index), _) => Err((Missing::Busy, index)),
            (None, Unknown::Waits) => Err((Missing::Busy, 0)),
            (None, Unknown::Refused) => Err((Missing::Unknown, 0)),
        }
    }

    /// Whether a line may be written now.
    fn may_say(&mut self, now: Instant) -> bool {
        let second = Duration::from_secs(1);
        if self.lines_since.is_none_or(|since| now.saturating_duration_since(since) >= second) {
            self.lines_since = Some(now);
            self.lines = 0;
        }
        self.lines += 1;
        self.lines <= LINES
    }
}
