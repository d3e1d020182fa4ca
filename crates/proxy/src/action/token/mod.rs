//! The `token` action: tokens for consumers (OAuth 2.0 client credentials), and what belongs to them.
//!
//! Promise: who asks proves to be a consumer before anything is issued, read or taken back; an answer is never
//! stored on the way; a refresh token is of use once, and is no token that the filter jwt would take.

mod ask;
mod config;
mod run;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use config::{Asks, Config, KeyConfig, directories};

use crate::consumer::Consumers;
use crate::credentials::Verifier;
use crate::problem::{At, Problems};
use crate::redis::Connections;
use crate::token::{Keeping, Origin, Revoked, Ring, Rings};

/// What a route serves.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// POST with credentials issues a token (RFC 6749 section 4.4) or renews one (section 6); a request with a token
    /// in Authorization and nothing else says what the token is worth, as `introspect` does.
    #[default]
    Token,
    /// POST says what a token is worth (RFC 7662).
    Introspect,
    /// POST takes a token back (RFC 7009).
    Revoke,
    /// GET gives the public keys (RFC 7517).
    Keys,
}

/// The `token` action.
pub struct Token {
    endpoint: Endpoint,
    issuer: String,
    audience: Vec<String>,
    ttl: u64,
    refresh_ttl: Option<u64>,
    scopes: Vec<String>,
    keeping: Keeping,
    /// None until it is loaded: then it fails.
    loaded: Option<Loaded>,
}

struct Loaded {
    ring: Arc<Ring>,
    consumers: Arc<Consumers>,
    verifier: Arc<Verifier>,
}

impl Token {
    /// Opens its keys. Called once, on the control thread.
    pub fn load(
        &mut self,
        (consumers, verifier): (&Arc<Consumers>, &Arc<Verifier>),
        (rings, revoked, redis): (&Rings, &Arc<Revoked>, &Connections),
        at: &At,
        problems: &mut Problems,
    ) {
        let (key, what) = match (&self.keeping.origin, &self.keeping.directory) {
            (Origin::Made { .. }, Some(directory)) => {
                ("directory", format!("{} cannot be used: ", directory.display()))
            }
            _ => ("keys", String::new()),
        };
        let ring = rings.open(&self.keeping, revoked, redis).map_err(|why| format!("{what}{why}"));
        let Some(ring) = problems.take(&at.key(key), ring) else { return };
        let (consumers, verifier) = (Arc::clone(consumers), Arc::clone(verifier));
        self.loaded = Some(Loaded { ring, consumers, verifier });
    }
}
