//! What people write about an upstream, and the checked form of it.
//!
//! Doc comments of the document types are the user manual.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::FieldName;
use sluice_traffic::retry::BudgetPolicy;
use sluice_traffic::{balance, breaker, ejection};

use crate::address::Address;
use crate::gate::Patience;
use crate::health;
use crate::problem::{At, Problems};
use crate::tls::{ClientPolicy, ClientTls};
use crate::tunnels::Wanted;
use crate::upstream::limits::or;
pub use crate::upstream::limits::{
    BudgetConfig, ConcurrencyConfig, PoolConfig, PoolPolicy, Timeouts, TimeoutsConfig,
};
use crate::upstream::proxy_header::ProxyProtocol;
use crate::upstream::{affinity, discovery, http2};
use crate::value::{Period, Ratio};

/// A group of interchangeable endpoints.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where requests go: "host:port", "unix:/path", or a table with more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointConfig>,
    /// Where requests go instead of `endpoints`: through the tunnels of a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<discovery::Config>,
    /// How an endpoint is chosen. Default "round_robin".
    #[serde(default)]
    pub balance: balance::Config,
    /// What the hashing balancers hash. Default "client", the trusted client address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashKey>,
    /// Keeps a client on one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<affinity::Config>,
    /// Asks endpoints regularly whether they are well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<health::Config>,
    /// Leaves an endpoint alone for a while after failures in a row of real traffic. Default true: on, with
    /// the defaults of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<EjectionSetting>,
    /// Stops sending to an endpoint while too many of its answers are failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerConfig>,
    /// The same for all endpoints together: while it is open nothing is sent to any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_breaker: Option<BreakerConfig>,
    /// How many requests and connections run at once at all endpoints together. Default: no limit. `pool` has
    /// limits for each endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyConfig>,
    /// When a smaller share of the endpoints than this is available, health is ignored and all of them are
    /// used. Default 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<Ratio>,
    /// An endpoint that comes back gets its share of traffic gradually over this time. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Period>,
    /// Speaks TLS to the endpoints: true, or a table with more. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// What is spoken with the endpoints. Default "auto" with TLS, "http1" without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// How HTTP/2 is spoken with them.
    #[serde(default)]
    pub http2: http2::Config,
    /// Connections to the endpoints.
    #[serde(default)]
    pub pool: PoolConfig,
    /// Tells endpoints who the client is in front of each connection (PROXY protocol): "v1" or "v2". Such a
    /// connection serves one exchange and is not pooled. A UDP flow carries "v2" in its first datagram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// How many retries all requests to this upstream may cause together. One of a request of which nothing
    /// was sent, as after a connect error, always may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<BudgetConfig>,
}

/// Where requests go.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum EndpointConfig {
    /// "host:port", whose host name is resolved when the configuration is loaded; or "unix:/path".
    Address(String),
    /// More about it.
    Detailed(DetailedEndpoint),
}

/// An endpoint with more than an address.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetailedEndpoint {
    /// "host:port", whose host name is resolved when the configuration is loaded; or "unix:/path".
    pub address: String,
    /// Its share of the traffic beside the others'. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<NonZeroU16>,
    /// Used only when no other endpoint is available. Default false.
    #[serde(default)]
    pub backup: bool,
    /// Whether it takes traffic. Default "enabled".
    #[serde(default)]
    pub state: EndpointState,
    /// The name a plain affinity cookie carries. Default: the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Whether an endpoint takes traffic.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It does.
    #[default]
    Enabled,
    /// Only from clients that affinity binds to it.
    Drain,
    /// None.
    Disabled,
}

impl EndpointState {
    /// The word documents use.
    pub const fn word(self) -> &'static str {
        match self {
            EndpointState::Enabled => "enabled",
            EndpointState::Drain => "drain",
            EndpointState::Disabled => "disabled",
        }
    }
}

/// What a hashing balancer hashes. When the value is absent from a request, the client address stands in.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HashKey {
    /// The trusted client address.
    #[default]
    Client,
    /// The path.
    Path,
    /// A request field.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
}

/// Whether and how endpoints are left alone after failures in a row.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(untagged)]
pub enum EjectionSetting {
    /// true: with the defaults; false: never.
    Switch(bool),
    /// More about it.
    Detailed(EjectionConfig),
}

