//! What interfaces this machine has: one dump of the kernel's links, as `ip -d link` shows them.
//!
//! Owns nothing beyond one look. Netlink answers for the network namespace of the process, where `/sys` is
//! that of its mount, and it alone says which VNI a VXLAN interface carries. Reading a message is pure.

use super::netlink::{
    DATAGRAM, HEADER, IFLA_IFNAME, INFO, NLMSG_DONE, NLMSG_ERROR, RTM_GETLINK, RTM_NEWLINK,
    attributes, messages, number, refusal, text,
};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

/// Flags of an interface that is switched on, and of one that can carry frames, netdevice(7).
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;
/// NLM_F_REQUEST, and with NLM_F_DUMP, netlink(7).
const ONE: u16 = 0x1;
const DUMP: u16 = 0x301;
/// Attributes of a link, from Linux's include/uapi/linux/if_link.h.
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
/// Inside IFLA_LINKINFO.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
/// Inside IFLA_INFO_DATA of a VXLAN interface.
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
/// Inside IFLA_INFO_SLAVE_DATA of a bridge's port.
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_NEIGH_SUPPRESS: u16 = 32;

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
    /// The longest packet that it takes, in bytes.
    pub mtu: u32,
    /// The index of the bridge (or the like) that it is a port of.
    pub master: Option<u32>,
    /// What kind it is, in the kernel's word (`bridge`, `vxlan`); empty for a plain one.
    pub kind: String,
    /// What a VXLAN interface carries.
    pub vxlan: Option<Vxlan>,
    /// How it behaves as a port of a bridge.
    pub port: Option<Port>,
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
}

/// An interface's part as a port of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Port {
    /// Whether the bridge learns addresses from it.
    pub learning: bool,
    /// Whether the bridge answers ARP for it, and keeps it from leaving there.
    pub neigh_suppress: bool,
}

/// All interfaces of this process's network namespace.
///
/// # Errors
/// The kernel refused.
pub fn dump() -> io::Result<Vec<Interface>> {
    let mut interfaces = Vec::new();
    ask(&request(DUMP, None), |kind, message| match kind {
        NLMSG_DONE => Some(Ok(())),
        NLMSG_ERROR => Some(Err(refusal(message))),
        _ => {
            interfaces.extend(read(message).filter(|_| kind == RTM_NEWLINK));
            None
        }
    })?;
    Ok(interfaces)
}

/// The interface of this name in this process's network namespace, if there is one.
///
/// # Errors
/// The kernel refused.
pub fn named(name: &str) -> io::Result<Option<Interface>> {
    ask(&request(ONE, Some(name)), |kind, message| match kind {
        RTM_NEWLINK => Some(Ok(read(message))),
        NLMSG_ERROR => Some(match refusal(message) {
            error if error.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(None),
            error => Err(error),
        }),
        _ => None,
    })
}

/// Sends `request`, and gives `hear` each message of the answer until it returns what came of it.
fn ask<T>(
    request: &[u8],
    mut hear: impl FnMut(u16, &[u8]) -> Option<io::Result<T>>,
) -> io::Result<T> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        for (kind, message) in messages(&datagram[..length]) {
            if let Some(answer) = hear(kind, message) {
                return answer;
            }
        }
    }
}

/// A request for links: for all, or for the one of this name.
fn request(flags: u16, name: Option<&str>) -> Vec<u8> {
    let mut request = vec![0; HEADER + INFO];
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    if let Some(name) = name {
        // An attribute's header of 4 bytes, and the name with the NUL that ends it.
        let length = 4 + name.len() as u16 + 1;
        request.extend(length.to_ne_bytes());
        request.extend(IFLA_IFNAME.to_ne_bytes());
        request.extend(name.as_bytes());
        request.push(0);
        request.resize(request.len().next_multiple_of(4), 0);
    }
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request
}

/// Reads a message of type RTM_NEWLINK or RTM_DELLINK about an interface.
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
            IFLA_MASTER => interface.master = Some(u32::from_ne_bytes(number(value, 0)?)),
            IFLA_LINKINFO => read_info(value, &mut interface),
            _ => {}
        }
    }
    Some(interface)
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
    if let Some(data) = find(IFLA_INFO_SLAVE_DATA) {
        interface.port = Some(read_port(data));
    }
}

fn read_vxlan(data: &[u8]) -> Vxlan {
    let mut vxlan = Vxlan::default();
    for (kind, value) in attributes(data) {
        match kind {
            IFLA_VXLAN_ID => vxlan.id = number(value, 0).map_or(0, u32::from_ne_bytes),
            IFLA_VXLAN_LOCAL => vxlan.local = number::<4>(value, 0).map(Ipv4Addr::from),
            IFLA_VXLAN_LEARNING => vxlan.learning = value.first() == Some(&1),
            _ => {}
        }
    }
    vxlan
}

/// Reads the settings of a port.
pub(super) fn read_port(data: &[u8]) -> Port {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// vxlan7 as Linux 6.1 tells of it, shortened.
    fn vxlan7() -> Vec<u8> {
        let vxlan = [
            attribute(IFLA_VXLAN_ID, &7_u32.to_ne_bytes()),
            attribute(IFLA_VXLAN_LOCAL, &[10, 0, 1, 11]),
            attribute(IFLA_VXLAN_LEARNING, &[1]),
        ]
        .concat();
        let port = [
            attribute(IFLA_BRPORT_LEARNING, &[0]),
            attribute(IFLA_BRPORT_NEIGH_SUPPRESS, &[1]),
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
        message.extend(attribute(IFLA_MASTER, &11_u32.to_ne_bytes()));
        message.extend(attribute(IFLA_LINKINFO, &info));
        message
    }

    #[test]
    fn a_port_of_a_bridge_is_read_whole() {
        let expected = Interface {
            name: "vxlan7".into(),
            index: 12,
            up: true,
            running: true,
            mtu: 1500,
            master: Some(11),
            kind: "vxlan".into(),
            vxlan: Some(Vxlan {
                id: 7,
                local: Some(Ipv4Addr::new(10, 0, 1, 11)),
                learning: true,
            }),
            port: Some(Port {
                learning: false,
                neigh_suppress: true,
            }),
        };
        assert_eq!(read(&vxlan7()), Some(expected));
    }

    /// Input: a message cut off anywhere, or with any one byte changed. Output: no panic, and it ends.
    #[test]
    fn broken_messages_are_survived() {
        let message = vxlan7();
        for at in 0..message.len() {
            read(&message[..at]);
            for value in [0, 1, 3, 4, 127, 255] {
                let mut broken = message.clone();
                broken[at] = value;
                read(&broken);
            }
        }
    }

    #[test]
    fn the_loopback_of_this_machine_is_found() {
        let interfaces = dump().unwrap();
        let loopback = interfaces.iter().find(|it| it.name == "lo").unwrap();
        assert!(loopback.index > 0 && loopback.mtu > 0);
        assert_eq!(loopback.vxlan, None);
        assert_eq!(named("lo").unwrap().as_ref(), Some(loopback));
        assert_eq!(named("no-such-link").unwrap(), None);
    }
}
