//! Members by the hash of their keys: what all hash balancers share.
//!
//! Promise: everything here depends on keys and weights alone, never on positions, so the order in which
//! endpoints are written or discovered moves nothing.

use std::sync::Arc;

use super::{Member, View, takes};
use crate::rng::{mix, unit};

#[derive(Clone, Debug)]
pub(super) struct Keyed {
    members: Arc<[(u64, f64)]>,
}

impl Keyed {
    pub(super) fn new(members: &[Member<'_>]) -> Keyed {
        let keyed = |member: &Member<'_>| (super::hash(member.key.as_bytes()), f64::from(member.weight));
        Keyed { members: members.iter().map(keyed).collect() }
    }

    /// The hash of the member's key.
    pub(super) fn seed(&self, at: usize) -> u64 {
        self.members[at].0
    }

    /// Whether a key that the configured weights give to this member stays with it: it takes something and,
    /// in slow start, the key is in the share that it takes already. A key decides alike each time.
    pub(super) fn stays<V: View>(&self, view: &V, at: usize, hash: u64) -> bool {
        let (seed, full) = self.members[at];
        if !takes(view, at) {
            return false;
        }
        let weight = view.weight(at);
        weight >= full || unit(mix(hash.rotate_left(32) ^ seed)) * full < weight
    }

    /// Rendezvous hashing (Thaler, Ravishankar 1998) with weights (Schindelhauer, Schomaker 2005): every
    /// member scores the key by -weight / ln(hash in (0, 1)), the highest score wins. When a member goes,
    /// only its own keys move; when one comes, only those that it wins. `weight` is `None` for those that may
    /// not be chosen.
    pub(super) fn rendezvous(&self, hash: u64, weight: impl Fn(usize) -> Option<f64>) -> Option<usize> {
        let mut best: Option<(usize, u64, f64)> = None;
        for at in 0..self.members.len() {
            let Some(weight) = weight(at) else { continue };
            let bits = mix(hash ^ self.members[at].0);
            let wins = match best {
                None => true,
                // Logarithms keep the order, so equal weights need none.
                Some((_, other, same)) if same == weight => bits > other,
                Some((_, other, other_weight)) => score(bits, weight) > score(other, other_weight),
            };
            if wins {
                best = Some((at, bits, weight));
            }
        }
        best.map(|(at, ..)| at)
    }
}

fn score(bits: u64, weight: f64) -> f64 {
    // In the middle of 2^52 steps, so neither 0 nor 1.
    let point = ((bits >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    -weight / point.ln()
}
