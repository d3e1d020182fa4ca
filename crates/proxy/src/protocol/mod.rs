//! What is spoken on a connection.

pub mod http1;
