//! Which route a TCP connection or a UDP flow takes: the same tables, the server name in the place of the
//! host.
//!
//! Promise: routes of HTTP listeners and of others never meet: each kind has its own table.

use std::sync::Arc;

use super::{Lookup, RouteSpec, Table};
use crate::facts::Facts;
use crate::problem::Problems;

/// The routes of TCP and UDP listeners.
#[derive(Debug)]
pub struct Streams {
    table: Table,
    /// The position of each of its routes among all.
    positions: Vec<usize>,
    /// Listeners of which some route asks for a server name.
    named: Vec<Arc<str>>,
}

impl Streams {
    /// Compiles the routes at these positions among `routes`; problems as for [`Table::build`].
    pub fn build(
        routes: &[RouteSpec<'_>],
        positions: Vec<usize>,
        known_listeners: &[&str],
        problems: &mut Problems,
    ) -> Streams {
        let specs: Vec<_> = positions.iter().map(|&position| routes[position].clone()).collect();
        let asking = specs.iter().filter(|spec| spec.enabled && !spec.matches.sni.is_empty());
        let named = asking.flat_map(|spec| &spec.matches.listeners).map(|name| Arc::from(&**name)).collect();
        Streams { table: Table::build(&specs, known_listeners, problems), positions, named }
    }

    /// The position of the route of a connection. `now_unix` is the time in Unix seconds.
    pub fn find(&self, facts: &Facts<'_>, now_unix: u64) -> Option<usize> {
        match self.table.find(facts, now_unix) {
            Lookup::Found { route, .. } => self.positions.get(route).copied(),
            _ => None,
        }
    }

    /// Whether a route of this listener asks for a server name.
    pub fn asks_for_name(&self, listener: &str) -> bool {
        self.named.iter().any(|name| **name == *listener)
    }

    /// Whether the route at this position among all is one of them.
    pub fn holds(&self, position: usize) -> bool {
        self.positions.binary_search(&position).is_ok()
    }
}
