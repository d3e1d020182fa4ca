//! Passive ejection: an endpoint that keeps failing real traffic is left out for a while (outlier detection).
//!
//! After Envoy's consecutive-failure rule: so many failures in a row eject it for the base time multiplied by
//! the number of its ejections; each base time without a new one takes one off that number again.
//!
//! Promise: shared by threads without a lock. A group's decisions are taken one at a time, so the share that
//! may be ejected holds exactly and the last endpoint is never ejected; a thread that finds another one
//! deciding does not wait, the next failure asks again.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::nanos;
use crate::{Moment, Verdict};

/// When endpoints are ejected and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Failures in a row that eject an endpoint; 0 counts as 1.
    pub consecutive_failures: u32,
    /// How long the first ejection lasts; each further one so much longer.
    pub base: Duration,
    /// The longest ejection.
    pub max: Duration,
    /// The share of a group's endpoints that may be ejected at a time, 0 to 1. Above 0 it allows one at
    /// least; 0 turns ejection off.
    pub max_ratio: f64,
}

impl Default for Policy {
    /// 5 failures, 30 s to 300 s, half of the group.
    fn default() -> Self {
        Policy {
            consecutive_failures: 5,
            base: Duration::from_secs(30),
            max: Duration::from_secs(300),
            max_ratio: 0.5,
        }
    }
}

/// The group whose endpoints are ejected: one for each upstream.
#[derive(Debug, Default)]
pub struct Group {
    deciding: AtomicBool,
}

/// The group's endpoints when a decision is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// All that are enabled, this one included.
    pub endpoints: usize,
    /// Those of them that are ejected now.
    pub ejected: usize,
    /// Those other than this one that take traffic now: enabled, healthy, not ejected.
    pub others_in_service: usize,
}

/// Whether an endpoint is ejected, and how often it was. Not ejected when new.
#[derive(Debug, Default)]
pub struct Ejection {
    in_a_row: AtomicU32,
    times: AtomicU32,
    until: AtomicU64,
}

impl Ejection {
    /// Takes the result of an attempt. Ejects the endpoint when it failed too often in a row and the group
    /// can spare it, and gives until when. `census` is asked only then.
    pub fn record(
        &self,
        policy: &Policy,
        now: Moment,
        verdict: Verdict,
        group: &Group,
        census: impl FnOnce() -> Census,
    ) -> Option<Moment> {
        match verdict {
            Verdict::Ignored => return None,
            Verdict::Success => {
                // A load is cheaper than a store that every thread then has to fetch.
                if self.in_a_row.load(Ordering::Relaxed) > 0 {
                    self.in_a_row.store(0, Ordering::Relaxed);
                }
                return None;
            }
            Verdict::Failure => {}
        }
        // Failures of what was under way, or of panic mode, do not lengthen an ejection.
        if self.ejected(now) {
            return None;
        }
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if in_a_row < policy.consecutive_failures.max(1) {
            return None;
        }
        let _decision = Decision::begin(group)?;
        (!self.ejected(now) && spares_one_more(policy, census())).then(|| self.eject(policy, now))
    }

    /// Whether it is ejected at `now`.
    pub fn ejected(&self, now: Moment) -> bool {
        now < self.until()
    }

    /// Until when it is, or last was, ejected.
    pub fn until(&self) -> Moment {
        Moment(self.until.load(Ordering::Acquire))
    }

