//! Pure: nf_tables messages as bytes, and the kernel's answers (Linux's include/uapi/linux/netfilter/nf_tables.h
//! and nfnetlink.h).
//!
//! Changes travel in a batch, which the kernel carries out as a whole or not at all. Numbers in attributes are big
//! endian; headers are in the order of the machine.

use crate::host::netlink::{
    HEADER, Header, NLMSG_DONE, NLMSG_ERROR, attributes, messages, messages_with_headers, number,
    text,
};

/// The families that wmgwd has a table in, by their numbers (include/uapi/linux/netfilter.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Family {
    /// NFPROTO_ARP.
    Arp = 3,
    /// NFPROTO_IPV6.
    Ip6 = 10,
}

impl Family {
    /// Whether a message is of one of them.
    fn is_known(message: &[u8]) -> bool {
        let known = [Family::Arp, Family::Ip6];
        known.iter().any(|it| message.first() == Some(&(*it as u8)))
    }
}

/// Length of an nfgenmsg: family, version, resource.
pub const GENERIC: usize = 4;
/// NFNL_SUBSYS_NFTABLES: the upper half of the type of each message.
const SUBSYSTEM: u8 = 10;
/// NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// Flags of a message, netlink(7).
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// Set in a message of a dump during which something changed, NLM_F_DUMP_INTR.
const INTERRUPTED: u16 = 0x10;
/// NLA_F_NESTED: the attribute holds attributes.
pub const NESTED: u16 = 0x8000;

/// What a message is about, the lower half of its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// NFT_MSG_NEWTABLE.
    NewTable = 0,
    /// NFT_MSG_GETTABLE.
    GetTable = 1,
    /// NFT_MSG_DELTABLE.
    DeleteTable = 2,
    /// NFT_MSG_NEWCHAIN.
    NewChain = 3,
    /// NFT_MSG_GETCHAIN.
    GetChain = 4,
    /// NFT_MSG_DELCHAIN.
    DeleteChain = 5,
    /// NFT_MSG_NEWRULE.
    NewRule = 6,
    /// NFT_MSG_GETRULE.
    GetRule = 7,
    /// NFT_MSG_DELRULE.
    DeleteRule = 8,
    /// NFT_MSG_NEWSET.
    NewSet = 9,
    /// NFT_MSG_GETSET.
    GetSet = 10,
    /// NFT_MSG_DELSET.
    DeleteSet = 11,
    /// NFT_MSG_NEWSETELEM.
    NewElements = 12,
    /// NFT_MSG_GETSETELEM.
    GetElements = 13,
    /// NFT_MSG_DELSETELEM.
    DeleteElements = 14,
}

impl Kind {
    /// The type of a message.
    pub fn number(self) -> u16 {
        u16::from_be_bytes([SUBSYSTEM, self as u8])
    }

    fn flags(self) -> u16 {
        match self {
            // Never into a table that another program has made meanwhile.
            Kind::NewTable => REQUEST | CREATE | EXCLUSIVE,
            Kind::NewChain | Kind::NewSet | Kind::NewElements => REQUEST | CREATE,
            Kind::NewRule => REQUEST | CREATE | APPEND,
            Kind::GetChain | Kind::GetRule | Kind::GetSet | Kind::GetElements => REQUEST | DUMP,
            _ => REQUEST,
        }
    }
}

/// Attributes in the making.
#[derive(Debug, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Appends bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Attributes {
        // The length of an attribute has 16 bits. What is longer is cut off here, and refused by the kernel.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a text, with the zero at its end.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Attributes {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends a number.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Attributes {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends attributes inside one.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) -> &mut Attributes {
        let mut inner = Attributes::default();
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Changes that happen as a whole or not at all.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    /// The number of the next message.
    next: u32,
    /// Where the last message begins.
    last: usize,
}

impl Default for Batch {
    fn default() -> Batch {
        let mut batch = Batch {
            bytes: Vec::new(),
            next: 0,
            last: 0,
        };
        batch.bracket(BATCH_BEGIN);
        batch
    }
}

impl Batch {
    /// Appends a change in a family.
    pub fn add(
        &mut self,
        family: Family,
        kind: Kind,
        fill: impl FnOnce(&mut Attributes),
    ) -> &mut Batch {
        self.last = self.bytes.len();
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        let generic = [family as u8, 0, 0, 0];
        self.message(kind.number(), kind.flags(), generic, &attributes.0);
        self
    }

    /// The bytes to send: messages that are numbered from `first` on. The last change asks for an answer, which has the
    /// returned number.
    pub fn finish(mut self, first: u32) -> (Vec<u8>, u32) {
        let flags = self.last + 6;
        if let Some(old) = number(&self.bytes, flags).map(u16::from_ne_bytes) {
            self.bytes[flags..flags + 2].copy_from_slice(&(old | ACK).to_ne_bytes());
        }
        let last = first.wrapping_add(self.next - 1);
        self.bracket(BATCH_END);
        set_numbers(&mut self.bytes, first);
        (self.bytes, last)
    }

    fn bracket(&mut self, kind: u16) {
        self.message(kind, REQUEST, [0, 0, 0, SUBSYSTEM], &[]);
    }

    fn message(&mut self, kind: u16, flags: u16, generic: [u8; GENERIC], attributes: &[u8]) {
        write(&mut self.bytes, kind, flags, self.next, generic, attributes);
        self.next += 1;
    }
}

