//! The admin endpoints: health, metrics, status, reload.
//!
//! Promise: they are served on the control thread and know the data plane only through [`Gateway`]; nothing
//! they do makes an exchange wait. They listen on loopback only, refuse what a web page could send
//! (`guard`), and bound what a slow or greedy client can hold ([`serve`]). Every answer that is not a
//! success is a problem document (RFC 9457), but those of the health checks, which are plain text.

mod address;
mod answer;
mod endpoints;
mod guard;
mod server;

use std::future::Future;
use std::pin::Pin;

use serde_json::Value;
use sluice_proxy::observe::metrics::Format;

pub use address::check_address;
pub use server::serve;

/// What the endpoints ask of the process they stand in.
pub trait Gateway: Send + Sync + 'static {
    /// Whether it should be sent traffic, check by check.
    fn readiness(&self) -> Readiness;

    /// All metrics. Called on a thread that may block, one call at a time.
    fn metrics(&self, format: Format) -> String;

    /// Version, revision, uptime, listeners, upstreams with their endpoints and state: an object.
    fn status(&self) -> Value;

    /// Loads the configuration again. It runs to its end even when the client that asked leaves.
    fn reload(&self) -> Reload;
}

/// A reload under way: the revision that runs then, or the list of problems for which nothing was changed.
pub type Reload = Pin<Box<dyn Future<Output = Result<u64, Value>> + Send>>;

/// Whether a gateway should be sent traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What was looked at; it is ready when every check passed.
    pub checks: Vec<Check>,
}

/// One check of a gateway's readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at: "configuration", "listeners", "drain".
    pub name: &'static str,
    /// Passed, or the reason why not.
    pub result: Result<(), String>,
}

impl Readiness {
    /// Adds a check.
    pub fn check(mut self, name: &'static str, result: Result<(), String>) -> Readiness {
        self.checks.push(Check { name, result });
        self
    }

    /// Whether every check passed.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.result.is_ok())
    }
}

#[cfg(test)]
mod tests;
