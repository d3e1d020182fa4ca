//! Peak EWMA: an estimate of an endpoint's latency that jumps up at once and comes down slowly.
//!
//! After Finagle's `PeakEwma`: a sample above the estimate replaces it; below, the estimate moves towards the
//! sample by exp(-elapsed / tau); without samples it decays towards zero, so that a slow endpoint is tried
//! again.
//!
//! Promise: shared by threads without a lock. Estimate and time stand in one word, so a reader never sees the
//! one without the other and no sample is lost to a race. Time is kept in steps of 2^20 ns (1.05 ms), which
//! wrap after 52 days; samples within one step can only raise the estimate.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::Moment;
use crate::clock::nanos;

const STEP_BITS: u32 = 20;
/// A sample up to this many steps (68 s) "before" the last one comes from a thread whose clock is behind.
const SKEW: u32 = 1 << 16;

/// An endpoint's latency, as a peak-sensitive moving average.
#[derive(Debug)]
pub struct PeakEwma {
    /// High half: step of the last sample. Low half: the estimate in nanoseconds, as the bits of an `f32`.
    word: AtomicU64,
    /// Steps in which an estimate falls to 1/e.
    tau: f64,
}

impl Default for PeakEwma {
    /// With Finagle's decay time of 10 s.
    fn default() -> Self {
        PeakEwma::new(Duration::from_secs(10))
    }
}

impl PeakEwma {
    /// An estimate of zero, "no sample yet", that falls to 1/e in `tau`.
    pub const fn new(tau: Duration) -> PeakEwma {
        let steps = nanos(tau) as f64 / (1_u64 << STEP_BITS) as f64;
        PeakEwma { word: AtomicU64::new(0), tau: steps.max(1.0) }
    }

    /// Takes a sample: an answer that took `rtt_ns` nanoseconds.
    pub fn observe(&self, now: Moment, rtt_ns: u64) {
        let rtt = rtt_ns as f64;
        let advance = |word| {
            let (stamp, estimate) = unpack(word);
            // "No sample yet" has no time either.
            let elapsed = if estimate > 0.0 { elapsed(stamp, now) } else { step(now).wrapping_sub(stamp) };
            let kept = self.kept(elapsed);
            let next = if rtt >= estimate { rtt } else { rtt * (1.0 - kept) + estimate * kept };
            Some(pack(stamp.wrapping_add(elapsed), next))
        };
        // The closure always gives a word, so this cannot fail.
        let _ = self.word.fetch_update(Relaxed, Relaxed, advance);
    }

    /// The estimate at `now`, in nanoseconds; 0 before the first sample.
    pub fn value(&self, now: Moment) -> f64 {
        let (stamp, estimate) = unpack(self.word.load(Relaxed));
        estimate * self.kept(elapsed(stamp, now))
    }

    /// The share of an estimate that is left after `steps`.
    fn kept(&self, steps: u32) -> f64 {
        if steps == 0 { 1.0 } else { (-f64::from(steps) / self.tau).exp() }
    }
}

const fn step(now: Moment) -> u32 {
    (now.0 >> STEP_BITS) as u32
}

const fn elapsed(stamp: u32, now: Moment) -> u32 {
    let steps = step(now).wrapping_sub(stamp);
    if steps > u32::MAX - SKEW { 0 } else { steps }
}

const fn pack(stamp: u32, estimate: f64) -> u64 {
    (stamp as u64) << 32 | (estimate as f32).to_bits() as u64
}

const fn unpack(word: u64) -> (u32, f64) {
    ((word >> 32) as u32, f32::from_bits(word as u32) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MS;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 0.01 * b.abs()
    }

    #[test]
    fn it_jumps_to_a_peak_and_comes_down_by_e_per_tau() {
        let latency = PeakEwma::new(Duration::from_secs(10));
        assert_eq!(latency.value(Moment(SECOND)), 0.0);
        latency.observe(Moment(SECOND), 10 * MS);
        assert!(close(latency.value(Moment(SECOND)), 10e6));
        latency.observe(Moment(SECOND), 80 * MS);
        assert!(close(latency.value(Moment(SECOND)), 80e6), "a peak counts at once");
        assert!(close(latency.value(Moment(11 * SECOND)), 80e6 / std::f64::consts::E));
        latency.observe(Moment(11 * SECOND), 10 * MS);
        let kept = (-1.0_f64).exp();
        assert!(close(latency.value(Moment(11 * SECOND)), 10e6 * (1.0 - kept) + 80e6 * kept));
    }

    #[test]
    fn many_fast_samples_bring_it_down_to_them() {
        let latency = PeakEwma::default();
        latency.observe(Moment(0), SECOND);
        for at in 0..100_000 {
            latency.observe(Moment(at * MS), 5 * MS);
        }
        assert!(close(latency.value(Moment(100 * SECOND)), 5e6));
    }

    #[test]
    fn a_clock_that_is_behind_neither_decays_nor_rewinds() {
        let latency = PeakEwma::default();
        latency.observe(Moment(60 * SECOND), 50 * MS);
        assert!(close(latency.value(Moment(59 * SECOND)), 50e6));
        latency.observe(Moment(59 * SECOND), MS);
        assert!(close(latency.value(Moment(60 * SECOND)), 50e6));
    }

    #[test]
    fn the_first_sample_counts_at_any_time_since_start() {
        for days in [0, 30, 60, 400] {
            let now = Moment(days * 86_400 * SECOND);
            let latency = PeakEwma::default();
            latency.observe(now, 7 * MS);
            assert!(close(latency.value(now), 7e6), "{days} days");
        }
    }
}