/// Leaves an endpoint alone for a while after failures in a row: connect errors, resets, timeouts, invalid
/// answers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct EjectionConfig {
    /// Failures in a row. Default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<NonZeroU32>,
    /// Whether answers with a 5xx status are failures too. Default false: the endpoint did answer.
    pub server_errors: bool,
    /// For how long, times the number of ejections so far. Default "30s".
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Period>,
    /// The longest. Default "300s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_for: Option<Period>,
    /// The largest share of the endpoints that may be out at the same time. Default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ratio: Option<Ratio>,
}

/// Stops sending to an endpoint while too many of its answers are failures (connect errors, resets,
/// timeouts, 5xx). Closed: traffic flows. Open: none. Half-open: a few probes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// It opens at this share of failures in the window. Default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_ratio: Option<Ratio>,
    /// The time that is looked at. Default "10s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Period>,
    /// With fewer requests in the window it does not open. Default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<NonZeroU32>,
    /// How long it stays open; doubles each time its probes fail. Default "5s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_for: Option<Period>,
    /// The longest it stays open. Default "60s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_for: Option<Period>,
    /// Probes that must succeed to close it; so many are let through at a time. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_open_requests: Option<NonZeroU16>,
    /// It also opens after so many failures in a row. Default: not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<NonZeroU32>,
}

/// An upstream, checked: defaults applied, names compiled, nothing resolved.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its endpoints.
    pub endpoints: Vec<EndpointPolicy>,
    /// The tunnels it is reached through.
    pub discovery: Option<Arc<Wanted>>,
    /// How one is chosen.
    pub balance: balance::Config,
    /// What is hashed.
    pub hash: HashSource,
    /// Sticky choice.
    pub affinity: Option<affinity::Policy>,
    /// Active checks.
    pub health: Option<health::Policy>,
    /// Passive ejection.
    pub ejection: Option<EjectionPolicy>,
    /// Breaker of each endpoint.
    pub breaker: Option<breaker::Policy>,
    /// Breaker of all of them.
    pub group_breaker: Option<breaker::Policy>,
    /// Requests at once at all of them, and who waits.
    pub concurrency: Option<(u32, Patience)>,
    /// Below this share of available endpoints health is ignored.
    pub panic_threshold: f64,
    /// Ramp of an endpoint that came back.
    pub slow_start: Option<Duration>,
    /// TLS; None: plain.
    pub tls: Option<ClientPolicy>,
    /// What is spoken.
    pub protocol: Protocol,
    /// How HTTP/2 is.
    pub http2: http2::Policy,
    /// Connections.
    pub pool: PoolPolicy,
    /// What endpoints are told first.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Times.
    pub timeouts: Timeouts,
    /// Retries of all requests together.
    pub budget: BudgetPolicy,
}

/// Passive ejection, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EjectionPolicy {
    /// When, and for how long.
    pub rule: ejection::Policy,
    /// Whether 5xx answers count.
    pub server_errors: bool,
}

/// An endpoint, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// "host:port".
    pub address: String,
    /// Its share.
    pub weight: u32,
    /// Primary or backup.
    pub backup: bool,
    /// Whether it takes traffic.
    pub state: EndpointState,
    /// What a plain affinity cookie carries.
    pub id: String,
}

/// What is hashed, with its name compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashSource {
    /// The trusted client address.
    Client,
    /// The normalised path.
    Path,
    /// A request field.
    Header(FieldName),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
}

/// What is spoken with endpoints.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, and nothing else: without TLS the endpoint must know that (h2c with prior knowledge).
    Http2,
    /// What TLS agrees on (ALPN): HTTP/2 if the endpoint speaks it, else HTTP/1.1. Needs TLS.
    Auto,
}

