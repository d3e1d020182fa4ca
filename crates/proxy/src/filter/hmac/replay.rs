//! Signed requests that were there before.
//!
//! Promise: of requests with the same signature one passes, on this gateway or, through Redis, on all of them. What is
//! remembered is bounded in number and in time: a signature is forgotten when its date alone would refuse it. What
//! cannot be remembered does not pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::filter::Loading;
use crate::problem::{At, Problems};
use crate::redis::{Redis, Server, cmd};

/// How many are remembered when the document does not say it: about 10 MiB.
const ROOM: usize = 100_000;

/// Refuses a request whose signature was there before, with 401. Clients that ask for the same thing twice within a
/// second sign something that differs besides, as a header with a random number.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many signatures are remembered, each for `max_skew` after its date at most. When it is full of those, requests
    /// get 503 until one can be forgotten. Default 100000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<usize>,
    /// A Redis server in which all gateways remember together: "redis://127.0.0.1:6379". `room` does not count there;
    /// without an answer nobody is let in (503). Default: each gateway by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
}

/// Stands for a signature.
pub(super) type Mark = [u8; 16];

/// The checked part.
#[derive(Debug)]
pub(super) struct Replay {
    room: usize,
    server: Option<Server>,
    /// None until it is loaded.
    kept: Option<Kept>,
}

#[derive(Debug)]
enum Kept {
    Here(Arc<Seen>),
    There(Arc<Redis>),
}

impl Config {
    pub(super) fn check(&self, at: &At, problems: &mut Problems) -> Option<Replay> {
        if self.room == Some(0) {
            problems.add(&at.key("room"), "without room no request would pass");
        }
        if let (Some(_), Some(_)) = (self.room, &self.shared) {
            problems.add(&at.key("room"), "`room` means nothing where Redis remembers");
        }
        let server =
            self.shared.as_ref().map(|text| Server::check(text, &at.key("shared"), problems).ok_or(()));
        Some(Replay { room: self.room.unwrap_or(ROOM), server: server.transpose().ok()?, kept: None })
    }
}

impl Replay {
    /// `realm` tells the filters of one route apart.
    pub(super) fn load(&mut self, realm: &str, loading: &Loading<'_>, at: &At, problems: &mut Problems) {
        self.kept = match &self.server {
            Some(server) => loading.shared.redis.open(server, &at.key("shared"), problems).map(Kept::There),
            None => Some(Kept::Here(loading.shared.signatures.of(loading.route, realm))),
        };
    }

    /// Whether this is the first request with this signature, which is of no use after `until`; both times are seconds
    /// since 1970.
    ///
    /// # Errors
    /// It could not be remembered.
    pub(super) async fn is_first(&self, mark: &Mark, (now, until): (u64, u64)) -> Result<bool, Failure> {
        match self.kept.as_ref().ok_or(Failure::Internal)? {
            Kept::Here(seen) => seen.note(mark, (now, until), self.room).ok_or(Failure::Overloaded),
            Kept::There(redis) => {
                let mut set = cmd("SET");
                let left = until.saturating_sub(now) + 1;
                set.arg([&b"sluice:hmac:"[..], mark].concat()).arg(1).arg("NX").arg("EX").arg(left);
                let set = redis.call::<Option<String>>(&set).await;
                Ok(set.map_err(|_| Failure::AuthUnavailable)?.is_some())
            }
        }
    }
}

/// Signatures that were there.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    until: HashMap<Mark, u64>,
    /// When those that are of no use were last looked for.
    swept: u64,
}

impl Seen {
    /// Whether it was not there; `None`: there is no room.
    fn note(&self, mark: &Mark, (now, until): (u64, u64), room: usize) -> Option<bool> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.until.get(mark).is_some_and(|until| *until >= now) {
            return Some(false);
        }
        // Once a second: whoever fills it would stop everybody else.
        if table.until.len() >= room && table.swept != now {
            table.swept = now;
            table.until.retain(|_, until| *until >= now);
        }
        (table.until.len() < room).then(|| table.until.insert(*mark, until).is_none_or(|_| true))
    }
}

/// What all filters of a process have seen, by route and realm: it outlives a change of the document.
#[derive(Debug, Default)]
pub struct Signatures(Mutex<HashMap<(String, String), Weak<Seen>>>);

impl Signatures {
    fn of(&self, route: &str, realm: &str) -> Arc<Seen> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, seen| seen.strong_count() > 0);
        let place = known.entry((route.to_owned(), realm.to_owned())).or_default();
        place.upgrade().unwrap_or_else(|| {
            let seen = Arc::default();
            *place = Arc::downgrade(&seen);
            seen
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Shared, fixture};

    #[test]
    fn a_signature_passes_once_until_its_date_refuses_it() {
        let seen = Seen::default();
        let note = |mark: u8, now| seen.note(&[mark; 16], (now, 10), 2);
        assert_eq!([note(1, 5), note(1, 5), note(1, 10)], [Some(true), Some(false), Some(false)]);
        assert_eq!(note(1, 11), Some(true), "nothing is said of what the date refuses");
    }

    #[test]
    fn when_it_is_full_nothing_passes_until_something_can_be_forgotten() {
        let seen = Seen::default();
        let note = |mark: u8, times| seen.note(&[mark; 16], times, 2);
        assert_eq!([note(1, (5, 6)), note(2, (5, 9)), note(3, (5, 9))], [Some(true), Some(true), None]);
        assert_eq!([note(3, (6, 9)), note(1, (6, 6))], [None, Some(false)], "the last second counts");
        assert_eq!([note(3, (7, 9)), note(2, (7, 9)), note(4, (7, 9))], [Some(true), Some(false), None]);
        assert_eq!(seen.0.lock().unwrap().until.len(), 2);
    }

    #[tokio::test]
    async fn a_reload_forgets_nothing_of_the_same_route() {
        let shared = Shared::new(b"");
        let load = |realm: &str| {
            let mut replay = Config::default().check(&At::root(), &mut Problems::new()).unwrap();
            replay.load(realm, &fixture::loading(&shared), &At::root(), &mut Problems::new());
            replay
        };
        let before = load("r");
        assert_eq!(before.is_first(&[1; 16], (5, 10)).await, Ok(true));
        let (after, other) = (load("r"), load("s"));
        drop(before);
        assert_eq!(after.is_first(&[1; 16], (5, 10)).await, Ok(false));
        assert_eq!(other.is_first(&[1; 16], (5, 10)).await, Ok(true));
    }
}
