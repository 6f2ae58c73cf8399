//! The decision on one VNI: from what etcd, the ring and the host say of it to what the host is to show and which row
//! to write next. Predicates have no effect; `decide` schedules every wake-up.

use super::Config;
use super::ability::Capability;
use super::mirror::{Mirror, Row};
use super::routes::Routes;
use super::schedule::Wake;
use super::vni::VniState;
use super::vni_table::{NodeView, VniStatus};
use crate::model::frr::{Cost, RouteChange};
use crate::model::fsm::{self, Exposure, Role, State, View, Write};
use crate::model::types::{Time, Vni};
use crate::schema::Commit;
use std::ops::Deref;
use std::time::Duration;

/// A node gives a VNI up after its host has failed to apply it for this long.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// After this long the owner hands over although FRR has not confirmed the withdrawal. An FRR that has not answered for
/// so long is stopped or overloaded, and sends few new routes.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the ring owner waits for a Go wmgwd to repair a broken migration.
const REPAIR_PATIENCE: Duration = Duration::from_secs(5);

/// What decisions on VNIs are made from, the same for all VNIs of one pass.
pub struct Context<'a> {
    pub now: Time,
    pub node: &'a NodeView,
    pub config: &'a Config,
    pub mirror: &'a Mirror,
    pub routes: &'a Routes,
    /// When the next announcement may be sent.
    pub next_announcement: Time,
}

impl Deref for Context<'_> {
    type Target = NodeView;

    fn deref(&self) -> &NodeView {
        self.node
    }
}

/// What is to be done about one VNI.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// What was found of the VNI.
    pub status: VniStatus,
    /// Switch ARP so.
    pub arp: Option<bool>,
    /// Change FRR so.
    pub routes: Option<RouteChange>,
    /// The routes claim a VNI that no gateway serves.
    pub is_rescue: bool,
    /// Make this part of a change ahead of FRR, which is busy.
    pub hastened: Option<RouteChange>,
    /// Send gratuitous ARP, which has been due since then.
    pub announce: Option<Time>,
    /// Write this row.
    pub row: Option<Commit>,
    /// FRR has begun to refuse the VNI: perhaps it refuses all.
    pub suspects_frr: bool,
}

/// The VNI that is decided on, as etcd has it.
struct Case<'a> {
    vni: Vni,
    row: &'a Row,
    state: State,
    role: Role,
    /// The ring gives the VNI to this node.
    is_ours: bool,
    /// The ring gives the VNI to another node.
    is_elsewhere: bool,
    /// This node cannot forward, and the node to which the ring gives the VNI can.
    is_outranked: bool,
}

impl Case<'_> {
    fn is_failing_over(&self) -> bool {
        matches!(self.state, State::FailingOver { .. })
    }
}

impl Decision {
    fn has_something_to_do(&self) -> bool {
        let host = self.arp.is_some() || self.routes.is_some() || self.announce.is_some();
        host || self.row.is_some()
    }
}

