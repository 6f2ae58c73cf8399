//! A model of one gateway's kernel and FRR: what the network really sees of it.

use super::tables::{Family, Ipv6, Support, Tables};
use crate::gateway::ArpOutcome;
use crate::model::fitness::SignSet;
use crate::model::frr::{Cost, FrrDaemons, Health, RouteChange};
use crate::model::types::{Time, Vni, VniRange};
use std::collections::BTreeSet;

/// What an OSPF interface without a configured cost announces: better than any owner.
pub const UNSET: u16 = 10;

/// One `br<VNI>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bridge {
    pub present: bool,
    pub arp: bool,
    /// It has IPv6 gateway addresses.
    pub ipv6: bool,
    /// The bridge came up with the kernel's own setting, which no run of wmgwd was able to change before.
    pub fresh: bool,
    pub evpn: bool,
    /// `None` while ospfd is not running. Of a kernel route: 100 or 65535.
    pub cost: Option<u16>,
    /// The kernel has the routes that announce the VNI.
    pub route: bool,
    pub refuses_arp: bool,
    pub refuses_routes: bool,
    /// What the daemon told it last of ARP, if anything.
    told: Option<bool>,
    /// Whether it is in the daemon's list of interfaces.
    pub listed: bool,
    /// What FRR last took.
    given: (Option<bool>, Option<u16>),
}

impl Bridge {
    /// Whether the kernel has its routes, which ospfd tells the network of if it runs.
    fn set_route(&mut self, is_there: bool, ospfd: Option<u64>) {
        self.route = is_there;
        let seen = if is_there { Cost::OWNER } else { Cost::OTHERS };
        self.cost = ospfd.map(|_| seen.0);
    }
}

/// What the daemon found of the ARP of one bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audited {
    AsTold,
    /// It was not as told, and is now, or is gone.
    Differed,
    /// It is not as told, and the kernel refuses to change that.
    Refused,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct ModelHost {
    bridges: Vec<Bridge>,
    /// VNIs are announced by kernel routes, which outlive FRR's daemons.
    pub has_routes: bool,
    pub tables: Tables,
    pub frr: Health,
    next_process: u64,
    /// FRR runs, but takes nothing.
    pub refuses_all: bool,
    /// bgpd runs, but has no instance.
    pub unconfigured: bool,
    /// FRR takes orders and does not answer, nor act.
    pub deaf: bool,
    /// vtysh takes seconds.
    pub slow: bool,
    /// What the signs say that is wrong, be it true or not.
    pub bad: SignSet,
    /// Whether the node was told that it is cut off.
    pub told_cut_off: bool,
    /// A bridge was missing once.
    pub lacked: bool,
    /// A check is due: what the network sees has changed.
    pub dirty: bool,
}

impl ModelHost {
    /// A machine with what an unknown earlier run left, with IPv6 gateway addresses on some of its bridges.
    pub fn new(support: Support, ipv6: &[bool]) -> ModelHost {
        let bridge = Bridge {
            present: true,
            arp: true,
            ipv6: false,
            fresh: true,
            evpn: true,
            cost: Some(UNSET),
            route: false,
            refuses_arp: false,
            refuses_routes: false,
            told: None,
            listed: true,
            given: (None, None),
        };
        ModelHost {
            bridges: ipv6.iter().map(|&ipv6| Bridge { ipv6, ..bridge }).collect(),
            tables: Tables::new(support),
            has_routes: false,
            frr: Health {
                bgpd: Some(1),
                ospfd: Some(2),
                zebra: Some(3),
                ..Health::default()
            },
            next_process: 4,
            refuses_all: false,
            unconfigured: false,
            deaf: false,
            slow: false,
            bad: SignSet::NONE,
            told_cut_off: false,
            lacked: false,
            dirty: true,
        }
    }

    pub fn bridge(&self, vni: Vni) -> &Bridge {
        &self.bridges[vni.get() as usize - 1]
    }

