//! The sliding window: so many within any period, wherever it begins.
//!
//! Contract: at most `limit` requests pass within any `period`. Who steadily asks for more gets all of it, and so
//! does who comes in bursts; whatever else comes waits at most a tenth of the period longer than it would have to.
//!
//! The period is counted in ten steps, beside the one that runs. Of a step is known how many passed in it, and a
//! line that their number was never below (see [`Step`]): along it they leave the window again, so that what is
//! not known of them makes nobody pass too early. Steady traffic, and a burst, are such lines themselves. Of a
//! step that is over, half a word is kept (see [`Past`]), which costs steady traffic less than a thousandth.

use std::time::Duration;

use super::{Decision, Entry, Permit};
use crate::Moment;
use crate::clock::nanos;

/// Steps that are over and counted: nine within the window, and the one that leaves it meanwhile.
const PAST: u64 = 10;

/// Words of an entry: one for the step that runs, half of one for each other.
pub const WORDS: usize = 1 + PAST as usize / 2;

/// The longest step and the last moment: far behind both there is room to count on.
const LONGEST: u64 = u64::MAX >> 7;
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
        Sliding { limit, period, step: period.div_ceil(PAST).clamp(1, LONGEST) }
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
        let span = self.step * PAST;
        let mut steps = Steps([0; WORDS]);
        let mut time = now.0.min(LAST);
        if entry.fresh_at > now {
            let last = entry.fresh_at.0.saturating_sub(span + 1);
            // A thread whose clock is behind counts when the last one did.
            time = time.max(last);
            steps = Steps(entry.state);
            steps.advance(self, last / self.step..time / self.step);
        }
        let (current, at) = (time / self.step, time % self.step);
        let running = steps.running();
        let left = steps.past(current, self).left(at, self);
        let counted = steps.sum(self) + u64::from(running.count) - left;
        if counted >= u64::from(self.limit) {
            let free = self.free(&steps, (current, left), counted - u64::from(self.limit) + 1);
            // The last has left the window then, whatever its step says.
            let free = free.min(entry.fresh_at);
            let reset = Duration::from_nanos(entry.fresh_at.since(now));
            let permit = Permit::Refused(Duration::from_nanos(free.since(now)));
            return Decision { permit, remaining: 0, reset };
        }
        steps.run(running.pass(at, self.unit(), self.limit / SLACK));
        let fresh_at = Moment(time + span + 1);
        *entry = Entry { fresh_at, state: steps.0 };
        let remaining = u64::from(self.limit) - counted - 1;
        Decision { permit: Permit::Now, remaining, reset: Duration::from_nanos(fresh_at.since(now)) }
    }

    /// Nanoseconds in which the step that runs tells where its line begins.
    fn unit(&self) -> u64 {
        self.step.div_ceil(u64::from(u16::MAX))
    }

    /// In which a step that is over tells how many passed.
    fn grain(&self) -> u64 {
        u64::from(self.limit).div_ceil(u64::from(u16::MAX)).max(1)
    }

    /// Bits that it takes for that: as many grains as the limit has.
    fn bits(&self) -> u32 {
        (u32::BITS - self.limit.leading_zeros()).min(u16::BITS)
    }

    /// Bits in which it tells where its line begins, as a fraction of the step: those that counts leave it.
    fn digits(&self) -> u32 {
        24 - self.bits()
    }

    /// When so many more will have left the window.
    fn free(&self, steps: &Steps, (current, left): (u64, u64), mut wanted: u64) -> Moment {
        let leaving = steps.past(current, self);
        let there = leaving.count(self) - left;
        if wanted <= there {
            return Moment(current * self.step + leaving.reaches(left + wanted, self));
        }
        let running = steps.running();
        let last = Past::of(running, self);
        // From the next step on, the one that runs now is rounded like the others.
        wanted = wanted - there + last.count(self).saturating_sub(u64::from(running.count));
        for ahead in 1..=PAST {
            let step = if ahead < PAST { steps.past(current + ahead, self) } else { last };
            let there = step.count(self);
            if wanted <= there {
                return Moment((current + ahead) * self.step + step.reaches(wanted, self));
            }
            wanted -= there;
        }
        Moment((current + PAST + 1) * self.step)
    }
}

/// What is known of the step that runs: how many passed, and a line below their number, `(x - anchor) / pace` at `x`
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
}

/// What is kept of a step that is over, in 32 bits: how many passed, and a line below their number, as a part of
/// a box. The box begins when the first may leave the window, at the line's begin, and ends with the step; it is as
/// high as all the others. The line goes from its lower corner to its upper side, or to its right one, where the
/// rest leave at once.
///
/// Everything is rounded so that those within the window are never too few. Counts are exact for limits up to
/// 65535; what bits they do not take, up to 16 of 24, the begin has. So a line is late by a 256th of a step at most
/// where it begins, by a 16384th for limits up to 1023; and by a 127th where it leaves the box: a thousandth of the
/// period at most, and less than half of that for steady traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Past {
    /// In grains.
    count: u16,
    /// As a fraction of the step, in [`Sliding::digits`].
    begin: u32,
    slope: Slope,
}

