//! Data of other programs in etcd: stepped over, logged once, and no VNI loses its gateway.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::node::{Node, VNIS, refs, share};
use common::rows::{table, unsettled, until_settled};
use common::sampler::Sampler;
use common::{Op, put, put_leased, then};
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

/// Keys that are not ours, or hold what no program with this schema writes.
fn foreign() -> Vec<(Vec<u8>, Vec<u8>)> {
    let huge = vec![b'7'; 1_200_000];
    let keys: [(&[u8], &[u8]); 19] = [
        (b"/wmgwd/", b""),
        (b"/wmgwd/foo", b"bar"),
        (b"/wmgwd/\xff\xfe", b"\xff"),
        (b"/wmgwd/node/", b"[1]"),
        (b"/wmgwd/node/a/b", b"[1]"),
        (b"/wmgwd/node/broken", b"{\"a\":"),
        (b"/wmgwd/node/negative", b"[-1]"),
        (b"/wmgwd/node/text", b"[\"1\"]"),
        (b"/wmgwd/node/big", b"[18446744073709551616]"),
        (b"/wmgwd/node/bytes", b"\xc3\x28"),
        (b"/wmgwd/node/huge", &huge),
        (b"/wmgwd/meta/node/liar", b"{\"version\":1}"),
        (b"/wmgwd/meta/other", b"1"),
        (b"/wmgwd/vni/0/type", b"1"),
        (b"/wmgwd/vni/07/type", b"1"),
        (b"/wmgwd/vni/16777216/current", b"x"),
        (b"/wmgwd/vni/seven/next", b"x"),
        (b"/wmgwd/vni/7/other", b"x"),
        (b"/wmgwd/vni/5000/type", b"eleven"),
    ];
    keys.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

/// Input: two nodes that serve; keys and values of every kind of nonsense, nodes without points, with equal
/// points, with a range of their own. Output: each foreign key logged once, no VNI unserved for a moment, no
/// row changed, and a node that starts among all that works as well.
#[test]
fn foreign_keys_and_nodes_are_stepped_over() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes: Vec<Node> = (1..=3).map(|i| Node::new(i, etcd.endpoint())).collect();
    nodes[0].start();
    nodes[1].start();
    let both = [&nodes[0], &nodes[1]];
    until_settled(&client, &both);
    let before = table(&client);
    let sampler = Sampler::start(etcd.client(), &both);

    let lease = client.lease_grant(Duration::from_secs(600)).unwrap().id;
    for (key, value) in foreign() {
        client.txn(&then(vec![put(key, value)])).unwrap();
    }
    // Real nodes, in what they say, but such that they get nothing.
    let equal = format!("{:?}", nodes[0].points);
    let everywhere = format!("{:?}", (0..64u64).map(|i| i << 58).collect::<Vec<_>>());
    let elsewhere = br#"{"version":"9","minvni":1000,"maxvni":2000}"#;
    for ops in [
        vec![put_leased("/wmgwd/node/empty", "[]", Some(lease))],
        vec![put_leased("/wmgwd/node/null", "null", Some(lease))],
        vec![put_leased("/wmgwd/node/a-equal", equal, Some(lease))],
        vec![
            put_leased("/wmgwd/node/elsewhere", everywhere, Some(lease)),
            put_leased("/wmgwd/meta/node/elsewhere", elsewhere, Some(lease)),
        ],
    ] {
        client.txn(&then(ops)).unwrap();
    }
    // Once more, with the same values: no news.
    for (key, value) in foreign() {
        client.txn(&then(vec![put(key, value)])).unwrap();
    }
    let said = |node: &Node| node.logged("left alone; delete it");
    nodes[0].until_logged("/wmgwd/vni/5000/type");
    sleep(Duration::from_secs(2));
    let after = table(&client);
    assert!((1..=VNIS).all(|vni| after.row(vni) == before.row(vni)));
    assert_eq!(unsettled(&client, &both, &[]), Ok(()));
    sampler.finish().assert_unbroken();
    for node in both {
        assert_eq!(said(node), foreign().len(), "{}", node.log());
    }

    nodes[2].start();
    until_settled(&client, &refs(&nodes));
    assert_eq!(said(&nodes[2]), foreign().len());
    let shares: BTreeSet<u32> = nodes
        .iter()
        .flat_map(|node| share(node, &refs(&nodes)))
        .collect();
    assert_eq!(shares.len(), VNIS as usize);
}

