//! Names with passwords: reading stored hashes, and checking a password without holding up a worker.
//!
//! What machines carry instead (API keys, signing secrets) stands in `key`.
//!
//! Files in the order in which a password meets them: `users` (who is known; a document's table and htpasswd
//! files) -> `verify` (the process's one place where passwords are checked) -> `memory` (what was checked a
//! moment ago) -> `hash` (the forms a stored password may have; `md5_crypt` is one of them).
//!
//! Promise: neither a password nor a stored hash is ever written anywhere: not into a problem, a log or a
//! `Debug` text.

mod hash;
mod key;
mod md5_crypt;
mod memory;
mod users;
mod verify;

pub use hash::{Hash, Making, StoredHash, Unreadable, make};
pub use key::{Digest, KeyForm, KeyHash, LONGEST_KEY, Secret};
pub use users::Users;
pub use verify::{Claim, Neighbour, Verifier};

/// Longest password that is looked at, in bytes; a longer one is wrong. Some forms of hashes take time in
/// the square of it.
pub const LONGEST_PASSWORD: usize = 1024;

/// Whether two byte strings are equal, in a time that tells nothing of where they differ.
pub fn equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |seen, (one, other)| seen | (one ^ other));
    // Keeps the optimiser from leaving the loop at the first difference.
    one.len() == other.len() && std::hint::black_box(differences) == 0
}