fn write(
    to: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    number: u32,
    generic: [u8; GENERIC],
    attributes: &[u8],
) {
    let length = HEADER + GENERIC + attributes.len();
    to.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(flags.to_ne_bytes());
    to.extend(number.to_ne_bytes());
    // Port 0 is the kernel, which fills in the sender's.
    to.extend([0; 4]);
    to.extend(generic);
    to.extend(attributes);
}

/// Numbers messages from `first` on.
fn set_numbers(messages: &mut [u8], first: u32) {
    const NUMBER: usize = 8;
    let (mut at, mut next) = (0, first);
    while let Some(length) = number(messages, at).map(u32::from_ne_bytes) {
        if let Some(place) = messages.get_mut(at + NUMBER..at + NUMBER + 4) {
            place.copy_from_slice(&next.to_ne_bytes());
        }
        next = next.wrapping_add(1);
        at += (length as usize).next_multiple_of(4).max(HEADER);
    }
}

/// A [`question`], as it is sent: with its number.
pub fn numbered(question: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = question.to_vec();
    set_numbers(&mut bytes, number);
    bytes
}

/// Whether the answer to a [`question`] is a list, which has an end.
pub fn is_for_list(question: &[u8]) -> bool {
    Header::read(question).is_some_and(|it| it.flags & DUMP == DUMP)
}

/// A question in a family: one answer to [`Kind::GetTable`], a list to the others.
pub fn question(family: Family, kind: Kind, fill: impl FnOnce(&mut Attributes)) -> Vec<u8> {
    let mut attributes = Attributes::default();
    fill(&mut attributes);
    let mut bytes = Vec::new();
    write(
        &mut bytes,
        kind.number(),
        kind.flags(),
        0,
        [family as u8, 0, 0, 0],
        &attributes.0,
    );
    bytes
}

/// What a datagram says of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The message of that number was accepted.
    Accepted(u32),
    /// The message of that number was refused, and with it the batch; the error number.
    Refused(u32, i32),
}

/// What the kernel says of a batch, in order.
pub fn verdicts(datagram: &[u8]) -> Vec<Verdict> {
    let read = |(kind, message): (u16, &[u8])| {
        let code = i32::from_ne_bytes(number(message, 0)?);
        // Behind the code comes the header of the message that it is about.
        let about = u32::from_ne_bytes(number(message, 4 + 8)?);
        (kind == NLMSG_ERROR).then_some(match code {
            0 => Verdict::Accepted(about),
            code => Verdict::Refused(about, code.saturating_neg()),
        })
    };
    messages(datagram).filter_map(read).collect()
}

/// How a dump goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dump {
    /// There is more to come.
    More,
    /// That was all.
    Done,
    /// That was all, but something changed meanwhile: ask again.
    Torn,
    /// The kernel refused; the error number.
    Refused(i32),
}

/// Reads one datagram of the answer to the [`question`] that has the number `asked`: what follows the headers of each
/// message of a known family is appended to `found`. What answers another question is left out.
pub fn take_dump(datagram: &[u8], asked: u32, found: &mut Vec<Vec<u8>>) -> Dump {
    let mut torn = false;
    for (header, message) in messages_with_headers(datagram) {
        if header.number != asked {
            continue;
        }
        torn |= header.flags & INTERRUPTED != 0;
        match header.kind {
            NLMSG_DONE if torn => return Dump::Torn,
            NLMSG_DONE => return Dump::Done,
            NLMSG_ERROR => {
                let code = number(message, 0).map_or(0, i32::from_ne_bytes);
                return match code {
                    0 => Dump::Done,
                    code => Dump::Refused(code.saturating_neg()),
                };
            }
            _ if Family::is_known(message) => {
                found.extend(message.get(GENERIC..).map(<[u8]>::to_vec));
            }
            _ => {}
        }
    }
    if torn { Dump::Torn } else { Dump::More }
}

/// Whether a datagram of the group NFNLGRP_NFTABLES tells that the table of that name came or went, or something
/// in it did. Of the elements of its sets only those of `sets` matter, and only what another socket than that at the
/// port `own` has done to them.
pub fn concerns(datagram: &[u8], table: &str, sets: &[&str], own: u32) -> bool {
    const THERE: [Kind; 8] = [
        Kind::NewTable,
        Kind::DeleteTable,
        Kind::NewChain,
        Kind::DeleteChain,
        Kind::NewRule,
        Kind::DeleteRule,
        Kind::NewSet,
        Kind::DeleteSet,
    ];
    const ELEMENTS: [Kind; 2] = [Kind::NewElements, Kind::DeleteElements];
    /// The attribute that holds the table's name is the first of each of these; that of the set's, the second.
    const TABLE: u16 = 1;
    const SET: u16 = 2;
    messages_with_headers(datagram).any(|(header, message)| {
        let is_one_of = |kinds: &[Kind]| kinds.iter().any(|it| it.number() == header.kind);
        let names = |wanted: u16, name: &str| {
            attributes(message.get(GENERIC..).unwrap_or_default())
                .any(|(kind, value)| kind == wanted && text(value) == Some(name))
        };
        let is_by_others =
            || is_one_of(&ELEMENTS) && header.port != own && sets.iter().any(|it| names(SET, it));
        Family::is_known(message) && names(TABLE, table) && (is_one_of(&THERE) || is_by_others())
    })
}
