//! What is remembered of the keys of all limiters, in bounded memory.
//!
//! Promise: a decision locks one of [`SHARDS`] small tables for some tens of nanoseconds; there is no lock for
//! all. A key is a keyed hash of 64 bits: the table knows no client. It grows with what it must remember, up to
//! its bound. There, what need not be remembered any more gives way, else, of the neighbours, what is nearest
//! to that: an attack with a million keys costs memory up to the bound, and the limits of those who have used
//! least of theirs.
//!
//! Each shard is an open-addressing table with linear probing over at most [`REACH`] slots. A slot that was
//! used is never empty again before the shard is built anew, only taken over, so a probe may end at an empty
//! one.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Entry;
use crate::Moment;

/// Parts that are locked on their own.
pub const SHARDS: usize = 64;

/// How far from its place a key may stand.
const REACH: usize = 64;

/// Slots of a shard that has any.
const SMALLEST: usize = 64;

/// One key and its entry. Key 0 is an empty slot.
#[derive(Clone, Copy)]
struct Slot<const WORDS: usize> {
    key: u64,
    entry: Entry<WORDS>,
}

impl<const WORDS: usize> Slot<WORDS> {
    const EMPTY: Slot<WORDS> = Slot { key: 0, entry: Entry::NEW };
}

/// Entries by key.
pub struct Table<const WORDS: usize> {
    shards: Box<[Mutex<Shard<WORDS>>]>,
    most: usize,
}

#[derive(Default)]
struct Shard<const WORDS: usize> {
    slots: Box<[Slot<WORDS>]>,
    used: usize,
}

/// Where a key's entry is, or could be.
enum Found {
    /// It is remembered, or there is room.
    At(usize),
    /// There would have to give way one that is still needed.
    Instead(usize),
}

impl<const WORDS: usize> fmt::Debug for Table<WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("slots", &self.slots()).finish_non_exhaustive()
    }
}