impl Context<'_> {
    /// Decides on one VNI, of which this node has `local`.
    pub fn decide(&self, vni: Vni, row: &Row, local: &mut VniState) -> Decision {
        let state = row.state(&self.config.me, self.lease, self.mirror.nodes());
        let role = match self.lease {
            Some(_) => state.role(&self.config.me),
            None => Role::Bystander,
        };
        let (me, nodes) = (&self.config.me, self.mirror.nodes());
        let ring_owner = self.mirror.ring().owner(vni);
        let case = Case {
            vni,
            row,
            state,
            role,
            is_ours: ring_owner == Some(me),
            is_elsewhere: ring_owner.is_some_and(|owner| owner != me),
            is_outranked: self.gives_way
                && ring_owner.is_some_and(|owner| nodes.outranks(owner, me)),
        };
        let mut wake = Wake::after(self.now);
        let mut decision = Decision::default();
        decision.status.remaining = role != Role::Bystander && case.is_elsewhere;
        decision.suspects_frr = self.weigh_giving_up(&case, local);
        let wanted = self.wanted(&case, local, &mut wake);
        self.decide_host(&case, local, wanted, &mut decision, &mut wake);
        self.decide_announcement(&case, local, wanted, &mut decision, &mut wake);
        decision.row = self.write(&case, local, wanted, &mut wake);
        let write = decision.row.as_ref().map(|row| row.write);
        if write == Some(Write::Vacate) && role == Role::Owner {
            local.start_vacating();
        }
        // The watch may pause only while this node has rows of a takeover to write. A node that waits for its host
        // while the watch is paused would not see that its own lease was revoked.
        let takes = case.is_failing_over() && write == Some(Write::Own);
        decision.status.taken = takes || write == Some(Write::Claim);
        decision.status.pending |= decision.has_something_to_do();
        decision.status.wake = wake.earliest();
        decision
    }

    /// Notes whether the host fails and whether the node gives the VNI up. Returns whether FRR has begun to refuse the
    /// VNI.
    fn weigh_giving_up(&self, case: &Case, local: &mut VniState) -> bool {
        let Case { state, role, .. } = case;
        let failing = self.fails_for(local, PATIENCE);
        let is_concerned = self.serving && !self.stopping && *role != Role::Bystander;
        let suspects_frr = failing && is_concerned && local.note_failure(self.now);

        let absent = local.capability() == Capability::Absent;
        let elsewhere = case.is_elsewhere;
        let must_leave = case.is_outranked || local.is_vacating();
        let may_give_up = match state {
            // An owner without a bridge, or without its links, serves no station: another node may take the VNI at
            // once. An owner that has sent `Write::Vacate` must not serve again before it knows the outcome: etcd may
            // have written it, and another node may serve the VNI by now.
            State::Idle { .. } => *role == Role::Owner && (absent || must_leave),
            State::Migrating { phase, owner, .. } => {
                let owner_follows = self.mirror.nodes().runs_this_program(owner);
                *role == Role::Successor && fsm::can_cancel(*phase, owner_follows, elsewhere)
            }
            State::FailingOver { .. } => *role == Role::Successor && (elsewhere || absent),
            _ => false,
        };
        // From phase 4 on the owner has the worst OSPF cost and relies on the successor. A successor that drains then
        // completes the migration, and hands the VNI on as its owner.
        let may_turn_back =
            matches!(state, State::Migrating { phase, .. } if !phase.relies_on_successor());
        let is_unable = absent || failing || must_leave;
        let is_reason = is_unable || (self.draining && may_turn_back);
        local.give_up(may_give_up && (local.is_giving_up() || is_reason));
        suspects_frr
    }

    /// See [`VniState::former_are_silent_at`].
    fn former_are_silent_at(&self, local: &VniState) -> Time {
        local.former_are_silent_at(self.mirror.nodes(), self.uniform)
    }

    /// What the host is to show.
    fn wanted(&self, case: &Case, local: &VniState, wake: &mut Wake) -> Exposure {
        let former_are_silent_at = self.former_are_silent_at(local);
        let waits = matches!(
            case.state,
            State::FailingOver { .. } | State::OwnerLost { .. } | State::SuccessorLost { .. }
        );
        if waits {
            wake.wake_at(former_are_silent_at);
        }
        let too_early = case.is_failing_over() && former_are_silent_at > self.now;
        if !self.serving || self.stopping || local.is_giving_up() || too_early {
            return Exposure::NOTHING;
        }
        let wanted = fsm::wanted(&case.state, case.role);
        let takeover_cost_until = self.takeover_cost_until(local, wanted);
        wake.wake_at_any(takeover_cost_until);
        match takeover_cost_until.is_some_and(|until| until > self.now) {
            true => Exposure {
                cost: self.config.takeover_cost,
                ..wanted
            },
            false => wanted,
        }
    }

    /// Until when the owner's cost is lower after a failover, if the operator wants that.
    fn takeover_cost_until(&self, local: &VniState, wanted: Exposure) -> Option<Time> {
        let is_owner = wanted.cost == Cost::OWNER;
        (is_owner && self.config.takeover_cost != Cost::OWNER)
            .then_some(local.takeover_cost_until())
    }

    /// What the host has to change to show `wanted`, and what it shows now.
    fn decide_host(
        &self,
        case: &Case,
        local: &mut VniState,
        wanted: Exposure,
        decision: &mut Decision,
        wake: &mut Wake,
    ) {
        let switch_at = local.arp().switch_at(wanted.arp);
        match switch_at {
            None => local.arp_mut().ask(wanted.arp),
            Some(at) if wake.is_due_or_wake(at) => {
                local.arp_mut().ask(wanted.arp);
                decision.arp = Some(wanted.arp);
            }
            Some(_) => {}
        }
        match local.route_change(case.vni, wanted) {
            None if switch_at.is_none() => local.end_failure(),
            None => {}
            Some(change) => self.decide_routes(case, change, local, decision, wake),
        }
        let status = &mut decision.status;
        status.shown = wanted != Exposure::NOTHING;
        status.exposed = !self.is_withdrawn(local);
        status.lingering = !self.routes_are_gone(local, Exposure::NOTHING);
        if let Some(since) = local.failing_since() {
            wake.wake_at(since + RELEASE_PATIENCE);
            wake.wake_at(since + PATIENCE);
        }
        wake.wake_at_any(local.recover(self.now, wanted));
        status.capability = local.capability();
    }

    fn decide_routes(
        &self,
        case: &Case,
        change: RouteChange,
        local: &mut VniState,
        decision: &mut Decision,
        wake: &mut Wake,
    ) {
        let Some(change) = self.routes.askable(change) else {
            return;
        };
        if !wake.is_due_or_wake(local.routes_retry_at()) {
            return;
        }
        if self.routes.is_idle() {
            decision.routes = Some(change);
            decision.is_rescue = case.is_failing_over();
        } else {
            decision.status.pending = true;
            decision.hastened = self.hastened(change, local);
        }
    }

    /// The part of a change that need not wait for FRR. A VNI that FRR refuses is not announced without its EVPN
    /// routes.
    fn hastened(&self, change: RouteChange, local: &mut VniState) -> Option<RouteChange> {
        let cost = change.cost.filter(|_| self.config.announces_itself)?;
        let upstream = RouteChange {
            evpn: None,
            ..change
        };
        let is_refused = upstream.claims() && local.is_refused_by_frr();
        let may = self.routes.may_hasten(upstream) && !is_refused;
        (may && local.hasten(cost)).then_some(upstream)
    }

    fn decide_announcement(
        &self,
        case: &Case,
        local: &mut VniState,
        wanted: Exposure,
        decision: &mut Decision,
        wake: &mut Wake,
    ) {
        let answers = wanted.arp && local.arp().answers() == Some(true);
        if !answers || !fsm::announces(&case.state, case.role) {
            local.arp_mut().stop_announcing();
            return;
        }
        match local.arp_mut().keep_announcing(self.now) {
            None => decision.status.refreshed = true,
            Some(due) if wake.is_due_or_wake(due.max(self.next_announcement)) => {
                decision.announce = Some(due);
            }
            Some(_) => {}
        }
    }

    /// The row that is to be written next.
    fn write(
        &self,
        case: &Case,
        local: &VniState,
        wanted: Exposure,
        wake: &mut Wake,
    ) -> Option<Commit> {
        if !self.may_write || !wake.is_due_or_wake(local.write_at()) {
            return None;
        }
        let Case { vni, row, .. } = *case;
        let view = self.view(case, local, wanted, wake);
        let mut write = fsm::propose(&case.state, case.role, &view);
        if write.is_none() && row.is_spoiled() {
            let repair = self.repair(case, local);
            write = repair.and_then(|(write, at)| wake.is_due_or_wake(at).then_some(write));
        }
        Some(Commit {
            vni,
            read: row.revision(),
            write: write?,
            has_current: row.has_current(),
            alone: local.is_written_alone(),
        })
    }

    /// What the next row depends on. Schedules a look at the VNI when that changes with time.
    fn view(&self, case: &Case, local: &VniState, wanted: Exposure, wake: &mut Wake) -> View {
        let reached_at = self.reached_at(case, local, wanted);
        let reached = reached_at.is_some_and(|at| wake.is_due_or_wake(at));
        let repair_is_overdue_at = self.repair_is_overdue_at(case, local);
        View {
            ours: self.may_take
                && case.is_ours
                && self.ring_knows(case.vni, local)
                && wake.is_due_or_wake(self.free_at(case, local)),
            may_pull: self.may_pull(case, local),
            reached,
            gives_up: local.is_giving_up(),
            withdrawn: self.has_left(case, local),
            former_is_silent: self.former_are_silent_at(local) <= self.now,
            repair_is_overdue: repair_is_overdue_at.is_some_and(|at| wake.is_due_or_wake(at)),
        }
    }

    /// Whether this node shows so little of the VNI that another node may take it: its bridge is silent, and FRR has
    /// withdrawn the routes. A node that cannot forward need not wait for FRR: the packets that its routes draw are
    /// lost in any case.
    fn has_left(&self, case: &Case, local: &VniState) -> bool {
        let draws_nothing = case.is_outranked || local.is_vacating();
        let is_silent = local.arp().answers() == Some(false);
        (is_silent && draws_nothing) || self.is_withdrawn(local)
    }

    fn may_pull(&self, case: &Case, local: &VniState) -> bool {
        let State::Idle { owner } = &case.state else {
            return false;
        };
        // An owner that left the ring wants to be rid of its VNIs now.
        let in_ring = self.mirror.ring().has(owner);
        let may_ask = self.stable || !in_ring;
        // An owner that cannot forward gives the VNI back by itself. If it can forward again, it publishes that soon.
        // In both cases this node waits. A node that cannot forward pulls no VNI that another node serves.
        let is_outranked = self.mirror.nodes().outranks(&self.config.me, owner);
        if in_ring && (!self.is_fit || is_outranked) {
            return false;
        }
        // An owner without a bridge serves no station, and gives the VNI back: claiming it takes less time.
        let gives_back = self.mirror.nodes().is_without_bridge(owner, case.vni);
        may_ask && !gives_back && local.capability() == Capability::Able
    }

    /// Whether the capabilities that this node has published are those that it has. If not, its view of the ring is
    /// stale, and the node must not act on it.
    fn ring_knows(&self, vni: Vni, local: &VniState) -> bool {
        let published = self
            .lease
            .and_then(|lease| self.mirror.nodes().unable(&self.config.me, lease));
        match local.capability() {
            Capability::Able => true,
            Capability::Failing => published.is_some_and(|it| it.failing.contains(vni)),
            Capability::Absent => false,
        }
    }

    /// The write that repairs a row which another program made unreadable or deleted in part, and when this node may
    /// send it.
    fn repair(&self, case: &Case, local: &VniState) -> Option<(Write, Time)> {
        let at_once = |write| Some((write, Time::default()));
        match &case.state {
            // The owner writes the phase that it knows. If the successor was further, it repeats its part.
            State::Migrating { phase, .. } if case.role == Role::Owner => {
                let lost = case.row.has_unreadable_kind();
                at_once(Write::Advance(*phase)).filter(|_| lost)
            }
            // No node knows what the row held. Its owner begins anew once the other nodes have withdrawn, too.
            State::Unknown if case.row.is_owned_by(&self.config.me, self.lease) => {
                Some((Write::Own, local.entered() + self.config.max_lease_life))
            }
            _ => at_once(Write::Own).filter(|_| case.role == Role::Owner),
        }
    }

    /// When this node may claim a row that seems to name no node.
    /// - An unreadable row may have an owner that only other nodes remember. A live owner repairs the row; the lease of
    ///   a dead one ends. This node waits for either.
    /// - A row that has just lost its owner is claimed at once; this node shows the VNI later (see
    ///   [`VniState::former_are_silent_at`]).
    /// - Beside a Go wmgwd this node waits that long before it claims: a Go wmgwd would write over the claim without
    ///   having read it.
    fn free_at(&self, case: &Case, local: &VniState) -> Time {
        match case.state {
            State::Vacant if case.row.is_spoiled() => local.entered() + self.config.max_lease_life,
            State::Vacant if !self.uniform => self.former_are_silent_at(local),
            _ => Time::default(),
        }
    }

    /// When the other node of a broken migration has had its time to repair it, if that is a Go wmgwd.
    fn repair_is_overdue_at(&self, case: &Case, local: &VniState) -> Option<Time> {
        let other = match &case.state {
            State::OwnerLost { successor, .. } => successor,
            State::SuccessorLost { owner, .. } => owner,
            _ => return None,
        };
        let follows = self.mirror.nodes().runs_this_program(other);
        (!follows).then_some(local.entered() + REPAIR_PATIENCE)
    }

    /// Whether the bridge is silent and FRR shows nothing of the VNI, or cannot be brought to.
    fn is_withdrawn(&self, local: &VniState) -> bool {
        local.arp().answers() == Some(false) && self.has_released(local, Exposure::NOTHING)
    }

    /// Whether the host has failed to do what it was told for `patience`, by VNI or as a whole.
    fn fails_for(&self, local: &VniState, patience: Duration) -> bool {
        [local.failing_since(), self.routes.failing_since()]
            .into_iter()
            .flatten()
            .any(|since| self.now.since(since) >= patience)
    }

    /// Whether FRR shows `wanted`, or has failed for so long that the node no longer waits for it: an FRR that does not
    /// answer must not keep a node from handing a VNI over. If one daemon (bgpd or ospfd) is down, only the other
    /// counts.
    fn has_released(&self, local: &VniState, wanted: Exposure) -> bool {
        let is_known_to_fail =
            local.capability() == Capability::Failing && local.is_refused_by_frr();
        is_known_to_fail
            || self.fails_for(local, RELEASE_PATIENCE)
            || self.routes_are_gone(local, wanted)
    }

    /// Whether the bridge is not there, or has refused to answer for a while.
    fn cannot_answer(&self, local: &VniState) -> bool {
        let is_known_to_fail = local.capability() == Capability::Failing;
        let for_a_while = is_known_to_fail || self.fails_for(local, RELEASE_PATIENCE);
        let refused = local.arp().refuses_to_answer() && for_a_while;
        local.capability() == Capability::Absent || refused
    }

    /// Whether FRR shows `wanted`, or the daemon that does not has no process and shows nothing at all.
    fn routes_are_gone(&self, local: &VniState, wanted: Exposure) -> bool {
        local.routes_are_beside(wanted, self.routes.gone())
    }

    /// When the host has shown what is wanted for as long as the phase settles; `None` while it does not show it.
    fn reached_at(&self, case: &Case, local: &VniState, wanted: Exposure) -> Option<Time> {
        if local.is_giving_up() {
            return None;
        }
        let at_once = Some(Time::default());
        if self.must_go_on(case, local) {
            return at_once;
        }
        let releases = case.role == Role::Owner;
        let routes = local.routes_are(wanted) || (releases && self.has_released(local, wanted));
        // An owner whose bridge is gone, or cannot be made to answer, serves no station: the migration goes on without
        // its ARP. An owner whose bridge cannot be silenced holds the migration up: both would answer.
        let cannot_answer = releases && wanted.arp && self.cannot_answer(local);
        let arp = local.arp().answers() == Some(wanted.arp) || cannot_answer;
        if !arp || !routes {
            return None;
        }
        let announced = local.arp().announced_since(local.entered());
        let settled_from = match &case.state {
            State::Migrating {
                phase: fsm::Phase::ArpDisabled,
                ..
            } if case.role == Role::Successor => announced,
            State::FailingOver { .. } => return announced.and(at_once),
            State::Migrating { phase, .. } if phase.settles() => Some(local.routes_at()),
            _ => return at_once,
        };
        // Make before break preserves nothing if the owner cannot forward.
        let settle = match &case.state {
            State::Migrating {
                owner, successor, ..
            } if self.mirror.nodes().outranks(successor, owner) => Duration::ZERO,
            _ => self.config.settle,
        };
        settled_from.map(|from| from + settle)
    }

    /// Whether a successor must complete the migration although it cannot serve the VNI. A Go owner that has silenced
    /// its bridge does not answer again, even if the successor cancels. So the successor becomes the owner, and then
    /// gives the VNI back.
    fn must_go_on(&self, case: &Case, local: &VniState) -> bool {
        let State::Migrating { phase, owner, .. } = &case.state else {
            return false;
        };
        let is_too_late =
            *phase > fsm::Phase::OspfWithdrawn && !self.mirror.nodes().runs_this_program(owner);
        let absent = local.capability() == Capability::Absent;
        let cannot_serve = absent || self.fails_for(local, PATIENCE);
        case.role == Role::Successor && is_too_late && cannot_serve
    }
}
