//! The decision on one VNI: from what etcd, the ring and the host say of it to what the host is to show and which row
//! to write next. Predicates have no effect; `decide` schedules every wake-up.

use super::Config;
use super::ability::Capability;
use super::mirror::{Mirror, Row};
use super::plan::Batch;
use super::routes::{Routes, RoutesView};
use super::slot::Slot;
use crate::model::frr::Cost;
use crate::model::fsm::{self, Exposure, Role, State, View, Write};
use crate::model::types::{LeaseId, Time, Vni};
use crate::schema::Commit;
use std::ops::Deref;
use std::time::Duration;

/// A node gives a VNI up after its host has failed to apply it for this long.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// After a row loses the name of an owner or a successor, this node waits this long before it shows more of the VNI.
/// The former holder may be alive: etcd may end a lease that its holder has renewed (a leader that was stopped and
/// goes on does so, seen with 3.4.23), and then the holder withdraws when it hears of that. A Go wmgwd may write 0
/// over a broken migration although the owner is alive, which hears of that when this node does.
const LET_GO: Duration = Duration::from_millis(100);
/// How long the ring owner waits for a Go wmgwd to mend a broken migration.
const MEND_PATIENCE: Duration = Duration::from_secs(5);

/// After this long the owner hands over although FRR has not confirmed the withdrawal: it cannot advertise much then.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// What holds for all VNIs and changes seldom. While this and the set of nodes stay the same, only VNIs that have
/// changed or are due need a new decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    pub lease: Option<LeaseId>,
    pub serving: bool,
    pub stopping: bool,
    pub draining: bool,
    pub may_write: bool,
    pub may_take: bool,
    pub stable: bool,
    /// No Go wmgwd is registered.
    pub uniform: bool,
    pub routes: RoutesView,
    /// Nothing is known to keep this node from forwarding, nor was in the last time.
    pub is_fit: bool,
    /// This node cannot forward, and another can: it gives its VNIs back.
    pub gives_way: bool,
}

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

