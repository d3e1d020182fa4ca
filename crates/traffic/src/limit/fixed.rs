//! The fixed window: so many in each period of the clock, and then none until the next one.
//!
//! Contract: exactly `limit` requests pass in a period. Across the end of one, twice as many can pass in a short
//! time. The caller says when the present period ends, so that periods can be those of the wall clock; an end
//! that was noted stays, whatever becomes of that clock.

use std::time::Duration;

use super::{Decision, Entry, Permit};
use crate::Moment;

/// A counter of each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// How many pass in a period.
    pub limit: u64,
}

impl Fixed {
    /// Decides on one request; `end` is when the period ends that `now` is in.
    #[inline]
    pub fn decide(&self, entry: &mut Entry<1>, now: Moment, end: Moment) -> Decision {
        let (count, end) = match entry.fresh_at > now {
            true => (entry.state[0], entry.fresh_at),
            false => (0, end),
        };
        let reset = Duration::from_nanos(end.since(now));
        if count >= self.limit {
            return Decision { permit: Permit::Refused(reset), remaining: 0, reset };
        }
        *entry = Entry { fresh_at: end, state: [count + 1] };
        Decision { permit: Permit::Now, remaining: self.limit - count - 1, reset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_used_up_and_the_next_one_begins() {
        let fixed = Fixed { limit: 2 };
        let mut entry = Entry::NEW;
        let mut ask = |now, end| fixed.decide(&mut entry, Moment(now), Moment(end));
        assert_eq!(ask(5, 10).remaining, 1);
        assert_eq!(ask(9, 10).remaining, 0);
        // The wall clock was set back: the period still ends when it was to end.
        assert_eq!(ask(9, 100).permit, Permit::Refused(Duration::from_nanos(1)));
        assert_eq!(
            ask(10, 20),
            Decision { permit: Permit::Now, remaining: 1, reset: Duration::from_nanos(10) }
        );
        // A thread whose clock is behind counts in the period that has begun.
        assert_eq!(ask(9, 10).remaining, 0);
        assert_eq!(ask(19, 20).permit, Permit::Refused(Duration::from_nanos(1)));
    }
}
