//! What goes wrong, from a seed.

use super::cluster::{Cluster, Settings, ms, note};
use super::host::UNSET;
use super::node::{Ev, Robbed};
use super::rng::Rng;
use super::tables::Family;
use crate::etcd::{Op, Txn};
use crate::gateway::{Event, Exit, FrrDaemons, Gateway};
use crate::model::fitness::{Sign, SignSet};
use crate::model::types::Vni;
use crate::schema::{self, Key};
use std::time::Duration;

/// One thing that happens to the cluster.
#[derive(Clone, Debug)]
pub enum Fault {
    Crash(usize),
    /// The whole machine.
    Reboot(usize),
    Start(usize),
    Pause(usize),
    Resume(usize),
    Cut(usize),
    Heal(usize),
    HangWatch(usize, bool),
    EtcdDown,
    EtcdUp,
    LeaderChange,
    Compact,
    Slow(usize, bool),
    RefuseArp(usize, Vni, bool),
    RefuseRoutes(usize, Vni, bool),
    /// FRR runs and refuses everything: another session has locked its configuration.
    RefuseAll(usize, bool),
    /// FRR does not answer any more: nothing that it is asked comes back.
    Deaf(usize, bool),
    FrrStop(usize, FrrDaemons),
    FrrStart(usize),
    /// FRR restarts, and bgpd has no instance until it is configured.
    FrrEmpty(usize),
    FrrConfigure(usize),
    /// etcd ends a lease although its holder renewed it.
    EndLease(usize),
    /// The operator makes a backup of etcd, and restores it.
    Backup,
    Rewind,
    /// Another program lets routes of a VNI out, or takes them back.
    ForeignFilter(usize, Vni, bool),
    ForeignCost(usize, Vni, u16),
    ForeignArp(usize, Vni, bool),
    /// The signs of the host say that these are wrong.
    Signs(usize, SignSet),
    RemoveBridge(usize, Vni),
    AddBridge(usize, Vni),
    /// Another program takes from FRR what it was told of a VNI.
    Drift(usize, Vni),
    /// Something else on the host deletes a table of nf_tables, or flushes all.
    DeleteTable(usize, Family),
    FlushTables(usize),
    /// nf_tables refuses every batch.
    RefuseBatches(usize, bool),
    /// An IPv6 gateway address comes or goes.
    Address(usize, Vni, bool),
    Join(bool),
    Drain(usize),
    Stop(usize),
    /// An operator takes the node out, or brings it back.
    TakeOut(usize),
    BringBack(usize),
    /// A foreign program writes into a row.
    Garbage(Vni, u64),
    /// An exited process is started again by its supervisor.
    Supervise,
}

