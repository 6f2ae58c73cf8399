//! What must hold after every step, and what must come true in the end.

use super::cluster::{Cluster, ms};
use super::etcd::ModelEtcd;
use crate::etcd::{Op, Txn};
use crate::fsm::Phase;
use crate::ring::{Member, Ring};
use crate::schema::{self, Key, Value};
use crate::types::{LeaseId, NodeName, Time, Vni};
use std::collections::BTreeSet;
use std::time::Duration;

/// A name in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    pub name: NodeName,
    pub lease: Option<LeaseId>,
    /// It ends with a lease, or a node of that name is registered.
    pub lives: bool,
}

/// A row as it stands in etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// `None` where it cannot be read.
    pub number: Option<u8>,
    pub current: Option<Name>,
    pub next: Option<Name>,
    /// A name cannot be read: others may remember it.
    pub unreadable: (bool, bool),
}

impl Row {
    fn owner(&self) -> Option<&NodeName> {
        let living = self.current.as_ref().filter(|name| name.lives);
        living.map(|name| &name.name)
    }

    fn successor(&self) -> Option<&NodeName> {
        let living = self.next.as_ref().filter(|name| name.lives);
        living.map(|name| &name.name)
    }
}

/// What is remembered for the checks.
pub struct Checker {
    pub dirty: bool,
    /// Until when somebody else's garbage in a row excuses what comes of it.
    pub spoiled_until: Vec<Time>,
    /// VNIs that a Go node ever took part in.
    pub went: Vec<bool>,
    /// From then on every VNI must be answered for at every moment.
    pub available: bool,
    pub overlaps: u64,
}

impl Checker {
    pub fn new(vnis: u32) -> Checker {
        Checker {
            dirty: false,
            spoiled_until: vec![Time::default(); vnis as usize],
            went: vec![false; vnis as usize],
            available: false,
            overlaps: 0,
        }
    }

    /// The rows that a transaction may change, as they are before.
    pub fn rows_in(&self, etcd: &ModelEtcd, txn: &Txn) -> Vec<(Vni, Row)> {
        let mut vnis = BTreeSet::new();
        collect_vnis(txn, &mut vnis);
        vnis.into_iter().map(|vni| (vni, row(etcd, vni))).collect()
    }
}

fn collect_vnis(txn: &Txn, vnis: &mut BTreeSet<Vni>) {
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Txn(inner) => collect_vnis(inner, vnis),
            Op::Put { key, .. } | Op::Delete { key } => {
                vnis.extend(Key::read(key).ok().and_then(|key| key.vni()));
            }
            Op::Range { .. } => {}
        }
    }
}

/// A row as it stands in etcd.
pub fn row(etcd: &ModelEtcd, vni: Vni) -> Row {
    let read = |key: Key| {
        let kv = etcd.get(&key.bytes())?;
        Some((schema::read_value(&key, &kv.value).0, kv.lease))
    };
    let name = |key| match read(key) {
        Some((Value::Name(Some(name)), lease)) => {
            let registered = || etcd.get(&Key::Node(name.clone()).bytes()).is_some();
            let lives = lease.is_some() || registered();
            Some(Name { name, lease, lives })
        }
        _ => None,
    };
    let unreadable = |key| matches!(read(key), Some((Value::Unreadable, _)));
    Row {
        unreadable: (unreadable(Key::Current(vni)), unreadable(Key::Next(vni))),
        number: match read(Key::Kind(vni)) {
            None => Some(0),
            Some((Value::Kind(kind), _)) => Some(kind.number()),
            Some(_) => None,
        },
        current: name(Key::Current(vni)),
        next: name(Key::Next(vni)),
    }
}

impl Cluster {
    fn spoiled(&self, vni: Vni) -> bool {
        self.checker.spoiled_until[vni.get() as usize - 1] > self.now
    }

    fn go_took_part(&self, vni: Vni) -> bool {
        self.checker.went[vni.get() as usize - 1]
    }

    fn is_go(&self, name: &NodeName) -> bool {
        self.nodes.iter().any(|node| node.go && node.name() == name)
    }

