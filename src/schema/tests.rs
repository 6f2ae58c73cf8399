//! Keys and values as they really stand in etcd, and as they must not.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::fsm::Write;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

#[test]
fn every_key_reads_back() {
    for (key, text) in [
        (Key::Node(name("gw1")), "/wmgwd/node/gw1"),
        (Key::Meta(name("gw1")), "/wmgwd/meta/node/gw1"),
        (Key::Drain(name("gw1")), "/wmgwd/meta/drain/gw1"),
        (Key::Kind(vni(7)), "/wmgwd/vni/7/type"),
        (Key::Current(vni(7)), "/wmgwd/vni/7/current"),
        (Key::Next(Vni::MAX), "/wmgwd/vni/16777215/next"),
    ] {
        assert_eq!(key.bytes(), text.as_bytes());
        assert_eq!(Key::read(text.as_bytes()), Ok(key));
    }
}

#[test]
fn foreign_keys_are_named_and_never_read() {
    for key in [
        &b"/wmgwd/"[..],
        b"/wmgwd/node/",
        b"/wmgwd/node/a/b",
        b"/wmgwd/leader/x",
        b"/wmgwd/meta/drain/",
        b"/wmgwd/meta/other/gw1",
        b"/wmgwd/vni/0/type",
        b"/wmgwd/vni/07/type",
        b"/wmgwd/vni/16777216/type",
        b"/wmgwd/vni/7/report",
        b"/wmgwd/vni/7/type/x",
        b"/wmgwd/vni/7",
        b"/wmgwd/\xff\xfe",
        b"/other/key",
        b"",
    ] {
        let foreign = Key::read(key).unwrap_err();
        assert!(!foreign.to_string().contains('\n'), "{foreign}");
    }
    let long = [&b"/wmgwd/"[..], &[b'x'; 5000]].concat();
    assert!(Key::read(&long).unwrap_err().to_string().len() < 300);
}

#[test]
fn values_read_as_the_go_program_writes_them() {
    let read = |key: Key, bytes: &[u8]| read_value(&key, bytes).0;
    let node = Key::Node(name("gw1"));
    assert_eq!(read(node.clone(), b"[]"), Value::Points(vec![]));
    assert_eq!(read(node.clone(), b"null"), Value::Points(vec![]));
    assert_eq!(
        read(node.clone(), b"[1,18446744073709551615]"),
        Value::Points(vec![1, u64::MAX])
    );
    assert_eq!(points_bytes(&[1, u64::MAX]), b"[1,18446744073709551615]");
    assert_eq!(read(Key::Current(vni(7)), b""), Value::Name(None));
    assert_eq!(
        read(Key::Current(vni(7)), b"gw1"),
        Value::Name(Some(name("gw1")))
    );
    for number in 0..=10 {
        let kind = Kind::from_number(number).unwrap();
        assert_eq!(u64::from(kind.number()), number);
        assert_eq!(
            read(Key::Kind(vni(7)), number.to_string().as_bytes()),
            Value::Kind(kind)
        );
    }
    let meta = Meta {
        version: "0.1.0".into(),
        range: VniRange::new(vni(1), vni(100)).unwrap(),
        time: Some(1_700_000_000),
    };
    assert_eq!(
        read(Key::Meta(name("gw1")), &meta_bytes(&meta)),
        Value::Meta(meta)
    );
}

#[test]
fn broken_values_are_unreadable_with_a_reason() {
    let huge = vec![b'9'; LONGEST_VALUE + 1];
    for (key, bytes) in [
        (Key::Node(name("gw1")), &b"gw1"[..]),
        (Key::Node(name("gw1")), b"[-1]"),
        (Key::Node(name("gw1")), b"[18446744073709551616]"),
        (Key::Node(name("gw1")), b"[1.5]"),
        (Key::Node(name("gw1")), b"{}"),
        (Key::Node(name("gw1")), b""),
        (Key::Meta(name("gw1")), b"{}"),
        (
            Key::Meta(name("gw1")),
            br#"{"version":"1","minvni":9,"maxvni":1}"#,
        ),
        (Key::Kind(vni(7)), b"11"),
        (Key::Kind(vni(7)), b"-1"),
        (Key::Kind(vni(7)), b"+1"),
        (Key::Kind(vni(7)), b" 1"),
        (Key::Kind(vni(7)), b"99999999999999999999999"),
        (Key::Kind(vni(7)), b"\xff"),
        (Key::Kind(vni(7)), &huge),
        (Key::Current(vni(7)), b"a/b"),
        (Key::Next(vni(7)), b"\xff"),
    ] {
        let (value, foreign) = read_value(&key, bytes);
        assert_eq!(value, Value::Unreadable, "{key:?} {bytes:?}");
        assert!(foreign.is_some());
    }
}

