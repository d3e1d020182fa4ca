//! End-to-end tests: one binary, because linking is the slow part.
//!
//! Promise: they see the program as its users do (command line, sockets, signals) and none of its crates, but
//! for the connector of `sluice-tunnel`, which is a program's other end;
//! port 0 and loopback only; no sleeping, only waiting with a deadline.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "test code: a failed set-up must fail the test, and tasks here are the test's own"
)]

#[cfg(feature = "gateway")]
mod auth;
#[cfg(feature = "gateway")]
mod certificates;
#[cfg(feature = "gateway")]
mod command_line;
#[cfg(feature = "gateway")]
mod connect;
#[cfg(feature = "gateway")]
mod cors;
#[cfg(feature = "gateway")]
mod documents;
#[cfg(feature = "gateway")]
mod examples;
#[cfg(feature = "gateway")]
mod explain;
#[cfg(feature = "gateway")]
mod filters;
#[cfg(feature = "gateway")]
mod forward;
#[cfg(feature = "gateway")]
mod grpc;
#[cfg(feature = "gateway")]
mod grpc_web;
#[cfg(feature = "gateway")]
mod guide;
#[cfg(feature = "gateway")]
mod handover;
#[cfg(feature = "gateway")]
mod http;
#[cfg(feature = "gateway")]
mod http2;
#[cfg(feature = "gateway")]
mod limits;
#[cfg(feature = "gateway")]
mod malformed;
#[cfg(feature = "gateway")]
mod observe;
#[cfg(feature = "gateway")]
mod overload;
#[cfg(feature = "gateway")]
mod protocol;
#[cfg(feature = "gateway")]
mod proxy_protocol;
#[cfg(feature = "gateway")]
mod proxying;
#[cfg(feature = "gateway")]
mod reload;
#[cfg(feature = "gateway")]
mod routing;
#[cfg(feature = "gateway")]
mod setup;
#[cfg(feature = "gateway")]
mod smoke;
#[cfg(feature = "gateway")]
mod tcp;
mod tidy;
#[cfg(feature = "gateway")]
mod tls;
#[cfg(feature = "gateway")]
mod tunnel;
#[cfg(feature = "gateway")]
mod udp;
#[cfg(feature = "gateway")]
mod unix_sockets;
#[cfg(feature = "gateway")]
mod upstream;
#[cfg(feature = "gateway")]
mod websocket;
