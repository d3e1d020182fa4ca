//! Reverse tunnels: Cranker 1.0 and 3.0, both ends, and the connector as a library.

pub mod event;
pub mod registration;
pub mod settings;
pub mod text;
pub mod v1;
pub mod websocket;
