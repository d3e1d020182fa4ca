//! Which addresses are public, and what an address stands for.
//!
//! Promise: an address that leads to this machine, to a private network or to nowhere in particular is never
//! taken for a public one, in whatever IPv6 form its IPv4 address is wrapped. From the special-purpose
//! registries of IANA (RFC 6890) and RFC 6598, 6052, 3056, 4380, 9637; what IANA has not given out is not
//! public either.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

macro_rules! ranges {
    ($($range:literal $what:literal,)*) => {
        /// Special ranges, the most specific first.
        const RANGES: &[(&str, &str)] = &[$(($range, $what),)*];
    };
}

ranges! {
    "0.0.0.0/8" "this network",
    "10.0.0.0/8" "private",
    "100.64.0.0/10" "shared by a carrier's customers",
    "127.0.0.0/8" "loopback",
    "169.254.0.0/16" "link-local",
    "172.16.0.0/12" "private",
    "192.0.0.0/24" "for protocols",
    "192.0.2.0/24" "for documentation",
    "192.88.99.0/24" "a 6to4 relay",
    "192.168.0.0/16" "private",
    "198.18.0.0/15" "for benchmarks",
    "198.51.100.0/24" "for documentation",
    "203.0.113.0/24" "for documentation",
    "224.0.0.0/4" "multicast",
    "240.0.0.0/4" "reserved",
    "::/128" "unspecified",
    "::1/128" "loopback",
    "::/96" "an IPv4 address in an outdated form",
    "64:ff9b:1::/48" "translated to IPv4 locally",
    "100::/8" "for discarding",
    "2001::/23" "for protocols",
    "2001:db8::/32" "for documentation",
    "3fff::/20" "for documentation",
    "fc00::/7" "private",
    "fe80::/10" "link-local",
    "fec0::/10" "site-local",
    "ff00::/8" "multicast",
    "::/3" "not assigned",
    "4000::/2" "not assigned",
    "8000::/1" "not assigned",
}

/// IPv6 ranges whose addresses carry an IPv4 address: range, bits behind it at which the address begins.
const WRAPPING: &[(&str, u32)] =
    &[("64:ff9b::/96", 96), ("::ffff:0:0:0/96", 96), ("2002::/16", 16), ("::/96", 96)];

/// A range of addresses that are not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// The range.
    pub range: IpNet,
    /// What it is for, as words after "the address is".
    pub what: &'static str,
}

/// The special ranges, parsed once.
#[derive(Clone, Debug)]
pub(super) struct Scopes {
    special: Vec<Special>,
    wrapping: Vec<(IpNet, u32)>,
}

impl Scopes {
    /// The table.
    pub(super) fn new() -> Scopes {
        // A test holds that every row parses.
        let net = |text: &str| text.parse::<IpNet>().ok();
        let special = RANGES.iter().filter_map(|&(text, what)| Some(Special { range: net(text)?, what }));
        let wrapping = WRAPPING.iter().filter_map(|&(text, at)| Some((net(text)?, at)));
        Scopes { special: special.collect(), wrapping: wrapping.collect() }
    }

    /// The IPv4 address that an IPv6 address carries in one of the forms of transition. Mapped addresses are
    /// IPv4 addresses already: see `to_canonical`.
    pub(super) fn carried(&self, address: IpAddr) -> Option<IpAddr> {
        let IpAddr::V6(v6) = address else { return None };
        let (_, at) = self.wrapping.iter().find(|(range, _)| range.contains(&address))?;
        Some(Ipv4Addr::from_bits((v6.to_bits() >> (96 - at)) as u32).into())
    }

    /// The range that makes an address not public; `None` for a public one. An address that carries an IPv4
    /// address is as public as that one, and what carries a special one is special as a whole.
    pub(super) fn special(&self, address: IpAddr) -> Option<Special> {
        let carrier = self.wrapping.iter().find(|(range, _)| range.contains(&address));
        if let (Some((range, _)), Some(inner)) = (carrier, self.carried(address))
            && range.addr() != IpAddr::from([0u16; 8])
        {
            return self.special(inner).map(|inside| Special { range: *range, what: inside.what });
        }
        self.special.iter().find(|special| special.range.contains(&address)).copied()
    }
}

impl Default for Scopes {
    fn default() -> Scopes {
        Scopes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(text: &str) -> Option<&'static str> {
        let address: IpAddr = text.parse().unwrap();
        Scopes::new().special(address.to_canonical()).map(|special| special.what)
    }

    #[test]
    fn every_row_of_the_tables_counts() {
        let scopes = Scopes::new();
        assert_eq!((scopes.special.len(), scopes.wrapping.len()), (RANGES.len(), WRAPPING.len()));
    }

    #[test]
    fn public_addresses_are_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "::ffff:1.1.1.1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert_eq!(special(text), None, "{text}");
        }
    }

    #[test]
    fn special_addresses_are_special_in_every_form() {
        for (text, expected) in [
            ("0.0.0.0", "this network"),
            ("0.1.2.3", "this network"),
            ("10.0.0.1", "private"),
            ("100.64.0.1", "shared by a carrier's customers"),
            ("100.127.255.255", "shared by a carrier's customers"),
            ("127.0.0.1", "loopback"),
            ("127.255.0.9", "loopback"),
            ("169.254.169.254", "link-local"),
            ("172.31.0.1", "private"),
            ("192.168.1.1", "private"),
            ("192.0.2.1", "for documentation"),
            ("198.19.0.1", "for benchmarks"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::127.0.0.1", "an IPv4 address in an outdated form"),
            ("::8.8.8.8", "an IPv4 address in an outdated form"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.1.2.3", "private"),
            ("::ffff:0:127.0.0.1", "loopback"),
            ("64:ff9b::127.0.0.1", "loopback"),
            ("64:ff9b::a9fe:a9fe", "link-local"),
            ("64:ff9b:1::8.8.8.8", "translated to IPv4 locally"),
            ("2002:7f00:1::", "loopback"),
            ("2002:c0a8:101::1", "private"),
            ("2001:0:4136:e378::1", "for protocols"),
            ("2001:db8::1", "for documentation"),
            ("3fff::1", "for documentation"),
            ("fc00::1", "private"),
            ("fd12::1", "private"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("100::1", "for discarding"),
            ("5f00::1", "not assigned"),
            ("::2:0:0:1", "not assigned"),
            ("8000::1", "not assigned"),
            ("e000::1", "not assigned"),
        ] {
            assert_eq!(special(text), Some(expected), "{text}");
        }
    }
}
