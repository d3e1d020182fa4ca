//! Reaching an endpoint. (Under construction.)
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A group of interchangeable endpoints.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}
