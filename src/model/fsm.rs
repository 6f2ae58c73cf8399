//! The state machine of one VNI. Pure: what a row in etcd means, what each role exposes in it, and which
//! row comes next.
//!
//! ```text
//!                   ring owner claims               successor serves
//!   unassigned (0) -------------------> failover (10) -------------> idle (1)
//!      ^   ^                             |      ^                     |  |  ^
//!      |   +----- successor gives up ----+      |                     |  |  | 9 -> 1, or the successor
//!      |                                        | owner died          |  |  | cancels or died
//!      +------- owner gives the VNI back -------|---------------------+  |  |
//!                                               |                        v  |
//!                                               +------------ migration (2 to 9)
//! ```
//!
//! A row that names no live node counts as unassigned, whatever its number. A migration begins when the ring owner
//! is another node than the owner: the ring owner writes 2. Then the owner writes 2 -> 3, 4 -> 5, 6 -> 7 and
//! 8 -> 9, and the successor writes 3 -> 4, 5 -> 6, 7 -> 8 and 9 -> 1.
//!
//! A migration is make before break: at every moment at least one of the two gateways answers ARP and forwards. The
//! node whose turn it is first brings its host to what [`wanted`] says for the present row. Then it writes the next
//! row.

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

    /// Whether the owner may have set the worst OSPF cost: from phase 4 on. From then on it needs the successor to
    /// forward the traffic from upstream.
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
    /// `type` cannot be read, and the row names a live node that may serve the VNI. Each node withdraws the VNI, and no
    /// node claims it.
    Unknown,
}

impl State {
    /// The meaning of a row. `current` and `next` are `None` if the key is missing or empty, or if its node is not
    /// alive.
    pub fn of(kind: Kind, current: Option<&NodeName>, next: Option<&NodeName>) -> State {
        match (kind, current, next) {
            (Kind::Unassigned, _, _) => State::Vacant,
            (Kind::Idle, Some(owner), _) => State::Idle {
                owner: owner.clone(),
            },
            (Kind::Idle, None, _) => State::Vacant,
            // etcd was set back between the read and the write of a pull. In the older row, the node that pulled was
            // the owner already.
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
        // A migration is broken if one of its two nodes has lost its lease. The other node shows the same as before
        // until the row names it as the owner.
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

/// A new row. etcd takes it only if the row has not changed since the node that writes it read it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Write {
    /// `type=0, current="", next=""`: the owner, or the successor of a failover, gives the VNI back. Or the ring owner
    /// resets a migration that lost its owner and that the successor, a Go wmgwd, has not repaired.
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
    /// This node may take the VNI from its living owner: it has been in the ring for long enough, and can serve the
    /// VNI.
    pub may_pull: bool,
    /// The host shows what [`wanted`] says. If the phase settles, the settle time is over, too.
    pub reached: bool,
    /// This node gives the VNI up: it cannot or must not serve it, and the row lets it leave.
    pub gives_up: bool,
    /// This node shows so little of the VNI that another node may take it.
    pub withdrawn: bool,
    /// The row lost the name of a node. If that node is alive, it has had the time to learn of the loss.
    pub former_is_silent: bool,
    /// The other node of a broken migration is a Go wmgwd, and the time for its repair is over. A Go wmgwd leaves the
    /// repair to the ring owner.
    pub repair_is_overdue: bool,
}

/// The next row that `role` is to write in `state`, if it is its turn.
pub fn propose(state: &State, role: Role, view: &View) -> Option<Write> {
    let gives_back = view.gives_up && view.withdrawn;
    // A successor that cannot serve cancels the migration, and the owner keeps the VNI.
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
        (State::OwnerLost { .. }, Role::Successor) => view.former_is_silent.then_some(Write::Claim),
        (State::OwnerLost { .. }, _) => {
            (view.ours && view.repair_is_overdue).then_some(Write::Vacate)
        }
        (State::SuccessorLost { .. }, Role::Owner) => view.former_is_silent.then_some(Write::Own),
        // The owner lives, so this node must not reset the VNI: it asks the owner again.
        (State::SuccessorLost { .. }, _) => {
            (view.ours && view.repair_is_overdue).then_some(Write::Pull)
        }
    }
}

/// Whether a successor that has withdrawn may cancel the migration, which makes the row idle. With `owner_follows` the
/// owner runs this program: it shows all again, whatever the phase was. A Go owner does not undo what it did. It
/// answers ARP up to phase 6, and has the worst OSPF cost from phase 4 on. In the phases 4 and 5 the successor
/// therefore cancels only if the ring gives the VNI to another node (`elsewhere`), which then pulls it.
pub fn can_cancel(phase: Phase, owner_follows: bool, elsewhere: bool) -> bool {
    let last = if elsewhere {
        Phase::OspfWithdrawn
    } else {
        Phase::Confirmed
    };
    owner_follows || phase <= last
}
