//! Pure: wmgwd's tables in messages, one for each family of addresses.
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
//! table ip6 wmgwd {
//!   set owned, lease, token                                        # as above; lease: { ipv6-icmp timeout T }
//!   set managed { type ifname; size 65536; }                       # bridges that have gateway addresses
//!   set shared { type ipv6_addr; size 131072; }                    # those addresses
//!   map self { type ifname : ipv6_addr; size 65536; }              # a bridge's own link-local address
//!   chain input { type filter hook input priority -300; policy accept;
//!     meta l4proto != ipv6-icmp accept
//!     icmpv6 type != nd-neighbor-solicit accept
//!     iifname != @managed accept
//!     @th,64,128 != @shared accept                                 # the target
//!     iifname @owned meta l4proto @lease accept
//!     counter drop
//!   }
//!   chain output { type filter hook output priority -300; policy accept;
//!     meta l4proto != ipv6-icmp accept
//!     icmpv6 type < nd-router-advert accept                        # 134
//!     icmpv6 type > nd-neighbor-solicit accept                     # 135
//!     oifname != @managed accept
//!     icmpv6 type nd-router-advert @th,48,16 0 ip6 saddr @shared counter drop
//!     oifname @owned meta l4proto @lease accept
//!     icmpv6 type nd-router-advert counter drop
//!     ip6 saddr @shared counter ip6 saddr set oifname map @self
//!   }
//! }
//! ```
//!
//! With ARP, only the bridges in `owned` are gated: a request that is dropped here teaches the kernel nothing of its
//! sender. With IPv6 the table is the switch itself, as the kernel has no `arp_ignore` for neighbour discovery: what is
//! in `managed` and not in `owned` is silent about its gateway addresses. Its own link-local address it answers for.
//!
//! A gateway that is not the owner forwards, and asks for stations with the oldest link-local address of its bridge, or
//! with the gateway address if the packet is its own. A station takes the sender of such a question for its gateway
//! (RFC 4861 section 7.2.3), so it is asked with the bridge's own address instead. The Router Advertisements of the
//! owner alone leave. One with a lifetime of 0, by which a daemon that ends takes its router back (section 6.2.5), does
//! not leave from a shared address: the next owner has the same.

use super::wire::{self, Attributes, Batch, Family, GENERIC, Kind, NESTED, question};
use crate::host::address::Ipv6;
use crate::host::netlink::{attributes, attributes_with_flags, messages, number, text};
use core::net::Ipv6Addr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The name of the table.
pub const NAME: &str = "wmgwd";
/// What `nft list` shows of it first.
const COMMENT: &str = "made by wmgwd, see wmgwd(8)";
/// How many bridges `owned` takes.
pub const ROOM: u32 = 65_536;
/// How many elements one message takes: its list is one attribute, which ends before 64 KiB.
const PART: usize = 1000;
/// IFNAMSIZ: the length of a name as a key.
const NAME_LENGTH: usize = 16;
/// How many addresses `shared` takes: of each bridge a global one and a link-local one of its own.
const ADDRESSES: u32 = 131_072;
/// ARPOP_REQUEST, as it is in a packet: the only element of `lease` of ARP.
const REQUEST: [u8; 2] = [0, 1];
/// IPPROTO_ICMPV6: that of IPv6.
const ICMPV6: u8 = 58;
/// Types of ICMPv6 messages (RFC 4861 section 4).
const ROUTER_ADVERT: u8 = 134;
const NEIGHBOR_SOLICIT: u8 = 135;
const INPUT: &str = "input";
const OUTPUT: &str = "output";
/// A priority before all that a host may have of its own.
const PRIORITY: i32 = -300;
/// NF_DROP and NF_ACCEPT.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// NFT_SET_TIMEOUT.
const WITH_TIMEOUT: u32 = 0x10;
/// NFT_SET_MAP.
const MAP: u32 = 0x8;
/// An IPv6 address as nft knows it, and its length.
const ADDRESS_TYPE: u32 = 8;
const ADDRESS_LENGTH: u32 = 16;
/// Where the source address is in an IPv6 packet (RFC 8200 section 3).
const SOURCE: u32 = 8;
/// NFT_PAYLOAD_NETWORK_HEADER and NFT_PAYLOAD_TRANSPORT_HEADER.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// NFT_META_IIFNAME, NFT_META_OIFNAME and NFT_META_L4PROTO.
const INPUT_NAME: u32 = 6;
const OUTPUT_NAME: u32 = 7;
const PROTOCOL: u32 = 16;
/// NFT_CMP_EQ, NFT_CMP_NEQ, NFT_CMP_LT and NFT_CMP_GT.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const LESS: u32 = 2;
const GREATER: u32 = 4;
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
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
/// NFTA_LIST_ELEM, NFTA_DATA_VALUE and NFTA_DATA_VERDICT.
const ITEM: u16 = 1;
const VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// A set of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    /// The bridges that may answer while the lease holds.
    Owned = 1,
    /// Whether the lease holds.
    Lease = 2,
    /// The grants under way.
    Token = 3,
    /// The bridges that have IPv6 gateway addresses.
    Managed = 4,
    /// These addresses.
    Shared = 5,
    /// A bridge's own link-local address, by the bridge: a map.
    Own = 6,
}

