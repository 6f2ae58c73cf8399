//! Gateways that cannot forward, beside others that can: real daemons on a real etcd, with mock hosts that say so.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::exposition::{Page, scrape};
use common::go::SHORT_WAIT;
use common::node::{Node, refs, share};
use common::rows::{cluster, table, until_settled, until_settled_without};
use common::sampler::Sampler;
use common::{eventually, free_ports};
use std::time::Instant;

/// A cluster of nodes that trust good signs after a second.
fn quick_cluster(count: u64) -> (Etcd, Vec<Node>) {
    let (etcd, nodes) = (Etcd::start(), 1..=count);
    let node = |number| Node::new(number, etcd.endpoint()).with("--fit-hold", 1);
    let mut nodes: Vec<Node> = nodes.map(node).collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&etcd.client(), &refs(&nodes));
    (etcd, nodes)
}

/// Input: one of three gateways loses its fabric, then has it back. Output: the others serve its VNIs, never two
/// at once; its VNIs come back without a moment unserved; the log says both.
#[test]
fn a_gateway_that_cannot_forward_gives_its_vnis_away_and_gets_them_back() {
    let (etcd, nodes) = quick_cluster(3);
    let client = etcd.client();
    let all = refs(&nodes);
    assert!(!share(all[0], &all).is_empty());

    let sampler = Sampler::start(etcd.client(), &all);
    nodes[0].set_bad_signs("fabric-link,evpn");
    let took = until_settled_without(&client, &all[1..], &all[..1]);
    println!("given away: {took:?}");
    assert!(table(&client).has(all[0]), "it stays registered");
    nodes[0].until_logged("this gateway cannot forward: bad=fabric-link,evpn rank=0");
    sampler.finish().assert_clean();

    let sampler = Sampler::start(etcd.client(), &all);
    nodes[0].set_bad_signs("none");
    println!("back: {:?}", until_settled(&client, &all));
    nodes[0].until_logged("rank=2: this gateway takes VNIs again");
    sampler.finish().assert_unbroken();
}

/// Input: the signs of all gateways turn bad, one after the other within an instant, and good again. Output: every
/// gateway says so, and no row is written.
#[test]
fn what_strikes_all_gateways_moves_no_vni() {
    let (etcd, nodes) = quick_cluster(2);
    let before = table(&etcd.client()).rows;
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    nodes.iter().for_each(|node| node.set_bad_signs("ospf"));
    for node in &nodes {
        node.until_logged("this gateway cannot forward: bad=ospf rank=1");
    }
    nodes.iter().for_each(|node| node.set_bad_signs("none"));
    for node in &nodes {
        node.until_logged("rank=2: this gateway takes VNIs again");
    }
    assert_eq!(table(&etcd.client()).rows, before);
    sampler.finish().assert_unbroken();
}

/// Input: a sign that is not tracked turns bad. Output: nothing follows from it, while another that is tracked counts.
#[test]
fn a_sign_that_is_not_tracked_does_not_count() {
    let (etcd, mut nodes) = cluster(1);
    let mut lenient = Node::new(2, etcd.endpoint()).with("--track", "ospf,frr");
    lenient.start();
    nodes.push(lenient);
    let client = etcd.client();
    until_settled(&client, &refs(&nodes));
    nodes[1].set_bad_signs("fabric-link");
    nodes[1].until_logged("sign=fabric-link is bad");
    nodes[1].set_bad_signs("fabric-link,ospf");
    until_settled_without(&client, &[&nodes[0]], &[&nodes[1]]);
    assert_eq!(nodes[1].logged("cannot forward: bad=fabric-link"), 0);
    nodes[1].until_logged("cannot forward: bad=ospf rank=1");
}

/// Input: two gateways of this program and one of the Go program; one of ours cannot forward, and can again. Output:
/// the other of ours serves its VNIs, the Go node keeps its own, and takes none; all come back.
#[test]
fn a_go_node_is_left_alone() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let node = |number| Node::new(number, etcd.endpoint()).with("--fit-hold", 1);
    let mut nodes: Vec<Node> = (1..=3).map(node).collect();
    let go = nodes[2].start_go(SHORT_WAIT);
    nodes[..2].iter_mut().for_each(Node::start);
    let all = refs(&nodes);
    until_settled(&client, &all);
    let of_go = share(all[2], &all);
    let before = go.steps();
    let sampler = Sampler::start(etcd.client(), &all);
    nodes[0].set_bad_signs("evpn");
    eventually("the other takes them", || {
        let rows = table(&client).rows;
        let is_served = |vni: u32, row: &common::rows::Row| {
            let owner = if of_go.contains(&vni) { 2 } else { 1 };
            row.kind == "1" && row.current == all[owner].name.as_str() && all[owner].shows(vni).arp
        };
        let served = rows.iter().all(|(&vni, row)| is_served(vni, row));
        (served && nodes[0].answering() == 0).then_some(())
    });
    assert_eq!(go.steps(), before, "the Go node has written");
    nodes[0].set_bad_signs("none");
    until_settled(&client, &all);
    sampler.finish_beside(&[&nodes[2]]).assert_clean();
}

/// The calls of a daemon that go on whether or not anything happens.
const BACKGROUND: [&str; 3] = ["range", "lease_keepalive", "watch"];

/// What a daemon has asked etcd, but for the background.
fn asked(page: &Page) -> f64 {
    let name = "wmgwd_etcd_requests_total";
    let of = |call| page.get(&format!("{name}{{operation=\"{call}\"}}"));
    page.sum(name) - BACKGROUND.into_iter().map(of).sum::<f64>()
}

/// Input: a gateway of two has all of 1000 VNIs and loses its fabric; the other has no uplink. Output: the VNIs are
/// given back with no more than 12 requests, the registration of the rank included, and claimed with no more than 12.
#[test]
fn a_thousand_vnis_move_in_a_few_requests() {
    const COUNT: u32 = 1_000;
    const MOST: f64 = 12.0;
    let etcd = Etcd::start();
    let client = etcd.client();
    let ports = free_ports(2);
    let node = |number: u64| {
        let port = ports[number as usize - 1];
        Node::new(number, etcd.endpoint())
            .with("--maxvni", COUNT)
            .with("--metrics", format!("127.0.0.1:{port}"))
    };
    let mut nodes: Vec<Node> = (1..=2).map(node).collect();
    nodes[0].start();
    let serves_all = |node: &Node| {
        let owns_all = table(&client).owned_by(node) == COUNT as usize;
        (owns_all && node.answering() == COUNT as usize).then_some(())
    };
    eventually("the first serves all", || serves_all(&nodes[0]));
    nodes[1].set_bad_signs("uplink-link");
    nodes[1].start();
    eventually("the second is there", || {
        table(&client).has(&nodes[1]).then_some(())
    });
    nodes[1].until_logged("registered");
    // What has to do with the start is over: the two name each other as witnesses.
    let totals = || [0, 1].map(|n| asked(&scrape(ports[n])));
    let mut before = totals();
    eventually("the nodes are at rest", || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        let last = std::mem::replace(&mut before, totals());
        (last == before).then_some(())
    });

    let begun = Instant::now();
    nodes[0].set_bad_signs("fabric-link");
    eventually("the second serves all", || serves_all(&nodes[1]));
    let took = begun.elapsed();
    let after = totals();
    println!("{COUNT} VNIs in {took:?}: {before:?}, then {after:?} requests");
    for (before, after) in before.iter().zip(after) {
        assert!(
            (1.0..=MOST).contains(&(after - before)),
            "{before}, {after}"
        );
    }
    assert_eq!(nodes[0].answering(), 0);
}
