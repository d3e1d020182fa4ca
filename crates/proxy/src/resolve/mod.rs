//! Names to addresses: literals, localhost, the hosts file, DNS.
//!
//! Promise: a name means the same whoever asks. It is taken as complete (no search domains), never as an old
//! spelling of an IPv4 address ("127.1", "0x7f000001"), and localhost is this machine without asking anybody
//! (RFC 6761 section 6.3). Answers are kept for their time to live, between one second and one hour; that a
//! name does not exist, for one minute at most. What cannot be found says why: not there, not in time, or
//! no answer.

pub mod race;

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::{At, Problems};
use crate::value::Period;

/// Where names are looked up. The hosts file of the system always comes first.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name servers, "192.0.2.53" or "127.0.0.1:5353". Default: the system's (/etc/resolv.conf, read when the
    /// first name is looked up).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// For one question to one server. Default: the system's, usually "5s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// How often a question is asked before it has failed. Default: the system's, usually 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<NonZeroU8>,
    /// Answers that are kept, for each worker; 0 keeps none. Default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<u32>,
}

/// Where names are looked up, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    servers: Vec<SocketAddr>,
    timeout: Option<Duration>,
    attempts: Option<NonZeroU8>,
    cache: Option<u32>,
}

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// There is no such name, or it has no address.
    NotFound,
    /// No server answered in time.
    TimedOut,
    /// The servers could not be asked, or failed.
    Failed,
}

/// Looks names up, for one worker. It reads the system's configuration when it is first needed.
pub struct Resolver {
    policy: Policy,
    inner: OnceCell<Option<TokioResolver>>,
}

impl Config {
    /// Checks it; it stands at `at`.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Policy {
        let mut servers = Vec::new();
        for (index, text) in self.servers.iter().enumerate() {
            match parse_server(text) {
                Some(server) => servers.push(server),
                None => {
                    problems
                        .add(&at.key("servers").index(index), format!("`{text}` is not a name server"))
                        .hint("write an address, with a port when it is not 53: \"127.0.0.1:5353\"");
                }
            }
        }
        if self.timeout.is_some_and(|period| period.0.is_zero()) {
            problems.add(&at.key("timeout"), "a time of zero would fail every question");
        }
        Policy {
            servers,
            timeout: self.timeout.map(|period| period.0),
            attempts: self.attempts,
            cache: self.cache,
        }
    }
}

/// An address with or without a port.
fn parse_server(text: &str) -> Option<SocketAddr> {
    let server = text.parse().or_else(|_| {
        text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|ip| (ip, 53).into())
    });
    server.ok().filter(|server: &SocketAddr| server.port() != 0)
}

impl Resolver {
    /// A resolver that has not read anything yet.
    pub fn new(policy: Policy) -> Resolver {
        Resolver { policy, inner: OnceCell::new() }
    }

    /// What it was made with: a resolver whose policy did not change keeps its answers.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The addresses of `host`, a name or an address with or without brackets, in the order to try them.
    ///
    /// Cancel-safe. Must be called on the worker's runtime.
    ///
    /// # Errors
    /// [`Unresolved`] says why there is none.
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let name = match Host::of(host).known() {
            Ok(known) => return known,
            Err(name) => name,
        };
        let resolver = self.inner.get_or_init(|| build(&self.policy)).as_ref().ok_or(Unresolved::Failed)?;
        match resolver.lookup_ip(name).await {
            Err(error) => Err(reason(&error)),
            Ok(found) => {
                let mut addresses: Vec<IpAddr> = Vec::new();
                for address in found.iter().map(|address| address.to_canonical()) {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                if addresses.is_empty() { Err(Unresolved::NotFound) } else { Ok(addresses) }
            }
        }
    }
}

fn reason(error: &NetError) -> Unresolved {
    match error {
        NetError::Timeout => Unresolved::TimedOut,
        NetError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Unresolved::TimedOut,
        NetError::Dns(DnsError::NoRecordsFound(_)) => Unresolved::NotFound,
        _ => Unresolved::Failed,
    }
}

/// What a host is, before anybody is asked.
enum Host {
    Literal(IpAddr),
    Loopback,
    Name(Name),
    /// Neither an address nor a name that can exist.
    Nonsense,
}

/// What is known of a host without asking anybody: literals, localhost, and what can be neither an address nor
/// a name. `None` for every other name.
pub fn known(host: &str) -> Option<Result<Vec<IpAddr>, Unresolved>> {
    Host::of(host).known().ok()
}

impl Host {
    /// The addresses of a host that nobody has to be asked about; the name of one that somebody has.
    fn known(self) -> Result<Result<Vec<IpAddr>, Unresolved>, Name> {
        match self {
            Host::Literal(address) => Ok(Ok(vec![address])),
            Host::Loopback => Ok(Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])),
            Host::Nonsense => Ok(Err(Unresolved::NotFound)),
            Host::Name(name) => Err(name),
        }
    }

    fn of(host: &str) -> Host {
        if let Some(address) = literal(host) {
            return Host::Literal(address);
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.eq_ignore_ascii_case("localhost") {
            return Host::Loopback;
        }
        // No top-level name is a number: this is an IPv4 address for some, and a name for others.
        let number = last.strip_prefix("0x").or(last.strip_prefix("0X"));
        let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
            || number.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if numeric || !name.bytes().all(plain) {
            return Host::Nonsense;
        }
        match Name::from_ascii(name.to_ascii_lowercase()) {
            Ok(mut name) if !name.is_root() => {
                // Complete: no search domain is added to it.
                name.set_fqdn(true);
                Host::Name(name)
            }
            _ => Host::Nonsense,
        }
    }
}

/// The address a host spells, with or without brackets; an IPv4-mapped IPv6 address is the IPv4 address.
pub fn literal(host: &str) -> Option<IpAddr> {
    let text = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// `None` when there is no usable configuration.
fn build(policy: &Policy) -> Option<TokioResolver> {
    let provider = TokioRuntimeProvider::default();
    let system = TokioResolver::builder(provider.clone()).ok();
    let mut builder = match (system, policy.servers.is_empty()) {
        (Some(system), true) => system,
        (system, _) => {
            let local = [SocketAddr::from((Ipv4Addr::LOCALHOST, 53))];
            // Without a configuration the server of this machine is asked, as the C library does.
            let servers = if policy.servers.is_empty() { &local[..] } else { &policy.servers };
            let servers = servers.iter().map(|&address| server(address)).collect();
            let config = ResolverConfig::from_name_servers(servers);
            let mut builder = TokioResolver::builder_with_config(config, provider);
            if let Some(mut system) = system {
                *builder.options_mut() = system.options_mut().clone();
            }
            builder
        }
    };
    tune(builder.options_mut(), policy);
    builder.build().ok()
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections.iter_mut().for_each(|connection| connection.port = address.port());
    server
}

fn tune(options: &mut ResolverOpts, policy: &Policy) {
    if let Some(timeout) = policy.timeout {
        options.timeout = timeout;
    }
    if let Some(attempts) = policy.attempts {
        options.attempts = usize::from(attempts.get());
    }
    options.cache_size = u64::from(policy.cache.unwrap_or(1024));
    options.positive_min_ttl = Some(Duration::from_secs(1));
    options.positive_max_ttl = Some(Duration::from_secs(3600));
    options.negative_max_ttl = Some(Duration::from_secs(60));
}

#[cfg(test)]
mod tests;
