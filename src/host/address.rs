//! Pure: the addresses of interfaces, read from netlink messages, and which of them are IPv6 gateway addresses, which
//! nf_tables switches (see [`super::nft::table`]).
//!
//! Each IPv6 address that the bridge of a VNI was given is a gateway address: all gateways have it. What the kernel made
//! (the link-local address of the bridge itself) is not.

use super::bridges::LinkTable;
use super::netlink::{attributes, number};
use crate::model::types::VniRange;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

/// Length in bytes of an ifaddrmsg, rtnetlink(7).
pub(super) const ADDRESS: usize = 8;
/// Address families, socket(2).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Attributes, from include/uapi/linux/if_addr.h. With IPv4, IFA_LOCAL is the interface's own address and IFA_ADDRESS
/// the other end's; with IPv6 there is IFA_ADDRESS alone unless there is another end.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
/// IFAPROT_KERNEL_RA and IFAPROT_KERNEL_LL.
const OF_KERNEL: [u8; 2] = [2, 3];
/// IFA_F_NODAD: the kernel does not look whether another has the address.
pub const NO_DAD: u32 = 0x2;
/// IFA_F_DADFAILED: another had it.
pub const DAD_FAILED: u32 = 0x8;
/// IFA_F_STABLE_PRIVACY (RFC 7217).
const STABLE_PRIVACY: u32 = 0x800;

/// An address of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The interface's index.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// The length of its network's prefix.
    pub prefix: u8,
    /// Whose it is.
    pub origin: Origin,
    /// IFA_F_*, of IPv6.
    pub flags: u32,
    /// All that the kernel tells of it.
    pub(crate) message: Vec<u8>,
}

/// Who has given an interface an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// An operator or a program.
    Given,
    /// The kernel: the interface's own link-local address, or one from a Router Advertisement.
    Kernel,
}

/// Reads a message of type RTM_NEWADDR.
pub(super) fn read(message: &[u8]) -> Option<Address> {
    let (family, prefix) = (*message.first()?, *message.get(1)?);
    let index = u32::from_ne_bytes(number(message, 4)?);
    let (mut local, mut other) = (None, None);
    let mut is_of_kernel = false;
    let mut flags = 0;
    for (kind, value) in attributes(message.get(ADDRESS..)?) {
        let ip = || match family {
            AF_INET => Some(IpAddr::from(Ipv4Addr::from(number::<4>(value, 0)?))),
            AF_INET6 => Some(IpAddr::from(Ipv6Addr::from(number::<16>(value, 0)?))),
            _ => None,
        };
        match kind {
            IFA_LOCAL => local = ip(),
            IFA_ADDRESS => other = ip(),
            IFA_PROTO => is_of_kernel |= value.iter().any(|it| OF_KERNEL.contains(it)),
            IFA_FLAGS => {
                flags = number(value, 0).map_or(0, u32::from_ne_bytes);
                is_of_kernel |= flags & STABLE_PRIVACY != 0;
            }
            _ => {}
        }
    }
    if local.is_some() && local != other {
        return None;
    }
    let ip = other?;
    // Linux before 5.18 does not tell: what is made of a MAC address (RFC 4291 appendix A) is the kernel's.
    is_of_kernel |= matches!(ip, IpAddr::V6(ip) if is_made_of_mac(ip));
    Some(Address {
        index,
        ip,
        prefix,
        origin: match is_of_kernel {
            true => Origin::Kernel,
            false => Origin::Given,
        },
        flags,
        message: message.to_vec(),
    })
}

/// Whether a link-local address is made of a MAC address.
pub(super) fn is_made_of_mac(ip: Ipv6Addr) -> bool {
    ip.is_unicast_link_local() && ip.octets()[11..13] == [0xff, 0xfe]
}

