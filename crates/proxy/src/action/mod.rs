//! What a route does; one file each.

pub mod connect;
pub mod forward;
pub mod forward_proxy;
mod record;
pub mod redirect;
pub mod respond;

use std::rc::Rc;

use sluice_http::{Response, ResponseHead};

use crate::relay::End;
use crate::upstream::{Events, Local};
use crate::world::World;
use forward_proxy::outward::Outward;

/// The action of a route.
pub enum Action {
    /// Send it to an upstream.
    Forward(forward::Forward),
    /// Give a fixed answer.
    Respond(respond::Respond),
    /// Send the client elsewhere.
    Redirect(redirect::Redirect),
    /// Send it where the client says.
    ForwardProxy(Box<forward_proxy::ForwardProxy>),
}

/// What an action gives: a response, or a tunnel to switch to.
pub enum Acted {
    /// A response.
    Response(Response),
    /// What follows this head is a tunnel to that end.
    Switched(ResponseHead, Box<dyn End>),
}

impl Action {
    /// Whether the client says where its request goes.
    pub fn is_proxy(&self) -> bool {
        matches!(self, Action::ForwardProxy(_))
    }
}

/// What an action may use of the worker it runs on.
pub struct Scene<'a> {
    /// Time, randomness and timers.
    pub world: &'a Rc<World>,
    /// The worker's part of each upstream, in the model's order.
    pub upstreams: &'a [Rc<Local>],
    /// Takes interim responses for the client.
    pub interim: &'a dyn Fn(ResponseHead),
    /// Whom to tell what concerns all workers.
    pub events: &'a Rc<dyn Events>,
    /// The worker's part of forward proxying, where a route does that.
    pub outward: Option<&'a Outward>,
}
