//! Drawing a member at random by weight in constant time: Walker's alias method, built as by Vose (1991).
//!
//! Promise: exact proportions by the weights of now, also when members are unavailable or in slow start: a
//! draw by configured weight is rejected in the proportion in which it counts less now.

use std::sync::Arc;

use super::{Member, View, takes};
use crate::Rng;

/// Rejected draws after which the members are weighed one by one: what is left is a small part of the group.
const DRAWS: u32 = 16;

#[derive(Clone, Debug)]
pub(super) struct Draw {
    slots: Arc<[Slot]>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The configured weight of the member with this index.
    weight: f64,
    /// The share of this slot that is its own member's; the rest is the alias's.
    own: f64,
    alias: u32,
}

impl Draw {
    pub(super) fn new(members: &[Member<'_>]) -> Draw {
        let total: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
        let scale = if total > 0.0 { members.len() as f64 / total } else { 0.0 };
        let mut slots: Vec<Slot> = members
            .iter()
            .zip(0..)
            .map(|(member, alias)| {
                let weight = f64::from(member.weight);
                Slot { weight, own: weight * scale, alias }
            })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..slots.len()).partition(|&at| slots[at].own < 1.0);
        while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
            small.pop();
            slots[poor].alias = rich as u32;
            slots[rich].own -= 1.0 - slots[poor].own;
            if slots[rich].own < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        // What rounding left over fills its slot alone.
        for at in small.into_iter().chain(large).filter(|_| total > 0.0) {
            slots[at].own = 1.0;
        }
        Draw { slots: slots.into() }
    }

    /// Draws a member that takes something and is not `other`.
    pub(super) fn draw<V: View>(&self, view: &V, other: Option<usize>, rng: &mut Rng) -> Option<usize> {
        let takes = |at: usize| Some(at) != other && takes(view, at);
        for _ in 0..DRAWS.min(4 * self.slots.len() as u32) {
            let drawn = rng.below(self.slots.len() as u32) as usize;
            let slot = self.slots[drawn];
            let at = if slot.own >= 1.0 || rng.ratio() < slot.own { drawn } else { slot.alias as usize };
            let full = self.slots[at].weight;
            if takes(at) && (view.weight(at) >= full || rng.ratio() * full < view.weight(at)) {
                return Some(at);
            }
        }
        self.weigh(view, takes, rng)
    }

    /// Draws by looking at every member.
    fn weigh<V: View>(&self, view: &V, takes: impl Fn(usize) -> bool, rng: &mut Rng) -> Option<usize> {
        let candidates = || (0..self.slots.len()).filter(|&at| takes(at));
        let total: f64 = candidates().map(|at| view.weight(at)).sum();
        let mut left = rng.ratio() * total;
        let mut last = None;
        for at in candidates() {
            last = Some(at);
            left -= view.weight(at);
            if left < 0.0 {
                break;
            }
        }
        last
    }
}
