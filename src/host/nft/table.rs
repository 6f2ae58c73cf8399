//! Pure: the table `arp wmgwd` in messages.
//!
//! ```text
//! table arp wmgwd {
//!   set owned { type ifname; size 65536; }                         # bridges that may answer while the lease holds
//!   set lease { typeof arp operation; size 4; flags timeout; }     # { request timeout T }
//!   set token { type mark; size 64; flags timeout; }               # of grants under way
//!   chain input { type filter hook input priority -300; policy accept;
//!     arp operation != request accept
//!     iifname != @owned accept                                     # arp_ignore keeps these silent
//!     arp operation @lease accept
//!     counter drop
//!   }
//! }
//! ```
//!
//! Only the bridges in `owned` are gated: a request that is dropped here teaches the kernel nothing of its sender.

use super::wire::{self, Attributes, Batch, GENERIC, Kind, NESTED, question};
use crate::host::netlink::{attributes, attributes_with_flags, messages, number, text};
use std::time::Duration;

/// The name of the table.
pub const NAME: &str = "wmgwd";
/// What `nft list` shows of it first.
const COMMENT: &str = "made by wmgwd, see wmgwd(8)";
/// How many bridges `owned` takes.
pub const ROOM: u32 = 65_536;
/// How many names one message takes: its list is one attribute, which ends before 64 KiB.
const NAMES: usize = 2000;
/// IFNAMSIZ: the length of a name as a key.
const NAME_LENGTH: usize = 16;
/// ARPOP_REQUEST, as it is in a packet: the only element of `lease`.
const REQUEST: [u8; 2] = [0, 1];
const CHAIN: &str = "input";
/// NF_ARP_IN, and a priority before all that a host may have of its own.
const HOOK: u32 = 0;
const PRIORITY: i32 = -300;
/// NF_DROP and NF_ACCEPT.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// NFT_SET_TIMEOUT.
const WITH_TIMEOUT: u32 = 0x10;
/// NFT_REG_1 and NFT_REG_VERDICT.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;

/// Attributes of tables, chains, sets, elements, rules and expressions (nf_tables.h).
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_HANDLE: u16 = 4;
const TABLE_USERDATA: u16 = 6;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
/// NFTA_LIST_ELEM, NFTA_DATA_VALUE and NFTA_DATA_VERDICT.
const ITEM: u16 = 1;
const VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// A set of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    /// The bridges that may answer while the lease holds.
    Owned = 1,
    /// Whether the lease holds.
    Lease = 2,
    /// The grants under way.
    Token = 3,
}

/// All sets.
const SETS: [Set; 3] = [Set::Owned, Set::Lease, Set::Token];

impl Set {
    fn name(self) -> &'static str {
        match self {
            Set::Owned => "owned",
            Set::Lease => "lease",
            Set::Token => "token",
        }
    }

    fn flags(self) -> u32 {
        match self {
            Set::Owned => 0,
            Set::Lease | Set::Token => WITH_TIMEOUT,
        }
    }

    fn key_length(self) -> u32 {
        match self {
            Set::Owned => NAME_LENGTH as u32,
            Set::Lease => 2,
            Set::Token => 4,
        }
    }

    /// The type of the keys as nft knows it; the kernel only keeps it (nftables, include/datatype.h).
    fn key_type(self) -> u32 {
        match self {
            Set::Owned => 41,
            Set::Lease => 11,
            Set::Token => 19,
        }
    }

    fn room(self) -> u32 {
        match self {
            Set::Owned => ROOM,
            Set::Lease => 4,
            Set::Token => 64,
        }
    }

    /// How nft is to show the keys, in its own words; the kernel only keeps it (libnftnl, udata.h).
    fn userdata(self) -> &'static [u8] {
        match self {
            Set::Owned | Set::Token => &[0, 4, 1, 0, 0, 0],
            Set::Lease => {
                b"\x00\x04\x02\x00\x00\x00\x03\x14\x00\x04\x07\x00\x00\x00\x01\x0c\x00\x04\x0f\x00\
                  \x00\x00\x01\x04\x05\x00\x00\x00"
            }
        }
    }
}

