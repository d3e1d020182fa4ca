//! How many requests may run at once, learnt from how long they take.
//!
//! The gradient algorithm (Netflix concurrency-limits, "Gradient2"): the time requests take lately is compared
//! with the time they took over a long while. As long as they are alike the limit grows by a little room for a
//! queue; when requests take longer it shrinks in proportion, by half at most; a request that was dropped
//! counts as one that took twice as long.
//!
//! Promise: the limit stays between its bounds; it does not grow while it is not used; with traffic that
//! takes the same time always it settles where it is used; after a slow time it comes back.

use std::time::Duration;

/// What is known of the requests of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How long they took on average.
    pub average: Duration,
    /// The most that ran at once.
    pub in_flight: u32,
    /// Whether one was dropped: it timed out, or was refused further on.
    pub dropped: Dropped,
}

/// Whether a request of the window was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dropped {
    /// None was.
    #[default]
    None,
    /// At least one.
    Some,
}

/// The bounds of a limit and how careful it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Never fewer; at least 1.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// Where it starts.
    pub initial: u32,
    /// How many times longer than usual requests may take before the limit shrinks; at least 1.
    pub tolerance: f64,
}

impl Default for Policy {
    /// 10 to 1000 from 50, half as long again.
    fn default() -> Policy {
        Policy { min: 10, max: 1000, initial: 50, tolerance: 1.5 }
    }
}

/// A limit that adapts.
#[derive(Clone, Debug)]
pub struct Gradient {
    policy: Policy,
    limit: f64,
    /// What requests take over a long while, in nanoseconds.
    usual: Option<f64>,
}

/// How many windows it takes to learn that requests take longer: longer than any overload should last, or it
/// would be taken for usual.
const SLOWER: f64 = 1000.0;
/// And that they take less.
const FASTER: f64 = 20.0;
/// How much of a new estimate is taken.
const SMOOTHING: f64 = 0.2;

impl Gradient {
    /// A limit at its start.
    pub fn new(policy: Policy) -> Gradient {
        let limit = bounded(f64::from(policy.initial), policy);
        Gradient { policy, limit, usual: None }
    }

    /// Changes the bounds; what was learnt stays.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.limit = bounded(self.limit, policy);
    }

    /// The limit.
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Learns from a window, and gives the limit from now on.
    pub fn update(&mut self, sample: Sample) -> u32 {
        let took = (sample.average.as_nanos() as f64).max(1.0);
        let usual = match self.usual {
            None => took,
            Some(usual) => usual + (took - usual) / if took > usual { SLOWER } else { FASTER },
        };
        self.usual = Some(usual);
        let gradient = match sample.dropped {
            Dropped::Some => 0.5,
            Dropped::None => (self.policy.tolerance * usual / took).clamp(0.5, 1.0),
        };
        if gradient >= 1.0 && f64::from(sample.in_flight) < self.limit / 2.0 {
            // Nobody asks for more: nothing is known about more.
            return self.limit();
        }
        let target = self.limit * gradient + self.limit.sqrt();
        let target = if sample.dropped == Dropped::Some { target.min(self.limit * 0.9) } else { target };
        self.limit = bounded(self.limit + (target - self.limit) * SMOOTHING, self.policy);
        self.limit()
    }
}

fn bounded(limit: f64, policy: Policy) -> f64 {
    let min = f64::from(policy.min.max(1));
    limit.clamp(min, f64::from(policy.max).max(min))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(millis: f64, in_flight: u32) -> Sample {
        let average = Duration::from_secs_f64(millis / 1000.0);
        Sample { average, in_flight, dropped: Dropped::None }
    }

    /// A server that works on `capacity` requests at once, `millis` each; the others wait in it. Clients send
    /// whatever the limit lets through.
    fn run(gradient: &mut Gradient, capacity: f64, millis: f64, windows: usize) -> u32 {
        for _ in 0..windows {
            let running = gradient.limit();
            let took = millis * (f64::from(running) / capacity).max(1.0);
            gradient.update(window(took, running));
        }
        gradient.limit()
    }

    #[test]
    fn it_finds_what_a_server_bears() {
        let policy = Policy { initial: 10, min: 1, max: 10_000, tolerance: 1.5 };
        let mut gradient = Gradient::new(policy);
        let limit = run(&mut gradient, 100.0, 10.0, 200);
        assert!((140..200).contains(&limit), "{limit}");
        // Half of the server is gone, and what is left works no faster.
        let limit = run(&mut gradient, 20.0, 10.0, 60);
        assert!((20..60).contains(&limit), "{limit}");
    }

    #[test]
    fn it_does_not_grow_unused_and_comes_back_after_a_slow_time() {
        let mut gradient = Gradient::new(Policy::default());
        for _ in 0..1000 {
            gradient.update(window(10.0, 5));
        }
        assert_eq!(gradient.limit(), 50);
        for _ in 0..30 {
            gradient.update(window(100.0, gradient.limit()));
        }
        let slow = gradient.limit();
        assert!(slow < 40, "{slow}");
        for _ in 0..200 {
            gradient.update(window(10.0, gradient.limit()));
        }
        assert!(gradient.limit() > 100, "{}", gradient.limit());
    }

    #[test]
    fn drops_shrink_it_to_its_least() {
        let mut gradient = Gradient::new(Policy { min: 3, ..Policy::default() });
        for _ in 0..500 {
            gradient.update(Sample { dropped: Dropped::Some, ..window(10.0, 50) });
        }
        assert_eq!(gradient.limit(), 3);
    }

    proptest! {
        /// Whatever comes, the limit stays within its bounds and no step more than halves it.
        #[test]
        fn it_stays_within_its_bounds(
            samples in prop::collection::vec((0u64..10_000_000_000, 0u32..10_000, any::<bool>()), 0..300),
            (min, more, initial) in (0u32..50, 0u32..1000, 0u32..2000),
        ) {
            let policy = Policy { min, max: min + more, initial, tolerance: 1.5 };
            let mut gradient = Gradient::new(policy);
            for (nanos, in_flight, dropped) in samples {
                let before = gradient.limit();
                let dropped = if dropped { Dropped::Some } else { Dropped::None };
                let limit = gradient.update(Sample { average: Duration::from_nanos(nanos), in_flight, dropped });
                prop_assert!((min.max(1)..=policy.max.max(min.max(1))).contains(&limit));
                prop_assert!(limit + 1 >= before / 2);
            }
        }
    }
}
