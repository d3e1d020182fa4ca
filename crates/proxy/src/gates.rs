//! The gates of the process by name, kept over configuration changes.
//!
//! Promise: a gate lives as long as a snapshot or somebody inside holds it; those of single keys (a client, a
//! consumer) are made when the key appears and forgotten once nobody of it is inside: memory follows what runs
//! now, not who was ever seen.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sluice_traffic::gradient::Policy;

use crate::failure::Failure;
use crate::gate::{Gate, Patience, Permit};
use crate::world::World;

/// All gates with a name.
#[derive(Debug, Default)]
pub struct Gates(Mutex<BTreeMap<String, Weak<Named>>>);

/// What stands under a name.
#[derive(Debug)]
pub struct Named {
    /// The name, for metrics.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// One gate, or one for each key.
#[derive(Debug)]
pub enum Kind {
    /// One for all.
    One(Arc<Gate>),
    /// One for each key.
    Each(Box<Keyed>),
}

/// What is asked for under a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// One gate for so many.
    One(u32),
    /// One gate that learns.
    Adaptive(Policy),
    /// One for each key.
    Each,
}

/// What the gates of a name have in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The limit, of one gate or of each.
    pub limit: u32,
    /// How many are inside.
    pub inside: u64,
    /// How many wait.
    pub waiting: u64,
    /// How many were turned away, ever.
    pub refused: u64,
}

impl Gates {
    /// What stands under a name, made when it is new or of another kind.
    pub fn named(&self, name: &str, wanted: Wanted) -> Arc<Named> {
        let mut gates = locked(&self.0);
        gates.retain(|_, named| named.strong_count() > 0);
        if let Some(known) = gates.get(name).and_then(Weak::upgrade)
            && known.kind.is(wanted)
        {
            return known;
        }
        let kind = match wanted {
            Wanted::One(limit) => Kind::One(Gate::new(limit)),
            Wanted::Adaptive(policy) => Kind::One(Gate::adaptive(policy)),
            Wanted::Each => Kind::Each(Box::default()),
        };
        let named = Arc::new(Named { name: name.to_owned(), kind });
        gates.insert(name.to_owned(), Arc::downgrade(&named));
        named
    }

    /// All that there is, by name.
    pub fn all(&self) -> Vec<Arc<Named>> {
        locked(&self.0).values().filter_map(Weak::upgrade).collect()
    }
}

impl Kind {
    fn is(&self, wanted: Wanted) -> bool {
        match (self, wanted) {
            (Kind::One(gate), Wanted::One(_)) => !gate.is_adaptive(),
            (Kind::One(gate), Wanted::Adaptive(_)) => gate.is_adaptive(),
            (Kind::Each(_), Wanted::Each) => true,
            _ => false,
        }
    }

    /// What its gates have in sum.
    pub fn totals(&self) -> Totals {
        match self {
            Kind::One(gate) => Totals::default().with(gate),
            Kind::Each(keyed) => keyed.totals(),
        }
    }
}

impl Totals {
    fn with(mut self, gate: &Gate) -> Totals {
        self.limit = self.limit.max(gate.limit());
        self.inside += u64::from(gate.inside());
        self.waiting += u64::from(gate.waiting());
        self.refused += gate.refused();
        self
    }
}

/// A gate with what a document says of it.
#[derive(Clone, Debug)]
pub struct Limited {
    named: Arc<Named>,
    limit: u32,
    patience: Patience,
}

impl Limited {
    /// The gate of this name, for so many.
    pub fn new(gates: &Gates, name: &str, limit: u32, patience: Patience) -> Limited {
        Limited { named: gates.named(name, Wanted::One(limit)), limit, patience }
    }

    /// The gate. It may run for an older document until somebody comes to it with the new limit.
    fn gate(&self) -> Option<&Arc<Gate>> {
        let Kind::One(gate) = &self.named.kind else { return None };
        if gate.limit() != self.limit {
            gate.set_limit(self.limit);
        }
        Some(gate)
    }

