//! What is to be done now: one pass over the VNIs that something happened to, or over all.

use super::ability::Capability;
use super::lifecycle::Remains;
use super::routes::{RouteBatch, RoutesView};
use super::slot::Slot;
use super::slots::Finding;
use super::{Effect, Exit, Gateway, drive};
use crate::model::fsm::{self, Exposure, Role, State, View, Write};
use crate::model::types::{LeaseId, Time, Vni};
use crate::schema::Commit;
use std::ops::Deref;
use std::time::Duration;

/// How long the lower cost of `--takeover-cost` is announced: longer than a dead gateway's Router-LSA lives
/// on at its neighbours with OSPF's default dead interval of 40 s (RFC 2328 appendix C.3).
pub const CHEAP: Duration = Duration::from_secs(45);
/// How long a host that fails to take a VNI is given before the node gives it up.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing more is shown of a VNI that lost its owner or its successor: etcd may end a lease that its holder
/// has renewed (a leader that was stopped and goes on does so, seen with 3.4.23), and then the holder withdraws when
/// it hears of that.
/// A Go wmgwd writes 0 over a broken migration although its owner lives, which hears of it no sooner than we do.
const LET_GO: Duration = Duration::from_millis(100);
/// How long the ring owner waits for a Go wmgwd to mend a broken migration.
const MEND_PATIENCE: Duration = Duration::from_secs(5);

/// What one pass collects.
#[derive(Default)]
pub struct Batch {
    pub now: Time,
    /// What is found of the VNI that is looked at.
    pub found: Finding,
    pub arp_off: Vec<(Vni, bool)>,
    pub arp_on: Vec<(Vni, bool)>,
    pub routes: RouteBatch,
    pub announcements: Vec<(Time, Vni)>,
    pub refreshes: Vec<Vni>,
    pub commits: Vec<Commit>,
    /// FRR has begun to refuse a VNI: perhaps it refuses all.
    pub suspects_frr: bool,
    pub wake: Option<Time>,
}

impl Batch {
    /// What was due before has been decided in this pass: only what is still to come is worth a wake.
    pub fn wake_at(&mut self, at: Time) {
        if at > self.now {
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        }
    }

    /// The same, if there is a time at all.
    pub fn wake_at_any(&mut self, at: Option<Time>) {
        if let Some(at) = at {
            self.wake_at(at);
        }
    }

    fn pushed(&self) -> usize {
        let arp = self.arp_off.len() + self.arp_on.len();
        arp + self.routes.len() + self.announcements.len() + self.commits.len()
    }
}

/// What holds for all VNIs and changes seldom. While it stays, as do the nodes, a VNI that nothing happened to
/// and that is not due need not be looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    pub lease: Option<LeaseId>,
    pub serving: bool,
    pub stopping: bool,
    pub draining: bool,
    pub may_write: bool,
    pub may_take: bool,
    pub stable: bool,
    /// No Go wmgwd is registered.
    pub uniform: bool,
    routes: RoutesView,
}

/// What is the same for all VNIs of one pass.
pub struct Pass {
    pub now: Time,
    pub setting: Setting,
    pub routes_free: bool,
}

impl Deref for Pass {
    type Target = Setting;

    fn deref(&self) -> &Setting {
        &self.setting
    }
}

