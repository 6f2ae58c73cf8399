//! The state machine of one VNI. Pure: what a row in etcd means, what each role exposes in it, and which
//! row comes next.
//!
//! ```text
//!                 ring owner claims               taken
//!   unassigned ----------------------> failover -----------------------+
//!       ^  ^     (also from any row      (10)                          |
//!       |  |      without a live node)                                 v
//!       |  +---- claimer gives up ------+                            idle (1)
//!       |                                                              |
//!       |                              the ring owner is another node  |
//!       |                                                              v
//!   owner or successor died      successor: 3 -> 4, 5 -> 6, 7 -> 8, 9 -> 1
//!   (see `State::of`)            owner:     2 -> 3, 4 -> 5, 6 -> 7, 8 -> 9
//! ```
//!
//! A migration is make before break: at every moment at least one of the two gateways answers ARP and
//! forwards. Each row is written by the one node whose turn it is, after its host has reached what
//! [`wanted`] says for that row.

use crate::model::frr::Cost;
use crate::model::types::NodeName;

#[cfg(test)]
mod tests;

/// The number in `/wmgwd/vni/<vni>/type`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// 0, or no key.
    Unassigned,
    /// 1: the owner serves.
    Idle,
    /// 2 to 9: on the way from the owner to the successor.
    Migration(Phase),
    /// 10: the successor takes over a VNI that no node serves.
    Failover,
}

/// A step of a migration, named for what has been done when it is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// 2: the successor wants the VNI.
    Decided,
    /// 3: the owner agrees.
    Confirmed,
    /// 4: the successor advertises EVPN and OSPF.
    OspfAdvertised,
    /// 5: the owner has withdrawn OSPF.
    OspfWithdrawn,
    /// 6: the successor answers ARP.
    ArpEnabled,
    /// 7: the owner answers ARP no more.
    ArpDisabled,
    /// 8: the successor has announced itself.
    GratuitousArpSent,
    /// 9: the owner has withdrawn EVPN.
    EvpnWithdrawn,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Phase; 8] = [
        Phase::Decided,
        Phase::Confirmed,
        Phase::OspfAdvertised,
        Phase::OspfWithdrawn,
        Phase::ArpEnabled,
        Phase::ArpDisabled,
        Phase::GratuitousArpSent,
        Phase::EvpnWithdrawn,
    ];

    /// Who acts in this phase and writes the next row.
    pub fn turn(self) -> Role {
        match self {
            Phase::Decided
            | Phase::OspfAdvertised
            | Phase::ArpEnabled
            | Phase::GratuitousArpSent => Role::Owner,
            Phase::Confirmed | Phase::OspfWithdrawn | Phase::ArpDisabled | Phase::EvpnWithdrawn => {
                Role::Successor
            }
        }
    }

    /// What is written when the phase's work is done.
    pub fn next(self) -> Write {
        match self {
            Phase::Decided => Write::Advance(Phase::Confirmed),
            Phase::Confirmed => Write::Advance(Phase::OspfAdvertised),
            Phase::OspfAdvertised => Write::Advance(Phase::OspfWithdrawn),
            Phase::OspfWithdrawn => Write::Advance(Phase::ArpEnabled),
            Phase::ArpEnabled => Write::Advance(Phase::ArpDisabled),
            Phase::ArpDisabled => Write::Advance(Phase::GratuitousArpSent),
            Phase::GratuitousArpSent => Write::Advance(Phase::EvpnWithdrawn),
            Phase::EvpnWithdrawn => Write::Own,
        }
    }

    /// Whether the owner may have begun to turn traffic away from itself.
    pub fn relies_on_successor(self) -> bool {
        self > Phase::Confirmed
    }

    /// Whether what was done in this phase must have spread through the network before the next row:
    /// routes in 3 and 4, stations' ARP caches in 7.
    pub fn settles(self) -> bool {
        matches!(
            self,
            Phase::Confirmed | Phase::OspfAdvertised | Phase::ArpDisabled
        )
    }
}