impl<const WORDS: usize> Table<WORDS> {
    /// A table that takes at most this many bytes, and none until it is used.
    pub fn new(bytes: usize) -> Table<WORDS> {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard { slots: Box::default(), used: 0 })).collect();
        let own = size_of::<Table<WORDS>>() + SHARDS * size_of::<Mutex<Shard<WORDS>>>();
        let most = bytes.saturating_sub(own) / size_of::<Slot<WORDS>>() / SHARDS;
        Table { shards, most: most.max(SMALLEST) }
    }

    /// Decides on a key: the entry is that of the key, or a new one; what `decide` leaves in it is remembered
    /// until it is fresh.
    #[inline]
    pub fn with<T>(&self, key: u64, now: Moment, decide: impl FnOnce(&mut Entry<WORDS>) -> T) -> T {
        // 0 marks an empty slot: its key shares the entries of key 1.
        let key = key.max(1);
        let mut shard = lock(&self.shards[(key % SHARDS as u64) as usize]);
        if let Some(place) = shard.find(key) {
            return decide(&mut shard.slots[place].entry);
        }
        let mut entry = Entry::NEW;
        let decided = decide(&mut entry);
        if entry.fresh_at > now {
            shard.remember(Slot { key, entry }, now, self.most);
        }
        decided
    }

    /// Bytes it takes now.
    pub fn bytes(&self) -> usize {
        let own = size_of::<Table<WORDS>>() + SHARDS * size_of::<Mutex<Shard<WORDS>>>();
        own + self.slots() * size_of::<Slot<WORDS>>()
    }

    /// Keys that must be remembered at this moment. Looks at every slot.
    pub fn live(&self, now: Moment) -> usize {
        let live = |shard: &Mutex<Shard<WORDS>>| {
            lock(shard).slots.iter().filter(|slot| slot.key != 0 && slot.entry.fresh_at > now).count()
        };
        self.shards.iter().map(live).sum()
    }

    fn slots(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).slots.len()).sum()
    }
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves it whole: every change is one store.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<const WORDS: usize> Shard<WORDS> {
    /// The slots where a key may stand, from its place on.
    #[inline]
    fn probe(&self, key: u64) -> impl Iterator<Item = usize> + use<WORDS> {
        let slots = self.slots.len();
        // The lowest bits chose the shard: the highest choose the place.
        let first = ((u128::from(key) * slots as u128) >> 64) as usize;
        (first..first + REACH.min(slots)).map(move |place| if place < slots { place } else { place - slots })
    }

    #[inline]
    fn find(&self, key: u64) -> Option<usize> {
        for place in self.probe(key) {
            match self.slots[place].key {
                found if found == key => return Some(place),
                0 => return None,
                _ => {}
            }
        }
        None
    }

    /// Where a key that is not there could stand.
    fn room(&self, key: u64, now: Moment) -> Option<Found> {
        let mut soonest: Option<(Moment, usize)> = None;
        for place in self.probe(key) {
            let slot = &self.slots[place];
            if slot.key == 0 || slot.entry.fresh_at <= now {
                return Some(Found::At(place));
            }
            if soonest.is_none_or(|(moment, _)| slot.entry.fresh_at < moment) {
                soonest = Some((slot.entry.fresh_at, place));
            }
        }
        soonest.map(|(_, place)| Found::Instead(place))
    }

    fn remember(&mut self, slot: Slot<WORDS>, now: Moment, most: usize) {
        let full = (self.used + 1) * 4 > self.slots.len() * 3;
        if full && self.slots.len() < most {
            self.grow(now, most);
        }
        if matches!(self.room(slot.key, now), Some(Found::Instead(_))) && self.slots.len() < most {
            self.grow(now, most);
        }
        self.put(slot, now);
    }

    fn put(&mut self, slot: Slot<WORDS>, now: Moment) {
        let Some(Found::At(place) | Found::Instead(place)) = self.room(slot.key, now) else { return };
        self.used += usize::from(self.slots[place].key == 0);
        self.slots[place] = slot;
    }

    /// Builds it anew with what must still be remembered; larger, when that is more than half of it.
    fn grow(&mut self, now: Moment, most: usize) {
        let live = self.slots.iter().filter(|slot| slot.key != 0 && slot.entry.fresh_at > now).count();
        let size = if live * 2 < self.slots.len() { self.slots.len() } else { self.slots.len() * 2 };
        let size = size.clamp(SMALLEST, most);
        let old = std::mem::replace(&mut self.slots, vec![Slot::EMPTY; size].into());
        self.used = 0;
        for slot in old.into_iter().filter(|slot| slot.key != 0 && slot.entry.fresh_at > now) {
            self.put(slot, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::limit::Permit;
    use crate::limit::bucket::Bucket;
    use std::time::Duration;

    const MIB: usize = 1024 * 1024;

    fn stay(until: u64) -> impl Fn(&mut Entry<1>) -> u64 {
        move |entry| {
            entry.fresh_at = Moment(until);
            entry.state[0] += 1;
            entry.state[0]
        }
    }

    #[test]
    fn a_million_live_keys_take_at_most_64_mib_and_none_is_forgotten() {
        let table = Table::<1>::new(64 * MIB);
        assert!(table.bytes() < 8192, "{}", table.bytes());
        let mut rng = Rng::new(7);
        let keys: Vec<u64> = (0..1_000_000).map(|_| rng.next()).collect();
        let now = Moment(1);
        keys.iter().for_each(|key| _ = table.with(*key, now, stay(1_000)));
        assert!(table.bytes() <= 64 * MIB, "{}", table.bytes());
        assert_eq!(table.live(now), keys.len());
        assert!(keys.iter().all(|key| table.with(*key, now, stay(1_000)) == 2));
    }

    #[test]
    fn more_keys_than_there_is_room_for_cost_no_more_memory() {
        let (table, mut rng) = (Table::<1>::new(MIB), Rng::new(7));
        let keys: Vec<u64> = (0..10_000).map(|_| rng.next()).collect();
        let now = Moment(1);
        keys.iter().for_each(|key| _ = table.with(*key, now, stay(1_000)));
        (0..100_000).for_each(|_| _ = table.with(rng.next(), now, stay(900)));
        assert!(table.bytes() <= MIB, "{}", table.bytes());
        let kept = keys.iter().filter(|key| table.with(**key, now, |entry| entry.state[0]) == 1).count();
        assert_eq!(kept, keys.len(), "the others are nearer to being fresh");
        // Later all of it may be taken over.
        (0..10_000).for_each(|_| _ = table.with(rng.next(), Moment(2_000), stay(3_000)));
        assert_eq!(table.live(Moment(2_000)), 10_000);
        assert!(table.bytes() <= MIB, "{}", table.bytes());
    }

    #[test]
    fn what_is_fresh_is_not_remembered() {
        let table = Table::<1>::new(MIB);
        let empty = table.bytes();
        table.with(5, Moment(10), stay(10));
        assert_eq!(table.bytes(), empty);
        table.with(5, Moment(10), stay(11));
        assert!(table.bytes() > empty);
        assert_eq!((table.live(Moment(10)), table.live(Moment(11))), (1, 0));
        // The two keys that would mark an empty slot.
        assert_eq!((table.with(0, Moment(1), stay(99)), table.with(1, Moment(1), stay(99))), (1, 2));
    }

    #[test]
    fn a_shard_full_of_keys_lets_the_one_give_way_that_is_nearest_to_fresh() {
        let table = Table::<1>::new(0);
        // All in one shard of 64 slots.
        let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) / 64 * 64 + 3;
        for number in 1..200 {
            table.with(key(number), Moment(1), stay(1_000 + number));
        }
        assert!(table.live(Moment(1)) <= SMALLEST);
        table.with(key(500), Moment(1), stay(5));
        assert_eq!(table.with(key(500), Moment(1), |entry| entry.state[0]), 1);
    }

    #[test]
    fn threads_admit_together_what_one_would() {
        let (table, bucket) = (Table::<1>::new(MIB), Bucket::new(1, Duration::from_secs(1), 1_000));
        let admitted: usize = std::thread::scope(|scope| {
            let ask = || {
                let ask = |_: &u64| table.with(42, Moment(1), |entry| bucket.decide(entry, Moment(1)));
                (0..1_000).filter(|number| ask(number).permit == Permit::Now).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1_000);
    }
}
