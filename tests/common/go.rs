//! A gateway of the Go program, as far as etcd can tell: plain puts under one condition, no meta key, empty
//! names without a lease, everything half-done answered by writing 0.

use super::rows::{Row, table};
use super::{put, put_leased, then};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use wmgwd::etcd::{Client, Compare, Op, Txn};
use wmgwd::ring::{Member, Ring};
use wmgwd::types::{LeaseId, NodeName, Revision, Vni};

/// A thread that plays the node until it is ended.
pub struct GoNode {
    /// Its name.
    pub name: NodeName,
    /// Its points.
    pub points: Vec<u64>,
    client: Client,
    lease: LeaseId,
    running: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeMap<String, usize>>>,
}

impl GoNode {
    /// Registers and plays.
    pub fn start(client: Client, name: &str, points: Vec<u64>) -> GoNode {
        let lease = client.lease_grant(Duration::from_secs(600)).unwrap().id;
        let node = put_leased(
            format!("/wmgwd/node/{name}"),
            format!("{points:?}"),
            Some(lease),
        );
        client.txn(&then(vec![node])).unwrap();
        let running = Arc::new(AtomicBool::new(true));
        let name: NodeName = name.parse().unwrap();
        let (player, me, until) = (client.clone(), name.clone(), running.clone());
        let thread = thread::spawn(move || {
            let mut steps = BTreeMap::new();
            while until.load(Ordering::Relaxed) {
                round(&player, &me, lease, &mut steps);
                thread::sleep(Duration::from_millis(20));
            }
            steps
        });
        GoNode {
            name,
            points,
            client,
            lease,
            running,
            thread: Some(thread),
        }
    }

    /// Is gone, with its lease: as after a crash. How often it wrote which type.
    pub fn crash(mut self) -> BTreeMap<String, usize> {
        let steps = self.halt();
        self.client.lease_revoke(self.lease).unwrap();
        steps
    }

    /// Leaves the ring, as on SIGTERM, and goes on with its part of the migrations.
    pub fn drain(&self) {
        let key = format!("/wmgwd/node/{}", self.name);
        let node = put_leased(key, "[]", Some(self.lease));
        self.client.txn(&then(vec![node])).unwrap();
    }

    fn halt(&mut self) -> BTreeMap<String, usize> {
        self.running.store(false, Ordering::Relaxed);
        self.thread
            .take()
            .map_or_else(BTreeMap::new, |it| it.join().unwrap())
    }
}

impl Drop for GoNode {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
    }
}

/// Looks at everything and takes every step that is this node's.
fn round(client: &Client, me: &NodeName, lease: LeaseId, steps: &mut BTreeMap<String, usize>) {
    let Ok(reply) = client.range(b"/wmgwd/") else {
        return;
    };
    let names: Vec<(NodeName, Vec<u64>)> = reply
        .kvs
        .iter()
        .filter_map(|kv| {
            let name = std::str::from_utf8(&kv.key)
                .ok()?
                .strip_prefix("/wmgwd/node/")?;
            Some((name.parse().ok()?, serde_json::from_slice(&kv.value).ok()?))
        })
        .collect();
    let ring = Ring::new(names.iter().map(|(name, points)| Member {
        name,
        points,
        range: None,
    }));
    let now = table(client);
    for vni in 1..=super::node::VNIS {
        let ours = ring.owner(Vni::new(vni).unwrap()) == Some(me);
        let Some(write) = step(&now.row(vni), me.as_str(), ours) else {
            continue;
        };
        if commit(client, vni, &write, reply.revision, lease) {
            *steps.entry(write.kind.to_owned()).or_default() += 1;
        }
    }
}

struct Write {
    kind: &'static str,
    current: Option<String>,
    next: Option<String>,
}

fn step(row: &Row, me: &str, ours: bool) -> Option<Write> {
    let write = |kind, current: Option<&str>, next: Option<&str>| {
        let owned = |name: Option<&str>| name.map(str::to_owned);
        Some(Write {
            kind,
            current: owned(current),
            next: owned(next),
        })
    };
    let (current, next) = (row.current.as_str(), row.next.as_str());
    match row.kind.as_str() {
        "" | "0" if ours => write("10", None, Some(me)),
        "1" if ours && current.is_empty() => write("0", Some(""), Some("")),
        "1" if ours && current != me => write("2", None, Some(me)),
        "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9"
            if (current.is_empty() || next.is_empty()) && (ours || current == me || next == me) =>
        {
            write("0", Some(""), Some(""))
        }
        "2" if current == me => write("3", None, None),
        "3" if next == me => write("4", None, None),
        "4" if current == me => write("5", None, None),
        "5" if next == me => write("6", None, None),
        "6" if current == me => write("7", None, None),
        "7" if next == me => write("8", None, None),
        "8" if current == me => write("9", None, None),
        "9" if next == me => write("1", Some(me), Some("")),
        "10" if next == me => write("1", Some(me), Some("")),
        "10" if ours && next.is_empty() => write("0", Some(""), Some("")),
        _ => None,
    }
}

fn commit(client: &Client, vni: u32, write: &Write, read: Revision, lease: LeaseId) -> bool {
    let key = |part: &str| format!("/wmgwd/vni/{vni}/{part}");
    let name = |part: &str, name: &Option<String>| -> Option<Op> {
        let name = name.as_ref()?;
        let lease = (!name.is_empty()).then_some(lease);
        Some(put_leased(key(part), name, lease))
    };
    let puts = [
        Some(put(key("type"), write.kind)),
        name("current", &write.current),
        name("next", &write.next),
    ];
    let txn = Txn {
        compares: vec![Compare::ModRevisionLess {
            key: key("type").into_bytes(),
            than: read.next(),
        }],
        then: puts.into_iter().flatten().collect(),
        otherwise: Vec::new(),
    };
    client.txn(&txn).is_ok_and(|reply| reply.succeeded)
}
