//! Pure: the kernel's links, as `ip -d link` shows them, read from netlink messages.
//!
//! Netlink answers for the network namespace of the process, where `/sys` is that of its mount, and it alone says
//! which VNI a VXLAN interface carries.

use super::netlink::{
    DUMP, IFLA_AF_SPEC, IFLA_EXT_MASK, IFLA_IFNAME, INFO, REQUEST, RTM_DELLINK, RTM_GETLINK,
    RTM_NEWLINK, attribute, attributes, message, messages, number, text,
};
use core::net::Ipv4Addr;
use std::collections::BTreeSet;

/// Flag of an interface that is switched on, netdevice(7).
const IFF_UP: u32 = 1;
/// Flag of an interface that can carry frames, netdevice(7).
const IFF_RUNNING: u32 = 0x40;
/// Address families, socket(2): of a message about an interface, and about its being a port of a bridge.
const AF_UNSPEC: u8 = 0;
const AF_BRIDGE: u8 = 7;
const AF_INET: u16 = 2;
/// Attributes of a link, from Linux's include/uapi/linux/if_link.h.
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_XDP: u16 = 43;
const IFLA_CARRIER_UP_COUNT: u16 = 47;
/// Inside IFLA_XDP: how a program is attached, 0 if there is none.
const IFLA_XDP_ATTACHED: u16 = 2;
/// In IFLA_EXT_MASK: no counters, from include/uapi/linux/rtnetlink.h. Kernels before 4.4 do not know it.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
/// Inside IFLA_AF_SPEC's AF_INET, from include/uapi/linux/if_link.h: an array of all settings below
/// `/proc/sys/net/ipv4/conf/<name>`, in the order of include/uapi/linux/ip.h, which begins with 1.
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_TAG: usize = 12;
const IPV4_DEVCONF_ARP_IGNORE: usize = 19;
/// Inside IFLA_LINKINFO.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
/// Inside IFLA_INFO_DATA of a VXLAN interface.
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PROXY: u16 = 11;
const IFLA_VXLAN_PORT: u16 = 15;
/// Inside IFLA_INFO_SLAVE_DATA of a bridge's port.
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_BCAST_FLOOD: u16 = 30;
const IFLA_BRPORT_NEIGH_SUPPRESS: u16 = 32;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRPORT_LOCKED: u16 = 39;
/// Inside IFLA_INFO_DATA of a bridge.
const IFLA_BR_VLAN_FILTERING: u16 = 7;
/// State of a port through which frames pass, from include/uapi/linux/if_bridge.h.
const BR_STATE_FORWARDING: u8 = 3;

/// One interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index, by which others name it.
    pub index: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it can carry frames.
    pub running: bool,
    /// How often its carrier has come up; 0 if the kernel (before 4.16) does not count that.
    pub carrier_ups: u32,
    /// The longest packet that it takes, in bytes.
    pub mtu: u32,
    /// The index of the bridge (or the like) that it is a port of.
    pub master: Option<u32>,
    /// The index of the interface that it is built on, as a macvlan is.
    pub lower: Option<u32>,
    /// What kind it is, in the kernel's word (`bridge`, `vxlan`); empty for a plain one.
    pub kind: String,
    /// What a VXLAN interface carries.
    pub vxlan: Option<Vxlan>,
    /// How it behaves as a port of a bridge.
    pub port: Option<Port>,
    /// Whether the bridge, of which it is a port, lets no frames through (spanning tree).
    pub blocked: bool,
    /// Whether the bridge keeps broadcasts from leaving there.
    pub keeps_broadcasts: bool,
    /// Whether the bridge lets no frames cross from there to another such port.
    pub isolated: bool,
    /// Whether the bridge drops what comes from there and has a sender that it does not know.
    pub locked: bool,
    /// Whether it is a bridge that filters by VLAN.
    pub filters_vlans: bool,
    /// Whether an XDP program looks at what arrives there.
    pub has_xdp: bool,
    /// Its `arp_ignore`, if the kernel tells that.
    pub arp_ignore: Option<u32>,
    /// Its `tag`: a number that the kernel keeps for an interface and makes no use of (ip-sysctl.rst).
    pub tag: Option<u32>,
}

