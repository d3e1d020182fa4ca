//! Lists of networks, of any length.
//!
//! Promise: a lookup is a binary search in each family, whatever the length of the list; mapped addresses count as
//! IPv4 on both sides.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::line_file;
use crate::problem::{At, Problems};
use crate::value::Network;

/// Addresses, as ranges of each family; those of a file are added when it is loaded.
#[derive(Debug, Default)]
pub struct List {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    file: Option<PathBuf>,
}

impl List {
    /// These networks, and those that stand in a file once it is loaded.
    pub fn new(networks: &[Network], file: Option<&String>) -> List {
        let mut list = List { file: file.map(PathBuf::from), ..List::default() };
        networks.iter().for_each(|network| list.add(*network));
        list.settle();
        list
    }

    /// Reads its file, which the document names at `at`.
    pub fn load(&mut self, at: &At, problems: &mut Problems) {
        let Some(file) = self.file.take() else { return };
        self.read(&file, at, problems);
        self.settle();
    }

    fn read(&mut self, file: &Path, at: &At, problems: &mut Problems) {
        line_file::read(file, at, problems, &mut |entry, _| {
            // Many lists have a remark behind the address.
            let entry = entry.split('#').next().unwrap_or(entry).trim();
            self.add(entry.parse()?);
            Ok(())
        });
    }

    fn add(&mut self, network: Network) {
        // "::ffff:10.0.0.0/104" is 10.0.0.0/8: clients with mapped addresses count as IPv4.
        let (first, last) = (network.0.network().to_canonical(), network.0.broadcast().to_canonical());
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.v4.0.push((first.into(), last.into())),
            _ => {
                let bits = |address: IpAddr| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().into(),
                    IpAddr::V6(address) => address.into(),
                };
                self.v6.0.push((bits(first), bits(last)));
            }
        }
    }

    fn settle(&mut self) {
        self.v4.settle();
        self.v6.settle();
    }

    /// Whether the address is on it. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn names(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contain(address.into()),
            IpAddr::V6(address) => self.v6.contain(address.into()),
        }
    }
}

/// Ranges, first and last address; once settled they are sorted and do not touch.
#[derive(Debug, Default)]
struct Ranges<T>(Vec<(T, T)>);

impl<T: Copy + Ord> Ranges<T> {
    fn settle(&mut self) {
        self.0.sort_unstable();
        self.0.dedup_by(|next, kept| {
            let overlap = next.0 <= kept.1;
            if overlap {
                kept.1 = kept.1.max(next.1);
            }
            overlap
        });
        self.0.shrink_to_fit();
    }

    fn contain(&self, address: T) -> bool {
        // The ends are sorted as the starts are, since no two overlap.
        let place = self.0.partition_point(|(_, last)| *last < address);
        self.0.get(place).is_some_and(|(first, _)| *first <= address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Merged ranges say what the networks say one by one.
        #[test]
        fn lists_agree_with_their_networks(
            networks in prop::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            near in any::<u32>(),
        ) {
            let networks: Vec<Network> = networks
                .iter()
                .map(|(address, prefix)| format!("{}/{prefix}", std::net::Ipv4Addr::from(*address)).parse().unwrap())
                .collect();
            let list = List::new(&networks, None);
            let edges = networks.iter().flat_map(|network| {
                let bits = |address: IpAddr| match address { IpAddr::V4(v4) => u32::from(v4), IpAddr::V6(_) => 0 };
                let (first, last) = (bits(network.0.network()), bits(network.0.broadcast()));
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
            });
            for address in edges.chain([near]) {
                let address = IpAddr::from(std::net::Ipv4Addr::from(address));
                prop_assert_eq!(list.names(address), networks.iter().any(|network| network.contains(address)));
            }
        }
    }
}
