//! How many connections an upstream may have, how long things may take there, and how many retries it bears:
//! what people write, and the same with defaults.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_traffic::limit::bucket::{Bucket, Queue};
use sluice_traffic::retry::BudgetPolicy;

use crate::gate::Patience;
use crate::limit::rate;
use crate::value::{Period, Rate, Ratio};

/// Connections to an upstream's endpoints.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// Idle connections kept for each endpoint by each worker. Default 1024: those that bursts leave behind end
    /// after `idle_timeout`. 0 keeps none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_idle: Option<u16>,
    /// Connections to each endpoint, of all workers together. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<NonZeroU16>,
    /// Requests that run at each endpoint at once, of all workers together; others are preferred to one that is
    /// full. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<NonZeroU32>,
    /// How fast requests (on TCP routes: connections) go to each endpoint, of all workers together: "100/s". Others
    /// are preferred to one that has had its share. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<Rate>,
    /// How many of them may come at once. Default: those of one second, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU32>,
    /// Requests that may wait at an endpoint at a limit. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// How long they wait. Default "1s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Period>,
    /// Idle connections are closed after this time. Default "60s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Period>,
    /// An older connection takes no further request: it ends what it has, then closes. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
}

/// How long things may take at an upstream.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// To connect. Default "5s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Period>,
    /// From the request's last byte to the answer's head. Default "60s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Period>,
    /// Without a byte of the answer's body arriving, or of the request's leaving. Default "60s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Period>,
    /// For one attempt, to the end of the answer. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Period>,
}

/// How many retries all requests to an upstream may cause together, but for those of requests of which
/// nothing was sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Retries for each request. Default 0.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    /// Retries for each second and worker that are always allowed. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<u16>,
}

/// How many requests run at once at all endpoints of an upstream together, and who waits.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ConcurrencyConfig {
    /// How many.
    pub limit: NonZeroU32,
    /// How many more may wait. Default 0: they get 503 at once.
    #[serde(default)]
    pub queue: u32,
    /// How long they wait. Default "1s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Period>,
}

impl ConcurrencyConfig {
    pub(super) fn policy(self) -> (u32, Patience) {
        let (queue, wait) = (self.queue as usize, or(self.wait, 1_000));
        (self.limit.get(), Patience { queue, wait, ..Patience::NONE })
    }
}

/// Connections, with defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolPolicy {
    /// Idle connections for each endpoint and worker.
    pub max_idle: usize,
    /// Connections for each endpoint.
    pub max_connections: Option<usize>,
    /// Requests at once for each endpoint.
    pub max_requests: Option<u32>,
    /// How fast requests go to each endpoint.
    pub rate: Option<Bucket>,
    /// Waiting requests for each endpoint.
    pub queue: usize,
    /// How long they wait.
    pub queue_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How old one that is used may be.
    pub max_age: Option<Duration>,
}

/// Times, with defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// To the answer's head.
    pub first_byte: Duration,
    /// Between bytes of a body.
    pub idle: Duration,
    /// For one attempt.
    pub total: Option<Duration>,
}

impl BudgetConfig {
    pub(super) fn policy(self) -> BudgetPolicy {
        BudgetPolicy {
            ratio: self.ratio.map_or(0.2, |ratio| ratio.0),
            floor_per_second: self.floor.map_or(3.0, f64::from),
        }
    }
}

impl PoolConfig {
    pub(super) fn policy(self) -> PoolPolicy {
        let (places, wait) = (self.queue.map_or(100, u64::from), or(self.queue_timeout, 1_000));
        let rate = self.max_rate.map(|rate| {
            let burst = self.burst.map_or_else(|| rate::burst(rate), |burst| u64::from(burst.get()));
            Bucket::new(u64::from(rate.count), rate.period.0, burst).with_queue(Queue { places, wait })
        });
        PoolPolicy {
            max_idle: self.max_idle.map_or(1024, usize::from),
            max_connections: self.max_connections.map(|count| usize::from(count.get())),
            max_requests: self.max_requests.map(NonZeroU32::get),
            rate,
            queue: self.queue.map_or(100, |count| count as usize),
            queue_timeout: wait,
            idle_timeout: or(self.idle_timeout, 60_000),
            max_age: self.max_age.map(|period| period.0),
        }
    }
}

impl TimeoutsConfig {
    pub(super) fn policy(self) -> Timeouts {
        Timeouts {
            connect: or(self.connect, 5_000),
            first_byte: or(self.first_byte, 60_000),
            idle: or(self.idle, 60_000),
            total: self.total.map(|period| period.0),
        }
    }
}

/// A time as written, or its default in milliseconds.
pub(super) fn or(period: Option<Period>, millis: u64) -> Duration {
    period.map_or(Duration::from_millis(millis), |period| period.0)
}
