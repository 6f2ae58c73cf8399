//! Driving the host from what it shows to what it should show: ARP at once, FRR one batch at a time.

use super::ability::Capability;
use super::plan::{Batch, PATIENCE, Pass};
use super::slot::Slot;
use super::{Effect, Gateway};
use crate::model::frr::Cost;
use crate::model::fsm::{self, Exposure, Role, State};
use crate::model::types::{Time, Vni};
use std::time::Duration;

/// How long a failing FRR may keep an owner from letting go: it cannot advertise much then either.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// Gratuitous ARP is paced to this many VNIs every [`ANNOUNCE_PAUSE`]: 10 000 VNIs take a second.
pub const ANNOUNCEMENTS: usize = 500;
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(50);

impl Gateway {
    /// The owner's cost is lower for a while after a failover, if the operator wants that.
    pub(super) fn dearer_or_cheaper(
        &self,
        now: Time,
        batch: &mut Batch,
        slot: &Slot,
        wanted: Exposure,
    ) -> Exposure {
        if wanted.cost != Cost::OWNER
            || self.config.takeover_cost == Cost::OWNER
            || slot.cheap_until <= now
        {
            return wanted;
        }
        batch.wake_at(slot.cheap_until);
        Exposure {
            cost: self.config.takeover_cost,
            ..wanted
        }
    }

    pub(super) fn visit_host(
        &self,
        pass: &Pass,
        batch: &mut Batch,
        vni: Vni,
        slot: &mut Slot,
        wanted: Exposure,
        rescue: bool,
    ) {
        let now = pass.now;
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
        } else if !pass.routes_free {
            batch.found.restless = true;
        } else {
            batch.routes.push(change, rescue);
        }
    }

    /// Whether FRR shows nothing of the VNI, or cannot be brought to.
    pub(super) fn withdrawn_from_routes(&self, now: Time, slot: &Slot) -> bool {
        self.has_released(now, slot, Exposure::NOTHING)
    }

    /// Whether the host has failed to do what it was told for `patience`, by VNI or as a whole.
    pub(super) fn fails_for(&self, now: Time, slot: &Slot, patience: Duration) -> bool {
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
    pub(super) fn routes_are_gone(&self, slot: &Slot, wanted: Exposure) -> bool {
        let gone = self.routes.gone();
        let evpn = slot.evpn == Some(wanted.evpn) || gone.bgpd;
        let cost = slot.cost == Some(wanted.cost) || gone.ospfd;
        evpn && cost
    }

    pub(super) fn has_reached(
        &self,
        now: Time,
        batch: &mut Batch,
        slot: &Slot,
        state: &State,
        role: Role,
        wanted: Exposure,
    ) -> bool {
        if slot.giving_up {
            return false;
        }
        if self.must_go_on(now, slot, state, role) {
            return true;
        }
        let releases = role == Role::Owner;
        let routes = slot.routes_are(wanted) || (releases && self.has_released(now, slot, wanted));
        // An owner without a bridge, or whose bridge cannot be made to answer, serves no station any more: it must
        // not keep the successor from it. One that cannot be silenced does.
        let cannot_answer = releases && wanted.arp && self.cannot_answer(now, slot);
        let arp = slot.arp == Some(wanted.arp) || cannot_answer;
        if !arp || !routes {
            return false;
        }
        let announced = slot.announced.filter(|&at| at >= slot.entered);
        let settled_from = match state {
            State::Migrating {
                phase: fsm::Phase::ArpDisabled,
                ..
            } if role == Role::Successor => announced,
            State::FailingOver { .. } => return announced.is_some(),
            State::Migrating { phase, .. } if phase.settles() => Some(slot.routes_at),
            _ => return true,
        };
        let Some(settled) = settled_from.map(|from| from + self.config.settle) else {
            return false;
        };
        if settled > now {
            batch.wake_at(settled);
        }
        settled <= now
    }

    /// Whether a successor that cannot serve the VNI has to go on all the same: a Go owner that has silenced its
    /// bridge does not serve any more, whatever the row says next. At the end the VNI is the successor's own, to
    /// give away.
    fn must_go_on(&self, now: Time, slot: &Slot, state: &State, role: Role) -> bool {
        let State::Migrating { phase, owner, .. } = state else {
            return false;
        };
        let is_too_late = *phase > fsm::Phase::OspfWithdrawn && !self.nodes.is_of_our_kind(owner);
        let absent = slot.ability.capability() == Capability::Absent;
        role == Role::Successor && is_too_late && (absent || self.fails_for(now, slot, PATIENCE))
    }

    pub(super) fn plan_host(&mut self, pass: &Pass, batch: &mut Batch, effects: &mut Vec<Effect>) {
        let mut switches = std::mem::take(&mut batch.arp_off);
        // Off before on: the other way round would answer twice where two VNIs share a segment.
        switches.append(&mut batch.arp_on);
        if !switches.is_empty() {
            effects.push(Effect::SwitchArp(switches));
        }
        let mut announced = std::mem::take(&mut batch.refreshes);
        if !batch.announcements.is_empty() || !announced.is_empty() {
            // The longest overdue first; the rest gets its turn after a pause.
            batch.announcements.sort_unstable();
            batch
                .announcements
                .truncate(ANNOUNCEMENTS - announced.len());
            self.next_announcement_slot = pass.now + ANNOUNCE_PAUSE;
            batch.wake_at(self.next_announcement_slot);
            announced.extend(batch.announcements.iter().map(|&(_, vni)| vni));
            effects.push(Effect::Announce(announced));
        }
        let routes = std::mem::take(&mut batch.routes);
        let (effect, wake) = self.routes.plan(pass.now, routes, || self.slots.shown());
        effects.extend(effect);
        batch.wake_at_any(wake);
    }
}
