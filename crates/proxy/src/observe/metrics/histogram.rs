//! A histogram of durations with fixed buckets.
//!
//! Promise: recording is one search in sixteen bounds and two plain stores; merging is addition, because
//! every histogram has the same bounds.

use std::time::Duration;

use super::cells::Counter;

/// Upper bounds of the buckets, in microseconds: from 100 us to 10 s. One more bucket takes what is longer.
pub const BOUNDS_MICROS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

/// Durations one worker saw.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    nanos: Counter,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [const { Counter::new() }; BUCKETS], nanos: Counter::new() }
    }
}

impl Histogram {
    /// Counts one duration. Only the worker that owns the cells may call it.
    #[inline]
    pub fn record(&self, duration: Duration) {
        // Rounded up, so that a bucket never holds what is longer than its bound.
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let micros = nanos.div_ceil(1_000);
        self.buckets[BOUNDS_MICROS.partition_point(|bound| *bound < micros)].add(1);
        self.nanos.add(nanos);
    }
}

/// The sum of the histograms of all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    buckets: [u64; BUCKETS],
    nanos: u64,
}

impl Merged {
    /// Adds what one worker saw.
    pub fn add(&mut self, part: &Histogram) {
        for (sum, cell) in self.buckets.iter_mut().zip(&part.buckets) {
            *sum += cell.get();
        }
        self.nanos = self.nanos.wrapping_add(part.nanos.get());
    }

    /// How many durations. It is the sum of the buckets, so it always equals the last cumulative bucket.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of the durations, in seconds.
    pub fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// Each bound in seconds with the number of durations up to it; the last bound is infinite.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(&self.buckets).scan(0, |sum, (bound, bucket)| {
            *sum += bucket;
            Some((bound, *sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(durations: &[Duration]) -> Merged {
        let (histogram, mut merged) = (Histogram::default(), Merged::default());
        for duration in durations {
            histogram.record(*duration);
        }
        merged.add(&histogram);
        merged
    }

    #[test]
    fn a_duration_counts_in_every_bucket_whose_bound_it_does_not_exceed() {
        let cases = [
            (Duration::ZERO, 0.0001),
            (Duration::from_micros(100), 0.0001),
            (Duration::from_nanos(100_001), 0.00025),
            (Duration::from_millis(1), 0.001),
            (Duration::from_micros(1_001), 0.0025),
            (Duration::from_secs(10), 10.0),
            (Duration::from_nanos(10_000_000_001), f64::INFINITY),
            (Duration::MAX, f64::INFINITY),
        ];
        for (duration, expected) in cases {
            let merged = merged(&[duration]);
            let first = merged.cumulative().find(|(_, count)| *count > 0).unwrap();
            assert_eq!(first, (expected, 1), "{duration:?}");
            assert_eq!(merged.count(), 1);
        }
    }

    #[test]
    fn merging_adds_counts_and_seconds() {
        let mut all = merged(&[Duration::from_millis(1), Duration::from_millis(20)]);
        let second = Histogram::default();
        second.record(Duration::from_secs(60));
        all.add(&second);
        assert_eq!(all.count(), 3);
        assert!((all.seconds() - 60.021).abs() < 1e-9);
        let cumulative: Vec<_> = all.cumulative().collect();
        assert_eq!(cumulative.len(), 17);
        assert_eq!(cumulative[16], (f64::INFINITY, 3));
        assert!(cumulative.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }
}
