//! How much may come in: one decision for each request, by what is remembered of its key.
//!
//! [`bucket`] (token bucket and leaky bucket, as GCRA), [`sliding`] and [`fixed`] windows decide on an
//! [`Entry`]; [`table`] keeps the entries of all keys of a process in bounded memory.
//!
//! Promise: a limiter's contract holds in whatever order requests are decided, also when the threads' clocks
//! disagree; a refused request changes nothing, so that who asks too often is not kept out for longer.

pub mod bucket;
pub mod fixed;
pub mod sliding;
pub mod table;

use std::time::Duration;

use crate::Moment;

/// What is remembered of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<const WORDS: usize> {
    /// From then on the key is as one that was never seen: it need not be remembered.
    pub fresh_at: Moment,
    /// What the limiter counts.
    pub state: [u64; WORDS],
}

impl<const WORDS: usize> Entry<WORDS> {
    /// That of a key which was never seen.
    pub const NEW: Entry<WORDS> = Entry { fresh_at: Moment(0), state: [0; WORDS] };
}

impl<const WORDS: usize> Default for Entry<WORDS> {
    fn default() -> Entry<WORDS> {
        Entry::NEW
    }
}

/// Whether a request may pass, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Now.
    Now,
    /// When it has waited for so long; its place is taken already.
    After(Duration),
    /// Not this one; another may after so long, if nobody else comes before it.
    Refused(Duration),
}

/// What a limiter says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may pass.
    pub permit: Permit,
    /// How many more could pass at once.
    pub remaining: u64,
    /// When the key will be as one that was never seen, if nothing more comes.
    pub reset: Duration,
}
