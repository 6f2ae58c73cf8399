//! One cluster of this program and the Go program: the same keys, the same steps, never two owners by us.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::go::{GoNode, REAL_WAIT, SHORT_WAIT};
use common::node::{Node, refs, share};
use common::previous;
use common::rows::{table, until_settled, until_settled_without};
use common::sampler::{Report, Sampler};
use common::{eventually, skipped};
use std::time::{Duration, Instant};
use wmgwd::etcd::Client;
use wmgwd::schema::{self, Key, Value};
use wmgwd::witness::Standing;

/// Gateways, on each of which one of the two programs runs.
struct Mixed {
    etcd: Etcd,
    client: Client,
    nodes: Vec<Node>,
    go: Vec<Option<GoNode>>,
    wait: Duration,
}

impl Mixed {
    /// `count` gateways, on which nothing runs yet.
    fn new(count: u64, wait: Duration) -> Mixed {
        let etcd = Etcd::start();
        let nodes: Vec<Node> = (1..=count).map(|i| Node::new(i, etcd.endpoint())).collect();
        Mixed {
            client: etcd.client(),
            go: nodes.iter().map(|_| None).collect(),
            etcd,
            nodes,
            wait,
        }
    }

    fn start(&mut self, n: usize, go: bool) {
        if go {
            self.go[n] = Some(self.nodes[n].start_go(self.wait));
        } else {
            self.nodes[n].start();
        }
    }

    /// Starts all, one after the other: of Go nodes that start at once, each claims by the ring that it knows
    /// so far, writes over what it has not read, and leaves on show what was written over.
    fn start_all(&mut self, is_go: [bool; 3]) {
        for (n, go) in is_go.into_iter().enumerate() {
            self.start(n, go);
            let took = until_settled(&self.client, &refs(&self.nodes[..=n]));
            println!("start of gateway {n}: {took:?}");
        }
    }

    /// As after a power cut for a Go node; the other's guard lives on.
    fn crash(&mut self, n: usize) {
        match self.go[n].take() {
            Some(go) => go.crash(),
            None => self.nodes[n].kill9(),
        }
    }

    /// SIGTERM, and waits for its end.
    fn drain(&mut self, n: usize) {
        match self.go[n].take() {
            Some(go) => {
                go.drain();
                eventually("the Go node has drained", || go.has_ended().then_some(()));
            }
            None => {
                self.nodes[n].term();
                assert_eq!(self.nodes[n].wait_exit().code(), Some(0));
            }
        }
    }

    fn sampler(&self) -> Sampler {
        Sampler::start(self.etcd.client(), &refs(&self.nodes))
    }

    /// Waits until every VNI is at its ring owner and shown exactly there.
    fn settle(&self, what: &str) {
        println!(
            "{what}: {:?}",
            until_settled(&self.client, &refs(&self.nodes))
        );
    }

    /// As [`settle`](Self::settle), after `n` is gone.
    fn settle_without(&self, n: usize, what: &str) {
        let others: Vec<&Node> = (0..self.nodes.len())
            .filter(|&other| other != n)
            .map(|other| &self.nodes[other])
            .collect();
        let took = until_settled_without(&self.client, &others, &[&self.nodes[n]]);
        println!("{what}: {took:?}");
    }
}

/// Nothing was planned to go unserved, and nothing did.
fn assert_nothing_lost(report: &Report) {
    assert_eq!(report.vacated, [""; 0]);
    report.assert_unbroken();
}

/// Three gateways of both programs: each kind is lost, comes back, drains, comes back.
fn share_a_cluster(is_go: [bool; 3]) {
    let mut mixed = Mixed::new(3, SHORT_WAIT);
    let go = is_go.iter().position(|&go| go).unwrap();
    let ours = is_go.iter().position(|&go| !go).unwrap();
    let sampler = mixed.sampler();
    mixed.start_all(is_go);
    let all = refs(&mixed.nodes);
    assert!(all.iter().all(|node| !share(node, &all).is_empty()));

    for (n, kind) in [(go, "a Go node"), (ours, "one of ours")] {
        mixed.crash(n);
        mixed.settle_without(n, &format!("failover of {kind}"));
        mixed.start(n, is_go[n]);
        mixed.settle(&format!("return of {kind}"));
    }
    let strangers: Vec<&Node> = (0..3)
        .filter(|&n| is_go[n])
        .map(|n| &mixed.nodes[n])
        .collect();
    sampler.finish_beside(&strangers).assert_clean();

    let sampler = mixed.sampler();
    for (n, kind) in [(go, "a Go node"), (ours, "one of ours")] {
        mixed.drain(n);
        mixed.settle_without(n, &format!("drain of {kind}"));
        mixed.start(n, is_go[n]);
        mixed.settle(&format!("join of {kind}"));
    }
    let report = sampler.finish();
    assert_nothing_lost(&report);
    for go in mixed.go.iter().flatten() {
        println!("a Go node's writes, by type: {:?}", go.steps());
    }
}

