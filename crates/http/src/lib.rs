//! The HTTP engine: message heads as bytes plus an index, strict HTTP/1 framing, bodies that are pulled.
//!
//! Sans-I/O: everything in [`h1`] takes bytes and gives heads, pieces of bodies and bytes. Sockets, timers
//! and pools are the caller's (crate `sluice-proxy`), so fuzzers and simulations need none of them. The same
//! goes for what stands before or beside HTTP on a connection: [`proxy_protocol`], [`socks5`],
//! [`grpc`], [`websocket`], and in [`h2`] the watch over what a client's frames cost.
//!
//! Read in this order: [`name`], [`fields`](Fields), [`head`](RequestHead), [`body`](Body), then `h1`:
//! `scan` (where does the head end), `parse` (bytes to head and framing), `decode` (body), `encode`.

mod body;
mod crc32c;
mod fields;
pub mod grpc;
pub mod h1;
pub mod h2;
mod head;
pub mod name;
pub mod proxy_protocol;
pub mod reasons;
pub mod socks5;
pub mod websocket;

pub use body::{Body, BodyError, Frame, Request, Response, Source};
pub use fields::Fields;
pub use head::{Method, RequestHead, ResponseHead, Version, host_of, reason_of};
pub use name::{FieldName, Name, NameId};
