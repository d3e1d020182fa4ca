//! `peak_ewma`: of two drawn by weight, the one with the lower latency * (in flight + 1) / weight.
//!
//! Finagle's `p2cPeakEwma`: the product is how long a new request will probably take. An endpoint that never
//! answered yet gets one request to learn from, and no second before its answer. Shares follow weights when
//! there is load; of an idle pair with equal latencies the heavier one always wins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::draw::Draw;
use super::two_choices::pick_by;
use super::{Balance, Member, View};
use crate::Rng;

/// No options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Config {}

/// Of two drawn by weight, the one with the lower expected time.
#[derive(Clone, Debug)]
pub struct PeakEwma {
    draw: Draw,
}

/// The latency, in nanoseconds, assumed of an endpoint that has requests but never answered: an hour, which
/// is worse than any that did.
const UNKNOWN: f64 = 3.6e12;

impl Balance for PeakEwma {
    type Config = Config;
    const NEEDS_HASH: bool = false;

    fn new(_: &Config, members: &[Member<'_>]) -> Self {
        PeakEwma { draw: Draw::new(members) }
    }

    fn pick<V: View>(&mut self, view: &V, _hash: u64, rng: &mut Rng) -> Option<usize> {
        pick_by(&self.draw, view, rng, |at| {
            let waiting = f64::from(view.in_flight(at));
            match view.latency(at) {
                known if known > 0.0 => known * (waiting + 1.0) / view.weight(at),
                // Waiting, not waiting + 1: an idle unknown one costs nothing and is tried.
                _ => UNKNOWN * waiting / view.weight(at),
            }
        })
    }
}