impl Cluster {
    pub fn strike(&mut self, fault: Fault) {
        if !self.healing && !matches!(fault, Fault::Supervise) {
            note!(self, "FAULT {fault:?}");
        }
        match fault {
            Fault::Crash(n) => self.kill(n),
            Fault::Reboot(n) => {
                self.kill(n);
                let node = &mut self.nodes[n];
                node.clock = None;
                node.host.tables.delete(Family::Arp);
                node.host.tables.delete(Family::Ip6);
                for bridge in node.host.bridges_mut() {
                    (bridge.arp, bridge.fresh, bridge.evpn) = (true, true, false);
                    (bridge.cost, bridge.route) = (None, false);
                }
            }
            Fault::Start(n) => {
                if !self.nodes[n].runs() {
                    self.boot(n);
                }
            }
            Fault::Pause(n) => self.nodes[n].paused = self.nodes[n].runs(),
            Fault::Resume(n) => {
                if std::mem::take(&mut self.nodes[n].paused) {
                    let now = self.now;
                    self.nodes[n].leftover_since.fill(None);
                    self.nodes[n].foreign_since.fill(None);
                    for ev in std::mem::take(&mut self.nodes[n].deferred) {
                        self.push(now, ev);
                    }
                }
            }
            Fault::Cut(n) => self.nodes[n].cut = true,
            Fault::Heal(n) => self.nodes[n].cut = false,
            Fault::HangWatch(n, hangs) => self.nodes[n].watch_hangs = hangs,
            Fault::EtcdDown => self.etcd.up = false,
            Fault::EtcdUp => {
                if !self.etcd.up {
                    self.etcd.up = true;
                    self.etcd.change_leader(self.now);
                }
            }
            Fault::LeaderChange => self.etcd.change_leader(self.now),
            Fault::Compact => self.etcd.compact(),
            Fault::Slow(n, slow) => self.nodes[n].host.slow = slow,
            Fault::RefuseArp(n, vni, refuses) => {
                self.nodes[n].host.bridge_mut(vni).refuses_arp = refuses;
            }
            Fault::RefuseRoutes(n, vni, refuses) => {
                self.nodes[n].host.bridge_mut(vni).refuses_routes = refuses;
            }
            Fault::RefuseAll(n, refuses) => self.nodes[n].host.refuses_all = refuses,
            Fault::Deaf(n, deaf) => {
                self.nodes[n].host.deaf = deaf;
                if !deaf {
                    self.lane_resume(n);
                }
            }
            Fault::FrrStop(n, parts) => self.nodes[n].host.stop_frr(parts),
            Fault::FrrStart(n) => self.nodes[n].host.start_frr(),
            Fault::FrrEmpty(n) => {
                let host = &mut self.nodes[n].host;
                host.stop_frr(FrrDaemons::ALL);
                host.start_frr();
                host.unconfigured = true;
            }
            Fault::FrrConfigure(n) => self.nodes[n].host.unconfigured = false,
            Fault::EndLease(n) => self.end_lease(n),
            Fault::Backup => {
                self.backup = Some(self.etcd.clone());
                // Others write much besides. What goes back by less than is written until the next poll is not
                // noticed; to set etcd back takes longer than that.
                self.etcd.skip(1_000);
            }
            Fault::Rewind => self.rewind(),
            Fault::ForeignFilter(n, vni, shows) => {
                let runs = self.nodes[n].host.frr.bgpd.is_some();
                let bridge = self.nodes[n].host.bridge_mut(vni);
                bridge.evpn = if runs { shows } else { bridge.evpn };
            }
            Fault::ForeignCost(n, vni, cost) => {
                self.nodes[n].host.spoil_upstream(vni, cost);
                // A route that is deleted is noticed at once; here, of every other VNI, by the audit alone.
                if self.nodes[n].host.has_routes && vni.get().is_multiple_of(2) {
                    let inc = self.nodes[n].inc;
                    let event = Box::new(Event::UpstreamLost(vec![vni]));
                    self.after(ms(50), Ev::Inbox { n, inc, event });
                }
            }
            Fault::ForeignArp(n, vni, answers) => {
                let bridge = self.nodes[n].host.bridge_mut(vni);
                if bridge.present {
                    // Until the daemon has switched it again, the daemon does not answer for it.
                    (bridge.arp, bridge.fresh) = (answers, answers);
                }
                if self.rng.chance(500) {
                    self.tell_links(n, vni);
                }
            }
            Fault::Signs(n, bad) => {
                self.nodes[n].host.bad = bad;
                self.tell_signs(n);
            }
            Fault::RemoveBridge(n, vni) => {
                self.nodes[n].host.remove(vni);
                self.nodes[n].host.tables.disturbed = true;
                self.tell_links(n, vni);
                self.tell_gate(n);
            }
            Fault::AddBridge(n, vni) => {
                let answers = self.rng.chance(500);
                let bridge = self.nodes[n].host.bridge_mut(vni);
                if !bridge.present {
                    (bridge.present, bridge.arp, bridge.fresh) = (true, answers, true);
                    self.nodes[n].host.tables.disturbed = true;
                    self.tell_links(n, vni);
                    self.tell_gate(n);
                }
            }
            Fault::Drift(n, vni) => self.drift(n, vni),
            Fault::DeleteTable(n, family) => self.delete_tables(n, &[family]),
            Fault::FlushTables(n) => self.delete_tables(n, &[Family::Arp, Family::Ip6]),
            Fault::RefuseBatches(n, refuses) => self.nodes[n].host.tables.refuses = refuses,
            Fault::Address(n, vni, _) if !self.nodes[n].config.range.contains(vni) => {}
            Fault::Address(n, vni, is_there) => {
                let host = &mut self.nodes[n].host;
                host.bridge_mut(vni).ipv6 = is_there;
                host.tables.disturbed = true;
                self.tell_gate(n);
            }
            Fault::Join(go) => {
                let name = format!("gw{}", self.nodes.len() + 1);
                self.add(&name, go);
            }
            Fault::Drain(n) => {
                if self.nodes[n].runs() {
                    self.nodes[n].drained = true;
                    let inc = self.nodes[n].inc;
                    let event = Box::new(Event::Drain);
                    self.after(ms(0), Ev::Inbox { n, inc, event });
                }
            }
            Fault::Stop(n) => {
                if self.nodes[n].runs() && !self.nodes[n].go {
                    self.nodes[n].drained = true;
                    let inc = self.nodes[n].inc;
                    let event = Box::new(Event::Stop);
                    self.after(ms(0), Ev::Inbox { n, inc, event });
                }
            }
            Fault::TakeOut(n) => self.operate(&schema::drain(&self.nodes[n].name().clone())),
            Fault::BringBack(n) => self.operate(&schema::undrain(&self.nodes[n].name().clone())),
            Fault::Garbage(vni, kind) => self.spoil(vni, kind),
            Fault::Supervise => {
                for n in 0..self.nodes.len() {
                    let node = &self.nodes[n];
                    if !node.runs() && node.exit == Some(Exit::NameTaken) {
                        self.boot(n);
                    }
                }
                self.check_liveness();
                self.after(ms(2_000), Ev::Fault(Fault::Supervise));
            }
        }
    }

