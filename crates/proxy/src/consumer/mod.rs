//! Consumers: whom the gateway knows, by credentials of several kinds.
//!
//! Promise: whatever filter finds out who is asking, the same follows from it: a disabled consumer and one that
//! comes from a wrong address get 403, and its name stands in the log, the metrics, expressions and templates.

mod claims;
mod config;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use claims::{Claims, LONGEST_CLAIM};
pub use config::{Basic, Config, IpAccess, Jwt, Quota, RateLimit, Status, check};

use crate::credentials::{Digest, Secret, Users};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::network_list::List;

/// Somebody the gateway knows.
#[derive(Debug)]
pub struct Consumer {
    /// Its name in the document.
    pub name: Arc<str>,
    /// Its position in [`Consumers::all`].
    pub position: usize,
    /// The groups it belongs to.
    pub groups: Box<[Box<str>]>,
    /// The same in one text, with commas.
    pub groups_text: Box<str>,
    /// How fast it may ask.
    pub rate_limit: Option<RateLimit>,
    /// How much it may ask for in a period.
    pub quota: Option<Quota>,
    standing: Standing,
    allow: Option<List>,
    deny: List,
}

/// Whether a consumer's credentials count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Enabled,
    Disabled,
}

impl Consumer {
    /// Whether it belongs to a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| **own == *group)
    }

    /// Whether it may come from this address.
    fn may_come_from(&self, address: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.names(address)) && !self.deny.names(address)
    }
}

/// An issuer, if one is named, and whose tokens of it are.
type OfIssuer = (Option<Box<str>>, usize);

/// Whom the gateway knows, and by which credentials.
#[derive(Debug, Default)]
pub struct Consumers {
    list: Vec<Arc<Consumer>>,
    keys: HashMap<Digest, usize>,
    users: Users,
    by_user: HashMap<Arc<str>, usize>,
    /// Subject to issuers.
    subjects: HashMap<Box<str>, Vec<OfIssuer>>,
    hmac_keys: HashMap<Box<str>, (usize, Secret)>,
}

impl Consumers {
    /// All, by name.
    pub fn all(&self) -> &[Arc<Consumer>] {
        &self.list
    }

    /// The one with this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.list.binary_search_by(|one| (*one.name).cmp(name)).ok().map(|place| &self.list[place])
    }

    /// Whether one of them belongs to this group.
    pub fn has_group(&self, group: &str) -> bool {
        self.list.iter().any(|one| one.is_in(group))
    }

    /// Whether one of them has an API key.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether one of them signs requests.
    pub fn has_hmac_keys(&self) -> bool {
        !self.hmac_keys.is_empty()
    }

    /// The one whose API key this is. The time tells nothing of the key: what is looked up is its hash, by a
    /// table whose order nobody outside knows.
    pub fn by_key(&self, key: &[u8]) -> Option<&Arc<Consumer>> {
        self.keys.get(&Digest::of(key)).map(|place| &self.list[*place])
    }

    /// Those with a user name and a password.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// The one with this user name.
    pub fn by_user(&self, user: &str) -> Option<&Arc<Consumer>> {
        self.by_user.get(user).map(|place| &self.list[*place])
    }

    /// The one whose tokens have this subject and issuer; one that named its issuer goes before one that did not.
    pub fn by_subject(&self, issuer: Option<&str>, subject: &str) -> Option<&Arc<Consumer>> {
        let same = self.subjects.get(subject)?;
        let of = |wanted: Option<&str>| same.iter().find(|(known, _)| known.as_deref() == wanted);
        let found = issuer.and_then(|issuer| of(Some(issuer))).or_else(|| of(None))?;
        Some(&self.list[found.1])
    }

    /// The one that signs with the key of this id, and the secret.
    pub fn by_hmac_key(&self, id: &str) -> Option<(&Arc<Consumer>, &Secret)> {
        self.hmac_keys.get(id).map(|(place, secret)| (&self.list[*place], secret))
    }
}

/// Notes that this consumer is asking: its credentials were found right.
///
/// # Errors
/// [`Failure::Forbidden`]: it is disabled, it may not come from this address, or another filter of the route has
/// found out that somebody else is asking.
pub fn identify(exchange: &mut Exchange, consumer: &Arc<Consumer>) -> Result<(), Failure> {
    if exchange.consumer.as_ref().is_some_and(|known| known.name != consumer.name) {
        return Err(Failure::Forbidden);
    }
    // Noted first: the log is to say who was turned away.
    exchange.consumer = Some(Arc::clone(consumer));
    match consumer.standing == Standing::Enabled && consumer.may_come_from(exchange.client.address) {
        true => Ok(()),
        false => Err(Failure::Forbidden),
    }
}

#[cfg(test)]
mod tests;
