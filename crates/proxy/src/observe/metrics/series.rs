//! The cells of one kind, by their labels: made once, found again after every reload.
//!
//! Promise: cells that a snapshot holds are never dropped. Cells that none holds are kept, so that a counter
//! does not start again when a route comes back; of those, at most a limit is kept and the oldest go first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cells of kind `C` under `N` labels.
pub(super) struct Series<C, const N: usize> {
    workers: usize,
    limit: usize,
    inner: Mutex<Inner<C, N>>,
}

pub(super) type Labels<const N: usize> = [Box<str>; N];

/// Labels, and the block of each worker under them.
pub(super) type Found<C, const N: usize> = (Arc<Labels<N>>, Arc<[Arc<C>]>);

struct Inner<C, const N: usize> {
    entries: HashMap<Arc<Labels<N>>, Entry<C>>,
    /// Grows with every `get`; tells which unused entry is the oldest.
    clock: u64,
    /// Entries made since unused ones were last dropped.
    made: usize,
}

struct Entry<C> {
    used: u64,
    /// One block for each worker. The outer `Arc` is what a scrape holds, the inner ones what snapshots hold.
    blocks: Arc<[Arc<C>]>,
}

impl<C> Entry<C> {
    fn is_held(&self) -> bool {
        self.blocks.iter().any(|block| Arc::strong_count(block) > 1)
    }
}

impl<C: Default, const N: usize> Series<C, N> {
    /// No cells yet; `limit` is how many label sets are kept that no snapshot holds.
    pub(super) fn new(workers: usize, limit: usize) -> Series<C, N> {
        let inner = Inner { entries: HashMap::new(), clock: 0, made: 0 };
        Series { workers: workers.max(1), limit, inner: Mutex::new(inner) }
    }

    /// The cells of `worker` under `labels`, made when there are none. Takes a lock: for when a snapshot is
    /// built, never for a request.
    pub(super) fn get(&self, worker: usize, labels: [&str; N]) -> Arc<C> {
        debug_assert!(worker < self.workers, "worker {worker} of {}", self.workers);
        let worker = worker % self.workers;
        let mut inner = self.lock();
        inner.clock += 1;
        let now = inner.clock;
        let labels: Labels<N> = labels.map(Box::from);
        if let Some(entry) = inner.entries.get_mut(&labels) {
            entry.used = now;
            return entry.blocks[worker].clone();
        }
        let blocks: Arc<[Arc<C>]> = (0..self.workers).map(|_| Arc::new(C::default())).collect();
        let block = blocks[worker].clone();
        inner.entries.insert(Arc::new(labels), Entry { used: now, blocks });
        inner.made += 1;
        // Amortised: looking at all entries for each new one would make loading many routes quadratic.
        if inner.made > self.limit.max(inner.entries.len() / 2) {
            inner.made = 0;
            inner.drop_oldest_unheld(self.limit);
        }
        block
    }

    /// All cells, sorted by labels. The lock is held only while pointers are copied, so that a scrape does
    /// not keep a reload waiting.
    pub(super) fn all(&self) -> Vec<Found<C, N>> {
        let mut all: Vec<_> = {
            let inner = self.lock();
            inner.entries.iter().map(|(labels, entry)| (labels.clone(), entry.blocks.clone())).collect()
        };
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C, N>> {
        // A panic elsewhere leaves the map whole: every change to it is one insert or one remove.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C, const N: usize> Inner<C, N> {
    fn drop_oldest_unheld(&mut self, limit: usize) {
        let mut unheld: Vec<u64> =
            self.entries.values().filter(|entry| !entry.is_held()).map(|entry| entry.used).collect();
        let Some(surplus) = unheld.len().checked_sub(limit).filter(|surplus| *surplus > 0) else { return };
        unheld.sort_unstable();
        let newest_dropped = unheld[surplus - 1];
        self.entries.retain(|_, entry| entry.used > newest_dropped || entry.is_held());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::cells::Counter;

    fn names(series: &Series<Counter, 1>) -> Vec<String> {
        series.all().iter().map(|(labels, _)| labels[0].to_string()).collect()
    }

    #[test]
    fn the_same_labels_give_the_same_cells_and_each_worker_its_own() {
        let series: Series<Counter, 2> = Series::new(2, 10);
        let first = series.get(0, ["a", "b"]);
        assert!(Arc::ptr_eq(&first, &series.get(0, ["a", "b"])));
        assert!(!Arc::ptr_eq(&first, &series.get(1, ["a", "b"])));
        assert!(!Arc::ptr_eq(&first, &series.get(0, ["ab", ""])));
        first.add(3);
        drop(first);
        assert_eq!(series.get(0, ["a", "b"]).get(), 3);
    }

    #[test]
    fn of_the_unheld_the_oldest_are_dropped_and_the_held_never() {
        let series: Series<Counter, 1> = Series::new(1, 4);
        let held = series.get(0, ["held"]);
        for number in 0..100 {
            drop(series.get(0, [format!("{number:02}").as_str()]));
            held.add(1);
        }
        let names = names(&series);
        assert!(names.len() <= 16, "{names:?}");
        assert!(names.contains(&"held".to_owned()) && names.contains(&"99".to_owned()), "{names:?}");
        assert!(!names.contains(&"00".to_owned()), "{names:?}");
        assert_eq!(series.get(0, ["held"]).get(), 100);
    }
}
