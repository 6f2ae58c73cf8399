//! Notices when a bridge comes up, so that its VNI can be announced again and served as soon as it is there.
//!
//! Owns one route netlink socket (rtnetlink(7)) that the kernel tells about links: free while nothing
//! happens, where reading `/sys` for 1 000 bridges takes a tenth of a second. Reading a message is pure.

use super::netlink::{
    DATAGRAM, IFLA_IFNAME, INFO, RTM_DELLINK, RTM_NEWLINK, attributes, messages, number, text,
};
use crate::model::types::Vni;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Multicast group of link changes, from Linux's include/uapi/linux/rtnetlink.h.
const RTMGRP_LINK: u32 = 1;
/// Flag of an interface that can carry frames, netdevice(7).
const IFF_RUNNING: u32 = 0x40;

/// Which bridges came up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Risen {
    /// These, since the last look.
    Bridges(BTreeSet<Vni>),
    /// More happened than the socket could hold: take every bridge for risen.
    Unknown,
}

/// Watches the links of this process's network namespace.
#[derive(Debug)]
pub struct LinkWatch {
    socket: OwnedFd,
    up: BTreeSet<Vni>,
    datagram: Vec<u8>,
}

impl LinkWatch {
    /// Begins to watch. A bridge that is up already counts as risen at its first change of any kind.
    ///
    /// # Errors
    /// The kernel refused the socket.
    pub fn open() -> io::Result<LinkWatch> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
        Ok(LinkWatch {
            socket,
            up: BTreeSet::new(),
            datagram: vec![0; DATAGRAM],
        })
    }

    /// Which bridges came up since the last look, or appeared being up. Never waits.
    ///
    /// # Errors
    /// The socket broke; open another.
    pub fn risen(&mut self) -> io::Result<Risen> {
        let mut risen = BTreeSet::new();
        let mut lost = false;
        loop {
            let length = match recv(
                self.socket.as_raw_fd(),
                &mut self.datagram,
                MsgFlags::empty(),
            ) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOBUFS) => {
                    self.up.clear();
                    lost = true;
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            for (vni, running) in changes(&self.datagram[..length]) {
                if !running {
                    self.up.remove(&vni);
                } else if self.up.insert(vni) {
                    risen.insert(vni);
                }
            }
        }
        Ok(if lost {
            Risen::Unknown
        } else {
            Risen::Bridges(risen)
        })
    }
}

impl AsFd for LinkWatch {
    /// Readable when there is something to look at (poll(2)).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The bridges that a datagram is about, in order, and whether each can carry frames now.
fn changes(datagram: &[u8]) -> Vec<(Vni, bool)> {
    messages(datagram)
        .filter_map(|(kind, message)| change(kind, message))
        .collect()
}

fn change(kind: u16, message: &[u8]) -> Option<(Vni, bool)> {
    // Family 0: about the interface itself, not about its being a port of a bridge.
    if ![RTM_NEWLINK, RTM_DELLINK].contains(&kind) || *message.first()? != 0 {
        return None;
    }
    let flags = u32::from_ne_bytes(number(message, 8)?);
    let (_, name) = attributes(message.get(INFO..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    let vni = text(name)?.strip_prefix("br")?.parse().ok()?;
    Some((vni, kind == RTM_NEWLINK && flags & IFF_RUNNING != 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::netlink::HEADER;
    use super::*;

    /// Length of an attribute's header.
    const ATTRIBUTE: usize = 4;

    fn message(kind: u16, family: u8, flags: u32, name: &str) -> Vec<u8> {
        let mut info = vec![0; INFO];
        info[0] = family;
        info[8..12].copy_from_slice(&flags.to_ne_bytes());
        let mtu: &[u8] = &[0, 0, 5, 220];
        for (attribute, value) in [(4_u16, mtu), (IFLA_IFNAME, name.as_bytes())] {
            let length = (ATTRIBUTE + value.len()) as u16;
            info.extend(length.to_ne_bytes());
            info.extend(attribute.to_ne_bytes());
            info.extend(value);
            info.resize(info.len().next_multiple_of(4), 0);
        }
        let mut message = ((HEADER + info.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend(info);
        message
    }

    #[test]
    fn links_are_read_and_foreign_ones_stepped_over() {
        let vni = |number| Vni::new(number).unwrap();
        let datagram = [
            message(RTM_NEWLINK, 0, 0x1043, "br7\0"),
            message(RTM_NEWLINK, 0, 0x1003, "br16777215\0"),
            message(RTM_NEWLINK, 7, 0x1043, "br8\0"),
            message(RTM_NEWLINK, 0, 0x1043, "bridge9\0"),
            message(99, 0, 0x1043, "br10\0"),
            message(RTM_DELLINK, 0, 0x1043, "br11\0"),
        ]
        .concat();
        assert_eq!(
            changes(&datagram),
            [(vni(7), true), (Vni::MAX, false), (vni(11), false)]
        );
    }

    /// Input: a datagram cut off anywhere, or with any one byte changed. Output: no panic, and it ends.
    #[test]
    fn broken_datagrams_are_survived() {
        let datagram = [
            message(RTM_NEWLINK, 0, 0x1043, "br7\0"),
            message(RTM_NEWLINK, 0, 0x1043, "br8\0"),
        ]
        .concat();
        for at in 0..datagram.len() {
            changes(&datagram[..at]);
            for value in [0, 1, 3, 4, 15, 16, 17, 127, 255] {
                let mut broken = datagram.clone();
                broken[at] = value;
                changes(&broken);
            }
        }
    }
}
