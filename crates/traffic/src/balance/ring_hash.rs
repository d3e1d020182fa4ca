//! `ring_hash`: the same key goes to the same endpoint, by a ring of points (ketama's way, with XXH3).
//!
//! When an endpoint goes, only its keys move, spread over the others. A pick is a binary search. A key whose
//! endpoint is unavailable goes to the next one on the ring, always the same, and comes back with it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::ring::{self, Ring};
use super::{Balance, Member, View, takes};
use crate::Rng;

/// Options of `ring_hash`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Config {
    /// Points of the lightest endpoint, 100 to 10000; heavier ones have proportionally more. More points
    /// spread keys more evenly and take more memory, 12 bytes each. Default 160.
    #[serde(deserialize_with = "ring::points")]
    #[schemars(range(min = 100, max = 10_000))]
    pub points: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config { points: ring::POINTS }
    }
}

/// The same key to the same endpoint, by a ring.
#[derive(Clone, Debug)]
pub struct RingHash {
    keyed: Keyed,
    ring: Ring,
}

impl Balance for RingHash {
    type Config = Config;
    const NEEDS_HASH: bool = true;

    fn new(config: &Config, members: &[Member<'_>]) -> Self {
        let keyed = Keyed::new(members);
        RingHash { ring: Ring::new(config.points, members, &keyed), keyed }
    }

    fn pick<V: View>(&mut self, view: &V, hash: u64, _rng: &mut Rng) -> Option<usize> {
        self.ring
            .walk(hash, |at| self.keyed.stays(view, at, hash))
            .or_else(|| self.keyed.rendezvous(hash, |at| takes(view, at).then(|| view.weight(at))))
    }
}