impl Kind {
    /// The kind with this number in etcd.
    pub fn from_number(number: u64) -> Option<Kind> {
        match number {
            0 => Some(Kind::Unassigned),
            1 => Some(Kind::Idle),
            2..=9 => Phase::ALL
                .get(usize::try_from(number - 2).ok()?)
                .copied()
                .map(Kind::Migration),
            10 => Some(Kind::Failover),
            _ => None,
        }
    }

    /// The number of this kind in etcd.
    pub fn number(self) -> u8 {
        match self {
            Kind::Unassigned => 0,
            Kind::Idle => 1,
            Kind::Migration(phase) => 2 + phase as u8,
            Kind::Failover => 10,
        }
    }

    /// The name that the logs use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Unassigned => "unassigned",
            Kind::Idle => "idle",
            Kind::Migration(Phase::Decided) => "migration-decided",
            Kind::Migration(Phase::Confirmed) => "migration-confirmed",
            Kind::Migration(Phase::OspfAdvertised) => "migration-ospf-advertised",
            Kind::Migration(Phase::OspfWithdrawn) => "migration-ospf-withdrawn",
            Kind::Migration(Phase::ArpEnabled) => "migration-arp-enabled",
            Kind::Migration(Phase::ArpDisabled) => "migration-arp-disabled",
            Kind::Migration(Phase::GratuitousArpSent) => "migration-gratuitous-arp-sent",
            Kind::Migration(Phase::EvpnWithdrawn) => "migration-evpn-withdrawn",
            Kind::Failover => "failover-decided",
        }
    }
}

/// What a row means once the names that ended with their leases are gone from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// No node serves the VNI, and none is about to.
    Vacant,
    /// The owner serves it.
    Idle {
        /// Who serves.
        owner: NodeName,
    },
    /// The VNI moves between two live nodes.
    Migrating {
        /// How far it got.
        phase: Phase,
        /// Who serves until it has moved.
        owner: NodeName,
        /// Who will serve then.
        successor: NodeName,
    },
    /// A node takes over a VNI that no node serves.
    FailingOver {
        /// Who takes it.
        successor: NodeName,
    },
    /// The owner died in a migration; the successor may already expose part of the VNI.
    OwnerLost {
        /// How far the migration got.
        phase: Phase,
        /// Who was to take it.
        successor: NodeName,
    },
    /// The successor died in a migration.
    SuccessorLost {
        /// How far the migration got.
        phase: Phase,
        /// Who still owns the VNI.
        owner: NodeName,
    },
    /// Of an unknown kind, with a live node in it that may serve the VNI: left alone.
    Unknown,
}

impl State {
    /// The meaning of a row. `current` and `next` are `None` where the key is missing or empty, or where
    /// no live node can have written it.
    pub fn of(kind: Kind, current: Option<&NodeName>, next: Option<&NodeName>) -> State {
        match (kind, current, next) {
            (Kind::Unassigned, _, _) => State::Vacant,
            (Kind::Idle, Some(owner), _) => State::Idle {
                owner: owner.clone(),
            },
            (Kind::Idle, None, _) => State::Vacant,
            // Asked for under an etcd that went back meanwhile: the successor had become the owner before.
            (Kind::Migration(phase), Some(owner), Some(successor)) if owner == successor => {
                State::SuccessorLost {
                    phase,
                    owner: owner.clone(),
                }
            }
            (Kind::Migration(phase), Some(owner), Some(successor)) => State::Migrating {
                phase,
                owner: owner.clone(),
                successor: successor.clone(),
            },
            (Kind::Migration(phase), None, Some(successor)) => State::OwnerLost {
                phase,
                successor: successor.clone(),
            },
            (Kind::Migration(phase), Some(owner), None) => State::SuccessorLost {
                phase,
                owner: owner.clone(),
            },
            (Kind::Migration(_), None, None) => State::Vacant,
            (Kind::Failover, _, Some(successor)) => State::FailingOver {
                successor: successor.clone(),
            },
            (Kind::Failover, _, None) => State::Vacant,
        }
    }