/// The VXLAN part of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vxlan {
    /// The VNI that it carries; 0 if it carries all.
    pub id: u32,
    /// The address that its packets come from.
    pub local: Option<Ipv4Addr>,
    /// Whether it learns addresses from what it receives.
    pub learning: bool,
    /// Whether it answers ARP itself, and keeps it from leaving.
    pub proxy: bool,
    /// The UDP port that it sends to and receives at.
    pub port: u16,
}

/// An interface's part as a port of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Port {
    /// Whether the bridge learns addresses from it.
    pub learning: bool,
    /// Whether the bridge answers ARP for it, and keeps it from leaving there.
    pub neigh_suppress: bool,
}

/// What a message of the kernel says of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// It is like this now.
    Link(Interface),
    /// It is gone.
    Gone(u32),
    /// As a port of a bridge it behaves like this now.
    Port(u32, Port),
}

/// What a datagram of the kernel says, in order; what is about something else is left out.
pub fn link_events(datagram: &[u8]) -> Vec<LinkEvent> {
    messages(datagram)
        .filter_map(|(kind, message)| read_event(kind, message))
        .collect()
}

fn read_event(kind: u16, message: &[u8]) -> Option<LinkEvent> {
    let index = u32::from_ne_bytes(number(message, 4)?);
    match (kind, *message.first()?) {
        (RTM_NEWLINK, AF_UNSPEC) => read(message).map(LinkEvent::Link),
        (RTM_DELLINK, AF_UNSPEC) => Some(LinkEvent::Gone(index)),
        (RTM_NEWLINK, AF_BRIDGE) => {
            let mut parts = attributes(message.get(INFO..)?);
            let (_, port) = parts.find(|(kind, _)| *kind == IFLA_PROTINFO)?;
            Some(LinkEvent::Port(index, read_port(port)))
        }
        _ => None,
    }
}

/// A request for the link of that name.
pub(super) fn request_for(name: &str) -> Vec<u8> {
    let name = [name.as_bytes(), b"\0"].concat();
    let body = [vec![0; INFO], attribute(IFLA_IFNAME, &name)].concat();
    message(RTM_GETLINK, REQUEST, &body)
}

/// A request for all links, without their counters.
pub(super) fn request() -> Vec<u8> {
    let mask = attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    message(RTM_GETLINK, DUMP, &[vec![0; INFO], mask].concat())
}

/// The interface that an RTM_NEWLINK message is about.
pub(super) fn read(message: &[u8]) -> Option<Interface> {
    let flags = u32::from_ne_bytes(number(message, 8)?);
    let mut interface = Interface {
        index: u32::from_ne_bytes(number(message, 4)?),
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        ..Interface::default()
    };
    for (kind, value) in attributes(message.get(INFO..)?) {
        match kind {
            IFLA_IFNAME => interface.name = text(value)?.to_owned(),
            IFLA_MTU => interface.mtu = u32::from_ne_bytes(number(value, 0)?),
            IFLA_LINK => interface.lower = Some(u32::from_ne_bytes(number(value, 0)?)),
            IFLA_MASTER => interface.master = Some(u32::from_ne_bytes(number(value, 0)?)),
            IFLA_LINKINFO => read_info(value, &mut interface),
            IFLA_AF_SPEC => read_settings(value, &mut interface),
            IFLA_XDP => {
                let mut parts = attributes(value);
                let attached = parts.find(|(kind, _)| *kind == IFLA_XDP_ATTACHED);
                interface.has_xdp = attached.is_some_and(|(_, how)| how.first() > Some(&0));
            }
            IFLA_CARRIER_UP_COUNT => {
                interface.carrier_ups = number(value, 0).map_or(0, u32::from_ne_bytes);
            }
            _ => {}
        }
    }
    Some(interface)
}

fn read_settings(families: &[u8], interface: &mut Interface) {
    let inet = attributes(families).find(|(family, _)| *family == AF_INET);
    let settings =
        inet.and_then(|(_, it)| attributes(it).find(|(kind, _)| *kind == IFLA_INET_CONF));
    let Some((_, settings)) = settings else {
        return;
    };
    // A kernel that knows fewer settings sends a shorter array.
    let setting = |number_of: usize| number(settings, 4 * (number_of - 1)).map(u32::from_ne_bytes);
    interface.arp_ignore = setting(IPV4_DEVCONF_ARP_IGNORE);
    interface.tag = setting(IPV4_DEVCONF_TAG);
}

