//! Reaching an endpoint: which one (`pick`, `affinity`), over which connection (`reach`, `connection`,
//! `http2`), and one exchange with it (`send`).
//!
//! [`Upstream`] is shared by all workers and belongs to one snapshot; [`Local`] is a worker's own part of
//! it. What survives a change by identity is in [`live::Live`] (shared), [`connection::Pool`] and the
//! balancer's position (each worker's).

pub mod affinity;
pub mod attempt;
pub mod call;
pub mod config;
pub mod connection;
pub mod discovery;
pub mod http2;
pub mod limits;
pub mod live;
pub mod pick;
pub mod proxy_header;
pub mod reach;
pub mod send;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use sluice_traffic::Moment;
use sluice_traffic::balance::{Balancer, Member};
use sluice_traffic::breaker::Change;
use sluice_traffic::ejection::Group;
use sluice_traffic::limit::Permit;
use sluice_traffic::retry::Budget;
use tokio::sync::Semaphore;

pub use config::Config;
use config::{EndpointPolicy, Policy};
use connection::Pool;
use live::Live;

use crate::address::Address;
use crate::circuit::Circuit;
use crate::failure::Failure;
use crate::gates::Limited;
use crate::observe::metrics::{EndpointCells, Registry, UpstreamCells};
use crate::tls;
use crate::tunnels::Tunnels;
use crate::world::World;

/// A group of interchangeable endpoints, as it runs in one snapshot.
pub struct Upstream {
    /// Its name.
    pub name: Arc<str>,
    /// How it is used.
    pub policy: Policy,
    /// Its endpoints, in the order written.
    pub endpoints: Vec<Endpoint>,
    /// TLS to its endpoints; None: plain.
    pub tls: Option<Arc<tls::Client>>,
    /// Where its tunnels are, when it is reached through tunnels.
    pub tunnels: Option<Arc<Tunnels>>,
    /// Whose passive ejections are decided together.
    pub group: Arc<Group>,
    /// The breaker of all endpoints together.
    pub circuit: Option<Circuit>,
    /// How many may run at once at all of them.
    pub gate: Option<Limited>,
    /// Affinity cookie values and the endpoints they name.
    pub tokens: HashMap<String, usize>,
}

/// One address of an upstream, as it runs in one snapshot.
pub struct Endpoint {
    /// "host:port" or "unix:/path" as written.
    pub address: Arc<str>,
    /// What the host resolved to when the configuration was loaded.
    pub addresses: Vec<Address>,
    /// Weight, role, state.
    pub policy: EndpointPolicy,
    /// Its live state, kept over changes.
    pub live: Arc<Live>,
    /// Places for connections, when they are limited.
    pub limit: Option<Arc<Semaphore>>,
    /// How many requests may run at it at once.
    pub gate: Option<Limited>,
    /// The value of the affinity cookie that names it.
    pub token: String,
}

/// Whom a worker tells what concerns all of them.
pub trait Events {
    /// Every worker should give up its idle connections to an endpoint: somebody waits for a place.
    fn shed(&self, live: &Arc<Live>);

    /// The breaker of an endpoint changed its state.
    fn breaker_changed(&self, upstream: &Upstream, index: usize, change: Change);

    /// The breaker around a route or upstream changed its state.
    fn circuit_changed(&self, circuit: &Circuit, change: Change);
}

/// A worker's own part of an upstream.
pub struct Local {
    /// The shared part.
    pub shared: Arc<Upstream>,
    /// Its name. Exchanges keep names by counted reference: a worker counts its own, because a count that
    /// all workers change would make them wait for each other's caches.
    pub name: Arc<str>,
    /// The endpoints' addresses, likewise.
    pub addresses: Vec<Arc<str>>,
    /// A pool for each endpoint.
    pub pools: Vec<Rc<Pool>>,
    /// Counters.
    pub cells: Arc<UpstreamCells>,
    /// Counters for each endpoint.
    pub endpoint_cells: Vec<Arc<EndpointCells>>,
    balancer: RefCell<Balancer>,
    /// Spreads affinity by header or address.
    sticky: RefCell<Option<Balancer>>,
    budget: Rc<RefCell<Budget>>,
}

