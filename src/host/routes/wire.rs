//! Pure: route netlink messages (rtnetlink(7)) about routes and addresses, to and from the kernel.
//!
//! Written here rather than taken from a crate: four messages are needed, and `host::netlink` takes datagrams apart
//! already.

use super::halves::{Address, Prefix, Route};
use crate::host::address::{self, Origin};
use crate::host::netlink::{HEADER, NLMSG_ERROR, attributes, messages, number, refusal};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::io;

/// The route protocol that marks wmgwd's routes. Neither Linux's include/uapi/linux/rtnetlink.h nor
/// FRR's zebra/rt_netlink.h uses the number; zebra would take those of the latter for its own, and not redistribute
/// them (`is_selfroute`).
pub const PROTOCOL: u8 = 119;

/// Message types, from Linux's include/uapi/linux/rtnetlink.h.
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
/// Flags of a request, from include/uapi/linux/netlink.h.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
/// Flag of a part of a dump: something changed since its first part.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// socket(2), and what a route is, from include/uapi/linux/rtnetlink.h.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
/// Length of a rtmsg, of an ifaddrmsg.
const RTMSG: usize = 12;
const IFADDRMSG: usize = 8;
/// Attributes of a route, from include/uapi/linux/rtnetlink.h.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
/// Attributes of an address, from include/uapi/linux/if_addr.h.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// The family of a route or an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        }
    }
}

/// What to do with a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Make it. Refused with EEXIST if the prefix has a route already.
    Add,
    /// Take it away. Refused with ESRCH if there is none of ours.
    Delete,
}

/// A change of a route; the kernel acknowledges it under `sequence`.
pub fn change(action: Action, route: &Route, sequence: u32) -> Vec<u8> {
    let (kind, flags) = match action {
        Action::Add => (
            RTM_NEWROUTE,
            NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        ),
        Action::Delete => (RTM_DELROUTE, NLM_F_REQUEST | NLM_F_ACK),
    };
    let family = match route.prefix.is_ipv6() {
        true => Family::V6,
        false => Family::V4,
    };
    let mut body = rtmsg(family, route.prefix.length(), RT_SCOPE_LINK).to_vec();
    match route.prefix.address() {
        IpAddr::V4(it) => push_attribute(&mut body, RTA_DST, &it.octets()),
        IpAddr::V6(it) => push_attribute(&mut body, RTA_DST, &it.octets()),
    }
    push_attribute(&mut body, RTA_OIF, &route.index.to_ne_bytes());
    if let (Action::Add, Some(source)) = (action, route.source) {
        push_attribute(&mut body, RTA_PREFSRC, &source.octets());
    }
    message(kind, flags, sequence, &body)
}

/// Asks for the routes of ours of a family. A socket without NETLINK_GET_STRICT_CHK gets those of others too.
pub fn routes_request(family: Family, sequence: u32) -> Vec<u8> {
    message(
        RTM_GETROUTE,
        NLM_F_REQUEST | NLM_F_DUMP,
        sequence,
        &rtmsg(family, 0, 0),
    )
}

/// Asks for the addresses of all interfaces of a family.
pub fn addresses_request(family: Family, sequence: u32) -> Vec<u8> {
    let mut body = [0; IFADDRMSG];
    body[0] = family.number();
    message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, sequence, &body)
}

fn rtmsg(family: Family, length: u8, scope: u8) -> [u8; RTMSG] {
    let mut body = [0; RTMSG];
    body[0] = family.number();
    body[1] = length;
    body[4] = RT_TABLE_MAIN;
    body[5] = PROTOCOL;
    body[6] = scope;
    body[7] = RTN_UNICAST;
    body
}

/// Appends an attribute whose value is of 4 or 16 bytes.
fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    // No message here is longer than 100 bytes.
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// What the kernel tells of routes and addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// A route of ours is there.
    Route(Route),
    /// A route of ours is gone.
    RouteGone(Route),
    /// An interface has this address.
    Address(Address),
    /// An interface of this index has lost an address.
    AddressGone(u32),
}

/// What a datagram of the kernel says, in order; what is about something else is left out.
pub fn news(datagram: &[u8]) -> Vec<News> {
    let read = |(kind, message)| match kind {
        RTM_NEWROUTE => read_route(message).map(News::Route),
        RTM_DELROUTE => read_route(message).map(News::RouteGone),
        RTM_NEWADDR => read_address(message).map(News::Address),
        RTM_DELADDR => read_address(message).map(|it| News::AddressGone(it.index)),
        _ => None,
    };
    messages(datagram).filter_map(read).collect()
}

