//! The addresses of this host's interfaces, and telling of one again: the kernel then notifies all who listen, as it
//! did when the address was added, and changes nothing.

use super::address::{ADDRESS, Address, Ipv6, Origin, read};
use super::bridges::LinkTable;
use super::links::{self, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK};
use super::netlink::{DATAGRAM, DUMP, NLMSG_ERROR, message, messages, refusal};
use crate::model::types::VniRange;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Message types, from Linux's include/uapi/linux/rtnetlink.h.
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// NLM_F_REQUEST, NLM_F_ACK and NLM_F_REPLACE, netlink(7).
const REPLACE: u16 = 0x105;

/// The addresses of this process's network namespace; without those of point-to-point links.
///
/// # Errors
/// The kernel refused.
pub fn dump() -> io::Result<Vec<Address>> {
    let mut addresses = Vec::new();
    let request = message(RTM_GETADDR, DUMP, &[0; ADDRESS]);
    links::dump_each(&request, RTM_NEWADDR, &mut |message| {
        addresses.extend(read(message));
    })?;
    Ok(addresses)
}

/// Has the kernel tell of `address` again. It must be there still: one that is gone would be added.
///
/// # Errors
/// The kernel refused.
pub fn tell_again(address: &Address) -> io::Result<()> {
    let socket = links::route_socket()?;
    let request = message(RTM_NEWADDR, REPLACE, &address.message);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut datagram = vec![0; DATAGRAM];
    let length = loop {
        match recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    let answer = messages(&datagram[..length]).find(|(kind, _)| *kind == NLMSG_ERROR);
    match answer.map(|(_, message)| refusal(message)) {
        // An acknowledgement is an error message with number 0, netlink(7).
        Some(error) if error.raw_os_error() != Some(0) => Err(error),
        _ => Ok(()),
    }
}

/// The IPv6 gateway addresses in this process's network namespace.
///
/// # Errors
/// The kernel refused.
pub fn look_for_ipv6(range: VniRange) -> io::Result<Ipv6> {
    let addresses = dump()?;
    let is_candidate =
        |it: &Address| it.ip.is_ipv6() && !it.ip.is_loopback() && it.origin == Origin::Given;
    if !addresses.iter().any(is_candidate) {
        return Ok(Ipv6::default());
    }
    let links = LinkTable::new(links::dump()?);
    Ok(Ipv6::new(&links, &addresses, range))
}

/// Hears when an interface or an address comes, goes or changes.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Begins to listen, for interfaces and IPv6 addresses.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open() -> io::Result<Watch> {
        links::subscribe(RTMGRP_LINK | RTMGRP_IPV6_IFADDR).map(Watch)
    }

    /// The same, and for IPv4 addresses.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open_for_all() -> io::Result<Watch> {
        links::subscribe(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR).map(Watch)
    }

    /// Whether something has changed since the last look, or may have.
    ///
    /// # Errors
    /// The socket broke; open another.
    pub fn look(&mut self) -> io::Result<bool> {
        let mut changed = false;
        let mut datagram = [0; 64];
        loop {
            match recv(self.0.as_raw_fd(), &mut datagram, MsgFlags::empty()) {
                // What does not fit is not read: all is looked at anew.
                Ok(_) | Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(changed),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Watch {
    /// Readable when there is something to look at (poll(2)).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
