//! FRR as core and host both speak of it: costs, changes, daemons.

use super::types::Vni;

/// An OSPF interface cost, 1 to 65535 (RFC 2328 appendix C.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cost(pub u16);

impl Cost {
    /// What the owner of a VNI announces its subnet with.
    pub const OWNER: Cost = Cost(100);
    /// What every other gateway announces it with: as far away as OSPF can say.
    pub const OTHERS: Cost = Cost(u16::MAX);
}

/// What FRR shall do from now on for one VNI; `None` leaves that part as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteChange {
    /// The VNI.
    pub vni: Vni,
    /// Whether its EVPN type-2 and type-5 routes leave through `filter-vni`.
    pub evpn: Option<bool>,
    /// The OSPF cost of its bridge.
    pub cost: Option<Cost>,
}

impl RouteChange {
    /// Whether the change draws traffic to this node, so that it needs a valid lease.
    pub fn claims(&self) -> bool {
        self.evpn == Some(true) || self.cost.is_some_and(|cost| cost < Cost::OTHERS)
    }
}

/// How `filter-vni` tells the VNIs that this node owns from the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EvpnFilter {
    /// One entry of the route-map that matches an extcommunity-list, with a line of route targets a VNI.
    #[default]
    List,
    /// One entry of the route-map a VNI.
    Entries,
}

/// How the owner of a VNI announces its subnet upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Announce {
    /// By the OSPF cost of the bridge: every gateway announces the subnet, the owner is the nearest.
    #[default]
    Costs,
    /// By routes in the kernel that FRR redistributes: the owner alone announces them.
    Routes,
}

impl Announce {
    /// The word for it on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Announce::Costs => "costs",
            Announce::Routes => "routes",
        }
    }

    /// What `name` is the word for.
    pub fn from_name(name: &str) -> Option<Announce> {
        [Announce::Costs, Announce::Routes]
            .into_iter()
            .find(|it| it.name() == name)
    }
}

/// The daemons of FRR that wmgwd tells what to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrrDaemons {
    /// It advertises EVPN routes.
    pub bgpd: bool,
    /// It announces the OSPF costs.
    pub ospfd: bool,
}

impl FrrDaemons {
    /// Both.
    pub const ALL: FrrDaemons = FrrDaemons {
        bgpd: true,
        ospfd: true,
    };

    /// Neither.
    pub const NONE: FrrDaemons = FrrDaemons {
        bgpd: false,
        ospfd: false,
    };

    /// The parts, one by one.
    pub fn each(self) -> impl Iterator<Item = FrrDaemons> {
        let bgpd = FrrDaemons {
            ospfd: false,
            ..self
        };
        let ospfd = FrrDaemons {
            bgpd: false,
            ..self
        };
        [bgpd, ospfd]
            .into_iter()
            .filter(|part| *part != FrrDaemons::NONE)
    }

    /// What is in both.
    pub fn and(self, other: FrrDaemons) -> FrrDaemons {
        FrrDaemons {
            bgpd: self.bgpd && other.bgpd,
            ospfd: self.ospfd && other.ospfd,
        }
    }

    /// What is in one or the other.
    pub fn or(self, other: FrrDaemons) -> FrrDaemons {
        FrrDaemons {
            bgpd: self.bgpd || other.bgpd,
            ospfd: self.ospfd || other.ospfd,
        }
    }

    /// What is not in this.
    pub fn others(self) -> FrrDaemons {
        FrrDaemons {
            bgpd: !self.bgpd,
            ospfd: !self.ospfd,
        }
    }
}

/// Which of the FRR daemons that wmgwd needs are running, and since which start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Process identity of bgpd (changes when it restarts), `None` while it is not running.
    pub bgpd: Option<u64>,
    /// The same for ospfd.
    pub ospfd: Option<u64>,
    /// The same for zebra.
    pub zebra: Option<u64>,
    /// Daemons that have a process which does not act, as after SIGSTOP: it changes nothing and goes on showing what
    /// it showed.
    pub stopped: FrrDaemons,
}

impl Health {
    /// The parts whose daemon runs.
    pub fn parts(&self) -> FrrDaemons {
        FrrDaemons {
            bgpd: self.bgpd.is_some(),
            ospfd: self.ospfd.is_some(),
        }
    }

    /// The parts whose daemon has no process, and so shows nothing.
    pub fn gone(&self) -> FrrDaemons {
        self.parts().or(self.stopped).others()
    }

    /// Whether all of them run.
    pub fn is_up(&self) -> bool {
        self.bgpd.is_some() && self.ospfd.is_some() && self.zebra.is_some()
    }
}
