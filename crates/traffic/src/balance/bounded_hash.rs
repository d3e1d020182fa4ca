//! `bounded_hash`: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016).
//!
//! As `ring_hash`, but an endpoint that has (1 + epsilon) times its fair share of the requests in flight is
//! passed over, so a popular key spills to the next endpoints on the ring instead of drowning one. The bound
//! counts the new request and follows the weights; it uses the real numbers in flight, so it holds to within
//! the requests that other workers start between a look and a pick.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::keyed::Keyed;
use super::ring::{self, Ring};
use super::{Balance, Member, View, takes};
use crate::Rng;

const LEAST_EPSILON: f64 = 0.01;
const MOST_EPSILON: f64 = 100.0;

/// Options of `bounded_hash`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Config {
    /// How far above its fair share of the requests in flight an endpoint may get, as a share of it, 0.01 to
    /// 100. Less evens the load, more keeps keys in place. Default 0.25.
    #[serde(deserialize_with = "epsilon")]
    #[schemars(range(min = 0.01, max = 100.0))]
    pub epsilon: f64,
    /// Points of the lightest endpoint, 100 to 10000; heavier ones have proportionally more. Default 160.
    #[serde(deserialize_with = "ring::points")]
    #[schemars(range(min = 100, max = 10_000))]
    pub points: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config { epsilon: 0.25, points: ring::POINTS }
    }
}

fn epsilon<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let epsilon = f64::deserialize(from)?;
    if !(LEAST_EPSILON..=MOST_EPSILON).contains(&epsilon) {
        return Err(serde::de::Error::custom(format!(
            "{epsilon} is not a number between {LEAST_EPSILON} and {MOST_EPSILON}"
        )));
    }
    Ok(epsilon)
}

/// By hash on a ring, with a bound on each endpoint's load.
#[derive(Clone, Debug)]
pub struct BoundedHash {
    keyed: Keyed,
    ring: Ring,
    members: usize,
    epsilon: f64,
}

impl Balance for BoundedHash {
    type Config = Config;
    const NEEDS_HASH: bool = true;

    fn new(config: &Config, members: &[Member<'_>]) -> Self {
        let keyed = Keyed::new(members);
        BoundedHash {
            ring: Ring::new(config.points, members, &keyed),
            keyed,
            members: members.len(),
            epsilon: config.epsilon.clamp(LEAST_EPSILON, MOST_EPSILON),
        }
    }

    fn pick<V: View>(&mut self, view: &V, hash: u64, _rng: &mut Rng) -> Option<usize> {
        let mut in_flight = 0.0;
        let mut weight = 0.0;
        for at in (0..self.members).filter(|&at| takes(view, at)) {
            in_flight += f64::from(view.in_flight(at));
            weight += view.weight(at);
        }
        let per_weight = (1.0 + self.epsilon) * (in_flight + 1.0) / weight;
        let has_room = |at: usize| f64::from(view.in_flight(at)) + 1.0 <= bound(per_weight, view.weight(at));
        let weight_with_room = |at: usize| (takes(view, at) && has_room(at)).then(|| view.weight(at));
        let weight = |at: usize| takes(view, at).then(|| view.weight(at));
        // The bounds add up to more than there is in flight, so somebody has room unless the numbers changed
        // while they were read; then anybody will do.
        self.ring
            .walk(hash, |at| self.keyed.stays(view, at, hash) && has_room(at))
            .or_else(|| self.keyed.rendezvous(hash, weight_with_room))
            .or_else(|| self.keyed.rendezvous(hash, weight))
    }
}

/// The most requests in flight: the fair share times (1 + epsilon), rounded up, but not for a rounding error.
fn bound(per_weight: f64, weight: f64) -> f64 {
    (per_weight * weight - 1e-9).ceil()
}