impl Gateway {
    /// What is to be done now. Most effects are answered by an event at once; ask again after that until
    /// nothing is left, then wait for the next event or [`Gateway::next_deadline`].
    pub fn plan(&mut self, now: Time) -> Vec<Effect> {
        let mut batch = Batch {
            now,
            ..Batch::default()
        };
        let mut effects = Vec::new();
        // Until the rows are known, an adopted host is left as it is; the guard stands by.
        if self.snapshot.is_some() || !self.membership.is_serving(now) {
            self.lifecycle.end_adoption();
        }
        if self.lifecycle.is_adopting() {
            self.deadline = self.membership.fence_at();
            return effects;
        }
        batch.wake_at_any(self.lifecycle.deadline());
        batch.wake_at_any(self.membership.fence_at());
        batch.wake_at(self.membership.distrust_until());

        let pass = self.pass(now);
        self.visit_slots(&pass, &mut batch);
        if let Some(found) = self.slots.take_capabilities() {
            self.membership.take_capabilities(found);
        }
        if std::mem::take(&mut batch.suspects_frr) {
            self.routes.suspect();
        }
        if self.drain_is_over(&pass) {
            self.lifecycle.stop(now, Exit::Stopped);
            return self.plan(now);
        }
        // Before what takes longer.
        // Never beside a Go wmgwd: that writes over rows that it has not read, and the node that is robbed must hear it.
        let worthwhile = pass.uniform && self.slots.totals().taken > 0;
        let (effect, wake) = self.watch_pause.plan(now, worthwhile);
        effects.extend(effect);
        batch.wake_at_any(wake);
        self.plan_life(&pass, &batch, &mut effects);
        self.take_turns(now, &mut batch);
        self.plan_host(&pass, &mut batch, &mut effects);
        self.plan_registration(&pass, &mut batch, &mut effects);
        let rows = self.writer.gather(now, std::mem::take(&mut batch.commits));
        if let Some((lease, rows)) = self.membership.lease().zip(rows) {
            effects.push(Effect::Commit { lease, rows });
        }
        if let Some(wake) = self.slots.first_wake() {
            batch.wake_at(wake);
        }
        self.deadline = batch.wake;
        effects
    }

    fn pass(&self, now: Time) -> Pass {
        let (membership, lifecycle) = (&self.membership, &self.lifecycle);
        let serving = membership.is_serving(now);
        let stopping = lifecycle.is_stopping();
        let draining = lifecycle.is_draining() || self.is_drained();
        let registered = membership.is_surely_registered(&self.nodes);
        let setting = Setting {
            lease: membership.lease(),
            serving,
            stopping,
            draining,
            may_write: serving && registered && !stopping && self.writer.may_write(now),
            may_take: !draining && membership.is_in_ring() && self.routes.is_able(),
            stable: membership.is_stable(now),
            uniform: self.nodes.are_of_our_kind(),
            routes: self.routes.view(now, [drive::RELEASE_PATIENCE, PATIENCE]),
        };
        Pass {
            now,
            setting,
            routes_free: self.routes.is_idle(),
        }
    }

    fn visit_slots(&mut self, pass: &Pass, batch: &mut Batch) {
        // A retry that is not due yet must wake the worker when it is.
        batch.wake_at(self.writer.retry_at());
        batch.wake_at_any(self.membership.stable_at());
        if let Some(since) = self.routes.failing_since() {
            batch.wake_at(since + drive::RELEASE_PATIENCE);
            batch.wake_at(since + PATIENCE);
        }
        if self.setting.as_ref() != Some(&pass.setting) {
            self.setting = Some(pass.setting.clone());
            self.slots.look_at_all();
        }
        // Of the whole pass; each VNI has its own.
        let wake = batch.wake.take();
        let mut slots = self.slots.take();
        self.visited = slots.visit(pass.now, |vni, slot| {
            let pushed = batch.pushed();
            batch.found = Finding::default();
            self.visit(pass, batch, vni, slot);
            batch.found.restless |= batch.pushed() > pushed;
            batch.found.wake = batch.wake.take();
            batch.found
        });
        self.slots = slots;
        batch.wake = wake;
    }

