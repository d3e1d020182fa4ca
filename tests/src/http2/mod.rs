//! HTTP/2 at the socket, from clients and towards endpoints.

pub(crate) mod client;
mod floods;
mod grpc;
pub(crate) mod origin;
mod server;
mod upstream;
mod upstream_tls;
mod with_peers;