fn read_info(info: &[u8], interface: &mut Interface) {
    let find = |wanted| {
        let mut found = attributes(info).filter(|(kind, _)| *kind == wanted);
        found.next().map(|(_, value)| value)
    };
    if let Some(kind) = find(IFLA_INFO_KIND).and_then(text) {
        interface.kind = kind.to_owned();
    }
    if let Some(data) = find(IFLA_INFO_DATA).filter(|_| interface.kind == "vxlan") {
        interface.vxlan = Some(read_vxlan(data));
    }
    if let Some(data) = find(IFLA_INFO_DATA).filter(|_| interface.kind == "bridge") {
        let mut settings = attributes(data);
        let filtering = settings.find(|(kind, _)| *kind == IFLA_BR_VLAN_FILTERING);
        interface.filters_vlans = filtering.is_some_and(|(_, it)| it.first() == Some(&1));
    }
    if let Some(data) = find(IFLA_INFO_SLAVE_DATA) {
        interface.port = Some(read_port(data));
        for (kind, value) in attributes(data) {
            let value = value.first().copied();
            match kind {
                IFLA_BRPORT_STATE => interface.blocked = value != Some(BR_STATE_FORWARDING),
                IFLA_BRPORT_BCAST_FLOOD => interface.keeps_broadcasts = value == Some(0),
                IFLA_BRPORT_ISOLATED => interface.isolated = value == Some(1),
                IFLA_BRPORT_LOCKED => interface.locked = value == Some(1),
                _ => {}
            }
        }
    }
}

fn read_vxlan(data: &[u8]) -> Vxlan {
    let mut vxlan = Vxlan::default();
    for (kind, value) in attributes(data) {
        match kind {
            IFLA_VXLAN_ID => vxlan.id = number(value, 0).map_or(0, u32::from_ne_bytes),
            IFLA_VXLAN_LOCAL => vxlan.local = number::<4>(value, 0).map(Ipv4Addr::from),
            IFLA_VXLAN_LEARNING => vxlan.learning = value.first() == Some(&1),
            IFLA_VXLAN_PROXY => vxlan.proxy = value.first() == Some(&1),
            IFLA_VXLAN_PORT => vxlan.port = number(value, 0).map_or(0, u16::from_be_bytes),
            _ => {}
        }
    }
    vxlan
}

fn read_port(data: &[u8]) -> Port {
    let mut port = Port::default();
    for (kind, value) in attributes(data) {
        match kind {
            IFLA_BRPORT_LEARNING => port.learning = value.first() == Some(&1),
            IFLA_BRPORT_NEIGH_SUPPRESS => port.neigh_suppress = value.first() == Some(&1),
            _ => {}
        }
    }
    port
}

