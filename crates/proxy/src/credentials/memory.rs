//! What was found a moment ago: a table of fixed size that all workers read without a lock.
//!
//! Promise: a lookup is a handful of atomic loads. What is remembered is forgotten after its time, or earlier
//! when newer things need the place (the oldest of four gives way).
//!
//! Why loads of a mark that is being written do no harm: a mark is a keyed hash of 256 bits whose key nobody
//! outside knows. Words of two marks make a third that is asked for with a chance of 2^-64 at best.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands for one thing: a keyed hash of it.
pub(super) type Mark = [u64; 4];

/// How many places one mark may have.
const WAYS: usize = 4;

#[derive(Default)]
struct Slot {
    mark: [AtomicU64; 4],
    /// The millisecond at which it is forgotten; 0 while it is empty.
    until: AtomicU64,
}

impl Slot {
    fn holds(&self, mark: &Mark) -> bool {
        let differences = self
            .mark
            .iter()
            .zip(mark)
            .fold(0, |seen, (slot, word)| seen | (slot.load(Ordering::Relaxed) ^ word));
        std::hint::black_box(differences) == 0
    }
}

/// A table of marks.
pub(super) struct Memory {
    /// Made when there is something to remember: most gateways check no password.
    slots: OnceLock<Box<[Slot]>>,
    sets: usize,
    keep: u64,
}

impl Memory {
    /// Room for this many marks, each for so many milliseconds.
    pub(super) fn new(room: usize, keep: u64) -> Memory {
        Memory { slots: OnceLock::new(), sets: room.div_ceil(WAYS).max(1), keep }
    }

    fn set<'a>(&self, slots: &'a [Slot], mark: &Mark) -> &'a [Slot] {
        let first = (mark[0] % self.sets as u64) as usize * WAYS;
        &slots[first..first + WAYS]
    }

    /// Whether a mark is remembered at this millisecond.
    pub(super) fn recalls(&self, mark: &Mark, now: u64) -> bool {
        let Some(slots) = self.slots.get() else { return false };
        self.set(slots, mark).iter().any(|slot| slot.holds(mark) && slot.until.load(Ordering::Acquire) > now)
    }

    /// Remembers a mark from this millisecond on. Not for two threads at once.
    pub(super) fn remember(&self, mark: &Mark, now: u64) {
        let slots = self.slots.get_or_init(|| (0..self.sets * WAYS).map(|_| Slot::default()).collect());
        let set = self.set(slots, mark);
        let oldest = || set.iter().min_by_key(|slot| slot.until.load(Ordering::Relaxed));
        let Some(slot) = set.iter().find(|slot| slot.holds(mark)).or_else(oldest) else { return };
        slot.until.store(0, Ordering::Release);
        for (place, word) in slot.mark.iter().zip(mark) {
            place.store(*word, Ordering::Relaxed);
        }
        slot.until.store(now + self.keep, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_forgotten_after_its_time() {
        let memory = Memory::new(16, 60);
        let mark = [1, 2, 3, 4];
        assert!(!memory.recalls(&mark, 1));
        memory.remember(&mark, 1);
        assert!(memory.recalls(&mark, 60) && !memory.recalls(&mark, 61));
        memory.remember(&mark, 61);
        assert!(memory.recalls(&mark, 120));
        for other in [[0, 2, 3, 4], [1, 0, 3, 4], [1, 2, 0, 4], [1, 2, 3, 0], [17, 2, 3, 4]] {
            assert!(!memory.recalls(&other, 100), "{other:?}");
        }
    }

    #[test]
    fn the_oldest_gives_way() {
        let memory = Memory::new(4, 100);
        for index in 0..5 {
            memory.remember(&[index, 0, 0, 0], index);
        }
        let kept: Vec<u64> = (0..5).filter(|index| memory.recalls(&[*index, 0, 0, 0], 5)).collect();
        assert_eq!(kept, [1, 2, 3, 4]);
    }
}