impl Config {
    /// Checks everything that can be checked without the network.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<Policy> {
        let discovered = discovery::check(self, at, problems);
        let endpoints = match &discovered {
            Some(discovered) => Some(vec![EndpointPolicy::plain(&discovered.address)]),
            None => self.check_endpoints(at, problems),
        };
        let hash = self.hash.clone().unwrap_or_default().check(&at.key("hash"), problems);
        let affinity = self.affinity.as_ref().and_then(|config| config.check(&at.key("affinity"), problems));
        let health = self.health.as_ref().and_then(|config| config.check(&at.key("health"), problems));
        let tls = self.check_tls(endpoints.as_deref().unwrap_or_default(), at, problems);
        let http2 = self.http2.check(&at.key("http2"), problems);
        self.check_protocol(at, problems);
        let protocol = self.protocol.unwrap_or(match &tls {
            // A connection that names one client cannot be shared.
            Some(_) if self.proxy_protocol.is_none() => Protocol::Auto,
            _ => Protocol::Http1,
        });
        self.check_header(protocol, at, problems);
        self.check_times(at, problems);
        if self.pool.burst.is_some() && self.pool.max_rate.is_none() {
            problems.add(&at.key("pool").key("burst"), "of which rate?").hint("max_rate = \"100/s\"");
        }
        Some(Policy {
            endpoints: endpoints?,
            discovery: discovered.map(|discovered| discovered.wanted),
            balance: self.balance.clone(),
            hash: hash?,
            affinity,
            health,
            ejection: self.ejection.unwrap_or(EjectionSetting::Switch(true)).policy(),
            breaker: self.breaker.map(BreakerConfig::policy),
            group_breaker: self.group_breaker.map(BreakerConfig::policy),
            concurrency: self.concurrency.map(ConcurrencyConfig::policy),
            panic_threshold: self.panic_threshold.map_or(0.0, |ratio| ratio.0),
            slow_start: self.slow_start.map(|period| period.0),
            protocol,
            tls,
            http2: http2?,
            pool: PoolPolicy {
                // A connection that names one client serves no other.
                max_idle: if self.proxy_protocol.is_some() { 0 } else { self.pool.policy().max_idle },
                ..self.pool.policy()
            },
            proxy_protocol: self.proxy_protocol,
            timeouts: self.timeouts.policy(),
            budget: self.retry_budget.unwrap_or_default().policy(),
        })
    }

    fn check_endpoints(&self, at: &At, problems: &mut Problems) -> Option<Vec<EndpointPolicy>> {
        let at = at.key("endpoints");
        if self.endpoints.is_empty() {
            problems
                .add(&at, "an upstream needs at least one endpoint")
                .hint("endpoints = [\"127.0.0.1:9001\"], or discovery = { tunnel = \"my-service\" }");
        }
        let before = problems.iter().count();
        let mut out: Vec<EndpointPolicy> = Vec::with_capacity(self.endpoints.len());
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let at = at.index(index);
            let (at, policy) = match endpoint {
                EndpointConfig::Address(address) => (at, EndpointPolicy::plain(address)),
                EndpointConfig::Detailed(detailed) => (at.key("address"), detailed.policy()),
            };
            if let Err(message) = check_address(&policy.address) {
                problems
                    .add(&at, message)
                    .hint("write \"host:port\", for example \"127.0.0.1:9001\" or \"[::1]:9001\"");
            }
            if out.iter().any(|other| other.address == policy.address) {
                problems
                    .add(&at, format!("the endpoint `{}` stands twice in this upstream", policy.address))
                    .hint("give it once, with the weights added up");
            }
            out.push(policy);
        }
        (problems.iter().count() == before && !out.is_empty()).then_some(out)
    }

    fn check_tls(
        &self,
        endpoints: &[EndpointPolicy],
        at: &At,
        problems: &mut Problems,
    ) -> Option<ClientPolicy> {
        let policy = self.tls.as_ref()?.check(&at.key("tls"), problems)?;
        for (index, endpoint) in endpoints.iter().enumerate() {
            if policy.server_name(&endpoint.address).is_none() {
                let message = format!("`{}` cannot be the name of a TLS server", endpoint.address);
                let problem = problems.add(&at.key("endpoints").index(index), message);
                problem.hint("give the name that its certificate holds: tls = { sni = \"...\" }");
            }
        }
        Some(policy)
    }

    fn check_protocol(&self, at: &At, problems: &mut Problems) {
        let is_plain = matches!(self.tls, None | Some(ClientTls::Switch(false)));
        if self.protocol == Some(Protocol::Auto) && is_plain {
            problems
                .add(&at.key("protocol"), "`auto` asks TLS which protocol is spoken, but this upstream has none")
                .hint("write `protocol = \"http2\"` for endpoints that speak HTTP/2 without TLS, else \"http1\"");
        }
    }

    fn check_header(&self, protocol: Protocol, at: &At, problems: &mut Problems) {
        if self.proxy_protocol.is_some() && protocol != Protocol::Http1 {
            problems
                .add(
                    &at.key("proxy_protocol"),
                    "a connection that speaks HTTP/2 serves many clients, this names one",
                )
                .hint("the client stands in X-Forwarded-For and Forwarded too");
        }
    }

    fn check_times(&self, at: &At, problems: &mut Problems) {
        let (timeouts, pool) = (&self.timeouts, &self.pool);
        let times = [
            ("timeouts", "connect", timeouts.connect),
            ("timeouts", "first_byte", timeouts.first_byte),
            ("timeouts", "idle", timeouts.idle),
            ("timeouts", "total", timeouts.total),
            ("pool", "idle_timeout", pool.idle_timeout),
            ("pool", "max_age", pool.max_age),
        ];
        for (table, key, period) in times {
            if period.is_some_and(|period| period.0.is_zero()) {
                problems.add(&at.key(table).key(key), "a time of zero would fail every request");
            }
        }
    }
}