/// How steep a line is, in 127th parts of its box: up to 127, where it meets the upper side; from 128 on, how far
/// below the upper corner it meets the right side; 255: nobody leaves before the end of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slope(u8);

impl Slope {
    const PARTS: u64 = 127;
    const NONE: Slope = Slope(255);

    /// As a fraction: of what leaves, by the share of the box that has gone by.
    fn fraction(self) -> (u64, u64) {
        match u64::from(self.0) {
            wide @ ..=Self::PARTS => (Self::PARTS, wide),
            low => (Self::PARTS.saturating_sub(low - Self::PARTS), Self::PARTS),
        }
    }
}

impl Past {
    const NONE: Past = Past { count: 0, begin: 0, slope: Slope(0) };

    /// That of a step which ran until now.
    fn of(Step { count, anchor, pace }: Step, sliding: &Sliding) -> Past {
        let Some(others) = count.checked_sub(1) else { return Past::NONE };
        let (step, grain) = (sliding.step, sliding.grain());
        let anchor = (u64::from(anchor) * sliding.unit()).min(step);
        // No more than the limit has passed, nothing after the end of the step: both fit.
        let count = u64::from(count).div_ceil(grain).min(u64::from(u16::MAX)) as u16;
        let begin = share(anchor, 1 << sliding.digits(), step).1 as u32;
        if begin >> sliding.digits() > 0 {
            return Past { count, begin: 0, slope: Slope::NONE };
        }
        let past = Past { count, begin, slope: Slope(0) };
        let from = past.begins(sliding);
        // How long the line is; none: longer than 584 years.
        let length = pace.nanos().checked_mul(u64::from(others));
        let slope = match length.map(|length| (length, anchor.saturating_add(length))) {
            Some((_, end)) if end <= from => 0,
            Some((_, end)) if end <= step => ((end - from) * Slope::PARTS).div_ceil(step - from),
            // Rounded down to what has left at the end of the step, 126 at most.
            Some((length, _)) => 2 * Slope::PARTS - (step - anchor) * Slope::PARTS / length,
            None => 2 * Slope::PARTS,
        };
        Past { slope: Slope(slope as u8), ..past }
    }

    fn pack(self, sliding: &Sliding) -> u32 {
        u32::from(self.count) | self.begin << sliding.bits() | u32::from(self.slope.0) << 24
    }

    fn unpack(word: u32, sliding: &Sliding) -> Past {
        let (others, bits) = (word & 0xff_ffff, sliding.bits());
        let count = (others & ((1 << bits) - 1)) as u16;
        Past { count, begin: others >> bits, slope: Slope((word >> 24) as u8) }
    }

    /// How many passed, at least.
    fn count(self, sliding: &Sliding) -> u64 {
        u64::from(self.count) * sliding.grain()
    }

    /// Where the line begins, in the step.
    fn begins(self, sliding: &Sliding) -> u64 {
        if self.slope == Slope::NONE {
            return sliding.step;
        }
        // Less than the step.
        ((u128::from(sliding.step) * u128::from(self.begin)) >> sliding.digits()) as u64
    }

    /// How many have left a window that begins at this time of the step.
    fn left(self, at: u64, sliding: &Sliding) -> u64 {
        let (count, begin) = (self.count(sliding), self.begins(sliding));
        let ((up, along), since) = (self.slope.fraction(), at.saturating_sub(begin));
        if count == 0 || since == 0 {
            return 0;
        }
        if along == 0 {
            return count;
        }
        // The first leaves at once.
        share(since, (count - 1) * up, (sliding.step - begin) * along).1.max(1).min(count)
    }

    /// At which time of the step so many will have left.
    fn reaches(self, count: u64, sliding: &Sliding) -> u64 {
        let (others, begin) = (self.count(sliding).saturating_sub(1), self.begins(sliding));
        let (up, along) = self.slope.fraction();
        let since = match count.saturating_sub(1) {
            0 => 0,
            _ if up == 0 => return sliding.step,
            before => share((sliding.step - begin) * along, before, others * up).0,
        };
        begin.saturating_add(since).saturating_add(1).min(sliding.step)
    }
}

