//! One cluster of this program and the Go program: the same keys, the same steps.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::go::GoNode;
use common::node::{Node, Shown, VNIS, scatter};
use common::rows::{Table, table, until_settled};
use common::{eventually, node::read_exposure};
use std::time::Duration;
use wmgwd::etcd::Client;
use wmgwd::ring::{Member, Ring};
use wmgwd::types::Vni;

/// Waits until every VNI is idle at its owner on the ring of both, and `ours` shows exactly its own.
fn until_shared(client: &Client, ours: &Node, go: &GoNode) -> usize {
    let both = [(&ours.name, &ours.points), (&go.name, &go.points)];
    let ring = Ring::new(both.map(|(name, points)| Member {
        name,
        points,
        range: None,
    }));
    let is_shared = |table: &Table, shown: &[Shown]| {
        (1..=VNIS).all(|vni| {
            let owner = ring.owner(Vni::new(vni).unwrap()).unwrap();
            let row = table.row(vni);
            let wanted = if *owner == ours.name {
                Shown::ALL
            } else {
                Shown::NOTHING
            };
            row.kind == "1"
                && row.current == owner.as_str()
                && row.next.is_empty()
                && shown[vni as usize - 1] == wanted
        })
    };
    eventually("both have their share", || {
        let shown = read_exposure(&ours.host.open(), VNIS);
        let table = table(client);
        is_shared(&table, &shown).then(|| table.owned_by(ours))
    })
}

/// Input: a Go node that owns everything; a wmgwd that joins; the Go node drains, comes back, crashes, comes
/// back; the wmgwd drains. Output: each time every VNI gets to its ring owner, by migrations in which each
/// side plays its own part, or by failover; a drain leaves nothing behind.
#[test]
fn vnis_move_between_both_programs() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let points: Vec<u64> = (0..16).map(|i| scatter(7000 + i)).collect();
    let go = GoNode::start(etcd.client(), "go", points.clone());
    eventually("the Go node owns all", || {
        let now = table(&client);
        (1..=VNIS)
            .all(|vni| now.row(vni).kind == "1" && now.row(vni).current == "go")
            .then_some(())
    });

    let mut ours = Node::new(1, etcd.endpoint()).with("--join-hold", 0);
    ours.start();
    let share = until_shared(&client, &ours, &go);
    println!("our share: {share} of {VNIS}");
    assert!(share > 0 && share < VNIS as usize);

    go.drain();
    until_settled(&client, &[&ours]);
    println!("a Go node's steps, as owner: {:?}", go.crash());

    let go = GoNode::start(etcd.client(), "go", points.clone());
    assert_eq!(until_shared(&client, &ours, &go), share);
    println!("a Go node's steps, as successor: {:?}", go.crash());
    until_settled(&client, &[&ours]);

    let go = GoNode::start(etcd.client(), "go", points);
    assert_eq!(until_shared(&client, &ours, &go), share);
    ours.term();
    assert_eq!(ours.wait_exit().code(), Some(0));
    let now = table(&client);
    assert!(
        (1..=VNIS).all(|vni| now.row(vni).current == "go"),
        "{now:?}"
    );
    assert_eq!(ours.answering(), 0);
    drop(go);
    assert!(
        Duration::from_secs(600) > common::DEADLINE,
        "the Go node's lease outlasts the test"
    );
}
