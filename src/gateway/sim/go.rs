//! A node that behaves like the Go wmgwd, written from its protocol alone: it reads and writes keys and values
//! by itself, and has its own ring.
//!
//! Each event of a row has it read the row anew, act on its host at once, wait if the type asks for it, and
//! write under the revision that it read. It undoes nothing, keeps no order between a lost lease and what it is
//! about to do, has no guard, and resets to 0 what lacks a name, although the other node may live. A write that does
//! not reach etcd is forgotten. When it looks at all rows, it reads the nodes after them, and the revision of that
//! is the one that its writes rely on.
//!
//! One kindness: its scan also looks at rows in which it is its own turn, so that one forgotten write does not
//! keep a cluster from converging.

use super::cluster::{Cluster, ms, note};
use super::etcd::ModelEtcd;
use super::node::{Ev, Process};
use crate::etcd::{Compare, Op, Txn};
use crate::gateway::{Event, Exit};
use crate::model::types::{LeaseId, Revision, Time, Vni};
use std::collections::BTreeMap;
use std::time::Duration;

/// Its lease.
pub const TTL: Duration = ms(3_000);
const WAIT: Duration = ms(10_000);
const SCAN: Duration = ms(30_000);

/// A Go node.
#[derive(Default)]
pub struct Go {
    lease: Option<LeaseId>,
    watches: bool,
    draining: bool,
    left: bool,
    scanned: Option<Time>,
}

/// What a Go node is about to do.
#[derive(Debug)]
pub enum Step {
    Register,
    Leave,
    /// A row has changed.
    Act(Vni),
    /// Look at all rows...
    LookAtRows,
    /// ... then at the nodes.
    LookAtNodes(Vec<(Vni, Row)>),
    Write(Write),
}

/// A row as it was read.
#[derive(Clone, Debug, Default)]
pub struct Row {
    kind: u64,
    current: String,
    next: String,
}

/// A row to write; what is `None` stays.
#[derive(Debug)]
pub struct Write {
    vni: Vni,
    read: Revision,
    kind: u64,
    current: Option<bool>,
    next: Option<bool>,
}

fn key(vni: Vni, part: &str) -> Vec<u8> {
    format!("/wmgwd/vni/{vni}/{part}").into_bytes()
}

fn read_row(etcd: &ModelEtcd, vni: Vni) -> Row {
    let read = |part| {
        let value = etcd.get(&key(vni, part)).map(|kv| kv.value.clone());
        String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
    };
    Row {
        kind: read("type").parse().unwrap_or(0),
        current: read("current"),
        next: read("next"),
    }
}

impl Row {
    fn lacks_a_name(&self) -> bool {
        match self.kind {
            1 => self.current.is_empty(),
            2..=9 => self.current.is_empty() || self.next.is_empty(),
            10 => self.next.is_empty(),
            _ => false,
        }
    }
}

/// Whose each point is: of the greatest name, if two have it.
fn read_ring(etcd: &ModelEtcd) -> BTreeMap<u64, String> {
    let nodes = etcd.range(b"/wmgwd/node/").kvs;
    let each = nodes.iter().flat_map(|kv| {
        let name = String::from_utf8_lossy(&kv.key["/wmgwd/node/".len()..]).into_owned();
        let points: Vec<u64> = serde_json::from_slice(&kv.value).unwrap_or_default();
        points.into_iter().map(move |point| (point, name.clone()))
    });
    each.collect()
}

fn ring_owner(ring: &BTreeMap<u64, String>, vni: Vni) -> Option<&String> {
    let mut place = u64::from(vni.get());
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        place = (place ^ (place >> 33)).wrapping_mul(factor);
    }
    place ^= place >> 33;
    let after = ring.range(place..).next();
    after.or_else(|| ring.iter().next()).map(|(_, name)| name)
}

impl Cluster {
    fn go(&mut self, n: usize) -> Option<&mut Go> {
        match &mut self.nodes[n].process {
            Process::Go(go) => Some(go),
            _ => None,
        }
    }

    fn go_name(&self, n: usize) -> String {
        self.nodes[n].name().to_string()
    }

    fn go_soon(&mut self, n: usize, wait: Duration, step: Step) {
        let inc = self.nodes[n].inc;
        let delay = wait + self.rng.millis(1, 20);
        let step = Box::new(step);
        self.after(delay, Ev::Go { n, inc, step });
    }

