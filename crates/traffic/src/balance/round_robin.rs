//! `round_robin`: in turn, by weight, evenly spread.
//!
//! Unequal weights use nginx's smooth weighted round robin: before each pick every member's credit grows by
//! its weight, the greatest credit wins and pays the sum of all weights; 5:1:1 gives A A B A C A A, not A A A
//! A A B C. Equal weights, the usual case, come to plain rotation and are done as such, without looking at
//! every member.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Balance, Member, View, takes};
use crate::Rng;

/// No options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Config {}

/// In turn, by weight, evenly spread.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    /// Configured weights.
    weights: Vec<f64>,
    /// What each member is owed: in units of weight with unequal weights; with equal ones in parts of a turn,
    /// and only while a member is in slow start.
    credit: Vec<f64>,
    turn: Turn,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Equal weights: whose turn it is.
    Rotation { next: usize },
    /// Unequal weights: the greatest credit.
    Credit,
}

impl Balance for RoundRobin {
    type Config = Config;
    const NEEDS_HASH: bool = false;

    fn new(_: &Config, members: &[Member<'_>]) -> Self {
        let weights: Vec<f64> = members.iter().map(|member| f64::from(member.weight)).collect();
        let mut positive = weights.iter().filter(|weight| **weight > 0.0);
        let first = positive.next();
        let turn = if positive.all(|weight| Some(weight) == first) {
            Turn::Rotation { next: 0 }
        } else {
            Turn::Credit
        };
        RoundRobin { credit: vec![0.0; weights.len()], weights, turn }
    }

    fn pick<V: View>(&mut self, view: &V, _hash: u64, _rng: &mut Rng) -> Option<usize> {
        match self.turn {
            Turn::Rotation { next } => {
                let picked = self.rotate(view, next)?;
                self.turn = Turn::Rotation { next: (picked + 1) % self.weights.len() };
                Some(picked)
            }
            Turn::Credit => self.greatest_credit(view),
        }
    }

    fn adopt(&mut self, old: &Self, map: impl Fn(usize) -> Option<usize>) {
        let known = |new| map(new).filter(|&at| at < old.weights.len()).map(|at| (new, at));
        let members = (0..self.weights.len()).filter_map(known);
        match &mut self.turn {
            Turn::Rotation { next } => {
                let mut longest = f64::NEG_INFINITY;
                for (new, at) in members {
                    if matches!(old.turn, Turn::Rotation { .. }) {
                        self.credit[new] = old.credit[at];
                    }
                    if old.due(at) > longest {
                        (*next, longest) = (new, old.due(at));
                    }
                }
            }
            // In turns, so that a credit earned with a great weight does not outweigh a small one for long.
            Turn::Credit => {
                members.for_each(|(new, at)| self.credit[new] = old.due(at) * self.weights[new]);
            }
        }
    }
}

impl RoundRobin {
    /// The first that takes something, from `next` on. A member in slow start sits out turns in proportion.
    fn rotate<V: View>(&mut self, view: &V, next: usize) -> Option<usize> {
        let mut sits_out = None;
        for at in (next..self.weights.len()).chain(0..next).filter(|&at| takes(view, at)) {
            let share = view.weight(at) / self.weights[at];
            if share >= 1.0 {
                return Some(at);
            }
            self.credit[at] += share;
            if self.credit[at] >= 1.0 {
                self.credit[at] -= 1.0;
                return Some(at);
            }
            sits_out = sits_out.or(Some(at));
        }
        // There are only members in slow start: the first of them does not sit out.
        let at = sits_out?;
        self.credit[at] = 0.0;
        Some(at)
    }

    fn greatest_credit<V: View>(&mut self, view: &V) -> Option<usize> {
        let mut total = 0.0;
        let mut best = None;
        let mut greatest = f64::NEG_INFINITY;
        for at in (0..self.credit.len()).filter(|&at| takes(view, at)) {
            let weight = view.weight(at);
            total += weight;
            self.credit[at] += weight;
            if self.credit[at] > greatest {
                (best, greatest) = (Some(at), self.credit[at]);
            }
        }
        self.credit[best?] -= total;
        best
    }

