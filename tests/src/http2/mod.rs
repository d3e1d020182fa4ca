//! HTTP/2 at the socket, from clients and towards endpoints.

pub(crate) mod client;
mod floods;
mod server;
mod with_peers;
