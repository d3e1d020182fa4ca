//! What is dark: addresses and routes whose tunnels stay registered and get no requests; and gray, in which all
//! requests go through what is dark and nothing else.
//!
//! Promise: one model for what the document says and what somebody ordered while it ran; orders outlive a reload and
//! end with the process; where nothing is dark, nothing is gray.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::Tunnel;
use crate::value::Network;

/// Orders that are kept of each kind: each makes every new tunnel cost a little.
const MOST: usize = 1000;

/// Which tunnels a request uses, and which shelf a tunnel stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shade {
    /// Those that are not dark.
    Lit,
    /// Those that are.
    Dark,
}

/// What can be dark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Every tunnel from this address.
    Address(IpAddr),
    /// Every tunnel of this route; empty: of the one that serves every path.
    Route(Box<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Address(address) => write!(f, "{address}"),
            Subject::Route(route) if route.is_empty() => f.write_str("*"),
            Subject::Route(route) => f.write_str(route),
        }
    }
}

/// Why an order was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disobeyed {
    /// It is not dark.
    NotDark,
    /// The document says it: there it must be changed.
    Written,
    /// So many are dark by order already.
    TooMany,
    /// Nothing is dark.
    NothingDark,
}

/// What is dark.
#[derive(Debug, Default)]
pub(super) struct Darkness {
    networks: Vec<Network>,
    routes: Vec<Box<str>>,
    ordered_addresses: BTreeSet<IpAddr>,
    ordered_routes: BTreeSet<Box<str>>,
    is_gray: bool,
}

impl Darkness {
    /// Takes over what a document says.
    pub(super) fn write(&mut self, networks: Vec<Network>, routes: Vec<Box<str>>) {
        (self.networks, self.routes) = (networks, routes);
        self.is_gray &= self.is_on();
    }

    /// Whether anything is dark.
    pub(super) fn is_on(&self) -> bool {
        let written = self.networks.len() + self.routes.len();
        written + self.ordered_addresses.len() + self.ordered_routes.len() > 0
    }

    pub(super) fn is_gray(&self) -> bool {
        self.is_gray
    }

    /// Where a tunnel stands.
    pub(super) fn shade(&self, address: IpAddr, route: &str) -> Shade {
        match self.has_address(address) || self.has_route(route) {
            true => Shade::Dark,
            false => Shade::Lit,
        }
    }

    /// Where this tunnel stands.
    pub(super) fn shade_of(&self, tunnel: &Tunnel) -> Shade {
        self.shade(tunnel.origin.peer.ip(), &tunnel.origin.route)
    }

    /// Where requests look.
    pub(super) fn used(&self) -> Shade {
        if self.is_gray { Shade::Dark } else { Shade::Lit }
    }

    pub(super) fn has_route(&self, route: &str) -> bool {
        self.ordered_routes.contains(route) || self.routes.iter().any(|dark| **dark == *route)
    }

