//! The TCP health check: an endpoint that accepts a connection is well.

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dial::Line;
use crate::address::Address;
use crate::problem::{At, Problems};
use crate::value::Period;

/// A check by connecting.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Between two checks. Default "5s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
    /// For one check. Default "2s", or `every` when that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Successes in a row that make an endpoint healthy. Default 1: it is back within one interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<NonZeroU16>,
    /// Failures in a row that make it unhealthy. Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<NonZeroU16>,
}

impl Config {
    pub(super) fn check(&self, at: &At, problems: &mut Problems) -> Option<super::Policy> {
        let schedule = super::schedule(self.every, self.timeout, (self.rise, self.fall), (at, problems))?;
        Some(super::Policy { schedule, check: super::Check::Tcp })
    }
}

/// Connects and closes.
pub(super) async fn check(address: &Address, line: &Line) -> Result<(), String> {
    line.connect(address).await.map(|_| ())
}
