//! What is remembered of the keys of all limiters, in bounded memory.
//!
//! Promise: a decision locks one of [`SHARDS`] small tables for some tens of nanoseconds; there is no lock for
//! all. A key is a keyed hash of 64 bits: the table knows no client. It grows with what it must remember, up to
//! its bound, and 0.97 of that can be used. There, what need not be remembered any more gives way, else, of the
//! neighbours, what is nearest to that: an attack with a million keys costs memory up to the bound, one or two
//! microseconds for each, and the limits of those who have used least of theirs.
//!
//! Each shard is a cuckoo table (Pagh, Rodler: "Cuckoo hashing", 2004) with buckets of [`WAYS`] keys
//! (Dietzfelbinger, Weidling: "Balanced allocation and dictionaries with tightly packed constant size bins", 2007):
//! a key stands in one of two buckets that follow from it, so a search looks at two and no more. Where both are
//! full, one of those in them moves to its other bucket; nobody has to move twice, which bounds the cost of a new
//! key. That is enough, since new keys go to the emptier of two buckets that fill.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Entry;
use crate::Moment;

/// Parts that are locked on their own.
pub const SHARDS: usize = 64;

/// Keys of a bucket.
const WAYS: usize = 16;

/// Up to so many a new key goes to its first bucket, where the next search looks first; then to the emptier.
const HALF: usize = WAYS / 2;

/// Buckets of a shard that has any.
const SMALLEST: usize = 4;

/// Multiplies a key to find its second bucket: odd, and its bits are even and without a pattern.
const SECOND: u64 = 0xd6e8_feb8_6659_fd93;

/// Entries, each part of them together: a search reads two cache lines, and who looks for room two others. A slot
/// that is free has what it had, or, never used, key 0; it became fresh in the past.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket<const WORDS: usize> {
    keys: [u64; WAYS],
    fresh_at: [Moment; WAYS],
    states: [[u64; WORDS]; WAYS],
}

/// A slot.
#[derive(Clone, Copy)]
struct Place {
    bucket: usize,
    way: usize,
}

/// Entries by key.
pub struct Table<const WORDS: usize> {
    shards: Box<[Mutex<Shard<WORDS>>]>,
    /// Buckets that a shard may have.
    most: usize,
}

#[derive(Default)]
struct Shard<const WORDS: usize> {
    buckets: Box<[Bucket<WORDS>]>,
    /// Slots that were used since it was built.
    used: usize,
}

impl<const WORDS: usize> fmt::Debug for Table<WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl<const WORDS: usize> Table<WORDS> {
    /// What it takes before it is used.
    const OWN: usize = size_of::<Table<WORDS>>() + SHARDS * size_of::<Mutex<Shard<WORDS>>>();

    /// A table that takes at most this many bytes, and none until it is used.
    pub fn new(bytes: usize) -> Table<WORDS> {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard { buckets: Box::default(), used: 0 })).collect();
        let most = bytes.saturating_sub(Self::OWN) / size_of::<Bucket<WORDS>>() / SHARDS;
        Table { shards, most: most.max(SMALLEST) }
    }

    /// Decides on a key: the entry is that of the key, or a new one; what `decide` leaves in it is remembered
    /// until it is fresh.
    #[inline]
    pub fn with<T>(&self, key: u64, now: Moment, decide: impl FnOnce(&mut Entry<WORDS>) -> T) -> T {
        // 0 marks an empty slot: its key shares the entries of key 1.
        let key = key.max(1);
        let mut shard = lock(&self.shards[(key % SHARDS as u64) as usize]);
        let Some(place) = shard.find(key) else {
            let mut entry = Entry::NEW;
            let decided = decide(&mut entry);
            if entry.fresh_at > now {
                shard.remember((key, entry), now, self.most);
            }
            return decided;
        };
        let bucket = &mut shard.buckets[place.bucket];
        let mut entry = bucket.entry(place.way);
        let decided = decide(&mut entry);
        bucket.set(place.way, entry);
        decided
    }

    /// Bytes it takes now.
    pub fn bytes(&self) -> usize {
        let buckets: usize = self.shards.iter().map(|shard| lock(shard).buckets.len()).sum();
        Self::OWN + buckets * size_of::<Bucket<WORDS>>()
    }

    /// Keys that must be remembered at this moment. Looks at every slot.
    pub fn live(&self, now: Moment) -> usize {
        self.shards.iter().map(|shard| lock(shard).live(now)).sum()
    }
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves it whole: a decision changes a copy of the entry.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<const WORDS: usize> Bucket<WORDS> {
    const EMPTY: Bucket<WORDS> =
        Bucket { keys: [0; WAYS], fresh_at: [Moment(0); WAYS], states: [[0; WORDS]; WAYS] };

    #[inline]
    fn entry(&self, way: usize) -> Entry<WORDS> {
        Entry { fresh_at: self.fresh_at[way], state: self.states[way] }
    }

    #[inline]
    fn set(&mut self, way: usize, entry: Entry<WORDS>) {
        self.fresh_at[way] = entry.fresh_at;
        self.states[way] = entry.state;
    }

    /// How many must be remembered.
    fn live(&self, now: Moment) -> usize {
        self.fresh_at.iter().filter(|fresh_at| **fresh_at > now).count()
    }

    /// A slot whose entry need not be remembered.
    fn free(&self, now: Moment) -> Option<usize> {
        self.fresh_at.iter().position(|fresh_at| *fresh_at <= now)
    }
}

