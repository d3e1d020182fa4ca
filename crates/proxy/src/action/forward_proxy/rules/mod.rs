//! Which destinations a forward proxy goes to.
//!
//! Promise: pure. Denials come first, and a denial looks at every form of an address while a permission looks
//! only at the address itself. Nothing that is not public is allowed by a name alone: names belong to whoever
//! runs their zone, so a name that turns to a private address (DNS rebinding) opens nothing. What was decided
//! about an address holds for that address; the caller dials no other.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scope::{Scopes, Special};
use crate::problem::{At, Problems};
use crate::resolve::literal;
use crate::value::Network;

/// A rule about destinations. It applies where all of its parts apply; a rule without parts applies to all.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DenyRule {
    /// What the request asks for: "example.org", "*.example.org" for every name below it, "192.0.2.7", "*".
    /// An address written here is denied under every name that leads to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Ports: 443, or a range "8000-8999". Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Ports>,
    /// Networks that the address which would be dialled lies in. IPv4 networks count for addresses that carry
    /// IPv4 addresses too (NAT64, 6to4).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
}

/// A rule that allows destinations. It applies where all of its parts apply.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AllowRule {
    /// What the request asks for: "example.org", "*.example.org" for every name below it, "192.0.2.7", "*".
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Ports: 443, or a range "8000-8999". Default: 443 for CONNECT; 80 and 1024 to 65535 for plain HTTP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Ports>,
    /// Networks that the address which is dialled lies in. A network inside a private or other special range
    /// opens its part of it; a wider one, as "0.0.0.0/0", opens none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Whether it allows addresses that are not public (loopback, private, link-local, ...) which it applies
    /// to. Without it only `networks`, or an address in `hosts` that the request asks for, does. Default false.
    pub private: bool,
}

/// A port or a range of ports.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Ports {
    /// This one.
    One(u16),
    /// "8000-8999": from the first to the last.
    Range(String),
}

/// How a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As a tunnel: CONNECT.
    Connect,
    /// As a plain HTTP request.
    Plain,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// A name or an address, with or without brackets.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// How it goes on.
    pub kind: Kind,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may go there: by the allow rule of this position, or because there is none.
    Allowed(Option<usize>),
    /// It may not.
    Denied(Reason),
}

/// Why a destination is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The deny rule of this position applies.
    Rule(usize),
    /// The address is not public, and no rule says that this does not matter.
    Private(Special),
    /// There are no rules for it, and the port is not one of the default ones.
    Port,
    /// No allow rule applies.
    NoRule,
}

/// The rules, checked.
#[derive(Clone, Debug)]
pub struct Rules {
    deny: Vec<Parts>,
    allow: Vec<(Parts, Private)>,
    scopes: Scopes,
}

/// What an allow rule says about addresses that are not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Private {
    Allowed,
    OnlyNamed,
}

#[derive(Clone, Debug)]
struct Parts {
    hosts: Vec<Pattern>,
    ports: Vec<RangeInclusive<u16>>,
    networks: Vec<IpNet>,
}

/// Hosts of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Any,
    Name(Box<str>),
    Below(Box<str>),
    Address(IpAddr),
}

impl Pattern {
    /// "example.org", "*.example.org", "192.0.2.7", "[::1]" or "*".
    pub(super) fn parse(text: &str) -> Result<Pattern, String> {
        if text == "*" {
            return Ok(Pattern::Any);
        }
        if let Some(address) = literal(text) {
            return Ok(Pattern::Address(address));
        }
        let name = canonical(text);
        let (below, rest) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, &*name),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_label = |label: &str| !label.is_empty() && label.len() < 64 && label.bytes().all(plain);
        if rest.len() > 253 || !rest.split('.').all(is_label) {
            return Err(format!("`{text}` is not a host"));
        }
        Ok(if below { Pattern::Below(rest.into()) } else { Pattern::Name(rest.into()) })
    }

    /// Whether a request for `host` (canonical; `address` when it is one) asks for it.
    pub(super) fn matches(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Address(own) => address == Some(*own),
            Pattern::Name(name) => address.is_none() && **name == *host,
            Pattern::Below(name) => {
                let rest = host.strip_suffix(&**name).and_then(|rest| rest.strip_suffix('.'));
                address.is_none() && rest.is_some_and(|rest| !rest.is_empty())
            }
        }
    }
}

/// Lower case, without a final dot.
pub(super) fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Checks host patterns, which stand at `at`.
pub(super) fn patterns(texts: &[String], at: &At, problems: &mut Problems) -> Vec<Pattern> {
    let parse = |(index, text): (usize, &String)| {
        let parsed = Pattern::parse(text);
        if let Err(message) = &parsed {
            problems
                .add(&at.index(index), message.clone())
                .hint("write a name, \"*.example.org\" for every name below one, an address, or \"*\"");
        }
        parsed.ok()
    };
    texts.iter().enumerate().filter_map(parse).collect()
}