/// The sets of a table. [`Family::Arp`] has the first ones.
const SETS: [Set; 6] = [
    Set::Owned,
    Set::Lease,
    Set::Token,
    Set::Managed,
    Set::Shared,
    Set::Own,
];

impl Family {
    fn sets(self) -> &'static [Set] {
        match self {
            Family::Arp => &SETS[..3],
            Family::Ip6 => &SETS,
        }
    }

    /// The only element of [`Set::Lease`]: what the packets have that are let through.
    fn lease_key(self) -> &'static [u8] {
        match self {
            Family::Arp => &REQUEST,
            Family::Ip6 => &[ICMPV6],
        }
    }

    /// The chains of the table, and the hook of each: NF_ARP_IN, or NF_INET_LOCAL_IN and NF_INET_LOCAL_OUT.
    fn chains(self) -> &'static [(&'static str, u32)] {
        match self {
            Family::Arp => &[(INPUT, 0)],
            Family::Ip6 => &[(INPUT, 1), (OUTPUT, 3)],
        }
    }
}

impl Set {
    fn name(self) -> &'static str {
        match self {
            Set::Owned => "owned",
            Set::Lease => "lease",
            Set::Token => "token",
            Set::Managed => "managed",
            Set::Shared => "shared",
            Set::Own => "self",
        }
    }

    fn flags(self) -> u32 {
        match self {
            Set::Owned | Set::Managed | Set::Shared => 0,
            Set::Lease | Set::Token => WITH_TIMEOUT,
            Set::Own => MAP,
        }
    }

    fn key_length(self, family: Family) -> u32 {
        match self {
            Set::Owned | Set::Managed | Set::Own => NAME_LENGTH as u32,
            Set::Lease => family.lease_key().len() as u32,
            Set::Token => 4,
            Set::Shared => ADDRESS_LENGTH,
        }
    }

    /// The type of the keys as nft knows it; the kernel only keeps it (nftables, include/datatype.h).
    fn key_type(self, family: Family) -> u32 {
        match (self, family) {
            (Set::Owned | Set::Managed | Set::Own, _) => 41,
            (Set::Lease, Family::Arp) => 11,
            (Set::Lease, Family::Ip6) => 12,
            (Set::Token, _) => 19,
            (Set::Shared, _) => ADDRESS_TYPE,
        }
    }

    fn room(self) -> u32 {
        match self {
            Set::Owned | Set::Managed | Set::Own => ROOM,
            Set::Lease => 4,
            Set::Token => 64,
            Set::Shared => ADDRESSES,
        }
    }

    /// How nft is to show the keys, in its own words; the kernel only keeps it (libnftnl, udata.h).
    fn userdata(self, family: Family) -> &'static [u8] {
        match (self, family) {
            (Set::Owned | Set::Managed | Set::Token, _) => &[0, 4, 1, 0, 0, 0],
            (Set::Shared, _) => &[0, 4, 2, 0, 0, 0],
            (Set::Own, _) => &[
                0, 4, 1, 0, 0, 0, 1, 4, 2, 0, 0, 0, 6, 4, 0, 0, 0, 0,
            ],
            (Set::Lease, Family::Arp) => {
                b"\x00\x04\x02\x00\x00\x00\x03\x14\x00\x04\x07\x00\x00\x00\x01\x0c\x00\x04\x0f\x00\
                  \x00\x00\x01\x04\x05\x00\x00\x00"
            }
            (Set::Lease, Family::Ip6) => {
                b"\x00\x04\x01\x00\x00\x00\x03\x0e\x00\x04\x09\x00\x00\x00\x01\x06\x00\x04\x10\x00\x00\x00"
            },
        }
    }
}