    fn visit(&self, pass: &Pass, batch: &mut Batch, vni: Vni, slot: &mut Slot) {
        let now = pass.now;
        let me = &self.config.me;
        let state = slot.row.state(me, pass.lease, &self.nodes);
        let role = if pass.lease.is_some() {
            state.role(me)
        } else {
            Role::Bystander
        };
        let ring_owner = self.ring.owner(vni);
        let elsewhere = ring_owner.is_some_and(|owner| owner != me);
        if role != Role::Bystander && elsewhere {
            batch.found.remaining = true;
        }

        let failing = self.fails_for(now, slot, PATIENCE);
        if failing && pass.serving && !pass.stopping && role != Role::Bystander {
            let is_first = slot.failing_since.is_some() && slot.ability.fail(now);
            batch.suspects_frr |= is_first && slot.routes_retry.is_failing();
        }
        let absent = slot.ability.capability() == Capability::Absent;
        let may_give_up = match &state {
            // Without a bridge the owner serves no station, and another node may take the VNI at once.
            State::Idle { .. } => role == Role::Owner && absent,
            State::Migrating { phase, owner, .. } => {
                let owner_follows = self.nodes.is_of_our_kind(owner);
                role == Role::Successor && fsm::can_cancel(*phase, owner_follows, elsewhere)
            }
            State::FailingOver { .. } => role == Role::Successor && (elsewhere || absent),
            _ => false,
        };
        // Later than this the owner has made itself unattractive and relies on us: take the VNI over, and
        // hand it on from there.
        let may_turn_back =
            matches!(&state, State::Migrating { phase, .. } if !phase.relies_on_successor());
        let is_unable = absent || failing;
        slot.giving_up =
            may_give_up && (slot.giving_up || is_unable || (pass.draining && may_turn_back));

        let is_let_go = slot.freed + LET_GO;
        let waits = matches!(
            &state,
            State::FailingOver { .. } | State::OwnerLost { .. } | State::SuccessorLost { .. }
        );
        if waits {
            batch.wake_at(is_let_go);
        }
        let too_early = matches!(&state, State::FailingOver { .. }) && is_let_go > now;
        let wanted = if !pass.serving || pass.stopping || slot.giving_up || too_early {
            Exposure::NOTHING
        } else {
            self.dearer_or_cheaper(now, batch, slot, fsm::wanted(&state, role))
        };
        batch.found.shown = wanted != Exposure::NOTHING;
        let rescue = matches!(&state, State::FailingOver { .. });
        self.visit_host(pass, batch, vni, slot, wanted, rescue);
        batch.found.exposed = slot.arp != Some(false) || !self.withdrawn_from_routes(now, slot);
        batch.found.lingering = !self.routes_are_gone(slot, Exposure::NOTHING);
        if let Some(since) = slot.failing_since {
            batch.wake_at(since + drive::RELEASE_PATIENCE);
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
                Some(due) if due <= now && self.next_announcement_slot <= now => {
                    batch.announcements.push((due, vni));
                }
                Some(due) => batch.wake_at(due.max(self.next_announcement_slot)),
            }
        } else {
            slot.stop_announcing();
        }

