//! The `rate_limit` filter: how fast requests, connections or flows may come.
//!
//! Promise: see `limit`: without Redis no allocation and no system call; a reload that does not change it keeps
//! what it has counted; the contract of its algorithm holds over all workers together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::Request;
use sluice_traffic::limit::bucket::{Bucket, Queue};
use sluice_traffic::limit::fixed::Fixed;
use sluice_traffic::limit::sliding::Sliding;

use super::{Carries, Filter, Flow, Loading};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::limit::OnRedisFailure;
use crate::limit::key::Per;
use crate::limit::plan::{Owner, Plan, Written};
use crate::limit::rate::{self, RateLimit};
use crate::limit::record::{Kind, Show};
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::value::{Period, Rate};

/// How long a request may wait when nothing else is said, and how many may.
const QUEUE: Queue = Queue { places: 100, wait: std::time::Duration::from_secs(1) };

/// Limits how fast requests come; on TCP and UDP listeners, how fast connections and flows do. What is too much is
/// answered with 429 and Retry-After (RESOURCE_EXHAUSTED to a gRPC client).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is counted apart: "client" (its address), "consumer" (or, without one, the user), "route", "listener",
    /// "upstream" (all routes that forward to it together), or an expression: "request.headers['x-tenant']",
    /// "request.query.key", "jwt.claims.sub". A request without such a value counts by its client's address.
    /// Default "client". For each endpoint: `pool.max_rate` of the upstream.
    #[serde(default = "client")]
    pub per: String,
    /// How many in which time: "100/s", "600/m", "10/30s".
    pub rate: Rate,
    /// How many may come at once, of a bucket. Default: those of one second, at least 1; of a leaky bucket 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How they are counted. Default "token_bucket".
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How many may wait in a leaky bucket, for each key. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// The longest that one waits in a leaky bucket. Default "1s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Period>,
    /// Its name in answers. Limits of several routes that have the same name, rate and `per` are one limit.
    /// Default: the route's name, and a limit of its own.
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
    /// A Redis server in which all gateways count together: "redis://[user:password@]host[:port][/database]",
    /// "rediss://..." for TLS, "unix:///path"; "?timeout=250ms" says how long it may take to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
    /// What happens while the Redis server has no answer. Default "local".
    #[serde(default)]
    pub on_redis_failure: OnRedisFailure,
}

/// How requests are counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// A bucket of `burst` permits to which they come back one by one (GCRA): never more than the burst, and the
    /// rate.
    #[default]
    TokenBucket,
    /// The same, and who finds it empty waits for a permit: requests go on evenly. `queue` and `wait` bound how
    /// many wait, and how long.
    LeakyBucket,
    /// So many within any such time, wherever it begins. Who steadily asks for more gets all of the rate.
    SlidingWindow,
    /// So many in each such time of the clock, and then none until the next. Around the end of one, twice as many
    /// can come in a short time.
    FixedWindow,
}

/// The checked filter.
#[derive(Debug)]
pub struct Limiter {
    plan: Plan,
    algorithm: rate::Algorithm,
    /// How it counts, and how fast.
    definition: String,
    /// None until it is loaded: then nothing passes.
    running: Option<RateLimit>,
}

fn client() -> String {
    "client".to_owned()
}

impl Filter for Limiter {
    type Config = Config;

