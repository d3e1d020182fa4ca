//! The sliding window: so many within any period, wherever it begins.
//!
//! Contract: at most `limit` requests pass within any `period`. Who steadily asks for more gets all of it, and so
//! does who comes in bursts; whatever else comes waits at most a ninth of the period longer than it would have to.
//!
//! The period is counted in nine steps, beside the one that runs. Of a step is known how many passed in it, and a
//! line that their number was never below (see [`Step`]): along it they leave the window again, so that what is
//! not known of them makes nobody pass too early. Steady traffic, and a burst, are such lines themselves.

use std::time::Duration;

use super::{Decision, Entry, Permit};
use crate::Moment;
use crate::clock::nanos;

/// Steps that are counted: the one that runs, eight before it, and the one that leaves the window meanwhile.
const STEPS: u64 = 10;

/// Words of an entry: one for each step.
pub const WORDS: usize = STEPS as usize;

/// The longest step and the last moment: far behind both there is room to count on.
const LONGEST: u64 = u64::MAX >> 6;
const LAST: u64 = u64::MAX >> 2;

/// The share of the limit, as a divisor, that may pass in a step before its line begins: a few that come before
/// the many do not bend it.
const SLACK: u32 = 512;

/// A window that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sliding {
    limit: u32,
    period: u64,
    step: u64,
}

impl Sliding {
    /// Lets `limit` pass within any `period`.
    pub fn new(limit: u32, period: Duration) -> Sliding {
        let period = nanos(period);
        Sliding { limit, period, step: period.div_ceil(STEPS - 1).clamp(1, LONGEST) }
    }

    /// How many pass.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Within which time.
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.period)
    }

    /// Decides on one request. The entry is remembered until its last request has left the window, which tells
    /// when that passed.
    pub fn decide(&self, entry: &mut Entry<WORDS>, now: Moment) -> Decision {
        let span = self.step * (STEPS - 1);
        let mut steps = Steps([0; WORDS]);
        let mut time = now.0.min(LAST);
        if entry.fresh_at > now {
            let last = entry.fresh_at.0.saturating_sub(span + 1);
            // A thread whose clock is behind counts when the last one did.
            time = time.max(last);
            steps = Steps(entry.state);
            let passed = last / self.step + 1..=time / self.step;
            passed.take(WORDS).for_each(|step| steps.set(step, Step::NONE));
        }
        let (current, at) = (time / self.step, time % self.step);
        let sum: u64 = (0..STEPS).map(|step| u64::from(steps.get(step).count)).sum();
        let counted = sum - u64::from(steps.get(current + 1).left(at, self.unit()));
        if counted >= u64::from(self.limit) {
            let free = self.free(&steps, (current, at), counted - u64::from(self.limit) + 1);
            let reset = Duration::from_nanos(entry.fresh_at.since(now));
            let permit = Permit::Refused(Duration::from_nanos(free.since(now)));
            return Decision { permit, remaining: 0, reset };
        }
        steps.set(current, steps.get(current).pass(at, self.unit(), self.limit / SLACK));
        let fresh_at = Moment(time + span + 1);
        *entry = Entry { fresh_at, state: steps.0 };
        let remaining = u64::from(self.limit) - counted - 1;
        Decision { permit: Permit::Now, remaining, reset: Duration::from_nanos(fresh_at.since(now)) }
    }

    /// Nanoseconds in which a step tells where its line begins.
    fn unit(&self) -> u64 {
        self.step.div_ceil(u64::from(u16::MAX))
    }

    /// When so many more will have left the window.
    fn free(&self, steps: &Steps, (current, at): (u64, u64), mut wanted: u64) -> Moment {
        for ahead in 0..STEPS {
            let step = steps.get(current + 1 + ahead);
            let gone = if ahead == 0 { step.left(at, self.unit()) } else { 0 };
            let there = u64::from(step.count - gone);
            if wanted <= there {
                let offset = step.reaches(u64::from(gone) + wanted, self.unit()).min(self.step);
                return Moment((current + ahead) * self.step + offset);
            }
            wanted -= there;
        }
        Moment((current + STEPS) * self.step)
    }
}

/// What is known of a step: how many passed, and a line below their number, `(x - anchor) / pace` at `x`
/// nanoseconds after its begin. The line is never above the number of those that had passed before `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    count: u32,
    /// In units of a step's 65535th part.
    anchor: u16,
    /// Nanoseconds for one that passed; none: all of them had passed at the anchor.
    pace: Pace,
}

