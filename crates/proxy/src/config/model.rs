//! The model: a document that has been checked. Names are positions, texts are compiled, defaults applied;
//! nothing in it needs the network, and nothing in it changes.

use std::sync::Arc;

use crate::action::Action;
use crate::filter;
use crate::listener::ListenerPolicy;
use crate::observe::access_log;
use crate::route::Table;
use crate::upstream::config::Policy;

/// A checked configuration.
pub struct Model {
    /// Sockets.
    pub listeners: Vec<Arc<ListenerPolicy>>,
    /// Finds routes.
    pub table: Table,
    /// The routes, in the order written.
    pub routes: Vec<Route>,
    /// The upstreams by name.
    pub upstreams: Vec<(Arc<str>, Policy)>,
    /// One line for each exchange.
    pub access_log: Option<access_log::Plan>,
}

/// A checked route.
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Its filters, in the order written.
    pub filters: Vec<filter::Built>,
    /// What it does.
    pub action: Action,
}
