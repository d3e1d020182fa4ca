//! Reverse tunnels (Cranker 1.0 and 3.0): services inside a network without an open port publish themselves through
//! a gateway, over connections that they open. Both ends, and the connector as a library.
//!
//! Everything but [`connector`] is sans-I/O: bytes in, events out, and the reverse; time is an argument. A gateway
//! reads a connector's announcement with [`registration`], answers it, and drives a [`GatewayEnd`]; the connector
//! makes the announcement and drives a [`ConnectorEnd`]. Both speak [`event`]s that are the same for both versions.
//!
//! Promise: nothing a peer sends can panic or make memory grow without bound; one stalled exchange of a 3.0 tunnel
//! never holds up another; an exchange ends exactly once, and a truncated one never looks complete.
//!
//! Read in this order: [`websocket`] (frames), [`text`] (heads), [`registration`], [`event`], [`v1`], [`v3`],
//! then `gateway_end` and `connector_end`, which make one of the two versions, and [`connector`].

pub mod connector;
mod connector_end;
mod driven;
pub mod event;
mod gateway_end;
pub mod registration;
pub mod settings;
pub mod text;
pub mod v1;
pub mod v3;
pub mod websocket;

pub use connector_end::ConnectorEnd;
pub use gateway_end::{GatewayEnd, Retired};
