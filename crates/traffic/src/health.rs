//! Health by active checks: a run of results flips it, one odd result does not.
//!
//! The checks themselves are the caller's; this counts their results (HAProxy's rise and fall).

use std::time::Duration;

use crate::Rng;

/// What active checks say of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not known yet: checks are configured, none has answered.
    #[default]
    Unknown,
    /// It passes its checks, or has none.
    Healthy,
    /// It fails its checks.
    Unhealthy,
}

/// Counts the results of an endpoint's checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracker {
    health: Health,
    /// Results in a row that contradict `health`.
    against: u32,
}

impl Tracker {
    /// A tracker that starts from `initial`; after a reload, from the health before it.
    pub const fn new(initial: Health) -> Tracker {
        Tracker { health: initial, against: 0 }
    }

    /// What the checks say so far.
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Takes one result. `rise` passes in a row make an unhealthy endpoint healthy, `fall` failures in a row
    /// a healthy one unhealthy (0 counts as 1); from [`Health::Unknown`] the first result decides, so that a
    /// start is not delayed. Gives the new health when it changed.
    pub fn observe(&mut self, ok: bool, rise: u32, fall: u32) -> Option<Health> {
        let (seen, needed) = match (self.health, ok) {
            (Health::Unknown, true) => (Health::Healthy, 1),
            (Health::Unknown, false) => (Health::Unhealthy, 1),
            (_, true) => (Health::Healthy, rise.max(1)),
            (_, false) => (Health::Unhealthy, fall.max(1)),
        };
        if seen == self.health {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        *self = Tracker::new(seen);
        Some(seen)
    }
}

/// `interval` give or take up to 10 %, so that checks of many endpoints and gateways do not march in step.
pub fn jitter(interval: Duration, rng: &mut Rng) -> Duration {
    interval.mul_f64(0.9).saturating_add(interval.mul_f64(0.2 * rng.ratio()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rise_and_fall_need_results_in_a_row() {
        let mut tracker = Tracker::new(Health::Healthy);
        let results = [false, false, true, false, false, false, true, false, true, true];
        let changes: Vec<_> = results.iter().map(|&ok| tracker.observe(ok, 2, 3)).collect();
        assert_eq!(changes[..5], [None; 5], "two failures, a pass, two failures");
        assert_eq!(changes[5], Some(Health::Unhealthy));
        assert_eq!(changes[6..9], [None; 3]);
        assert_eq!(changes[9], Some(Health::Healthy));
        assert_eq!(tracker.health(), Health::Healthy);
    }

    #[test]
    fn the_first_result_decides_when_nothing_is_known() {
        assert_eq!(Tracker::new(Health::Unknown).observe(true, 9, 9), Some(Health::Healthy));
        assert_eq!(Tracker::new(Health::Unknown).observe(false, 9, 9), Some(Health::Unhealthy));
    }

    #[test]
    fn a_threshold_of_zero_counts_as_one() {
        assert_eq!(Tracker::new(Health::Healthy).observe(false, 0, 0), Some(Health::Unhealthy));
    }

    #[test]
    fn jitter_stays_within_ten_percent_and_varies() {
        let mut rng = Rng::new(3);
        let second = Duration::from_secs(1);
        let drawn: Vec<_> = (0..1000).map(|_| jitter(second, &mut rng)).collect();
        assert!(drawn.iter().all(|d| (900..=1100).contains(&d.as_millis())));
        assert!(drawn.iter().any(|d| d.as_millis() < 920) && drawn.iter().any(|d| d.as_millis() > 1080));
    }
}