/// Input: two Go nodes and one of ours; one of each kind is lost and comes back, then drains and joins.
/// Output: each time every VNI gets to its ring owner; ours never answer for what is not theirs; what was
/// planned leaves no VNI unserved.
#[test]
fn two_go_nodes_and_one_of_ours_share_a_cluster() {
    share_a_cluster([true, true, false]);
}

/// Input and output: as above, with one Go node and two of ours.
#[test]
fn one_go_node_and_two_of_ours_share_a_cluster() {
    share_a_cluster([false, true, false]);
}

/// Input: three Go nodes; one gateway after the other is drained and started with our program, then the same
/// way back. Output: every VNI is answered for at every moment, by one gateway but for the phases of a
/// migration in which both do, and never has neither owner nor successor.
#[test]
fn a_rolling_upgrade_and_the_way_back_lose_nothing() {
    let mut mixed = Mixed::new(3, SHORT_WAIT);
    mixed.start_all([true; 3]);
    let sampler = mixed.sampler();
    for (go, what) in [(false, "upgrade"), (true, "downgrade")] {
        for n in 0..3 {
            mixed.drain(n);
            mixed.settle_without(n, &format!("{what} of gateway {n}: drained"));
            mixed.start(n, go);
            mixed.settle(&format!("{what} of gateway {n}: joined"));
        }
    }
    let report = sampler.finish();
    assert_nothing_lost(&report);
}

/// Whom a node names as its witnesses; none if it has named none.
fn named(client: &Client, node: &Node) -> Vec<String> {
    let key = Key::Epoch(node.name.clone());
    let reply = client.get(&key.bytes()).unwrap();
    let value = reply
        .kvs
        .first()
        .map(|kv| schema::read_value(&key, &kv.value).0);
    match value {
        Some(Value::Standing(Standing::Epoch(epoch))) => {
            let names = epoch.witnesses.iter().map(|it| it.name.to_string());
            names.collect()
        }
        _ => Vec::new(),
    }
}

/// Waits until each of `nodes` names the others of them, and no other node.
fn until_witnessed(client: &Client, nodes: &[&Node]) {
    eventually("each names the others of its version", || {
        let names_all = |node: &&Node| {
            let mut names = named(client, node);
            let others = nodes.iter().filter(|it| it.name != node.name);
            let mut others: Vec<String> = others.map(|it| it.name.to_string()).collect();
            names.sort();
            others.sort();
            names == others
        };
        nodes.iter().all(names_all).then_some(())
    });
}

/// Input: a Go node and three of the version before, which knows nothing of early detection, of which each is upgraded: two
/// by a drain, the last by a kill and a start, so that it finds the guard of the version before. Between them one that is
/// upgraded loses its power. Output: the drains leave no VNI unserved; the power cut is over long before the lease of two
/// minutes ends; the guard of the version before withdraws before the daemon shows anything; only nodes of this version
/// are witnesses.
#[test]
fn the_version_before_is_upgraded_beside_a_go_node() {
    const UPGRADE: &str = "the upgrade of the version before";
    let program = match previous::wmgwd() {
        Ok(program) => program,
        Err(why) => return skipped(UPGRADE, &why),
    };
    let mut mixed = Mixed::new(4, SHORT_WAIT);
    for n in 0..4 {
        if let Some(node) = mixed.nodes.get_mut(n).filter(|_| n < 3) {
            node.set_program(Some(program.clone()));
            node.set("--detect-window", "");
        }
        mixed.start(n, n == 3);
        until_settled(&mixed.client, &refs(&mixed.nodes[..=n]));
    }
    let upgraded = |node: &mut Node| {
        node.set_program(None);
        node.set("--detect-window", 1);
    };

    let sampler = mixed.sampler();
    for n in [0, 1] {
        mixed.drain(n);
        mixed.settle_without(n, &format!("upgrade of gateway {n}: drained"));
        upgraded(&mut mixed.nodes[n]);
        mixed.nodes[n].set("--lease-ttl", 120);
        mixed.start(n, false);
        mixed.settle(&format!("upgrade of gateway {n}: joined"));
    }
    until_witnessed(&mixed.client, &refs(&mixed.nodes[..2]));
    assert_nothing_lost(&sampler.finish());

    mixed.nodes[0].kill_guard();
    mixed.nodes[0].kill9();
    mixed.nodes[0].kill_guard();
    // What its host showed last stays in its files.
    let took = until_settled_without(&mixed.client, &refs(&mixed.nodes[1..]), &[]);
    println!("power cut of gateway 0: {took:?}");
    mixed.start(0, false);
    mixed.settle("gateway 0 is back");
    until_witnessed(&mixed.client, &refs(&mixed.nodes[..2]));

    let sampler = mixed.sampler();
    mixed.nodes[2].kill9();
    upgraded(&mut mixed.nodes[2]);
    mixed.start(2, false);
    until_witnessed(&mixed.client, &refs(&mixed.nodes[..3]));
    mixed.settle("gateway 2 is upgraded by a restart");
    // The guard of another version is not taken over: it withdraws first.
    let withdrawn = "the guard of the run before was started with other options";
    assert_eq!(mixed.nodes[2].logged(withdrawn), 1);
    sampler.finish().assert_never_two();
}