/// Whether what a dump told changed while it was told.
pub fn is_interrupted(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while let (Some(length), Some(flags)) = (number(rest, 0), number(rest, 6)) {
        if u16::from_ne_bytes(flags) & NLM_F_DUMP_INTR != 0 {
            return true;
        }
        let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(usize::MAX);
        let next = length.max(HEADER).checked_next_multiple_of(4);
        rest = next.and_then(|next| rest.get(next..)).unwrap_or_default();
    }
    false
}

/// The acknowledgements in a datagram: the sequence number of each change, and the kernel's refusal if it refused.
pub fn acknowledgements(datagram: &[u8]) -> Vec<(u32, Option<io::Error>)> {
    let read = |(kind, message): (u16, &[u8])| {
        // struct nlmsgerr: the error, and the header of the message that it answers.
        let code = i32::from_ne_bytes(number(message, 0)?);
        let sequence = u32::from_ne_bytes(number(message, 12)?);
        (kind == NLMSG_ERROR).then(|| (sequence, (code != 0).then(|| refusal(message))))
    };
    messages(datagram).filter_map(read).collect()
}

/// A route of ours.
fn read_route(message: &[u8]) -> Option<Route> {
    let head: [u8; RTMSG] = number(message, 0)?;
    let is_ours = (head[4], head[5], head[7]) == (RT_TABLE_MAIN, PROTOCOL, RTN_UNICAST);
    // A default route has no RTA_DST.
    let default = match head[0] {
        AF_INET => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let ip = |value: &[u8]| match default {
        IpAddr::V4(_) => number::<4>(value, 0).map(IpAddr::from),
        IpAddr::V6(_) => number::<16>(value, 0).map(IpAddr::from),
    };
    let (mut destination, mut index, mut source) = (None, None, None);
    for (kind, value) in attributes(message.get(RTMSG..)?).filter(|_| is_ours) {
        match kind {
            RTA_DST => destination = ip(value),
            RTA_OIF => index = number(value, 0).map(u32::from_ne_bytes),
            RTA_PREFSRC if default.is_ipv4() => {
                source = number::<4>(value, 0).map(Ipv4Addr::from);
            }
            _ => {}
        }
    }
    Some(Route {
        prefix: Prefix::new(destination.unwrap_or(default), head[1])?,
        index: index?,
        source,
    })
}

fn read_address(message: &[u8]) -> Option<Address> {
    let head: [u8; IFADDRMSG] = number(message, 0)?;
    match head[0] {
        AF_INET => {}
        AF_INET6 => return read_address6(message),
        _ => return None,
    }
    let (mut address, mut local) = (None, None);
    for (kind, value) in attributes(message.get(IFADDRMSG..)?) {
        match kind {
            // The same as IFA_LOCAL, but of a point-to-point address the other end.
            IFA_ADDRESS => address = number::<4>(value, 0).map(Ipv4Addr::from),
            IFA_LOCAL => local = number::<4>(value, 0).map(Ipv4Addr::from),
            _ => {}
        }
    }
    Some(Address {
        index: u32::from_ne_bytes(number(message, 4)?),
        local: local.or(address)?.into(),
        prefix: Prefix::new(address.or(local)?.into(), head[1])?,
    })
}

/// An IPv6 address that an operator or a program gave: what the kernel made of a Router Advertisement is no subnet of
/// the gateway's own.
fn read_address6(message: &[u8]) -> Option<Address> {
    let read = address::read(message).filter(|it| it.origin == Origin::Given)?;
    Some(Address {
        index: read.index,
        local: read.ip,
        prefix: Prefix::new(read.ip, read.prefix)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn route(source: Option<[u8; 4]>) -> Route {
        Route {
            prefix: Prefix::new([10, 64, 7, 128].into(), 25).unwrap(),
            index: 77,
            source: source.map(Ipv4Addr::from),
        }
    }

    /// As `ip route add 10.64.7.128/25 dev br7 proto 119 scope link src 10.64.7.1` sends it, seen with strace.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_new_route_as_iproute2_sends_it() {
        let expected = [
            &[52, 0, 0, 0, 24, 0, 0x05, 0x06, 9, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 25, 0, 0, 254, 119, 253, 1, 0, 0, 0, 0],
            &[8, 0, 1, 0, 10, 64, 7, 128],
            &[8, 0, 4, 0, 77, 0, 0, 0],
            &[8, 0, 7, 0, 10, 64, 7, 1],
        ];
        let made = change(Action::Add, &route(Some([10, 64, 7, 1])), 9);
        assert_eq!(made, expected.concat());
    }

    /// Input: what is sent. Output: read as the kernel would tell it again, and foreign routes are not.
    #[test]
    fn what_is_told_is_read() {
        let sent = route(Some([10, 64, 7, 1]));
        let mut datagram = change(Action::Add, &sent, 1);
        datagram.extend(change(Action::Delete, &sent, 2));
        let mut foreign = change(Action::Add, &sent, 3);
        foreign[HEADER + 5] = 16;
        datagram.extend(foreign);
        let told = news(&datagram);
        assert_eq!(told, [News::Route(sent), News::RouteGone(sent)]);
        assert!(matches!(told[0], News::Route(it) if it.source == sent.source));
        assert!(news(&datagram[..40]).is_empty());
        let six = Route {
            prefix: Prefix::new("fd64:0:0:7:8000::".parse().unwrap(), 65).unwrap(),
            index: 77,
            source: None,
        };
        let datagram = change(Action::Add, &six, 1);
        assert_eq!(datagram[HEADER..HEADER + 2], [AF_INET6, 65]);
        assert_eq!(news(&datagram), [News::Route(six)]);
    }

    #[test]
    fn addresses_are_read() {
        let tell = |kind, attributes: &[(u16, [u8; 4])]| {
            let mut body = vec![2, 24, 0x80, 0];
            body.extend(77_u32.to_ne_bytes());
            for (kind, value) in attributes {
                push_attribute(&mut body, *kind, value);
            }
            news(&message(kind, 0, 0, &body))
        };
        let address = |local: [u8; 4], prefix: [u8; 4]| Address {
            index: 77,
            local: local.into(),
            prefix: Prefix::new(prefix.into(), 24).unwrap(),
        };
        let own = [10, 64, 7, 1];
        assert_eq!(
            tell(RTM_NEWADDR, &[(IFA_ADDRESS, own), (IFA_LOCAL, own)]),
            [News::Address(address(own, own))]
        );
        let peer = [10, 65, 7, 9];
        assert_eq!(
            tell(RTM_NEWADDR, &[(IFA_ADDRESS, peer), (IFA_LOCAL, own)]),
            [News::Address(address(own, peer))]
        );
        assert_eq!(
            tell(RTM_DELADDR, &[(IFA_LOCAL, own)]),
            [News::AddressGone(77)]
        );
        assert!(tell(RTM_NEWADDR, &[]).is_empty());
        let six = |ip: &str, proto: u8| {
            let ip: Ipv6Addr = ip.parse().unwrap();
            let mut body = vec![AF_INET6, 64, 0x82, 0];
            body.extend(77_u32.to_ne_bytes());
            push_attribute(&mut body, IFA_ADDRESS, &ip.octets());
            // IFA_PROTO, padded.
            body.extend([5, 0, 11, 0, proto, 0, 0, 0]);
            news(&message(RTM_NEWADDR, 0, 0, &body))
        };
        let given: IpAddr = "fd64:0:0:7::1".parse().unwrap();
        let expected = Address {
            index: 77,
            local: given,
            prefix: Prefix::new(given, 64).unwrap(),
        };
        assert_eq!(six("fd64:0:0:7::1", 0), [News::Address(expected)]);
        assert!(six("fd64:0:0:7::1", 2).is_empty(), "by the kernel");
    }

    #[test]
    fn acknowledgements_name_their_change() {
        let acknowledge = |code: i32, sequence: u32| {
            let mut body = code.to_ne_bytes().to_vec();
            body.extend(&change(Action::Add, &route(None), sequence)[..HEADER]);
            message(NLMSG_ERROR, 0, sequence, &body)
        };
        let told = acknowledgements(&[acknowledge(0, 5), acknowledge(-17, 6)].concat());
        assert_eq!(told.len(), 2);
        assert!(told[0].0 == 5 && told[0].1.is_none());
        let error = told[1].1.as_ref().unwrap();
        assert!(told[1].0 == 6 && error.kind() == io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn an_interrupted_dump_is_noticed() {
        let part = |flags| message(RTM_NEWADDR, flags, 0, &[2, 24, 0, 0, 1, 0, 0, 0]);
        assert!(!is_interrupted(&[part(2), part(2)].concat()));
        assert!(is_interrupted(
            &[part(2), part(2 | NLM_F_DUMP_INTR)].concat()
        ));
        assert!(!is_interrupted(&[0; 7]));
        assert!(!is_interrupted(&[0; 64]));
    }
}
