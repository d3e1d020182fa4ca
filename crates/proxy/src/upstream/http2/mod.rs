//! HTTP/2 with endpoints: connections that carry several exchanges (`connection`), which of them takes the
//! next one (`pool`), and what people may say about both (`config`).

pub mod config;
mod connection;
mod ping;
mod pool;

pub use config::{Config, Policy};
pub(super) use connection::handshake;
pub use connection::{Connection, Slot};
pub use pool::Pool;
pub(super) use pool::{Ends, Joined, Opening};
