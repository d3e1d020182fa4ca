//! The compiled form: one enum for each type, so that no evaluation can meet a value of the wrong type.
//!
//! Promise: evaluating takes time linear in the tree and the texts it reads, cannot fail and cannot
//! overflow the stack (the parser bounds the depth). What is absent, and arithmetic without a result, is
//! `None` and makes comparisons false.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io::Write;
use std::net::IpAddr;

use regex::bytes::Regex;

use super::fact::Fact;
use crate::facts::Facts;
use crate::value::Network;

/// An expression of any type.
#[derive(Debug)]
pub(super) enum Scalar {
    Bool(Bool),
    Text(Text),
    Int(Int),
    /// client.address: the only one there is.
    Address,
}

/// An expression of type bool.
#[derive(Debug)]
pub(super) enum Bool {
    Const(bool),
    Not(Box<Bool>),
    All(Box<[Bool]>),
    Any(Box<[Bool]>),
    If(Box<(Bool, Bool, Bool)>),
    Same(Box<(Bool, Bool)>),
    Texts(Order, Box<(Text, Text)>),
    Ints(Order, Box<(Int, Int)>),
    TextIn(Text, Box<[Box<[u8]>]>),
    IntIn(Int, Box<[i64]>),
    ClientIn(Networks),
    Present(Fact),
    StartsWith(Box<(Text, Text)>),
    EndsWith(Box<(Text, Text)>),
    Contains(Box<(Text, Text)>),
    Matches(Text, Regex),
}

/// An expression of type text.
#[derive(Debug)]
pub(super) enum Text {
    Const(Box<[u8]>),
    Fact(Fact),
    Lower(Box<Text>),
    OfInt(Box<Int>),
    OfBool(Box<Bool>),
    If(Box<(Bool, Text, Text)>),
}

/// An expression of type int.
#[derive(Debug)]
pub(super) enum Int {
    Const(i64),
    Size(Text),
    Parsed(Text),
    Hash(Text),
    HashClient,
    Negated(Box<Int>),
    Arithmetic(Operator, Box<(Int, Int)>),
    If(Box<(Bool, Int, Int)>),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    pub(super) fn of(sign: &str) -> Option<Order> {
        Some(match sign {
            "==" => Order::Equal,
            "!=" => Order::Different,
            "<" => Order::Less,
            "<=" => Order::LessOrEqual,
            ">" => Order::Greater,
            ">=" => Order::GreaterOrEqual,
            _ => return None,
        })
    }

    /// Whether it asks for equality only, not for an order.
    pub(super) fn is_equality(self) -> bool {
        matches!(self, Order::Equal | Order::Different)
    }

    /// Absent is different from everything, itself too, and in no order to anything.
    fn holds(self, found: Option<Ordering>) -> bool {
        let Some(found) = found else { return self == Order::Different };
        match self {
            Order::Equal => found.is_eq(),
            Order::Different => found.is_ne(),
            Order::Less => found.is_lt(),
            Order::LessOrEqual => found.is_le(),
            Order::Greater => found.is_gt(),
            Order::GreaterOrEqual => found.is_ge(),
        }
    }
}

/// Arithmetic on ints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(super) fn of(sign: &str) -> Option<Operator> {
        Some(match sign {
            "+" => Operator::Add,
            "-" => Operator::Subtract,
            "*" => Operator::Multiply,
            "/" => Operator::Divide,
            "%" => Operator::Remainder,
            _ => return None,
        })
    }

    /// `None` when it overflows or divides by zero. Division truncates towards zero.
    fn apply(self, a: i64, b: i64) -> Option<i64> {
        match self {
            Operator::Add => a.checked_add(b),
            Operator::Subtract => a.checked_sub(b),
            Operator::Multiply => a.checked_mul(b),
            Operator::Divide => a.checked_div(b),
            Operator::Remainder => a.checked_rem(b),
        }
    }
}

/// A set of addresses: disjoint ranges in order, so that a list of thousands costs a binary search.
#[derive(Debug)]
pub(super) struct Networks(Box<[(Place, Place)]>);

