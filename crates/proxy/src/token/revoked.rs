//! Tokens that were taken back before their end, by their ids (claim `jti`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// The most ids: beyond, those that end first give way.
const MOST: usize = 100_000;

/// Tokens that were taken back.
#[derive(Debug, Default)]
pub struct Revoked {
    /// Most gateways take no token back: they pay for one load.
    count: AtomicUsize,
    ids: Mutex<HashMap<Box<str>, u64>>,
}

impl Revoked {
    /// Takes a token back that ends at `end`, in seconds since 1970. False: it was taken back before.
    pub fn add(&self, id: &str, end: u64, now: u64) -> bool {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.retain(|_, end| *end > now);
        if ids.len() >= MOST
            && let Some(first) = ids.iter().min_by_key(|(_, end)| **end).map(|(id, _)| id.clone())
        {
            ids.remove(&first);
        }
        let known = ids.insert(id.into(), end);
        self.count.store(ids.len(), Relaxed);
        known.is_none()
    }

    /// Whether it was taken back.
    pub fn holds(&self, id: &str) -> bool {
        self.count.load(Relaxed) > 0
            && self.ids.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }
}
