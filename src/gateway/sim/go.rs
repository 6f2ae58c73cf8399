//! A node that behaves like the Go wmgwd: driven by rows as they come, with sleeps in between.
//!
//! It does what design section 2 says of each row, with the same conditions on its transactions. Unlike
//! us it undoes nothing, keeps no order between a lost lease and what it is about to do, has no guard, and
//! resets broken rows where it is the ring owner.

use super::cluster::{Cluster, note};
use super::node::{Ev, Process};
use crate::etcd::{Compare, Op, Txn};
use crate::fsm::Kind;
use crate::gateway::Event;
use crate::ring::{Member, Ring};
use crate::schema::{Change, Key, Value};
use crate::types::{LeaseId, NodeName, Revision, Vni};
use std::collections::{BTreeMap, BTreeSet};

/// What a Go node knows.
#[derive(Default)]
pub struct Go {
    keys: BTreeMap<Key, (Value, Revision)>,
    lease: Option<LeaseId>,
    registered: Option<LeaseId>,
    draining: bool,
    looked: Option<crate::types::Time>,
    /// What is older comes too late.
    seen: Revision,
}

/// A transaction that a Go node has decided on.
#[derive(Debug)]
pub struct GoWrite {
    vni: Vni,
    read: Revision,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Register,
    Leave,
    Reset,
    Claim,
    Pull,
    Advance(u8),
    Own,
}

impl Go {
    fn name(&self, key: Key) -> Option<&NodeName> {
        match self.keys.get(&key) {
            Some((Value::Name(name), _)) => name.as_ref(),
            _ => None,
        }
    }

    fn kind(&self, vni: Vni) -> (Option<Kind>, Revision) {
        match self.keys.get(&Key::Kind(vni)) {
            Some((Value::Kind(kind), revision)) => (Some(*kind), *revision),
            // What Go cannot read it leaves alone, as we do.
            Some((_, revision)) => (None, *revision),
            None => (Some(Kind::Unassigned), Revision(0)),
        }
    }

    fn owner(&self, vni: Vni) -> Option<NodeName> {
        let members = self.keys.iter().filter_map(|(key, (value, _))| {
            let (Key::Node(name), Value::Points(points)) = (key, value) else {
                return None;
            };
            let range = None;
            Some(Member {
                name,
                points,
                range,
            })
        });
        Ring::new(members).owner(vni).cloned()
    }

    fn take(&mut self, change: Change) {
        match change.value {
            Some(value) => {
                self.keys.insert(change.key, (value, change.revision));
            }
            None => {
                self.keys.remove(&change.key);
            }
        }
    }

    /// What it writes for a row, and with how many per cent of the settle time before.
    fn decide(&self, me: &NodeName, vni: Vni) -> Option<(What, bool)> {
        let (kind, _) = self.kind(vni);
        let number = kind?.number();
        let current = self.name(Key::Current(vni));
        let next = self.name(Key::Next(vni));
        let mine = self.owner(vni).as_ref() == Some(me);
        let (owner, successor) = (current == Some(me), next == Some(me));
        let broken = match number {
            0 => false,
            1 => current.is_none(),
            10 => next.is_none(),
            _ => current.is_none() || next.is_none(),
        };
        if broken {
            return mine.then_some((What::Reset, false));
        }
        match number {
            0 => mine.then_some((What::Claim, false)),
            1 => (mine && !owner).then_some((What::Pull, false)),
            2 | 6 | 8 if owner => Some((What::Advance(number + 1), false)),
            4 if owner => Some((What::Advance(5), true)),
            3 | 7 if successor => Some((What::Advance(number + 1), true)),
            5 if successor => Some((What::Advance(6), false)),
            9 | 10 if successor => Some((What::Own, false)),
            _ => None,
        }
    }
}

impl Cluster {
    fn go(&mut self, n: usize) -> Option<&mut Go> {
        match &mut self.nodes[n].process {
            Process::Go(go) => Some(go),
            _ => None,
        }
    }

    pub fn go_observe(&mut self, n: usize, event: Event) {
        let Some(go) = self.go(n) else { return };
        match event {
            Event::Lease(Some(lease)) => {
                go.lease = Some(lease.id);
                if go.registered != Some(lease.id) && !go.draining {
                    go.registered = Some(lease.id);
                    self.go_send(n, Vni::MIN, Revision(0), What::Register, false);
                }
            }
            Event::Lease(None) => {
                go.lease = None;
                let host = &mut self.nodes[n].host;
                host.silence();
                host.withdraw_routes();
                note!(self, "{} (Go) withdraws all", self.nodes[n].name());
            }
            Event::Snapshot { revision, changes } => {
                if go.seen <= revision {
                    go.seen = revision;
                    go.keys.clear();
                    changes.into_iter().for_each(|change| go.take(change));
                }
                self.go_look(n);
            }
            Event::Changed(changes) => {
                let mut touched = BTreeSet::new();
                let mut ring = false;
                let seen = go.seen;
                for change in changes.into_iter().filter(|c| c.revision > seen) {
                    go.seen = change.revision;
                    touched.extend(change.key.vni());
                    ring |= matches!(change.key, Key::Node(_));
                    go.take(change);
                }
                if ring {
                    self.go_look(n);
                }
                for vni in touched {
                    self.go_act(n, vni);
                }
            }
            Event::Health(_) => {
                // Its periodic scan.
                let now = self.now;
                let Some(go) = self.go(n) else { return };
                let due = go.looked.is_none_or(|at| now.since(at).as_secs() >= 5);
                if due {
                    go.looked = Some(now);
                    self.go_look(n);
                }
            }
            Event::Drain => {
                go.draining = true;
                self.go_send(n, Vni::MIN, Revision(0), What::Leave, false);
            }
            _ => {}
        }
    }