    /// How much the member is due, in turns: the greatest is next.
    fn due(&self, at: usize) -> f64 {
        match self.turn {
            Turn::Rotation { next } => {
                let count = self.weights.len();
                1.0 - ((at + count - next) % count) as f64 / count as f64
            }
            Turn::Credit if self.weights[at] > 0.0 => self.credit[at] / self.weights[at],
            Turn::Credit => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights now; 0 stands for unavailable.
    struct Now(Vec<f64>);

    impl View for Now {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn available(&self, index: usize) -> bool {
            self.0[index] > 0.0
        }
        fn weight(&self, index: usize) -> f64 {
            self.0[index]
        }
        fn in_flight(&self, _: usize) -> u32 {
            0
        }
        fn latency(&self, _: usize) -> f64 {
            0.0
        }
    }

    fn build(weights: &[u32]) -> RoundRobin {
        let members: Vec<_> = weights.iter().map(|&weight| Member { key: "", weight }).collect();
        RoundRobin::new(&Config {}, &members)
    }

    fn picks(balancer: &mut RoundRobin, now: &[f64], count: usize) -> String {
        let view = Now(now.to_vec());
        let mut rng = Rng::new(0);
        let letter = |at: Option<usize>| at.map_or('-', |at| char::from(b'A' + at as u8));
        (0..count).map(|_| letter(balancer.pick(&view, 0, &mut rng))).collect()
    }

    #[test]
    fn equal_weights_rotate() {
        assert_eq!(picks(&mut build(&[2, 2, 2]), &[2.0; 3], 7), "ABCABCA");
    }

    #[test]
    fn unequal_weights_are_spread_smoothly() {
        assert_eq!(picks(&mut build(&[3, 1]), &[3.0, 1.0], 8), "AABAAABA");
        assert_eq!(picks(&mut build(&[5, 1, 1]), &[5.0, 1.0, 1.0], 14), "AABACAAAABACAA");
    }

    #[test]
    fn an_unavailable_member_is_passed_over_and_comes_back_without_a_burst() {
        let mut balancer = build(&[1, 1, 1]);
        assert_eq!(picks(&mut balancer, &[1.0, 0.0, 1.0], 4), "ACAC");
        assert_eq!(picks(&mut balancer, &[1.0; 3], 6), "ABCABC");
        let mut balancer = build(&[2, 1, 1]);
        assert_eq!(picks(&mut balancer, &[2.0, 0.0, 1.0], 6), "ACAACA");
        assert_eq!(picks(&mut balancer, &[2.0, 1.0, 1.0], 8).matches('B').count(), 2);
        assert_eq!(picks(&mut balancer, &[0.0; 3], 2), "--");
    }

    #[test]
    fn slow_start_sits_out_turns_in_proportion() {
        let mut balancer = build(&[1, 1]);
        let run = picks(&mut balancer, &[1.0, 0.25], 100);
        assert_eq!(run.matches('B').count(), 20, "{run}");
        assert!(!run.contains("BB"));
        assert_eq!(picks(&mut build(&[1, 1]), &[0.1, 0.1], 4), "ABAB");
    }

    #[test]
    fn a_reload_keeps_the_turn() {
        let mut old = build(&[1, 1, 1, 1]);
        assert_eq!(picks(&mut old, &[1.0; 4], 2), "AB");
        // C goes, a new one is appended: old A B D stay.
        let mut new = build(&[1, 1, 1, 1]);
        new.adopt(&old, |at| [Some(0), Some(1), Some(3), None][at]);
        assert_eq!(picks(&mut new, &[1.0; 4], 4), "CDAB");
    }

    #[test]
    fn a_reload_keeps_credits_in_turns() {
        let mut old = build(&[30, 10]);
        assert_eq!(picks(&mut old, &[30.0, 10.0], 2), "AA");
        let mut new = build(&[3, 1]);
        new.adopt(&old, Some);
        assert_eq!(picks(&mut new, &[3.0, 1.0], 6), "BAAABA");
        // From rotation to credits and back.
        let mut equal = build(&[1, 1]);
        assert_eq!(picks(&mut equal, &[1.0; 2], 1), "A");
        let mut unequal = build(&[2, 1]);
        unequal.adopt(&equal, Some);
        let first = picks(&mut unequal, &[2.0, 1.0], 3);
        assert_eq!(first.matches('A').count(), 2, "{first}");
        let mut equal = build(&[1, 1]);
        equal.adopt(&unequal, |_| None);
        assert_eq!(picks(&mut equal, &[1.0; 2], 2), "AB");
        equal.adopt(&unequal, |_| Some(99));
        assert_eq!(picks(&mut equal, &[1.0; 2], 2), "AB");
    }
}
