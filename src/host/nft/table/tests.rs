//! Our bytes beside those of nft 1.0.6, and what Linux 6.18 answered, byte for byte (`tests/fuzz/seeds/nft`).
#![allow(clippy::unwrap_used)]
#![cfg(target_endian = "little")]
use super::*;
use crate::host::netlink::{HEADER, Header, messages_with_headers};
use crate::host::nft::wire::{Dump, Verdict, take_dump, verdicts};

fn seed(name: &str) -> Vec<u8> {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds/nft/");
    std::fs::read(format!("{seeds}{name}")).unwrap()
}

/// Reads a datagram as the answer to the question that it answers.
fn take(datagram: &[u8], found: &mut Vec<Vec<u8>>) -> Dump {
    let asked = u32::from_ne_bytes(number(datagram, 8).unwrap());
    take_dump(datagram, asked, found)
}

/// A message: its type, and the type and value of each attribute.
type Message = (u16, Vec<(u16, Vec<u8>)>);

/// What a batch says: the type and the attributes of each message. nft names a set by an id, too, which matters
/// only for a set that is made in the same batch.
fn said(batch: &[u8]) -> Vec<Message> {
    const SET_ID_OF_ELEMENTS: u16 = 4;
    let is_of_elements = |kind: u16| [0xa0c, 0xa0e].contains(&kind);
    messages(batch)
        .map(|(kind, message)| {
            let parts = attributes(&message[GENERIC..]).map(|(kind, it)| (kind, it.to_vec()));
            let kept =
                parts.filter(|(part, _)| !is_of_elements(kind) || *part != SET_ID_OF_ELEMENTS);
            (kind, kept.collect())
        })
        .collect()
}

fn ours(fill: impl FnOnce(&mut Batch)) -> Vec<u8> {
    let mut batch = Batch::default();
    fill(&mut batch);
    batch.finish(0).0
}

/// Input: what nft was told in its own language: the table as it stands at the top of the module, and both halves
/// of a grant. Output: it sends what we do.
#[test]
fn batches_are_those_of_nft() {
    assert_eq!(
        said(&ours(|batch| make(batch, Family::Arp))),
        said(&seed("nft-make"))
    );
    let token = ours(|batch| put_token(batch, Family::Arp, 7, Duration::from_millis(100)));
    assert_eq!(said(&token), said(&seed("nft-token")));
    let names = ["br7".to_owned(), "br8".to_owned()];
    let granted = ours(|batch| {
        grant(batch, Family::Arp, 7, Duration::from_secs(5));
        add_names(batch, Family::Arp, &names);
    });
    // nft was told to take the token first.
    let mut theirs = said(&seed("nft-grant"));
    theirs[1..5].rotate_left(1);
    assert_eq!(said(&granted), theirs);
}

/// Input: what nft was told in its own language of the table of IPv6, but for the target of a solicitation, which nft
/// 1.0.6 cannot compare: there it looks at the source; and elements. Output: it sends what we do.
#[test]
fn batches_of_ipv6_are_those_of_nft() {
    let mut theirs = seed("nft-make6");
    // NFTA_PAYLOAD_BASE, _OFFSET and _LEN of the first 16 bytes that are loaded.
    let source = [
        8, 0, 2, 0, 0, 0, 0, 1, 8, 0, 3, 0, 0, 0, 0, 8, 8, 0, 4, 0, 0, 0, 0, 16,
    ];
    let at = theirs.windows(24).position(|it| it == source).unwrap();
    theirs[at + 7] = 2;
    assert_eq!(said(&ours(|batch| make(batch, Family::Ip6))), said(&theirs));
    let ipv6 = Ipv6 {
        bridges: [("br8".to_owned(), Some("fe80::8".parse().unwrap()))].into(),
        shared: ["fe80::1".parse().unwrap()].into(),
    };
    let mut ours = said(&ours(|batch| {
        change_ipv6(batch, &Ipv6::default(), &ipv6);
        elements(batch, Family::Ip6, Kind::NewElements, Set::Lease, |list| {
            element(
                list,
                1,
                Family::Ip6.lease_key(),
                Some(Duration::from_secs(5)),
            );
        });
    }));
    // nft was told of `self` first.
    ours[1..4].rotate_right(1);
    ours[2..4].rotate_right(1);
    assert_eq!(ours, said(&seed("nft-elements6")));
}