    /// The part that `me` has in this state.
    pub fn role(&self, me: &NodeName) -> Role {
        let (owner, successor) = match self {
            State::Vacant | State::Unknown => (None, None),
            State::Idle { owner } | State::SuccessorLost { owner, .. } => (Some(owner), None),
            State::Migrating {
                owner, successor, ..
            } => (Some(owner), Some(successor)),
            State::FailingOver { successor } | State::OwnerLost { successor, .. } => {
                (None, Some(successor))
            }
        };
        if owner == Some(me) {
            Role::Owner
        } else if successor == Some(me) {
            Role::Successor
        } else {
            Role::Bystander
        }
    }
}

/// The part that a node has in a VNI's state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Named by `current`.
    Owner,
    /// Named by `next`.
    Successor,
    /// Not named.
    Bystander,
}

/// What a node shows of a VNI to the network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Exposure {
    /// `br<VNI>` answers ARP requests.
    pub arp: bool,
    /// The EVPN type-2 and type-5 routes are advertised.
    pub evpn: bool,
    /// The OSPF cost of `br<VNI>`.
    pub cost: Cost,
}

impl Exposure {
    /// What a node shows of a VNI that is not its own.
    pub const NOTHING: Exposure = Exposure {
        arp: false,
        evpn: false,
        cost: Cost::OTHERS,
    };
    /// What the owner shows.
    pub const ALL: Exposure = Exposure {
        arp: true,
        evpn: true,
        cost: Cost::OWNER,
    };
    const ROUTES: Exposure = Exposure {
        arp: false,
        evpn: true,
        cost: Cost::OWNER,
    };
    const EVPN: Exposure = Exposure {
        arp: false,
        evpn: true,
        cost: Cost::OTHERS,
    };
    const EVPN_AND_ARP: Exposure = Exposure {
        arp: true,
        evpn: true,
        cost: Cost::OTHERS,
    };
}

/// What a node with a valid lease shows of a VNI in `state`, in its `role`.
pub fn wanted(state: &State, role: Role) -> Exposure {
    use Phase::*;
    match (state, role) {
        (_, Role::Bystander) | (State::Vacant | State::Unknown, _) => Exposure::NOTHING,
        (State::Idle { .. } | State::FailingOver { .. }, _) => Exposure::ALL,
        // The survivor of a broken migration stays as it is until the row says that the VNI is its own.
        (State::Migrating { phase, .. } | State::SuccessorLost { phase, .. }, Role::Owner) => {
            match phase {
                Decided | Confirmed => Exposure::ALL,
                OspfAdvertised | OspfWithdrawn => Exposure::EVPN_AND_ARP,
                ArpEnabled | ArpDisabled => Exposure::EVPN,
                GratuitousArpSent | EvpnWithdrawn => Exposure::NOTHING,
            }
        }
        (State::Migrating { phase, .. } | State::OwnerLost { phase, .. }, Role::Successor) => {
            match phase {
                Decided => Exposure::NOTHING,
                Confirmed | OspfAdvertised => Exposure::ROUTES,
                OspfWithdrawn | ArpEnabled | ArpDisabled | GratuitousArpSent | EvpnWithdrawn => {
                    Exposure::ALL
                }
            }
        }
        (State::OwnerLost { .. }, Role::Owner) | (State::SuccessorLost { .. }, Role::Successor) => {
            Exposure::NOTHING
        }
    }
}

/// Whether the node may tell stations that the VNI's gateway address is at its own MAC address: only once
/// no other node answers for it.
pub fn announces(state: &State, role: Role) -> bool {
    match (state, role) {
        (State::Idle { .. }, Role::Owner) | (State::FailingOver { .. }, Role::Successor) => true,
        (State::Migrating { phase, .. }, Role::Successor) => *phase >= Phase::ArpDisabled,
        _ => false,
    }
}

/// A row as the log, the counters and `wmgwd status` show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowView<'a> {
    /// `type`.
    pub kind: Kind,
    /// `current`.
    pub owner: Option<&'a NodeName>,
    /// `next`.
    pub successor: Option<&'a NodeName>,
}

