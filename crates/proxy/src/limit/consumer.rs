//! The limits in a consumer's record: they count all its addresses and all routes together.
//!
//! They are asked for when every filter of the route has passed the request, before its action: by then it is
//! known who is asking, and nothing that a filter refuses is counted.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::RequestHead;
use sluice_traffic::limit::bucket::Bucket;

use super::key::{Per, Prefixes};
use super::plan::{Owner, Plan, Written};
use super::quota::{self, Quota};
use super::rate::{self, Algorithm, RateLimit};
use super::record::{Kind, Show};
use super::{Limits, OnRedisFailure};
use crate::consumer::Consumer;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::redis::Connections;
use crate::world::World;

/// How the limits and quotas in the records of consumers are counted.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A Redis server in which all gateways count together, as for the filter rate_limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
    /// What happens while the Redis server has no answer. Default "local".
    pub on_redis_failure: OnRedisFailure,
    /// When answers have RateLimit, RateLimit-Policy and X-RateLimit fields. Default "refused".
    pub headers: Show,
    /// Whether everything passes and only is counted what would have been refused. Default false.
    pub dry_run: bool,
}

const PER: Per = Per::Consumer(Prefixes { v4: 32, v6: 64 });

impl Config {
    /// Checks it. `None` when a problem was added.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<Plan> {
        let written = Written {
            per: "consumer",
            prefixes: (None, None),
            name: None,
            dry_run: self.dry_run,
            headers: self.headers,
            shared: self.shared.as_ref(),
            on_redis_failure: self.on_redis_failure,
        };
        Plan::check(&written, at, problems)
    }
}

/// The limits of one consumer.
#[derive(Debug, Default)]
pub struct OfConsumer {
    rate: Option<RateLimit>,
    quota: Option<Quota>,
}

impl OfConsumer {
    /// Those in the record of a consumer. `at` is the place of how they are counted.
    pub fn load(
        consumer: &Consumer,
        plan: &Plan,
        (redis, limits): (&Connections, &Arc<Limits>),
        at: &At,
        problems: &mut Problems,
    ) -> OfConsumer {
        let mut all = OfConsumer::default();
        let owner = Owner { route: &consumer.name, upstream: None };
        if let Some(written) = consumer.rate_limit {
            let identity = format!("consumer {}\nrate {}", consumer.name, written.rate);
            let Ok(remote) = plan.remote(&identity, redis, at, problems) else { return all };
            let burst = written.burst.map_or_else(|| rate::burst(written.rate), u64::from);
            let bucket = Bucket::new(u64::from(written.rate.count), written.rate.period.0, burst);
            let algorithm = Algorithm::Bucket(bucket);
            let manner = plan.manner(Kind::RateLimit, owner, algorithm.policy());
            all.rate = Some(RateLimit::new((algorithm, manner), &identity, limits, remote));
        }
        if let Some(written) = consumer.quota {
            let identity = format!("consumer {}\nquota {}", consumer.name, written.period);
            let Ok(remote) = plan.remote(&identity, redis, at, problems) else { return all };
            let manner = plan.manner(Kind::Quota, owner, (written.limit, quota::length(written.period)));
            let parts = (written.limit, written.period, manner);
            all.quota = problems.take(at, Quota::new(parts, &identity, limits, remote));
        }
        all
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rate.is_none() && self.quota.is_none()
    }

    /// Lets a request of the consumer pass: first by how fast, then, since that may refuse it, by how much.
    ///
    /// # Errors
    /// It is refused.
    pub async fn enforce(
        &self,
        world: &World,
        exchange: &mut Exchange,
        head: &RequestHead,
    ) -> Result<(), Failure> {
        if let Some(rate) = &self.rate {
            rate.enforce(&PER, world, (exchange, head)).await?;
        }
        match &self.quota {
            Some(quota) => quota.enforce(&PER, world, (exchange, head)).await,
            None => Ok(()),
        }
    }
}
