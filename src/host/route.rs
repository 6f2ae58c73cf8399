//! Where the kernel would send a packet that arrives at an interface: routes, policy rules, forwarding and the check
//! of the source (`rp_filter`), as `ip route get TO from FROM iif NAME` shows it. Asks, and changes nothing.

use super::links::route_socket;
use super::netlink::{
    DATAGRAM, NLMSG_ERROR, REQUEST, attribute, attributes, message, messages, number, refusal,
};
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Message types and attributes, from Linux's include/uapi/linux/rtnetlink.h.
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
/// The length of an rtmsg in bytes, and where the type of the route is in it.
const RTMSG: usize = 12;
const TYPE: usize = 7;
/// A route to somewhere else.
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;

/// What the kernel would do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Send it out of the interface of this index.
    Out(u32),
    /// Keep it: the destination is an address of this host.
    Here,
}

/// A socket to ask the kernel through.
pub struct Routes(OwnedFd);

impl Routes {
    /// # Errors
    /// The kernel refused.
    pub fn open() -> io::Result<Routes> {
        Ok(Routes(route_socket()?))
    }

    /// What becomes of a packet that arrives at the interface of index `at`.
    ///
    /// # Errors
    /// The kernel would drop it: EHOSTUNREACH (no forwarding, or no route), ENETUNREACH (no route), EXDEV or EINVAL
    /// (`rp_filter`), EACCES (`prohibit`).
    pub fn way(&self, from: Ipv4Addr, to: Ipv4Addr, at: u32) -> io::Result<Way> {
        send(
            self.0.as_raw_fd(),
            &request(from, to, at),
            MsgFlags::empty(),
        )?;
        let mut datagram = vec![0; DATAGRAM];
        let length = recv(self.0.as_raw_fd(), &mut datagram, MsgFlags::empty())?;
        read(&datagram[..length])
    }
}

fn request(from: Ipv4Addr, to: Ipv4Addr, at: u32) -> Vec<u8> {
    let mut body = vec![0; RTMSG];
    // Family, and the lengths of both prefixes.
    body[..3].copy_from_slice(&[AF_INET, 32, 32]);
    for (kind, value) in [
        (RTA_DST, to.octets()),
        (RTA_SRC, from.octets()),
        (RTA_IIF, at.to_ne_bytes()),
    ] {
        body.extend(attribute(kind, &value));
    }
    message(RTM_GETROUTE, REQUEST, &body)
}

fn read(datagram: &[u8]) -> io::Result<Way> {
    let unread = || io::Error::from(io::ErrorKind::InvalidData);
    let (kind, message) = messages(datagram).next().ok_or_else(unread)?;
    match kind {
        NLMSG_ERROR => Err(refusal(message)),
        RTM_NEWROUTE if message.get(TYPE) != Some(&RTN_UNICAST) => Ok(Way::Here),
        RTM_NEWROUTE => {
            let mut parts = attributes(message.get(RTMSG..).unwrap_or_default());
            let out = parts.find(|(kind, _)| *kind == RTA_OIF);
            let out = out.and_then(|(_, value)| number(value, 0));
            out.map(|out| Way::Out(u32::from_ne_bytes(out)))
                .ok_or_else(unread)
        }
        _ => Err(unread()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

    /// Input: a question that the kernel itself can answer anywhere, and one of an interface that is not there.
    /// Output: the address is this host's; a refusal.
    #[test]
    fn this_kernel_answers() {
        let routes = Routes::open().unwrap();
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        let way = routes.way(HOST, HOST, lo);
        // With `rp_filter` or `route_localnet` as they are here it may refuse the source, but not say anything else.
        assert!(
            matches!(&way, Ok(Way::Here))
                || way.as_ref().is_err_and(|it| it.raw_os_error().is_some()),
            "{way:?}"
        );
        let nowhere = routes.way(HOST, HOST, u32::MAX / 2).unwrap_err();
        assert_eq!(
            nowhere.raw_os_error(),
            Some(nix::errno::Errno::ENODEV as i32)
        );
    }

    /// Input: a message cut off anywhere, or with any byte changed. Output: no panic.
    #[test]
    fn broken_answers_are_survived() {
        let mut body = vec![0; RTMSG];
        body[TYPE] = RTN_UNICAST;
        body.extend(attribute(RTA_DST, &HOST.octets()));
        body.extend(attribute(RTA_OIF, &7_u32.to_ne_bytes()));
        let answer = message(RTM_NEWROUTE, 0, &body);
        assert_eq!(read(&answer).unwrap(), Way::Out(7));
        for at in 0..answer.len() {
            let _ = read(&answer[..at]);
            for value in [0, 1, 3, 4, 8, 127, 255] {
                let mut broken = answer.clone();
                broken[at] = value;
                let _ = read(&broken);
            }
        }
    }
}
