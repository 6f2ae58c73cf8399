//! The disk of etcd's leader stalls: its process lives and goes on answering keepalives, while the other members
//! elect a leader that ends the lease (etcd issue 15247).
#![allow(clippy::unwrap_used)]

mod common;

use common::disk::Disk;
use common::etcd::EtcdCluster;
use common::node::{Node, TTL, refs};
use common::rows::{table, until_settled, until_settled_without};
use common::sampler::Sampler;
use common::{eventually, put, skipped, then};
use std::time::{Duration, Instant};
use wmgwd::etcd::{Client, Endpoint};

/// Three members, each on a disk of its own; the leader's number, and a client of the other two.
fn three() -> Option<(EtcdCluster, usize, Client)> {
    if let Some(reason) = Disk::cannot_be() {
        skipped("a stalled disk", reason);
        return None;
    }
    let etcd = EtcdCluster::start_on_disks(3);
    let leads = eventually("a leader", || etcd.leader());
    let others = [(leads + 1) % 3, (leads + 2) % 3].map(|member| etcd.endpoint(member));
    let majority = Client::new(others.to_vec(), Duration::from_secs(1));
    Some((etcd, leads, majority))
}

/// Nodes 1 to 3, the first at the leader, at rest. `reach` is what `--etcd` of the first names.
fn nodes(etcd: &EtcdCluster, leads: usize, reach: &[Endpoint]) -> Vec<Node> {
    let own = reach.iter().map(Endpoint::to_string).collect::<Vec<_>>();
    let mut nodes = vec![Node::new(1, own.join(","))];
    for number in 2..=3 {
        nodes.push(Node::new(
            number,
            etcd.endpoint((leads + number as usize - 1) % 3),
        ));
    }
    nodes.iter_mut().for_each(Node::start);
    until_settled(&etcd.client(), &refs(&nodes));
    nodes
}

/// Waits until the member has written to its disk what it was given: it does so ten times a second. One that stalls
/// in the middle of that holds a lock, and answers no keepalive.
fn until_quiet(etcd: &EtcdCluster, member: usize) {
    let client = Client::new(vec![etcd.endpoint(member)], Duration::from_secs(1));
    let (mut last, mut since) = (None, Instant::now());
    eventually("no write for a while", || {
        let now = client.revision(b"quiet").ok()?;
        if last.replace(now) != Some(now) {
            since = Instant::now();
        }
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
}

/// Stalls the leader's disk. A write has the leader wait for it.
fn stall(etcd: &EtcdCluster, leads: usize, majority: &Client) {
    until_quiet(etcd, leads);
    etcd.disk(leads).freeze();
    // The leader that is to take the write does not answer any more: the outcome is of no interest.
    let _ = majority.txn(&then(vec![put("stall", "")]));
    eventually("the others elect a leader", || majority.get(b"stall").ok());
}

/// Input: the leader's disk stalls; its gateway has no other member. Output: that gateway does not take the word
/// of its member for a renewal and is silent before another serves; it is back after the disk is.
#[test]
fn a_gateway_with_the_stalled_member_alone_falls_silent() {
    let Some((etcd, leads, majority)) = three() else {
        return;
    };
    let nodes = nodes(&etcd, leads, &[etcd.endpoint(leads)]);
    let sampler = Sampler::start(majority.clone(), &refs(&nodes));
    stall(&etcd, leads, &majority);
    until_settled_without(&majority, &[&nodes[1], &nodes[2]], &[&nodes[0]]);
    etcd.disk(leads).thaw().unwrap();
    until_settled(&majority, &refs(&nodes));
    sampler.finish().assert_never_two();
}

/// Input: as before, but the gateway has the other members as well. Output: it turns to them and serves while
/// the disk still stalls.
#[test]
fn a_gateway_turns_from_the_stalled_member_to_another() {
    let Some((etcd, leads, majority)) = three() else {
        return;
    };
    let mut reach = etcd.endpoints();
    reach.rotate_left(leads);
    let nodes = nodes(&etcd, leads, &reach);
    let sampler = Sampler::start(majority.clone(), &refs(&nodes));
    let stalled = Instant::now();
    stall(&etcd, leads, &majority);
    // A lease that only the stalled member renews is over by then.
    eventually("it is registered after two leases", || {
        let over = stalled.elapsed() > 2 * Duration::from_secs(TTL);
        (over && table(&majority).has(&nodes[0])).then_some(())
    });
    until_settled(&majority, &refs(&nodes));
    etcd.disk(leads).thaw().unwrap();
    sampler.finish().assert_never_two();
}
