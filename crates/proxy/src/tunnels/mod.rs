//! Reverse tunnels of this process: which services are there, and through which tunnel a request goes.
//!
//! A tunnel is an actor ([`actor::Actor`]): it lives on the worker that accepted its connection, and is reached from
//! exchanges on any worker by messages (`line`). [`Tunnels`] knows all of them (`pool` is one place of it); it
//! belongs to the process, not to a snapshot, so a reload keeps every tunnel. Read `announced` (how one comes to be),
//! `line`, `actor`, `shelf`, `pool`, `registry`.
//!
//! Promise: a tunnel of 1.0 carries one exchange, and one that was not used goes back; who waits is served in order;
//! every event costs the same however many tunnels and exchanges there are; what a peer can make wait is bounded.

pub mod actor;
pub mod announced;
pub mod config;
pub mod darkness;
mod ends;
pub mod line;
mod mailbox;
mod orders;
mod pool;
mod registry;
mod report;
mod shelf;
#[cfg(test)]
mod tests;
mod trace;
pub mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sluice_http::reasons::reasons;
use sluice_tunnel::registration::{Extensions, Unregistered, Version};

use crate::failure::Failure;
pub use ends::End;
use line::{Line, Order};
pub use registry::{Missing, Tunnels};

/// What stands before the route in the address of an endpoint that is reached through tunnels.
pub const SCHEME: &str = "tunnel:";

/// Which tunnels may carry a request: places in the order they are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Domain and route of each; empty: all domains, every path.
    pub places: Vec<(Box<str>, Box<str>)>,
    /// How long a request waits for a tunnel.
    pub wait: Duration,
    /// What becomes of a request whose places nobody ever registered.
    pub unknown: Unknown,
}

/// What becomes of a request for a route that nobody registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It is refused at once.
    Refused,
    /// It waits: the route stands in the configuration.
    Waits,
}

reasons! {
    /// Why a registration was refused, beside what is wrong with its head. Codes are those of the failures.
    pub enum Refused {
        Address "tunnel-address-denied" "the peer's address is not allowed",
        Token "tunnel-token-missing" "the token is missing or wrong",
        Route "tunnel-route-denied" "this route may not be registered here",
        AddressLimit "tunnel-address-limit" "this address has as many tunnels as it may",
        RouteLimit "tunnel-route-limit" "this route has as many tunnels as it may",
        RoutesLimit "tunnel-routes-limit" "there are as many routes as there may be",
        Draining "draining" "the gateway is stopping",
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        match refused {
            Refused::Address => Failure::TunnelAddressDenied,
            Refused::Token => Failure::TunnelTokenMissing,
            Refused::Route => Failure::TunnelRouteDenied,
            Refused::AddressLimit => Failure::TunnelAddressLimit,
            Refused::RouteLimit => Failure::TunnelRouteLimit,
            Refused::RoutesLimit => Failure::TunnelRoutesLimit,
            Refused::Draining => Failure::Draining,
        }
    }
}

/// The failure of a registration whose head is not in order.
fn unregistered(reason: Unregistered) -> Failure {
    match reason {
        Unregistered::NotWebSocket => Failure::TunnelNotWebsocket,
        Unregistered::NoVersion => Failure::TunnelNoVersion,
        Unregistered::BadRoute => Failure::TunnelBadRoute,
        Unregistered::BadName => Failure::TunnelBadName,
    }
}

/// What a connector said of a tunnel, and where it comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The version that is spoken.
    pub version: Version,
    /// Its domain; empty: all.
    pub domain: Box<str>,
    /// Its route; empty: every path.
    pub route: Box<str>,
    /// Its connector's instance.
    pub instance: Box<str>,
    /// Its connector's name, for people.
    pub component: Box<str>,
    /// The connector's address.
    pub peer: SocketAddr,
    /// What both ends know beyond the protocol.
    pub extensions: Extensions,
    /// Exchanges at a time.
    pub streams: usize,
}

/// Where a tunnel stands with the registry. Changed under its lock only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Standing {
    /// It can be taken.
    Pooled,
    /// It can be taken by requests that use what is dark.
    Dark,
    /// It takes no request: in use (1.0), or its connector has deregistered.
    Out,
    /// It is over.
    Gone,
}

/// A tunnel, as everybody but its own task sees it.
#[derive(Debug)]
pub struct Tunnel {
    /// Its number in this process.
    pub number: u64,
    /// What its connector said.
    pub origin: Origin,
    /// What it shares with the tunnels of the same place.
    place: Arc<PlaceShared>,
    orders: mailbox::Sender<Order>,
    in_flight: AtomicUsize,
    exchanges: AtomicU64,
    standing: AtomicU8,
    is_used: AtomicBool,
}

/// A tunnel that the registry has taken in, for its own task.
#[derive(Debug)]
pub struct Entered {
    tunnel: Arc<Tunnel>,
    orders: mailbox::Receiver<Order>,
}

/// What the tunnels of a place share.
#[derive(Debug)]
struct PlaceShared {
    /// "tunnel:my-service", for logs.
    label: Arc<str>,
    /// Exchanges that wait for one.
    waiting: AtomicUsize,
}

impl Tunnel {
    fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Relaxed) {
            0 => Standing::Pooled,
            1 => Standing::Dark,
            2 => Standing::Out,
            _ => Standing::Gone,
        }
    }

    fn set_standing(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Relaxed);
    }

    /// Whether it gets no requests but those that use what is dark.
    pub fn is_dark(&self) -> bool {
        self.standing() == Standing::Dark
    }

    /// Exchanges that run in it.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn tell(&self, order: Order) {
        // A tunnel that is over tells its exchanges itself.
        let _ = self.orders.send(order);
    }
}

/// A place in a tunnel, for one exchange. Dropped unused it is given back.
pub struct Slot {
    tunnels: Arc<Tunnels>,
    tunnel: Option<Arc<Tunnel>>,
}

impl Slot {
    /// "tunnel:my-service".
    pub fn label(&self) -> Option<&Arc<str>> {
        self.tunnel.as_ref().map(|tunnel| &tunnel.place.label)
    }

    /// What both ends know beyond the protocol.
    pub fn extensions(&self) -> Extensions {
        self.tunnel.as_ref().map_or(Extensions::NONE, |tunnel| tunnel.origin.extensions)
    }

    /// Uses it for a request.
    pub fn begin(
        mut self,
        head: sluice_http::RequestHead,
        content: sluice_tunnel::text::Content,
    ) -> Option<Line> {
        self.tunnel.take().map(|tunnel| Line::begin(tunnel, head, content))
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.tunnel.as_ref().map(|tunnel| tunnel.number)).finish()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(tunnel) = self.tunnel.take() {
            self.tunnels.give_back(&tunnel);
        }
    }
}