/// An address as its family and number: families never mix.
type Place = (u8, u128);

fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(address) => (4, u128::from(u32::from(address))),
        IpAddr::V6(address) => (6, u128::from(address)),
    }
}

impl Networks {
    pub(super) fn new(networks: &[Network]) -> Networks {
        let mut ranges: Vec<(Place, Place)> =
            networks.iter().map(|net| (place(net.0.network()), place(net.0.broadcast()))).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(Place, Place)> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.0 <= last.1 => last.1 = last.1.max(range.1),
                _ => merged.push(range),
            }
        }
        Networks(merged.into())
    }

    fn contains(&self, address: IpAddr) -> bool {
        let place = place(address.to_canonical());
        let after = self.0.partition_point(|(first, _)| *first <= place);
        after > 0 && place <= self.0[after - 1].1
    }
}

/// A text as it was found, perhaps to be read in lower case: `lower()` costs no copy where bytes are
/// compared one by one.
struct Seen<'a> {
    bytes: Cow<'a, [u8]>,
    lower: bool,
}

impl<'a> Seen<'a> {
    fn read(&self) -> impl DoubleEndedIterator<Item = u8> + '_ {
        self.bytes.iter().map(|byte| if self.lower { byte.to_ascii_lowercase() } else { *byte })
    }

    fn order(&self, other: &Seen<'_>) -> Ordering {
        match self.lower || other.lower {
            true => self.read().cmp(other.read()),
            false => self.bytes.cmp(&other.bytes),
        }
    }

    fn starts_with(&self, start: &Seen<'_>) -> bool {
        start.bytes.len() <= self.bytes.len() && start.read().eq(self.read().take(start.bytes.len()))
    }

    fn ends_with(&self, end: &Seen<'_>) -> bool {
        end.bytes.len() <= self.bytes.len() && end.read().rev().eq(self.read().rev().take(end.bytes.len()))
    }

    fn into_bytes(self) -> Cow<'a, [u8]> {
        match self.lower && self.bytes.iter().any(u8::is_ascii_uppercase) {
            true => Cow::Owned(self.bytes.to_ascii_lowercase()),
            false => self.bytes,
        }
    }
}

impl Bool {
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Bool::Const(known) => *known,
            Bool::Not(inner) => !inner.holds(facts),
            Bool::All(terms) => terms.iter().all(|term| term.holds(facts)),
            Bool::Any(terms) => terms.iter().any(|term| term.holds(facts)),
            Bool::If(parts) if parts.0.holds(facts) => parts.1.holds(facts),
            Bool::If(parts) => parts.2.holds(facts),
            Bool::Same(pair) => pair.0.holds(facts) == pair.1.holds(facts),
            Bool::Texts(order, pair) => {
                let found = pair.0.see(facts).zip(pair.1.see(facts));
                order.holds(found.map(|(a, b)| a.order(&b)))
            }
            Bool::Ints(order, pair) => {
                let found = pair.0.number(facts).zip(pair.1.number(facts));
                order.holds(found.map(|(a, b)| a.cmp(&b)))
            }
            Bool::TextIn(text, set) => text.see(facts).is_some_and(|text| {
                set.binary_search_by(|known| known.iter().copied().cmp(text.read())).is_ok()
            }),
            Bool::IntIn(int, set) => int.number(facts).is_some_and(|int| set.binary_search(&int).is_ok()),
            Bool::ClientIn(networks) => networks.contains(facts.client),
            Bool::Present(fact) => fact.is_present(facts),
            Bool::StartsWith(pair) => both(pair, facts).is_some_and(|(text, start)| text.starts_with(&start)),
            Bool::EndsWith(pair) => both(pair, facts).is_some_and(|(text, end)| text.ends_with(&end)),
            Bool::Contains(pair) => both(pair, facts).is_some_and(|(text, part)| {
                memchr::memmem::find(&text.into_bytes(), &part.into_bytes()).is_some()
            }),
            Bool::Matches(text, regex) => {
                text.see(facts).is_some_and(|text| regex.is_match(&text.into_bytes()))
            }
        }
    }
}

