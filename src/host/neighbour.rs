//! Pure: entries of the kernel's neighbour tables (ARP, and Neighbor Discovery), read from netlink messages, and the
//! request that confirms one (rtnetlink(7)).

use super::netlink::{DUMP, REQUEST, attribute, attributes, message, number};

/// Message types, from Linux's include/uapi/linux/rtnetlink.h.
pub const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
/// Length in bytes of an ndmsg, from Linux's include/uapi/linux/neighbour.h; the rest is from there too.
const NEIGHBOUR: usize = 12;
/// The attribute that holds the neighbour's address.
const NDA_DST: u16 = 1;
/// The states of an entry that was learned by asking, or from the neighbour's own packets, and can be used.
const NUD_REACHABLE: u16 = 0x02;
const NUD_STALE: u16 = 0x04;
const NUD_DELAY: u16 = 0x08;
const NUD_PROBE: u16 = 0x10;
/// NTF_PROXY: the host answers for it; NTF_EXT_LEARNED: a program such as zebra keeps the entry, not the kernel.
const NTF_PROXY: u8 = 0x08;
const NTF_EXT_LEARNED: u8 = 0x10;

/// An entry that the kernel keeps by asking the neighbour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// The index of the interface that it is at.
    pub index: u32,
    family: u8,
    /// Its address, in network byte order.
    address: Vec<u8>,
}

impl Neighbour {
    /// The request that has the kernel take the neighbour for reachable, as if it had just answered. Without a
    /// link-layer address (NDA_LLADDR) the entry keeps the one that it has; without NLM_F_CREATE an entry that is gone
    /// is not made.
    pub fn confirmation(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(NEIGHBOUR + 4 + self.address.len());
        body.extend([self.family, 0, 0, 0]);
        body.extend(self.index.to_ne_bytes());
        body.extend(NUD_REACHABLE.to_ne_bytes());
        body.extend([0; 2]);
        body.extend(attribute(NDA_DST, &self.address));
        message(RTM_NEWNEIGH, REQUEST, &body)
    }
}

/// The question for all entries of all families.
pub fn request() -> Vec<u8> {
    message(RTM_GETNEIGH, DUMP, &[0; NEIGHBOUR])
}

/// Reads a message of type [`RTM_NEWNEIGH`]; `None` also if the kernel does not keep the entry by asking the neighbour.
pub fn read(message: &[u8]) -> Option<Neighbour> {
    let family = *message.first()?;
    let index = u32::from_ne_bytes(number(message, 4)?);
    let state = u16::from_ne_bytes(number(message, 8)?);
    let flags = *message.get(10)?;
    let is_learned = state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE) != 0;
    if !is_learned || flags & (NTF_PROXY | NTF_EXT_LEARNED) != 0 {
        return None;
    }
    let (_, address) = attributes(message.get(NEIGHBOUR..)?).find(|(kind, _)| *kind == NDA_DST)?;
    Some(Neighbour {
        index,
        family,
        address: address.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::netlink::HEADER;

    const STATES: [(u16, bool); 8] = [
        (0x01, false), // NUD_INCOMPLETE
        (NUD_REACHABLE, true),
        (NUD_STALE, true),
        (NUD_DELAY, true),
        (NUD_PROBE, true),
        (0x20, false), // NUD_FAILED
        (0x40, false), // NUD_NOARP
        (0x80, false), // NUD_PERMANENT
    ];

    fn told(state: u16, flags: u8) -> Vec<u8> {
        let head = [2, 0, 0, 0];
        let link_layer = attribute(2, &[2, 0, 0, 0, 0, 9]);
        [
            &head[..],
            &7_u32.to_ne_bytes(),
            &state.to_ne_bytes(),
            &[flags, 1],
            &attribute(NDA_DST, &[10, 7, 0, 9]),
            &link_layer,
        ]
        .concat()
    }

    /// Input: entries of each state and with each flag. Output: those that the kernel asks for.
    #[test]
    fn only_what_the_kernel_asks_for_is_read() {
        for (state, is_learned) in STATES {
            let expected = is_learned.then(|| Neighbour {
                index: 7,
                family: 2,
                address: vec![10, 7, 0, 9],
            });
            assert_eq!(read(&told(state, 0)), expected, "{state:#x}");
            // NTF_ROUTER is what a neighbour says of itself.
            assert_eq!(read(&told(state, 0x80)), expected, "{state:#x}");
            for flag in [NTF_PROXY, NTF_EXT_LEARNED] {
                assert_eq!(read(&told(state, flag)), None, "{state:#x}");
            }
        }
        assert_eq!(read(&told(NUD_STALE, 0)[..NEIGHBOUR + 6]), None, "cut off");
    }

    #[test]
    fn a_confirmation_names_the_entry_and_no_more() {
        let confirmation = read(&told(NUD_DELAY, 0)).unwrap().confirmation();
        let expected = [
            &[2, 0, 0, 0][..],
            &7_u32.to_ne_bytes(),
            &NUD_REACHABLE.to_ne_bytes(),
            &[0, 0],
            &attribute(NDA_DST, &[10, 7, 0, 9]),
        ]
        .concat();
        assert_eq!(confirmation[HEADER..], expected);
        assert_eq!(confirmation, message(RTM_NEWNEIGH, REQUEST, &expected));
    }
}
