//! Our bytes beside those of nft 1.0.6, and what Linux 6.18 answered, byte for byte (`tests/fuzz/seeds/nft`).
#![allow(clippy::unwrap_used)]
#![cfg(target_endian = "little")]
use super::*;
use crate::host::netlink::{HEADER, messages};
use crate::host::nft::wire::{Dump, GENERIC, Verdict, concerns, take_dump, verdicts};

fn seed(name: &str) -> Vec<u8> {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds/nft/");
    std::fs::read(format!("{seeds}{name}")).unwrap()
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
    batch.finish().0
}

/// Input: what nft was told in its own language: the table as it stands at the top of the module, and both halves
/// of a grant. Output: it sends what we do.
#[test]
fn batches_are_those_of_nft() {
    assert_eq!(said(&ours(make)), said(&seed("nft-make")));
    let token = ours(|batch| put_token(batch, 7, Duration::from_millis(100)));
    assert_eq!(said(&token), said(&seed("nft-token")));
    let names = ["br7".to_owned(), "br8".to_owned()];
    let granted = ours(|batch| {
        grant(batch, 7, Duration::from_secs(5));
        add_names(batch, &names);
    });
    assert_eq!(said(&granted), said(&seed("nft-grant")));
}

/// Input: the flags of a batch of ours. Output: it makes no table where one is, and its last change alone is
/// answered.
#[test]
fn a_batch_is_exclusive_and_answered_once() {
    let bytes = ours(make);
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
    let nothing = ours(|batch| put_token(batch, 7, Duration::ZERO));
    let timeout = [12, 0, ELEMENT_TIMEOUT as u8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert!(nothing.windows(12).any(|it| it == timeout));
}

fn told(name: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    take_dump(&seed(name), &mut found);
    found
}

/// Input: what the kernel answered of a table that nft made. Output: it is read as ours.
#[test]
fn a_table_of_ours_is_known() {
    let [table] = &told("table")[..] else {
        panic!("not one table");
    };
    assert!(has_comment(table));
    assert!(has_sets(&told("sets")) && has_rules(&told("rules")));
    assert!(!has_sets(&told("sets")[1..]) && !has_rules(&told("rules")[1..]));
    assert_eq!(names(&told("owned")), ["br8", "br7"]);
    let left = lease_left(&told("lease")).unwrap();
    assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4));
    assert_eq!(lease_left(&told("owned")), None);
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
    assert!(!has_sets(&sets));
    let mut found = Vec::new();
    let mut bridge = seed("sets");
    bridge[HEADER] = 7;
    take_dump(&bridge, &mut found);
    assert_eq!(found.len(), 2);
}

/// Input: a dump during which something changed; one that is refused; one that is not whole yet.
#[test]
fn the_end_of_a_dump_is_known() {
    let mut found = Vec::new();
    assert_eq!(take_dump(&seed("sets"), &mut found), Dump::Done);
    assert_eq!(found.len(), 3);
    assert_eq!(take_dump(&seed("table"), &mut found), Dump::More);
    let mut torn = seed("sets");
    torn[6] |= 0x10;
    assert_eq!(take_dump(&torn, &mut found), Dump::Torn);
    assert_eq!(take_dump(&seed("refused"), &mut found), Dump::Refused(2));
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
    assert!(concerns(&seed("flushed"), NAME));
    assert!(!concerns(&seed("flushed"), "other"));
    assert!(!concerns(&seed("nft-grant"), NAME));
}
