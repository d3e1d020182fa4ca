//! Hosts: what a route names, and what a request asks for, both in one spelling.
//!
//! Promise: case, a final dot, and the many spellings of one IPv6 address do not matter; a request's host
//! is brought into that spelling without allocating.

use std::cmp::Reverse;
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};

use super::Complaint;

/// The longest host that can be named: a DNS name has at most 253 characters (RFC 1035 section 2.3.4).
const LONGEST: usize = 255;

/// A host as a route names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    /// This one.
    Exact(Box<str>),
    /// Every name below this one.
    Below(Box<str>),
    /// Any, also none.
    Any,
}

/// How specific a host is: less comes first. Among the hosts that match one request it is a total order.
pub(super) type HostOrder = (u8, Reverse<usize>);

impl Host {
    /// Parses "shop.example", "*.shop.example", "192.0.2.7", "::1", "[::1]" or "*".
    pub(super) fn parse(text: &str) -> Result<Host, Complaint> {
        if text == "*" {
            return Ok(Host::Any);
        }
        if let Ok(IpAddr::V6(address)) = text.trim_matches(['[', ']']).parse() {
            return Ok(Host::Exact(format!("[{address}]").into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(below) => check(text, below).map(|()| Host::Below(below.into())),
            None => check(text, &name).map(|()| Host::Exact(name.into())),
        }
    }

    /// Whether it names this host, which is in canonical spelling.
    pub(super) fn matches(&self, host: &str) -> bool {
        match self {
            Host::Any => true,
            Host::Exact(name) => **name == *host,
            Host::Below(name) => {
                host.strip_suffix(&**name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }

    /// How specific it is.
    pub(super) fn order(&self) -> HostOrder {
        match self {
            Host::Exact(_) => (0, Reverse(0)),
            Host::Below(name) => (1, Reverse(labels(name))),
            Host::Any => (2, Reverse(0)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Exact(name) => f.write_str(name),
            Host::Below(name) => write!(f, "*.{name}"),
            Host::Any => f.write_str("*"),
        }
    }
}

/// The number of labels of a name.
pub(super) fn labels(name: &str) -> usize {
    name.split('.').count()
}

/// The names above `host` with at most `most` labels, the shortest first: for "a.b.c" "c", then "b.c".
pub(super) fn above(host: &str, most: usize) -> impl Iterator<Item = &str> {
    // A dot at position 0 has no label before it.
    host.bytes()
        .enumerate()
        .rev()
        .filter(|(at, byte)| *byte == b'.' && *at > 0)
        .take(most)
        .map(|(at, _)| &host[at + 1..])
}

fn check(text: &str, name: &str) -> Result<(), Complaint> {
    let hint = match text {
        _ if text.contains("://") || text.contains('/') => "write the host alone: \"shop.example\"",
        _ if text.contains(':') => "a host has no port here; use `listeners` to tell ports apart",
        _ if text.contains('*') => "a wildcard is the whole first label: \"*.shop.example\", or \"*\" alone",
        _ if !text.is_ascii() => "write the name as it is sent, in punycode: \"xn--bcher-kva.example\"",
        _ => "write a name like \"shop.example\", \"*.shop.example\" or \"*\"",
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    match name.len() < LONGEST && name.split('.').all(label) {
        true => Ok(()),
        false => Err(Complaint::new(format!("`{text}` is not a host"), hint)),
    }
}

/// Room for the canonical spelling of a request's host.
pub(super) struct Spelling([u8; LONGEST]);

impl Spelling {
    /// Room.
    pub(super) fn new() -> Spelling {
        Spelling([0; LONGEST])
    }

    /// The canonical spelling of a request's host (without port): lower case, without final dot, the short
    /// form of an IPv6 literal. A host that is too long to be named has none, and only any-host routes match.
    pub(super) fn of<'a>(&'a mut self, host: &'a str) -> &'a str {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'))
            && let Ok(address) = inner.parse::<Ipv6Addr>()
        {
            let mut free = &mut self.0[..];
            // The longest IPv6 address has 45 characters: writing it cannot fail.
            let _ = write!(free, "[{address}]");
            let used = LONGEST - free.len();
            return std::str::from_utf8(&self.0[..used]).unwrap_or("");
        }
        if host.len() > LONGEST {
            return "";
        }
        if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return host;
        }
        let lower = &mut self.0[..host.len()];
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        std::str::from_utf8(lower).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_in_one_spelling() {
        for (written, asked, matches) in [
            ("shop.example", "shop.example", true),
            ("Shop.Example.", "SHOP.example", true),
            ("shop.example", "shop.example.", true),
            ("shop.example", "a.shop.example", false),
            ("*.shop.example", "a.shop.example", true),
            ("*.shop.example", "a.B.shop.example", true),
            ("*.shop.example", "shop.example", false),
            ("*.shop.example", ".shop.example", false),
            ("*.shop.example", "bookshop.example", false),
            ("[::1]", "[0:0:0:0:0:0:0:1]", true),
            ("::1", "[::1]", true),
            ("2001:DB8::1", "[2001:db8:0::1]", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("*", "", true),
        ] {
            let host = Host::parse(written).unwrap();
            assert_eq!(host.matches(Spelling::new().of(asked)), matches, "{written} {asked}");
        }
        assert_eq!(Spelling::new().of(&"a".repeat(300)), "");
    }

    #[test]
    fn a_wrong_host_is_refused_with_a_fitting_hint() {
        for (text, hint) in [
            ("shop.example:80", "port"),
            ("http://shop.example", "alone"),
            ("shop.*", "wildcard"),
            ("*shop.example", "wildcard"),
            ("*.*.shop.example", "wildcard"),
            ("bücher.example", "punycode"),
            ("", "shop.example"),
            ("a..b", "shop.example"),
            ("a b", "shop.example"),
        ] {
            let complaint = Host::parse(text).unwrap_err();
            assert!(
                complaint.hint.as_deref().is_some_and(|given| given.contains(hint)),
                "{text}: {complaint:?}"
            );
        }
    }

    #[test]
    fn names_above_a_host_come_shortest_first_and_are_bounded() {
        assert_eq!(above("a.b.c", 9).collect::<Vec<_>>(), ["c", "b.c"]);
        assert_eq!(above("a.b.c", 1).collect::<Vec<_>>(), ["c"]);
        assert_eq!(above("c", 9).count(), 0);
        assert_eq!(above(".c", 9).count(), 0);
    }
}
