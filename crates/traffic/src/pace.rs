//! How fast bytes may move: a token bucket that lends, shared by threads without a lock.
//!
//! Promise: over any time no more than `rate` times it, and `burst`, and one piece of each who moves, pass;
//! what has passed is paid for by waiting, in the order in which it passed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Moment;

/// A rate and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes a second; at least 1.
    pub rate: u64,
    /// Bytes that may pass at once after a pause.
    pub burst: u64,
}

/// A bucket: full when new.
#[derive(Debug, Default)]
pub struct Pace {
    /// When all that has passed will have been paid for, in nanoseconds of the clock.
    paid: AtomicU64,
}

impl Pace {
    /// How long to wait before anything more may pass; zero: not at all.
    pub fn wait(&self, policy: Policy, now: Moment) -> Duration {
        let credit = nanos(policy.burst, policy.rate);
        let paid = self.paid.load(Ordering::Relaxed);
        Duration::from_nanos(paid.saturating_sub(now.0.saturating_add(credit)))
    }

    /// Counts bytes that pass now.
    pub fn pass(&self, bytes: u64, policy: Policy, now: Moment) {
        let cost = nanos(bytes, policy.rate);
        let _ = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| {
            Some(paid.max(now.0).saturating_add(cost))
        });
    }
}

/// How long so many bytes take at a rate.
fn nanos(bytes: u64, rate: u64) -> u64 {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy { rate: 1000, burst: 500 };

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let pace = Pace::default();
        let at = |millis: u64| Moment(millis * 1_000_000);
        assert_eq!(pace.wait(POLICY, at(0)), Duration::ZERO);
        pace.pass(500, POLICY, at(0));
        assert_eq!(pace.wait(POLICY, at(0)), Duration::ZERO, "what the burst allows is not waited for");
        pace.pass(250, POLICY, at(0));
        assert_eq!(pace.wait(POLICY, at(0)), Duration::from_millis(250));
        assert_eq!(pace.wait(POLICY, at(250)), Duration::ZERO);
        pace.pass(100, POLICY, at(10_000));
        assert_eq!(
            pace.wait(POLICY, at(10_000)),
            Duration::ZERO,
            "after a pause it is full again, and no fuller"
        );
    }

    proptest! {
        /// Whoever waits as told moves no more than rate, burst and one piece.
        #[test]
        fn the_rate_holds_over_any_time(
            pieces in prop::collection::vec((1u64..2000, 0u64..500_000_000), 1..100),
            rate in 1u64..100_000,
            burst in 0u64..5000,
        ) {
            let policy = Policy { rate, burst };
            let pace = Pace::default();
            let mut now = Moment(0);
            let mut moved: u128 = 0;
            for (bytes, pause) in pieces {
                now = Moment(now.0 + pause + pace.wait(policy, Moment(now.0 + pause)).as_nanos() as u64);
                prop_assert_eq!(pace.wait(policy, now), Duration::ZERO);
                let most = u128::from(now.0) * u128::from(rate) / 1_000_000_000 + u128::from(burst);
                prop_assert!(moved <= most + 1 + u128::from(now.0 / 1_000_000), "{moved} > {most}");
                pace.pass(bytes, policy, now);
                moved += u128::from(bytes);
            }
        }
    }
}
