//! Keys and values as they really stand in etcd, and as they must not.

#![allow(clippy::unwrap_used)]
use super::*;

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
            write: Write::Claim,
            has_current,
        };
        match &commit(&name("gw1"), LeaseId(1), &[claim], None).then[..] {
            [Op::Txn(row)] => row.then.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((puts(false), puts(true)), (2, 3));
}