impl Rules {
    /// Checks the rules of a document; `at` is the place of the action.
    pub fn check(allow: &[AllowRule], deny: &[DenyRule], at: &At, problems: &mut Problems) -> Rules {
        let mut parts = |key: &str, index: usize, (hosts, ports, networks): (_, _, &[Network])| {
            let at = at.key(key).index(index);
            Parts {
                hosts: patterns(hosts, &at.key("hosts"), problems),
                ports: port_ranges(ports, &at.key("ports"), problems),
                networks: networks.iter().map(|network| network.0).collect(),
            }
        };
        let deny = (deny.iter().enumerate())
            .map(|(index, rule)| parts("deny", index, (&rule.hosts, &rule.ports, &rule.networks)))
            .collect();
        let allow = (allow.iter().enumerate())
            .map(|(index, rule)| {
                let private = if rule.private { Private::Allowed } else { Private::OnlyNamed };
                (parts("allow", index, (&rule.hosts, &rule.ports, &rule.networks)), private)
            })
            .collect();
        Rules { deny, allow, scopes: Scopes::new() }
    }

    /// Whether any rule speaks of networks, and so needs the address of a name.
    pub fn need_addresses(&self) -> bool {
        let allow = self.allow.iter().map(|(parts, _)| parts);
        self.deny.iter().chain(allow).any(|parts| !parts.networks.is_empty())
    }

    /// Decides about a name before it is looked up: `Denied` when no address of it could be allowed. Asking a
    /// name server about a name that is denied would tell the world what was asked for.
    pub fn decide_name(&self, to: Destination<'_>) -> Decision {
        self.judge(to, Address::Any)
    }

    /// What can be said of a name without looking it up: the decision for an address that no rule names, and
    /// the rules whose word depends on the address.
    pub fn explain_name(&self, to: Destination<'_>) -> String {
        let asked = Asked::new(to, Address::Elsewhere, &self.scopes);
        let mut text = self.judge(to, Address::Elsewhere).to_string();
        let applies = |rule: &Parts| {
            let others = Parts { networks: Vec::new(), ..rule.clone() };
            !rule.networks.is_empty() && self.denies(&others, &asked)
        };
        let deny = self.deny.iter().enumerate().filter(|(_, rule)| applies(rule));
        let permits = |rule: &Parts| {
            let others = Parts { networks: Vec::new(), ..rule.clone() };
            !rule.networks.is_empty() && others.permits(Private::OnlyNamed, &asked).is_ok()
        };
        let allow = self.allow.iter().enumerate().filter(|(_, (rule, _))| permits(rule));
        let depends = deny
            .map(|(index, _)| format!("deny[{index}]"))
            .chain(allow.map(|(index, _)| format!("allow[{index}]")))
            .collect::<Vec<_>>();
        if !depends.is_empty() {
            text.push_str("; its address may change that: ");
            text.push_str(&depends.join(", "));
        }
        text
    }

    /// Decides about an address of a destination; `address` is what would be dialled.
    pub fn decide(&self, to: Destination<'_>, address: IpAddr) -> Decision {
        self.judge(to, Address::Known(address.to_canonical()))
    }

    fn judge(&self, to: Destination<'_>, address: Address) -> Decision {
        let asked = Asked::new(to, address, &self.scopes);
        if let Some(index) = self.deny.iter().position(|rule| self.denies(rule, &asked)) {
            return Decision::Denied(Reason::Rule(index));
        }
        if self.allow.is_empty() {
            return match asked.special {
                _ if !is_default(to) => Decision::Denied(Reason::Port),
                Some(special) => Decision::Denied(Reason::Private(special)),
                None => Decision::Allowed(None),
            };
        }
        let mut closest = Reason::NoRule;
        for (index, (rule, private)) in self.allow.iter().enumerate() {
            match rule.permits(*private, &asked) {
                Ok(()) => return Decision::Allowed(Some(index)),
                Err(reason) if reason.closeness() > closest.closeness() => closest = reason,
                Err(_) => {}
            }
        }
        Decision::Denied(closest)
    }

    /// Whether a deny rule applies; what is not known yet does not count as denied.
    fn denies(&self, rule: &Parts, asked: &Asked<'_>) -> bool {
        let known = asked.address.known();
        let carried = known.and_then(|address| self.scopes.carried(address));
        let forms = || known.into_iter().chain(carried);
        let named = |pattern: &Pattern| {
            pattern.matches(&asked.host, asked.literal)
                || forms().any(|form| *pattern == Pattern::Address(form))
        };
        let within = |network: &IpNet| forms().any(|form| network.contains(&form));
        (rule.hosts.is_empty() || rule.hosts.iter().any(named))
            && (rule.ports.is_empty() || rule.has_port(asked.to.port))
            && (rule.networks.is_empty() || rule.networks.iter().any(within))
    }
}

