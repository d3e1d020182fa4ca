//! `maglev`: the same key goes to the same endpoint, by a table (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Every endpoint fills slots of a table of prime size in the order of a permutation of its own, in turns
//! proportional to its weight. The evenest of the hash balancers, and a pick is one look-up; a change of
//! membership moves the keys that must move and a few per cent more, the fewer the larger the table.
//!
//! A key whose endpoint is unavailable is looked up again with a second hash, and so on, so the others share
//! its keys by weight, and it gets them back. The table itself never depends on availability.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::keyed::Keyed;
use super::{Balance, Member, View, takes};
use crate::Rng;
use crate::rng::mix;

/// Looks into the table before it is given up: nearly all endpoints are unavailable.
const LOOKS: u32 = 32;
const LARGEST: u32 = 5_000_011;

/// Options of `maglev`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Config {
    /// Slots of the table, a prime up to 5000011, best a hundred times the number of endpoints; 4 bytes each.
    /// Default 65537.
    #[serde(deserialize_with = "table")]
    #[schemars(range(min = 2, max = 5_000_011))]
    pub table: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config { table: 65_537 }
    }
}

fn table<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let size = u32::deserialize(from)?;
    if size > LARGEST {
        return Err(serde::de::Error::custom(format!("{size} is more than {LARGEST}")));
    }
    if !is_prime(size) {
        let next = next_prime(size);
        return Err(serde::de::Error::custom(format!("{size} is not a prime; the next one is {next}")));
    }
    Ok(size)
}

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

fn next_prime(from: u32) -> u32 {
    (from..=LARGEST).find(|&n| is_prime(n)).unwrap_or(LARGEST)
}

/// The same key to the same endpoint, by a table.
#[derive(Clone, Debug)]
pub struct Maglev {
    keyed: Keyed,
    /// Empty when nobody has weight.
    table: Arc<[u32]>,
}

/// An endpoint's way through the table while it is filled.
struct Filler {
    member: u32,
    weight: u64,
    /// It has its turn when the rounds so far times its weight reach this.
    due: u64,
    slot: u32,
    skip: u32,
}

const FREE: u32 = u32::MAX;

impl Balance for Maglev {
    type Config = Config;
    const NEEDS_HASH: bool = true;

    fn new(config: &Config, members: &[Member<'_>]) -> Self {
        let keyed = Keyed::new(members);
        // A slot for everybody; the same table as configured unless there are that many.
        let size = next_prime(config.table.max(members.len().min(LARGEST as usize) as u32));
        Maglev { table: fill(size, members, &keyed).into(), keyed }
    }

    fn pick<V: View>(&mut self, view: &V, hash: u64, _rng: &mut Rng) -> Option<usize> {
        let mut look = hash;
        for _ in 0..LOOKS {
            let slot = (u128::from(look) * self.table.len() as u128) >> 64;
            let at = *self.table.get(slot as usize)? as usize;
            if self.keyed.stays(view, at, hash) {
                return Some(at);
            }
            look = mix(look.wrapping_add(0x9e37_79b9_7f4a_7c15));
        }
        self.keyed.rendezvous(hash, |at| takes(view, at).then(|| view.weight(at)))
    }
}

fn fill(size: u32, members: &[Member<'_>], keyed: &Keyed) -> Vec<u32> {
    let mut fillers: Vec<Filler> = members
        .iter()
        .zip(0..)
        .filter(|(member, _)| member.weight > 0)
        .map(|(member, at)| {
            let seed = keyed.seed(at as usize);
            let slot = (seed % u64::from(size)) as u32;
            let skip = (mix(seed) % u64::from((size - 1).max(1))) as u32 + 1;
            Filler { member: at, weight: u64::from(member.weight), due: 0, slot, skip }
        })
        .collect();
    // By key, not by position.
    fillers.sort_by_key(|filler| keyed.seed(filler.member as usize));
    let Some(heaviest) = fillers.iter().map(|filler| filler.weight).max() else { return Vec::new() };
    let mut table = vec![FREE; size as usize];
    let mut free = size;
    let mut round = 0;
    while free > 0 {
        round += 1;
        for filler in &mut fillers {
            if free == 0 || round * filler.weight < filler.due {
                continue;
            }
            filler.due += heaviest;
            while table[filler.slot as usize] != FREE {
                filler.slot = (filler.slot + filler.skip) % size;
            }
            table[filler.slot as usize] = filler.member;
            free -= 1;
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(size: u32, weights: &[u32]) -> Vec<usize> {
        let keys: Vec<String> = (0..weights.len()).map(|at| format!("10.0.0.{at}:80")).collect();
        let members: Vec<_> = keys.iter().zip(weights).map(|(key, &weight)| Member { key, weight }).collect();
        let table = Maglev::new(&Config { table: size }, &members).table;
        (0..weights.len()).map(|at| table.iter().filter(|slot| **slot as usize == at).count()).collect()
    }

    #[test]
    fn slots_are_shared_by_weight_to_within_one_round() {
        let equal = slots(1009, &[1; 7]);
        assert!(equal.iter().all(|count| (144..=145).contains(count)), "{equal:?}");
        let weighted = slots(1009, &[4, 2, 1, 0]);
        assert!(
            weighted[0].abs_diff(1009 * 4 / 7) <= 2 && weighted[1].abs_diff(1009 * 2 / 7) <= 2,
            "{weighted:?}"
        );
        assert_eq!(weighted[3], 0);
    }

    #[test]
    fn odd_sizes_and_weights_still_fill_the_table() {
        assert_eq!(slots(2, &[1, 1]).iter().sum::<usize>(), 2);
        assert_eq!(slots(2, &[1; 9]).iter().sum::<usize>(), 11, "the next prime with a slot for each");
        assert!(slots(2, &[1; 9]).iter().all(|count| *count >= 1));
        assert!(slots(251, &[u32::MAX, 1])[1] >= 1);
        assert_eq!(slots(251, &[0, 0]), [0, 0]);
    }

    #[test]
    fn primes_are_told_from_others() {
        assert!([2, 3, 5, 251, 1009, 65_521, 65_537, LARGEST].iter().all(|&n| is_prime(n)));
        assert!([0, 1, 4, 9, 65_536, 65_535, 5_000_010].iter().all(|&n| !is_prime(n)));
        assert_eq!(next_prime(65_536), 65_537);
        assert_eq!(next_prime(u32::MAX), LARGEST);
    }
}