/// A new row, always written under the condition that the row is still the one it was decided on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Write {
    /// `type=0, current="", next=""`: the claimer or the owner gives the VNI back, or no live node is in the row.
    Vacate,
    /// `type=10, current="", next=me`: take a VNI that no node serves.
    Claim,
    /// `type=2, next=me`: ask the owner for its VNI.
    Pull,
    /// `type=3..9`: the work of this phase is done.
    Advance(Phase),
    /// `type=1, current=me, next=""`: the VNI is served here.
    Own,
    /// `type=1, next=""`: the successor gives up; the owner goes on.
    Cancel,
}

impl Write {
    /// The kind of the row that is written.
    pub fn kind(self) -> Kind {
        match self {
            Write::Vacate => Kind::Unassigned,
            Write::Claim => Kind::Failover,
            Write::Pull => Kind::Migration(Phase::Decided),
            Write::Advance(phase) => Kind::Migration(phase),
            Write::Own | Write::Cancel => Kind::Idle,
        }
    }
}

/// What a node knows, besides the row, when it decides on the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// The ring gives the VNI to this node, and this node may take VNIs (not draining, FRR is there).
    pub ours: bool,
    /// This node may take the VNI from its living owner: it is stable, and can serve the VNI.
    pub may_pull: bool,
    /// The host shows what [`wanted`] says, and has done so for as long as the phase settles.
    pub reached: bool,
    /// This node gives the VNI up: its host fails to show it, and the row can do without this node.
    pub gives_up: bool,
    /// We have withdrawn the VNI wholly, to give it back.
    pub withdrawn: bool,
    /// A node whose name is gone from the row has had the time to hear of that, should it live.
    pub let_go: bool,
    /// The other node of a broken migration has had its time to repair it and has not: it is a Go wmgwd
    /// (which leaves that to the ring owner).
    pub other_is_idle: bool,
}

/// The next row that `role` is to write in `state`, if it is its turn.
pub fn propose(state: &State, role: Role, view: &View) -> Option<Write> {
    let gives_back = view.gives_up && view.withdrawn;
    // A successor that cannot serve lets the owner go on.
    let cancels = role == Role::Successor && gives_back;
    match (state, role) {
        (State::Unknown, _) => None,
        (State::Vacant, _) => view.ours.then_some(Write::Claim),
        (State::Idle { .. }, Role::Owner) => gives_back.then_some(Write::Vacate),
        (State::Idle { .. }, _) => (view.ours && view.may_pull).then_some(Write::Pull),
        (State::Migrating { phase, .. }, _) if phase.turn() == role => {
            if view.reached {
                Some(phase.next())
            } else {
                cancels.then_some(Write::Cancel)
            }
        }
        (State::Migrating { .. }, _) => cancels.then_some(Write::Cancel),
        (State::FailingOver { .. }, Role::Successor) => {
            if view.reached {
                Some(Write::Own)
            } else {
                gives_back.then_some(Write::Vacate)
            }
        }
        (State::FailingOver { .. }, _) => None,
        (State::OwnerLost { .. }, Role::Successor) => view.let_go.then_some(Write::Claim),
        (State::OwnerLost { .. }, _) => (view.ours && view.other_is_idle).then_some(Write::Vacate),
        (State::SuccessorLost { .. }, Role::Owner) => view.let_go.then_some(Write::Own),
        // The owner lives, so this node must not reset the VNI: it asks the owner again.
        (State::SuccessorLost { .. }, _) => {
            (view.ours && view.other_is_idle).then_some(Write::Pull)
        }
    }
}

/// Whether a successor that has withdrawn may make the row idle again. An owner that runs this program then serves
/// wholly, however far the migration got. A Go owner does not undo what it did: it goes on answering ARP until phase 6,
/// but with the worst OSPF cost from phase 4 on. There it is sent back only if another node, `elsewhere`, asks
/// for the VNI then.
pub fn can_cancel(phase: Phase, owner_follows: bool, elsewhere: bool) -> bool {
    let last = if elsewhere {
        Phase::OspfWithdrawn
    } else {
        Phase::Confirmed
    };
    owner_follows || phase <= last
}
