//! The addresses of this host's interfaces, and telling of one again: the kernel then notifies all who listen, as it
//! did when the address was added, and changes nothing.

use super::links;
use super::netlink::{DATAGRAM, DUMP, NLMSG_ERROR, attributes, message, messages, number, refusal};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

/// Message types, from Linux's include/uapi/linux/rtnetlink.h.
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// NLM_F_REQUEST, NLM_F_ACK and NLM_F_REPLACE, netlink(7).
const REPLACE: u16 = 0x105;
/// Length in bytes of an ifaddrmsg, rtnetlink(7).
const ADDRESS: usize = 8;
/// Address families, socket(2).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Attributes, from include/uapi/linux/if_addr.h. With IPv4, IFA_LOCAL is the interface's own address and IFA_ADDRESS
/// the other end's; with IPv6 there is IFA_ADDRESS alone unless there is another end.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// An address of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The interface's index.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// The length of its network's prefix.
    pub prefix: u8,
    /// All that the kernel tells of it.
    message: Vec<u8>,
}

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

fn read(message: &[u8]) -> Option<Address> {
    let (family, prefix) = (*message.first()?, *message.get(1)?);
    let index = u32::from_ne_bytes(number(message, 4)?);
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes(message.get(ADDRESS..)?) {
        let ip = || match family {
            AF_INET => Some(IpAddr::from(Ipv4Addr::from(number::<4>(value, 0)?))),
            AF_INET6 => Some(IpAddr::from(Ipv6Addr::from(number::<16>(value, 0)?))),
            _ => None,
        };
        match kind {
            IFA_LOCAL => local = ip(),
            IFA_ADDRESS => other = ip(),
            _ => {}
        }
    }
    if local.is_some() && local != other {
        return None;
    }
    Some(Address {
        index,
        ip: other?,
        prefix,
        message: message.to_vec(),
    })
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
}