    fn has_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.ordered_addresses.contains(&address)
            || self.networks.iter().any(|network| network.contains(address))
    }

    /// Whether exactly this is dark, whoever says so.
    pub(super) fn has(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Address(address) => self.has_address(*address),
            Subject::Route(route) => self.has_route(route),
        }
    }

    /// Makes something dark; twice is as good as once.
    pub(super) fn order(&mut self, subject: Subject) -> Result<(), Disobeyed> {
        let (count, is_known) = match &subject {
            Subject::Address(address) => {
                (self.ordered_addresses.len(), self.ordered_addresses.contains(address))
            }
            Subject::Route(route) => (self.ordered_routes.len(), self.ordered_routes.contains(route)),
        };
        if count >= MOST && !is_known {
            return Err(Disobeyed::TooMany);
        }
        match subject {
            Subject::Address(address) => _ = self.ordered_addresses.insert(address.to_canonical()),
            Subject::Route(route) => _ = self.ordered_routes.insert(route),
        }
        Ok(())
    }

    /// Takes an order back. Nothing is gray afterwards.
    pub(super) fn revoke(&mut self, subject: &Subject) -> Result<(), Disobeyed> {
        let was_ordered = match subject {
            Subject::Address(address) => self.ordered_addresses.remove(&address.to_canonical()),
            Subject::Route(route) => self.ordered_routes.remove(route),
        };
        match was_ordered {
            true => self.is_gray = false,
            false if self.has(subject) => return Err(Disobeyed::Written),
            false => return Err(Disobeyed::NotDark),
        }
        Ok(())
    }

    /// Whether requests use what is dark.
    pub(super) fn set_gray(&mut self, is_gray: bool) -> Result<(), Disobeyed> {
        match self.is_on() {
            true => self.is_gray = is_gray,
            false => return Err(Disobeyed::NothingDark),
        }
        Ok(())
    }

    /// Networks and addresses, in order.
    pub(super) fn addresses(&self) -> Vec<String> {
        let ordered = self.ordered_addresses.iter().map(IpAddr::to_string);
        let mut all: Vec<String> = self.networks.iter().map(Network::to_string).chain(ordered).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Routes, in order; `*` for the one that serves every path.
    pub(super) fn routes(&self) -> Vec<String> {
        let all = self.routes.iter().chain(&self.ordered_routes);
        let mut all: Vec<String> =
            all.map(|route| if route.is_empty() { "*".to_owned() } else { route.to_string() }).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn orders_and_the_document_are_one_and_orders_outlive_it() {
        let mut darkness = Darkness::default();
        darkness.write(vec!["10.0.0.0/8".parse().unwrap()], vec!["shop".into()]);
        darkness.order(Subject::Address(address("192.0.2.7"))).unwrap();
        darkness.order(Subject::Route("office".into())).unwrap();
        assert_eq!(darkness.addresses(), ["10.0.0.0/8", "192.0.2.7"]);
        assert_eq!(darkness.routes(), ["office", "shop"]);
        assert_eq!(darkness.shade(address("10.1.1.1"), "x"), Shade::Dark);
        assert_eq!(darkness.shade(address("::ffff:192.0.2.7"), "x"), Shade::Dark);
        assert_eq!(darkness.shade(address("192.0.2.8"), "office"), Shade::Dark);
        assert_eq!(darkness.shade(address("192.0.2.8"), "x"), Shade::Lit);
        assert_eq!(darkness.revoke(&Subject::Route("shop".into())), Err(Disobeyed::Written));
        assert_eq!(darkness.revoke(&Subject::Route("x".into())), Err(Disobeyed::NotDark));
        darkness.write(Vec::new(), Vec::new());
        assert!(darkness.is_on());
        darkness.revoke(&Subject::Address(address("192.0.2.7"))).unwrap();
        darkness.revoke(&Subject::Route("office".into())).unwrap();
        assert!(!darkness.is_on());
    }

    #[test]
    fn gray_needs_something_dark_and_ends_with_it() {
        let mut darkness = Darkness::default();
        assert_eq!(darkness.set_gray(true), Err(Disobeyed::NothingDark));
        darkness.order(Subject::Route("a".into())).unwrap();
        darkness.order(Subject::Route("b".into())).unwrap();
        darkness.set_gray(true).unwrap();
        assert_eq!(darkness.used(), Shade::Dark);
        // As in the original router: whatever is taken back turns it off.
        darkness.revoke(&Subject::Route("a".into())).unwrap();
        assert_eq!(darkness.used(), Shade::Lit);
        let mut written = Darkness::default();
        written.write(Vec::new(), vec!["a".into()]);
        written.set_gray(true).unwrap();
        written.write(Vec::new(), Vec::new());
        assert!(!written.is_gray());
    }

    #[test]
    fn orders_are_bounded() {
        let mut darkness = Darkness::default();
        for number in 0..MOST {
            darkness.order(Subject::Route(format!("r{number}").into())).unwrap();
        }
        assert_eq!(darkness.order(Subject::Route("one more".into())), Err(Disobeyed::TooMany));
        assert_eq!(darkness.order(Subject::Route("r1".into())), Ok(()), "it is there already");
        assert_eq!(darkness.order(Subject::Address(address("2001:db8::1"))), Ok(()));
    }
}