/// Makes the table, with nothing in its sets: so it drops nothing.
pub fn make(batch: &mut Batch) {
    batch.add(Kind::NewTable, |table| {
        let mut comment = vec![0, COMMENT.len() as u8 + 1];
        comment.extend(COMMENT.as_bytes());
        comment.push(0);
        table
            .text(TABLE_NAME, NAME)
            .number(TABLE_FLAGS, 0)
            .bytes(TABLE_USERDATA, &comment);
    });
    batch.add(Kind::NewChain, |chain| {
        chain
            .text(CHAIN_TABLE, NAME)
            .text(CHAIN_NAME, CHAIN)
            .text(CHAIN_TYPE, "filter")
            .number(CHAIN_POLICY, ACCEPT)
            .nest(CHAIN_HOOK, |hook| {
                hook.number(1, HOOK).bytes(2, &PRIORITY.to_be_bytes());
            });
    });
    for set in SETS {
        batch.add(Kind::NewSet, |it| {
            it.text(SET_TABLE, NAME)
                .text(SET_NAME, set.name())
                .number(SET_FLAGS, set.flags())
                .number(SET_KEY_TYPE, set.key_type())
                .number(SET_KEY_LENGTH, set.key_length())
                .number(SET_ID, set as u32)
                .nest(SET_DESCRIPTION, |it| {
                    it.number(1, set.room());
                })
                .bytes(SET_USERDATA, set.userdata());
        });
    }
    rule(batch, |rule| {
        load_operation(rule);
        expression(rule, "cmp", |it| {
            const NOT_EQUAL: u32 = 1;
            it.number(1, REGISTER).number(2, NOT_EQUAL).nest(3, |data| {
                data.bytes(VALUE, &REQUEST);
            });
        });
        verdict(rule, ACCEPT);
    });
    rule(batch, |rule| {
        expression(rule, "meta", |it| {
            const INPUT_NAME: u32 = 6;
            it.number(2, INPUT_NAME).number(1, REGISTER);
        });
        lookup(rule, Set::Owned, true);
        verdict(rule, ACCEPT);
    });
    rule(batch, |rule| {
        load_operation(rule);
        lookup(rule, Set::Lease, false);
        verdict(rule, ACCEPT);
    });
    rule(batch, |rule| {
        expression(rule, "counter", |_| {});
        verdict(rule, DROP);
    });
}

/// Removes the table that the kernel knows by this handle, and no other of its name.
pub fn remove(batch: &mut Batch, handle: u64) {
    batch.add(Kind::DeleteTable, |table| {
        table.bytes(TABLE_HANDLE, &handle.to_be_bytes());
    });
}

/// Makes the table, and then another of its name, which the kernel refuses (`EEXIST`), and with it all the rest. What
/// it refuses before, it does not have.
pub fn try_to_make(batch: &mut Batch) {
    make(batch);
    batch.add(Kind::NewTable, |table| {
        table.text(TABLE_NAME, NAME);
    });
}

fn rule(batch: &mut Batch, fill: impl FnOnce(&mut Attributes)) {
    batch.add(Kind::NewRule, |rule| {
        rule.text(RULE_TABLE, NAME)
            .text(RULE_CHAIN, CHAIN)
            .nest(RULE_EXPRESSIONS, fill);
    });
}

fn expression(rule: &mut Attributes, name: &str, fill: impl FnOnce(&mut Attributes)) {
    rule.nest(ITEM, |it| {
        it.text(1, name).nest(2, fill);
    });
}

/// Loads the operation of an ARP packet: 2 bytes at 6 (RFC 826).
fn load_operation(rule: &mut Attributes) {
    const NETWORK_HEADER: u32 = 1;
    expression(rule, "payload", |it| {
        it.number(1, REGISTER)
            .number(2, NETWORK_HEADER)
            .number(3, 6)
            .number(4, 2);
    });
}

fn lookup(rule: &mut Attributes, set: Set, inverted: bool) {
    expression(rule, "lookup", |it| {
        it.number(2, REGISTER)
            .text(1, set.name())
            .number(4, set as u32);
        if inverted {
            it.number(5, 1);
        }
    });
}

fn verdict(rule: &mut Attributes, code: u32) {
    expression(rule, "immediate", |it| {
        it.number(1, VERDICT).nest(2, |data| {
            data.nest(DATA_VERDICT, |it| {
                it.number(1, code);
            });
        });
    });
}

/// The first half of a grant: a token that goes off after `lasts`.
pub fn put_token(batch: &mut Batch, token: u32, lasts: Duration) {
    elements(batch, Kind::NewElements, Set::Token, |list| {
        element(list, 1, &token.to_ne_bytes(), Some(lasts));
    });
}

/// The second half: if the token is still there, the lease holds for `lasts`. The element is taken away and put anew,
/// because Linux before 6.12 cannot refresh one; nothing that looks at the set sees it gone. The token comes last,
/// because a kernel that looks at the clock for each element then finds it gone if it was held up before; Linux since
/// 6.9 looks once, at the start of the batch (`tstamp` in net/netfilter/nf_tables_api.c).
pub fn grant(batch: &mut Batch, token: u32, lasts: Duration) {
    let lease = |batch: &mut Batch, kind, lasts| {
        elements(batch, kind, Set::Lease, |list| {
            element(list, 1, &REQUEST, lasts)
        });
    };
    lease(batch, Kind::NewElements, Some(lasts));
    lease(batch, Kind::DeleteElements, None);
    lease(batch, Kind::NewElements, Some(lasts));
    elements(batch, Kind::DeleteElements, Set::Token, |list| {
        element(list, 1, &token.to_ne_bytes(), None);
    });
}