    const NAME: &'static str = "rate_limit";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Limiter> {
        let found = problems.iter().count();
        let plan = Plan::check(&config.written(), at, problems);
        let algorithm = config.algorithm(at, problems);
        (problems.iter().count() == found).then_some(Limiter {
            plan: plan?,
            algorithm,
            definition: format!("{:?} {}", config.algorithm, config.rate),
            running: None,
        })
    }

    fn carries(config: &Config) -> Carries {
        match (Per::is_of_connections(&config.per), config.algorithm, &config.shared) {
            (false, ..) => Carries::Requests,
            (true, Algorithm::LeakyBucket, _) | (true, _, Some(_)) => Carries::Connections,
            (true, _, None) => Carries::Flows,
        }
    }

    fn load(&mut self, loading: &Loading<'_>, at: &At, problems: &mut Problems) {
        let owner = Owner { route: loading.route, upstream: loading.upstream };
        let Some(identity) = self.plan.identity(&self.definition, (owner, loading.seen), at, problems) else {
            return;
        };
        let Ok(remote) = self.plan.remote(&identity, &loading.shared.redis, at, problems) else { return };
        let manner = self.plan.manner(Kind::RateLimit, owner, self.algorithm.policy());
        self.running =
            Some(RateLimit::new((self.algorithm, manner), &identity, &loading.shared.limits, remote));
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

impl Config {
    fn written(&self) -> Written<'_> {
        Written {
            per: &self.per,
            prefixes: (self.ipv4_prefix, self.ipv6_prefix),
            name: self.name.as_ref(),
            dry_run: self.dry_run,
            headers: self.headers,
            shared: self.shared.as_ref(),
            on_redis_failure: self.on_redis_failure,
        }
    }

    /// The algorithm; what does not belong to it is a problem.
    fn algorithm(&self, at: &At, problems: &mut Problems) -> rate::Algorithm {
        use Algorithm::{FixedWindow, LeakyBucket, SlidingWindow, TokenBucket};
        if self.burst.is_some() && matches!(self.algorithm, FixedWindow | SlidingWindow) {
            let problem = problems.add(&at.key("burst"), "a window has no burst: all of it may come at once");
            problem.hint("algorithm = \"token_bucket\"");
        }
        for (key, written) in [("queue", self.queue.is_some()), ("wait", self.wait.is_some())] {
            if written && self.algorithm != LeakyBucket {
                let problem = problems.add(&at.key(key), "only a leaky bucket makes requests wait");
                problem.hint("algorithm = \"leaky_bucket\"");
            }
        }
        let zero = "with zero nothing would be let through";
        if self.burst == Some(0) {
            problems.add(&at.key("burst"), zero);
        }
        if self.queue == Some(0) || self.wait.is_some_and(|wait| wait.0.is_zero()) {
            let key = if self.queue == Some(0) { "queue" } else { "wait" };
            let problem = problems.add(&at.key(key), "nothing could wait in it");
            problem.hint("algorithm = \"token_bucket\" refuses at once");
        }
        let (Rate { count, period: Period(period) }, burst) = (self.rate, self.burst.map(u64::from));
        let bucket = |burst| Bucket::new(u64::from(count), period, burst);
        match self.algorithm {
            TokenBucket => rate::Algorithm::Bucket(bucket(burst.unwrap_or_else(|| rate::burst(self.rate)))),
            LeakyBucket => {
                let places = self.queue.map_or(QUEUE.places, u64::from);
                let wait = self.wait.map_or(QUEUE.wait, |wait| wait.0);
                rate::Algorithm::Bucket(bucket(burst.unwrap_or(1)).with_queue(Queue { places, wait }))
            }
            SlidingWindow => rate::Algorithm::Sliding(Sliding::new(count, period)),
            FixedWindow => rate::Algorithm::Fixed(Fixed { limit: u64::from(count) }, period),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Shared, fixture};
    use crate::problem::Problems;

    fn build(toml: &str) -> Result<Limiter, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let built = Limiter::build(&config, &At::root().key("rate_limit"), &mut problems);
        assert_eq!(built.is_some(), problems.is_empty());
        built.ok_or_else(|| problems.iter().map(|one| format!("{}: {}", one.at, one.message)).collect())
    }

    fn loaded(toml: &str, shared: &Shared) -> Limiter {
        let (mut built, mut problems) = (build(toml).unwrap(), Problems::new());
        built.load(&fixture::loading(shared), &At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        built
    }

    /// What so many requests from this address get.
    async fn ask(filter: &Limiter, address: &str, times: usize) -> Vec<Result<(), Failure>> {
        let stage = fixture::stage();
        let mut answers = Vec::new();
        for _ in 0..times {
            let (mut exchange, mut request) = (fixture::exchange("/"), fixture::request("GET", "/"));
            exchange.client.address = address.parse().unwrap();
            let flow = filter.on_request(&stage.scene(), &mut exchange, &mut request).await;
            answers.push(flow.map(|_| ()));
        }
        answers
    }

    const TOO_MANY: Result<(), Failure> = Err(Failure::RateLimited);

    #[tokio::test(flavor = "local")]
    async fn each_client_has_its_own_burst_by_every_algorithm() {
        for (toml, limit) in [
            ("rate = '1/h'\nburst = 2", 2),
            ("rate = '2/h'\nalgorithm = 'sliding_window'", 2),
            ("rate = '1/h'", 1),
            ("rate = '1/h'\nalgorithm = 'leaky_bucket'", 1),
        ] {
            let filter = loaded(toml, &Shared::new(b""));
            for address in ["192.0.2.7", "192.0.2.8"] {
                let answers = ask(&filter, address, limit + 1).await;
                assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), limit, "{toml}");
                assert_eq!(answers[limit], TOO_MANY, "{toml}");
            }
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_reload_keeps_what_was_counted_unless_the_limit_is_another() {
        let shared = Shared::new(b"");
        assert_eq!(ask(&loaded("rate = '1/h'", &shared), "192.0.2.7", 2).await, [Ok(()), TOO_MANY]);
        assert_eq!(
            ask(&loaded("rate = '1/h'\nheaders = 'never'", &shared), "192.0.2.7", 1).await,
            [TOO_MANY]
        );
        assert_eq!(ask(&loaded("rate = '2/h'", &shared), "192.0.2.7", 1).await, [Ok(())]);
        assert_eq!(
            ask(&loaded("rate = '1/h'\nname = 'all'", &shared), "192.0.2.7", 2).await,
            [Ok(()), TOO_MANY]
        );
        assert_eq!(ask(&loaded("rate = '1/h'", &Shared::new(b"")), "192.0.2.7", 1).await, [Ok(())]);
    }

    #[tokio::test(flavor = "local")]
    async fn equal_limits_on_a_route_are_two_and_keep_what_each_has_counted() {
        let shared = Shared::new(b"");
        let load = |toml: &str, loading: &Loading<'_>| {
            let (mut built, mut problems) = (build(toml).unwrap(), Problems::new());
            built.load(loading, &At::root(), &mut problems);
            (built, problems.iter().count())
        };
        let document = fixture::loading(&shared);
        let [first, second] = [(); 2].map(|()| load("rate = '2/h'\nburst = 2", &document).0);
        assert_eq!(ask(&first, "192.0.2.7", 1).await, [Ok(())]);
        assert_eq!(ask(&second, "192.0.2.7", 3).await, [Ok(()), Ok(()), TOO_MANY]);
        // Another document: what stood first goes on as the first one.
        let document = fixture::loading(&shared);
        let (first, _) = load("rate = '2/h'\nburst = 2", &document);
        assert_eq!(ask(&first, "192.0.2.7", 2).await, [Ok(()), TOO_MANY]);
        let named = "rate = '1/h'\nname = 'n'";
        assert_eq!([load(named, &document).1, load(named, &document).1], [0, 1]);
    }

    #[tokio::test(flavor = "local")]
    async fn a_dry_run_refuses_nothing() {
        let filter = loaded("rate = '1/h'\ndry_run = true", &Shared::new(b""));
        assert_eq!(ask(&filter, "192.0.2.7", 3).await, [Ok(()); 3]);
    }

    #[tokio::test(flavor = "local")]
    async fn without_redis_each_gateway_counts_or_nobody_or_none_passes() {
        let shared = Shared::new(b"");
        // Nobody listens on port 1.
        let with = |choice: &str| {
            format!("rate = '1/h'\nshared = 'redis://127.0.0.1:1'\non_redis_failure = '{choice}'")
        };
        let unavailable = Err(Failure::LimitUnavailable);
        for (choice, expected) in
            [("local", [Ok(()), TOO_MANY]), ("allow", [Ok(()), Ok(())]), ("deny", [unavailable, unavailable])]
        {
            let filter = loaded(&with(choice), &shared);
            assert_eq!(ask(&filter, "192.0.2.7", 2).await, expected, "{choice}");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_filter_that_was_not_loaded_lets_nothing_pass() {
        let answers = ask(&build("rate = '1/h'").unwrap(), "192.0.2.7", 1).await;
        assert_eq!(answers, [Err(Failure::Internal)]);
    }

    #[test]
    fn what_it_can_work_on_depends_on_what_it_needs() {
        for (toml, expected) in [
            ("", Carries::Flows),
            ("per = 'consumer'", Carries::Requests),
            ("per = 'request.path'", Carries::Requests),
            ("algorithm = 'leaky_bucket'", Carries::Connections),
            ("shared = 'redis://h'\nper = 'route'", Carries::Connections),
        ] {
            let config: Config = toml_edit::de::from_str(&format!("rate = '1/s'\n{toml}")).unwrap();
            assert_eq!(Limiter::carries(&config), expected, "{toml}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        assert_eq!(
            build("rate = '1/s'\nburst = 0\nqueue = 0\nper = 'endpoint'\nipv4_prefix = 33\non_redis_failure = 'deny'")
                .unwrap_err(),
            [
                "rate_limit.ipv4_prefix: an address has 32 bits",
                "rate_limit.per: which endpoint takes a request is not known before the filters have passed it",
                "rate_limit.on_redis_failure: no Redis server is asked",
                "rate_limit.queue: only a leaky bucket makes requests wait",
                "rate_limit.burst: with zero nothing would be let through",
                "rate_limit.queue: nothing could wait in it",
            ]
        );
        assert_eq!(
            build("rate = '1/s'\nburst = 2\nalgorithm = 'fixed_window'\nname = '\"'\nshared = 'http://p:secret@h'")
                .unwrap_err(),
            [
                "rate_limit.name: a name has characters that can be printed",
                "rate_limit.shared: a Redis server is written \"redis://host:6379/0\", \"rediss://host:6380\" or \"unix:///run/redis.sock\"",
                "rate_limit.burst: a window has no burst: all of it may come at once",
            ]
        );
        let mut upstream = build("rate = '1/s'\nper = 'upstream'").unwrap();
        let mut problems = Problems::new();
        upstream.load(&fixture::loading(&Shared::new(b"")), &At::root(), &mut problems);
        assert_eq!(problems.iter().count(), 1);
    }
}
