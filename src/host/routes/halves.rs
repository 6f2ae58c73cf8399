//! Pure: the two halves of a bridge's prefix, and which halves a bridge announces.
//!
//! A route with the bridge's own prefix would never be redistributed: zebra prefers the connected one
//! (`rib_choose_best` in FRR's zebra/zebra_rib.c). Its halves are also longer than the prefix that a gateway with OSPF
//! costs announces for the same VNI, so the gateway with the halves wins.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeSet;
use std::fmt;

/// A prefix of either family. The bits behind its length are 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits that `address` is in; `None` if its family has no such length.
    pub fn new(address: IpAddr, length: u8) -> Option<Prefix> {
        let host_bits = bits(address).checked_sub(length.into())?;
        let address = match address {
            IpAddr::V4(it) => {
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                Ipv4Addr::from(u32::from(it) & mask).into()
            }
            IpAddr::V6(it) => {
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Ipv6Addr::from(u128::from(it) & mask).into()
            }
        };
        Some(Prefix { address, length })
    }

    /// Its first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Whether it is one of IPv6.
    pub fn is_ipv6(self) -> bool {
        self.address.is_ipv6()
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
        let shift = bits(self.address).checked_sub(length.into())?;
        let upper = match self.address {
            IpAddr::V4(it) => Ipv4Addr::from(u32::from(it) | 1_u32.checked_shl(shift)?).into(),
            IpAddr::V6(it) => Ipv6Addr::from(u128::from(it) | 1_u128.checked_shl(shift)?).into(),
        };
        Some([self.address, upper].map(|address| Prefix { address, length }))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// How many bits an address of that family has.
fn bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// An address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The index of the interface.
    pub index: u32,
    /// The address itself.
    pub local: IpAddr,
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
    /// The IPv4 address that the gateway itself uses on it, as on the connected route. With IPv6 it chooses one of the
    /// interface's (RFC 6724).
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
/// halves and no stations. Link-local addresses (RFC 3927 section 2.7, RFC 4291 section 2.5.6) are not forwarded to.
pub fn routes_of(index: u32, addresses: &[Address]) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    for address in addresses {
        let (is_link_local, source) = match address.local {
            IpAddr::V4(it) => (it.is_link_local(), Some(it)),
            IpAddr::V6(it) => (it.is_unicast_link_local(), None),
        };
        if address.index != index || is_link_local {
            continue;
        }
        for prefix in address.prefix.halves().into_iter().flatten() {
            // `insert` keeps the route of the first address of a subnet: the kernel lists primary addresses first.
            routes.insert(Route {
                prefix,
                index,
                source,
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
        assert_eq!(Prefix::new(Ipv4Addr::LOCALHOST.into(), 33), None);
        let six = |text: &str, length| {
            let prefix = Prefix::new(text.parse().unwrap(), length).unwrap();
            Some(prefix.halves()?.map(|it| it.to_string()))
        };
        let both = |first: &str, second: &str| Some([first.to_owned(), second.to_owned()]);
        assert_eq!(
            six("fd64:0:0:7::1", 64),
            both("fd64:0:0:7::/65", "fd64:0:0:7:8000::/65")
        );
        assert_eq!(six("::", 0), both("::/1", "8000::/1"));
        assert_eq!(six("fd64::3", 127), both("fd64::2/128", "fd64::3/128"));
        assert_eq!(six("fd64::3", 128), None);
        assert_eq!(Prefix::new(Ipv6Addr::LOCALHOST.into(), 129), None);
    }

    #[test]
    fn a_prefix_contains_longer_ones_and_itself() {
        let prefix = |address: [u8; 4], length| Prefix::new(address.into(), length).unwrap();
        let wide = prefix([10, 64, 0, 0], 10);
        assert!(wide.contains(wide) && wide.contains(prefix([10, 127, 9, 1], 24)));
        assert!(!wide.contains(prefix([10, 128, 0, 0], 24)));
        assert!(!prefix([10, 64, 0, 0], 24).contains(wide));
        assert!(prefix([0; 4], 0).contains(wide));
        let all_of_ipv6 = Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0).unwrap();
        assert!(!all_of_ipv6.contains(wide) && !prefix([0; 4], 0).contains(all_of_ipv6));
    }

    /// Input: addresses of two bridges; one has two in one subnet, a link-local and a single one, in both families.
    /// Output: both halves of each subnet once, with the first address of IPv4 as source.
    #[test]
    fn a_bridge_announces_each_subnet_once() {
        let address = |index, local: [u8; 4], length| Address {
            index,
            local: local.into(),
            prefix: Prefix::new(local.into(), length).unwrap(),
        };
        let six = |local: &str, length| Address {
            index: 7,
            local: local.parse().unwrap(),
            prefix: Prefix::new(local.parse().unwrap(), length).unwrap(),
        };
        let addresses = [
            address(7, [10, 64, 7, 1], 24),
            address(7, [10, 64, 7, 2], 24),
            address(8, [10, 64, 8, 1], 24),
            address(7, [169, 254, 1, 1], 16),
            address(7, [192, 0, 2, 1], 32),
            address(7, [10, 65, 0, 9], 30),
            six("fd64:0:0:7::1", 64),
            six("fe80::1", 64),
            six("fd64:0:0:7::99", 128),
        ];
        let routes: Vec<(String, Option<Ipv4Addr>)> = routes_of(7, &addresses)
            .iter()
            .map(|route| (route.prefix.to_string(), route.source))
            .collect();
        let expected = [
            ("10.64.7.0/25", Some([10, 64, 7, 1])),
            ("10.64.7.128/25", Some([10, 64, 7, 1])),
            ("10.65.0.8/31", Some([10, 65, 0, 9])),
            ("10.65.0.10/31", Some([10, 65, 0, 9])),
            ("fd64:0:0:7::/65", None),
            ("fd64:0:0:7:8000::/65", None),
        ];
        assert_eq!(
            routes,
            expected.map(|(prefix, source)| (prefix.to_owned(), source.map(Ipv4Addr::from)))
        );
        assert!(routes_of(9, &addresses).is_empty());
    }
}