/// Input: a gateway, one of the version before, and a Go node; the first cannot forward, and can again; then the
/// second. Output: each time the other of the two takes its VNIs and gives them back; the Go node keeps its own, and
/// writes nothing; no two answer.
#[test]
fn vnis_are_given_to_the_version_before_beside_a_go_node() {
    let program = match previous::wmgwd() {
        Ok(program) => program,
        Err(why) => return skipped("fitness beside the version before", &why),
    };
    let mut mixed = Mixed::new(3, SHORT_WAIT);
    for node in &mut mixed.nodes {
        node.set("--fit-hold", 1);
    }
    mixed.nodes[1].set_program(Some(program));
    mixed.nodes[1].set("--detect-window", "");
    mixed.start_all([false, false, true]);
    let all = refs(&mixed.nodes);
    let shares = [0, 1, 2].map(|n| share(all[n], &all));
    assert!(shares.iter().all(|it| !it.is_empty()));
    let steps = || mixed.go[2].as_ref().unwrap().steps();
    let before = steps();
    for (bad, other) in [(0, 1), (1, 0)] {
        let sampler = mixed.sampler();
        mixed.nodes[bad].set_bad_signs("fabric-link,evpn");
        let owners = [0, 1, 2].map(|n| if n == bad { other } else { n });
        let is_at = |vni: u32, owner: usize| {
            let row = table(&mixed.client).row(vni);
            row.kind == "1" && row.current == all[owner].name.as_str()
        };
        let shows = |vni: u32, owner: usize| (0..3).all(|n| all[n].shows(vni).arp == (n == owner));
        eventually("the other takes them", || {
            let mut vnis = shares.iter().zip(owners);
            let are_there = vnis.all(|(vnis, owner)| {
                let is_there = |&vni: &u32| is_at(vni, owner) && shows(vni, owner);
                vnis.iter().all(is_there)
            });
            are_there.then_some(())
        });
        sampler.finish_beside(&[all[2]]).assert_clean();
        mixed.nodes[bad].set_bad_signs("none");
        mixed.settle("they are back");
        assert_eq!(steps(), before, "the Go node has written");
    }
}

/// Input: one of each, with the 10 s that the Go program waits: ours joins, is killed, comes back; the Go
/// node drains and comes back; ours drains. Output: as with short waits.
#[test]
fn both_programs_get_along_at_the_real_waits() {
    let mut mixed = Mixed::new(2, REAL_WAIT);
    let (ours, go) = (0, 1);
    mixed.start(go, true);
    let took = until_settled(&mixed.client, &[&mixed.nodes[go]]);
    println!("a Go node takes all: {took:?}");
    let sampler = mixed.sampler();
    mixed.start(ours, false);
    mixed.settle("ours joins, the Go node is the owner");
    let report = sampler.finish();
    assert_nothing_lost(&report);

    let sampler = mixed.sampler();
    mixed.crash(ours);
    let begun = Instant::now();
    let vnis = share(&mixed.nodes[ours], &refs(&mixed.nodes));
    let taker = &mixed.nodes[go];
    eventually("the Go node answers for all", || {
        let shown = taker.exposure();
        let answers = |&vni: &u32| shown[vni as usize - 1].arp;
        vnis.iter().all(answers).then_some(())
    });
    println!("the Go node answers {:?} after a kill", begun.elapsed());
    mixed.settle_without(ours, "and owns");
    let report = sampler.finish_beside(&[&mixed.nodes[go]]);
    report.assert_clean();

    mixed.start(ours, false);
    mixed.settle("ours is back");
    let sampler = mixed.sampler();
    let begun = Instant::now();
    mixed.drain(go);
    println!("the Go node drains in {:?}", begun.elapsed());
    mixed.settle_without(go, "ours owns all");
    mixed.start(go, true);
    mixed.settle("the Go node joins, ours is the owner");
    let begun = Instant::now();
    mixed.drain(ours);
    println!("ours drains to the Go node in {:?}", begun.elapsed());
    mixed.settle_without(ours, "the Go node owns all");
    let report = sampler.finish();
    assert_nothing_lost(&report);
}
