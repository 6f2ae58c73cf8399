//! Keys and values as etcd has them, and as they must not be.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::model::fsm::{Phase, Write};
use crate::witness::{Epoch, Number, Run, Witness, siphash};
use std::time::Duration;

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
        (Key::Points(name("gw1")), "/wmgwd/meta/points/gw1"),
        (Key::Contact(name("gw1")), "/wmgwd/meta/beat/gw1"),
        (Key::Epoch(name("gw1")), "/wmgwd/meta/witness/gw1"),
        (Key::Vote(name("x"), name("p")), "/wmgwd/meta/vote/x/p"),
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
        unable: None,
        fitness: None,
        time: Some(1_700_000_000),
        kernel: None,
        ipv6: None,
    };
    let unable = Unable {
        absent: "6-100".parse().unwrap(),
        failing: "2,4".parse().unwrap(),
    };
    let unfit = Fitness {
        rank: Rank::Unfit,
        bad: [Sign::FabricLink, Sign::Ospf].into_iter().collect(),
    };
    let fitnesses = [None, Some(Fitness::default()), Some(unfit)];
    for (unable, fitness) in [None, Some(Unable::default()), Some(unable)]
        .into_iter()
        .zip(fitnesses)
    {
        let meta = Meta {
            unable,
            fitness,
            ..meta.clone()
        };
        assert_eq!(
            read(Key::Meta(name("gw1")), &meta_bytes(&meta)),
            Value::Meta(meta)
        );
    }
    for (kernel, shown) in [
        (KernelHold::Held, r#""kernel_lease":{"held":true}"#),
        (
            KernelHold::Missing("full".into()),
            r#""kernel_lease":{"held":false,"why":"full"}"#,
        ),
    ] {
        let meta = Meta {
            kernel: Some(kernel),
            ..meta.clone()
        };
        let bytes = meta_bytes(&meta);
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(text.contains(shown), "{text}");
        assert_eq!(read(Key::Meta(name("gw1")), &bytes), Value::Meta(meta));
    }
}