    /// Whether there is room.
    pub fn has_room(&self) -> bool {
        self.gate().is_some_and(|gate| gate.has_room())
    }

    /// Enters, after waiting as far as the document says; a higher priority goes first. Cancel-safe.
    ///
    /// # Errors
    /// [`Failure::Overloaded`]
    pub async fn enter(&self, world: &World, priority: i32) -> Result<Permit, Failure> {
        self.gate().ok_or(Failure::Internal)?.enter(world, priority, self.patience).await
    }

    /// Enters at once, or not at all.
    ///
    /// # Errors
    /// [`Failure::Overloaded`]
    pub fn try_enter(&self) -> Result<Permit, Failure> {
        self.gate().ok_or(Failure::Internal)?.try_enter()
    }
}

/// Fewer keys than this are never looked over.
const FEW: usize = 64;

/// A gate for each key.
#[derive(Debug, Default)]
pub struct Keyed {
    shards: [Mutex<Shard>; 16],
    hasher: std::hash::RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    gates: HashMap<Box<[u8]>, Arc<Gate>>,
    /// How many keys were left when they were looked over last.
    left: usize,
    /// How many the forgotten ones turned away.
    refused: u64,
}

impl Keyed {
    /// The gate of a key, for so many.
    pub fn gate(&self, key: &[u8], limit: u32) -> Arc<Gate> {
        let shard = self.hasher.hash_one(key) as usize % self.shards.len();
        let mut shard = locked(&self.shards[shard]);
        if let Some(gate) = shard.gates.get(key) {
            return Arc::clone(gate);
        }
        if shard.gates.len() >= FEW.max(2 * shard.left) {
            shard.forget();
        }
        let gate = Gate::new(limit);
        shard.gates.insert(key.into(), Arc::clone(&gate));
        gate
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).gates.len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn totals(&self) -> Totals {
        self.shards.iter().fold(Totals::default(), |totals, shard| {
            let shard = locked(shard);
            let totals = shard.gates.values().fold(totals, |totals, gate| totals.with(gate));
            Totals { refused: totals.refused + shard.refused, ..totals }
        })
    }
}

impl Shard {
    /// Forgets the keys of which nobody is inside or on the way in.
    fn forget(&mut self) {
        let refused = &mut self.refused;
        self.gates.retain(|_, gate| {
            let in_use = Arc::strong_count(gate) > 1;
            if !in_use {
                *refused += gate.refused();
            }
            in_use
        });
        self.left = self.gates.len();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_gate_while_somebody_holds_it() {
        let gates = Gates::default();
        let one = gates.named("a", Wanted::One(1));
        assert!(Arc::ptr_eq(&one, &gates.named("a", Wanted::One(7))));
        assert!(!Arc::ptr_eq(&one, &gates.named("b", Wanted::One(1))));
        let learning = gates.named("a", Wanted::Adaptive(Policy::default()));
        assert!(!Arc::ptr_eq(&one, &learning), "another kind is another gate");
        drop((one, learning));
        assert!(gates.all().is_empty());
    }

    #[test]
    fn keys_that_nobody_uses_are_forgotten_and_their_refusals_are_not() {
        let keyed = Keyed::default();
        let kept = keyed.gate(b"kept", 1);
        let _inside = kept.try_enter().unwrap();
        assert!(kept.try_enter().is_err());
        for key in 0..100_000u32 {
            let gate = keyed.gate(&key.to_be_bytes(), 1);
            let inside = gate.try_enter().unwrap();
            assert!(gate.try_enter().is_err());
            drop(inside);
        }
        assert!(keyed.len() <= 16 * FEW, "{}", keyed.len());
        assert!(Arc::ptr_eq(&kept, &keyed.gate(b"kept", 1)));
        assert_eq!(keyed.totals(), Totals { limit: 1, inside: 1, waiting: 0, refused: 100_001 });
    }
}