    pub fn bridge_mut(&mut self, vni: Vni) -> &mut Bridge {
        self.dirty = true;
        &mut self.bridges[vni.get() as usize - 1]
    }

    pub fn bridges_mut(&mut self) -> impl Iterator<Item = &mut Bridge> {
        self.dirty = true;
        self.bridges.iter_mut()
    }

    /// Whether the network gets answers from this bridge that the daemon is to answer for.
    pub fn answers(&self, vni: Vni) -> bool {
        self.answers_in(vni, Family::Arp)
    }

    pub fn answers_in(&self, vni: Vni, family: Family) -> bool {
        let bridge = self.bridge(vni);
        match family {
            Family::Arp => {
                bridge.present && bridge.arp && !bridge.fresh && self.tables.pass_arp(vni)
            }
            Family::Ip6 => self.ipv6(vni) == Some(Ipv6::Answers),
        }
    }

    /// What the network gets of the IPv6 gateway addresses of a bridge, if it has them.
    pub fn ipv6(&self, vni: Vni) -> Option<Ipv6> {
        let bridge = self.bridge(vni);
        (bridge.present && bridge.ipv6).then(|| self.tables.ipv6(vni))
    }

    fn vnis(&self) -> impl Iterator<Item = Vni> + use<> {
        (1..=self.bridges.len() as u32).filter_map(Vni::new)
    }

    pub fn answers_any(&self, family: Family) -> bool {
        self.vnis().any(|vni| self.answers_in(vni, family))
    }

    /// The VNIs that answer in the one family alone, although the daemon has told both the same.
    pub fn apart(&self) -> Vec<Vni> {
        let is_apart = |vni: &Vni| {
            let bridge = self.bridge(*vni);
            let is_as_told = !bridge.fresh && bridge.told == Some(bridge.arp);
            let ipv6 = self.ipv6(*vni).filter(|_| is_as_told);
            ipv6.is_some_and(|it| it != Ipv6::Unswitched)
                && self.answers_in(*vni, Family::Arp) != self.answers_in(*vni, Family::Ip6)
        };
        self.vnis().filter(is_apart).collect()
    }

    /// Whether no table keeps the host from answering for an IPv6 gateway address.
    pub fn is_unswitched(&self) -> bool {
        let mut vnis = self.vnis();
        vnis.any(|vni| self.ipv6(vni) == Some(Ipv6::Unswitched))
    }

    /// Whether the kernel silences all that answers by itself when the lease ends.
    pub fn is_held(&self) -> bool {
        let answers = |vni: &Vni| self.bridge(*vni).arp;
        let mut answering = self.vnis().filter(answers);
        !self.tables.disturbed && answering.all(|vni| self.tables.hold_arp(vni))
    }

    /// The daemon sees to it that the tables are there and have in them what they are to have.
    pub fn tend(&mut self, lease: Option<Time>) {
        let of = |is: &dyn Fn(&Bridge) -> bool| {
            let vnis = self.vnis();
            vnis.filter(|vni| is(self.bridge(*vni))).collect()
        };
        let answering: BTreeSet<Vni> = of(&|bridge| bridge.told == Some(true));
        let addressed = of(&|bridge| bridge.present && bridge.ipv6);
        self.tables.tend(&answering, addressed, lease);
        self.dirty = true;
    }

    /// A run of the daemon begins, without a lease: what the run before has left answers no more.
    pub fn adopt(&mut self, range: VniRange) {
        for (vni, bridge) in self.vnis().zip(&mut self.bridges) {
            let answers = bridge.arp && range.contains(vni);
            bridge.told = answers.then_some(true);
        }
        self.tables.disturbed = true;
        self.tend(None);
        self.tables.revoke();
        self.forget_told();
    }

    pub fn shows_nothing(&self) -> bool {
        let nothing = |b: &Bridge| {
            let silent = !b.present || !b.arp;
            silent && !b.evpn && b.cost.is_none_or(|cost| cost == Cost::OTHERS.0)
        };
        self.bridges.iter().all(nothing)
    }