impl Local {
    /// A worker's part of `shared`; takes over pools, positions and budget from `before`, its part of the
    /// same upstream in the snapshot before.
    pub fn new(shared: Arc<Upstream>, before: Option<&Local>, registry: &Registry, worker: usize) -> Local {
        let members: Vec<Member<'_>> = shared.endpoints.iter().map(Endpoint::member).collect();
        let mut balancer = Balancer::new(&shared.policy.balance, &members);
        if let Some(before) = before {
            balancer.adopt(&before.balancer.borrow(), |index| before.index_of(&shared.endpoints[index].live));
        }
        let sticky = match &shared.policy.affinity {
            Some(affinity::Policy { by: affinity::By::Header(_) | affinity::By::Client, .. }) => {
                Some(Balancer::new(
                    &sluice_traffic::balance::Config::from(sluice_traffic::balance::Kind::SourceHash),
                    &members,
                ))
            }
            _ => None,
        };
        let budget = before.map_or_else(
            || Rc::new(RefCell::new(Budget::new(shared.policy.budget))),
            |before| {
                before.budget.borrow_mut().set_policy(shared.policy.budget);
                Rc::clone(&before.budget)
            },
        );
        Local {
            pools: shared.endpoints.iter().map(|endpoint| pool(endpoint, &shared, before)).collect(),
            cells: registry.upstream(worker, &shared.name),
            endpoint_cells: (shared.endpoints.iter())
                .map(|endpoint| registry.endpoint(worker, &shared.name, &endpoint.address))
                .collect(),
            name: Arc::from(&*shared.name),
            addresses: shared.endpoints.iter().map(|endpoint| Arc::from(&*endpoint.address)).collect(),
            balancer: RefCell::new(balancer),
            sticky: RefCell::new(sticky),
            budget,
            shared,
        }
    }

    fn index_of(&self, live: &Arc<Live>) -> Option<usize> {
        self.shared.endpoints.iter().position(|endpoint| Arc::ptr_eq(&endpoint.live, live))
    }

    /// Closes idle connections that are too old or that the endpoint has closed.
    pub fn sweep(&self, now: std::time::Instant) {
        for (pool, cells) in self.pools.iter().zip(&self.endpoint_cells) {
            pool.sweep(now);
            cells.idle.add(pool.idle() as i64 - cells.idle.get());
        }
    }
}

fn pool(endpoint: &Endpoint, upstream: &Upstream, before: Option<&Local>) -> Rc<Pool> {
    let kept = before.and_then(|before| before.pools.iter().find(|pool| pool.serves(&endpoint.live)));
    match kept {
        Some(pool) => {
            pool.adopt(upstream);
            Rc::clone(pool)
        }
        None => Rc::new(Pool::new(&endpoint.live, upstream)),
    }
}

impl Endpoint {
    /// What stands for it where a Host is wanted.
    pub fn host(&self) -> &str {
        match self.addresses.first() {
            Some(Address::Unix(_)) => "localhost",
            // A service behind a tunnel.
            None => self.address.strip_prefix(crate::tunnels::SCHEME).unwrap_or(&self.address),
            _ => &self.address,
        }
    }

    /// Whether another request may go to it now.
    pub fn has_room(&self, policy: &Policy, now: Moment) -> bool {
        self.gate.as_ref().is_none_or(Limited::has_room)
            && policy.pool.rate.is_none_or(|bucket| bucket.has_permit(&self.live.turn, now))
    }

    /// Lets one go to it when that is not too fast, maybe after a wait. Dropping it while it waits gives up its
    /// turn.
    ///
    /// # Errors
    /// [`Failure::Overloaded`]: too many wait, or it would have to wait for too long.
    pub async fn turn(&self, policy: &Policy, world: &World) -> Result<(), Failure> {
        let Some(bucket) = policy.pool.rate else { return Ok(()) };
        match bucket.decide_on(&self.live.turn, world.clock.moment(world.clock.now())).permit {
            Permit::Now => {}
            Permit::After(wait) => Box::pin(tokio::time::sleep(wait)).await,
            Permit::Refused(_) => return Err(Failure::Overloaded),
        }
        Ok(())
    }

    fn member(&self) -> Member<'_> {
        Member { key: &self.address, weight: self.policy.weight }
    }
}