/// Input: gateway addresses that come, stay and go, and a bridge whose own address changes. Output: only what differs
/// is taken out and put in.
#[test]
fn what_stays_is_not_touched() {
    let of = |bridges: &[(&str, Option<&str>)], shared: &[&str]| Ipv6 {
        bridges: bridges
            .iter()
            .map(|(name, own)| ((*name).to_owned(), own.map(|it| it.parse().unwrap())))
            .collect(),
        shared: shared.iter().map(|it| it.parse().unwrap()).collect(),
    };
    let old = of(
        &[
            ("br1", Some("fe80::1:1")),
            ("br2", None),
            ("br3", Some("fe80::3:1")),
        ],
        &["fe80::1", "2001:db8::1"],
    );
    let new = of(
        &[
            ("br1", Some("fe80::1:1")),
            ("br3", Some("fe80::3:2")),
            ("br4", None),
        ],
        &["fe80::1", "2001:db8::2"],
    );
    let batch = ours(|batch| change_ipv6(batch, &old, &new));
    let changes: Vec<(u16, String, usize)> = said(&batch)
        .iter()
        .filter(|(kind, _)| kind >> 8 == 10)
        .map(|(kind, parts)| {
            let set = text(&parts[1].1).unwrap().to_owned();
            (kind & 0xff, set, attributes(&parts[2].1).count())
        })
        .collect();
    let (add, delete) = (Kind::NewElements as u16, Kind::DeleteElements as u16);
    let expected = [
        (delete, "managed"),
        (delete, "shared"),
        (delete, "self"),
        (add, "managed"),
        (add, "shared"),
        (add, "self"),
    ];
    assert_eq!(
        changes,
        expected.map(|(kind, set)| (kind, set.to_owned(), 1))
    );
    assert_eq!(said(&ours(|batch| change_ipv6(batch, &new, &new))).len(), 2);
}

/// Input: the flags of a batch of ours. Output: it makes no table where one is, and its last change alone is
/// answered.
#[test]
fn a_batch_is_exclusive_and_answered_once() {
    let bytes = ours(|batch| make(batch, Family::Arp));
    let (mut at, mut flags) = (0, Vec::new());
    while at < bytes.len() {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        flags.push(word(at + 6));
        at += usize::from(word(at)).next_multiple_of(4);
    }
    assert_eq!(flags.len(), 11);
    assert_eq!(
        (flags[0], flags[1], flags[9], flags[10]),
        (1, 0x601, 0xc05, 1)
    );
    assert!(flags[2..9].iter().all(|flags| flags & 4 == 0), "{flags:x?}");
}

#[test]
fn a_grant_is_never_for_ever() {
    let nothing = ours(|batch| put_token(batch, Family::Arp, 7, Duration::ZERO));
    let timeout = [12, 0, ELEMENT_TIMEOUT as u8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert!(nothing.windows(12).any(|it| it == timeout));
}

fn told(name: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    take(&seed(name), &mut found);
    found
}

/// Input: what the kernel answered of a table that nft made. Output: it is read as ours.
#[test]
fn a_table_of_ours_is_known() {
    let [table] = &told("table")[..] else {
        panic!("not one table");
    };
    assert!(has_comment(table));
    assert!(has_sets(&told("sets"), Family::Arp) && has_rules(&told("rules"), Family::Arp));
    assert!(
        !has_sets(&told("sets")[1..], Family::Arp) && !has_rules(&told("rules")[1..], Family::Arp)
    );
    assert_eq!(names(&told("owned")), ["br8", "br7"]);
    let left = lease_left(&told("lease"), Family::Arp).unwrap();
    assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4));
    assert_eq!(lease_left(&told("owned"), Family::Arp), None);
}

/// Input: another table of that name, of ARP and of another family. Output: not ours.
#[test]
fn another_table_is_not_ours() {
    let renamed = |bytes: &[u8]| {
        let at = bytes.windows(5).position(|it| it == b"wmgwd").unwrap();
        let mut bytes = bytes.to_vec();
        bytes[at] = b'x';
        bytes
    };
    let sets: Vec<Vec<u8>> = told("sets").iter().map(|it| renamed(it)).collect();
    assert!(!has_sets(&sets, Family::Arp));
    let mut found = Vec::new();
    let mut bridge = seed("sets");
    bridge[HEADER] = 7;
    take(&bridge, &mut found);
    assert_eq!(found.len(), 2);
}

/// Input: a dump during which something changed; one that is refused; one that is not whole yet.
#[test]
fn the_end_of_a_dump_is_known() {
    let mut found = Vec::new();
    assert_eq!(take(&seed("sets"), &mut found), Dump::Done);
    assert_eq!(found.len(), 3);
    assert_eq!(take(&seed("table"), &mut found), Dump::More);
    let mut torn = seed("sets");
    torn[6] |= 0x10;
    assert_eq!(take(&torn, &mut found), Dump::Torn);
    assert_eq!(take(&seed("refused"), &mut found), Dump::Refused(2));
}

/// Input: a batch for a table that is gone. Output: ENOENT for its first message, which counts.
#[test]
fn a_refusal_is_read() {
    let verdicts = verdicts(&seed("refused"));
    assert_eq!(verdicts.first(), Some(&Verdict::Refused(1, 2)));
}

/// Input: what `nft flush ruleset` has the kernel tell; and what a grant has it tell. Output: only the first
/// concerns the table.
#[test]
fn a_flush_is_heard() {
    assert!(concerns(&seed("flushed"), 0));
    assert!(!wire::concerns(&seed("flushed"), "other", &["owned"], 0));
    let [token, granted] = ["nft-token", "nft-grant"].map(seed);
    assert!(!concerns(&token, 1));
    // It has names, too: of the socket at port 0, as the batch is still to be sent.
    assert!(concerns(&granted, 1) && !concerns(&granted, 0));
}

