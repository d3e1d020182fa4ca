//! Active health checks: what people write, and the checked form of it. `monitor` runs them on the control
//! thread; `http`, `tcp` and `grpc` are the checks.

mod dial;
pub mod grpc;
pub mod http;
mod http2;
pub mod monitor;
pub mod tcp;

use std::num::NonZeroU16;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::{At, Problems};
use crate::value::Period;

/// Asks endpoints regularly whether they are well. Exactly one of http, tcp and grpc stands in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// By a GET request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<http::Config>,
    /// By connecting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<tcp::Config>,
    /// By gRPC's health protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<grpc::Config>,
}

/// How often, how long, and how many in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Between two checks of an endpoint, give or take a tenth so that checks spread.
    pub every: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Successes in a row that make an endpoint healthy.
    pub rise: u32,
    /// Failures in a row that make it unhealthy.
    pub fall: u32,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Check {
    /// A GET request.
    Http(http::Check),
    /// A connection.
    Tcp,
    /// A call of gRPC.
    Grpc(grpc::Check),
}

/// Active checks of an upstream, checked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// When.
    pub schedule: Schedule,
    /// What.
    pub check: Check,
}

impl Config {
    /// Checks that exactly one kind stands in it.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<Policy> {
        match (&self.http, &self.tcp, &self.grpc) {
            (Some(http), None, None) => http.check(&at.key("http"), problems),
            (None, Some(tcp), None) => tcp.check(&at.key("tcp"), problems),
            (None, None, Some(grpc)) => grpc.check(&at.key("grpc"), problems),
            _ => {
                problems
                    .add(at, "health needs exactly one of `http`, `tcp` and `grpc`")
                    .hint("health = { http = { path = \"/healthz\", every = \"5s\" } }");
                None
            }
        }
    }
}

fn schedule(
    every: Option<Period>,
    timeout: Option<Period>,
    (rise, fall): (Option<NonZeroU16>, Option<NonZeroU16>),
    (at, problems): (&At, &mut Problems),
) -> Option<Schedule> {
    let every = every.map_or(Duration::from_secs(5), |period| period.0);
    let timeout = timeout.map_or(Duration::from_secs(2).min(every), |period| period.0);
    if every < Duration::from_millis(10) || timeout.is_zero() {
        problems.add(at, "checks cannot be less than 10ms apart, nor have no time at all");
        return None;
    }
    let count =
        |count: Option<NonZeroU16>, default: u32| count.map_or(default, |count| u32::from(count.get()));
    Some(Schedule { every, timeout, rise: count(rise, 1), fall: count(fall, 2) })
}