/// Makes a table, with nothing in its sets: so it drops nothing.
pub fn make(batch: &mut Batch, family: Family) {
    batch.add(family, Kind::NewTable, |table| {
        let mut comment = vec![0, COMMENT.len() as u8 + 1];
        comment.extend(COMMENT.as_bytes());
        comment.push(0);
        table
            .text(TABLE_NAME, NAME)
            .number(TABLE_FLAGS, 0)
            .bytes(TABLE_USERDATA, &comment);
    });
    for (name, number) in family.chains() {
        batch.add(family, Kind::NewChain, |chain| {
            chain
                .text(CHAIN_TABLE, NAME)
                .text(CHAIN_NAME, name)
                .text(CHAIN_TYPE, "filter")
                .number(CHAIN_POLICY, ACCEPT)
                .nest(CHAIN_HOOK, |hook| {
                    hook.number(1, *number).bytes(2, &PRIORITY.to_be_bytes());
                });
        });
    }
    for set in family.sets() {
        batch.add(family, Kind::NewSet, |it| {
            it.text(SET_TABLE, NAME)
                .text(SET_NAME, set.name())
                .number(SET_FLAGS, set.flags())
                .number(SET_KEY_TYPE, set.key_type(family))
                .number(SET_KEY_LENGTH, set.key_length(family));
            if *set == Set::Own {
                it.number(SET_DATA_TYPE, ADDRESS_TYPE)
                    .number(SET_DATA_LENGTH, ADDRESS_LENGTH);
            }
            it.number(SET_ID, *set as u32)
                .nest(SET_DESCRIPTION, |it| {
                    it.number(1, set.room());
                })
                .bytes(SET_USERDATA, set.userdata(family));
        });
    }
    match family {
        Family::Arp => add_arp_rules(batch),
        Family::Ip6 => {
            add_solicitation_rules(batch);
            add_output_rules(batch);
        }
    }
}

fn add_arp_rules(batch: &mut Batch) {
    let mut rule = |fill: &dyn Fn(&mut Attributes)| rule(batch, Family::Arp, INPUT, fill);
    // The operation of an ARP packet: 2 bytes at 6 (RFC 826).
    let operation = |rule: &mut Attributes| load(rule, NETWORK, 6, 2);
    rule(&|rule| {
        operation(rule);
        compare(rule, NOT_EQUAL, &REQUEST);
        verdict(rule, ACCEPT);
    });
    rule(&|rule| {
        load_meta(rule, INPUT_NAME);
        lookup(rule, Set::Owned, true);
        verdict(rule, ACCEPT);
    });
    rule(&|rule| {
        operation(rule);
        lookup(rule, Set::Lease, false);
        verdict(rule, ACCEPT);
    });
    rule(&drop_and_count);
}