/// Input: a batch and a question, with a number each. Output: what answers another is not taken for their answer.
#[test]
fn answers_are_to_the_last_question() {
    let mut batch = Batch::default();
    make(&mut batch, Family::Arp);
    let (bytes, last) = batch.finish(u32::MAX);
    let numbers: Vec<u32> = messages_with_headers(&bytes)
        .map(|(header, _)| header.number)
        .collect();
    assert_eq!(numbers[..3], [u32::MAX, 0, 1]);
    assert_eq!(numbers[numbers.len() - 2..], [last, last + 1]);
    let asked = wire::numbered(&ask_rules(Family::Arp), 7);
    let header = Header::read(&asked).unwrap();
    assert_eq!(header.number, 7);
    assert_eq!(asked.len(), ask_rules(Family::Arp).len());
    let mut found = Vec::new();
    let told = seed("sets");
    let number = Header::read(&told).unwrap().number;
    assert_eq!(take_dump(&told, number ^ 1, &mut found), Dump::More);
    assert!(found.is_empty());
}

/// Input: all questions. Output: the answer to the one for the table has no end of its own, those to the others do.
#[test]
fn lists_are_asked_for_as_such() {
    assert!(!wire::is_for_list(&ask_table(Family::Arp)));
    let lists = [
        ask_chains(Family::Arp),
        ask_sets(Family::Arp),
        ask_rules(Family::Arp),
    ];
    let elements = [Set::Owned, Set::Lease].map(|set| ask_elements(Family::Arp, set));
    assert!(
        lists
            .iter()
            .chain(&elements)
            .all(|it| wire::is_for_list(it))
    );
}

/// Input: what the kernel tells of a table that was switched off, that another process owns; of a rule with another
/// verdict, another comparison, another set; of chains at another hook, and of one more. Output: each is noticed.
#[test]
fn a_table_that_differs_is_noticed() {
    let table = &told("table")[0];
    assert!(has_no_flags(table) && handle(table).is_some());
    let at = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|it| it == what);
    let with = |bytes: &[u8], what: &[u8], other: &[u8]| {
        let at = at(bytes, what).unwrap();
        let mut bytes = bytes.to_vec();
        bytes[at..at + other.len()].copy_from_slice(other);
        bytes
    };
    for flags in [1, 2] {
        let flags = [8, 0, TABLE_FLAGS as u8, 0, 0, 0, 0, flags];
        assert!(!has_no_flags(&with(
            table,
            &[8, 0, TABLE_FLAGS as u8, 0],
            &flags
        )));
    }
    let rules = told("rules");
    let differ = |which: usize, what: &[u8], other: &[u8]| {
        let mut rules = rules.clone();
        rules[which] = with(&rules[which], what, other);
        !has_rules(&rules, Family::Arp)
    };
    // NFTA_VERDICT_CODE: accept, drop; NFTA_CMP_OP: not equal, equal; NFTA_LOOKUP_FLAGS: inverted or not.
    assert!(differ(
        0,
        &[8, 0, 1, 0, 0, 0, 0, 1],
        &[8, 0, 1, 0, 0, 0, 0, 0]
    ));
    assert!(differ(
        3,
        &[8, 0, 1, 0, 0, 0, 0, 0],
        &[8, 0, 1, 0, 0, 0, 0, 1]
    ));
    assert!(differ(
        0,
        &[8, 0, 2, 0, 0, 0, 0, 1],
        &[8, 0, 2, 0, 0, 0, 0, 0]
    ));
    assert!(differ(
        1,
        &[8, 0, 5, 0, 0, 0, 0, 1],
        &[8, 0, 5, 0, 0, 0, 0, 0]
    ));
    assert!(differ(
        2,
        &[8, 0, 5, 0, 0, 0, 0, 0],
        &[8, 0, 5, 0, 0, 0, 0, 1]
    ));
    assert!(differ(2, b"lease", b"owned"));
    let mut swapped = rules.clone();
    swapped.swap(0, 1);
    assert!(!has_rules(&swapped, Family::Arp));
    let chains = told("chains");
    assert!(has_chains(&chains, Family::Arp));
    assert!(
        !has_chains(&[], Family::Arp)
            && !has_chains(&[&chains[..], &chains[..]].concat(), Family::Arp)
    );
    // NF_ARP_OUT; a policy of drop.
    for (what, other) in [
        ([8, 0, 1, 0, 0, 0, 0, 0], [8, 0, 1, 0, 0, 0, 0, 1]),
        ([8, 0, 5, 0, 0, 0, 0, 1], [8, 0, 5, 0, 0, 0, 0, 0]),
    ] {
        assert!(!has_chains(&[with(&chains[0], &what, &other)], Family::Arp));
    }
}
