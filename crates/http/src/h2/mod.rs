//! HTTP/2 (RFC 9113) where it is a matter of bytes: what the frames of a client may cost. The protocol itself
//! is spoken by the `h2` crate, which the data plane drives.

mod breach;
mod budget;
mod watch;

pub use breach::Breach;
pub use budget::{Budget, Budgets};
pub use watch::{Flood, Watch};
