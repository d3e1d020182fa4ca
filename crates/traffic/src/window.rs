//! A sliding window that counts requests and failures: a ring of buckets, one atomic word each.
//!
//! Promise: shared by threads without a lock; a word is replaced whole, so no event is torn, doubled or lost
//! while buckets roll over. The bounds: the window is in steps of a tenth of its length; threads whose clocks
//! differ put events into neighbouring buckets; a bucket older than 2^20 steps (12 days for a window of 10 s)
//! that nothing touched since would be taken for a new one; above four million events in a bucket its counts
//! are halved, which keeps their ratio.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::Moment;
use crate::clock::nanos;

const BUCKETS: usize = 10;
const EPOCHS: u64 = 1 << 20;
const COUNT_BITS: u32 = 22;
const MOST: u64 = (1 << COUNT_BITS) - 1;

/// Requests and failures among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Each: 20 bits of epoch (the number of the step since the clock's start), 22 of requests, 22 of
    /// failures.
    buckets: [AtomicU64; BUCKETS],
}

impl Window {
    /// Counts one request.
    pub(crate) fn add(&self, length: Duration, now: Moment, failed: bool) {
        let epoch = epoch(length, now);
        let bucket = &self.buckets[(epoch % BUCKETS as u64) as usize];
        let count = |word| {
            let mut counts =
                if epoch_of(word) == epoch % EPOCHS { counts_of(word) } else { Counts::default() };
            if counts.requests == MOST {
                counts = Counts { requests: counts.requests / 2, failures: counts.failures / 2 };
            }
            counts.requests += 1;
            counts.failures += u64::from(failed);
            Some(pack(epoch, counts))
        };
        // The closure always gives a word, so this cannot fail.
        let _ = bucket.fetch_update(Relaxed, Relaxed, count);
    }

    /// What was counted within the window that ends now.
    pub(crate) fn counts(&self, length: Duration, now: Moment) -> Counts {
        let epoch = epoch(length, now);
        let words = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        let within = words.filter(|&word| epoch.wrapping_sub(epoch_of(word)) % EPOCHS < BUCKETS as u64);
        within.map(counts_of).fold(Counts::default(), |sum, counts| Counts {
            requests: sum.requests + counts.requests,
            failures: sum.failures + counts.failures,
        })
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }
}

fn epoch(length: Duration, now: Moment) -> u64 {
    now.0 / (nanos(length) / BUCKETS as u64).max(1)
}

const fn pack(epoch: u64, counts: Counts) -> u64 {
    (epoch % EPOCHS) << (2 * COUNT_BITS) | counts.requests << COUNT_BITS | counts.failures
}

const fn epoch_of(word: u64) -> u64 {
    word >> (2 * COUNT_BITS)
}

const fn counts_of(word: u64) -> Counts {
    Counts { requests: (word >> COUNT_BITS) & MOST, failures: word & MOST }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const TEN: Duration = Duration::from_secs(10);

    #[test]
    fn events_leave_the_window_step_by_step() {
        let window = Window::default();
        for second in 0..10 {
            window.add(TEN, Moment(second * SECOND), second < 3);
        }
        assert_eq!(window.counts(TEN, Moment(9 * SECOND)), Counts { requests: 10, failures: 3 });
        assert_eq!(window.counts(TEN, Moment(11 * SECOND)), Counts { requests: 8, failures: 1 });
        window.add(TEN, Moment(11 * SECOND), false);
        assert_eq!(window.counts(TEN, Moment(11 * SECOND)), Counts { requests: 9, failures: 1 });
        assert_eq!(window.counts(TEN, Moment(30 * SECOND)), Counts::default());
        window.clear();
        assert_eq!(window.counts(TEN, Moment(11 * SECOND)), Counts::default());
    }

    #[test]
    fn a_full_bucket_keeps_its_ratio() {
        let window = Window::default();
        let full = Counts { requests: MOST, failures: MOST / 2 };
        window.buckets[0].store(pack(0, full), Relaxed);
        window.add(TEN, Moment(0), true);
        let counts = window.counts(TEN, Moment(0));
        assert_eq!(counts.requests, MOST / 2 + 1);
        assert!((counts.failures as f64 / counts.requests as f64 - 0.5).abs() < 0.001);
    }

    #[test]
    fn a_changed_length_or_the_last_moment_is_no_trouble() {
        let window = Window::default();
        window.add(TEN, Moment(u64::MAX), true);
        let hour = Duration::from_secs(3600);
        for length in [Duration::from_millis(1), hour, Duration::ZERO, Duration::MAX] {
            window.add(length, Moment(5 * SECOND), true);
            assert!(window.counts(length, Moment(5 * SECOND)).failures >= 1, "{length:?}");
        }
    }

    #[test]
    fn threads_lose_and_double_nothing() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let window = &window;
                let add = move |event: u64| window.add(TEN, Moment(event * 900_000), event % 4 == thread);
                scope.spawn(move || (0..10_000).for_each(add));
            }
        });
        let counts = window.counts(TEN, Moment(9 * SECOND));
        assert_eq!(counts, Counts { requests: 40_000, failures: 10_000 });
    }
}
