//! Version 3.0: a tunnel carries many exchanges, each a stream of frames in binary messages, with its own flow
//! control. Read `frame`, `flow`, `mux` (what both ends have in common), `gateway`, `connector`.

mod connector;
mod flow;
pub mod frame;
mod gateway;
mod mux;

#[cfg(test)]
mod tests;

pub use connector::Connector;
pub use gateway::Gateway;
