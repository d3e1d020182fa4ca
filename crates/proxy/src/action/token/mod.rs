//! The `token` action: tokens for consumers (OAuth 2.0 client credentials), and what belongs to them.
//!
//! Promise: who asks proves to be a consumer before anything is issued, read or taken back; an answer is never
//! stored on the way; a refresh token is of use once, and is no token that the filter jwt would take.

mod ask;
mod run;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consumer::Consumers;
use crate::credentials::Verifier;
use crate::problem::{At, Problems};
use crate::token::{Keeping, Revoked, Ring, Rings};
use crate::value::Period;

/// Gives tokens to consumers, checks them and takes them back. A consumer proves who it is by its name and one of its
/// API keys, or by its `basic` user and password. Routes with the same `directory` share their keys.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the route serves. Default "token".
    #[serde(default)]
    pub endpoint: Endpoint,
    /// The claim `iss` of tokens: "https://gateway.example".
    pub issuer: String,
    /// Where signing keys are kept; they are made at the first start. `jwks.json` in it holds the public keys: the
    /// filter jwt can read it as its `file`.
    pub directory: String,
    /// The claim `aud` of tokens. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// How long a token is valid. Default "1h".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Period>,
    /// How long a refresh token is valid; it can be used once. Default: none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_ttl: Option<Period>,
    /// Scopes that can be asked for; all of them are given to who asks for none. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// After this time another key signs. Default "30d".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Period>,
}

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
    revoked: Arc<Revoked>,
}

impl Config {
    /// Checks it; it stands at `at`.
    pub fn check(&self, consumers: &Arc<Consumers>, at: &At, problems: &mut Problems) -> Option<Token> {
        let found = problems.iter().count();
        if self.endpoint != Endpoint::Keys && !consumers.has_keys() && consumers.users().is_empty() {
            problems
                .add(at, "no consumer has credentials: nobody could ask")
                .hint("[consumers.NAME] api_keys");
        }
        if self.issuer.is_empty() {
            problems.add(&at.key("issuer"), "an issuer has a name");
        }
        if self.directory.is_empty() {
            problems.add(&at.key("directory"), "the name of the directory is empty");
        }
        let mut seconds = |key: &str, period: Option<Period>, usual: Duration| {
            let period = period.map_or(usual, |period| period.0);
            if period < Duration::from_secs(1) {
                problems.add(&at.key(key), "it is shorter than a second");
            }
            period.as_secs()
        };
        let ttl = seconds("ttl", self.ttl, Duration::from_secs(3600));
        let refresh_ttl = self.refresh_ttl.map(|period| seconds("refresh_ttl", Some(period), Duration::ZERO));
        let rotate = seconds("rotate", self.rotate, Duration::from_secs(30 * 86_400));
        for (index, scope) in self.scopes.iter().enumerate() {
            // RFC 6749 section 3.3.
            let plain = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
            if scope.is_empty() || !scope.bytes().all(plain) {
                problems
                    .add(&at.key("scopes").index(index), format!("`{}` is no scope", scope.escape_debug()));
            }
        }
        let longest = ttl.max(refresh_ttl.unwrap_or(0));
        (problems.iter().count() == found).then(|| Token {
            endpoint: self.endpoint,
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            ttl,
            refresh_ttl,
            scopes: self.scopes.clone(),
            keeping: Keeping { directory: self.directory.as_str().into(), rotate, longest },
            loaded: None,
        })
    }
}

impl Token {
    /// Opens its keys. Called once, on the control thread.
    pub fn load(
        &mut self,
        (consumers, verifier): (&Arc<Consumers>, &Arc<Verifier>),
        (rings, revoked): (&Rings, &Arc<Revoked>),
        at: &At,
        problems: &mut Problems,
    ) {
        let ring = rings.open(&self.keeping, revoked);
        let told = ring.map_err(|why| format!("{} cannot be used: {why}", self.keeping.directory.display()));
        let Some(ring) = problems.take(&at.key("directory"), told) else { return };
        self.loaded = Some(Loaded {
            ring,
            consumers: Arc::clone(consumers),
            verifier: Arc::clone(verifier),
            revoked: Arc::clone(revoked),
        });
    }
}
