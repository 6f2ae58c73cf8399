//! Notices what happens to bridges and their VXLAN ports, so that a VNI can be announced again, served as soon as
//! its bridge is there, and silenced when its bridge gets another name.
//!
//! Owns one route netlink socket (rtnetlink(7)) that the kernel tells about links: free while nothing happens,
//! where reading `/sys` for 1 000 bridges takes a tenth of a second. Beside it stands a table of the links, so that
//! after an overrun of the socket only what really changed is reported. Reading a message is pure.

use super::interfaces::{self, Interface};
use super::netlink::{DATAGRAM, INFO, RTM_DELLINK, RTM_NEWLINK, attributes, messages, number};
use crate::model::types::Vni;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Multicast group of link changes, from Linux's include/uapi/linux/rtnetlink.h.
const RTMGRP_LINK: u32 = 1;
/// The family of messages about an interface itself, and about its being a port of a bridge (socket.h).
const AF_UNSPEC: u8 = 0;
const AF_BRIDGE: u8 = 7;
/// The port's settings in a message of family AF_BRIDGE, from include/uapi/linux/if_link.h.
const IFLA_PROTINFO: u16 = 12;

/// What changed since the last look.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkChanges {
    /// VNIs whose bridge came, went, came up (again) or got another name, or whose VXLAN interface joined or left it.
    pub vnis: BTreeSet<Vni>,
    /// VXLAN ports at which neighbour suppression was switched on or off.
    pub suppression: BTreeMap<Vni, bool>,
}

/// Watches the links of this process's network namespace.
#[derive(Debug)]
pub struct LinkWatch {
    socket: OwnedFd,
    table: Table,
    datagram: Vec<u8>,
}

