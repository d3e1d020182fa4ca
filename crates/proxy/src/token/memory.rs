//! Tokens that were found right a moment ago.
//!
//! Promise: bounded in number; a lookup parses nothing and computes no signature: one keyed hash of the token, and one
//! comparison of its bytes, so that no other token can be taken for it. A token is forgotten when its time is over,
//! when the keys it was checked with change, and when other tokens need its place.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::consumer::Claims;

const SHARDS: usize = 16;

/// Tokens of one shard: 8192 in all.
const ROOM: usize = 512;

/// A token without an end is checked again after this time, in seconds.
const LONGEST: u64 = 300;

/// What a token said that was found right.
#[derive(Debug)]
pub struct Verified {
    /// Its claims, as texts.
    pub claims: Claims,
    /// When its time is over, in seconds since 1970, clocks' differences included.
    pub end: Option<u64>,
    /// The second in which other gateways were asked last, and had not taken it back.
    asked: AtomicU64,
}

impl Verified {
    /// These claims, which end then.
    pub fn new(claims: Claims, end: Option<u64>) -> Verified {
        Verified { claims, end, asked: AtomicU64::new(0) }
    }

    /// Whether other gateways were asked in this second.
    pub fn was_asked(&self, now: u64) -> bool {
        self.asked.load(Relaxed) == now
    }

    /// Notes that they were.
    pub fn note_asked(&self, now: u64) {
        self.asked.store(now, Relaxed);
    }
}

struct Entry {
    token: Box<[u8]>,
    /// What it was checked against.
    rules: u64,
    until: u64,
    verified: Arc<Verified>,
}

/// Tokens that were found right.
pub struct Memory {
    seed: u64,
    shards: Vec<Mutex<HashMap<u64, Entry>>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory(..)")
    }
}

impl Memory {
    /// None yet; `seed` is not known outside.
    pub fn new(seed: u64) -> Memory {
        Memory { seed, shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// A token that was found right by these rules (a number of theirs) and has not ended.
    pub fn recall(&self, rules: u64, token: &[u8], now: u64) -> Option<Arc<Verified>> {
        let hash = self.hash(rules, token);
        let shard = self.shard(hash);
        let entry = shard.get(&hash).filter(|entry| entry.rules == rules && *entry.token == *token)?;
        (entry.until > now).then(|| Arc::clone(&entry.verified))
    }

    /// Remembers a token.
    pub fn remember(&self, rules: u64, token: &[u8], verified: &Arc<Verified>, now: u64) {
        let hash = self.hash(rules, token);
        let mut shard = self.shard(hash);
        if shard.len() >= ROOM && !shard.contains_key(&hash) {
            shard.retain(|_, entry| entry.until > now);
            // The table's order is random: any of them.
            if shard.len() >= ROOM
                && let Some(any) = shard.keys().next().copied()
            {
                shard.remove(&any);
            }
        }
        let longest = now + LONGEST;
        let until = verified.end.map_or(longest, |end| end.min(longest));
        shard.insert(hash, Entry { token: token.into(), rules, until, verified: Arc::clone(verified) });
    }

    fn hash(&self, rules: u64, token: &[u8]) -> u64 {
        xxh3_64_with_seed(token, self.seed ^ rules)
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.shards[(hash >> 32) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(end: Option<u64>) -> Arc<Verified> {
        Arc::new(Verified::new(Claims::default(), end))
    }

    #[test]
    fn a_token_is_remembered_until_it_ends_and_under_its_rules_alone() {
        let memory = Memory::new(7);
        memory.remember(1, b"token", &verified(Some(50)), 10);
        assert!(memory.recall(1, b"token", 49).is_some());
        assert!(memory.recall(1, b"token", 50).is_none());
        assert!(memory.recall(2, b"token", 10).is_none() && memory.recall(1, b"tokeN", 10).is_none());
        memory.remember(1, b"endless", &verified(None), 10);
        assert!(memory.recall(1, b"endless", 309).is_some() && memory.recall(1, b"endless", 310).is_none());
    }

    #[test]
    fn room_is_bounded() {
        let memory = Memory::new(7);
        for index in 0..4 * SHARDS * ROOM {
            memory.remember(1, &index.to_le_bytes(), &verified(None), 10);
        }
        let kept: usize = memory.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * ROOM && kept > SHARDS * ROOM / 2, "{kept}");
    }
}