    pub fn go_observe(&mut self, n: usize, event: Event) {
        let now = self.now;
        let Some(go) = self.go(n) else { return };
        match event {
            Event::Lease(Some(lease)) if go.lease != Some(lease.id) => {
                go.lease = Some(lease.id);
                if !go.draining {
                    self.go_soon(n, ms(0), Step::Register);
                }
                self.go_soon(n, ms(0), Step::LookAtRows);
            }
            Event::Lease(None) => {
                go.lease = None;
                let host = &mut self.nodes[n].host;
                host.silence();
                host.withdraw_routes();
                note!(self, "{} (Go) withdraws all", self.nodes[n].name());
            }
            // Its watch has begun; the other snapshots are of a poll that it does not have.
            Event::Snapshot { .. } if !go.watches => {
                go.watches = true;
                self.go_soon(n, ms(0), Step::LookAtRows);
            }
            Event::Changed(changes) => {
                let is_node = |change: &crate::schema::Change| {
                    matches!(change.key, crate::schema::Key::Node(_))
                };
                if changes.iter().any(is_node) {
                    self.go_soon(n, ms(0), Step::LookAtRows);
                }
                for vni in changes.iter().filter_map(|change| change.key.vni()) {
                    self.go_soon(n, ms(0), Step::Act(vni));
                }
            }
            // Once a second.
            Event::Health(_) => {
                let due = go.scanned.is_none_or(|at| now.since(at) >= SCAN);
                let (draining, left) = (go.draining, go.left);
                if due {
                    go.scanned = Some(now);
                    self.go_soon(n, ms(0), Step::LookAtRows);
                    for vni in self.vnis() {
                        self.go_soon(n, ms(0), Step::Act(vni));
                    }
                }
                if draining && left {
                    self.go_leave_if_done(n);
                }
            }
            Event::Drain => {
                go.draining = true;
                self.go_soon(n, ms(0), Step::Leave);
            }
            _ => {}
        }
    }

    fn go_leave_if_done(&mut self, n: usize) {
        let me = self.go_name(n);
        let owns = |vni| read_row(&self.etcd, vni).current == me;
        if self.go_reaches_etcd(n) && !self.vnis().any(owns) {
            note!(self, "{me} (Go) has drained");
            let host = &mut self.nodes[n].host;
            host.silence();
            host.withdraw_routes();
            self.kill(n);
            self.nodes[n].exit = Some(Exit::Stopped);
        }
    }

    fn go_reaches_etcd(&self, n: usize) -> bool {
        !self.nodes[n].cut && self.etcd.up
    }

    pub fn go_step(&mut self, n: usize, step: Step) {
        let reaches = self.go_reaches_etcd(n);
        match step {
            Step::Register | Step::Leave if !reaches => self.go_soon(n, ms(1_000), step),
            _ if !reaches => {}
            Step::Register | Step::Leave => self.go_register(n, &step),
            Step::Act(vni) => {
                let row = read_row(&self.etcd, vni);
                let read = self.etcd.revision();
                self.go_act(n, vni, &row, read);
            }
            Step::LookAtRows => {
                let rows = self.vnis().map(|vni| (vni, read_row(&self.etcd, vni)));
                let rows = rows.collect();
                self.go_soon(n, ms(0), Step::LookAtNodes(rows));
            }
            Step::LookAtNodes(rows) => {
                let read = self.etcd.revision();
                for (vni, row) in rows {
                    if row.lacks_a_name() {
                        self.go_reset(n, vni, read);
                    } else {
                        self.go_claim(n, vni, &row, read);
                    }
                }
            }
            Step::Write(write) => self.go_write(n, &write),
        }
    }

    fn go_register(&mut self, n: usize, step: &Step) {
        let points = self.nodes[n].config.points.all().to_vec();
        let node = format!("/wmgwd/node/{}", self.nodes[n].name()).into_bytes();
        let Some(go) = self.go(n) else { return };
        let op = match step {
            Step::Leave => {
                go.left = true;
                Op::Delete { key: node }
            }
            _ if go.draining || go.lease.is_none() => return,
            _ => Op::Put {
                key: node,
                value: format!("{points:?}").into_bytes(),
                lease: go.lease,
            },
        };
        let txn = Txn {
            then: vec![op],
            ..Txn::default()
        };
        let reply = self.txn(n, &txn).map(|reply| reply.revision);
        note!(self, "{} (Go) {step:?} -> {reply:?}", self.go_name(n));
    }