/// What there is of IPv6 on the bridges of VNIs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ipv6 {
    /// The bridges that have gateway addresses, by name, and the own link-local address of each.
    pub bridges: BTreeMap<String, Option<Ipv6Addr>>,
    /// The gateway addresses.
    pub shared: BTreeSet<Ipv6Addr>,
}

impl Ipv6 {
    /// The gateway addresses of the bridges of `range`, also of those that wmgwd has marked and that have another name
    /// now: these must be silent.
    pub fn new(table: &LinkTable, addresses: &[Address], range: VniRange) -> Ipv6 {
        let mut ours = BTreeMap::new();
        for vni in table.vnis(range) {
            for index in table.indices(vni) {
                ours.extend(table.name(index).map(|name| (index, name)));
            }
        }
        let mut ipv6 = Ipv6::default();
        let mut own = BTreeMap::new();
        for address in addresses {
            let (Some(name), IpAddr::V6(ip)) = (ours.get(&address.index), address.ip) else {
                continue;
            };
            match address.origin {
                Origin::Given => {
                    ipv6.bridges.insert((*name).to_owned(), None);
                    ipv6.shared.insert(ip);
                }
                Origin::Kernel if ip.is_unicast_link_local() => drop(own.insert(*name, ip)),
                Origin::Kernel => {}
            }
        }
        for (name, ip) in own {
            if let Some(known) = ipv6.bridges.get_mut(name) {
                *known = Some(ip);
            }
        }
        ipv6
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::netlink::attribute;

    fn told(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let head = [family, 24, 0, 0, 7, 0, 0, 0];
        let index = 7_u32.to_ne_bytes();
        [&head[..4], &index, &attributes.concat()].concat()
    }

    #[test]
    fn an_address_is_read_and_kept_whole() {
        let (one, two) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let message = told(
            AF_INET,
            &[attribute(IFA_ADDRESS, &one), attribute(IFA_LOCAL, &one)],
        );
        let address = read(&message).unwrap();
        assert_eq!((address.index, address.prefix), (7, 24));
        assert_eq!(address.ip, IpAddr::from(one));
        assert_eq!(address.message, message);
        let point_to_point = [attribute(IFA_ADDRESS, &two), attribute(IFA_LOCAL, &one)];
        assert_eq!(read(&told(AF_INET, &point_to_point)), None);
        let six = attribute(IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets());
        let address = read(&told(AF_INET6, &[six])).unwrap();
        assert_eq!(address.ip, IpAddr::from(Ipv6Addr::LOCALHOST));
        assert_eq!(read(&message[..ADDRESS + 7]), None, "cut off");
    }

    /// Input: link-local addresses that an operator gave, and that the kernel made: by protocol, by flag, or of a MAC
    /// address. Output: told apart.
    #[test]
    fn an_address_of_the_kernel_is_known() {
        let origin = |ip: &str, more: &[Vec<u8>]| {
            let ip: Ipv6Addr = ip.parse().unwrap();
            let all = [&[attribute(IFA_ADDRESS, &ip.octets())], more].concat();
            read(&told(AF_INET6, &all)).unwrap().origin
        };
        let flags = |flags: u32| attribute(IFA_FLAGS, &flags.to_ne_bytes());
        let proto = |proto: u8| attribute(IFA_PROTO, &[proto]);
        for (ip, more, expected) in [
            ("fe80::1", vec![flags(0x82)], Origin::Given),
            ("fe80::1", vec![flags(0x82), proto(4)], Origin::Given),
            ("fe80::5", vec![flags(0x80), proto(3)], Origin::Kernel),
            ("2001:db8::5", vec![proto(2)], Origin::Kernel),
            ("fe80::1234", vec![flags(0x880)], Origin::Kernel),
            ("fe80::4:ff:fe00:7", vec![], Origin::Kernel),
            ("2001:db8::4:ff:fe00:7", vec![], Origin::Given),
        ] {
            assert_eq!(origin(ip, &more), expected, "{ip}");
        }
    }
}