/// Input: claims of VNIs whose `current` is gone or not. Output: only what is there is emptied.
#[test]
fn a_claim_empties_current_only_where_it_may_hold_something() {
    let puts = |has_current| {
        let claim = Commit {
            vni: vni(7),
            read: Revision(3),
            known: Revision(8),
            write: Write::Claim,
            has_current,
        };
        match &commit(&name("gw1"), LeaseId(1), &Batch::Rows(vec![claim]), None).then[..] {
            [Op::Txn(row)] => row.then.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((puts(false), puts(true)), (2, 3));
}

fn claim(number: u32) -> Commit {
    Commit {
        vni: vni(number),
        read: Revision(3),
        known: Revision(8),
        write: Write::Claim,
        has_current: false,
    }
}

/// Claims of `numbers`, in the order of their keys.
fn claims(numbers: impl IntoIterator<Item = u32>) -> Vec<Commit> {
    let mut rows: Vec<Commit> = numbers.into_iter().map(claim).collect();
    rows.sort_by_key(|row| neighbourhood(row.vni));
    rows
}

/// Input: numbers of any length. Output: their neighbourhood is the order of their keys in etcd.
#[test]
fn neighbours_stand_beside_each_other_in_etcd() {
    let mut by_key: Vec<u32> = (1..12_000).chain([99_999, 100_000, 16_777_215]).collect();
    let mut by_neighbourhood = by_key.clone();
    by_key.sort_by_key(|&number| Key::Kind(vni(number)).bytes());
    by_neighbourhood.sort_by_key(|&number| neighbourhood(vni(number)));
    assert_eq!(by_key, by_neighbourhood);
}

/// Input: every sixth of 10 000 VNIs. Output: every row is in a stretch, within etcd's limits, and no stretch
/// covers many VNIs more than it has rows.
#[test]
fn stretches_are_long_and_within_limits() {
    let rows = claims((1..=10_000).step_by(6));
    let Some(Batch::Stretches(stretches)) = Batch::stretches(&rows, vni(10_000)) else {
        panic!("no stretches");
    };
    let written: Vec<Commit> = stretches.iter().flatten().copied().collect();
    assert_eq!(written, rows[..written.len()]);
    assert!(written.len() > 1_000, "{}", written.len());
    assert!(stretches.len() < 64, "{}", stretches.len());
    assert!(stretches.iter().all(|stretch| stretch.len() <= 32));
    for stretch in &stretches {
        let ends = [&stretch[0], &stretch[stretch.len() - 1]];
        let [first, last] = ends.map(|row| Key::Kind(row.vni).bytes());
        let keys = (1..=10_000).map(|number| Key::Kind(vni(number)).bytes());
        let covered = keys.filter(|key| (&first..=&last).contains(&key)).count();
        assert!(covered <= 16 * stretch.len(), "{covered}: {stretch:?}");
    }
}

/// Input: rows far apart, also where few digits make them look close; rows that go back to the first key; rows
/// that are known up to another revision. Output: no stretch leads from one to the other, and where that leaves
/// none there is no batch.
#[test]
fn a_stretch_has_no_gaps_and_never_goes_back() {
    assert_eq!(Batch::stretches(&claims(1..=8), vni(64_000)), None);
    let mut rows = claims(5_000..5_010);
    rows.extend(claims(1_000..1_010));
    rows.iter_mut()
        .skip(15)
        .for_each(|row| row.known = Revision(9));
    let Some(Batch::Stretches(stretches)) = Batch::stretches(&rows, vni(9_999)) else {
        panic!("no stretches");
    };
    let ends = |it: &Stretch| (it[0].vni.get(), it[it.len() - 1].vni.get());
    assert_eq!(
        stretches.iter().map(ends).collect::<Vec<_>>(),
        [(5_000, 5_009), (1_000, 1_004), (1_005, 1_009)]
    );
}

/// Input: two stretches, and etcd's answer that one was written. Output: one condition each, from the first key
/// of the first row to the last key of the last row; each row shares its stretch's fate.
#[test]
fn a_stretch_is_written_whole_or_not_at_all() {
    let batch = Batch::Stretches(vec![claims([10, 11]), claims([500])]);
    let txn = commit(&name("gw1"), LeaseId(1), &batch, None);
    let condition = |op: &Op| match op {
        Op::Txn(txn) => (txn.compares.clone(), txn.then.len()),
        other => panic!("{other:?}"),
    };
    let none_after = |key: &[u8], end: &[u8]| Compare::AllModRevisionsLess {
        key: key.to_vec(),
        end: end.to_vec(),
        than: Revision(9),
    };
    assert_eq!(
        txn.then.iter().map(condition).collect::<Vec<_>>(),
        [
            (vec![none_after(b"/wmgwd/vni/10/", b"/wmgwd/vni/110")], 4),
            (vec![none_after(b"/wmgwd/vni/500/", b"/wmgwd/vni/5000")], 2),
        ]
    );
    let answer = |succeeded| {
        OpReply::Txn(TxnReply {
            succeeded,
            ..TxnReply::default()
        })
    };
    let mut reply = TxnReply {
        revision: Revision(9),
        succeeded: true,
        responses: vec![answer(false), answer(true)],
    };
    let fates = |reply: &TxnReply| {
        let each = committed(&batch, reply)?;
        Some(
            each.iter()
                .map(|&(vni, _, fate)| (vni.get(), fate))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        fates(&reply),
        Some(vec![
            (10, Fate::Crossed),
            (11, Fate::Crossed),
            (500, Fate::Written)
        ])
    );
    reply.succeeded = false;
    assert_eq!(fates(&reply), None);
}
