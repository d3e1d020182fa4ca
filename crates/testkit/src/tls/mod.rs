//! TLS in tests: certificates of an authority of the test's own, a client, and a server before any origin.
//!
//! Promise: nothing of the machine is trusted and nothing is kept; the far end is rustls, whose own types tell
//! what a handshake gave.

mod authority;
mod client;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use authority::{Authority, Leaf};
pub use client::Client;
pub use server::{Handshake, Server, server_config, server_config_for_clients};

/// The cryptography, named so that no process-wide default is needed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
