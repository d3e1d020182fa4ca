//! What people write about tunnels: who may register, how many, and what gets no traffic.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{FieldName, RequestHead};
use sluice_tunnel::registration::{Extensions, Registration, Version};
use sluice_tunnel::settings::Settings;
use sluice_tunnel::websocket::Pings;

use super::Refused;
use super::watch::Interest;
use crate::credentials::{Digest, KeyHash};
use crate::problem::{At, Problems};
use crate::value::{Network, Period};

/// Tunnels of the whole process.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Tunnels that connectors of one address may have open. In 1.0 every exchange has one. Default 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_address: Option<NonZeroU32>,
    /// Tunnels that one route may have open. Default 20000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_route: Option<NonZeroU32>,
    /// Routes that may be registered. Default 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_routes: Option<NonZeroU32>,
    /// Requests that may wait for a tunnel of one route. Default 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<NonZeroU32>,
    /// How long a route without tunnels is known: its requests wait and get 503, then 404. Default "2h".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_routes: Option<Period>,
    /// Connectors of these networks or addresses stay registered and get no requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dark_addresses: Vec<Network>,
    /// Tunnels of these routes stay registered and get no requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dark_routes: Vec<String>,
    /// Writes a diagnostic line for every step of every exchange through a tunnel, to look for a defect. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceConfig>,
}

/// What is traced of exchanges through tunnels.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TraceConfig {
    /// Their steps: the tunnel that was taken, heads, ends.
    Steps,
    /// Every piece of content too: how many bytes, never which.
    Content,
}

/// The same with defaults.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) per_address: usize,
    pub(super) per_route: usize,
    pub(super) routes: usize,
    pub(super) waiting: usize,
    pub(super) keep: Duration,
    pub(super) dark_addresses: Vec<Network>,
    pub(super) dark_routes: Vec<Box<str>>,
    pub(super) trace: Option<Interest>,
}

impl Default for Policy {
    fn default() -> Policy {
        Config::default().policy()
    }
}

impl Config {
    /// With defaults.
    pub fn policy(&self) -> Policy {
        let or = |count: Option<NonZeroU32>, default| count.map_or(default, |count| count.get() as usize);
        Policy {
            per_address: or(self.max_per_address, 10_000),
            per_route: or(self.max_per_route, 20_000),
            routes: or(self.max_routes, 10_000),
            waiting: or(self.max_waiting, 10_000),
            keep: self.keep_routes.map_or(Duration::from_secs(7200), |period| period.0),
            dark_addresses: self.dark_addresses.clone(),
            dark_routes: self.dark_routes.iter().map(|route| Box::from(place(route))).collect(),
            trace: self.trace.map(|trace| match trace {
                TraceConfig::Steps => Interest::Steps,
                TraceConfig::Content => Interest::Content,
            }),
        }
    }
}

/// A route or a domain as it is registered: without slashes at its ends; empty for `*`.
pub fn place(text: &str) -> &str {
    match text.trim_matches('/') {
        "*" => "",
        text => text,
    }
}

/// Who may register tunnels on a listener.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionConfig {
    /// Networks or addresses of connectors. Default: everybody who can connect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Network>,
    /// Hashes of tokens, as `sluice make-key` makes them; a connector sends one of them in `token_header`. Default:
    /// none is asked for. Use it behind TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<KeyHash>,
    /// The field that holds the token, alone or behind `Bearer`. Default "Authorization".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_header: Option<String>,
    /// Routes that may be registered here, `*` for the one that serves every path. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// Versions that are spoken. Default both: "3.0" and "1.0".
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionConfig>,
    /// Exchanges that a tunnel of 3.0 may carry at a time. Default 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<NonZeroU32>,
    /// A ping is sent when nothing was sent for so long. Default "10s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping_after: Option<Period>,
    /// A connector that says nothing for so long is given up. Default "60s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silence: Option<Period>,
    /// Lets operators make addresses and services dark while it runs, on the paths below /api/dark-launch/. Default:
    /// there are no such paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dark_launch: Option<DarkLaunchConfig>,
}

/// Who may make addresses and services dark: who has one of the tokens. On a route without tokens: whom one of its
/// filters knows (api_key, basic_auth, jwt, hmac).
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct DarkLaunchConfig {
    /// Hashes of tokens, as `sluice make-key` makes them. Others than those of connectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<KeyHash>,
    /// The field that holds the token, alone or behind `Bearer`. Default "Authorization".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_header: Option<String>,
}

/// Whether it is known who is asking, where no token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Nobody looks.
    Anybody,
    /// A filter finds out before.
    Known,
}

/// A version of the tunnels' protocol.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum VersionConfig {
    /// One exchange per tunnel.
    #[serde(rename = "1.0")]
    V1,
    /// Many exchanges per tunnel.
    #[serde(rename = "3.0")]
    V3,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub struct Admission {
    allow: Vec<Network>,
    tokens: Tokens,
    routes: Vec<Box<str>>,
    /// What is spoken.
    pub versions: Vec<Version>,
    /// Of every tunnel; its extensions are what we know.
    pub settings: Settings,
    /// Who may make something dark, if anybody may.
    pub dark_launch: Option<Tokens>,
}