        if !pass.may_write {
            return;
        }
        if !slot.write_retry.is_over(now) {
            batch.wake_at(slot.write_retry.until());
            return;
        }
        let reached = self.has_reached(now, batch, slot, &state, role, wanted);
        let view = View {
            ours: pass.may_take
                && ring_owner == Some(me)
                && self.ring_knows(pass, vni, slot)
                && self.is_free(pass, batch, slot, &state),
            may_pull: self.may_pull(pass, vni, slot, &state),
            reached,
            gives_up: slot.giving_up,
            withdrawn: slot.arp == Some(false) && self.withdrawn_from_routes(now, slot),
            let_go: is_let_go <= now,
            other_is_idle: self.other_is_idle(now, batch, slot, &state),
        };
        let mut write = fsm::propose(&state, role, &view);
        if write.is_none() && slot.row.is_spoiled() {
            write = self.mend(pass, batch, slot, &state, role);
        }
        // Not while only the host is waited for: who rests does not hear that its own lease was ended.
        let takes = matches!(&state, State::FailingOver { .. }) && write == Some(Write::Own);
        batch.found.taken = takes || write == Some(Write::Claim);
        if let Some(write) = write {
            batch.commits.push(Commit {
                vni,
                read: slot.row.kind.revision,
                write,
                has_current: slot.row.has_current(),
                alone: slot.alone,
            });
        }
    }

    fn may_pull(&self, pass: &Pass, vni: Vni, slot: &Slot, state: &State) -> bool {
        let State::Idle { owner } = state else {
            return false;
        };
        // An owner that left the ring wants to be rid of its VNIs now.
        let may_ask = pass.stable || !self.ring.has(owner);
        // An owner without a bridge serves no station, and gives the VNI back: claiming it takes less time.
        let gives_back = self.nodes.is_without_bridge(owner, vni);
        may_ask && !gives_back && slot.ability.capability() == Capability::Able
    }

    /// Whether the ring knows of this node what the node itself knows. Where it does not, the node must not act
    /// on what the ring says: as soon as it knows, it may name another node.
    fn ring_knows(&self, pass: &Pass, vni: Vni, slot: &Slot) -> bool {
        let said = pass
            .lease
            .and_then(|lease| self.nodes.unable(&self.config.me, lease));
        match slot.ability.capability() {
            Capability::Able => true,
            Capability::Failing => said.is_some_and(|said| said.failing.contains(vni)),
            Capability::Absent => false,
        }
    }

    /// Somebody wrote over our row what nobody can read, or deleted a part of it: say again what it said.
    fn mend(
        &self,
        pass: &Pass,
        batch: &mut Batch,
        slot: &Slot,
        state: &State,
        role: Role,
    ) -> Option<Write> {
        match state {
            // A successor that got further does its part once more.
            State::Migrating { phase, .. } if role == Role::Owner => {
                slot.row.kind.unreadable.then_some(Write::Advance(*phase))
            }
            // Nobody knows what it said: who owned it begins anew, once the others have let go too.
            State::Unknown if slot.row.is_owned_by(&self.config.me, pass.lease) => {
                let due = slot.entered + self.config.name_wait;
                batch.wake_at(due);
                (due <= pass.now).then_some(Write::Own)
            }
            _ => (role == Role::Owner).then_some(Write::Own),
        }
    }

    /// Whether a row that seems to name nobody really does. One that cannot be read may have an owner that
    /// others remember: if it lives it mends the row, and if it cannot its lease ends. One that had an owner
    /// until now is claimed at once, and shown later (see [`LET_GO`]); beside a Go wmgwd it is left for that long,
    /// which would write over the claim without having read it.
    fn is_free(&self, pass: &Pass, batch: &mut Batch, slot: &Slot, state: &State) -> bool {
        let due = match state {
            State::Vacant if slot.row.is_spoiled() => slot.entered + self.config.name_wait,
            State::Vacant if !pass.uniform => slot.freed + LET_GO,
            _ => return true,
        };
        batch.wake_at(due);
        due <= pass.now
    }

    fn other_is_idle(&self, now: Time, batch: &mut Batch, slot: &Slot, state: &State) -> bool {
        let other = match state {
            State::OwnerLost { successor, .. } => successor,
            State::SuccessorLost { owner, .. } => owner,
            _ => return false,
        };
        if self.nodes.is_of_our_kind(other) {
            return false;
        }
        let due = slot.entered + MEND_PATIENCE;
        if due > now {
            batch.wake_at(due);
        }
        due <= now
    }

    fn drain_is_over(&self, pass: &Pass) -> bool {
        if !self.lifecycle.is_draining() {
            return false;
        }
        let remaining = self.slots.totals().remaining;
        // Who registered right before us may not be in our ring yet, and takes our VNIs.
        let registered = self.nodes.registered(&self.config.me);
        let told = registered.is_some_and(|cell| cell.revision <= self.told);
        let handed_over =
            pass.may_write && told && !self.ring.has(&self.config.me) && remaining == 0;
        handed_over || self.lifecycle.is_overdue(pass.now) || !pass.serving
    }

    fn plan_life(&mut self, pass: &Pass, batch: &Batch, effects: &mut Vec<Effect>) {
        let totals = self.slots.totals();
        let is_busy = !batch.arp_off.is_empty() || !self.routes.is_idle();
        let remains = Remains {
            withdrawing: totals.exposed > 0 || is_busy,
            lingering: totals.lingering > 0,
        };
        effects.extend(self.lifecycle.exit(pass.now, remains).map(Effect::Exit));
    }

    fn plan_registration(&mut self, pass: &Pass, batch: &mut Batch, effects: &mut Vec<Effect>) {
        if !pass.serving || pass.stopping {
            return;
        }
        // Before the first look at FRR we would register without points, and what we adopted would be pulled.
        // Nothing of an earlier run may still be on show when others begin to rely on us.
        let host_is_clean =
            || self.routes.was_tried() && self.slots.iter().all(|slot| slot.arp.is_some());
        let ready = self.snapshot.is_some() && self.routes.has_looked();
        if !ready || !(self.membership.is_registered(&self.nodes) || host_is_clean()) {
            return;
        }
        let takes = !pass.draining && self.routes.is_able();
        let (effect, wake) = self.membership.plan(pass.now, &self.nodes, takes);
        effects.extend(effect);
        batch.wake_at_any(wake);
    }
}
