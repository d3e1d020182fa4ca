//! What the steps of an exchange may use of the worker they run on.

use std::rc::Rc;

use sluice_http::ResponseHead;

use crate::upstream::{Events, Local};
use crate::world::World;

/// Where a filter or an action runs: nothing in it changes while the exchange lasts.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// Time, randomness and timers.
    pub world: &'a Rc<World>,
    /// The worker's part of each upstream, in the model's order.
    pub upstreams: &'a [Rc<Local>],
    /// Takes interim responses for the client.
    pub interim: &'a dyn Fn(ResponseHead),
    /// Whom to tell what concerns all workers.
    pub events: &'a Rc<dyn Events>,
}