/// A Neighbor Solicitation for a gateway address is for the owner.
fn add_solicitation_rules(batch: &mut Batch) {
    let mut rule = |fill: &dyn Fn(&mut Attributes)| rule(batch, Family::Ip6, INPUT, fill);
    rule(&not_icmpv6);
    rule(&|rule| of_type(rule, NOT_EQUAL, NEIGHBOR_SOLICIT));
    rule(&|rule| {
        load_meta(rule, INPUT_NAME);
        lookup(rule, Set::Managed, true);
        verdict(rule, ACCEPT);
    });
    rule(&|rule| {
        // The target (RFC 4861 section 4.3).
        load(rule, TRANSPORT, 8, ADDRESS_LENGTH);
        lookup(rule, Set::Shared, true);
        verdict(rule, ACCEPT);
    });
    rule(&|rule| of_owner(rule, INPUT_NAME));
    rule(&drop_and_count);
}

/// Router Advertisements, and solicitations of stations, are the owner's under the gateway addresses.
fn add_output_rules(batch: &mut Batch) {
    let mut rule = |fill: &dyn Fn(&mut Attributes)| rule(batch, Family::Ip6, OUTPUT, fill);
    let advertisement = |rule: &mut Attributes| compare_type(rule, EQUAL, ROUTER_ADVERT);
    let source_is_shared = |rule: &mut Attributes| {
        load(rule, NETWORK, SOURCE, ADDRESS_LENGTH);
        lookup(rule, Set::Shared, false);
    };
    rule(&not_icmpv6);
    rule(&|rule| of_type(rule, LESS, ROUTER_ADVERT));
    rule(&|rule| of_type(rule, GREATER, NEIGHBOR_SOLICIT));
    rule(&|rule| {
        load_meta(rule, OUTPUT_NAME);
        lookup(rule, Set::Managed, true);
        verdict(rule, ACCEPT);
    });
    rule(&|rule| {
        advertisement(rule);
        // The lifetime as default router (RFC 4861 section 4.2).
        load(rule, TRANSPORT, 6, 2);
        compare(rule, EQUAL, &[0, 0]);
        source_is_shared(rule);
        drop_and_count(rule);
    });
    rule(&|rule| of_owner(rule, OUTPUT_NAME));
    rule(&|rule| {
        advertisement(rule);
        drop_and_count(rule);
    });
    rule(&|rule| {
        source_is_shared(rule);
        count(rule);
        load_meta(rule, OUTPUT_NAME);
        expression(rule, "lookup", |it| {
            it.number(2, REGISTER)
                .number(3, REGISTER)
                .text(1, Set::Own.name())
                .number(4, Set::Own as u32);
        });
        // NFT_PAYLOAD_L4CSUM_PSEUDOHDR: the checksum of ICMPv6 follows.
        expression(rule, "payload", |it| {
            it.number(5, REGISTER)
                .number(2, NETWORK)
                .number(3, SOURCE)
                .number(4, ADDRESS_LENGTH)
                .number(8, 1);
        });
    });
}

fn not_icmpv6(rule: &mut Attributes) {
    load_meta(rule, PROTOCOL);
    compare(rule, NOT_EQUAL, &[ICMPV6]);
    verdict(rule, ACCEPT);
}

/// Accepts an ICMPv6 message by its type.
fn of_type(rule: &mut Attributes, comparison: u32, kind: u8) {
    compare_type(rule, comparison, kind);
    verdict(rule, ACCEPT);
}

/// Compares the type of an ICMPv6 message.
fn compare_type(rule: &mut Attributes, comparison: u32, kind: u8) {
    load_meta(rule, PROTOCOL);
    compare(rule, EQUAL, &[ICMPV6]);
    load(rule, TRANSPORT, 0, 1);
    compare(rule, comparison, &[kind]);
}

/// Accepts what the owner may answer or say while the lease holds.
fn of_owner(rule: &mut Attributes, interface: u32) {
    load_meta(rule, interface);
    lookup(rule, Set::Owned, false);
    load_meta(rule, PROTOCOL);
    lookup(rule, Set::Lease, false);
    verdict(rule, ACCEPT);
}

fn count(rule: &mut Attributes) {
    expression(rule, "counter", |_| {});
}

fn drop_and_count(rule: &mut Attributes) {
    count(rule);
    verdict(rule, DROP);
}