/// Puts names into `owned`; those that are there already stay.
pub fn add_names(batch: &mut Batch, names: &[String]) {
    each_name(batch, Kind::NewElements, names);
}

/// Takes names out of `owned`, also such as are not there.
pub fn remove_names(batch: &mut Batch, names: &[String]) {
    each_name(batch, Kind::NewElements, names);
    each_name(batch, Kind::DeleteElements, names);
}

/// Empties a set.
pub fn empty(batch: &mut Batch, set: Set) {
    batch.add(Kind::DeleteElements, |it| {
        it.text(ELEMENTS_TABLE, NAME).text(ELEMENTS_SET, set.name());
    });
}

fn each_name(batch: &mut Batch, kind: Kind, names: &[String]) {
    for names in names.chunks(NAMES) {
        elements(batch, kind, Set::Owned, |list| {
            for (number, name) in (1..).zip(names) {
                let mut key = [0; NAME_LENGTH];
                // The kernel has no longer ones, and the last byte is the zero at the end.
                let length = name.len().min(NAME_LENGTH - 1);
                key[..length].copy_from_slice(&name.as_bytes()[..length]);
                element(list, number, &key, None);
            }
        });
    }
}

fn elements(batch: &mut Batch, kind: Kind, set: Set, fill: impl FnOnce(&mut Attributes)) {
    batch.add(kind, |it| {
        it.text(ELEMENTS_TABLE, NAME)
            .text(ELEMENTS_SET, set.name())
            .nest(ELEMENTS_LIST, fill);
    });
}

fn element(list: &mut Attributes, number: u16, key: &[u8], lasts: Option<Duration>) {
    list.nest(number, |it| {
        if let Some(lasts) = lasts {
            // No timeout at all is for ever: never 0. Whole milliseconds, and rather too few.
            let millis = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX).max(1);
            it.bytes(ELEMENT_TIMEOUT, &millis.to_be_bytes());
        }
        it.nest(ELEMENT_KEY, |data| {
            data.bytes(VALUE, key);
        });
    });
}

/// Asks whether there is a table of wmgwd's name.
pub fn ask_table() -> Vec<u8> {
    question(Kind::GetTable, |it| {
        it.text(TABLE_NAME, NAME);
    })
}

/// Asks for its chains, and those of others.
pub fn ask_chains() -> Vec<u8> {
    question(Kind::GetChain, |it| {
        it.text(CHAIN_TABLE, NAME);
    })
}

/// Asks for its sets.
pub fn ask_sets() -> Vec<u8> {
    question(Kind::GetSet, |it| {
        it.text(SET_TABLE, NAME);
    })
}

/// Asks for its rules.
pub fn ask_rules() -> Vec<u8> {
    question(Kind::GetRule, |it| {
        it.text(RULE_TABLE, NAME);
    })
}

/// Asks for the elements of a set.
pub fn ask_elements(set: Set) -> Vec<u8> {
    question(Kind::GetElements, |it| {
        it.text(ELEMENTS_TABLE, NAME).text(ELEMENTS_SET, set.name());
    })
}

/// Whether the table, as told in answer to [`ask_table`], has wmgwd's comment.
pub fn has_comment(table: &[u8]) -> bool {
    let comment = find(table, TABLE_USERDATA).and_then(|it| it.get(2..));
    comment.and_then(text) == Some(COMMENT)
}

/// How the kernel knows the table, as told in answer to [`ask_table`].
pub fn handle(table: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(number(find(table, TABLE_HANDLE)?, 0)?))
}

/// Whether nothing of the table, as told in answer to [`ask_table`], is switched off, and no other process owns it.
pub fn has_no_flags(table: &[u8]) -> bool {
    let flags = find(table, TABLE_FLAGS).and_then(|it| number(it, 0));
    flags.is_none_or(|flags: [u8; 4]| flags == [0; 4])
}

/// Whether these chains, as told in answer to [`ask_chains`], are those of wmgwd's table: one, at its hook.
pub fn has_chain(told: &[Vec<u8>]) -> bool {
    let made = made(Kind::NewChain);
    let ours: Vec<&Vec<u8>> = told.iter().filter(|chain| is_of_table(chain)).collect();
    matches!((&made[..], &ours[..]), ([made], [told]) if tells(told, made))
}

