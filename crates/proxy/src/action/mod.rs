//! What a route does; one file each.

pub mod forward;
pub mod redirect;
pub mod respond;

/// The action of a route.
pub enum Action {
    /// Send it to an upstream.
    Forward(forward::Forward),
    /// Give a fixed answer.
    Respond(respond::Respond),
    /// Send the client elsewhere.
    Redirect(redirect::Redirect),
}