/// Input: what a later version may publish of the kernel lease and of IPv6. Output: the rest is read all the same.
#[test]
fn an_odd_kernel_lease_costs_nothing() {
    for odd in [r#""held""#, "{}", "null", r#"{"held":7,"bridges":"7"}"#] {
        let range = r#""minvni":1,"maxvni":9"#;
        let text = format!(r#"{{"version":"9",{range},"kernel_lease":{odd},"ipv6":{odd}}}"#);
        let (value, _) = read_value(&Key::Meta(name("gw1")), text.as_bytes());
        assert!(
            matches!(&value, Value::Meta(meta) if meta.kernel.is_none() && meta.ipv6.is_none()),
            "{odd}: {value:?}"
        );
    }
}

#[test]
fn what_a_node_has_of_ipv6_reads_back() {
    for (lack, shown) in [
        (None, r#""ipv6":{"bridges":7}"#),
        (
            Some("no module"),
            r#""ipv6":{"bridges":7,"lack":"no module"}"#,
        ),
    ] {
        let meta = Meta {
            version: "0.1.0".into(),
            range: VniRange::new(vni(1), vni(100)).unwrap(),
            unable: None,
            fitness: None,
            time: None,
            kernel: None,
            ipv6: Some(Ipv6Hold {
                bridges: 7,
                lack: lack.map(str::to_owned),
            }),
        };
        let bytes = meta_bytes(&meta);
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(text.contains(shown), "{text}");
        let (value, _) = read_value(&Key::Meta(name("gw1")), &bytes);
        assert_eq!(value, Value::Meta(meta));
    }
}

/// Input: epochs, what is written over them, and contacts. Output: they read back.
#[test]
fn epochs_and_contacts_read_back() {
    let epoch = |witnesses: &[&str]| Epoch {
        lease: LeaseId(-7),
        window: Duration::from_millis(500),
        number: Number(u64::MAX),
        witnesses: witnesses.iter().map(|name| witness(name)).collect(),
    };
    let standings = [
        Standing::Epoch(epoch(&[])),
        Standing::Epoch(epoch(&["a", "b", "c"])),
        Standing::Evicted,
        Standing::Released,
    ];
    for standing in standings {
        let bytes = witness::standing_bytes(&standing);
        let read = read_value(&Key::Epoch(name("gw1")), &bytes);
        assert_eq!(read, (Value::Standing(standing), None));
    }
    for address in ["192.0.2.1:4795", "[2001:db8::1]:4795"] {
        let contact = Contact {
            run: Run(9),
            key: siphash::Key(std::array::from_fn(|at| at as u8)),
            address: address.parse().unwrap(),
        };
        let read = read_value(
            &Key::Contact(name("gw1")),
            &witness::contact_bytes(&contact),
        );
        assert_eq!(read, (Value::Contact(contact), None));
    }
    // More than are counted, or one of them twice.
    for witnesses in [&["a", "b", "c", "d"][..], &["a", "b", "a"]] {
        let bytes = witness::standing_bytes(&Standing::Epoch(epoch(witnesses)));
        let read = read_value(&Key::Epoch(name("gw1")), &bytes).0;
        assert_eq!(read, Value::Unreadable, "{witnesses:?}");
    }
}

fn witness(text: &str) -> Witness {
    Witness {
        name: name(text),
        lease: LeaseId(1),
        run: Run(2),
    }
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
        (
            Key::Meta(name("gw1")),
            br#"{"version":"1","minvni":1,"maxvni":9,"unable":{"absent":"3,2"}}"#,
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
            has_current,
            ..claim(7)
        };
        match &commit(&name("gw1"), LeaseId(1), &Batch::new([claim]), None).then[..] {
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
        write: Write::Claim,
        has_current: false,
        alone: false,
    }
}

/// Whether etcd takes a transaction in one piece, by its own count: of each level, with the most of any below.
fn fits(batch: &Batch) -> bool {
    let mark = Meta {
        version: "1".to_owned(),
        range: VniRange::new(vni(1), vni(9)).unwrap(),
        unable: None,
        fitness: None,
        time: Some(1),
        kernel: None,
        ipv6: None,
    };
    let txn = commit(&name("gw1"), LeaseId(1), batch, Some(&mark));
    let nested = txn.then.iter().map(|op| match op {
        Op::Txn(inner) => inner.compares.len().max(inner.then.len()),
        _ => 0,
    });
    txn.then.len() + nested.max().unwrap_or(0) <= 128
}

/// Input: rows of all kinds, some of which go alone, more than fit. Output: the first ones, in bundles of many and
/// within etcd's limits; a bundle that goes alone has no other bundle before or behind it.
#[test]
fn bundles_are_large_and_within_limits() {
    let writes = [Write::Claim, Write::Own, Write::Advance(Phase::Decided)];
    for write in writes {
        for alone_each in [1, 2, 7, 100, usize::MAX] {
            let rows = (1..=3_000).map(|number| Commit {
                write,
                alone: number as usize % alone_each == alone_each - 1,
                ..claim(number)
            });
            let batch = Batch::new(rows);
            let numbers: Vec<u32> = batch.iter().map(|row| row.vni.get()).collect();
            assert!(numbers.iter().copied().eq(1..=numbers.len() as u32));
            assert!(fits(&batch), "{write:?} {alone_each}");
            let expected = match alone_each {
                1 => 125,
                2 => 120,
                7 => 350,
                _ => 1_000,
            };
            assert!(numbers.len() >= expected, "{alone_each}: {}", numbers.len());
            for bundle in batch.bundles() {
                assert!(!bundle.is_empty());
                let alone = bundle.iter().any(|row| row.alone);
                assert!(!alone || bundle.len() == 1, "{bundle:?}");
            }
        }
    }
    assert!(Batch::new([]).bundles().is_empty());
}

/// Input: two bundles, and etcd's answer that one was written. Output: a condition on each row, at the revision that
/// was read of it; each row shares the fate of its bundle, and a row that went alone knows why.
#[test]
fn a_bundle_is_written_whole_or_not_at_all() {
    let alone = Commit {
        alone: true,
        read: Revision(5),
        ..claim(12)
    };
    let batch = Batch::new([claim(10), claim(11), alone, claim(500)]);
    let txn = commit(&name("gw1"), LeaseId(1), &batch, None);
    let condition = |op: &Op| match op {
        Op::Txn(txn) => (txn.compares.clone(), txn.then.len()),
        other => panic!("{other:?}"),
    };
    let unchanged = |number, since: i64| Compare::ModRevisionLess {
        key: Key::Kind(vni(number)).bytes(),
        than: Revision(since + 1),
    };
    assert_eq!(
        txn.then.iter().map(condition).collect::<Vec<_>>(),
        [
            (vec![unchanged(10, 3), unchanged(11, 3)], 4),
            (vec![unchanged(12, 5)], 2),
            (vec![unchanged(500, 3)], 2),
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
        responses: vec![answer(false), answer(false), answer(true)],
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
            (10, CommitResult::Undecided),
            (11, CommitResult::Undecided),
            (12, CommitResult::Beaten),
            (500, CommitResult::Written)
        ])
    );
    reply.succeeded = false;
    assert_eq!(fates(&reply), None);
}

/// Input: the fitness that a later version may write. Output: what this one knows of it. A rank that is no number
/// makes the whole value unreadable.
#[test]
fn a_fitness_of_a_later_version_is_read_as_far_as_it_is_known() {
    let meta = |fitness: &str| {
        let text = format!(r#"{{"version":"9","minvni":1,"maxvni":2,"fitness":{fitness}}}"#);
        read_value(&Key::Meta(name("gw1")), text.as_bytes()).0
    };
    let Value::Meta(read) = meta(r#"{"rank":4,"bad":["evpn","ptp-clock",7],"since":3}"#) else {
        panic!("it is not read")
    };
    let known = Fitness {
        rank: Rank::Fit,
        bad: [Sign::Evpn].into_iter().collect(),
    };
    assert_eq!(read.fitness, Some(known));
    assert_eq!(meta(r#"{"rank":"high"}"#), Value::Unreadable);
}