    /// What the host's signs say now arrives a moment later.
    pub fn tell_signs(&mut self, n: usize) {
        let inc = self.nodes[n].inc;
        let host = &mut self.nodes[n].host;
        let (bad, cut_off) = (host.bad, host.bad.has(Sign::Beats));
        let is_news = std::mem::replace(&mut host.told_cut_off, cut_off) || cut_off;
        let cut_off = is_news.then_some(Event::CutOff(cut_off));
        for event in [Event::Signs(bad)].into_iter().chain(cut_off) {
            if !self.nodes[n].go {
                let event = Box::new(event);
                self.after(ms(20), Ev::Inbox { n, inc, event });
            }
        }
    }

    /// Signs that come and go on one node, or on all of them at nearly the same time.
    fn break_signs(&mut self, n: usize, lasts: Duration) -> Fault {
        let drawn = [Sign::FabricLink, Sign::Evpn, Sign::UplinkLink, Sign::Ospf];
        let drawn = drawn.into_iter().filter(|_| self.rng.chance(300));
        let mut bad: SignSet = drawn.collect();
        // On every second node beats are missed with EVPN.
        if bad.has(Sign::Evpn) && n % 2 == 1 {
            bad = bad.with(Sign::Beats);
        }
        match self.rng.below(3) {
            // A cut, or a sign that lies.
            0 => {}
            // Flaps.
            1 => {
                let mut at = ms(0);
                for _ in 0..self.rng.within(1, 8) {
                    at += self.rng.millis(10, 4_000);
                    self.schedule(at, Fault::Signs(n, SignSet::NONE));
                    at += self.rng.millis(10, 4_000);
                    self.schedule(at, Fault::Signs(n, bad));
                }
            }
            _ => {
                for other in 0..self.nodes.len() {
                    let at = self.rng.millis(0, 300);
                    self.schedule(at, Fault::Signs(other, bad));
                    let until = at + lasts + self.rng.millis(0, 2_000);
                    self.schedule(until, Fault::Signs(other, SignSet::NONE));
                }
            }
        }
        Fault::Signs(n, bad)
    }

    fn tell_links(&mut self, n: usize, vni: Vni) {
        // Netlink may lose a message; the audit finds the bridge then.
        if !self.settings.rough || self.rng.chance(900) {
            let bridge = self.nodes[n].host.bridge_mut(vni);
            bridge.listed = bridge.present;
            let inc = self.nodes[n].inc;
            let event = Box::new(Event::Links(vec![vni]));
            let delay = self.rng.millis(1, 200);
            self.after(delay, Ev::Inbox { n, inc, event });
        }
    }

    fn delete_tables(&mut self, n: usize, families: &[Family]) {
        let node = &mut self.nodes[n];
        // What the kernel holds for a daemon and a guard that are dead is not promised against that.
        if self.spares_tables || node.guard_is_dead {
            return;
        }
        for family in families {
            node.host.tables.delete(*family);
        }
        node.host.dirty = true;
        self.tell_gate(n);
    }

    /// The kernel tells of changes of nf_tables and of addresses; the daemon may be late to hear.
    fn tell_gate(&mut self, n: usize) {
        let delay = self.table_rng.millis(1, 100);
        let inc = self.nodes[n].inc;
        self.after(delay, Ev::Gate { n, inc });
    }