/// Removes the table that the kernel knows by this handle, and no other of its name.
pub fn remove(batch: &mut Batch, family: Family, handle: u64) {
    batch.add(family, Kind::DeleteTable, |table| {
        table.bytes(TABLE_HANDLE, &handle.to_be_bytes());
    });
}

/// Makes the table, and then another of its name, which the kernel refuses (`EEXIST`), and with it all the rest. What
/// it refuses before, it does not have.
pub fn try_to_make(batch: &mut Batch, family: Family) {
    make(batch, family);
    batch.add(family, Kind::NewTable, |table| {
        table.text(TABLE_NAME, NAME);
    });
}

fn rule(batch: &mut Batch, family: Family, chain: &str, fill: &dyn Fn(&mut Attributes)) {
    batch.add(family, Kind::NewRule, |rule| {
        rule.text(RULE_TABLE, NAME)
            .text(RULE_CHAIN, chain)
            .nest(RULE_EXPRESSIONS, fill);
    });
}

fn expression(rule: &mut Attributes, name: &str, fill: impl FnOnce(&mut Attributes)) {
    rule.nest(ITEM, |it| {
        it.text(1, name).nest(2, fill);
    });
}

/// Loads `length` bytes at `offset` of a header.
fn load(rule: &mut Attributes, header: u32, offset: u32, length: u32) {
    expression(rule, "payload", |it| {
        it.number(1, REGISTER)
            .number(2, header)
            .number(3, offset)
            .number(4, length);
    });
}

/// Loads something about the packet.
fn load_meta(rule: &mut Attributes, key: u32) {
    expression(rule, "meta", |it| {
        it.number(2, key).number(1, REGISTER);
    });
}

