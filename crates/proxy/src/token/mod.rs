//! JSON Web Tokens: the keys they are checked with, what is checked, and what was checked a moment ago.
//!
//! Files in the order in which a token meets them: `memory` -> `verify` -> `keys` -> `remote` (key sets that others
//! publish) -> `revoked` (tokens that were taken back). `signing`, `ring` and `rings` hold keys of our own; `file` writes
//! what several processes share.

mod file;
mod keys;
mod memory;
mod remote;
mod revoked;
mod ring;
mod rings;
mod signing;
mod verify;

pub use jsonwebtoken::Algorithm;
pub use keys::{Keys, SHORTEST_SECRET, Source};
pub use memory::{Memory, Verified};
pub use remote::{Policy, Remote, Remotes};
pub use revoked::{Elsewhere, Revoked};
pub use ring::{Directories, Given, Keeping, Origin, Ring, Unknown, random_id};
pub use rings::Rings;
pub use signing::Signing;
pub use verify::{LONGEST_TOKEN, Rejected, Rules, Unverified};
