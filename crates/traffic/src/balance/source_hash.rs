//! `source_hash`: the same key goes to the same endpoint, by weighted rendezvous hashing.
//!
//! A change of membership moves the fewest keys possible: those of the endpoint that went, or those that the
//! new one wins. A pick looks at every member; with more than some dozens prefer `ring_hash` or `maglev`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::{Balance, Member, View, takes};
use crate::Rng;

/// No options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Config {}

/// The same key to the same endpoint, by rendezvous.
#[derive(Clone, Debug)]
pub struct SourceHash {
    keyed: Keyed,
}

impl Balance for SourceHash {
    type Config = Config;
    const NEEDS_HASH: bool = true;

    fn new(_: &Config, members: &[Member<'_>]) -> Self {
        SourceHash { keyed: Keyed::new(members) }
    }

    fn pick<V: View>(&mut self, view: &V, hash: u64, _rng: &mut Rng) -> Option<usize> {
        self.keyed.rendezvous(hash, |at| takes(view, at).then(|| view.weight(at)))
    }
}