    /// What happens to nf_tables and to IPv6 addresses in the course of a story.
    pub fn plan_table_faults(&mut self, story: Story) {
        let faults = self.table_rng.within(0, 8);
        for _ in 0..faults {
            let rng = &mut self.table_rng;
            let at = rng.millis(0, 150_000);
            let n = rng.below(self.nodes.len() as u64) as usize;
            let vni = rng.within(1, u64::from(self.settings.vnis)) as u32;
            let vni = Vni::new(vni).expect("in range");
            let lasts = rng.millis(20, 2_000);
            let (begin, end) = match rng.below(8) {
                0 => (Fault::DeleteTable(n, Family::Arp), None),
                1 | 2 => (Fault::DeleteTable(n, Family::Ip6), None),
                3 => (Fault::FlushTables(n), None),
                // A move that is planned loses IPv6 where it is not there, or is not taken.
                _ if matches!(story, Story::Planned | Story::Upgrade) => continue,
                4 | 5 => (
                    Fault::RefuseBatches(n, true),
                    Some(Fault::RefuseBatches(n, false)),
                ),
                _ => {
                    let has = self.ipv6[vni.get() as usize - 1];
                    (
                        Fault::Address(n, vni, !has),
                        Some(Fault::Address(n, vni, has)),
                    )
                }
            };
            self.schedule(at, begin);
            if let Some(end) = end {
                self.schedule(at + lasts, end);
            }
        }
    }

    fn end_lease(&mut self, n: usize) {
        let Some(clock) = self.nodes[n].clock else {
            return;
        };
        if self.etcd.revoke(clock.id) {
            self.rob(n);
            self.changed();
        }
    }

    /// The lease of node `n` is gone before its time.
    fn rob(&mut self, n: usize) {
        let now = self.now;
        if let Some(clock) = self.nodes[n].clock {
            self.nodes[n].robbed = Some(Robbed {
                lease: clock.id,
                at: now,
                valid_until: clock.valid_until,
                hindered: false,
            });
        }
    }

    fn rewind(&mut self) {
        let Some(backup) = self.backup.take() else {
            return;
        };
        self.etcd.go_back_to(&backup, self.now);
        for n in 0..self.nodes.len() {
            let clock = self.nodes[n].clock;
            if clock.is_some_and(|clock| !self.etcd.lease_exists(clock.id)) {
                self.rob(n);
            }
        }
        self.rewound();
        self.changed();
    }

    fn drift(&mut self, n: usize, vni: Vni) {
        // FRR is looked at while nothing is under way; a node that leaves may be gone before it hears of it.
        let node = &self.nodes[n];
        let runs = node.runs() && !node.paused && !node.go;
        let quiet = |gateway: &Gateway| gateway.routes.is_idle() && !gateway.is_leaving();
        if !runs || !self.own(n).is_some_and(|own| quiet(&own.gateway)) {
            return;
        }
        self.excuse(vni);
        let host = &mut self.nodes[n].host;
        host.bridge_mut(vni).evpn = false;
        host.spoil_upstream(vni, UNSET);
        let inc = self.nodes[n].inc;
        let event = Box::new(Event::Drifted(vec![vni]));
        self.after(ms(0), Ev::Inbox { n, inc, event });
    }

    /// An operator writes, from a machine of his own.
    fn operate(&mut self, txn: &Txn) {
        // No lease, so nothing to refuse.
        let _ = self.etcd.txn(txn);
        self.changed();
    }

    /// A program that does not know the schema writes.
    fn spoil(&mut self, vni: Vni, kind: u64) {
        let put = |key: Key, value: &[u8]| Op::Put {
            key: key.bytes(),
            value: value.to_vec(),
            lease: None,
        };
        let delete = |key: Key| Op::Delete { key: key.bytes() };
        let op = match kind % 8 {
            0 => put(Key::Kind(vni), b"abc"),
            1 => put(Key::Kind(vni), b"77"),
            2 => put(Key::Current(vni), b"\xff\xfe"),
            3 => put(Key::Next(vni), b"a/b"),
            4 => put(Key::Current(vni), b"ghost"),
            5 => put(Key::Next(vni), b"ghost"),
            6 => delete(Key::Kind(vni)),
            _ => delete(Key::Current(vni)),
        };
        self.excuse(vni);
        let txn = Txn {
            then: vec![op],
            ..Txn::default()
        };
        self.operate(&txn);
    }