impl LinkWatch {
    /// Begins to watch. What is there already is no change.
    ///
    /// # Errors
    /// The kernel refused the socket, or to tell of the links.
    pub fn open() -> io::Result<LinkWatch> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
        let mut table = Table::default();
        table.replace(&interfaces::dump()?);
        table.take();
        Ok(LinkWatch {
            socket,
            table,
            datagram: vec![0; DATAGRAM],
        })
    }

    /// What changed since the last look. Waits for nothing but, after an overrun, the kernel's list of links.
    ///
    /// # Errors
    /// The socket broke; open another.
    pub fn changes(&mut self) -> io::Result<LinkChanges> {
        let socket = self.socket.as_raw_fd();
        loop {
            match recv(socket, &mut self.datagram, MsgFlags::empty()) {
                Ok(length) => self.table.hear(&self.datagram[..length]),
                Err(Errno::EAGAIN) => return Ok(self.table.take()),
                Err(Errno::EINTR) => {}
                // Messages were lost. What follows in the socket is newer than this, or the same.
                Err(Errno::ENOBUFS) => self.table.replace(&interfaces::dump()?),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for LinkWatch {
    /// Readable when there is something to look at (poll(2)).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An interface that matters: one with the name of a VNI's bridge, or a VXLAN interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Link {
    bridge: Option<Vni>,
    running: bool,
    /// What a VXLAN interface carries, and its bridge.
    port: Option<(Vni, Option<u32>)>,
    suppresses: bool,
}

/// The links by their index, and what changed about them.
#[derive(Debug, Default)]
struct Table {
    links: BTreeMap<u32, Link>,
    changes: LinkChanges,
}

impl Table {
    fn take(&mut self) -> LinkChanges {
        std::mem::take(&mut self.changes)
    }

    /// Takes note of a datagram.
    fn hear(&mut self, datagram: &[u8]) {
        for (kind, message) in messages(datagram) {
            match (kind, message.first()) {
                (RTM_NEWLINK, Some(&AF_UNSPEC)) => {
                    interfaces::read(message)
                        .iter()
                        .for_each(|it| self.note(it));
                }
                (RTM_DELLINK, Some(&AF_UNSPEC)) => {
                    if let Some(interface) = interfaces::read(message) {
                        self.set(interface.index, Link::default());
                    }
                }
                (RTM_NEWLINK, Some(&AF_BRIDGE)) => drop(self.note_port(message)),
                _ => {}
            }
        }
    }

    /// Takes note of all links that there are.
    fn replace(&mut self, interfaces: &[Interface]) {
        let present: BTreeSet<u32> = interfaces.iter().map(|it| it.index).collect();
        let gone = self.links.keys().filter(|it| !present.contains(it));
        for index in gone.copied().collect::<Vec<_>>() {
            self.set(index, Link::default());
        }
        interfaces.iter().for_each(|it| self.note(it));
    }

    fn note(&mut self, interface: &Interface) {
        let before = self.links.get(&interface.index);
        let bridge = interface.name.strip_prefix("br");
        let vxlan = interface.vxlan.and_then(|it| Vni::new(it.id));
        let suppresses = match (interface.port, before) {
            (Some(port), _) => port.neigh_suppress,
            (None, before) => before.is_some_and(|it| it.suppresses),
        };
        let link = Link {
            bridge: bridge.and_then(|vni| vni.parse().ok()),
            running: interface.running,
            port: vxlan.map(|vni| (vni, interface.master)),
            suppresses: suppresses && vxlan.is_some(),
        };
        self.set(interface.index, link);
    }

    /// A message about a port alone.
    fn note_port(&mut self, message: &[u8]) -> Option<()> {
        let index = u32::from_ne_bytes(number(message, 4)?);
        let (_, settings) =
            attributes(message.get(INFO..)?).find(|(kind, _)| *kind == IFLA_PROTINFO)?;
        let mut link = self.links.get(&index)?.clone();
        link.suppresses = interfaces::read_port(settings).neigh_suppress;
        self.set(index, link);
        Some(())
    }

    fn set(&mut self, index: u32, link: Link) {
        let matters = link.bridge.is_some() || link.port.is_some();
        let before = match matters {
            true => self.links.insert(index, link.clone()),
            false => self.links.remove(&index),
        }
        .unwrap_or_default();
        let vnis = &mut self.changes.vnis;
        if before.bridge != link.bridge {
            vnis.extend(before.bridge);
            vnis.extend(link.bridge);
        } else if link.running && !before.running {
            vnis.extend(link.bridge);
        }
        if before.port != link.port {
            vnis.extend(before.port.map(|(vni, _)| vni));
            vnis.extend(link.port.map(|(vni, _)| vni));
        }
        if let Some((vni, _)) = link.port
            && link.suppresses != before.suppresses
        {
            self.changes.suppression.insert(vni, link.suppresses);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::netlink::{HEADER, IFLA_IFNAME};
    use super::*;
    use crate::host::interfaces::Vxlan;

    /// Length of an attribute's header.
    const ATTRIBUTE: usize = 4;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (ATTRIBUTE + value.len()) as u16;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, family: u8, index: u32, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut info = vec![0; INFO];
        info[0] = family;
        info[4..8].copy_from_slice(&index.to_ne_bytes());
        info[8..12].copy_from_slice(&flags.to_ne_bytes());
        info.extend(attributes.concat());
        let mut message = ((HEADER + info.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend(info);
        message
    }

    fn link(kind: u16, index: u32, flags: u32, name: &str) -> Vec<u8> {
        message(
            kind,
            AF_UNSPEC,
            index,
            flags,
            &[attribute(IFLA_IFNAME, name.as_bytes())],
        )
    }

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    fn heard(table: &mut Table, datagram: &[u8]) -> Vec<u32> {
        table.hear(datagram);
        table.take().vnis.iter().map(|vni| vni.get()).collect()
    }

    /// Input: messages about bridges and other links. Output: a bridge is reported when it comes, comes up, gets
    /// another name and goes; not when nothing of that changed.
    #[test]
    fn what_happens_to_a_bridge_is_reported_once() {
        let (up, down) = (0x1043, 0x1003);
        let mut table = Table::default();
        let datagram = [
            link(RTM_NEWLINK, 1, up, "br7\0"),
            link(RTM_NEWLINK, 2, down, "br16777215\0"),
            link(RTM_NEWLINK, 3, up, "bridge9\0"),
            link(99, 4, up, "br10\0"),
        ]
        .concat();
        assert_eq!(heard(&mut table, &datagram), [7, 16777215]);
        assert!(heard(&mut table, &datagram).is_empty());
        assert!(heard(&mut table, &link(RTM_NEWLINK, 1, down, "br7\0")).is_empty());
        assert_eq!(heard(&mut table, &link(RTM_NEWLINK, 1, up, "br7\0")), [7]);
        assert_eq!(heard(&mut table, &link(RTM_NEWLINK, 1, up, "lan7\0")), [7]);
        assert_eq!(
            heard(&mut table, &link(RTM_DELLINK, 2, down, "br16777215\0")),
            [16777215]
        );
        assert!(table.links.is_empty(), "{table:?}");
    }

    /// Input: an overrun, after which one of three bridges has come up, one is new and one is gone. Output: these
    /// alone.
    #[test]
    fn after_an_overrun_only_what_changed_is_reported() {
        let bridge = |index, vni: u32, running| Interface {
            index,
            name: format!("br{vni}"),
            running,
            ..Interface::default()
        };
        let mut table = Table::default();
        table.replace(&[bridge(1, 1, true), bridge(2, 2, false), bridge(3, 3, true)]);
        table.take();
        table.replace(&[bridge(1, 1, true), bridge(2, 2, true), bridge(4, 4, true)]);
        assert_eq!(table.take().vnis, [vni(2), vni(3), vni(4)].into());
        table.replace(&[bridge(1, 1, true), bridge(2, 2, true), bridge(4, 4, true)]);
        assert_eq!(table.take(), LinkChanges::default());
    }

    /// Input: a VXLAN interface joins a bridge, and its port's neighbour suppression is switched on and off. Output:
    /// each is reported once.
    #[test]
    fn a_port_is_followed() {
        let port = |master| Interface {
            index: 5,
            name: "vxlan7".into(),
            vxlan: Some(Vxlan {
                id: 7,
                ..Vxlan::default()
            }),
            master,
            ..Interface::default()
        };
        let mut table = Table::default();
        table.note(&port(None));
        table.take();
        table.note(&port(Some(1)));
        assert_eq!(table.take().vnis, [vni(7)].into());
        let suppresses = |on: u8| {
            // IFLA_BRPORT_NEIGH_SUPPRESS, in a nested attribute with its flag.
            let settings = attribute(32, &[on]);
            let nested = attribute(IFLA_PROTINFO | 0x8000, &settings);
            message(RTM_NEWLINK, AF_BRIDGE, 5, 0x1043, &[nested])
        };
        for on in [true, true, false] {
            table.hear(&suppresses(on.into()));
        }
        assert_eq!(table.take().suppression, [(vni(7), false)].into());
        table.hear(&suppresses(1));
        assert_eq!(table.take().suppression, [(vni(7), true)].into());
        // A message about the interface itself, without its port's settings, says nothing of them.
        table.note(&port(Some(1)));
        assert_eq!(table.take(), LinkChanges::default());
    }

    /// Input: a datagram cut off anywhere, or with any one byte changed. Output: no panic, and it ends.
    #[test]
    fn broken_datagrams_are_survived() {
        let nested = attribute(IFLA_PROTINFO, &attribute(32, &[1]));
        let datagram = [
            link(RTM_NEWLINK, 1, 0x1043, "br7\0"),
            message(RTM_NEWLINK, AF_BRIDGE, 1, 0, &[nested]),
            link(RTM_DELLINK, 1, 0x1043, "br7\0"),
        ]
        .concat();
        for at in 0..datagram.len() {
            Table::default().hear(&datagram[..at]);
            for value in [0, 1, 3, 4, 7, 15, 16, 17, 127, 255] {
                let mut broken = datagram.clone();
                broken[at] = value;
                Table::default().hear(&broken);
            }
        }
    }
}
