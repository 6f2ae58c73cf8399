//! What etcd says about VNIs and nodes, read by a test.

use super::etcd::Etcd;
use super::node::{Node, Shown, VNIS, refs, ring_of};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};
use wmgwd::etcd::{Client, KeyValue};
use wmgwd::model::types::{LeaseId, Vni};

/// An etcd and `count` nodes on it, all running and settled.
pub fn cluster(count: u64) -> (Etcd, Vec<Node>) {
    let etcd = Etcd::start();
    let mut nodes: Vec<Node> = (1..=count).map(|i| Node::new(i, etcd.endpoint())).collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&etcd.client(), &refs(&nodes));
    (etcd, nodes)
}

/// One row, as it stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// `type`; empty where there is none.
    pub kind: String,
    /// `current`; empty for no node.
    pub current: String,
    /// `next`; empty for no node.
    pub next: String,
    /// The lease of `current`.
    pub lease: Option<LeaseId>,
}

/// Everything below the prefix.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// The rows by VNI.
    pub rows: BTreeMap<u32, Row>,
    /// The registered nodes and their leases.
    pub nodes: BTreeMap<String, Option<LeaseId>>,
}

impl Table {
    /// Takes one key as it stands, or its absence.
    pub fn take(&mut self, kv: &KeyValue, deleted: bool) {
        let Ok(key) = std::str::from_utf8(&kv.key) else {
            return;
        };
        let value = match deleted {
            true => String::new(),
            false => String::from_utf8_lossy(&kv.value).into_owned(),
        };
        match key.split('/').collect::<Vec<_>>()[..] {
            ["", "wmgwd", "vni", vni, part] => {
                let Ok(vni) = vni.parse() else { return };
                let row = self.rows.entry(vni).or_default();
                match part {
                    "type" => row.kind = value,
                    "next" => row.next = value,
                    "current" => (row.current, row.lease) = (value, kv.lease),
                    _ => {}
                }
            }
            ["", "wmgwd", "node", node] if deleted => drop(self.nodes.remove(node)),
            ["", "wmgwd", "node", node] => drop(self.nodes.insert(node.to_owned(), kv.lease)),
            _ => {}
        }
    }

    /// The row of one VNI.
    pub fn row(&self, vni: u32) -> Row {
        self.rows.get(&vni).cloned().unwrap_or_default()
    }

    /// How many VNIs name `node` as their owner.
    pub fn owned_by(&self, node: &Node) -> usize {
        let name = node.name.as_str();
        self.rows.values().filter(|row| row.current == name).count()
    }

    /// Whether `node` is registered.
    pub fn has(&self, node: &Node) -> bool {
        self.nodes.contains_key(node.name.as_str())
    }
}

/// Everything as of now; waits for an etcd that is away.
pub fn table(client: &Client) -> Table {
    let reply = super::eventually("etcd answers", || client.range(b"/wmgwd/").ok());
    let mut table = Table::default();
    for kv in &reply.kvs {
        table.take(kv, false);
    }
    table
}

/// Why not every VNI is idle at its owner on the ring of `nodes` and shown exactly there; `hosts` are
/// looked at as well, and show nothing.
pub fn unsettled(client: &Client, nodes: &[&Node], hosts: &[&Node]) -> Result<(), String> {
    let ring = ring_of(nodes);
    let table = table(client);
    let shown: Vec<(&&Node, Vec<Shown>)> = hosts
        .iter()
        .chain(nodes)
        .map(|node| (node, node.exposure()))
        .collect();
    for vni in 1..=VNIS {
        let owner = ring.owner(Vni::new(vni).unwrap()).map(|name| name.as_str());
        let row = table.row(vni);
        let lease = table.nodes.get(&row.current).copied().flatten();
        if owner != Some(&row.current) || row.kind != "1" || !row.next.is_empty() {
            return Err(format!("vni={vni} of {owner:?} has {row:?}"));
        }
        if lease.is_none() || row.lease != lease {
            return Err(format!("vni={vni} is attached to another lease: {row:?}"));
        }
        for (node, shown) in &shown {
            let wanted = match Some(node.name.as_str()) == owner {
                true => Shown::ALL,
                false => Shown::NOTHING,
            };
            let shows = shown[vni as usize - 1];
            if shows != wanted {
                return Err(format!("vni={vni} on {}: {shows:?}", node.name));
            }
        }
    }
    Ok(())
}

/// Waits until every VNI is idle at its owner on the ring of `nodes` and shown exactly there; says how long
/// that took.
pub fn until_settled(client: &Client, nodes: &[&Node]) -> Duration {
    until_settled_without(client, nodes, &[])
}

/// As [`until_settled`], while `silent` hosts must show nothing.
pub fn until_settled_without(client: &Client, nodes: &[&Node], silent: &[&Node]) -> Duration {
    let begun = Instant::now();
    loop {
        let Err(why) = unsettled(client, nodes, silent) else {
            return begun.elapsed();
        };
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "not settled: {why}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
