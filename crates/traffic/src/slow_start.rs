//! Slow start: an endpoint that just came back takes a growing share of its weight.
//!
//! Cold caches and unfilled pools make a first full second expensive. The share grows linearly from 10 %
//! (Envoy's minimum) to all. It never applies when the process starts: then every endpoint would be in it and
//! their proportions are what counts.

use std::time::Duration;

use crate::clock::nanos;

/// The share an endpoint starts with.
pub const FLOOR: f64 = 0.1;

/// The share of its weight that an endpoint takes `since_up` nanoseconds after it came back, from [`FLOOR`]
/// up to one. `None` means that it did not come back: it is up since the process started, or since its
/// upstream was configured. A `window` of zero turns slow start off.
pub fn share(since_up: Option<u64>, window: Duration) -> f64 {
    let window = nanos(window);
    match since_up {
        Some(since_up) if since_up < window => FLOOR + (1.0 - FLOOR) * (since_up as f64 / window as f64),
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_from_a_tenth_to_all_within_the_window() {
        let window = Duration::from_secs(10);
        assert_eq!(share(Some(0), window), 0.1);
        assert!((share(Some(5_000_000_000), window) - 0.55).abs() < 1e-9);
        assert_eq!(share(Some(10_000_000_000), window), 1.0);
        assert_eq!(share(Some(u64::MAX), window), 1.0);
    }

    #[test]
    fn there_is_no_slow_start_at_process_start_or_without_a_window() {
        assert_eq!(share(None, Duration::from_secs(10)), 1.0);
        assert_eq!(share(Some(0), Duration::ZERO), 1.0);
    }
}
