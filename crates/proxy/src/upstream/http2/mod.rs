//! HTTP/2 with endpoints: connections that carry several exchanges (`connection`), which of them takes the
//! next one (`pool`, `queue`), and what people may say about both (`config`).

pub mod config;
mod connection;
mod ping;
mod pool;
mod queue;

pub use config::{Config, Policy};
pub use connection::{Connection, Slot, handshake};
pub use pool::Pool;
pub(super) use pool::{Ends, Joined, Opening};
pub(super) use queue::Waiter;
