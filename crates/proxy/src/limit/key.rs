//! What a limiter counts by.
//!
//! Promise: reading a key allocates nothing, but where an expression does. A request that has no such key (no
//! such header, no consumer) counts by its client's address, apart from the others: it gets one limit more by
//! leaving a header out, not as many as it likes.

use std::net::IpAddr;

use sluice_http::RequestHead;

use crate::exchange::Exchange;
use crate::expression::{Expression, checked};
use crate::problem::{At, Problems};

/// One key of a limiter.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// Keys of different kinds are different.
    pub(super) kind: Kind,
    /// What it is.
    pub(super) bytes: &'a [u8],
}

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// An address, or the network that it counts for.
    Address,
    /// A name or another value.
    Value,
    /// The name of a user who is no consumer.
    User,
}

/// What a limiter counts by.
#[derive(Debug)]
pub enum Per {
    /// The client's address.
    Client(Prefixes),
    /// The consumer, or the user who is none.
    Consumer(Prefixes),
    /// Everything on the route, the listener or the upstream counts together: a name that is known when the
    /// limiter is made, or when a request comes.
    Route,
    /// The listener's name.
    Listener,
    /// What goes to the upstream, from whichever route; its name is part of the limiter's identity.
    Upstream,
    /// The value of an expression.
    Value(Box<Expression>, Prefixes),
}

/// How many bits of an address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Of an IPv4 address.
    pub v4: u8,
    /// Of an IPv6 address.
    pub v6: u8,
}

impl Default for Prefixes {
    /// An IPv4 address, and an IPv6 network of 64 bits: what one customer has at least.
    fn default() -> Prefixes {
        Prefixes { v4: 32, v6: 64 }
    }
}

impl Prefixes {
    /// Checks how many bits are to count.
    pub fn check((v4, v6): (Option<u8>, Option<u8>), at: &At, problems: &mut Problems) -> Prefixes {
        let default = Prefixes::default();
        for (key, bits, most) in [("ipv4_prefix", v4, 32), ("ipv6_prefix", v6, 128)] {
            if bits.is_some_and(|bits| bits > most) {
                problems.add(&at.key(key), format!("an address has {most} bits"));
            }
        }
        Prefixes { v4: v4.unwrap_or(default.v4), v6: v6.unwrap_or(default.v6) }
    }

    /// The network an address counts for.
    fn network(self, address: IpAddr) -> ([u8; 16], usize) {
        let mut bytes = [0; 16];
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.v4)).unwrap_or(0);
                bytes[..4].copy_from_slice(&(u32::from(address) & mask).to_be_bytes());
                (bytes, 4)
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.v6)).unwrap_or(0);
                ((u128::from(address) & mask).to_be_bytes(), 16)
            }
        }
    }
}

impl Per {
    /// Reads what a document says: one of the words, or an expression.
    pub fn check(text: &str, prefixes: Prefixes, at: &At, problems: &mut Problems) -> Option<Per> {
        Some(match text {
            "client" => Per::Client(prefixes),
            "consumer" => Per::Consumer(prefixes),
            "route" => Per::Route,
            "listener" => Per::Listener,
            "upstream" => Per::Upstream,
            "endpoint" => {
                problems
                    .add(at, "which endpoint takes a request is not known before the filters have passed it")
                    .hint("each endpoint of an upstream is limited there: pool = { max_rate = \"100/s\" }");
                return None;
            }
            text => Per::Value(Box::new(checked(Expression::value(text), at, problems)?), prefixes),
        })
    }

    /// Whether it is known of a connection, which has no request.
    pub fn is_of_connections(text: &str) -> bool {
        matches!(text, "client" | "route" | "listener" | "upstream")
    }