/// A destination with what is known of it.
struct Asked<'a> {
    host: String,
    /// The address that the host spells.
    literal: Option<IpAddr>,
    to: Destination<'a>,
    address: Address,
    special: Option<Special>,
}

/// The address that would be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    Known(IpAddr),
    /// Not known: take the one that allows most.
    Any,
    /// Not known: take a public one that no rule names.
    Elsewhere,
}

impl Address {
    fn known(self) -> Option<IpAddr> {
        match self {
            Address::Known(address) => Some(address),
            Address::Any | Address::Elsewhere => None,
        }
    }

    fn is_in(self, network: &IpNet) -> bool {
        match self {
            Address::Known(address) => network.contains(&address),
            Address::Any => true,
            Address::Elsewhere => false,
        }
    }
}

impl<'a> Asked<'a> {
    fn new(to: Destination<'a>, address: Address, scopes: &Scopes) -> Asked<'a> {
        let literal = literal(to.host);
        let address = match literal {
            Some(literal) if address.known().is_none() => Address::Known(literal),
            _ => address,
        };
        let special = address.known().and_then(|address| scopes.special(address));
        Asked { host: canonical(to.host), literal, to, address, special }
    }
}

impl Reason {
    /// How near a rule that gave it came to allowing: the nearest says most about what to change.
    fn closeness(self) -> u8 {
        match self {
            Reason::Private(_) => 2,
            Reason::Port => 1,
            Reason::NoRule | Reason::Rule(_) => 0,
        }
    }
}

impl Parts {
    /// Whether this allow rule applies and is enough.
    fn permits(&self, private: Private, asked: &Asked<'_>) -> Result<(), Reason> {
        let named = |pattern: &Pattern| pattern.matches(&asked.host, asked.literal);
        if !(self.hosts.is_empty() || self.hosts.iter().any(named)) {
            return Err(Reason::NoRule);
        }
        if self.ports.is_empty() && !is_default(asked.to) {
            return Err(Reason::Port);
        }
        if !(self.ports.is_empty() || self.has_port(asked.to.port)) {
            return Err(Reason::NoRule);
        }
        let covering: Vec<&IpNet> =
            self.networks.iter().filter(|network| asked.address.is_in(network)).collect();
        if covering.is_empty() && !self.networks.is_empty() {
            return Err(Reason::NoRule);
        }
        let Some(special) = asked.special else { return Ok(()) };
        let inside = |network: &&IpNet| network.prefix_len() >= special.range.prefix_len();
        let literally = |pattern: &Pattern| match pattern {
            Pattern::Address(own) => asked.literal == Some(*own) && asked.address == Address::Known(*own),
            _ => false,
        };
        let opened =
            private == Private::Allowed || covering.iter().any(inside) || self.hosts.iter().any(literally);
        if opened { Ok(()) } else { Err(Reason::Private(special)) }
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(&port))
    }
}

/// Ports that are allowed where no rule names any. A tunnel to a mail or chat server is the oldest abuse of
/// forward proxies; plain HTTP to a low port is hardly ever HTTP.
fn is_default(to: Destination<'_>) -> bool {
    match to.kind {
        Kind::Connect => to.port == 443,
        Kind::Plain => to.port == 80 || to.port >= 1024,
    }
}

fn port_ranges(ports: &[Ports], at: &At, problems: &mut Problems) -> Vec<RangeInclusive<u16>> {
    let parse = |(index, ports): (usize, &Ports)| {
        let range = match ports {
            Ports::One(port) => Some(*port..=*port),
            Ports::Range(text) => text.split_once('-').and_then(|(first, last)| {
                let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                let port = |text: &str| text.parse::<u16>().ok().filter(|_| digits(text));
                Some(port(first.trim())?..=port(last.trim())?)
            }),
        };
        let range = range.filter(|range| *range.start() > 0 && !range.is_empty());
        if range.is_none() {
            problems
                .add(&at.index(index), "not a port or a range of ports")
                .hint("write 443, or \"8000-8999\" with the smaller port first");
        }
        range
    };
    ports.iter().enumerate().filter_map(parse).collect()
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Allowed(Some(rule)) => write!(f, "allowed by allow[{rule}]"),
            Decision::Allowed(None) => f.write_str("allowed: no allow rule, and nothing denies it"),
            Decision::Denied(Reason::Rule(rule)) => write!(f, "denied by deny[{rule}]"),
            Decision::Denied(Reason::Private(special)) => {
                write!(f, "denied: the address is {} ({}), and no rule opens it", special.what, special.range)
            }
            Decision::Denied(Reason::Port) => {
                f.write_str("denied: the port is not a default one, and no rule names it")
            }
            Decision::Denied(Reason::NoRule) => f.write_str("denied: no allow rule applies"),
        }
    }
}

#[cfg(test)]
mod tests;
