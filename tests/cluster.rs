//! Whole clusters of real daemons on a real etcd: share, fail over, drain, adopt, refuse.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::node::{Node, refs, share};
use common::rows::{cluster, table, until_settled, until_settled_without};
use common::sampler::Sampler;
use common::{DEADLINE, eventually};
use std::time::{Duration, Instant};
use wmgwd::schema::Key;

/// Input: three nodes started at once; one killed; started again. Output: every VNI idle at its ring owner
/// and shown exactly there; the dead one's at the others; the share is back. Never two answer.
#[test]
fn vnis_are_shared_fail_over_and_come_back() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes: Vec<Node> = (1..=3).map(|i| Node::new(i, etcd.endpoint())).collect();
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    nodes.iter_mut().for_each(Node::start);
    println!("start: {:?}", until_settled(&client, &refs(&nodes)));
    let all = refs(&nodes);
    assert!(all.iter().all(|node| !share(node, &all).is_empty()));

    nodes[0].kill9();
    let guard = nodes[0].guard_pid();
    println!(
        "failover of a killed node: {:?}",
        until_settled_without(&client, &refs(&nodes[1..]), &refs(&nodes[..1]))
    );
    eventually("the guard ends", || {
        nodes[0].guard_pids().is_empty().then_some(())
    });
    println!("its guard was {guard}");

    nodes[0].start();
    println!("its return: {:?}", until_settled(&client, &refs(&nodes)));
    sampler.finish().assert_clean();
}

/// Input: SIGTERM to one of three. Output: exit 0, its VNIs moved before, none unserved for a moment, its
/// key gone without waiting for the lease.
#[test]
fn a_drain_hands_everything_over() {
    let (etcd, mut nodes) = cluster(3);
    let client = etcd.client();
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    let begun = Instant::now();
    nodes[1].term();
    assert_eq!(nodes[1].wait_exit().code(), Some(0));
    println!("drain: {:?}", begun.elapsed());
    let now = table(&client);
    assert!(!now.has(&nodes[1]), "its registration is gone");
    assert_eq!(now.owned_by(&nodes[1]), 0);
    assert_eq!(nodes[1].answering(), 0);
    until_settled_without(&client, &[&nodes[0], &nodes[2]], &[&nodes[1]]);
    assert_eq!(nodes[1].guard_pids(), []);
    sampler.finish().assert_unbroken();
}

/// Input: a node without `--uids` that ends in an orderly way and starts again, twice. Output: it has the points that
/// it drew at its first start.
#[test]
fn drawn_points_outlive_a_restart() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut node = Node::new(1, etcd.endpoint());
    node.set("--uids", "");
    let drawn = Key::Points(node.name.clone()).bytes();
    let key = Key::Node(node.name.clone()).bytes();
    let value = |key: &[u8]| {
        let reply = client.get(key).unwrap();
        reply.kvs.first().map(|kv| kv.value.clone())
    };
    let mut first = None;
    for run in 1..=3 {
        node.start();
        let points = eventually("it is registered", || value(&key));
        assert_eq!(value(&drawn), Some(points.clone()), "run {run}");
        assert_eq!(first.get_or_insert(points.clone()), &points, "run {run}");
        node.term();
        assert_eq!(node.wait_exit().code(), Some(0));
        assert_eq!(value(&key), None);
    }
}

/// Input: SIGTERM to the only node. Output: withdrawn, exit 0, long before the drain timeout.
#[test]
fn a_drain_without_another_node_withdraws() {
    let (etcd, mut nodes) = cluster(1);
    let begun = Instant::now();
    nodes[0].term();
    assert_eq!(nodes[0].wait_exit().code(), Some(0));
    assert!(begun.elapsed() < DEADLINE, "the drain timeout is 60 s");
    assert_eq!(nodes[0].answering(), 0);
    let now = table(&etcd.client());
    assert!(!now.has(&nodes[0]));
    assert_eq!(now.owned_by(&nodes[0]), 0);
}

/// Input: a drain that cannot end (the only taker never acts), by its timeout and by a second signal.
/// Output: exit 0, everything withdrawn, the lease revoked.
#[test]
fn a_drain_is_bounded_by_its_timeout_and_by_a_second_signal() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let lease = client.lease_grant(Duration::from_secs(600)).unwrap().id;
    for (timeout, signals) in [("2", 1), ("60", 2)] {
        let mut node = Node::new(1, etcd.endpoint()).with("--drain-timeout", timeout);
        // Registered, with nothing while the node is there (the greater name has the point), with all of the
        // ring once it is gone, and as idle as a stone.
        let points = format!("{:?}", node.points);
        let stone = common::put_leased("/wmgwd/node/a-stone", points, Some(lease));
        client.txn(&common::then(vec![stone])).unwrap();
        node.start();
        until_settled(&client, &[&node]);
        let begun = Instant::now();
        node.term();
        let key = format!("/wmgwd/node/{}", node.name);
        eventually("the node leaves the ring", || {
            let reply = client.get(key.as_bytes()).unwrap();
            (reply.kvs[0].value == b"[]").then_some(())
        });
        assert!(node.answering() > 0, "it still serves while it drains");
        if signals == 2 {
            node.term();
        }
        assert_eq!(node.wait_exit().code(), Some(0));
        println!(
            "{signals} signals, timeout {timeout}: {:?}",
            begun.elapsed()
        );
        assert_eq!(node.answering(), 0);
        assert!(!table(&client).has(&node));
    }
}