    /// Everything that was broken is whole again.
    pub fn heal_all(&mut self) {
        note!(self, "HEAL");
        self.healing = true;
        self.strike(Fault::EtcdUp);
        for n in 0..self.nodes.len() {
            self.strike(Fault::Heal(n));
            self.strike(Fault::BringBack(n));
            self.strike(Fault::HangWatch(n, false));
            self.strike(Fault::Slow(n, false));
            self.strike(Fault::RefuseAll(n, false));
            self.strike(Fault::Deaf(n, false));
            self.strike(Fault::FrrConfigure(n));
            self.strike(Fault::FrrStart(n));
            self.strike(Fault::Signs(n, SignSet::NONE));
            for vni in self.vnis() {
                let bridge = self.nodes[n].host.bridge_mut(vni);
                (bridge.refuses_arp, bridge.refuses_routes) = (false, false);
                self.strike(Fault::AddBridge(n, vni));
            }
            self.strike(Fault::Resume(n));
            if !self.nodes[n].runs() && !self.nodes[n].drained {
                self.strike(Fault::Start(n));
            }
        }
        self.healing = false;
    }

    fn some_node(&mut self) -> usize {
        self.rng.below(self.nodes.len() as u64) as usize
    }

    fn some_vni(&mut self) -> Vni {
        Vni::new(self.rng.within(1, u64::from(self.settings.vnis)) as u32).expect("in range")
    }

    /// A fault and, for most, its end some time later.
    pub fn random_fault(&mut self) {
        let n = self.some_node();
        let vni = self.some_vni();
        let short = self.rng.chance(500);
        let lasts = if short {
            self.rng.millis(50, 4_000)
        } else {
            self.rng.millis(2_000, 40_000)
        };
        let parts = *self.rng.pick(&[(true, false), (false, true), (true, true)]);
        let parts = FrrDaemons {
            bgpd: parts.0,
            ospfd: parts.1,
        };
        let kind = self.rng.below(118);
        let (begin, end) = match kind {
            0..=13 => (Fault::Crash(n), Some(Fault::Start(n))),
            14..=23 => (Fault::Pause(n), Some(Fault::Resume(n))),
            24..=35 => (Fault::Cut(n), Some(Fault::Heal(n))),
            36..=40 => (Fault::HangWatch(n, true), Some(Fault::HangWatch(n, false))),
            41..=46 => (Fault::EtcdDown, Some(Fault::EtcdUp)),
            47..=49 => (Fault::LeaderChange, None),
            50..=52 => (Fault::Compact, None),
            53..=54 => (Fault::Drift(n, vni), None),
            55..=60 => (Fault::Slow(n, true), Some(Fault::Slow(n, false))),
            61..=64 => (
                Fault::RefuseArp(n, vni, true),
                Some(Fault::RefuseArp(n, vni, false)),
            ),
            65..=69 => (
                Fault::RefuseRoutes(n, vni, true),
                Some(Fault::RefuseRoutes(n, vni, false)),
            ),
            // Restarted again and again, also while it is being told what to do.
            70..=73 => {
                let mut at = ms(0);
                for _ in 0..self.rng.within(1, 5) {
                    at += self.rng.millis(50, 2_000);
                    self.schedule(at, Fault::FrrStop(n, parts));
                    at += self.rng.millis(1, 500);
                    self.schedule(at, Fault::FrrStart(n));
                }
                (Fault::Slow(n, short), Some(Fault::Slow(n, false)))
            }
            74..=78 => (Fault::FrrStop(n, parts), Some(Fault::FrrStart(n))),
            79..=83 => (Fault::RemoveBridge(n, vni), Some(Fault::AddBridge(n, vni))),
            84..=86 if self.nodes.len() < 7 => (Fault::Join(false), None),
            87..=89 => (Fault::Drain(n), Some(Fault::Start(n))),
            90..=91 => (Fault::TakeOut(n), Some(Fault::BringBack(n))),
            92 => (Fault::Stop(n), Some(Fault::Start(n))),
            // A Go node does not notice either.
            93..=94 if self.nodes.iter().all(|node| !node.go) => {
                self.strike(Fault::Backup);
                self.schedule(lasts, Fault::Rewind);
                return;
            }
            95..=98 => {
                self.random_change(n, vni, lasts);
                return;
            }
            106.. => (
                self.break_signs(n, lasts),
                Some(Fault::Signs(n, SignSet::NONE)),
            ),
            // Go takes every text for a name, and no node can repair that.
            99..=103 if self.nodes.iter().all(|node| !node.go) => {
                let kind = self.rng.below(8);
                (Fault::Garbage(vni, kind), None)
            }
            _ => (Fault::Reboot(n), Some(Fault::Start(n))),
        };
        self.strike(begin);
        if let Some(end) = end {
            self.schedule(lasts, end);
        }
    }
}