impl Step {
    const NONE: Step = Step { count: 0, anchor: 0, pace: Pace(0) };

    /// One more passes at this time of the step, the latest so far.
    fn pass(self, at: u64, unit: u64, slack: u32) -> Step {
        // How many had passed before.
        let before = self.count;
        let count = before.saturating_add(1);
        if before <= slack {
            // Rounded up: below 65536, since a step has no more units.
            return Step { count, anchor: at.div_ceil(unit) as u16, pace: Pace(0) };
        }
        let since = at.saturating_sub(u64::from(self.anchor) * unit);
        let pace = since.div_ceil(u64::from(before));
        let pace = if pace > self.pace.nanos() { Pace::at_least(pace) } else { self.pace };
        Step { count, pace, ..self }
    }

    /// How many have left a window that begins at this time of the step.
    fn left(self, at: u64, unit: u64) -> u32 {
        match (at.saturating_sub(u64::from(self.anchor) * unit), self.pace.nanos()) {
            (0, _) => 0,
            (_, 0) => self.count,
            (since, pace) => u32::try_from(since.div_ceil(pace)).unwrap_or(u32::MAX).min(self.count),
        }
    }

    /// At which time of the step so many will have left, if the step does not end before.
    fn reaches(self, count: u64, unit: u64) -> u64 {
        let since = count.saturating_sub(1).saturating_mul(self.pace.nanos());
        (u64::from(self.anchor) * unit).saturating_add(since).saturating_add(1)
    }
}

/// A number of 64 bits in 16: ten of them, and how far they are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace(u16);

impl Pace {
    /// The least there is that is no less.
    fn at_least(nanos: u64) -> Pace {
        let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(10);
        match nanos.div_ceil(1 << shift) {
            1024 => Pace(512 | (shift as u16 + 1) << 10),
            digits => Pace(digits as u16 | (shift as u16) << 10),
        }
    }

    fn nanos(self) -> u64 {
        u64::from(self.0 & 1023) << (self.0 >> 10)
    }
}

/// The steps, in a ring.
struct Steps([u64; WORDS]);

impl Steps {
    fn get(&self, step: u64) -> Step {
        let word = self.0[(step % STEPS) as usize];
        Step { count: word as u32, anchor: (word >> 32) as u16, pace: Pace((word >> 48) as u16) }
    }

    fn set(&mut self, step: u64, Step { count, anchor, pace }: Step) {
        let word = u64::from(count) | u64::from(anchor) << 32 | u64::from(pace.0) << 48;
        self.0[(step % STEPS) as usize] = word;
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
            Decision { permit: Permit::Now, remaining: 0, reset: Duration::from_nanos(901) }
        );
        assert_eq!(ask(5_300).permit, Permit::Refused(Duration::from_nanos(651)));
        assert_eq!(ask(5_950).permit, Permit::Refused(Duration::from_nanos(1)));
        assert_eq!(ask(5_951).permit, Permit::Now);
        assert_eq!(ask(6_000).permit, Permit::Refused(Duration::from_nanos(151)));
        assert_eq!([ask(6_151).permit, ask(6_152).permit], [Permit::Now; 2]);
        assert_eq!(ask(6_152).permit, Permit::Refused(Duration::from_nanos(700)));
        assert_eq!(ask(6_852).permit, Permit::Now);
        assert_eq!(ask(20_000).remaining, 2);
    }

    #[test]
    fn a_few_before_the_many_do_not_hold_them_back() {
        // Steps of 1 us, and a slack of two.
        let sliding = Sliding::new(1_024, Duration::from_micros(9));
        let mut entry = Entry::NEW;
        let mut passed = |now, times: usize| {
            (0..times).filter(|_| sliding.decide(&mut entry, Moment(now)).permit == Permit::Now).count()
        };
        assert_eq!([passed(50_000, 2), passed(50_900, 2_000)], [2, 1_022]);
        assert_eq!([passed(59_900, 2_000), passed(59_902, 2_000)], [0, 1_024]);
    }

    #[test]
    fn a_pace_is_never_too_fast_and_hardly_too_slow() {
        for shift in 0..63 {
            for nanos in [1_u64 << shift, (1 << shift) + 1, (2 << shift) - 1, 1023 << (shift % 50)] {
                let pace = Pace::at_least(nanos).nanos();
                assert!(pace >= nanos && pace - nanos <= nanos / 512, "{nanos}: {pace}");
            }
        }
        assert_eq!(Pace::at_least(0).nanos(), 0);
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