impl EndpointPolicy {
    pub(super) fn plain(address: &str) -> EndpointPolicy {
        let (address, id) = (address.to_owned(), address.to_owned());
        EndpointPolicy { address, weight: 1, backup: false, state: EndpointState::Enabled, id }
    }
}

impl DetailedEndpoint {
    fn policy(&self) -> EndpointPolicy {
        EndpointPolicy {
            address: self.address.clone(),
            weight: self.weight.map_or(1, |weight| u32::from(weight.get())),
            backup: self.backup,
            state: self.state,
            id: self.id.clone().unwrap_or_else(|| self.address.clone()),
        }
    }
}

/// Whether a text is `unix:/path`, or `host:port` with a port from 1 to 65535; the host may be an IPv6 literal in brackets.
fn check_address(address: &str) -> Result<(), String> {
    if let Some(unix) = Address::unix(address) {
        return unix.map(|_| ());
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!("`{address}` has no port"));
    };
    match port.parse::<u16>() {
        Ok(0) | Err(_) => return Err(format!("`{port}` is not a port from 1 to 65535")),
        Ok(_) => {}
    }
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fine = match literal {
        Some(literal) => literal.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    if fine { Ok(()) } else { Err(format!("`{host}` is not a host name or address")) }
}

impl HashKey {
    fn check(self, at: &At, problems: &mut Problems) -> Option<HashSource> {
        Some(match self {
            HashKey::Client => HashSource::Client,
            HashKey::Path => HashSource::Path,
            HashKey::Cookie(name) => HashSource::Cookie(name),
            HashKey::Query(name) => HashSource::Query(name),
            HashKey::Header(name) => {
                let Some(name) = FieldName::new(&name) else {
                    problems.add(&at.key("header"), format!("`{name}` is not a field name"));
                    return None;
                };
                HashSource::Header(name)
            }
        })
    }
}

impl EjectionSetting {
    fn policy(self) -> Option<EjectionPolicy> {
        match self {
            EjectionSetting::Switch(false) => None,
            EjectionSetting::Switch(true) => Some(EjectionConfig::default().policy()),
            EjectionSetting::Detailed(config) => Some(config.policy()),
        }
    }
}

impl EjectionConfig {
    fn policy(self) -> EjectionPolicy {
        let rule = ejection::Policy {
            consecutive_failures: self.consecutive_failures.map_or(5, NonZeroU32::get),
            base: or(self.duration, 30_000),
            max: or(self.max_for, 300_000),
            max_ratio: self.max_ratio.map_or(0.5, |ratio| ratio.0),
        };
        EjectionPolicy { rule, server_errors: self.server_errors }
    }
}

impl BreakerConfig {
    /// With defaults.
    pub fn policy(self) -> breaker::Policy {
        breaker::Policy {
            failure_ratio: self.failure_ratio.map_or(0.5, |ratio| ratio.0),
            window: or(self.window, 10_000),
            min_requests: self.min_requests.map_or(20, NonZeroU32::get),
            open_for: or(self.open_for, 5_000),
            max_open_for: or(self.max_open_for, 60_000),
            half_open_requests: self.half_open_requests.map_or(1, |count| u32::from(count.get())),
            consecutive_failures: self.consecutive_failures.map(NonZeroU32::get),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_form_are_told_from_unusable_ones() {
        for good in ["unix:/run/a.sock", "127.0.0.1:16001", "localhost:6001", "[::1]:6001", "a-b.example:1"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in [
            "unix:a",
            "127.0.0.1",
            "127.0.0.1:0",
            "a:99999",
            ":80",
            "[::1:80",
            "[x]:80",
            "a b:1",
            "http://a:80",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