    /// After every step.
    pub fn check(&mut self) {
        let mut dirty = std::mem::take(&mut self.checker.dirty);
        for node in &mut self.nodes {
            dirty |= std::mem::take(&mut node.host.dirty);
        }
        if !dirty {
            return;
        }
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            let proven = node
                .clock
                .is_some_and(|clock| self.etcd.lease_exists(clock.id));
            if !node.go && !proven && node.host.answers_any() {
                let name = node.name().clone();
                self.fail(format!("{name} answers ARP without a lease"));
            }
        }
        for vni in self.vnis() {
            self.check_vni(vni);
        }
    }

    fn check_vni(&mut self, vni: Vni) {
        let answering: Vec<usize> = (0..self.nodes.len())
            .filter(|&n| !self.nodes[n].go && self.nodes[n].host.answers(vni))
            .collect();
        if answering.len() > 1 && !self.spoiled(vni) {
            let row = row(&self.etcd, vni);
            let named = |name: Option<&NodeName>| {
                answering
                    .iter()
                    .any(|&n| name == Some(self.nodes[n].name()))
            };
            let handing_over = matches!(row.number, Some(5 | 6))
                && answering.len() == 2
                && named(row.owner())
                && named(row.successor())
                && row.owner() != row.successor();
            if handing_over {
                self.checker.overlaps += 1;
            } else {
                let names: Vec<String> = answering
                    .iter()
                    .map(|&n| self.nodes[n].name().to_string())
                    .collect();
                self.fail(format!("vni={vni} answered by {names:?} with {row:?}"));
            }
        }
        if self.checker.available && !self.spoiled(vni) {
            let shown = |test: &dyn Fn(&super::host::Bridge) -> bool| {
                self.nodes.iter().any(|node| test(node.host.bridge(vni)))
            };
            let answered = shown(&|b| b.arp && b.evpn);
            let reached = shown(&|b| b.evpn && b.cost == Some(100));
            if !answered || !reached {
                let row = row(&self.etcd, vni);
                self.fail(format!(
                    "vni={vni} is not served in a planned move: answered {answered} reached {reached} {row:?}"
                ));
            }
        }
    }

    /// A node is about to do what only the holder of a lease may do.
    pub fn check_claim(&mut self, n: usize, what: &str, vni: Vni) {
        let node = &self.nodes[n];
        let proven = node
            .clock
            .is_some_and(|clock| self.etcd.lease_exists(clock.id));
        if !proven {
            let name = node.name().clone();
            self.fail(format!("{name} {what} vni={vni} without a lease"));
        }
    }

    /// Only who alone answers may draw the stations to itself.
    pub fn check_announcement(&mut self, n: usize, vni: Vni) {
        let alone = (0..self.nodes.len())
            .filter(|&other| other != n && !self.nodes[other].go)
            .all(|other| !self.nodes[other].host.answers(vni));
        if !alone && !self.spoiled(vni) {
            let name = self.nodes[n].name().clone();
            self.fail(format!(
                "{name} announces vni={vni}, which another answers for"
            ));
        }
    }

    /// A node that runs must let go of what is not its own, whatever else is broken: asked every second.
    pub fn check_leftovers(&mut self, n: usize) {
        const PATIENCE: Duration = Duration::from_secs(30);
        if self.nodes[n].go {
            return;
        }
        for vni in self.vnis() {
            let row = row(&self.etcd, vni);
            let node = &self.nodes[n];
            let bridge = node.host.bridge(vni);
            let named = [&row.current, &row.next]
                .into_iter()
                .flatten()
                .any(|name| name.name == *node.name() && name.lives);
            let costs = bridge.cost.is_some_and(|cost| cost < 65535);
            let shows = bridge.present && bridge.arp || bridge.evpn || costs;
            // It cannot know, or it cannot be helped.
            let excused = bridge.refuses_routes
                || node.host.slow
                || node.watch_hangs
                || self.spoiled(vni)
                || !node.config.range.contains(vni);
            let since = (shows && !named && !excused)
                .then(|| node.leftover_since[vni.get() as usize - 1].unwrap_or(self.now));
            self.nodes[n].leftover_since[vni.get() as usize - 1] = since;
            if since.is_some_and(|since| self.now.since(since) > PATIENCE) {
                let node = &self.nodes[n];
                let text = format!("{} goes on showing vni={vni}", node.name());
                self.fail(format!("{text} as {:?}: {row:?}", node.host.bridge(vni)));
                return;
            }
        }
    }

    /// A node of ours ends in an orderly way.
    pub fn check_exit(&mut self, n: usize) {
        let node = &self.nodes[n];
        let frr = node.host.frr.is_up() && !node.host.slow;
        if node.host.answers_any() || (frr && !self.settings.rough && !node.host.shows_nothing()) {
            let name = node.name().clone();
            self.fail(format!("{name} ends, but still shows a VNI"));
        }
    }

    /// A row has been written by node `n`.
    pub fn check_transition(&mut self, n: usize, vni: Vni, before: &Row) {
        let after = row(&self.etcd, vni);
        for name in [before, &after]
            .into_iter()
            .flat_map(|row| [&row.current, &row.next])
            .flatten()
        {
            if self.is_go(&name.name) {
                self.checker.went[vni.get() as usize - 1] = true;
            }
        }
        if self.nodes[n].go || *before == after {
            return;
        }
        let me = self.nodes[n].name().clone();
        if let Err(why) = judge(&me, before, &after, self.spoiled(vni)) {
            self.fail(format!(
                "{me} wrote vni={vni}: {why}: {before:?} -> {after:?}"
            ));
        }
    }

    /// The ring as etcd has it.
    pub fn ring(&self) -> Ring {
        let nodes = self.etcd.range(b"/wmgwd/node/").kvs;
        let read: Vec<(NodeName, Vec<u64>)> = nodes
            .iter()
            .filter_map(|kv| {
                let key = Key::read(&kv.key).ok()?;
                match (schema::read_value(&key, &kv.value).0, key) {
                    (Value::Points(points), Key::Node(name)) => Some((name, points)),
                    _ => None,
                }
            })
            .collect();
        Ring::new(read.iter().map(|(name, points)| Member {
            name,
            points,
            range: match self.etcd.get(&Key::Meta(name.clone()).bytes()) {
                Some(kv) => match schema::read_value(&Key::Meta(name.clone()), &kv.value).0 {
                    Value::Meta(meta) => Some(meta.range),
                    _ => None,
                },
                None => None,
            },
        }))
    }

    /// Whether a node runs that nobody told to leave.
    pub fn somebody_stays(&self) -> bool {
        self.nodes.iter().any(|node| node.runs() && !node.drained)
    }

    /// Whether every VNI is served by its ring owner and by nobody else; if not, what is missing.
    pub fn converged(&self) -> Result<(), String> {
        for node in self
            .nodes
            .iter()
            .filter(|node| node.runs() && !node.drained)
        {
            if self
                .etcd
                .get(&Key::Node(node.name().clone()).bytes())
                .is_none()
            {
                return Err(format!("{} is not registered", node.name()));
            }
        }
        let ring = self.ring();
        if ring == Ring::default() && self.somebody_stays() {
            return Err("nobody takes VNIs".into());
        }
        for vni in self.vnis() {
            let row = row(&self.etcd, vni);
            let Some(owner) = ring.owner(vni) else {
                continue;
            };
            // Go does not mend what it cannot read, and nobody else may.
            let number = row.number.or(self.is_go(owner).then_some(1));
            if number != Some(1) || row.owner() != Some(owner) || row.successor().is_some() {
                return Err(format!("vni={vni} belongs to {owner} and has {row:?}"));
            }
            let serves = |node: &&super::node::Node| {
                !node.go && node.runs() && node.config.range.contains(vni)
            };
            for node in self.nodes.iter().filter(serves) {
                let bridge = node.host.bridge(vni);
                let shown = (
                    bridge.present && bridge.arp,
                    bridge.evpn,
                    bridge.cost == Some(100),
                );
                let owns = node.name() == owner;
                let right = shown == (owns, owns, owns);
                if !right || !owns && bridge.cost != Some(65535) {
                    return Err(format!("{} shows vni={vni} as {bridge:?}", node.name()));
                }
            }
            let served = self
                .nodes
                .iter()
                .any(|node| node.name() == owner && node.runs());
            if !served && !self.go_took_part(vni) {
                return Err(format!("vni={vni} belongs to {owner}, which is not there"));
            }
        }
        Ok(())
    }

    /// A cluster at rest rests: nothing is written, and hardly anything is planned.
    pub fn check_rest(&mut self) {
        let rest = ms(40_000);
        let plans: Vec<u64> = self.nodes.iter().map(|node| node.plans).collect();
        let commits: u64 = self.nodes.iter().map(|node| node.commits).sum();
        let newest = |etcd: &ModelEtcd| {
            let rows = etcd.range(b"/wmgwd/vni/").kvs;
            rows.iter().map(|kv| kv.mod_revision).max()
        };
        let revision = newest(&self.etcd);
        self.settings.rough = false;
        self.run_for(ms(5_000));
        self.run_for(rest);
        if self.failure.is_some() {
            return;
        }
        if let Err(missing) = self.converged() {
            self.fail(format!("did not stay at rest: {missing}"));
        }
        let written: u64 = self.nodes.iter().map(|node| node.commits).sum();
        if written != commits || newest(&self.etcd) != revision {
            self.fail(format!("{} commits at rest", written - commits));
        }
        let bound = rest.as_secs() * (6 + u64::from(self.settings.vnis));
        for (node, before) in self.nodes.iter().zip(plans) {
            if node.plans - before > bound {
                let text = format!("{} planned {} times", node.name(), node.plans - before);
                self.fail(format!("{text} in {rest:?} at rest"));
                return;
            }
        }
    }
}