/// Tokens, one of which a request carries.
#[derive(Clone, Debug)]
pub struct Tokens {
    digests: Vec<Digest>,
    header: FieldName,
}

impl Tokens {
    fn check(
        (tokens, header): (&[KeyHash], Option<&str>),
        at: &At,
        problems: &mut Problems,
    ) -> Option<Tokens> {
        let mut digests = Vec::with_capacity(tokens.len());
        for (index, stored) in tokens.iter().enumerate() {
            let read = Digest::read(stored).map_err(str::to_owned);
            digests.extend(problems.take(&at.key("tokens").index(index), read));
        }
        let name = header.unwrap_or("Authorization");
        let header = FieldName::new(name);
        if header.is_none() {
            problems.add(&at.key("token_header"), format!("`{name}` is not a field name"));
        }
        Some(Tokens { digests, header: header? })
    }

    /// Whether none is asked for.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether a request carries one of them.
    pub fn admit(&self, head: &RequestHead) -> bool {
        let mut values = head.fields.get_all(&self.header);
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let token = value.strip_prefix(b"Bearer ").unwrap_or(value).trim_ascii();
        // Digests of random tokens: how long comparing takes tells nothing about the token.
        self.digests.contains(&Digest::of(token))
    }
}

impl AdmissionConfig {
    /// Checks it; `callers` says whether something before it knows who is asking.
    pub fn check(&self, callers: Callers, at: &At, problems: &mut Problems) -> Option<Admission> {
        let found = problems.iter().count();
        let tokens = Tokens::check((&self.tokens, self.token_header.as_deref()), at, problems);
        let dark_launch = (self.dark_launch.as_ref())
            .and_then(|config| config.check(callers, &at.key("dark_launch"), problems));
        for (key, period) in [("ping_after", self.ping_after), ("silence", self.silence)] {
            if period.is_some_and(|period| period.0.is_zero()) {
                problems.add(&at.key(key), "a time of zero would end every tunnel");
            }
        }
        let mut settings = Settings::gateway();
        settings.extensions = Extensions::ALL;
        settings.streams = self.max_streams.map_or(settings.streams, |streams| streams.get() as usize);
        settings.timing.silence = self.silence.map_or(settings.timing.silence, |period| period.0);
        if let Some(period) = self.ping_after {
            settings.timing.pings = Pings::AfterSilence(period.0);
        }
        let versions = match &*self.versions {
            [] => vec![Version::V3, Version::V1],
            some => some.iter().map(|version| Version::from(*version)).collect(),
        };
        let tokens = tokens.filter(|_| problems.iter().count() == found)?;
        let routes = self.routes.iter().map(|route| Box::from(place(route))).collect();
        Some(Admission { allow: self.allow.clone(), tokens, routes, versions, settings, dark_launch })
    }
}

impl DarkLaunchConfig {
    fn check(&self, callers: Callers, at: &At, problems: &mut Problems) -> Option<Tokens> {
        if self.tokens.is_empty() && callers == Callers::Anybody {
            problems.add(at, "anybody could take services out of traffic").hint(
                "give it `tokens`, or, on a route, write a filter before it that knows who is asking: api_key, \
                 basic_auth, jwt or hmac",
            );
        }
        Tokens::check((&self.tokens, self.token_header.as_deref()), at, problems)
    }
}

impl From<VersionConfig> for Version {
    fn from(version: VersionConfig) -> Version {
        match version {
            VersionConfig::V1 => Version::V1,
            VersionConfig::V3 => Version::V3,
        }
    }
}

impl Admission {
    /// Whether a peer may ask for anything.
    ///
    /// # Errors
    /// [`Refused::Address`].
    pub fn admits_address(&self, address: IpAddr) -> Result<(), Refused> {
        match self.allow.is_empty() || self.allow.iter().any(|network| network.contains(address)) {
            true => Ok(()),
            false => Err(Refused::Address),
        }
    }

    /// Whether a request carries a token, if one is asked for.
    ///
    /// # Errors
    /// [`Refused::Token`].
    pub fn admits_token(&self, head: &RequestHead) -> Result<(), Refused> {
        match self.tokens.is_empty() || self.tokens.admit(head) {
            true => Ok(()),
            false => Err(Refused::Token),
        }
    }

    /// Whether its route may be registered.
    ///
    /// # Errors
    /// [`Refused::Route`].
    pub fn admits_route(&self, registration: &Registration) -> Result<(), Refused> {
        let route = registration.route.as_deref().unwrap_or_default();
        match self.routes.is_empty() || self.routes.iter().any(|allowed| **allowed == *route) {
            true => Ok(()),
            false => Err(Refused::Route),
        }
    }
}