impl Context<'_> {
    /// Decides on one VNI. What is to be done goes into `batch`.
    pub fn decide(&self, batch: &mut Batch, vni: Vni, row: &Row, slot: &mut Slot) {
        let now = self.now;
        let me = &self.config.me;
        let state = row.state(me, self.lease, self.mirror.nodes());
        let role = if self.lease.is_some() {
            state.role(me)
        } else {
            Role::Bystander
        };
        let ring_owner = self.mirror.ring().owner(vni);
        let elsewhere = ring_owner.is_some_and(|owner| owner != me);
        if role != Role::Bystander && elsewhere {
            batch.found.remaining = true;
        }

        let failing = self.fails_for(now, slot, PATIENCE);
        if failing && self.serving && !self.stopping && role != Role::Bystander {
            let is_first = slot.failing_since.is_some() && slot.ability.fail(now);
            batch.suspects_frr |= is_first && slot.routes_retry.is_failing();
        }
        let absent = slot.ability.capability() == Capability::Absent;
        let is_outranked = self.gives_way
            && ring_owner.is_some_and(|owner| self.mirror.nodes().outranks(owner, me));
        let may_give_up = match &state {
            // Without a bridge the owner serves no station, nor without its links, and another node may take the VNI
            // at once. etcd may have taken a vacancy that it did not confirm: another node may serve the VNI by now.
            State::Idle { .. } => role == Role::Owner && (absent || is_outranked || slot.vacating),
            State::Migrating { phase, owner, .. } => {
                let owner_follows = self.mirror.nodes().is_of_our_kind(owner);
                role == Role::Successor && fsm::can_cancel(*phase, owner_follows, elsewhere)
            }
            State::FailingOver { .. } => role == Role::Successor && (elsewhere || absent),
            _ => false,
        };
        // Later than this the owner has made itself unattractive and relies on us: take the VNI over, and
        // hand it on from there.
        let may_turn_back =
            matches!(&state, State::Migrating { phase, .. } if !phase.relies_on_successor());
        let is_unable = absent || failing || is_outranked || slot.vacating;
        slot.giving_up =
            may_give_up && (slot.giving_up || is_unable || (self.draining && may_turn_back));

        let is_let_go = self.let_go_at(slot);
        let waits = matches!(
            &state,
            State::FailingOver { .. } | State::OwnerLost { .. } | State::SuccessorLost { .. }
        );
        if waits {
            batch.wake_at(is_let_go);
        }
        let too_early = matches!(&state, State::FailingOver { .. }) && is_let_go > now;
        let wanted = if !self.serving || self.stopping || slot.giving_up || too_early {
            Exposure::NOTHING
        } else {
            let wanted = fsm::wanted(&state, role);
            let cheap_until = self.cheap_until(slot, wanted);
            batch.wake_at_any(cheap_until);
            match cheap_until.is_some_and(|until| until > now) {
                true => Exposure {
                    cost: self.config.takeover_cost,
                    ..wanted
                },
                false => wanted,
            }
        };
        batch.found.shown = wanted != Exposure::NOTHING;
        let rescue = matches!(&state, State::FailingOver { .. });
        self.visit_host(batch, vni, slot, wanted, rescue);
        batch.found.exposed = slot.arp != Some(false) || !self.withdrawn_from_routes(now, slot);
        batch.found.lingering = !self.routes_are_gone(slot, Exposure::NOTHING);
        if let Some(since) = slot.failing_since {
            batch.wake_at(since + RELEASE_PATIENCE);
            batch.wake_at(since + PATIENCE);
        }
        if slot.failing_since.is_none()
            && slot.shows(wanted)
            && let Some(until) = slot.ability.recover(now)
        {
            batch.wake_at(until);
        }
        batch.found.capability = slot.ability.capability();

        if wanted.arp && slot.arp == Some(true) && fsm::announces(&state, role) {
            match slot.next_announcement(now) {
                None => batch.found.refreshed = true,
                Some(due) if due <= now && self.next_announcement <= now => {
                    batch.announcements.push((due, vni));
                }
                Some(due) => batch.wake_at(due.max(self.next_announcement)),
            }
        } else {
            slot.stop_announcing();
        }

        if !self.may_write {
            return;
        }
        if !slot.write_retry.is_over(now) {
            batch.wake_at(slot.write_retry.until());
            return;
        }
        let reached_at = self.reached_at(slot, &state, role, wanted);
        let reached = reached_at.is_some_and(|at| batch.is_due_or_wake(at));
        let other_is_idle = self.other_is_idle_at(slot, &state);
        let view = View {
            ours: self.may_take
                && ring_owner == Some(me)
                && self.ring_knows(vni, slot)
                && batch.is_due_or_wake(self.free_at(row, slot, &state)),
            may_pull: self.may_pull(vni, slot, &state),
            reached,
            gives_up: slot.giving_up,
            // The routes of a node that cannot forward draw no packet that was not lost already.
            withdrawn: slot.arp == Some(false)
                && (is_outranked || slot.vacating || self.withdrawn_from_routes(now, slot)),
            let_go: is_let_go <= now,
            other_is_idle: other_is_idle.is_some_and(|at| batch.is_due_or_wake(at)),
        };
        let mut write = fsm::propose(&state, role, &view);
        if write.is_none() && row.is_spoiled() {
            let repair = self.repair(row, slot, &state, role);
            write = repair.and_then(|(write, at)| batch.is_due_or_wake(at).then_some(write));
        }
        // Keep the watch open while only the host is waited for: a node with a paused watch would not see its own lease
        // revoked.
        let takes = matches!(&state, State::FailingOver { .. }) && write == Some(Write::Own);
        batch.found.taken = takes || write == Some(Write::Claim);
        if let Some(write) = write {
            slot.vacating |= write == Write::Vacate && role == Role::Owner;
            batch.commits.push(Commit {
                vni,
                read: row.revision(),
                write,
                has_current: row.has_current(),
                alone: slot.alone,
            });
        }
    }

    /// When this node may show what another was named for until then. An owner that has given the row back was silent
    /// before; only the owner writes 0, unless a Go wmgwd is there.
    fn let_go_at(&self, slot: &Slot) -> Time {
        match slot.released && self.uniform {
            true => slot.freed,
            false => slot.freed + LET_GO,
        }
    }

    fn may_pull(&self, vni: Vni, slot: &Slot, state: &State) -> bool {
        let State::Idle { owner } = state else {
            return false;
        };
        // An owner that left the ring wants to be rid of its VNIs now.
        let in_ring = self.mirror.ring().has(owner);
        let may_ask = self.stable || !in_ring;
        // An owner that cannot forward gives the VNI back by itself, and one that can again publishes so soon. A node
        // that cannot forward asks for nothing that another serves.
        let is_outranked = self.mirror.nodes().outranks(&self.config.me, owner);
        if in_ring && (!self.is_fit || is_outranked) {
            return false;
        }
        // An owner without a bridge serves no station, and gives the VNI back: claiming it takes less time.
        let gives_back = self.mirror.nodes().is_without_bridge(owner, vni);
        may_ask && !gives_back && slot.ability.capability() == Capability::Able
    }

    /// Whether the capabilities that this node has published are those that it has. If not, its view of the ring is
    /// stale, and the node must not act on it.
    fn ring_knows(&self, vni: Vni, slot: &Slot) -> bool {
        let said = self
            .lease
            .and_then(|lease| self.mirror.nodes().unable(&self.config.me, lease));
        match slot.ability.capability() {
            Capability::Able => true,
            Capability::Failing => said.is_some_and(|said| said.failing.contains(vni)),
            Capability::Absent => false,
        }
    }

    /// A foreign write made our row unreadable, or deleted a part of it: what repairs it, and when.
    fn repair(&self, row: &Row, slot: &Slot, state: &State, role: Role) -> Option<(Write, Time)> {
        let at_once = |write| Some((write, Time::default()));
        match state {
            // A successor that got further does its part once more.
            State::Migrating { phase, .. } if role == Role::Owner => {
                let lost = row.has_unreadable_kind();
                at_once(Write::Advance(*phase)).filter(|_| lost)
            }
            // No node knows what the row said. Its owner begins anew once the other nodes have withdrawn, too.
            State::Unknown if row.is_owned_by(&self.config.me, self.lease) => {
                Some((Write::Own, slot.entered + self.config.name_wait))
            }
            _ => at_once(Write::Own).filter(|_| role == Role::Owner),
        }
    }

    /// When a row that seems to name no node may be claimed. One that cannot be read may have an owner that other
    /// nodes remember: if the owner lives it repairs the row, and if it does not its lease ends. One that had an
    /// owner until now is claimed at once, and shown later (see [`LET_GO`]). Beside a Go wmgwd, which would write
    /// over the claim without having read it, it is left alone for that long.
    fn free_at(&self, row: &Row, slot: &Slot, state: &State) -> Time {
        match state {
            State::Vacant if row.is_spoiled() => slot.entered + self.config.name_wait,
            State::Vacant if !self.uniform => slot.freed + LET_GO,
            _ => Time::default(),
        }
    }

    /// When the other node of a broken migration has had its time to repair it, if that is a Go wmgwd.
    fn other_is_idle_at(&self, slot: &Slot, state: &State) -> Option<Time> {
        let other = match state {
            State::OwnerLost { successor, .. } => successor,
            State::SuccessorLost { owner, .. } => owner,
            _ => return None,
        };
        let follows = self.mirror.nodes().is_of_our_kind(other);
        (!follows).then_some(slot.entered + MEND_PATIENCE)
    }

    /// Until when the owner's cost is lower after a failover, if the operator wants that.
    fn cheap_until(&self, slot: &Slot, wanted: Exposure) -> Option<Time> {
        let is_owner = wanted.cost == Cost::OWNER;
        (is_owner && self.config.takeover_cost != Cost::OWNER).then_some(slot.cheap_until)
    }

    fn visit_host(
        &self,
        batch: &mut Batch,
        vni: Vni,
        slot: &mut Slot,
        wanted: Exposure,
        rescue: bool,
    ) {
        let now = self.now;
        if slot.arp == Some(wanted.arp) {
            slot.arp_asked = wanted.arp;
            batch.found.arp = slot.arp;
        } else {
            let retry = slot.arp_retry_for(wanted.arp);
            if !retry.is_over(now) {
                batch.wake_at(retry.until());
            } else {
                slot.arp_asked = wanted.arp;
                let switches = if wanted.arp {
                    &mut batch.arp_on
                } else {
                    &mut batch.arp_off
                };
                switches.push((vni, wanted.arp));
            }
        }
        let Some(change) = slot.route_change(vni, wanted) else {
            if slot.arp == Some(wanted.arp) {
                slot.failing_since = None;
            }
            return;
        };
        let Some(change) = self.routes.askable(change) else {
            return;
        };
        if !slot.routes_retry.is_over(now) {
            batch.wake_at(slot.routes_retry.until());
        } else if !self.routes.is_idle() {
            batch.found.pending = true;
        } else {
            batch.routes.push(change, rescue);
        }
    }

    /// Whether FRR shows nothing of the VNI, or cannot be brought to.
    fn withdrawn_from_routes(&self, now: Time, slot: &Slot) -> bool {
        self.has_released(now, slot, Exposure::NOTHING)
    }

    /// Whether the host has failed to do what it was told for `patience`, by VNI or as a whole.
    fn fails_for(&self, now: Time, slot: &Slot, patience: Duration) -> bool {
        [slot.failing_since, self.routes.failing_since()]
            .into_iter()
            .flatten()
            .any(|since| now.since(since) >= patience)
    }

    /// Whether FRR shows `wanted`, as far as it can be told: an FRR that does not answer must not keep a node
    /// from giving a VNI away. A daemon that is down shows nothing, but the other one may.
    fn has_released(&self, now: Time, slot: &Slot, wanted: Exposure) -> bool {
        let is_known_to_fail =
            slot.ability.capability() == Capability::Failing && slot.routes_retry.is_failing();
        is_known_to_fail
            || self.fails_for(now, slot, RELEASE_PATIENCE)
            || self.routes_are_gone(slot, wanted)
    }

    /// Whether the bridge is not there, or has refused to answer for a while.
    fn cannot_answer(&self, now: Time, slot: &Slot) -> bool {
        let is_known_to_fail = slot.ability.capability() == Capability::Failing;
        let for_a_while = is_known_to_fail || self.fails_for(now, slot, RELEASE_PATIENCE);
        let refused = slot.arp_retry_for(true).is_failing() && for_a_while;
        slot.ability.capability() == Capability::Absent || refused
    }

    /// Whether FRR shows `wanted`, or the daemon that does not has no process and shows nothing at all.
    fn routes_are_gone(&self, slot: &Slot, wanted: Exposure) -> bool {
        let gone = self.routes.gone();
        let evpn = slot.evpn == Some(wanted.evpn) || gone.bgpd;
        let cost = slot.cost == Some(wanted.cost) || gone.ospfd;
        evpn && cost
    }

    /// When the host has shown what is wanted for as long as the phase settles; `None` while it does not show it.
    fn reached_at(&self, slot: &Slot, state: &State, role: Role, wanted: Exposure) -> Option<Time> {
        let now = self.now;
        if slot.giving_up {
            return None;
        }
        let at_once = Some(Time::default());
        if self.must_go_on(now, slot, state, role) {
            return at_once;
        }
        let releases = role == Role::Owner;
        let routes = slot.routes_are(wanted) || (releases && self.has_released(now, slot, wanted));
        // An owner without a bridge, or whose bridge cannot be made to answer, serves no station any more: it must
        // not keep the successor from it. One that cannot be silenced does.
        let cannot_answer = releases && wanted.arp && self.cannot_answer(now, slot);
        let arp = slot.arp == Some(wanted.arp) || cannot_answer;
        if !arp || !routes {
            return None;
        }
        let announced = slot.announced.filter(|&at| at >= slot.entered);
        let settled_from = match state {
            State::Migrating {
                phase: fsm::Phase::ArpDisabled,
                ..
            } if role == Role::Successor => announced,
            State::FailingOver { .. } => return announced.and(at_once),
            State::Migrating { phase, .. } if phase.settles() => Some(slot.routes_at),
            _ => return at_once,
        };
        // Make before break preserves nothing if the owner cannot forward.
        let settle = match state {
            State::Migrating {
                owner, successor, ..
            } if self.mirror.nodes().outranks(successor, owner) => Duration::ZERO,
            _ => self.config.settle,
        };
        settled_from.map(|from| from + settle)
    }

    /// Whether a successor that cannot serve the VNI has to go on all the same: a Go owner that has silenced its
    /// bridge does not serve any more, whatever the row says next. At the end the VNI is the successor's own, to
    /// give away.
    fn must_go_on(&self, now: Time, slot: &Slot, state: &State, role: Role) -> bool {
        let State::Migrating { phase, owner, .. } = state else {
            return false;
        };
        let is_too_late =
            *phase > fsm::Phase::OspfWithdrawn && !self.mirror.nodes().is_of_our_kind(owner);
        let absent = slot.ability.capability() == Capability::Absent;
        role == Role::Successor && is_too_late && (absent || self.fails_for(now, slot, PATIENCE))
    }
}
