//! What tests are written with: scripted origins, a byte-exact client, gateways started from a document.
//!
//! Promise: loopback and port 0 only; everything that is waited for has a deadline; a test that cannot be
//! set up fails where it stands, with a sentence. That is why this crate panics where others may not.
//!
//! Read [`Origin`] (what stands behind the gateway), [`Gateway`] (the real program), then [`Wire`] (what
//! stands before it). [`tls`] puts TLS between them, [`Peer`] real servers beside them.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "test code: a failed set-up must fail the test, and the clock and tasks here are the test's own"
)]

mod deadline;
mod gateway;
pub mod http;
mod load;
mod message;
mod origin;
mod peer;
mod program;
mod scratch;
pub mod tls;
mod wire;

pub use deadline::{DEADLINE, eventually, within};
pub use gateway::{Gateway, Reloaded, Signal, metrics_of};
pub use load::{Load, LoadReport, LoadTask};
pub use message::{Answer, Fields, Received};
pub use origin::{ManualOrigin, Origin, Reply, Script};
pub use peer::{Peer, free_port, own_loopback};
pub use program::{Finished, Program, sluice};
pub use scratch::Scratch;
pub use wire::Wire;
