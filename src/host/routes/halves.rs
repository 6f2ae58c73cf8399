//! Pure: the two halves of a bridge's prefix, and which halves a bridge announces.
//!
//! A route with the bridge's own prefix would never be redistributed: zebra prefers the connected one
//! (`rib_choose_best` in FRR's zebra/zebra_rib.c). Its halves are also longer than the prefix that a gateway with OSPF
//! costs announces for the same VNI, so the gateway with the halves wins.

use core::net::Ipv4Addr;
use std::collections::BTreeSet;
use std::fmt;

/// An IPv4 prefix. The bits behind its length are 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    address: Ipv4Addr,
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits that `address` is in; `None` if IPv4 has no such length.
    pub fn new(address: Ipv4Addr, length: u8) -> Option<Prefix> {
        let host_bits = 32_u32.checked_sub(length.into())?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        let address = Ipv4Addr::from(u32::from(address) & mask);
        Some(Prefix { address, length })
    }

    /// Its first address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// How many bits it fixes.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Prefix) -> bool {
        self.length <= other.length && Prefix::new(other.address, self.length) == Some(self)
    }

    /// Its two halves; `None` of a single address.
    pub fn halves(self) -> Option<[Prefix; 2]> {
        let length = self.length + 1;
        let bit = 1_u32.checked_shl(32_u32.checked_sub(length.into())?)?;
        let upper = Ipv4Addr::from(u32::from(self.address) | bit);
        Some([self.address, upper].map(|address| Prefix { address, length }))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// An IPv4 address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The index of the interface.
    pub index: u32,
    /// The address itself.
    pub local: Ipv4Addr,
    /// The prefix that it makes reachable.
    pub prefix: Prefix,
}

/// A route through an interface, as wmgwd makes them. Two routes are the same if prefix and interface are.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Where it leads.
    pub prefix: Prefix,
    /// The index of the interface that it leads through.
    pub index: u32,
    /// The address that the gateway itself uses on it, as on the connected route.
    pub source: Option<Ipv4Addr>,
}

impl Route {
    fn key(&self) -> (Prefix, u32) {
        (self.prefix, self.index)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Route) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Route {}

impl PartialOrd for Route {
    fn partial_cmp(&self, other: &Route) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Route {
    fn cmp(&self, other: &Route) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// The routes that announce the subnets of the interface `index`: both halves of each prefix. A single address has no
/// halves and no stations. Link-local addresses (RFC 3927 section 2.7) are not forwarded to.
pub fn routes_of(index: u32, addresses: &[Address]) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    for address in addresses {
        if address.index != index || address.local.is_link_local() {
            continue;
        }
        for prefix in address.prefix.halves().into_iter().flatten() {
            // `insert` keeps the route of the first address of a subnet: the kernel lists primary addresses first.
            routes.insert(Route {
                prefix,
                index,
                source: Some(address.local),
            });
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn halves(address: [u8; 4], length: u8) -> Option<Vec<String>> {
        let prefix = Prefix::new(address.into(), length).unwrap();
        Some(prefix.halves()?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_length_has_its_halves() {
        let both = |first: &str, second: &str| Some(vec![first.to_owned(), second.to_owned()]);
        assert_eq!(
            halves([10, 64, 7, 1], 24),
            both("10.64.7.0/25", "10.64.7.128/25")
        );
        assert_eq!(
            halves([10, 64, 7, 1], 22),
            both("10.64.4.0/23", "10.64.6.0/23")
        );
        assert_eq!(halves([255; 4], 0), both("0.0.0.0/1", "128.0.0.0/1"));
        assert_eq!(
            halves([10, 0, 0, 3], 31),
            both("10.0.0.2/32", "10.0.0.3/32")
        );
        assert_eq!(halves([10, 0, 0, 3], 32), None);
        assert_eq!(Prefix::new(Ipv4Addr::LOCALHOST, 33), None);
    }

    #[test]
    fn a_prefix_contains_longer_ones_and_itself() {
        let prefix = |address: [u8; 4], length| Prefix::new(address.into(), length).unwrap();
        let wide = prefix([10, 64, 0, 0], 10);
        assert!(wide.contains(wide) && wide.contains(prefix([10, 127, 9, 1], 24)));
        assert!(!wide.contains(prefix([10, 128, 0, 0], 24)));
        assert!(!prefix([10, 64, 0, 0], 24).contains(wide));
        assert!(prefix([0; 4], 0).contains(wide));
    }

    /// Input: addresses of two bridges; one has two in one subnet, a link-local and a single one. Output: both halves
    /// of each subnet once, with the first address as source.
    #[test]
    fn a_bridge_announces_each_subnet_once() {
        let address = |index, local: [u8; 4], length| Address {
            index,
            local: local.into(),
            prefix: Prefix::new(local.into(), length).unwrap(),
        };
        let addresses = [
            address(7, [10, 64, 7, 1], 24),
            address(7, [10, 64, 7, 2], 24),
            address(8, [10, 64, 8, 1], 24),
            address(7, [169, 254, 1, 1], 16),
            address(7, [192, 0, 2, 1], 32),
            address(7, [10, 65, 0, 9], 30),
        ];
        let routes: Vec<(String, Ipv4Addr)> = routes_of(7, &addresses)
            .iter()
            .map(|route| (route.prefix.to_string(), route.source.unwrap()))
            .collect();
        let expected = [
            ("10.64.7.0/25", [10, 64, 7, 1]),
            ("10.64.7.128/25", [10, 64, 7, 1]),
            ("10.65.0.8/31", [10, 65, 0, 9]),
            ("10.65.0.10/31", [10, 65, 0, 9]),
        ];
        assert_eq!(
            routes,
            expected.map(|(prefix, source)| (prefix.to_owned(), source.into()))
        );
        assert!(routes_of(9, &addresses).is_empty());
    }
}
