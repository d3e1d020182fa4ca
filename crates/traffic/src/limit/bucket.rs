//! The token bucket and the leaky bucket, as one algorithm: GCRA (ITU-T I.371), which remembers one moment.
//!
//! Contract: of the requests of a key, at most `burst + length / interval` go on within any `length` of time;
//! those that wait go on in the order in which they came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Decision, Entry, Permit};
use crate::Moment;
use crate::clock::nanos;

/// A bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Nanoseconds in which one permit comes back.
    interval: u64,
    /// How far ahead of its time a request may be: the burst but one, in nanoseconds.
    tolerance: u64,
    /// The longest that a request may wait.
    wait: u64,
}

/// How requests wait for their permit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// The most that wait at a time.
    pub places: u64,
    /// The longest that one waits.
    pub wait: Duration,
}

impl Bucket {
    /// Gives `count` permits in each `period`, one by one; holds `burst` of them, at least one.
    pub fn new(count: u64, period: Duration, burst: u64) -> Bucket {
        // Rounded up: never more than asked for.
        let interval = nanos(period).div_ceil(count.max(1)).max(1);
        Bucket { interval, tolerance: interval.saturating_mul(burst.max(1) - 1), wait: 0 }
    }

    /// Lets requests wait.
    pub fn with_queue(self, queue: Queue) -> Bucket {
        let places = self.interval.saturating_mul(queue.places);
        Bucket { wait: nanos(queue.wait).min(places), ..self }
    }

    /// Nanoseconds in which one permit comes back, how far ahead of its time a request may be, and how long one
    /// may wait: for those who decide elsewhere.
    pub fn nanos(&self) -> [u64; 3] {
        [self.interval, self.tolerance, self.wait]
    }

    /// How many permits it holds.
    pub fn burst(&self) -> u64 {
        self.tolerance / self.interval + 1
    }

    /// Decides on one request of a key that has a word of its own, for threads that decide at the same time: the
    /// moment that an entry has.
    pub fn decide_on(&self, word: &AtomicU64, now: Moment) -> Decision {
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let mut entry = Entry::<0> { fresh_at: Moment(seen), state: [] };
            let decision = self.decide(&mut entry, now);
            match word.compare_exchange_weak(seen, entry.fresh_at.0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return decision,
                Err(changed) => seen = changed,
            }
        }
    }

    /// Whether it would let one of that key pass at once.
    pub fn has_permit(&self, word: &AtomicU64, now: Moment) -> bool {
        word.load(Ordering::Relaxed).saturating_sub(self.tolerance) <= now.0
    }

    /// Decides on one request. The entry's only moment is the theoretical arrival time of the next request:
    /// when nothing is ahead of its time any more the bucket is full.
    #[inline]
    pub fn decide<const WORDS: usize>(&self, entry: &mut Entry<WORDS>, now: Moment) -> Decision {
        let arrival = entry.fresh_at.0;
        // When this request is no more ahead of its time than it may be.
        let due = arrival.saturating_sub(self.tolerance);
        let early = due.saturating_sub(now.0);
        if early > self.wait {
            let reset = Duration::from_nanos(arrival.saturating_sub(now.0));
            let after = Duration::from_nanos(early - self.wait);
            return Decision { permit: Permit::Refused(after), remaining: 0, reset };
        }
        let next = arrival.max(now.0).saturating_add(self.interval);
        entry.fresh_at = Moment(next);
        let ahead = next.saturating_sub(now.0);
        let permit = if early == 0 { Permit::Now } else { Permit::After(Duration::from_nanos(early)) };
        let left = self.tolerance.saturating_add(self.interval).saturating_sub(ahead);
        Decision { permit, remaining: left / self.interval, reset: Duration::from_nanos(ahead) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Moment {
        Moment(7_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let bucket = Bucket::new(10, SECOND, 3);
        assert_eq!(bucket.burst(), 3);
        let mut entry = Entry::<0>::NEW;
        let mut remaining = || {
            let decision = bucket.decide(&mut entry, at(0));
            (decision.permit == Permit::Now).then_some(decision.remaining)
        };
        assert_eq!([remaining(), remaining(), remaining(), remaining()], [Some(2), Some(1), Some(0), None]);
        let before = entry;
        let refused = bucket.decide(&mut entry, at(40));
        assert_eq!(refused.permit, Permit::Refused(Duration::from_millis(60)));
        assert_eq!((refused.reset, entry), (Duration::from_millis(260), before));
        assert_eq!(bucket.decide(&mut entry, at(100)).permit, Permit::Now);
        assert_eq!(bucket.decide(&mut entry, at(100)).permit, Permit::Refused(Duration::from_millis(100)));
        assert_eq!(bucket.decide(&mut entry, at(10_000)).remaining, 2);
    }

    #[test]
    fn threads_that_share_a_word_are_given_together_what_there_is() {
        let (bucket, word) = (Bucket::new(1, SECOND, 500), AtomicU64::new(0));
        let given: usize = std::thread::scope(|scope| {
            let ask = || (0..500).filter(|_| bucket.decide_on(&word, at(0)).permit == Permit::Now).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(given, 500);
        assert_eq!([bucket.has_permit(&word, at(999)), bucket.has_permit(&word, at(1_000))], [false, true]);
    }

    #[test]
    fn a_queue_is_bounded_in_number_and_in_time() {
        let waits = |queue| {
            let bucket = Bucket::new(10, SECOND, 1).with_queue(queue);
            let mut entry = Entry::<0>::NEW;
            let permits = (0..6).map(|_| match bucket.decide(&mut entry, at(0)).permit {
                Permit::Now => 0,
                Permit::After(wait) => wait.as_millis(),
                Permit::Refused(_) => 9999,
            });
            permits.collect::<Vec<_>>()
        };
        let minute = Duration::from_secs(60);
        assert_eq!(waits(Queue { places: 3, wait: minute }), [0, 100, 200, 300, 9999, 9999]);
        let short = Duration::from_millis(250);
        assert_eq!(waits(Queue { places: 100, wait: short }), [0, 100, 200, 9999, 9999, 9999]);
    }

    #[test]
    fn extremes_are_no_trouble() {
        for (count, period, burst) in [
            (0, SECOND, 0),
            (u64::MAX, SECOND, u64::MAX),
            (1, Duration::MAX, u64::MAX),
            (1, Duration::ZERO, 1),
        ] {
            let bucket = Bucket::new(count, period, burst);
            let mut entry = Entry::<0>::NEW;
            for now in [0, u64::MAX, 5] {
                bucket.decide(&mut entry, Moment(now));
            }
        }
    }
}