impl<const WORDS: usize> Shard<WORDS> {
    /// The buckets where a key may stand.
    #[inline]
    fn pair(&self, key: u64) -> [usize; 2] {
        let buckets = self.buckets.len() as u128;
        // The lowest bits chose the shard: the highest choose the first bucket, all of them the second.
        [key, key.wrapping_mul(SECOND)].map(|hash| ((u128::from(hash) * buckets) >> u64::BITS) as usize)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<Place> {
        self.pair(key).into_iter().find_map(|bucket| {
            let way = self.buckets.get(bucket)?.keys.iter().position(|there| *there == key)?;
            Some(Place { bucket, way })
        })
    }

    fn live(&self, now: Moment) -> usize {
        self.buckets.iter().map(|bucket| bucket.live(now)).sum()
    }

    /// A slot for a key that is not there, without forgetting what must be remembered.
    fn room(&mut self, key: u64, now: Moment) -> Option<Place> {
        let [first, second] = self.pair(key);
        let [live, others] = [first, second].map(|bucket| self.buckets[bucket].live(now));
        let bucket = if live <= HALF || live <= others { first } else { second };
        match self.buckets[bucket].free(now) {
            Some(way) => Some(Place { bucket, way }),
            None => self.move_one(first, now).or_else(|| self.move_one(second, now)),
        }
    }

    /// The slot of the first of a full bucket that could move to its other one, and did.
    fn move_one(&mut self, bucket: usize, now: Moment) -> Option<Place> {
        for way in 0..WAYS {
            let key = self.buckets[bucket].keys[way];
            let [first, second] = self.pair(key);
            let other = if first == bucket { second } else { first };
            if let Some(free) = self.buckets[other].free(now) {
                self.set(Place { bucket: other, way: free }, (key, self.buckets[bucket].entry(way)));
                return Some(Place { bucket, way });
            }
        }
        None
    }

    /// Of the slots where a key may stand, the one whose entry is nearest to fresh.
    fn nearest(&self, key: u64) -> Option<Place> {
        let ways = |bucket| (0..WAYS).map(move |way| Place { bucket, way });
        let places = self.pair(key).into_iter().flat_map(ways);
        places.min_by_key(|place| self.buckets[place.bucket].fresh_at[place.way])
    }

    fn remember(&mut self, new: (u64, Entry<WORDS>), now: Moment, most: usize) {
        let crowded = (self.used + 1) * 4 > self.buckets.len() * WAYS * 3;
        if crowded && self.buckets.len() < most {
            self.grow(now, most);
        }
        let mut place = self.room(new.0, now);
        if place.is_none() && self.buckets.len() < most {
            self.grow(now, most);
            place = self.room(new.0, now);
        }
        if let Some(place) = place.or_else(|| self.nearest(new.0)) {
            self.set(place, new);
        }
    }

    fn set(&mut self, place: Place, (key, entry): (u64, Entry<WORDS>)) {
        let bucket = &mut self.buckets[place.bucket];
        self.used += usize::from(bucket.keys[place.way] == 0);
        bucket.keys[place.way] = key;
        bucket.set(place.way, entry);
    }

    /// Builds it anew with what must still be remembered; larger, when that is more than half of it.
    fn grow(&mut self, now: Moment, most: usize) {
        let enough = self.live(now) * 2 < self.buckets.len() * WAYS;
        let size = if enough { self.buckets.len() } else { self.buckets.len() * 2 };
        let new = vec![Bucket::EMPTY; size.clamp(SMALLEST, most)].into();
        let old = std::mem::replace(&mut self.buckets, new);
        self.used = 0;
        for bucket in &old {
            for way in (0..WAYS).filter(|way| bucket.fresh_at[*way] > now) {
                let (key, entry) = (bucket.keys[way], bucket.entry(way));
                if let Some(place) = self.room(key, now).or_else(|| self.nearest(key)) {
                    self.set(place, (key, entry));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::limit::{Permit, bucket, sliding};
    use std::time::Duration;

    const MIB: usize = 1024 * 1024;

    fn stay<const WORDS: usize>(until: u64) -> impl Fn(&mut Entry<WORDS>) -> u64 {
        move |entry| {
            entry.fresh_at = Moment(until);
            entry.state[WORDS - 1] += 1;
            entry.state[WORDS - 1]
        }
    }

    fn remembers_a_million<const WORDS: usize>(seed: u64) {
        let table = Table::<WORDS>::new(64 * MIB);
        assert!(table.bytes() < 8192, "{}", table.bytes());
        let mut rng = Rng::new(seed);
        let keys: Vec<u64> = (0..1_000_000).map(|_| rng.next()).collect();
        let now = Moment(1);
        keys.iter().for_each(|key| _ = table.with(*key, now, stay(1_000)));
        assert!(table.bytes() <= 64 * MIB, "{}", table.bytes());
        assert_eq!(table.live(now), keys.len(), "{seed}");
        assert!(keys.iter().all(|key| table.with(*key, now, stay(1_000)) == 2), "{seed}");
    }

    #[test]
    fn a_million_live_keys_take_at_most_64_mib_and_none_is_forgotten() {
        remembers_a_million::<1>(7);
        for seed in [7, 8, 9] {
            remembers_a_million::<{ sliding::WORDS }>(seed);
        }
    }

    #[test]
    fn a_full_table_goes_on_with_keys_that_come_and_go() {
        let (table, mut rng) = (Table::<1>::new(MIB), Rng::new(7));
        let slots = table.most * WAYS * SHARDS;
        // 0.9 of them, each for the same time; small shards are less evenly full.
        let alive = slots as u64 / 10 * 9;
        for now in 1..alive * 4 {
            table.with(rng.next(), Moment(now), stay(now + alive));
        }
        assert!(table.bytes() <= MIB && table.bytes() > MIB / 10 * 9, "{}", table.bytes());
        let live = table.live(Moment(alive * 4 - 1));
        assert!(live as u64 >= alive - alive / 1_000, "{live} of {alive}");
    }

    #[test]
    fn who_moves_to_make_room_takes_everything_along() {
        // Two buckets of a shard of four, and keys for these; the last of the first finds both full.
        let shard = || Shard::<1> { buckets: vec![Bucket::EMPTY; SMALLEST].into(), used: 0 };
        let mut rng = Rng::new(7);
        let mut of = |first: usize, second: usize| loop {
            let key = rng.next();
            if shard().pair(key) == [first, second] {
                return key;
            }
        };
        let mut keys = vec![of(0, 2)];
        keys.extend((0..WAYS - 1).map(|_| of(0, 0)));
        keys.extend((0..WAYS).map(|_| of(1, 1)));
        keys.push(of(0, 1));
        let mut shard = shard();
        for (number, key) in (1..).zip(&keys) {
            let entry = Entry { fresh_at: Moment(100 + number), state: [number] };
            shard.remember((*key, entry), Moment(1), SMALLEST);
        }
        assert_eq!((shard.live(Moment(1)), shard.used), (keys.len(), keys.len()));
        for (number, key) in (1..).zip(&keys) {
            let place = shard.find(*key).unwrap();
            let entry = shard.buckets[place.bucket].entry(place.way);
            assert_eq!(entry, Entry { fresh_at: Moment(100 + number), state: [number] });
        }
        // Nobody else can move: the one nearest to fresh gives way.
        let (new, entry) = (of(0, 1), Entry { fresh_at: Moment(50), state: [0] });
        shard.remember((new, entry), Moment(1), SMALLEST);
        assert!(shard.find(new).is_some() && shard.find(keys[1]).is_none());
        assert_eq!((shard.live(Moment(1)), shard.used), (keys.len(), keys.len()));
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
        assert!(table.live(Moment(1)) <= SMALLEST * WAYS);
        table.with(key(500), Moment(1), stay(5));
        assert_eq!(table.with(key(500), Moment(1), |entry| entry.state[0]), 1);
    }

    #[test]
    fn threads_admit_together_what_one_would() {
        let (table, bucket) = (Table::<1>::new(MIB), bucket::Bucket::new(1, Duration::from_secs(1), 1_000));
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
