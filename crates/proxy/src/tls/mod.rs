//! TLS: what documents say of it, and what listeners and upstreams run with.
//!
//! `config` (document and checked policy) -> `loaded` (reads every file, on each change of the document or of a
//! file) -> [`Server`] and [`Client`], which hold the configurations of rustls. Nothing else in the data plane
//! configures rustls. [`Secured`] is what is known of a connection after its handshake.
//!
//! Promise: one cryptography provider, named here, never the process's default. Nothing in a file or from a
//! peer can panic. A file that cannot be used is a problem that names it. No private key is ever printed.

mod certificate;
mod client;
mod config;
mod distinguished;
mod files;
#[cfg(test)]
mod fixture;
mod loaded;
mod names;
mod refusal;
mod resolver;
mod secured;
mod server;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use certificate::Certificate;
pub use client::{Client, Offer};
pub use config::{
    CertificateConfig, CertificatePolicy, ClientAuth, ClientAuthMode, ClientAuthPolicy, ClientPolicy,
    ClientTls, ClientTlsTable, ServerPolicy, ServerTls, Spoken, UnknownSni, Version, known_certificate,
};
pub use files::contents;
pub use loaded::{Loaded, Wanted};
pub use names::Names;
pub use refusal::TlsRefusal;
pub use secured::{Identity, Secured};
pub use server::Server;

/// The cryptography that all of TLS uses.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