impl Cluster {
    /// Something that a node must find out by itself and set right, or be told of too late.
    pub fn random_change(&mut self, n: usize, vni: Vni, lasts: Duration) {
        let flag = self.rng.chance(500);
        match self.rng.below(7) {
            0 => self.strike(Fault::ForeignFilter(n, vni, flag)),
            1 => {
                let cost = *self.rng.pick(&[UNSET, 100, 65535]);
                self.strike(Fault::ForeignCost(n, vni, cost));
            }
            2 => self.strike(Fault::ForeignArp(n, vni, flag)),
            3 => self.strike(Fault::EndLease(n)),
            4 => {
                self.strike(Fault::FrrEmpty(n));
                self.schedule(lasts, Fault::FrrConfigure(n));
            }
            5 => {
                self.strike(Fault::Deaf(n, true));
                self.schedule(lasts, Fault::Deaf(n, false));
            }
            _ => {
                self.strike(Fault::RefuseAll(n, true));
                self.schedule(lasts, Fault::RefuseAll(n, false));
            }
        }
    }

    /// Something that a node cannot do from now on.
    pub fn random_inability(&mut self) {
        let (n, vni) = (self.some_node(), self.some_vni());
        let kind = self.rng.below(9);
        let vnis: Vec<Vni> = match self.rng.chance(500) {
            true => self.vnis().collect(),
            false => vec![vni],
        };
        match kind {
            0 => self.strike(Fault::RefuseAll(n, true)),
            1 => self.strike(Fault::FrrEmpty(n)),
            2 => self.strike(Fault::FrrStop(n, FrrDaemons::ALL)),
            8 => self.strike(Fault::Deaf(n, true)),
            _ => {
                for vni in vnis {
                    self.strike(match kind {
                        3 | 4 => Fault::RefuseRoutes(n, vni, true),
                        5 => Fault::RefuseArp(n, vni, true),
                        _ => Fault::RemoveBridge(n, vni),
                    });
                }
            }
        }
    }
}

/// The kinds of story that a seed can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Story {
    /// Anything may break, at any time.
    Rough,
    /// Nodes come and go as planned: nothing may be lost at any moment.
    Planned,
    /// Go nodes among the others.
    Mixed,
    /// Some nodes cannot do some of what the ring asks of them, for ever.
    Unable,
    /// Leases end before their time and strangers change things, in a network without delays.
    Calm,
    /// Go nodes are replaced one after the other, or the other way: nothing may be lost.
    Upgrade,
}

/// Numbers for a cluster, from a seed.
pub fn random_settings(rng: &mut Rng, story: Story) -> Settings {
    let ttl = *rng.pick(&[5_000, 10_000]);
    Settings {
        vnis: if rng.chance(200) {
            rng.within(10, 30) as u32
        } else {
            rng.within(1, 6) as u32
        },
        ttl: ms(ttl),
        margin: ms(ttl / 5),
        etcd_timeout: ms(*rng.pick(&[500, 1_000])),
        settle: ms(*rng.pick(&[200, 1_000, 2_000])),
        join_hold: ms(*rng.pick(&[0, 5_000, 20_000])),
        fit_hold: ms(*rng.pick(&[0, 3_000, 10_000])),
        drain_timeout: ms(if matches!(story, Story::Planned | Story::Upgrade) {
            600_000
        } else {
            60_000
        }),
        rough: match story {
            Story::Rough | Story::Mixed => true,
            Story::Planned | Story::Unable => rng.chance(500),
            Story::Upgrade | Story::Calm => false,
        },
        lossy: matches!(story, Story::Rough | Story::Mixed),
        // Go knows nothing of ranges: its ring would be another one.
        ranges: story == Story::Rough && rng.chance(100),
        redraws: true,
        go_resets_all: rng.chance(700),
    }
}

/// How long a cluster may take to come to rest after the last fault.
pub fn bound(settings: &Settings, with_go: bool) -> Duration {
    // Leases that still have to end, twice over for a new leader; a node that has to be known for a
    // while before it pulls; then a migration, and a drain that was under way. A worker may hang for 20 s.
    let hitches = ms(if settings.rough { 40_000 } else { 15_000 });
    // A Go node waits 10 s up to three times in a migration, may reset a row and begin anew, and looks at
    // rows that it missed each 30 s.
    let waits = ms(if with_go { 180_000 } else { 0 });
    settings.ttl * 3 + settings.join_hold + settings.settle * 8 + hitches + waits
}