    /// Whether no bridge was ever missing.
    pub fn was_complete(&self) -> bool {
        !self.lacked
    }

    pub fn set_arp(&mut self, vni: Vni, answer: bool) -> ArpOutcome {
        if answer {
            self.tables.admit(vni);
        }
        let outcome = self.switch_arp(vni, answer);
        // What does not answer ARP is not to answer for IPv6.
        let is_off = self.bridge(vni).told != Some(true);
        match is_off && !self.tables.release(&[vni].into()) {
            true => ArpOutcome::Failed,
            false => outcome,
        }
    }

    fn switch_arp(&mut self, vni: Vni, answer: bool) -> ArpOutcome {
        let bridge = self.bridge_mut(vni);
        if !bridge.present {
            bridge.told = None;
            return ArpOutcome::Absent;
        }
        if answer && bridge.refuses_arp {
            bridge.told.get_or_insert(false);
            return ArpOutcome::Failed;
        }
        bridge.told = Some(answer);
        bridge.arp = answer;
        bridge.fresh = false;
        ArpOutcome::Answers(answer)
    }

    /// The daemon looks whether a bridge does as it was told, and has it do so if it `may`.
    pub fn audit_arp(&mut self, vni: Vni, may: impl Fn(bool) -> bool) -> Audited {
        let bridge = *self.bridge(vni);
        let Some(told) = bridge.told.filter(|told| may(*told)) else {
            return Audited::AsTold;
        };
        if !bridge.present {
            return Audited::Differed;
        }
        if bridge.arp == told && !bridge.fresh {
            return Audited::AsTold;
        }
        match self.set_arp(vni, told) {
            ArpOutcome::Failed => Audited::Refused,
            _ => Audited::Differed,
        }
    }

    /// Another process of the daemon has told no bridge anything, and lists those that are there.
    pub fn forget_told(&mut self) {
        for bridge in &mut self.bridges {
            (bridge.told, bridge.listed) = (None, bridge.present);
        }
    }

    /// What the fence and the guard do.
    pub fn silence(&mut self) {
        self.tables.revoke();
        for bridge in self.bridges_mut() {
            bridge.arp = false;
            bridge.fresh = false;
            bridge.told = bridge.told.and(Some(false));
        }
        self.tables.release(&self.vnis().collect());
    }

    /// Something on this host takes away what announces the VNI upstream, or makes another cost of it.
    pub fn spoil_upstream(&mut self, vni: Vni, cost: u16) {
        let (has_routes, ospfd) = (self.has_routes, self.frr.ospfd);
        let bridge = self.bridge_mut(vni);
        match has_routes {
            true => bridge.set_route(false, ospfd),
            false => bridge.cost = bridge.cost.and(Some(cost)),
        }
    }

    /// The bridge is deleted, with the routes through it.
    pub fn remove(&mut self, vni: Vni) {
        self.lacked = true;
        let bridge = self.bridge_mut(vni);
        (bridge.present, bridge.arp, bridge.fresh) = (false, false, false);
        if self.has_routes {
            self.spoil_upstream(vni, UNSET);
        }
    }

    /// What the guard does then.
    pub fn withdraw_routes(&mut self) {
        self.reset(FrrDaemons::ALL, &BTreeSet::new());
    }

    /// Withdraws all routes but those of `keep`; says which daemons took it.
    pub fn reset(&mut self, parts: FrrDaemons, keep: &BTreeSet<Vni>) -> FrrDaemons {
        let taken = match self.refuses_all || self.deaf {
            true => FrrDaemons::NONE,
            false => parts.and(self.frr.parts()),
        };
        let taken = FrrDaemons {
            bgpd: taken.bgpd && !self.unconfigured,
            ..taken
        };
        let (has_routes, ospfd) = (self.has_routes, self.frr.ospfd);
        for (vni, bridge) in (1..).zip(self.bridges_mut()) {
            if keep.iter().any(|kept| kept.get() == vni) {
                continue;
            }
            if taken.bgpd {
                bridge.evpn = false;
                bridge.given.0 = Some(false);
            }
            // The kernel does as it is told, whatever FRR does.
            if has_routes && parts.ospfd {
                bridge.set_route(false, ospfd);
                bridge.given.1 = Some(Cost::OTHERS.0);
            } else if taken.ospfd {
                bridge.cost = Some(Cost::OTHERS.0);
                bridge.given.1 = bridge.cost;
            }
        }
        taken
    }

