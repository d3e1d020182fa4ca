//! The forward_proxy action: send the request where the client says, as far as the rules allow.
//!
//! Promise: the address that the rules saw is the one that is dialled. A failed dial is an answer with its
//! reason. Nothing that was meant for this proxy (Proxy-Authorization, Proxy-Connection) goes on.

pub mod outward;
pub mod parent;
pub mod rules;
mod run;
mod scope;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::host_of;

use crate::problem::{At, Problems};
use crate::value::Period;
use parent::Parent;
use rules::{AllowRule, DenyRule, Destination, Kind, Rules};

/// Send the request where the client says: requests in absolute form ("GET http://host/path"), and CONNECT.
/// Without rules it goes to public addresses only; CONNECT to port 443, plain HTTP to port 80 and from
/// 1024 on.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Destinations that are allowed. With a rule here everything else is denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<AllowRule>,
    /// Destinations that are denied, whatever `allow` says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<DenyRule>,
    /// Another proxy, which destinations are reached through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<parent::Config>,
    /// What destinations are told. Default "via".
    pub tell: Tell,
    /// How long things may take.
    pub timeouts: TimeoutsConfig,
}

/// What destinations of plain HTTP are told about the client and this proxy. Nobody is told anything in a
/// tunnel.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// Nothing: no Via, no X-Forwarded-*, no Forwarded, no X-Request-Id. Loops are not found out.
    Nothing,
    /// That a proxy stands between, not who the client is.
    #[default]
    Via,
    /// What `forwarded` of the listener says.
    Client,
}

/// How long things may take on the way to a destination.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// To look the name up and connect, a parent's consent included. Default "10s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Period>,
    /// From the request's last byte to the answer's head. Default "60s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Period>,
    /// Without a byte of the answer's body arriving, or of the request's leaving. Default "60s". A tunnel has
    /// `timeouts.idle` of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Period>,
}

/// The forward_proxy action, checked.
pub struct ForwardProxy {
    /// Where it may go.
    pub rules: Rules,
    /// What it goes through.
    pub parent: Option<Parent>,
    /// What destinations are told.
    pub tell: Tell,
    /// To look up and connect.
    pub connect: Duration,
    /// To the answer's head.
    pub first_byte: Duration,
    /// Between bytes of a body.
    pub idle: Duration,
}

impl Config {
    /// Checks it; it stands at `at`.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<ForwardProxy> {
        let before = problems.iter().count();
        let rules = Rules::check(&self.allow, &self.deny, at, problems);
        let parent = self.parent.as_ref().map(|config| config.check(&at.key("parent"), problems));
        if let Some(config) = &self.parent
            && !config.resolve
            && rules.need_addresses()
        {
            problems
                .add(
                    &at.key("parent"),
                    "rules with `networks` need addresses, and the parent would look names up",
                )
                .hint(
                    "set parent.resolve = true to look them up here first, or write rules with `hosts` only",
                );
        }
        let TimeoutsConfig { connect, first_byte, idle } = self.timeouts;
        for (key, period) in [("connect", connect), ("first_byte", first_byte), ("idle", idle)] {
            if period.is_some_and(|period| period.0.is_zero()) {
                problems.add(&at.key("timeouts").key(key), "a time of zero would fail every request");
            }
        }
        if problems.iter().count() > before {
            return None;
        }
        let or =
            |period: Option<Period>, seconds| period.map_or(Duration::from_secs(seconds), |period| period.0);
        Some(ForwardProxy {
            rules,
            parent: parent.flatten(),
            tell: self.tell,
            connect: or(connect, 10),
            first_byte: or(first_byte, 60),
            idle: or(idle, 60),
        })
    }
}

/// What an authority names: the host as written, and the port or the default one of its kind. `None` for a
/// host that is missing or a port that is none.
pub fn destination(authority: &str, kind: Kind) -> Option<Destination<'_>> {
    let host = host_of(authority);
    let port = match authority[host.len()..].strip_prefix(':') {
        Some(digits) => digits.parse().ok().filter(|port| *port > 0)?,
        None if authority.len() > host.len() => return None,
        None if kind == Kind::Connect => return None,
        None => 80,
    };
    (!host.is_empty()).then_some(Destination { host, port, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(toml: &str) -> Vec<String> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let checked = config.check(&At::root().key("forward_proxy"), &mut problems);
        assert_eq!(checked.is_none(), !problems.is_empty());
        problems.iter().map(|problem| problem.at.to_string()).collect()
    }

    #[test]
    fn an_authority_names_a_host_and_a_port() {
        for (authority, kind, expected) in [
            ("a.test:443", Kind::Connect, Some(("a.test", 443))),
            ("a.test", Kind::Connect, None),
            ("a.test", Kind::Plain, Some(("a.test", 80))),
            ("a.test:8080", Kind::Plain, Some(("a.test", 8080))),
            ("[::1]:443", Kind::Connect, Some(("[::1]", 443))),
            ("[::1]", Kind::Plain, Some(("[::1]", 80))),
            ("[::1]x", Kind::Plain, None),
            ("a.test:0", Kind::Connect, None),
            ("a.test:70000", Kind::Connect, None),
            ("a.test:", Kind::Plain, None),
            (":80", Kind::Plain, None),
            ("", Kind::Plain, None),
        ] {
            let found = destination(authority, kind).map(|to| (to.host, to.port));
            assert_eq!(found, expected, "{authority}");
        }
    }

    #[test]
    fn an_empty_table_is_a_safe_forward_proxy() {
        assert!(problems("").is_empty());
    }

    #[test]
    fn wrong_settings_are_problems_with_a_place() {
        for (toml, place) in [
            ("timeouts = { connect = '0s' }", "forward_proxy.timeouts.connect"),
            ("deny = [{ hosts = ['a b'] }]", "forward_proxy.deny[0].hosts[0]"),
            ("parent = { address = 'p' }", "forward_proxy.parent.address"),
            ("deny = [{ networks = ['10.0.0.0/8'] }]\nparent = { address = 'p:1' }", "forward_proxy.parent"),
        ] {
            assert_eq!(problems(toml), [place], "{toml}");
        }
        let resolved = "deny = [{ networks = ['10.0.0.0/8'] }]\nparent = { address = 'p:1', resolve = true }";
        assert!(problems(resolved).is_empty());
    }
}