    fn go_reset(&mut self, n: usize, vni: Vni, read: Revision) {
        let nobody = Some(false);
        // In some clusters only the ring owner does, as its code may be read as well.
        let me = self.go_name(n);
        if !self.settings.go_resets_all && ring_owner(&read_ring(&self.etcd), vni) != Some(&me) {
            return;
        }
        self.go_decides(n, ms(0), (vni, read), 0, nobody, nobody);
    }

    fn go_claim(&mut self, n: usize, vni: Vni, row: &Row, read: Revision) {
        let me = self.go_name(n);
        if ring_owner(&read_ring(&self.etcd), vni) != Some(&me) {
            return;
        }
        match row.kind {
            0 => self.go_decides(n, ms(0), (vni, read), 10, None, Some(true)),
            1 if row.current != me => self.go_decides(n, ms(0), (vni, read), 2, None, Some(true)),
            _ => {}
        }
    }

    fn go_decides(
        &mut self,
        n: usize,
        wait: Duration,
        (vni, read): (Vni, Revision),
        kind: u64,
        current: Option<bool>,
        next: Option<bool>,
    ) {
        let write = Write {
            vni,
            read,
            kind,
            current,
            next,
        };
        self.go_soon(n, wait, Step::Write(write));
    }

    fn go_act(&mut self, n: usize, vni: Vni, row: &Row, read: Revision) {
        let me = self.go_name(n);
        if self.go(n).is_none_or(|go| go.lease.is_none()) {
            return;
        }
        if row.lacks_a_name() {
            self.go_reset(n, vni, read);
            return;
        }
        let (owner, successor) = (row.current == me, row.next == me);
        let bridge = self.nodes[n].host.bridge_mut(vni);
        let wait = match row.kind {
            0 => {
                self.go_claim(n, vni, row, read);
                return;
            }
            2 if owner => ms(0),
            3 if successor => {
                (bridge.evpn, bridge.cost) = (true, Some(100));
                WAIT
            }
            4 if owner => {
                bridge.cost = Some(65535);
                WAIT
            }
            5 if successor => {
                (bridge.arp, bridge.fresh) = (true, false);
                ms(0)
            }
            6 if owner => {
                (bridge.arp, bridge.fresh) = (false, false);
                ms(0)
            }
            7 if successor => WAIT,
            8 if owner => {
                bridge.evpn = false;
                ms(0)
            }
            9 if successor => ms(0),
            10 if successor => {
                (bridge.evpn, bridge.cost) = (true, Some(100));
                (bridge.arp, bridge.fresh) = (true, false);
                WAIT
            }
            _ => return,
        };
        match row.kind {
            9 | 10 => self.go_decides(n, wait, (vni, read), 1, Some(true), Some(false)),
            kind => self.go_decides(n, wait, (vni, read), kind + 1, None, None),
        }
    }

    fn go_write(&mut self, n: usize, write: &Write) {
        let me = self.go_name(n);
        let Some(lease) = self.go(n).and_then(|go| go.lease) else {
            return;
        };
        let name = |part, mine: bool| Op::Put {
            key: key(write.vni, part),
            value: if mine { me.clone().into() } else { Vec::new() },
            lease: mine.then_some(lease),
        };
        let kind = Op::Put {
            key: key(write.vni, "type"),
            value: write.kind.to_string().into_bytes(),
            lease: None,
        };
        let current = write.current.map(|mine| name("current", mine));
        let next = write.next.map(|mine| name("next", mine));
        let txn = Txn {
            compares: vec![Compare::ModRevisionLess {
                key: key(write.vni, "type"),
                than: write.read.next(),
            }],
            then: [kind].into_iter().chain(current).chain(next).collect(),
            otherwise: Vec::new(),
        };
        let reply = self.txn(n, &txn);
        note!(
            self,
            "etcd: {me} (Go) {write:?} -> {:?}",
            reply.map(|reply| (reply.succeeded, reply.revision))
        );
    }
}
