//! `random`: at random, by weight. Needs no state, so any number of gateways agree without talking.

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

/// At random, by weight.
#[derive(Clone, Debug)]
pub struct Random {
    draw: Draw,
}

impl Balance for Random {
    type Config = Config;
    const NEEDS_HASH: bool = false;

    fn new(_: &Config, members: &[Member<'_>]) -> Self {
        Random { draw: Draw::new(members) }
    }

    fn pick<V: View>(&mut self, view: &V, _hash: u64, rng: &mut Rng) -> Option<usize> {
        self.draw.draw(view, None, rng)
    }
}