fn both<'a>(pair: &'a (Text, Text), facts: &Facts<'a>) -> Option<(Seen<'a>, Seen<'a>)> {
    pair.0.see(facts).zip(pair.1.see(facts))
}

impl Text {
    /// Its bytes in their final case; `None` when it is absent.
    pub(super) fn bytes<'a>(&'a self, facts: &Facts<'a>) -> Option<Cow<'a, [u8]>> {
        self.see(facts).map(Seen::into_bytes)
    }

    fn see<'a>(&'a self, facts: &Facts<'a>) -> Option<Seen<'a>> {
        let bytes = match self {
            Text::Const(known) => Cow::Borrowed(&**known),
            Text::Fact(fact) => fact.read(facts)?,
            Text::Lower(inner) => return inner.see(facts).map(|seen| Seen { lower: true, ..seen }),
            Text::OfInt(int) => Cow::Owned(int.number(facts)?.to_string().into_bytes()),
            Text::OfBool(inner) => Cow::Borrowed(match inner.holds(facts) {
                true => &b"true"[..],
                false => b"false",
            }),
            Text::If(parts) if parts.0.holds(facts) => return parts.1.see(facts),
            Text::If(parts) => return parts.2.see(facts),
        };
        Some(Seen { bytes, lower: false })
    }
}

impl Int {
    /// Its value; `None` when it is absent.
    pub(super) fn number(&self, facts: &Facts<'_>) -> Option<i64> {
        match self {
            Int::Const(known) => Some(*known),
            // Characters, not bytes, as CEL counts: every byte that does not continue one (RFC 3629).
            Int::Size(text) => text.see(facts).map(|text| {
                text.bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count().try_into().unwrap_or(i64::MAX)
            }),
            Int::Parsed(text) => text.see(facts).and_then(|text| parse(&text.bytes)),
            Int::Hash(text) => text.bytes(facts).map(|bytes| hash(&bytes)),
            Int::HashClient => Some(hash_address(facts.client)),
            Int::Negated(inner) => inner.number(facts)?.checked_neg(),
            Int::Arithmetic(operator, pair) => operator.apply(pair.0.number(facts)?, pair.1.number(facts)?),
            Int::If(parts) if parts.0.holds(facts) => parts.1.number(facts),
            Int::If(parts) => parts.2.number(facts),
        }
    }
}

/// Decimal digits, perhaps after a minus.
fn parse(bytes: &[u8]) -> Option<i64> {
    if bytes.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// XXH3, 64 bits, seed 0, without its lowest bit: never negative, and the same on every machine and in
/// every release, because people split their users by it.
fn hash(bytes: &[u8]) -> i64 {
    (xxhash_rust::xxh3::xxh3_64(bytes) >> 1) as i64
}

/// The hash of the address as text, so that `hash(client.address)` is `hash("192.0.2.7")`.
fn hash_address(address: IpAddr) -> i64 {
    // The longest text is an IPv6 address with an embedded IPv4 one: 45 bytes.
    let mut text = [0u8; 64];
    let mut room = &mut text[..];
    let written = write!(room, "{}", address.to_canonical()).is_ok();
    let left = room.len();
    debug_assert!(written, "an address fits");
    hash(&text[..text.len() - left])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_merged_and_families_kept_apart() {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "10.255.0.0/16", "::/0"];
        let nets: Vec<Network> = nets.iter().map(|net| net.parse().unwrap()).collect();
        let set = Networks::new(&nets);
        assert_eq!(set.0.len(), 3);
        for (address, expected) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:10.1.1.1", true),
            ("::ffff:11.1.1.1", false),
            ("2001:db8::1", true),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), expected, "{address}");
        }
        assert!(!Networks::new(&[]).contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_hash_is_stable_and_an_address_hashes_as_its_text() {
        assert_eq!(hash(b""), (0x2d06_8005_38d3_94c2_u64 >> 1) as i64);
        for text in ["192.0.2.7", "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert_eq!(hash_address(text.parse().unwrap()), hash(text.as_bytes()), "{text}");
        }
    }
}
