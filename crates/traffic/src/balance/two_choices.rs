//! `two_choices`: of two drawn by weight, the one with fewer requests in flight for its weight.
//!
//! Mitzenmacher, "The power of two choices in randomized load balancing" (2001): nearly as even as looking at
//! everyone, without the herd that follows when many workers see the same least loaded one. On a tie the
//! first drawn wins, so an idle group is used by weight.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::draw::Draw;
use super::{Balance, Member, View};
use crate::Rng;

/// No options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Config {}

/// Of two drawn by weight, the one with fewer requests in flight for its weight.
#[derive(Clone, Debug)]
pub struct TwoChoices {
    draw: Draw,
}

impl Balance for TwoChoices {
    type Config = Config;
    const NEEDS_HASH: bool = false;

    fn new(_: &Config, members: &[Member<'_>]) -> Self {
        TwoChoices { draw: Draw::new(members) }
    }

    fn pick<V: View>(&mut self, view: &V, _hash: u64, rng: &mut Rng) -> Option<usize> {
        pick_by(&self.draw, view, rng, |at| f64::from(view.in_flight(at)) / view.weight(at))
    }
}

/// Draws two different members and gives the one that costs less; the first drawn on a tie.
pub(super) fn pick_by<V: View>(
    draw: &Draw,
    view: &V,
    rng: &mut Rng,
    cost: impl Fn(usize) -> f64,
) -> Option<usize> {
    let first = draw.draw(view, None, rng)?;
    let Some(second) = draw.draw(view, Some(first), rng) else { return Some(first) };
    Some(if cost(second) < cost(first) { second } else { first })
}
