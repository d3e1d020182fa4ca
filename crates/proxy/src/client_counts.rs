//! How many connections each client of a listener has.
//!
//! Promise: counted over all workers; a connection leaves the count however it ends; memory follows the open
//! connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::address::Origin;

/// The counts of one listener.
#[derive(Debug, Default)]
pub struct ClientCounts {
    shards: [Mutex<HashMap<Origin, u32>>; 16],
}

impl ClientCounts {
    fn shard(&self, client: Origin) -> MutexGuard<'_, HashMap<Origin, u32>> {
        // The last byte that tells networks apart changes most.
        let mixed =
            client.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        self.shards[mixed % self.shards.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection, if there are fewer than `most`.
    pub fn come(self: &Arc<Self>, client: Origin, most: u32) -> Option<Counted> {
        let mut shard = self.shard(client);
        let count = shard.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(Counted { clients: Arc::clone(self), client })
    }
}

/// A connection that counts for its client until it is dropped.
#[derive(Debug)]
pub struct Counted {
    clients: Arc<ClientCounts>,
    client: Origin,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.client);
        match shard.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = shard.remove(&self.client),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::origin_of;

    #[test]
    fn a_client_has_so_many_and_gone_ones_do_not_count() {
        let clients = Arc::<ClientCounts>::default();
        let (one, other) = (origin_of([192, 0, 2, 1].into()), origin_of([192, 0, 2, 2].into()));
        let first = clients.come(one, 2).unwrap();
        let _second = clients.come(one, 2).unwrap();
        assert!(clients.come(one, 2).is_none());
        let third = clients.come(other, 2).unwrap();
        drop(first);
        assert!(clients.come(one, 2).is_some());
        drop(third);
        assert!(clients.shard(other).get(&other).is_none(), "nothing is left of who has gone");
    }
}