    fn go_look(&mut self, n: usize) {
        for vni in self.vnis() {
            self.go_act(n, vni);
        }
        let me = self.nodes[n].name().clone();
        let vnis: Vec<Vni> = self.vnis().collect();
        let Some(go) = self.go(n) else { return };
        let named = |vni: &Vni| {
            [Key::Current(*vni), Key::Next(*vni)]
                .into_iter()
                .any(|key| go.name(key) == Some(&me))
        };
        let left = !go.keys.contains_key(&Key::Node(me.clone()));
        if go.draining && left && !go.keys.is_empty() && !vnis.iter().any(named) {
            note!(self, "{me} (Go) has drained");
            self.kill(n);
            self.nodes[n].exit = Some(crate::gateway::Exit::Stopped);
        }
    }

    fn go_act(&mut self, n: usize, vni: Vni) {
        let me = self.nodes[n].name().clone();
        let Some(go) = self.go(n) else { return };
        if go.lease.is_none() {
            return;
        }
        let (kind, read) = go.kind(vni);
        let Some((what, settles)) = go.decide(&me, vni) else {
            return;
        };
        let number = kind.map_or(0, Kind::number);
        let bridge = self.nodes[n].host.bridge_mut(vni);
        match (number, what) {
            (3, What::Advance(_)) => (bridge.evpn, bridge.cost) = (true, Some(100)),
            (4, _) => bridge.cost = Some(65535),
            (5, _) => bridge.arp = true,
            (6, _) => bridge.arp = false,
            (8, _) => bridge.evpn = false,
            (10, What::Own) => {
                (bridge.evpn, bridge.cost, bridge.arp) = (true, Some(100), true);
            }
            _ => {}
        }
        self.go_send(n, vni, read, what, settles);
    }

    fn go_send(&mut self, n: usize, vni: Vni, read: Revision, what: What, settles: bool) {
        let inc = self.nodes[n].inc;
        let mut delay = self.rng.millis(1, 100);
        if settles {
            delay += self.settings.settle;
        }
        let write = Box::new(GoWrite { vni, read, what });
        self.after(delay, Ev::Go { n, inc, write });
    }

    pub fn go_write(&mut self, n: usize, write: GoWrite) {
        let inc = self.nodes[n].inc;
        let me = self.nodes[n].name().clone();
        let points = self.nodes[n].config.points.clone();
        let Some(go) = self.go(n) else { return };
        let lease = match (go.lease, write.what) {
            (_, What::Register) if go.draining => return,
            (Some(lease), _) => lease,
            (None, What::Leave) => LeaseId(0),
            (None, _) => return,
        };
        if self.nodes[n].cut || !self.etcd.up {
            // It runs with retry, and the first retry comes late.
            let again = self.rng.millis(1_000, 2_000);
            let write = Box::new(write);
            self.after(again, Ev::Go { n, inc, write });
            return;
        }
        let vni = write.vni;
        let put = |key: Key, value: &[u8], lease| Op::Put {
            key: key.bytes(),
            value: value.to_vec(),
            lease,
        };
        let kind = |number: u8| put(Key::Kind(vni), number.to_string().as_bytes(), None);
        let mine = |key| put(key, me.as_str().as_bytes(), Some(lease));
        let nobody = |key| put(key, b"", None);
        let node = Key::Node(me.clone());
        let then = match write.what {
            What::Register => vec![put(
                node,
                &crate::schema::points_bytes(&points),
                Some(lease),
            )],
            What::Leave => vec![Op::Delete { key: node.bytes() }],
            What::Reset => vec![kind(0), nobody(Key::Current(vni)), nobody(Key::Next(vni))],
            What::Claim => vec![kind(10), mine(Key::Next(vni))],
            What::Pull => vec![kind(2), mine(Key::Next(vni))],
            What::Advance(number) => vec![kind(number)],
            What::Own => vec![kind(1), mine(Key::Current(vni)), nobody(Key::Next(vni))],
        };
        let row = !matches!(write.what, What::Register | What::Leave);
        let compares = row.then(|| Compare::ModRevisionLess {
            key: Key::Kind(vni).bytes(),
            than: write.read.next(),
        });
        let txn = Txn {
            compares: compares.into_iter().collect(),
            then,
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