fn compare(rule: &mut Attributes, comparison: u32, with: &[u8]) {
    expression(rule, "cmp", |it| {
        it.number(1, REGISTER)
            .number(2, comparison)
            .nest(3, |data| {
                data.bytes(VALUE, with);
            });
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
pub fn put_token(batch: &mut Batch, family: Family, token: u32, lasts: Duration) {
    elements(batch, family, Kind::NewElements, Set::Token, |list| {
        element(list, 1, &token.to_ne_bytes(), Some(lasts));
    });
}

/// The second half: if the token is still there, the lease holds for `lasts`. The element is taken away and put anew,
/// because Linux before 6.12 cannot refresh one; nothing that looks at the set sees it gone. The token comes last,
/// because a kernel that looks at the clock for each element then finds it gone if it was held up before; Linux since
/// 6.9 looks once, at the start of the batch (`tstamp` in net/netfilter/nf_tables_api.c).
pub fn grant(batch: &mut Batch, family: Family, token: u32, lasts: Duration) {
    let lease = |batch: &mut Batch, kind, lasts| {
        elements(batch, family, kind, Set::Lease, |list| {
            element(list, 1, family.lease_key(), lasts)
        });
    };
    lease(batch, Kind::NewElements, Some(lasts));
    lease(batch, Kind::DeleteElements, None);
    lease(batch, Kind::NewElements, Some(lasts));
    elements(batch, family, Kind::DeleteElements, Set::Token, |list| {
        element(list, 1, &token.to_ne_bytes(), None);
    });
}

/// Puts names into `owned`; those that are there already stay.
pub fn add_names(batch: &mut Batch, family: Family, names: &[String]) {
    each_name(batch, family, Kind::NewElements, Set::Owned, names);
}

/// Takes names out of `owned`, also such as are not there.
pub fn remove_names(batch: &mut Batch, family: Family, names: &[String]) {
    each_name(batch, family, Kind::NewElements, Set::Owned, names);
    each_name(batch, family, Kind::DeleteElements, Set::Owned, names);
}

/// Empties a set.
pub fn empty(batch: &mut Batch, family: Family, set: Set) {
    batch.add(family, Kind::DeleteElements, |it| {
        it.text(ELEMENTS_TABLE, NAME).text(ELEMENTS_SET, set.name());
    });
}

/// Makes of the IPv6 table in which `old` is one in which `new` is: what is in both is not touched, so that no packet
/// misses it.
pub fn change_ipv6(batch: &mut Batch, old: &Ipv6, new: &Ipv6) {
    for (kind, from, to) in [
        (Kind::DeleteElements, new, old),
        (Kind::NewElements, old, new),
    ] {
        // Those of `to` that `from` has not.
        let names: Vec<String> = to
            .bridges
            .keys()
            .filter(|name| !from.bridges.contains_key(*name))
            .cloned()
            .collect();
        each_name(batch, Family::Ip6, kind, Set::Managed, &names);
        let addresses: Vec<&Ipv6Addr> = to.shared.difference(&from.shared).collect();
        each(
            batch,
            Family::Ip6,
            kind,
            Set::Shared,
            &addresses,
            |list, number, address| {
                element(list, number, &address.octets(), None);
            },
        );
        let own: Vec<(&String, Ipv6Addr)> = to
            .bridges
            .iter()
            .filter(|(name, own)| from.bridges.get(*name) != Some(*own))
            .filter_map(|(name, own)| Some((name, (*own)?)))
            .collect();
        each(
            batch,
            Family::Ip6,
            kind,
            Set::Own,
            &own,
            |list, number, (name, own)| {
                list.nest(number, |it| {
                    it.nest(ELEMENT_KEY, |data| {
                        data.bytes(VALUE, &name_key(name));
                    })
                    .nest(ELEMENT_DATA, |data| {
                        data.bytes(VALUE, &own.octets());
                    });
                });
            },
        );
    }
}

fn each_name(batch: &mut Batch, family: Family, kind: Kind, set: Set, names: &[String]) {
    each(batch, family, kind, set, names, |list, number, name| {
        element(list, number, &name_key(name), None);
    });
}

fn name_key(name: &str) -> [u8; NAME_LENGTH] {
    let mut key = [0; NAME_LENGTH];
    // The kernel has no longer ones, and the last byte is the zero at the end.
    let length = name.len().min(NAME_LENGTH - 1);
    key[..length].copy_from_slice(&name.as_bytes()[..length]);
    key
}

/// One message for as many elements as it takes, and another for the rest.
fn each<T>(
    batch: &mut Batch,
    family: Family,
    kind: Kind,
    set: Set,
    all: &[T],
    write: impl Fn(&mut Attributes, u16, &T),
) {
    for part in all.chunks(PART) {
        elements(batch, family, kind, set, |list| {
            for (number, it) in (1..).zip(part) {
                write(list, number, it);
            }
        });
    }
}

fn elements(
    batch: &mut Batch,
    family: Family,
    kind: Kind,
    set: Set,
    fill: impl FnOnce(&mut Attributes),
) {
    batch.add(family, kind, |it| {
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
pub fn ask_table(family: Family) -> Vec<u8> {
    question(family, Kind::GetTable, |it| {
        it.text(TABLE_NAME, NAME);
    })
}

/// Asks for its chains, and those of others.
pub fn ask_chains(family: Family) -> Vec<u8> {
    question(family, Kind::GetChain, |it| {
        it.text(CHAIN_TABLE, NAME);
    })
}

/// Asks for its sets.
pub fn ask_sets(family: Family) -> Vec<u8> {
    question(family, Kind::GetSet, |it| {
        it.text(SET_TABLE, NAME);
    })
}

/// Asks for its rules.
pub fn ask_rules(family: Family) -> Vec<u8> {
    question(family, Kind::GetRule, |it| {
        it.text(RULE_TABLE, NAME);
    })
}

/// Asks for the elements of a set.
pub fn ask_elements(family: Family, set: Set) -> Vec<u8> {
    question(family, Kind::GetElements, |it| {
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

/// Whether these chains, as told in answer to [`ask_chains`], are those of wmgwd's table, each at its hook.
pub fn has_chains(told: &[Vec<u8>], family: Family) -> bool {
    let made = made(family, Kind::NewChain);
    let ours: Vec<&Vec<u8>> = told.iter().filter(|chain| is_of_table(chain)).collect();
    made.len() == ours.len() && made.iter().zip(ours).all(|(made, told)| tells(told, made))
}

/// What [`make`] says of each thing of a kind.
fn made(family: Family, kind: Kind) -> Vec<Vec<u8>> {
    let mut batch = Batch::default();
    make(&mut batch, family);
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
pub fn has_sets(told: &[Vec<u8>], family: Family) -> bool {
    let is_ours = |told: &Vec<u8>, set: Set| {
        let value = |kind| Some(u32::from_be_bytes(number(find(told, kind)?, 0)?));
        is_of_table(told)
            && find(told, SET_NAME).and_then(text) == Some(set.name())
            && value(SET_KEY_LENGTH) == Some(set.key_length(family))
            && value(SET_FLAGS).unwrap_or(0) & (WITH_TIMEOUT | MAP) == set.flags()
    };
    family
        .sets()
        .iter()
        .all(|set| told.iter().any(|told| is_ours(told, *set)))
}

/// Whether these rules, as told in answer to [`ask_rules`], are those of wmgwd's table, to the last byte that matters.
pub fn has_rules(told: &[Vec<u8>], family: Family) -> bool {
    let made = made(family, Kind::NewRule);
    let ours: Vec<&Vec<u8>> = told.iter().filter(|rule| is_of_table(rule)).collect();
    made.len() == ours.len()
        && made
            .iter()
            .zip(ours)
            .all(|(made, told)| is_rule(told, made))
}

/// Whether the kernel tells of the rule that was made so.
fn is_rule(told: &[u8], made: &[u8]) -> bool {
    /// Of the expression `lookup`: the set's name, both registers, the flags. The kernel tells flags of 0, and not the
    /// id.
    const LOOKUP: [u16; 4] = [1, 2, 3, 5];
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
pub fn lease_left(told: &[Vec<u8>], family: Family) -> Option<Duration> {
    each_element(told)
        .filter(|element| key(element) == Some(family.lease_key()))
        .filter_map(|element| {
            let left = u64::from_be_bytes(number(find(element, ELEMENT_EXPIRATION)?, 0)?);
            Some(Duration::from_millis(left))
        })
        .find(|left| !left.is_zero())
}

/// The names in a set, from its elements.
pub fn names(told: &[Vec<u8>]) -> Vec<String> {
    each_element(told)
        .filter_map(|element| text(key(element)?).map(str::to_owned))
        .collect()
}

/// What is in `managed`, `shared` and `self`, from their elements; and whether something else has changed these: a bridge
/// that is in `self` alone is taken for one that has gateway addresses.
pub fn ipv6(managed: &[Vec<u8>], shared: &[Vec<u8>], own: &[Vec<u8>]) -> (Ipv6, bool) {
    let mut is_torn = false;
    let address = |value: &[u8]| Some(Ipv6Addr::from(number::<16>(value, 0)?));
    let mut bridges: BTreeMap<String, Option<Ipv6Addr>> = names(managed)
        .into_iter()
        .map(|name| (name, None))
        .collect();
    for element in each_element(own) {
        let name = key(element).and_then(text);
        let data = find(element, ELEMENT_DATA).and_then(|it| find(it, VALUE));
        if let (Some(name), Some(own)) = (name, data.and_then(address)) {
            is_torn |= bridges.insert(name.to_owned(), Some(own)).is_none();
        }
    }
    let shared: BTreeSet<Ipv6Addr> = each_element(shared)
        .filter_map(|element| address(key(element)?))
        .collect();
    (Ipv6 { bridges, shared }, is_torn)
}

/// See [`wire::concerns`]: of these tables, and the elements of the sets that change without a grant.
pub fn concerns(datagram: &[u8], own: u32) -> bool {
    let sets = [Set::Owned, Set::Managed, Set::Shared, Set::Own].map(Set::name);
    wire::concerns(datagram, NAME, &sets, own)
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
