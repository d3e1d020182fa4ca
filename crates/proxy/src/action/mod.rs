//! What a route does; one file each.

pub mod connect;
mod dark_launch;
pub mod fallback;
pub mod forward;
pub mod forward_proxy;
mod guard;
mod record;
pub mod redirect;
pub mod register_tunnels;
pub mod respond;
pub mod token;
pub mod tunnel;

use sluice_http::{Response, ResponseHead};

use crate::relay::{End, Lasting};

/// The action of a route.
pub enum Action {
    /// Send it to an upstream.
    Forward(forward::Forward),
    /// Give a fixed answer.
    Respond(respond::Respond),
    /// Send the client elsewhere.
    Redirect(redirect::Redirect),
    /// Give tokens, check them, take them back.
    Token(Box<token::Token>),
    /// Send it where the client says.
    ForwardProxy(Box<forward_proxy::ForwardProxy>),
    /// Send it through a tunnel that the request names.
    Tunnel(tunnel::ThroughTunnel),
    /// Open tunnels for those who may.
    RegisterTunnels(Box<register_tunnels::RegisterTunnels>),
}

/// What an action gives: a response, or a tunnel to switch to.
pub enum Acted {
    /// A response.
    Response(Response),
    /// What follows this head is a tunnel to that end.
    Switched(ResponseHead, Box<dyn End>),
    /// The same, and the exchange is over with this head.
    Lasting(ResponseHead, Box<Lasting>),
}

impl Action {
    /// Whether the client says where its request goes.
    pub fn is_proxy(&self) -> bool {
        matches!(self, Action::ForwardProxy(_))
    }
}
