//! Members of etcd that are cut off from each other, each with a gateway that has no other member.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::EtcdCluster;
use common::eventually;
use common::node::{Node, refs};
use common::rows::{table, until_settled, until_settled_without};
use common::sampler::Sampler;
use std::time::{Duration, Instant};
use wmgwd::etcd::Client;

/// Three members with a gateway each, at rest.
fn three() -> (EtcdCluster, Vec<Node>) {
    let etcd = EtcdCluster::start(3);
    let mut nodes: Vec<Node> = (0..3)
        .map(|i| Node::new(i as u64 + 1, etcd.endpoint(i)))
        .collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&etcd.client(), &refs(&nodes));
    (etcd, nodes)
}

/// Input: three members with a gateway each; one member is cut off from the others but not from its gateway.
/// Output: that gateway is silent before etcd's majority ends its lease, the others take over, and it is back
/// after the heal.
fn isolated(leader: bool) {
    let (etcd, nodes) = three();
    let leads = eventually("a leader", || etcd.leader());
    let alone = if leader { leads } else { (leads + 1) % 3 };
    let others: Vec<usize> = (0..3).filter(|&i| i != alone).collect();
    let majority = Client::new(
        others.iter().map(|&i| etcd.endpoint(i)).collect(),
        Duration::from_secs(1),
    );
    let sampler = Sampler::start(majority.clone(), &refs(&nodes));
    etcd.isolate(alone);
    let living = [&nodes[others[0]], &nodes[others[1]]];
    let took = until_settled_without(&majority, &living, &[&nodes[alone]]);
    println!("failover of the gateway at the lost member (leader: {leader}): {took:?}");
    etcd.join();
    let healed = Instant::now();
    eventually("it is registered again", || {
        table(&majority).has(&nodes[alone]).then_some(())
    });
    println!("registered {:?} after the heal", healed.elapsed());
    until_settled(&majority, &refs(&nodes));
    sampler.finish().assert_clean();
}

/// See [`isolated`].
#[test]
fn a_follower_is_cut_off_with_its_gateway() {
    isolated(false);
}

/// See [`isolated`]. The old leader renews leases on its own until it finds out that it has no followers.
#[test]
fn the_leader_is_cut_off_with_its_gateway() {
    isolated(true);
}

/// Input: the leader stops for so long that another one ends the lease of its gateway, and goes on, three
/// times: it believes for a moment that it still leads, and renews what is over. Output: its gateway does not
/// believe that, or does before anybody else can serve: never two answer.
#[test]
fn a_leader_that_was_paused_renews_what_is_over() {
    let (etcd, nodes) = three();
    let client = Client::new(etcd.endpoints(), Duration::from_secs(1));
    let sampler = Sampler::start(client.clone(), &refs(&nodes));
    for _ in 0..3 {
        let leads = eventually("a leader", || etcd.leader());
        etcd.stop(leads);
        let living: Vec<&Node> = (0..3).filter(|&i| i != leads).map(|i| &nodes[i]).collect();
        until_settled_without(&client, &living, &[&nodes[leads]]);
        etcd.cont(leads);
        until_settled(&client, &refs(&nodes));
    }
    sampler.finish().assert_never_two();
}