/// Input: rows in service that another program overwrites with what cannot be read or means nothing. Output: what
/// cannot be read costs no moment of service; every row is repaired.
#[test]
fn spoiled_rows_are_mended() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes: Vec<Node> = (1..=2).map(|i| Node::new(i, etcd.endpoint())).collect();
    nodes.iter_mut().for_each(Node::start);
    let both = [&nodes[0], &nodes[1]];
    until_settled(&client, &both);
    let sampler = Sampler::start(etcd.client(), &both);
    let key = |vni: u32, part: &str| format!("/wmgwd/vni/{vni}/{part}");
    let unread = [
        put(key(1, "type"), "11"),
        put(key(2, "type"), b"\xff\xfe"),
        put(key(3, "type"), vec![b'1'; 1_100_000]),
        put(key(4, "current"), b"\xff"),
        put(key(5, "current"), "a/b"),
        put(key(6, "next"), b"\xff\xfe"),
        put(key(7, "next"), "stranger"),
    ];
    let contradicting = [
        put(key(11, "current"), "nobody-without-a-lease"),
        put(key(12, "current"), ""),
        put(key(13, "type"), "2"),
        put(key(14, "type"), "9"),
        put(key(15, "type"), "10"),
        put(key(16, "type"), "0"),
        Op::Delete {
            key: key(17, "type").into_bytes(),
        },
        Op::Delete {
            key: key(18, "current").into_bytes(),
        },
    ];
    for op in unread.into_iter().chain(contradicting) {
        client.txn(&then(vec![op])).unwrap();
    }
    // Harmless as long as the row is idle, and no node repairs it.
    client.txn(&then(vec![put(key(7, "next"), "")])).unwrap();
    println!("repaired: {:?}", until_settled(&client, &both));
    let report = sampler.finish();
    for (vni, gap) in report.gaps.iter().filter(|(_, gap)| !gap.is_zero()) {
        println!("vni={vni} unserved for {gap:?}");
    }
    assert!(
        report
            .gaps
            .iter()
            .all(|(&vni, gap)| vni > 10 || gap.is_zero())
    );
    let doubles: Vec<&String> = report
        .offences
        .iter()
        .filter(|text| text.contains("\", \"gw"))
        .collect();
    assert!(doubles.is_empty(), "{doubles:?}");
}

/// Input: a node key that is attached to no lease, so that it stays for ever, with points everywhere. Output: it
/// keeps no VNI from being served.
#[test]
fn a_node_without_a_lease_is_nobody() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let everywhere = format!("{:?}", (0..64u64).map(|i| i << 58).collect::<Vec<_>>());
    let ghost = put("/wmgwd/node/ghost", everywhere);
    client.txn(&then(vec![ghost])).unwrap();
    let mut node = Node::new(1, etcd.endpoint());
    node.start();
    until_settled(&client, &[&node]);
}

/// Input: the keys of living nodes written over without a lease, one of them with what cannot be read. Output:
/// they register again, and a VNI that becomes free is claimed.
#[test]
fn a_node_whose_key_is_written_over_registers_again() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes: Vec<Node> = (1..=3).map(|i| Node::new(i, etcd.endpoint())).collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&client, &refs(&nodes));
    let before = table(&client);
    for (node, value) in nodes.iter().zip(["{\"a\":", "[1]"]) {
        let key = format!("/wmgwd/node/{}", node.name);
        client.txn(&then(vec![put(key, value)])).unwrap();
    }
    common::eventually("registered as before", || {
        (table(&client).nodes == before.nodes).then_some(())
    });
    nodes[2].kill9();
    nodes[2].kill_guard();
    until_settled(&client, &refs(&nodes[..2]));
}
