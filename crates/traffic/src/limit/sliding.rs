//! The sliding window: so many within any period, wherever it begins.
//!
//! Contract: at most `limit` requests pass within any `period`. The window moves in steps of a ninth of it and
//! counts the step it has begun with as a whole, so it is up to a ninth longer than the period: who always
//! asks for more gets nine tenths of the rate at least.

use std::time::Duration;

use super::{Decision, Entry, Permit};
use crate::Moment;
use crate::clock::nanos;

/// Steps that are counted: the one that runs and nine that have ended.
pub const STEPS: u64 = 10;

/// The last step: behind it there is room to count on.
const LAST: u64 = u64::MAX - 2 * STEPS;

/// Words of an entry: two counts of 32 bits in each.
pub const WORDS: usize = 5;

/// A window that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sliding {
    limit: u32,
    step: u64,
}

impl Sliding {
    /// Lets `limit` pass within any `period`.
    pub fn new(limit: u32, period: Duration) -> Sliding {
        Sliding { limit, step: nanos(period).div_ceil(STEPS - 1).max(1) }
    }

    /// How many pass, and the nanoseconds of a step: for those who decide elsewhere.
    pub fn parts(&self) -> (u32, u64) {
        (self.limit, self.step)
    }

    /// Decides on one request. The entry is remembered until its last step has left the window, which tells
    /// which step that is.
    pub fn decide(&self, entry: &mut Entry<WORDS>, now: Moment) -> Decision {
        let last = (entry.fresh_at.0 / self.step).saturating_sub(STEPS);
        // A thread whose clock is behind counts in the step that has begun.
        let current = (now.0 / self.step).min(LAST).max(if entry.fresh_at > now { last } else { 0 });
        let mut counts = match current.saturating_sub(last) {
            passed if passed < STEPS && entry.fresh_at > now => Counts(entry.state),
            _ => Counts([0; WORDS]),
        };
        (last + 1..=current).take(STEPS as usize).for_each(|step| counts.set(step, 0));
        let sum: u64 = (0..STEPS).map(|step| u64::from(counts.get(step))).sum();
        if sum >= u64::from(self.limit) {
            let reset = Duration::from_nanos(entry.fresh_at.since(now));
            let leaves = (current + 1..current + STEPS).find(|step| counts.get(*step) > 0);
            // A step leaves when the one begins that takes its place.
            let free = Moment(leaves.unwrap_or(current + STEPS).saturating_mul(self.step));
            let permit = Permit::Refused(Duration::from_nanos(free.since(now)));
            return Decision { permit, remaining: 0, reset };
        }
        counts.set(current, counts.get(current) + 1);
        let fresh_at = Moment((current + STEPS).saturating_mul(self.step));
        *entry = Entry { fresh_at, state: counts.0 };
        let remaining = u64::from(self.limit) - sum - 1;
        Decision { permit: Permit::Now, remaining, reset: Duration::from_nanos(fresh_at.since(now)) }
    }
}

/// A count for each step, in a ring.
struct Counts([u64; WORDS]);

impl Counts {
    fn place(step: u64) -> (usize, u32) {
        let place = step % STEPS;
        ((place / 2) as usize, (place % 2) as u32 * 32)
    }

    fn get(&self, step: u64) -> u32 {
        let (word, shift) = Counts::place(step);
        (self.0[word] >> shift) as u32
    }

    fn set(&mut self, step: u64, count: u32) {
        let (word, shift) = Counts::place(step);
        self.0[word] = self.0[word] & !(u64::from(u32::MAX) << shift) | u64::from(count) << shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_the_window_counts_no_more() {
        // Steps of 100 ns.
        let sliding = Sliding::new(3, Duration::from_nanos(900));
        let mut entry = Entry::NEW;
        let mut ask = |now| sliding.decide(&mut entry, Moment(now));
        assert_eq!(ask(5_050).remaining, 2);
        assert_eq!(ask(5_250).remaining, 1);
        assert_eq!(
            ask(5_251),
            Decision { permit: Permit::Now, remaining: 0, reset: Duration::from_nanos(949) }
        );
        assert_eq!(ask(5_300).permit, Permit::Refused(Duration::from_nanos(700)));
        assert_eq!(ask(5_999).permit, Permit::Refused(Duration::from_nanos(1)));
        assert_eq!(ask(6_000).permit, Permit::Now);
        assert_eq!(ask(6_000).permit, Permit::Refused(Duration::from_nanos(200)));
        assert_eq!(ask(6_250).remaining, 1);
        assert_eq!(ask(20_000).remaining, 2);
    }

    #[test]
    fn extremes_are_no_trouble() {
        for (limit, period) in [(0, Duration::ZERO), (u32::MAX, Duration::MAX), (1, Duration::from_nanos(1))]
        {
            let sliding = Sliding::new(limit, period);
            let mut entry = Entry::NEW;
            for now in [0, u64::MAX, 5] {
                sliding.decide(&mut entry, Moment(now));
            }
        }
    }
}
