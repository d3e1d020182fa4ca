//! One line for each exchange. (Under construction.)
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The access log.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}
