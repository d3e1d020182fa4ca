//! Moments: time as an argument.
//!
//! Promise: no operation overflows or panics; where two threads' clocks disagree, time between them is zero.

use std::time::Duration;

/// A moment of a monotonic clock: nanoseconds since an arbitrary start that all callers share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Nanoseconds from `earlier` to this moment; 0 when `earlier` is later.
    pub const fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `length` after this one; the last moment there is when that is beyond it.
    pub const fn after(self, length: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(length)))
    }

    /// The moment `length` before this one; the first moment there is when that is before it.
    pub const fn before(self, length: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(length)))
    }
}

/// A length of time in nanoseconds, saturating after 584 years.
pub(crate) const fn nanos(length: Duration) -> u64 {
    let nanos = length.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_saturate_at_both_ends() {
        assert_eq!(Moment(5).since(Moment(9)), 0);
        assert_eq!(Moment(9).since(Moment(5)), 4);
        assert_eq!(Moment(1).after(Duration::MAX), Moment(u64::MAX));
        assert_eq!(Moment(1).before(Duration::from_secs(1)), Moment(0));
        assert_eq!(Moment(7).after(Duration::from_nanos(3)), Moment(10));
    }
}
