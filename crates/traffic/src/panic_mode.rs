//! Panic mode: when most of a group looks dead, our view of it is the likelier fault.
//!
//! Sending everything to the few that look well would overload them too, so the group is used whole
//! (Envoy's panic threshold; its default is 50 %).

/// Whether a group with `available` of `total` endpoints is in panic: fewer than `threshold` (0 to 1) of them
/// are available. A threshold of 0 never panics; a group without endpoints never does.
pub fn panicking(available: usize, total: usize, threshold: f64) -> bool {
    total > 0 && (available as f64) < threshold * total as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_panics_below_its_threshold_and_not_at_it() {
        assert!(!panicking(5, 10, 0.5));
        assert!(panicking(4, 10, 0.5));
        assert!(panicking(0, 1, 0.5));
        assert!(!panicking(0, 10, 0.0));
        assert!(!panicking(0, 0, 0.5));
        assert!(!panicking(10, 10, 1.0));
    }
}