    /// One VNI of a batch. Returns whether FRR took it wholly.
    pub fn change(&mut self, change: RouteChange, half: bool) -> bool {
        let (health, refuses_all, has_routes) = (self.frr, self.refuses_all, self.has_routes);
        let lacks_bgp = self.unconfigured && change.evpn == Some(true);
        let bridge = self.bridge_mut(change.vni);
        let refused = bridge.refuses_routes || refuses_all;
        if refused && (!half || refuses_all) {
            return false;
        }
        let mut taken = !refused;
        if let Some(evpn) = change.evpn {
            match health.bgpd {
                Some(_) if !lacks_bgp => {
                    bridge.evpn = evpn;
                    bridge.given.0 = Some(evpn);
                }
                _ => taken = false,
            }
        }
        if let Some(Cost(cost)) = change.cost.filter(|_| !refused) {
            let attracts = cost < Cost::OTHERS.0;
            match health.ospfd {
                // The kernel has no route through an interface that is not there.
                _ if has_routes && attracts && !bridge.present => taken = false,
                ospfd if has_routes => {
                    bridge.set_route(attracts, ospfd);
                    bridge.given.1 = Some(cost);
                }
                Some(_) => {
                    bridge.cost = Some(cost);
                    bridge.given.1 = Some(cost);
                }
                None => taken = false,
            }
        }
        taken
    }

    /// The kernel's part of a change, ahead of FRR.
    pub fn hasten(&mut self, change: RouteChange) {
        let ospfd = self.frr.ospfd;
        let bridge = self.bridge_mut(change.vni);
        let attracts = change.claims();
        if bridge.refuses_routes || attracts && !bridge.present {
            return;
        }
        bridge.set_route(attracts, ospfd);
        bridge.given.1 = change.cost.map(|cost| cost.0);
    }

    /// The VNIs of which FRR does not have what it took.
    pub fn drifted(&self) -> Vec<Vni> {
        let differs = |bridge: &&Bridge| {
            let evpn = self.frr.bgpd.and(bridge.given.0);
            let cost = self.frr.ospfd.and(bridge.given.1);
            let is_other = match self.has_routes {
                true => (bridge.given.1).is_some_and(|it| (it < Cost::OTHERS.0) != bridge.route),
                false => cost.is_some() && cost != bridge.cost,
            };
            evpn.is_some_and(|evpn| evpn != bridge.evpn) || is_other
        };
        let vnis = (1..).filter_map(Vni::new).zip(&self.bridges);
        vnis.filter(|(_, bridge)| differs(bridge))
            .map(|(vni, _)| vni)
            .collect()
    }

    /// Daemons end: what they were told is gone from the network.
    pub fn stop_frr(&mut self, parts: FrrDaemons) {
        if parts.bgpd {
            self.frr.bgpd = None;
        }
        if parts.ospfd {
            self.frr.ospfd = None;
        }
        for bridge in self.bridges_mut() {
            bridge.evpn &= !parts.bgpd;
            if parts.ospfd {
                bridge.cost = None;
            }
        }
    }

    /// Daemons that do not run start, with what is in their configuration files.
    pub fn start_frr(&mut self) {
        let next = self.next_process;
        self.next_process += 2;
        self.frr.bgpd.get_or_insert(next);
        if self.frr.ospfd.is_none() {
            let ospfd = Some(next + 1);
            self.frr.ospfd = ospfd;
            let has_routes = self.has_routes;
            for bridge in self.bridges_mut() {
                match has_routes {
                    true => bridge.set_route(bridge.route, ospfd),
                    false => bridge.cost = Some(UNSET),
                }
            }
        }
    }
}
