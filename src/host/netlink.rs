//! Pure: messages of netlink and the attributes in them, read and written (netlink(7), rtnetlink(7)).

use std::io;

/// Message types, from Linux's include/uapi/linux/netlink.h and rtnetlink.h.
pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;
pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_GETLINK: u16 = 18;
/// The attribute that holds the name, from include/uapi/linux/if_link.h.
pub const IFLA_IFNAME: u16 = 3;
/// What varies by address family, and what a dump is to hold, from include/uapi/linux/if_link.h.
pub const IFLA_AF_SPEC: u16 = 26;
pub const IFLA_EXT_MASK: u16 = 29;
/// Flags of a request, netlink(7): NLM_F_REQUEST alone, and with NLM_F_DUMP.
pub const REQUEST: u16 = 1;
pub const DUMP: u16 = 0x301;
/// Lengths in bytes of a netlink message header, an ifinfomsg, an attribute header.
pub const HEADER: usize = 16;
pub const INFO: usize = 16;
const ATTRIBUTE: usize = 4;
/// An attribute's type without its flags (NLA_TYPE_MASK).
const TYPE: u16 = 0x3fff;
/// The kernel puts no more than this into one datagram (NLMSG_GOODSIZE is at most a page, dumps 32 kB).
pub const DATAGRAM: usize = 64 << 10;

/// A message to the kernel. It has no sequence number and no port: a socket asks one question at a time.
pub fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// An attribute, padded to the next (RTA_ALIGNTO).
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The header of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Its type.
    pub kind: u16,
    /// NLM_F_*.
    pub flags: u16,
    /// Its sequence number: an answer has that of the question.
    pub number: u32,
    /// The port of the socket that has asked, or whose request this tells of.
    pub port: u32,
}

impl Header {
    /// Reads the header that `bytes` begin with.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            kind: u16::from_ne_bytes(number(bytes, 4)?),
            flags: u16::from_ne_bytes(number(bytes, 6)?),
            number: u32::from_ne_bytes(number(bytes, 8)?),
            port: u32::from_ne_bytes(number(bytes, 12)?),
        })
    }
}

/// The messages of a datagram with their headers. One that is cut off ends them.
pub fn messages_with_headers(mut datagram: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(number(datagram, 0)?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let message = datagram.get(HEADER..length)?;
        let header = Header::read(datagram)?;
        // Messages and attributes begin at multiples of 4 (NLMSG_ALIGNTO, RTA_ALIGNTO).
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some((header, message))
    })
}

/// The messages of a datagram: the type of each, and what follows its header. One that is cut off ends them.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    messages_with_headers(datagram).map(|(header, message)| (header.kind, message))
}

/// The attributes that `bytes` hold: type, with its flags, and value of each. One that is cut off ends them.
pub fn attributes_with_flags(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(number(bytes, 0)?));
        let value = bytes.get(ATTRIBUTE..length)?;
        let kind = u16::from_ne_bytes(number(bytes, 2)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attributes that `bytes` hold: type and value of each. One that is cut off ends them.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes_with_flags(bytes).map(|(kind, value)| (kind & TYPE, value))
}

/// The text of an attribute.
pub fn text(value: &[u8]) -> Option<&str> {
    Some(std::str::from_utf8(value).ok()?.trim_end_matches('\0'))
}

/// `N` bytes of a number at a position.
pub fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The kernel's refusal in a message of type [`NLMSG_ERROR`].
pub fn refusal(message: &[u8]) -> io::Error {
    let code = number(message, 0).map_or(0, i32::from_ne_bytes);
    io::Error::from_raw_os_error(code.saturating_neg())
}