/// `of * part / whole`, rounded down and up.
fn share(of: u64, part: u64, whole: u64) -> (u64, u64) {
    if let Some(product) = of.checked_mul(part) {
        return (product / whole, product.div_ceil(whole));
    }
    let (product, whole) = (u128::from(of) * u128::from(part), u128::from(whole));
    let narrow = |quotient| u64::try_from(quotient).unwrap_or(u64::MAX);
    (narrow(product / whole), narrow(product.div_ceil(whole)))
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

/// The steps: in the first word the one that runs, in the others those before it, in a ring.
struct Steps([u64; WORDS]);

impl Steps {
    fn running(&self) -> Step {
        let word = self.0[0];
        Step { count: word as u32, anchor: (word >> 32) as u16, pace: Pace((word >> 48) as u16) }
    }

    fn run(&mut self, Step { count, anchor, pace }: Step) {
        self.0[0] = u64::from(count) | u64::from(anchor) << 32 | u64::from(pace.0) << 48;
    }

    /// Of these, the first is the one that ran; another one runs after the last.
    fn advance(&mut self, sliding: &Sliding, mut over: std::ops::Range<u64>) {
        let Some(first) = over.next() else { return };
        self.set(first, Past::of(self.running(), sliding).pack(sliding));
        over.take(PAST as usize).for_each(|step| self.set(step, 0));
        self.0[0] = 0;
    }

    /// How many passed in those that are over.
    fn sum(&self, sliding: &Sliding) -> u64 {
        // Two at a time: ten of 16 bits take 20.
        let counts = ((1 << sliding.bits()) - 1) * 0x1_0000_0001;
        let both: u64 = self.0[1..].iter().map(|word| word & counts).sum();
        (both % (1 << 32) + (both >> 32)) * sliding.grain()
    }

    fn past(&self, step: u64, sliding: &Sliding) -> Past {
        let half = (step % PAST) as usize;
        Past::unpack((self.0[1 + half / 2] >> (half % 2 * 32)) as u32, sliding)
    }

    fn set(&mut self, step: u64, past: u32) {
        let half = (step % PAST) as usize;
        let (word, shift) = (&mut self.0[1 + half / 2], half % 2 * 32);
        *word = *word & !(0xffff_ffff << shift) | u64::from(past) << shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    #[test]
    fn what_has_left_the_window_counts_no_more() {
        // Steps of 100 ns.
        let sliding = Sliding::new(3, Duration::from_nanos(1_000));
        let mut entry = Entry::NEW;
        let mut ask = |now| sliding.decide(&mut entry, Moment(now));
        assert_eq!(ask(5_050).remaining, 2);
        assert_eq!(ask(5_250).remaining, 1);
        assert_eq!(
            ask(5_251),
            Decision { permit: Permit::Now, remaining: 0, reset: Duration::from_nanos(1_001) }
        );
        assert_eq!(ask(5_300).permit, Permit::Refused(Duration::from_nanos(751)));
        assert_eq!(ask(6_050).permit, Permit::Refused(Duration::from_nanos(1)));
        assert_eq!(ask(6_051).permit, Permit::Now);
        assert_eq!(ask(6_100).permit, Permit::Refused(Duration::from_nanos(151)));
        assert_eq!([ask(6_251).permit, ask(6_252).permit], [Permit::Now; 2]);
        assert_eq!(ask(6_252).permit, Permit::Refused(Duration::from_nanos(800)));
        assert_eq!(ask(7_052).permit, Permit::Now);
        assert_eq!(ask(20_000).remaining, 2);
    }

    #[test]
    fn a_few_before_the_many_do_not_hold_them_back() {
        // Steps of 1 us, and a slack of two.
        let sliding = Sliding::new(1_024, Duration::from_micros(10));
        let mut entry = Entry::NEW;
        let mut passed = |now, times: usize| {
            (0..times).filter(|_| sliding.decide(&mut entry, Moment(now)).permit == Permit::Now).count()
        };
        assert_eq!([passed(50_000, 2), passed(50_900, 2_000)], [2, 1_022]);
        assert_eq!([passed(60_900, 2_000), passed(60_902, 2_000)], [0, 1_024]);
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

    /// How many have left along the line of a step that runs.
    fn exactly(step: Step, at: u64, unit: u64) -> u64 {
        match (at.saturating_sub(u64::from(step.anchor) * unit), step.pace.nanos()) {
            (0, _) => 0,
            (_, 0) => u64::from(step.count),
            (since, pace) => since.div_ceil(pace).min(u64::from(step.count)),
        }
    }

    /// Limiters, a step of each, and what is kept of it; and a time of it.
    fn steps(number: u32) -> impl Iterator<Item = (Sliding, Step, Past, u64)> {
        let mut rng = Rng::new(7);
        let mut any = move |most: u64| {
            let bits = rng.below(65 - most.leading_zeros());
            rng.next() % (most.min((1 << bits) - 1) + 1)
        };
        (0..number).map(move |_| {
            let limit = any(u64::from(u32::MAX)).max(1) as u32;
            let sliding = Sliding::new(limit, Duration::from_nanos(any(LONGEST * 8)));
            let count = 1 + any(u64::from(limit) - 1) as u32;
            let anchor = any(sliding.step - 1).div_ceil(sliding.unit()) as u16;
            let pace = Pace::at_least(any(sliding.step - 1) / any(u64::from(count)).max(1));
            let step = Step { count, anchor, pace };
            let past = Past::unpack(Past::of(step, &sliding).pack(&sliding), &sliding);
            (sliding, step, past, any(sliding.step - 1))
        })
    }

    #[test]
    fn of_a_step_that_is_over_never_too_few_are_within_the_window_and_hardly_too_many() {
        for (sliding, step, past, at) in steps(300_000) {
            let within = |at| u64::from(step.count) - exactly(step, at, sliding.unit());
            let kept = |at| past.count(&sliding) - past.left(at, &sliding);
            assert!(kept(at) >= within(at), "{sliding:?} {step:?} {past:?} {at}");
            // So much later, and so many of them.
            let late = (sliding.step >> sliding.digits()) + sliding.step / Slope::PARTS + 2;
            let many = u64::from(step.count) / Slope::PARTS + sliding.grain() + 1;
            if at + late < sliding.step {
                assert!(kept(at + late) <= within(at) + many, "{sliding:?} {step:?} {past:?} {at}");
            }
        }
    }

    #[test]
    fn when_so_many_will_have_left_they_have_and_not_before() {
        for (sliding, _, past, at) in steps(300_000) {
            let count = 1 + at % past.count(&sliding);
            let then = past.reaches(count, &sliding);
            assert!(past.left(then - 1, &sliding) < count, "{sliding:?} {past:?} {count}");
            let left = past.left(then, &sliding);
            assert!(then == sliding.step || left >= count, "{sliding:?} {past:?} {count}");
        }
    }

    #[test]
    fn limits_beyond_16_bits_hold_and_are_given_to_the_last_grain() {
        for limit in [65_535, 65_536, 1_000_000_u32] {
            let sliding = Sliding::new(limit, Duration::from_millis(10));
            let mut entry = Entry::NEW;
            let mut log = std::collections::VecDeque::new();
            let mut rng = Rng::new(u64::from(limit));
            let mut now = 1_000_000_000;
            for _ in 0..limit * 4 {
                now += u64::from(rng.below(10_000_000 / limit));
                let Decision { permit, .. } = sliding.decide(&mut entry, Moment(now));
                if let Permit::Refused(after) = permit {
                    let mut then = entry;
                    let again = sliding.decide(&mut then, Moment(now).after(after)).permit;
                    assert_eq!(again, Permit::Now);
                    continue;
                }
                log.push_back(now);
                if log.len() > limit as usize {
                    let first = log.pop_front().unwrap();
                    assert!(now - first > 10_000_000, "{limit}: {first} {now}");
                }
            }
            now += 20_000_000;
            let burst = (0..limit).filter(|_| sliding.decide(&mut entry, Moment(now)).permit == Permit::Now);
            assert_eq!(burst.count(), limit as usize);
        }
    }

    #[test]
    fn when_a_large_limit_says_that_one_may_come_one_may_and_not_before() {
        let second = 1_000_000_000;
        // Counted in sixteens once its step is over, and neither part of it is so many times sixteen.
        let sliding = Sliding::new(1_000_001, Duration::from_secs(10));
        let mut entry = Entry::NEW;
        let mut ask = |now| sliding.decide(&mut entry, Moment(now)).permit;
        (0..500_001).for_each(|number| assert_eq!(ask(20 * second + number * 1_900), Permit::Now));
        let passed = (0..).take_while(|_| ask(21 * second) == Permit::Now).count();
        assert!((499_980..=500_000).contains(&passed), "{passed}");
        let Permit::Refused(after) = ask(21 * second + 1) else { panic!("the limit is used up") };
        let then = Moment(21 * second + 1).after(after).0;
        assert!(then > 30 * second && matches!(ask(then - 1), Permit::Refused(_)), "{then}");
        assert_eq!(ask(then), Permit::Now);
        // The last has left the window whatever is known of its step.
        let sliding = Sliding::new(65_535, Duration::from_secs(1));
        let mut entry = Entry::NEW;
        let mut ask = |now| sliding.decide(&mut entry, Moment(now)).permit;
        (0..65_535).for_each(|_| assert_eq!(ask(5_012_345_678), Permit::Now));
        assert_eq!(ask(5_500_000_000), Permit::Refused(Duration::from_nanos(512_345_679)));
        assert_eq!(ask(6_012_345_679), Permit::Now);
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