/// What [`make`] says of each thing of a kind.
fn made(kind: Kind) -> Vec<Vec<u8>> {
    let mut batch = Batch::default();
    make(&mut batch);
    let (bytes, _) = batch.finish(0);
    messages(&bytes)
        .filter(|(it, _)| *it == kind.number())
        .map(|(_, message)| message.get(GENERIC..).unwrap_or_default().to_vec())
        .collect()
}

/// Whether all of the attributes `made` are among those that the kernel tells, which has more to tell.
fn tells(told: &[u8], made: &[u8]) -> bool {
    attributes_with_flags(made).all(|(kind, value)| {
        let is_nested = kind & NESTED != 0;
        find(told, kind & !NESTED).is_some_and(|told| match is_nested {
            true => tells(told, value),
            false => told == value,
        })
    })
}

/// Whether these sets, as told in answer to [`ask_sets`], are those of wmgwd's table.
pub fn has_sets(told: &[Vec<u8>]) -> bool {
    let is_ours = |told: &Vec<u8>, set: Set| {
        let value = |kind| Some(u32::from_be_bytes(number(find(told, kind)?, 0)?));
        is_of_table(told)
            && find(told, SET_NAME).and_then(text) == Some(set.name())
            && value(SET_KEY_LENGTH) == Some(set.key_length())
            && value(SET_FLAGS).unwrap_or(0) & WITH_TIMEOUT == set.flags()
    };
    SETS.iter()
        .all(|set| told.iter().any(|told| is_ours(told, *set)))
}

/// Whether these rules, as told in answer to [`ask_rules`], are those of wmgwd's table, to the last byte that matters.
pub fn has_rules(told: &[Vec<u8>]) -> bool {
    let made = made(Kind::NewRule);
    let ours: Vec<&Vec<u8>> = told.iter().filter(|rule| is_of_table(rule)).collect();
    made.len() == ours.len()
        && made
            .iter()
            .zip(ours)
            .all(|(made, told)| is_rule(told, made))
}

/// Whether the kernel tells of the rule that was made so.
fn is_rule(told: &[u8], made: &[u8]) -> bool {
    /// Of the expression `lookup`: the set's name, the register, the flags. The kernel tells flags of 0, and not the
    /// id.
    const LOOKUP: [u16; 3] = [1, 2, 5];
    let [told, made] = [told, made].map(|rule| expressions(rule).collect::<Vec<_>>());
    let is_same = |((told_name, told), (name, made)): ((_, &[u8]), (_, &[u8]))| {
        let value = |of, kind| find(of, kind).unwrap_or(&[0; 4]).to_vec();
        told_name == name
            && match name {
                // It counts.
                Some("counter") => true,
                Some("lookup") => LOOKUP.iter().all(|it| value(told, *it) == value(made, *it)),
                _ => tells(told, made),
            }
    };
    told.len() == made.len() && told.into_iter().zip(made).all(is_same)
}

/// The expressions of a rule: the name of each, and what it says.
fn expressions(rule: &[u8]) -> impl Iterator<Item = (Option<&str>, &[u8])> {
    attributes(find(rule, RULE_EXPRESSIONS).unwrap_or_default())
        .map(|(_, it)| (find(it, 1).and_then(text), find(it, 2).unwrap_or_default()))
}

/// How long the lease still holds, from its elements; `None` if it does not.
pub fn lease_left(told: &[Vec<u8>]) -> Option<Duration> {
    each_element(told)
        .filter(|element| key(element) == Some(&REQUEST))
        .filter_map(|element| {
            let left = u64::from_be_bytes(number(find(element, ELEMENT_EXPIRATION)?, 0)?);
            Some(Duration::from_millis(left))
        })
        .find(|left| !left.is_zero())
}

/// The names in `owned`, from its elements.
pub fn names(told: &[Vec<u8>]) -> Vec<String> {
    each_element(told)
        .filter_map(|element| text(key(element)?).map(str::to_owned))
        .collect()
}

/// See [`wire::concerns`]: of this table, and the names in `owned`.
pub fn concerns(datagram: &[u8], own: u32) -> bool {
    wire::concerns(datagram, NAME, Set::Owned.name(), own)
}

fn each_element(told: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    told.iter()
        .filter(|told| is_of_table(told))
        .filter_map(|told| find(told, ELEMENTS_LIST))
        .flat_map(attributes)
        .map(|(_, element)| element)
}

fn key(element: &[u8]) -> Option<&[u8]> {
    find(find(element, ELEMENT_KEY)?, VALUE)
}

/// The name of the table is the first attribute of sets, rules and elements alike.
fn is_of_table(told: &[u8]) -> bool {
    find(told, SET_TABLE).and_then(text) == Some(NAME)
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
