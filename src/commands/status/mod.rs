//! What the cluster does, as etcd tells it: `wmgwd status`.
//!
//! Pure but for `look`, which reads: the keys as etcd has them (a [`Snapshot`]) become a [`Report`] (`analyse`),
//! which becomes lines for people (`show`) or JSON (`json`). Etcd knows revisions, not times; how long something
//! has been so is bounded by marks, at which a revision and a time were seen together (`since`). The proof of a node
//! is not in etcd: its guard knows it, and is asked if it is on this host.

mod analyse;
mod json;
pub mod look;
mod show;
mod since;
#[cfg(test)]
mod tests;

pub use analyse::report;
pub use json::{json, json_without_etcd};
pub use show::{Line, Screen, Tone, clip, complaint, guards, lines, paint, rows};
pub use since::{Marks, Since};

use crate::etcd::KeyValue;
use crate::guard::view::View;
use crate::model::fitness::Fitness;
use crate::model::types::{LeaseId, NodeName, Revision, Vni, VniRange};
use crate::schema::{Ipv6Hold, KernelHold};
use std::collections::BTreeMap;
use std::time::Duration;

/// A VNI that has moved, or been taken over, for longer than this is stuck.
pub const STUCK: Duration = Duration::from_secs(30);

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The revision of the store at which it was read.
    pub revision: Revision,
    /// Every key below the prefix.
    pub keys: Vec<KeyValue>,
    /// What is left of the leases of nodes; `None` where etcd does not have the lease any more, or would not say.
    pub leases: BTreeMap<LeaseId, Option<Duration>>,
    /// When it was read: seconds since 1970 (UTC).
    pub time: u64,
    /// The guards on this host.
    pub guards: Vec<Guard>,
}

/// A guard on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// The name of its node.
    pub node: String,
    /// The user that it runs as, if that is not the one who asks: any user may say that it is a guard.
    pub user: Option<u32>,
    /// What it says of itself, or why that is not known.
    pub view: Result<View, String>,
}

/// What the cluster does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The revision at which all of it was so.
    pub revision: Revision,
    /// When it was read: seconds since 1970 (UTC).
    pub time: u64,
    /// The registered nodes, by name.
    pub nodes: Vec<Node>,
    /// Those that serve nothing and are witnesses, by name.
    pub witnesses: Vec<NodeName>,
    /// The VNIs that should be served, and those whose rows name a node.
    pub vnis: Vec<VniReport>,
    /// The guards on this host.
    pub guards: Vec<Guard>,
    /// What an operator should know, each in one line.
    pub warnings: Vec<String>,
}

impl Report {
    /// Whether every VNI is served; `None` if it cannot be told which should be.
    pub fn all_served(&self) -> Option<bool> {
        (!self.vnis.is_empty()).then(|| self.vnis.iter().all(|vni| vni.state.is_served()))
    }

    /// These VNIs. One that no node is to serve, and whose row names none, is orphaned.
    pub fn pick(&self, vnis: &[Vni]) -> Vec<VniReport> {
        let at = |vni| self.vnis.binary_search_by_key(&vni, |report| report.vni);
        let unserved = |vni| VniReport {
            vni,
            state: VniState::Orphaned,
            row: "no gateway has it",
            owner: None,
            successor: None,
            ring_owner: None,
            since: None,
        };
        let one = |&vni: &Vni| at(vni).map_or_else(|_| unserved(vni), |at| self.vnis[at].clone());
        vnis.iter().map(one).collect()
    }

    /// The node of that name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// How it is.
    pub health: Health,
    /// Its version; `None` for a Go wmgwd, which says nothing of itself.
    pub version: Option<String>,
    /// The VNIs that it serves, if it says so.
    pub range: Option<VniRange>,
    /// How many points it has on the ring.
    pub points: usize,
    /// How many VNIs belong to it by the ring.
    pub share: usize,
    /// What is left of its lease.
    pub lease: Option<Duration>,
    /// Whether its kernel holds the lease, if it says so.
    pub kernel: Option<KernelHold>,
    /// What it has of IPv6, if it says so.
    pub ipv6: Option<Ipv6Hold>,
    /// How many VNIs it owns.
    pub owns: usize,
    /// How many VNIs are on their way to it.
    pub gains: usize,
    /// How many of those that it owns are on their way to another.
    pub loses: usize,
    /// How well it says that it can forward; `None` if it is of a version that does not say.
    pub fitness: Option<Fitness>,
    /// Who proves it beside its lease, by name, and its window; `None` if it has named no witness, ever.
    pub proof: Option<(Vec<NodeName>, Duration)>,
}

/// How a node is, as far as etcd can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It takes its share.
    Ok,
    /// An operator has taken it out, and it still has VNIs.
    Draining,
    /// An operator has taken it out, and it has no VNI any more.
    Drained,
    /// It has no points, and no operator asked for that: its FRR is down, or it is about to end.
    NoPoints,
    /// It cannot forward, or could not until a short time ago.
    Unfit,
    /// It cannot reach the networks above, or could not until a short time ago.
    NoUplink,
    /// Its key is attached to no lease: no node of either program writes such a one.
    NoLease,
}

impl Health {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Draining => "draining",
            Health::Drained => "drained",
            Health::NoPoints => "no points",
            Health::Unfit => "unfit",
            Health::NoUplink => "no uplink",
            Health::NoLease => "no lease",
        }
    }
}

/// One VNI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VniReport {
    /// Which.
    pub vni: Vni,
    /// Its state.
    pub state: VniState,
    /// The name that its row has for the state.
    pub row: &'static str,
    /// Who serves it.
    pub owner: Option<NodeName>,
    /// Who is about to.
    pub successor: Option<NodeName>,
    /// Whose it is by the ring.
    pub ring_owner: Option<NodeName>,
    /// Since when its row is as it is.
    pub since: Option<Since>,
}

/// What becomes of a VNI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum VniState {
    /// No node serves it, and none is about to.
    Orphaned,
    /// A node takes it over; no node serves it yet.
    FailingOver,
    /// The same, for longer than [`STUCK`].
    FailoverStuck,
    /// It moves, and is served all the while.
    Moving,
    /// The same, for longer than [`STUCK`].
    MoveStuck,
    /// Its owner serves it, but it belongs to another, which will pull it.
    Away,
    /// Its owner serves it.
    Served,
}

impl VniState {
    /// All of them, the worst first.
    pub const ALL: [VniState; 7] = [
        VniState::Orphaned,
        VniState::FailoverStuck,
        VniState::FailingOver,
        VniState::MoveStuck,
        VniState::Moving,
        VniState::Away,
        VniState::Served,
    ];

    /// In a word or two.
    pub fn word(self) -> &'static str {
        match self {
            VniState::Orphaned => "orphaned",
            VniState::FailingOver => "failing over",
            VniState::FailoverStuck => "failover stuck",
            VniState::Moving => "moving",
            VniState::MoveStuck => "move stuck",
            VniState::Away => "to move",
            VniState::Served => "served",
        }
    }

    /// Whether a node serves it.
    pub fn is_served(self) -> bool {
        matches!(
            self,
            VniState::Served | VniState::Away | VniState::Moving | VniState::MoveStuck
        )
    }
}
