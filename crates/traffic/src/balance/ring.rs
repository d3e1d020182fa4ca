//! The ring of `ring_hash` and `bounded_hash`: every endpoint owns points on a circle of 64-bit numbers, a
//! key belongs to the owner of the first point at or after its hash (Karger et al. 1997; ketama's many
//! points).
//!
//! Points are XXH3 of the endpoint's key, seeded with the point's number. The lightest endpoint has the
//! configured number of points and heavier ones proportionally more, so that an endpoint's points do not
//! depend on the others as long as the smallest weight stays.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Member;
use super::keyed::Keyed;

/// Points of the lightest endpoint unless configured: ketama's.
pub(super) const POINTS: u32 = 160;
const LEAST_POINTS: u32 = 100;
const MOST_POINTS: u32 = 10_000;
/// Points of all endpoints, 3 MiB; with more wanted, everyone has proportionally fewer, but one at least.
const ALL_POINTS: u64 = 1 << 18;
/// Points looked at before the walk is given up: nearly all endpoints are unavailable or full.
const STEPS: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// Sorted.
    points: Arc<[u64]>,
    owners: Arc<[u32]>,
}

impl Ring {
    pub(super) fn new(points: u32, members: &[Member<'_>], keyed: &Keyed) -> Ring {
        let points = u64::from(points.clamp(LEAST_POINTS, MOST_POINTS));
        let lightest =
            members.iter().map(|member| member.weight).filter(|weight| *weight > 0).min().unwrap_or(1);
        // Beyond 2^32 to 1 proportions stop mattering, and sums could overflow.
        let wanted =
            |member: &Member<'_>| (points * u64::from(member.weight) / u64::from(lightest)).min(1 << 32);
        let all: u64 = members.iter().map(wanted).sum();
        let mut ring: Vec<(u64, u32)> = Vec::with_capacity(all.min(ALL_POINTS) as usize);
        for (member, at) in members.iter().zip(0..).filter(|(member, _)| member.weight > 0) {
            let wanted = wanted(member);
            let count = if all <= ALL_POINTS { wanted } else { (wanted * ALL_POINTS / all).max(1) };
            ring.extend((0..count).map(|number| (xxh3_64_with_seed(member.key.as_bytes(), number), at)));
        }
        // By key where points collide: positions must not matter.
        ring.sort_unstable_by_key(|&(point, at)| (point, keyed.seed(at as usize)));
        Ring {
            points: ring.iter().map(|&(point, _)| point).collect(),
            owners: ring.iter().map(|&(_, at)| at).collect(),
        }
    }

    /// The owner of the first point from `hash` on that `accepts`; `None` when the walk finds none soon.
    pub(super) fn walk(&self, hash: u64, accepts: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.points.partition_point(|&point| point < hash);
        let (before, after) = self.owners.split_at(start);
        let mut refused = None;
        for &owner in after.iter().chain(before).take(STEPS) {
            if refused != Some(owner) && accepts(owner as usize) {
                return Some(owner as usize);
            }
            refused = Some(owner);
        }
        None
    }
}

/// Reads `points` and checks its range.
pub(super) fn points<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let points = u32::deserialize(from)?;
    if !(LEAST_POINTS..=MOST_POINTS).contains(&points) {
        return Err(serde::de::Error::custom(format!(
            "{points} is not a number of points between {LEAST_POINTS} and {MOST_POINTS}"
        )));
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(points: u32, weights: &[u32]) -> Vec<usize> {
        let keys: Vec<String> = (0..weights.len()).map(|at| format!("10.0.0.{at}:80")).collect();
        let members: Vec<_> = keys.iter().zip(weights).map(|(key, &weight)| Member { key, weight }).collect();
        let ring = Ring::new(points, &members, &Keyed::new(&members));
        assert!(ring.points.is_sorted());
        (0..weights.len())
            .map(|at| ring.owners.iter().filter(|owner| **owner as usize == at).count())
            .collect()
    }

    #[test]
    fn points_follow_weights_from_the_lightest_up() {
        assert_eq!(counts(160, &[1, 3, 0, 2]), [160, 480, 0, 320]);
        assert_eq!(counts(160, &[50, 50]), [160, 160]);
        assert_eq!(counts(1, &[1]), [100], "never fewer than promised");
        assert_eq!(counts(160, &[0, 0]), [0, 0]);
    }

    #[test]
    fn the_ring_stays_small_whatever_the_weights() {
        let counts = counts(10_000, &[1, u32::MAX, u32::MAX]);
        assert_eq!(counts[0], 1);
        assert!(counts.iter().sum::<usize>() as u64 <= ALL_POINTS + 3, "{counts:?}");
    }
}