/// The VLANs of a port of a bridge, or of the bridge itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vlans {
    /// The one that frames without a tag belong to.
    pub pvid: Option<u16>,
    /// Those whose frames leave without a tag.
    pub untagged: BTreeSet<u16>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// vxlan7 as Linux 6.1 tells of it, shortened.
    fn vxlan7() -> Vec<u8> {
        let vxlan = [
            attribute(IFLA_VXLAN_ID, &7_u32.to_ne_bytes()),
            attribute(IFLA_VXLAN_LOCAL, &[10, 0, 1, 11]),
            attribute(IFLA_VXLAN_LEARNING, &[1]),
            attribute(IFLA_VXLAN_PROXY, &[1]),
            attribute(IFLA_VXLAN_PORT, &4789_u16.to_be_bytes()),
        ]
        .concat();
        let port = [
            attribute(IFLA_BRPORT_STATE, &[4]),
            attribute(IFLA_BRPORT_BCAST_FLOOD, &[0]),
            attribute(IFLA_BRPORT_LEARNING, &[0]),
            attribute(IFLA_BRPORT_NEIGH_SUPPRESS, &[1]),
            attribute(IFLA_BRPORT_ISOLATED, &[1]),
            attribute(IFLA_BRPORT_LOCKED, &[1]),
        ]
        .concat();
        let info = [
            attribute(IFLA_INFO_KIND, b"vxlan\0"),
            // With the flag of a nested attribute, as newer kernels set it.
            attribute(IFLA_INFO_DATA | 0x8000, &vxlan),
            attribute(4, b"bridge\0"),
            attribute(IFLA_INFO_SLAVE_DATA, &port),
        ]
        .concat();
        let mut message = vec![0; INFO];
        message[4..8].copy_from_slice(&12_u32.to_ne_bytes());
        message[8..12].copy_from_slice(&0x1043_u32.to_ne_bytes());
        message.extend(attribute(IFLA_IFNAME, b"vxlan7\0"));
        message.extend(attribute(IFLA_MTU, &1500_u32.to_ne_bytes()));
        message.extend(attribute(IFLA_LINK, &9_u32.to_ne_bytes()));
        message.extend(attribute(IFLA_MASTER, &11_u32.to_ne_bytes()));
        message.extend(attribute(IFLA_LINKINFO, &info));
        message.extend(attribute(IFLA_CARRIER_UP_COUNT, &3_u32.to_ne_bytes()));
        message.extend(attribute(IFLA_XDP, &attribute(IFLA_XDP_ATTACHED, &[2])));
        let mut settings = [0; 4 * 33];
        settings[44..48].copy_from_slice(&7_u32.to_ne_bytes());
        settings[72..76].copy_from_slice(&8_u32.to_ne_bytes());
        let inet = attribute(AF_INET, &attribute(IFLA_INET_CONF, &settings));
        let inet6 = attribute(10, &attribute(1, &[0; 4]));
        message.extend(attribute(IFLA_AF_SPEC, &[inet6, inet].concat()));
        message
    }

    /// Input: what Linux 6.18 tells of br7 with the port vxlan7, byte for byte; then of a flag that goes off, a
    /// new name, and a port that goes. Output: what was set there.
    #[test]
    #[cfg(target_endian = "little")]
    fn what_a_kernel_says_is_read() {
        let seed = |name: &str| {
            let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds/links/");
            std::fs::read(format!("{seeds}{name}")).unwrap()
        };
        let [LinkEvent::Link(bridge), LinkEvent::Link(port)] = &link_events(&seed("dump"))[..]
        else {
            panic!("not two links");
        };
        assert_eq!((&*bridge.name, &*bridge.kind), ("br7", "bridge"));
        assert_eq!((bridge.arp_ignore, bridge.tag), (Some(8), Some(7)));
        assert!(bridge.running && bridge.carrier_ups > 0);
        assert!(!port.keeps_broadcasts);
        let flags = |neigh_suppress| Port {
            learning: false,
            neigh_suppress,
        };
        assert_eq!((port.index, port.master), (77, Some(bridge.index)));
        assert_eq!(
            port.vxlan.map(|vxlan| (vxlan.id, vxlan.learning)),
            Some((7, false))
        );
        assert_eq!(port.port, Some(flags(true)));
        let events = link_events(&seed("events"));
        assert!(
            events.contains(&LinkEvent::Port(77, flags(false))),
            "{events:?}"
        );
        assert!(events.contains(&LinkEvent::Gone(77)), "{events:?}");
        let renamed = |it: &LinkEvent| matches!(it, LinkEvent::Link(link) if link.index == bridge.index && link.name == "lan7" && link.tag == Some(7));
        assert!(events.iter().any(renamed), "{events:?}");
    }

    #[test]
    fn a_port_of_a_bridge_is_read_whole() {
        let expected = Interface {
            name: "vxlan7".into(),
            index: 12,
            up: true,
            running: true,
            carrier_ups: 3,
            mtu: 1500,
            master: Some(11),
            kind: "vxlan".into(),
            vxlan: Some(Vxlan {
                id: 7,
                local: Some(Ipv4Addr::new(10, 0, 1, 11)),
                learning: true,
                proxy: true,
                port: 4789,
            }),
            blocked: true,
            keeps_broadcasts: true,
            isolated: true,
            locked: true,
            filters_vlans: false,
            has_xdp: true,
            lower: Some(9),
            port: Some(Port {
                learning: false,
                neigh_suppress: true,
            }),
            arp_ignore: Some(8),
            tag: Some(7),
        };
        assert_eq!(read(&vxlan7()), Some(expected));
    }

    /// Input: what Linux says of a bridge that filters by VLAN, and of an interface whose XDP program is gone, each
    /// shortened. Output: the same.
    #[test]
    fn a_bridge_that_filters_by_vlan_is_read() {
        let info = [
            attribute(IFLA_INFO_KIND, b"bridge\0"),
            attribute(IFLA_INFO_DATA, &attribute(IFLA_BR_VLAN_FILTERING, &[1])),
        ]
        .concat();
        let mut message = vec![0; INFO];
        message.extend(attribute(IFLA_IFNAME, b"br7\0"));
        message.extend(attribute(IFLA_XDP, &attribute(IFLA_XDP_ATTACHED, &[0])));
        message.extend(attribute(IFLA_LINKINFO, &info));
        let bridge = read(&message).unwrap();
        assert!(bridge.filters_vlans && !bridge.has_xdp, "{bridge:?}");
    }

    /// Input: settings that end early, and none, as older kernels send them. Output: what is there.
    #[test]
    fn a_kernel_that_tells_less_is_read() {
        let read = |settings: &[u8]| {
            let mut message = vec![0; INFO];
            message.extend(attribute(IFLA_IFNAME, b"br7\0"));
            message.extend(settings);
            let interface = super::read(&message).unwrap();
            (interface.tag, interface.arp_ignore)
        };
        let conf = |length: usize| {
            let conf = attribute(IFLA_INET_CONF, &vec![1; length]);
            attribute(IFLA_AF_SPEC, &attribute(AF_INET, &conf))
        };
        let all_ones = Some(0x0101_0101);
        assert_eq!(read(&[]), (None, None));
        assert_eq!(read(&conf(0)), (None, None));
        assert_eq!(read(&conf(48)), (all_ones, None));
        assert_eq!(read(&conf(75)), (all_ones, None));
        assert_eq!(read(&conf(76)), (all_ones, all_ones));
    }

    /// Input: messages about links, about a port of a bridge, and about other things. Output: what they say.
    #[test]
    fn news_are_read_and_foreign_ones_stepped_over() {
        let mut port = vec![0; INFO];
        port[0] = AF_BRIDGE;
        port[4] = 12;
        let bare = port.clone();
        let flag = attribute(IFLA_BRPORT_NEIGH_SUPPRESS, &[1]);
        port.extend(attribute(IFLA_PROTINFO | 0x8000, &flag));
        let datagram = [
            message(RTM_NEWLINK, 0, &vxlan7()),
            message(99, 0, &vxlan7()),
            message(RTM_NEWLINK, 0, &port),
            message(RTM_NEWLINK, 0, &bare),
            message(RTM_DELLINK, 0, &bare),
            message(RTM_DELLINK, 0, &vxlan7()),
        ]
        .concat();
        let suppresses = Port {
            learning: false,
            neigh_suppress: true,
        };
        let expected = [
            LinkEvent::Link(read(&vxlan7()).unwrap()),
            LinkEvent::Port(12, suppresses),
            LinkEvent::Gone(12),
        ];
        assert_eq!(link_events(&datagram), expected);
    }

    /// Input: a message cut off anywhere, or with any one byte changed. Output: no panic, and it ends.
    #[test]
    fn broken_messages_are_survived() {
        let message = [
            message(RTM_NEWLINK, 0, &vxlan7()),
            message(RTM_NEWLINK, 0, &vxlan7()),
        ]
        .concat();
        for at in 0..message.len() {
            link_events(&message[..at]);
            for value in [0, 1, 3, 4, 15, 16, 17, 127, 255] {
                let mut broken = message.clone();
                broken[at] = value;
                link_events(&broken);
            }
        }
    }

    #[test]
    fn the_loopback_of_this_machine_is_found() {
        let interfaces = crate::host::links::dump().unwrap();
        let loopback = interfaces.iter().find(|it| it.name == "lo").unwrap();
        assert!(loopback.index > 0 && loopback.mtu > 0);
        assert_eq!(loopback.vxlan, None);
        let found = crate::host::links::find("lo").unwrap().unwrap();
        assert_eq!((found.index, &*found.name), (loopback.index, "lo"));
        assert_eq!(crate::host::links::find("wmgwd-none").unwrap(), None);
    }
}
