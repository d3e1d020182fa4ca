//! Limits: how fast, and how much in a period.
//!
//! [`rate`] and [`quota`] are the two limiters, for filters ([`plan`]) and for consumers ([`consumer`]); [`key`]
//! says what they count by; [`remote`] counts in Redis,
//! [`book`] and [`sheet`] on local disk; [`record`] is what an exchange carries of all that, for its answer, the metrics and
//! the access log. The decisions themselves are those of `sluice_traffic::limit`.
//!
//! Promise: a rate limit without Redis costs a clock, a keyed hash and one short lock: no allocation, no system
//! call. What was counted belongs to the process, by what defines a limiter, not to a snapshot: a reload that
//! does not change a limiter keeps its counts, and limiters that are gone leave nothing behind. Memory is
//! bounded for all limiters together ([`ROOM`]), not for each.

pub mod book;
pub mod consumer;
pub mod key;
pub mod plan;
pub mod quota;
pub mod rate;
pub mod record;
pub mod remote;
pub mod seen;
pub mod sheet;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_traffic::limit::sliding;
use sluice_traffic::limit::table::Table;

use crate::purpose::Purpose;
use book::Book;

/// The most bytes for counts of buckets and fixed windows, room for two and a half million keys; and as many for
/// those of sliding windows, room for a million.
pub const ROOM: usize = 64 * 1024 * 1024;

/// What the limiters of a process have counted. In `filter::Shared`.
pub struct Limits {
    purpose: Purpose,
    /// Keys are hashed with what only this process knows: nobody can choose a key that meets another's.
    hasher: RandomState,
    small: Table<1>,
    sliding: Table<{ sliding::WORDS }>,
    /// Where quotas are kept.
    state: OnceLock<PathBuf>,
    book: Mutex<Option<Arc<Book>>>,
}

impl Limits {
    /// Nothing counted, nothing allocated.
    pub fn new(purpose: Purpose) -> Limits {
        Limits {
            purpose,
            hasher: RandomState::new(),
            small: Table::new(ROOM),
            sliding: Table::new(ROOM),
            state: OnceLock::new(),
            book: Mutex::default(),
        }
    }

    /// Keeps quotas in this directory from now on; without it they are in memory.
    pub fn keep_in(&self, directory: PathBuf) {
        self.state.get_or_init(|| directory);
    }

    /// Where quotas are counted on this machine: opened by the first who asks.
    ///
    /// # Errors
    /// The file cannot be made or is none of ours.
    fn book(&self) -> Result<Arc<Book>, String> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(book) = &*book {
            return Ok(Arc::clone(book));
        }
        let opened = match (self.state.get(), self.purpose) {
            (Some(directory), Purpose::Running) => Book::open(directory),
            (Some(directory), Purpose::Looking) => Book::check(directory).map(|()| Book::in_memory()),
            (None, _) => Ok(Book::in_memory()),
        };
        let opened = Arc::new(opened.map_err(|error| {
            let directory = self.state.get().map(|path| path.display().to_string()).unwrap_or_default();
            format!("quotas cannot be kept in {directory}: {error}")
        })?);
        *book = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Stands for a key of a limiter in this process.
    fn hash(&self, limiter: u64, key: key::Key<'_>) -> u64 {
        self.hasher.hash_one((limiter, key.kind, key.bytes))
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::new(Purpose::Running)
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Limits(..)")
    }
}

/// What happens while Redis cannot be asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnRedisFailure {
    /// Each gateway counts by itself: as many times the limit as there are gateways may pass.
    #[default]
    Local,
    /// Requests pass and nobody counts them.
    Allow,
    /// Requests are refused with 503.
    Deny,
}

/// Redis had no answer, and the limiter is to refuse then; or a quota cannot be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncounted;

/// Whole seconds that are at least so long.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
