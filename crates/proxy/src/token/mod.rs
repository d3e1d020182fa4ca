//! JSON Web Tokens: the keys they are checked with, what is checked, and what was checked a moment ago.
//!
//! Files in the order in which a token meets them: `memory` -> `verify` -> `keys` -> `remote` (key sets that others
//! publish); `revoked` (tokens that were taken back).

mod keys;
mod memory;
mod remote;
mod revoked;
mod verify;

pub use jsonwebtoken::Algorithm;
pub use keys::{Keys, SHORTEST_SECRET, Source};
pub use memory::{Memory, Verified};
pub use remote::{Policy, Remote, Remotes};
pub use revoked::Revoked;
pub use verify::{LONGEST_TOKEN, Rejected, Rules, Unverified};
