//! Which route a request takes. (Under construction.)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What must be true of a request.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {}