/// Whether `me` may turn the row `before` into `after`.
///
/// The condition of a write is on `type` alone, so a name that ended with its lease just before may still
/// have been alive when the write was decided on: what is asked is that nobody who lives loses by it.
fn judge(me: &NodeName, before: &Row, after: &Row, spoiled: bool) -> Result<(), &'static str> {
    let Some(to) = after.number else {
        return Err("a kind that nobody can read");
    };
    let (owner, successor) = (before.owner(), before.successor());
    // What cannot be read any more, or is not what we wrote, me may well have been named in.
    let lost = |name: &Option<Name>, unreadable: bool| {
        unreadable || spoiled && name.as_ref().is_none_or(|name| !name.lives)
    };
    let mine = owner == Some(me) || lost(&before.current, before.unreadable.0);
    let coming = successor == Some(me) || lost(&before.next, before.unreadable.1);
    let same_owner = before.current == after.current;
    let claimed = |name: &Option<Name>| {
        name.as_ref()
            .is_some_and(|n| n.name == *me && n.lease.is_some())
    };
    let others_owner = owner.is_some_and(|owner| owner != me);
    let Some(from) = before.number else {
        // Garbage: whoever lives in the row says what it was.
        return if spoiled || mine || coming || (owner.is_none() && successor.is_none()) {
            Ok(())
        } else {
            Err("a repair by a stranger")
        };
    };
    let last = Phase::EvpnWithdrawn as u8 + 2;
    let legal = match (from, to) {
        // Vacate: nobody loses an owner. A successor whose owner died starts anew.
        (_, 0) => (!others_owner && !mine) || from == 0 || from == 10,
        // Claim: the row names nobody who lives, but perhaps me.
        (_, 10) => {
            let free = owner.is_none() || from == 0 || from == 10;
            let alone = successor.is_none_or(|name| name == me) || from <= 1;
            free && alone && claimed(&after.next)
        }
        // Pull: the owner keeps the VNI until it agrees; nobody else is being served.
        // `type` alone was deleted, so that every condition on it holds.
        (0, 1) => mine && claimed(&after.current),
        (0, 3..=9) if spoiled => same_owner && before.next == after.next,
        (0, 2) => same_owner && claimed(&after.next),
        (1, 2) => !mine && same_owner && claimed(&after.next),
        (2..=9, 2) => successor.is_none() && !mine && same_owner && claimed(&after.next),
        (2..=8, _) if to == from + 1 => {
            let turn = if from % 2 == 0 { mine } else { coming };
            turn && same_owner && before.next == after.next
        }
        // Cancel: the owner goes on.
        (2..=5, 1) if coming && !mine => same_owner && after.next.is_none(),
        // Own.
        (9, 1) if from == last && coming => claimed(&after.current),
        (10, 1) => coming && claimed(&after.current),
        (2..=9, 1) => mine && successor.is_none() && claimed(&after.current),
        (1, 1) => mine && claimed(&after.current),
        _ => false,
    };
    if legal || spoiled && !others_owner {
        Ok(())
    } else {
        Err("not in the table")
    }
}
