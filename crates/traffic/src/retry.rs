//! Retries: whether another attempt may follow, whether the budget has one, and how long to wait for it.
//!
//! Promise: no policy makes a request that may have been worked on be sent twice unless its method is
//! idempotent, or the endpoint said that it did nothing; and no number of failures multiplies the traffic: a
//! budget ties retries to requests.

use std::time::Duration;

use crate::clock::nanos;
use crate::{Moment, Rng};

/// Whether anything of the request reached the endpoint, as far as can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Not a byte: there was no connection, or it was gone before the first write.
    Nothing,
    /// Perhaps: it may have been worked on.
    Something,
}

/// Whether sending the request twice is the same as sending it once (RFC 9110 section 9.2.2), by its method
/// or because the operator says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotent {
    /// It is.
    Yes,
    /// It is not, or nobody knows.
    No,
}

/// What kind of failure it was, for retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Another attempt would not help, or the policy does not want one.
    Never,
    /// Any request may be tried again: the failure itself says that nothing was done (connection refused,
    /// REFUSED_STREAM).
    Always,
    /// Only what may be sent twice, or was not sent.
    Idempotent,
}

/// Whether another attempt may follow, but for the budget. `attempts_made` counts those that began, the first
/// included; so does `attempts_allowed`.
pub fn may_retry(
    class: Class,
    sent: Sent,
    idempotent: Idempotent,
    attempts_made: u32,
    attempts_allowed: u32,
) -> bool {
    let safe = match class {
        Class::Never => false,
        Class::Always => true,
        Class::Idempotent => sent == Sent::Nothing || idempotent == Idempotent::Yes,
    };
    safe && attempts_made < attempts_allowed
}

/// How long to wait before another attempt: exponential with full jitter, so that clients of a failing
/// endpoint do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The most to wait before the first retry; twice as much before each further one.
    pub base: Duration,
    /// The most to wait before any.
    pub max: Duration,
}

impl Default for Backoff {
    /// Envoy's: 25 ms, up to 250 ms.
    fn default() -> Self {
        Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

impl Backoff {
    /// A random time from zero up to min(max, base * 2^(retry - 1)); `retry` is 1 before the first retry.
    pub fn delay(&self, retry: u32, rng: &mut Rng) -> Duration {
        let doubled = 1_u64 << retry.saturating_sub(1).min(63);
        let most = nanos(self.base).saturating_mul(doubled).min(nanos(self.max));
        Duration::from_nanos((most as f64 * rng.ratio()) as u64)
    }
}

/// How many retries there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetPolicy {
    /// Retries for each request of the last 10 s. Default 0.2.
    pub ratio: f64,
    /// Retries a second that are always allowed, so that a quiet service may retry at all; over 10 s. With
    /// several workers this is the share of each. Default 3.
    pub floor_per_second: f64,
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        BudgetPolicy { ratio: 0.2, floor_per_second: 3.0 }
    }
}

const STEPS: usize = 10;
const STEP: u64 = 1_000_000_000;

/// A worker's retry budget for an upstream: over any 10 s, retries are at most `ratio` of the requests plus
/// `floor_per_second` for each second, give or take the second by which the window slides.
#[derive(Clone, Debug)]
pub struct Budget {
    policy: BudgetPolicy,
    /// Requests and retries of the last 10 seconds, by the second modulo 10.
    steps: [(u32, u32); STEPS],
    /// Their sums.
    requests: u64,
    retries: u64,
    /// The second of the last event.
    second: u64,
}

impl Budget {
    /// A budget that only has its floor yet.
    pub const fn new(policy: BudgetPolicy) -> Budget {
        Budget { policy, steps: [(0, 0); STEPS], requests: 0, retries: 0, second: 0 }
    }

    /// Changes the policy and keeps what was counted.
    pub const fn set_policy(&mut self, policy: BudgetPolicy) {
        self.policy = policy;
    }

    /// Counts a request, not its retries.
    pub fn deposit(&mut self, now: Moment) {
        let step = self.slide(now);
        if let Some(requests) = self.steps[step].0.checked_add(1) {
            self.steps[step].0 = requests;
            self.requests += 1;
        }
    }

