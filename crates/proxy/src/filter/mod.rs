//! Steps around a route's action; one file each. (Under construction.)
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A filter.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Config {}
