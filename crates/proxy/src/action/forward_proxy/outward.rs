//! A worker's own part of forward proxying: its resolver, and its idle connections by address.
//!
//! Promise: an idle connection is given out for the address it was made to, never for a name: whoever gets
//! it has had that address allowed just now. At most 256 addresses are remembered; the one that was not used
//! for longest gives way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::observe::metrics::UpstreamCells;
use crate::resolve::{Policy, Resolver};
use crate::stream::Care;
use crate::upstream::config::PoolPolicy;
use crate::upstream::connection::{Connection, Pool};
use crate::upstream::live::Live;

/// Addresses that idle connections are kept for.
const MOST: usize = 256;

const POOLS: PoolPolicy = PoolPolicy {
    max_idle: 8,
    max_connections: None,
    max_requests: None,
    rate: None,
    queue: 0,
    queue_timeout: Duration::ZERO,
    idle_timeout: Duration::from_secs(30),
    max_age: None,
};

/// A worker's own part of forward proxying.
pub struct Outward {
    /// Looks names up.
    pub resolver: Resolver,
    /// Counters.
    pub cells: Arc<UpstreamCells>,
    known: Rc<RefCell<HashMap<SocketAddr, Known>>>,
}

/// An address that requests went to.
pub struct Known {
    /// Its idle connections.
    pub pool: Rc<Pool>,
    /// Its load.
    pub live: Arc<Live>,
    used: Instant,
}

impl Outward {
    /// A worker's part; what `before` has stays: the connections, and the resolver when `dns` is the same.
    pub fn new(
        dns: &Policy,
        before: Option<&Rc<Outward>>,
        cells: impl FnOnce() -> Arc<UpstreamCells>,
    ) -> Rc<Outward> {
        match before {
            Some(before) if before.resolver.policy() == dns => Rc::clone(before),
            _ => Rc::new(Outward {
                resolver: Resolver::new(dns.clone()),
                cells: before.map_or_else(cells, |before| Arc::clone(&before.cells)),
                known: before.map(|before| Rc::clone(&before.known)).unwrap_or_default(),
            }),
        }
    }

    /// An idle connection to one of the addresses.
    pub fn idle(
        &self,
        (addresses, port): (&[IpAddr], u16),
        now: Instant,
        care: Care,
    ) -> Option<(Box<Connection>, SocketAddr)> {
        let mut known = self.known.borrow_mut();
        addresses.iter().find_map(|&address| {
            let address = SocketAddr::new(address, port);
            let entry = known.get_mut(&address)?;
            entry.used = now;
            Some((entry.pool.take(now, care)?, address))
        })
    }

    /// Where the connections to an address are kept, and its load.
    pub fn at(&self, address: SocketAddr, now: Instant) -> (Rc<Pool>, Arc<Live>) {
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST && !known.contains_key(&address) {
            let oldest = known.iter().min_by_key(|(_, entry)| entry.used).map(|(address, _)| *address);
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        let entry = known.entry(address).or_insert_with(|| {
            let live = Arc::new(Live::default());
            Known { pool: Rc::new(Pool::plain(&live, POOLS)), live, used: now }
        });
        entry.used = now;
        (Rc::clone(&entry.pool), Arc::clone(&entry.live))
    }

    /// Closes idle connections that are too old or that their peer has closed, and forgets addresses that
    /// have none left.
    pub fn sweep(&self, now: Instant) {
        self.known.borrow_mut().retain(|_, entry| {
            entry.pool.sweep(now);
            entry.pool.idle() > 0 || now.saturating_duration_since(entry.used) < POOLS.idle_timeout
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Clock;

    #[test]
    fn the_address_that_was_not_used_for_longest_gives_way() {
        let outward = Outward::new(&Policy::default(), None, Arc::default);
        let now = Clock::start().now();
        let address = |index: usize| SocketAddr::from(([192, 0, 2, (index / 256) as u8], 1 + index as u16));
        for index in 0..MOST {
            outward.at(address(index), now + Duration::from_millis(index as u64));
        }
        outward.at(address(0), now + Duration::from_secs(1));
        outward.at(address(MOST), now + Duration::from_secs(2));
        let known = outward.known.borrow();
        assert!(known.len() == MOST && known.contains_key(&address(0)) && !known.contains_key(&address(1)));
    }

    #[test]
    fn addresses_without_connections_are_forgotten_in_time() {
        let outward = Outward::new(&Policy::default(), None, Arc::default);
        let now = Clock::start().now();
        outward.at(SocketAddr::from(([192, 0, 2, 1], 80)), now);
        outward.sweep(now + Duration::from_secs(29));
        assert_eq!(outward.known.borrow().len(), 1);
        outward.sweep(now + Duration::from_secs(30));
        assert!(outward.known.borrow().is_empty());
    }

    #[test]
    fn a_changed_dns_keeps_the_connections_and_not_the_resolver() {
        let outward = Outward::new(&Policy::default(), None, Arc::default);
        let same = Outward::new(&Policy::default(), Some(&outward), Arc::default);
        assert!(Rc::ptr_eq(&outward, &same));
        let mut problems = crate::problem::Problems::new();
        let config = crate::resolve::Config { cache: Some(0), ..Default::default() };
        let changed = config.check(&crate::problem::At::root(), &mut problems);
        let other = Outward::new(&changed, Some(&outward), Arc::default);
        assert!(!Rc::ptr_eq(&outward, &other) && Rc::ptr_eq(&outward.known, &other.known));
    }
}
