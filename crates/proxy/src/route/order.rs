//! What comes first: the order of the module above, as a key that sorts.
//!
//! Promise: the key is computed once, at load; afterwards an order is one number, the rank.

use std::cmp::Reverse;

use super::guard::Guard;
use super::host::{Host, HostOrder};
use super::path::{Form, Path, PathOrder};

/// A route, compiled.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: Box<str>,
    pub(super) hosts: Vec<Host>,
    pub(super) path: Path,
    pub(super) guard: Guard,
    pub(super) priority: i32,
    pub(super) expires: Option<u64>,
}

/// A route in an index: under one of its hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The less, the earlier; unique.
    pub(super) rank: u32,
    /// The position of the route.
    pub(super) route: u32,
    /// What there is to look at in it.
    pub(super) beyond: Beyond,
}

/// What a route has beyond host and path. In a large table every look at a route is a miss of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// Nothing: no condition, no expiry, no parameter.
    Nothing,
    /// Something.
    More,
}

/// Where a route stands under one of its hosts. The fields are compared in this order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) priority: Reverse<i32>,
    pub(super) host: HostOrder,
    pub(super) path: PathOrder,
    pub(super) conditions: Reverse<usize>,
    pub(super) written: usize,
}

impl Route {
    /// Its key under `host`; it was written at position `written`.
    pub(super) fn key(&self, host: &Host, written: usize) -> Key {
        Key {
            priority: Reverse(self.priority),
            host: host.order(),
            path: self.path.order(),
            conditions: Reverse(self.conditions()),
            written,
        }
    }

    /// It in an index, at `rank`; it was written at position `written`.
    pub(super) fn candidate(&self, rank: usize, written: usize) -> Candidate {
        let conditions = self.guard.len() > 0 || self.expires.is_some();
        let beyond = if conditions || self.path.has_params() { Beyond::More } else { Beyond::Nothing };
        Candidate { rank: rank as u32, route: written as u32, beyond }
    }

    /// The number of conditions that counts for the order.
    pub(super) fn conditions(&self) -> usize {
        match self.path.form {
            // nginx's order of appearance, whatever else is asked.
            Form::LocationRegex(_) => 0,
            _ => self.guard.len(),
        }
    }

    /// Whether it matches no longer.
    pub(super) fn expired(&self, now_unix: u64) -> bool {
        self.expires.is_some_and(|expires| now_unix >= expires)
    }
}

/// Candidates that match alike, in order. Nearly always there is one, which then needs no memory of its own.
#[derive(Debug)]
pub(super) enum Leaf {
    /// One.
    One(Candidate),
    /// None or many.
    Many(Vec<Candidate>),
}

impl Leaf {
    /// None.
    pub(super) const fn new() -> Leaf {
        Leaf::Many(Vec::new())
    }

    /// Adds one at the end.
    pub(super) fn push(&mut self, candidate: Candidate) {
        match self {
            Leaf::One(first) => *self = Leaf::Many(vec![*first, candidate]),
            Leaf::Many(all) if all.is_empty() => *self = Leaf::One(candidate),
            Leaf::Many(all) => all.push(candidate),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Candidate] {
        match self {
            Leaf::One(candidate) => std::slice::from_ref(candidate),
            Leaf::Many(all) => all,
        }
    }
}
