//! The `quota` filter: how many requests, connections or flows there may be in a period of the calendar.
//!
//! Promise: exact to the request, over a restart and a crash of the process, and over all gateways that share a
//! Redis server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::Request;

use super::{Carries, Filter, Flow, Loading};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::limit::OnRedisFailure;
use crate::limit::key::Per;
use crate::limit::plan::{Owner, Plan, Written};
use crate::limit::quota::{self, Quota};
use crate::limit::record::{Kind, Show};
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::value::Span;

/// Limits how many requests there are in a period of the calendar (UTC). What is too much is answered with 429 and
/// Retry-After (RESOURCE_EXHAUSTED to a gRPC client). It is kept in the directory `state` of `process`, each
/// request before it passes; without one it begins anew when the process starts.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is counted apart: "consumer" (or, without one, the user), "client" (its address), "route",
    /// "listener", "upstream" (all routes that forward to it together), or an expression:
    /// "request.headers['x-tenant']", "jwt.claims.sub". A request without such a value counts by its client's
    /// address. Default "consumer".
    #[serde(default = "consumer")]
    pub per: String,
    /// How many requests.
    pub limit: u64,
    /// In which period: "hour", "day", "week" or "month" of the calendar in UTC, or any length of time: "90m".
    pub period: Span,
    /// Its name in answers. Quotas of several routes that have the same name, period and `per` are one quota.
    /// Default: the route's name, and a quota of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many bits of an IPv4 address count. Default 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_prefix: Option<u8>,
    /// How many bits of an IPv6 address count. Default 64: what one customer has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_prefix: Option<u8>,
    /// Whether it lets everything pass and only counts what it would have refused. Default false.
    #[serde(default)]
    pub dry_run: bool,
    /// When answers have RateLimit, RateLimit-Policy and X-RateLimit fields. Default "refused".
    #[serde(default)]
    pub headers: Show,
    /// A Redis server in which all gateways count together, as for rate_limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
    /// What happens while the Redis server has no answer. Default "local".
    #[serde(default)]
    pub on_redis_failure: OnRedisFailure,
}

/// The checked filter.
#[derive(Debug)]
pub struct Limiter {
    plan: Plan,
    limit: u64,
    period: Span,
    /// None until it is loaded: then nothing passes.
    running: Option<Quota>,
}

fn consumer() -> String {
    "consumer".to_owned()
}

impl Filter for Limiter {
    type Config = Config;

    const NAME: &'static str = "quota";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Limiter> {
        let found = problems.iter().count();
        let written = Written {
            per: &config.per,
            prefixes: (config.ipv4_prefix, config.ipv6_prefix),
            name: config.name.as_ref(),
            dry_run: config.dry_run,
            headers: config.headers,
            shared: config.shared.as_ref(),
            on_redis_failure: config.on_redis_failure,
        };
        let plan = Plan::check(&written, at, problems);
        if config.limit == 0 {
            problems.add(&at.key("limit"), "with a quota of zero nothing would be let through");
        }
        let (limit, period) = (config.limit, config.period);
        (problems.iter().count() == found).then_some(Limiter { plan: plan?, limit, period, running: None })
    }

    fn carries(config: &Config) -> Carries {
        match (Per::is_of_connections(&config.per), &config.shared) {
            (false, _) => Carries::Requests,
            (true, Some(_)) => Carries::Connections,
            (true, None) => Carries::Flows,
        }
    }

    fn load(&mut self, loading: &Loading<'_>, at: &At, problems: &mut Problems) {
        let owner = Owner { route: loading.route, upstream: loading.upstream };
        // Not the limit: with another one what was used stays used.
        let definition = format!("quota {}", self.period);
        let Some(identity) = self.plan.identity(&definition, (owner, loading.seen), at, problems) else {
            return;
        };
        let Ok(remote) = self.plan.remote(&identity, &loading.shared.redis, at, problems) else { return };
        let manner = self.plan.manner(Kind::Quota, owner, (self.limit, quota::length(self.period)));
        let parts = (self.limit, self.period, manner);
        self.running = problems.take(at, Quota::new(parts, &identity, &loading.shared.limits, remote));
    }

    async fn on_request(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        let running = self.running.as_ref().ok_or(Failure::Internal)?;
        running.enforce(&self.plan.per, scene.world, (exchange, &request.head)).await?;
        Ok(Flow::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Shared, fixture};

    fn loaded(toml: &str, shared: &Shared) -> Limiter {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let built = Limiter::build(&config, &At::root(), &mut problems);
        let mut built = built.unwrap_or_else(|| panic!("{problems:?}"));
        built.load(&fixture::loading(shared), &At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        built
    }

    /// How many of so many requests of this user pass.
    async fn passed(filter: &Limiter, user: Option<&str>, times: usize) -> usize {
        let stage = fixture::stage();
        let mut passed = 0;
        for _ in 0..times {
            let (mut exchange, mut request) = (fixture::exchange("/"), fixture::request("GET", "/"));
            exchange.user = user.map(Into::into);
            let flow = filter.on_request(&stage.scene(), &mut exchange, &mut request).await;
            assert!(matches!(flow, Ok(_) | Err(Failure::RateLimited)), "{flow:?}");
            passed += usize::from(flow.is_ok());
        }
        passed
    }

    #[tokio::test(flavor = "local")]
    async fn each_user_has_its_quota_and_a_new_limit_counts_what_was_used() {
        let shared = Shared::new(b"");
        let three = loaded("limit = 3\nperiod = '3650d'", &shared);
        assert_eq!((passed(&three, Some("a"), 5).await, passed(&three, Some("b"), 2).await), (3, 2));
        // Who is nobody counts by the address.
        assert_eq!(passed(&three, None, 5).await, 3);
        let five = loaded("limit = 5\nperiod = '3650d'", &shared);
        assert_eq!((passed(&five, Some("a"), 5).await, passed(&five, Some("b"), 5).await), (2, 3));
        let other = loaded("limit = 5\nperiod = '3649d'", &shared);
        assert_eq!(passed(&other, Some("a"), 9).await, 5);
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        let config: Config = toml_edit::de::from_str("limit = 0\nperiod = 'day'\nper = 'x'").unwrap();
        let mut problems = Problems::new();
        assert!(Limiter::build(&config, &At::root().key("quota"), &mut problems).is_none());
        let places: Vec<_> = problems.iter().map(|problem| problem.at.to_string()).collect();
        assert_eq!(places, ["quota.per", "quota.limit"]);
    }
}
