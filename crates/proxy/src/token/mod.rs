//! JSON Web Tokens: the keys they are checked with, what is checked, and what was checked a moment ago.
//!
//! Files in the order in which a token meets them: `memory` -> `verify` -> `keys` -> `remote` (key sets that others
//! publish); `revoked` (tokens that were taken back). `ring` holds keys of our own.

mod keys;
mod memory;
mod remote;
mod revoked;
mod ring;
mod verify;

pub use jsonwebtoken::Algorithm;
pub use keys::{Keys, SHORTEST_SECRET, Source};
pub use memory::{Memory, Verified};
pub use remote::{Policy, Remote, Remotes};
pub use revoked::Revoked;
pub use ring::{Keeping, Ring, Rings, random_id};
pub use verify::{LONGEST_TOKEN, Rejected, Rules, Unverified};
