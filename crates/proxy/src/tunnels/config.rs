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
}

/// The same with defaults.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) per_address: usize,
    pub(super) per_route: usize,
    pub(super) routes: usize,
    pub(super) waiting: usize,
    pub(super) keep: Duration,
    dark_addresses: Vec<Network>,
    dark_routes: Vec<Box<str>>,
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
        }
    }
}

impl Policy {
    pub(super) fn is_dark(&self, address: IpAddr, route: &str) -> bool {
        self.dark_addresses.iter().any(|network| network.contains(address))
            || self.dark_routes.iter().any(|dark| **dark == *route)
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
    tokens: Vec<Digest>,
    header: FieldName,
    routes: Vec<Box<str>>,
    /// What is spoken.
    pub versions: Vec<Version>,
    /// Of every tunnel; its extensions are what we know.
    pub settings: Settings,
}

impl AdmissionConfig {
    /// Checks it.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<Admission> {
        let found = problems.iter().count();
        let mut tokens = Vec::with_capacity(self.tokens.len());
        for (index, stored) in self.tokens.iter().enumerate() {
            let read = Digest::read(stored).map_err(str::to_owned);
            tokens.extend(problems.take(&at.key("tokens").index(index), read));
        }
        let header = self.token_header.as_deref().unwrap_or("Authorization");
        let name = FieldName::new(header);
        if name.is_none() {
            problems.add(&at.key("token_header"), format!("`{header}` is not a field name"));
        }
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
        let header = name.filter(|_| problems.iter().count() == found)?;
        let routes = self.routes.iter().map(|route| Box::from(place(route))).collect();
        Some(Admission { allow: self.allow.clone(), tokens, header, routes, versions, settings })
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
        if self.tokens.is_empty() {
            return Ok(());
        }
        let mut values = head.fields.get_all(&self.header);
        let (Some(value), None) = (values.next(), values.next()) else { return Err(Refused::Token) };
        let token = value.strip_prefix(b"Bearer ").unwrap_or(value).trim_ascii();
        // Digests of random tokens: how long comparing takes tells nothing about the token.
        match self.tokens.contains(&Digest::of(token)) {
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