    /// Ends an ejection, because an active check passed. Whether there was one to end.
    pub fn clear(&self, now: Moment) -> bool {
        let until = self.until();
        self.in_a_row.store(0, Ordering::Relaxed);
        // Not to zero: how long ago the ejection ended matters for the next one.
        now < until
            && self.until.compare_exchange(until.0, now.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn eject(&self, policy: &Policy, now: Moment) -> Moment {
        let base = nanos(policy.base).max(1);
        let forgiven = u32::try_from(now.since(self.until()) / base).unwrap_or(u32::MAX);
        let times = self.times.load(Ordering::Relaxed).saturating_sub(forgiven).saturating_add(1);
        let length = base.saturating_mul(u64::from(times)).min(nanos(policy.max).max(base));
        let until = Moment(now.0.saturating_add(length));
        self.times.store(times, Ordering::Relaxed);
        self.in_a_row.store(0, Ordering::Relaxed);
        self.until.store(until.0, Ordering::Release);
        until
    }
}

fn spares_one_more(policy: &Policy, census: Census) -> bool {
    let most = (policy.max_ratio * census.endpoints as f64) as usize;
    policy.max_ratio > 0.0 && census.ejected < most.max(1) && census.others_in_service > 0
}

/// The right to decide for a group; given back when dropped, also by a panic of the caller's census.
struct Decision<'a>(&'a Group);

impl<'a> Decision<'a> {
    fn begin(group: &'a Group) -> Option<Decision<'a>> {
        let free = group.deciding.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed);
        free.is_ok().then_some(Decision(group))
    }
}

impl Drop for Decision<'_> {
    fn drop(&mut self) {
        self.0.deciding.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * SECOND)
    }

    const ROOMY: Census = Census { endpoints: 4, ejected: 0, others_in_service: 3 };

    fn fail(ejection: &Ejection, now: Moment, census: Census) -> Option<Moment> {
        ejection.record(&Policy::default(), now, Verdict::Failure, &Group::default(), || census)
    }

    fn eject(ejection: &Ejection, now: Moment) -> Moment {
        (0..4).for_each(|_| assert_eq!(fail(ejection, now, ROOMY), None));
        fail(ejection, now, ROOMY).unwrap()
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_starts_over() {
        let ejection = Ejection::default();
        (0..4).for_each(|_| assert_eq!(fail(&ejection, at(1), ROOMY), None));
        let group = Group::default();
        let ignored = ejection.record(&Policy::default(), at(1), Verdict::Ignored, &group, || ROOMY);
        let success = ejection.record(&Policy::default(), at(1), Verdict::Success, &group, || ROOMY);
        assert_eq!((ignored, success), (None, None));
        assert_eq!(eject(&ejection, at(1)), at(31));
        assert!(ejection.ejected(at(30)) && !ejection.ejected(at(31)));
    }

    #[test]
    fn each_ejection_is_longer_up_to_the_most_and_quiet_time_forgives() {
        let ejection = Ejection::default();
        let mut now = at(0);
        for times in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10] {
            let until = eject(&ejection, now);
            assert_eq!(until.since(now), times * 30 * SECOND);
            now = until;
        }
        // 12 ejections, 10 base times of quiet: the third again.
        now = now.after(Duration::from_secs(300));
        assert_eq!(eject(&ejection, now).since(now), 90 * SECOND);
    }

    #[test]
    fn the_last_endpoint_and_more_than_the_share_are_never_ejected() {
        let ejection = Ejection::default();
        for census in [
            Census { endpoints: 1, ejected: 0, others_in_service: 0 },
            Census { endpoints: 2, ejected: 0, others_in_service: 0 },
            Census { endpoints: 4, ejected: 2, others_in_service: 1 },
            Census { endpoints: 3, ejected: 1, others_in_service: 1 },
        ] {
            (0..20).for_each(|_| assert_eq!(fail(&ejection, at(1), census), None, "{census:?}"));
        }
        let two = Census { endpoints: 2, ejected: 0, others_in_service: 1 };
        assert_eq!(fail(&ejection, at(1), two), Some(at(31)), "as soon as the group can spare it");
        let off = Policy { max_ratio: 0.0, ..Policy::default() };
        let other = Ejection::default();
        for _ in 0..20 {
            assert_eq!(other.record(&off, at(1), Verdict::Failure, &Group::default(), || ROOMY), None);
        }
    }

    #[test]
    fn failures_while_ejected_do_not_count() {
        let ejection = Ejection::default();
        let until = eject(&ejection, at(0));
        (0..20).for_each(|_| assert_eq!(fail(&ejection, at(10), ROOMY), None));
        assert_eq!(ejection.until(), until);
        assert_eq!(fail(&ejection, at(30), ROOMY), None, "afterwards it starts from nothing");
    }

    #[test]
    fn a_passing_check_ends_an_ejection_once() {
        let ejection = Ejection::default();
        assert!(!ejection.clear(at(0)));
        eject(&ejection, at(0));
        assert!(ejection.clear(at(3)));
        assert!(!ejection.ejected(at(3)));
        assert!(!ejection.clear(at(4)));
        assert_eq!(eject(&ejection, at(5)), at(65), "but it is not forgotten");
    }

    #[test]
    fn threads_together_never_eject_more_than_the_share() {
        let group = Group::default();
        let endpoints: Vec<Ejection> = (0..4).map(|_| Ejection::default()).collect();
        let policy = Policy { consecutive_failures: 1, ..Policy::default() };
        let ejected = || endpoints.iter().filter(|endpoint| endpoint.ejected(at(1))).count();
        std::thread::scope(|scope| {
            for own in &endpoints {
                let census = || Census { endpoints: 4, ejected: ejected(), others_in_service: 3 };
                let (group, policy) = (&group, &policy);
                let fail = move |_: u32| {
                    own.record(policy, at(1), Verdict::Failure, group, census);
                };
                scope.spawn(move || (0..1000).for_each(fail));
            }
        });
        assert_eq!(ejected(), 2);
    }
}
