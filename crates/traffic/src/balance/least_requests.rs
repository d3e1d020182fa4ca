//! `least_requests`: the one with the fewest requests in flight for its weight; by weight among equals.
//!
//! It looks at every member. Best where requests differ much in length; with many workers prefer
//! `two_choices`, since all of them see the same least loaded endpoint at the same moment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Balance, Member, View, takes};
use crate::Rng;

/// No options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Config {}

/// The one with the fewest requests in flight for its weight.
#[derive(Clone, Debug)]
pub struct LeastRequests {
    members: usize,
}

impl Balance for LeastRequests {
    type Config = Config;
    const NEEDS_HASH: bool = false;

    fn new(_: &Config, members: &[Member<'_>]) -> Self {
        LeastRequests { members: members.len() }
    }

    fn pick<V: View>(&mut self, view: &V, _hash: u64, rng: &mut Rng) -> Option<usize> {
        let mut best = None;
        let mut least = f64::INFINITY;
        let mut tied_weight = 0.0;
        for at in (0..self.members).filter(|&at| takes(view, at)) {
            let weight = view.weight(at);
            let load = f64::from(view.in_flight(at)) / weight;
            if load < least {
                (best, least, tied_weight) = (Some(at), load, weight);
            } else if load == least {
                // Reservoir sampling: each of the tied ends up chosen in proportion to its weight.
                tied_weight += weight;
                if rng.ratio() * tied_weight < weight {
                    best = Some(at);
                }
            }
        }
        best
    }
}
