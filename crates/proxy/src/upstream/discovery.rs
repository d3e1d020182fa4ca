//! An upstream that is found in the tunnels of a service.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::{self, Policy};
use crate::problem::{At, Problems};
use crate::tunnels::config::place;
use crate::tunnels::{SCHEME, Unknown, Wanted};
use crate::value::Period;

/// Finds the service in the tunnels that its connectors have opened, instead of `endpoints`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The route that connectors register, for example "my-service"; `*` for the one that serves every path.
    pub tunnel: String,
    /// The domain they register it for. Default: all domains, as connectors of version 1.0 always do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// How long a request waits for a tunnel; then it gets 503. Default "5s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Period>,
}

/// What an upstream's discovery comes to.
pub(super) struct Discovered {
    /// What stands for it where an endpoint's address is shown.
    pub(super) address: String,
    pub(super) wanted: Arc<Wanted>,
}

/// How long a request waits for a tunnel.
pub fn wait(period: Option<Period>) -> Duration {
    period.map_or(Duration::from_secs(5), |period| period.0)
}

/// Checks the discovery of an upstream, if it has one.
pub(super) fn check(config: &config::Config, at: &At, problems: &mut Problems) -> Option<Discovered> {
    let Config { tunnel, domain, wait: period } = config.discovery.as_ref()?;
    for (key, written, why) in [
        ("endpoints", !config.endpoints.is_empty(), "where requests go is said by `discovery` already"),
        (
            "health",
            config.health.is_some(),
            "a tunnel that is silent ends by itself: there is nothing to check",
        ),
        (
            "tls",
            config.tls.is_some(),
            "a tunnel has the TLS of its listener; what is behind it is its connector's",
        ),
        ("protocol", config.protocol.is_some(), "what a tunnel speaks, its connector has said"),
        (
            "proxy_protocol",
            config.proxy_protocol.is_some(),
            "a tunnel's connection belongs to no single client",
        ),
    ] {
        if written {
            problems.add(&at.key(key), why);
        }
    }
    let own = at.key("discovery");
    for (key, text) in [("tunnel", Some(tunnel)), ("domain", domain.as_ref())] {
        if text.is_some_and(|text| text.is_empty() || text.bytes().any(|byte| byte <= b' ' || byte >= 0x7f)) {
            problems
                .add(&own.key(key), "this names no tunnel")
                .hint("as the connector says it: \"my-service\"");
        }
    }
    let route = place(tunnel);
    let domain = domain.as_deref().map_or("", place).to_ascii_lowercase();
    let shown = if route.is_empty() { "*" } else { route };
    let address = match &*domain {
        "" => format!("{SCHEME}{shown}"),
        domain => format!("{SCHEME}{shown}@{domain}"),
    };
    let places = vec![(domain.into(), route.into())];
    let wanted = Arc::new(Wanted { places, wait: wait(*period), unknown: Unknown::Waits });
    Some(Discovered { address, wanted })
}

/// The upstream of all tunnels, for requests that say which one.
pub fn all(problems: &mut Problems) -> Option<Policy> {
    let config = config::Config {
        endpoints: Vec::new(),
        discovery: Some(Config { tunnel: "*".to_owned(), domain: None, wait: None }),
        balance: Default::default(),
        hash: None,
        affinity: None,
        health: None,
        // It stands for services that have nothing to do with each other.
        ejection: Some(config::EjectionSetting::Switch(false)),
        breaker: None,
        group_breaker: None,
        concurrency: None,
        panic_threshold: None,
        slow_start: None,
        tls: None,
        protocol: None,
        http2: Default::default(),
        pool: Default::default(),
        proxy_protocol: None,
        timeouts: Default::default(),
        retry_budget: None,
    };
    config.check(&At::root(), problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(toml: &str) -> (Option<Policy>, Vec<String>) {
        let config: config::Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let policy = config.check(&At::root(), &mut problems);
        (policy, problems.iter().map(|problem| problem.at.to_string()).collect())
    }

    #[test]
    fn it_stands_for_one_endpoint() {
        for (discovery, address, place) in [
            ("tunnel = '/my-service/'", "tunnel:my-service", ("", "my-service")),
            ("tunnel = '*'", "tunnel:*", ("", "")),
            ("tunnel = 'a', domain = 'Shop.Example'", "tunnel:a@shop.example", ("shop.example", "a")),
        ] {
            let (policy, problems) = checked(&format!("discovery = {{ {discovery} }}"));
            assert_eq!(problems, [""; 0]);
            let policy = policy.unwrap();
            assert_eq!(
                policy.endpoints.iter().map(|endpoint| &*endpoint.address).collect::<Vec<_>>(),
                [address]
            );
            let places = &policy.discovery.unwrap().places;
            assert_eq!(places[..], [(place.0.into(), place.1.into())]);
        }
    }

    #[test]
    fn what_means_nothing_to_a_tunnel_is_a_problem() {
        let with = |more: &str| checked(&format!("discovery = {{ tunnel = 'a' }}\n{more}")).1;
        assert_eq!(with("endpoints = ['127.0.0.1:1']"), ["endpoints"]);
        assert_eq!(with("health = { tcp = {} }"), ["health"]);
        assert_eq!(with("tls = true"), ["tls"]);
        assert_eq!(with("protocol = 'http1'"), ["protocol"]);
        assert_eq!(with("proxy_protocol = 'v1'"), ["proxy_protocol"]);
        assert_eq!(
            checked("discovery = { tunnel = 'a b', domain = '' }").1,
            ["discovery.tunnel", "discovery.domain"]
        );
        assert_eq!(checked("").1, ["endpoints"]);
    }
}