    /// Takes one retry out; whether there was one.
    pub fn withdraw(&mut self, now: Moment) -> bool {
        let step = self.slide(now);
        let allowed = self.policy.ratio * self.requests as f64 + self.policy.floor_per_second * STEPS as f64;
        // Not `>`: a NaN allows nothing.
        let granted = (self.retries + 1) as f64 <= allowed;
        match self.steps[step].1.checked_add(1).filter(|_| granted) {
            Some(retries) => {
                self.steps[step].1 = retries;
                self.retries += 1;
                true
            }
            None => false,
        }
    }

    /// Forgets what is older than the window and gives the index of the current second. A moment before the
    /// last one counts as it.
    fn slide(&mut self, now: Moment) -> usize {
        let second = (now.0 / STEP).max(self.second);
        let passed = second - self.second;
        for step in self.second + 1..=self.second + passed.min(STEPS as u64) {
            let (requests, retries) = std::mem::take(&mut self.steps[step as usize % STEPS]);
            self.requests = self.requests.saturating_sub(u64::from(requests));
            self.retries = self.retries.saturating_sub(u64::from(retries));
        }
        self.second = second;
        second as usize % STEPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * STEP)
    }

    #[test]
    fn only_what_is_safe_to_send_twice_is_retried() {
        use super::Idempotent as Is;
        use Sent::{Nothing, Something};
        for (class, sent, idempotent, expected) in [
            (Class::Never, Nothing, Is::Yes, false),
            (Class::Always, Something, Is::No, true),
            (Class::Idempotent, Nothing, Is::No, true),
            (Class::Idempotent, Something, Is::Yes, true),
            (Class::Idempotent, Something, Is::No, false),
        ] {
            assert_eq!(
                may_retry(class, sent, idempotent, 1, 2),
                expected,
                "{class:?} {sent:?} {idempotent:?}"
            );
            assert!(!may_retry(class, sent, idempotent, 2, 2), "{class:?}: attempts are used up");
        }
        assert!(!may_retry(Class::Always, Nothing, Is::Yes, 1, 0));
    }

    #[test]
    fn the_budget_grants_the_floor_and_the_share_of_requests() {
        let mut budget = Budget::new(BudgetPolicy { ratio: 0.2, floor_per_second: 0.3 });
        assert_eq!((0..10).filter(|_| budget.withdraw(at(100))).count(), 3, "the floor of 10 s");
        (0..50).for_each(|_| budget.deposit(at(101)));
        assert_eq!((0..50).filter(|_| budget.withdraw(at(101))).count(), 10, "20 % of 50");
        assert!(!budget.withdraw(at(109)));
        assert_eq!((0..50).filter(|_| budget.withdraw(at(110))).count(), 3, "the first three are 10 s old");
        assert_eq!(
            (0..50).filter(|_| budget.withdraw(at(111))).count(),
            0,
            "requests and their retries went"
        );
        assert_eq!((0..50).filter(|_| budget.withdraw(at(500))).count(), 3, "an idle budget holds its floor");
    }

    #[test]
    fn a_budget_of_nothing_grants_nothing_and_clocks_may_be_odd() {
        let mut budget = Budget::new(BudgetPolicy { ratio: 0.0, floor_per_second: 0.0 });
        budget.deposit(at(1));
        assert!(!budget.withdraw(at(1)));
        budget.set_policy(BudgetPolicy { ratio: f64::NAN, floor_per_second: 1.0 });
        assert!(!budget.withdraw(at(1)));
        budget.set_policy(BudgetPolicy::default());
        assert!(budget.withdraw(Moment(u64::MAX)));
        assert!(budget.withdraw(Moment(0)));
        budget.deposit(Moment(u64::MAX));
    }

    #[test]
    fn backoff_doubles_up_to_its_most_with_full_jitter() {
        let mut rng = Rng::new(11);
        for (retry, most) in
            [(0, 25), (1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (64, 250), (u32::MAX, 250)]
        {
            let drawn: Vec<_> =
                (0..500).map(|_| Backoff::default().delay(retry, &mut rng).as_millis()).collect();
            assert!(drawn.iter().all(|delay| *delay < most), "{retry}");
            assert!(drawn.iter().any(|delay| *delay > most * 9 / 10), "{retry}");
            assert!(drawn.iter().any(|delay| *delay < most / 10), "{retry}");
        }
    }
}