    /// Uses the key of a request.
    pub fn read<T>(&self, exchange: &Exchange, head: &RequestHead, with: impl FnOnce(Key<'_>) -> T) -> T {
        let prefixes = match self {
            Per::Route => return with(Key::value(exchange.route.as_bytes())),
            Per::Listener => return with(Key::value(exchange.client.listener.as_bytes())),
            Per::Upstream => return with(Key::value(b"")),
            Per::Client(prefixes) => prefixes,
            Per::Consumer(prefixes) => match (&exchange.consumer, &exchange.user) {
                (Some(consumer), _) => return with(Key::value(consumer.name.as_bytes())),
                (None, Some(user)) => return with(Key { kind: Kind::User, bytes: user.as_bytes() }),
                (None, None) => prefixes,
            },
            Per::Value(expression, prefixes) => match expression.text(&exchange.facts(head)) {
                Some(text) => return with(Key::value(text.as_bytes())),
                None => prefixes,
            },
        };
        let (bytes, length) = prefixes.network(exchange.client.address);
        with(Key { kind: Kind::Address, bytes: &bytes[..length] })
    }
}

impl Key<'_> {
    /// A name or another value.
    pub fn value(bytes: &[u8]) -> Key<'_> {
        Key { kind: Kind::Value, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture;

    fn per(text: &str) -> Per {
        let mut problems = Problems::new();
        Per::check(text, Prefixes::default(), &At::root(), &mut problems)
            .unwrap_or_else(|| panic!("{problems:?}"))
    }

    fn key(per: &Per, address: &str, field: Option<&str>) -> (bool, Vec<u8>) {
        let mut exchange = fixture::exchange("/");
        exchange.client.address = address.parse().unwrap();
        let mut request = fixture::request("GET", "/");
        if let Some(value) = field {
            request.head.fields.append(&fixture::name("x-tenant"), value.as_bytes());
        }
        per.read(&exchange, &request.head, |key| (key.kind == Kind::Address, key.bytes.to_vec()))
    }

    #[test]
    fn a_client_is_its_address_or_its_network() {
        assert_eq!(key(&per("client"), "192.0.2.7", None), (true, vec![192, 0, 2, 7]));
        assert_eq!(key(&per("client"), "::ffff:192.0.2.7", None), (true, vec![192, 0, 2, 7]));
        let one = key(&per("client"), "2001:db8::1", None);
        assert_eq!(one, key(&per("client"), "2001:db8::ffff:1", None));
        assert_ne!(one, key(&per("client"), "2001:db8:0:1::1", None));
        let wide = Per::Client(Prefixes { v4: 24, v6: 0 });
        assert_eq!(key(&wide, "192.0.2.7", None), (true, vec![192, 0, 2, 0]));
        assert_eq!(key(&wide, "2001:db8::1", None), (true, vec![0; 16]));
        let all = Per::Client(Prefixes { v4: 0, v6: 128 });
        assert_eq!(key(&all, "192.0.2.7", None), key(&all, "10.0.0.1", None));
    }

    #[test]
    fn what_is_absent_counts_by_the_address() {
        let tenant = per("request.headers['x-tenant']");
        assert_eq!(key(&tenant, "192.0.2.7", Some("a")), (false, b"a".to_vec()));
        assert_eq!(key(&tenant, "192.0.2.7", None), (true, vec![192, 0, 2, 7]));
        assert_eq!(key(&per("consumer"), "192.0.2.7", None), (true, vec![192, 0, 2, 7]));
        assert_eq!(key(&per("route"), "192.0.2.7", None), (false, b"shop".to_vec()));
        assert_eq!(key(&per("listener"), "192.0.2.7", None), (false, b"web".to_vec()));
    }

    #[test]
    fn what_is_no_key_is_told() {
        for text in ["endpoint", "nothing", "request.nope", ""] {
            let mut problems = Problems::new();
            assert!(Per::check(text, Prefixes::default(), &At::root(), &mut problems).is_none(), "{text}");
            assert!(!problems.is_empty(), "{text}");
        }
        let mut problems = Problems::new();
        Prefixes::check((Some(33), Some(129)), &At::root(), &mut problems);
        assert_eq!(problems.iter().count(), 2);
    }
}
