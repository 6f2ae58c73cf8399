//! What is to be done now: one pass over the VNIs that something happened to, or over all.

use super::decide::{Context, NodeView, PATIENCE, RELEASE_PATIENCE};
use super::lifecycle::Remains;
use super::routes::RouteBatch;
use super::slots::VniStatus;
use super::{Effect, Exit, Gateway};
use crate::model::fitness::{Rank, Sign};
use crate::model::types::{Time, Vni};
use crate::schema::Commit;
use std::time::Duration;

/// How long the lower cost of `--takeover-cost` is announced: longer than a dead gateway's Router-LSA lives
/// on at its neighbours with OSPF's default dead interval of 40 s (RFC 2328 appendix C.3).
pub const CHEAP: Duration = Duration::from_secs(45);
/// Gratuitous ARP is paced to this many VNIs every [`ANNOUNCE_PAUSE`]: 10 000 VNIs take a second.
pub const ANNOUNCEMENTS: usize = 500;
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(50);
/// How long FRR may refuse to be reset before the node counts as unfit: a configuration session of another program
/// may have it locked for a moment.
const FRR_PATIENCE: Duration = Duration::from_secs(1);

/// What one pass collects.
#[derive(Default)]
pub struct Batch {
    pub now: Time,
    /// What is found of the VNI that is looked at.
    pub found: VniStatus,
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

    /// Whether something is due. If it is not, it wakes the worker then.
    pub fn is_due_or_wake(&mut self, at: Time) -> bool {
        self.wake_at(at);
        at <= self.now
    }

    pub fn pushed(&self) -> usize {
        let arp = self.arp_off.len() + self.arp_on.len();
        arp + self.routes.len() + self.announcements.len() + self.commits.len()
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
        if self.mirror.is_complete() || !self.membership.is_serving(now) {
            self.lifecycle.end_adoption();
        }
        if self.lifecycle.is_adopting() {
            self.deadline = self.membership.fence_at();
            return effects;
        }
        batch.wake_at_any(self.lifecycle.deadline());
        batch.wake_at_any(self.membership.fence_at());
        batch.wake_at(self.membership.distrust_until());
        batch.wake_at_any(self.routes.watch_request(now));

        let gives_way = self.look_at_fitness(now, &mut batch);
        let node = self.node_view(now, gives_way);
        self.visit_vnis(&node, &mut batch);
        if let Some(found) = self.slots.take_capabilities() {
            self.membership.take_capabilities(found);
        }
        if std::mem::take(&mut batch.suspects_frr) {
            self.routes.suspect();
        }
        if self.drain_is_over(now, &node) {
            self.lifecycle.stop(now, Exit::Stopped);
            return self.plan(now);
        }
        // Before what takes longer.
        // Never beside a Go wmgwd: that writes over rows that it has not read, and the node that is robbed must hear it.
        let worthwhile = node.uniform && self.slots.totals().taken > 0;
        let (effect, wake) = self.watch_pause.plan(now, worthwhile);
        effects.extend(effect);
        batch.wake_at_any(wake);
        self.plan_life(&batch, &mut effects);
        self.take_turns(now, &mut batch);
        self.plan_host(now, &mut batch, &mut effects);
        self.plan_registration(&node, &mut batch, &mut effects);
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

    /// Has the rank follow the signs. Says whether this node is to give way to a better one.
    fn look_at_fitness(&mut self, now: Time, batch: &mut Batch) -> bool {
        if self.routes.has_looked() {
            let refuses = self
                .routes
                .failing_since()
                .map(|since| since + FRR_PATIENCE);
            batch.wake_at_any(refuses);
            let usable = self.routes.is_up() && refuses.is_none_or(|due| due > now);
            self.fitness.frr_is(now, usable);
        }
        batch.wake_at_any(self.fitness.look(now));
        let best = self.mirror.nodes().best_rank_beside(&self.config.me);
        // A node that fell before this one is known to have fallen once the watch has come as far as this node's own
        // publication. Before that, two nodes that fall together would both give way.
        let is_told = self.mirror.has_heard_of(&self.config.me);
        let published = self.membership.published_fitness(&self.mirror);
        let published = published.filter(|_| is_told).map(|it| it.rank);
        let (gives_way, due) = self.fitness.gives_way(now, published, best);
        batch.wake_at_any(due);
        gives_way
    }

    fn node_view(&self, now: Time, gives_way: bool) -> NodeView {
        let (membership, lifecycle) = (&self.membership, &self.lifecycle);
        let rank = self.fitness.published().rank;
        // Where the ring does not know this node's rank, the node must not act on what the ring says.
        let published = membership.published_fitness(&self.mirror);
        let has_told_its_rank = published.is_some_and(|it| it.rank == rank);
        let serving = membership.is_serving(now);
        let stopping = lifecycle.is_stopping();
        let draining = lifecycle.is_draining() || self.is_drained();
        let registered = membership.is_surely_registered(&self.mirror);
        NodeView {
            lease: membership.lease(),
            serving,
            stopping,
            draining,
            may_write: serving && registered && !stopping && self.writer.may_write(now),
            may_take: !draining
                && membership.is_in_ring()
                && self.routes.is_able()
                && has_told_its_rank,
            stable: membership.is_stable(now),
            uniform: self.mirror.nodes().are_of_our_kind(),
            routes: self.routes.view(now, [RELEASE_PATIENCE, PATIENCE]),
            is_fit: rank == Rank::Fit,
            gives_way,
        }
    }

    fn visit_vnis(&mut self, node: &NodeView, batch: &mut Batch) {
        // A retry that is not due yet must wake the worker when it is.
        batch.wake_at(self.writer.retry_at());
        batch.wake_at_any(self.membership.stable_at());
        if let Some(since) = self.routes.failing_since() {
            batch.wake_at(since + RELEASE_PATIENCE);
            batch.wake_at(since + PATIENCE);
        }
        if self.node_view.as_ref() != Some(node) {
            self.node_view = Some(node.clone());
            self.slots.look_at_all();
        }
        let context = Context {
            now: batch.now,
            node,
            config: &self.config,
            mirror: &self.mirror,
            routes: &self.routes,
            next_announcement: self.next_announcement_slot,
        };
        // Of the whole pass; each VNI has its own.
        let wake = batch.wake.take();
        self.visited = self.slots.visit(batch.now, |vni, slot| {
            let pushed = batch.pushed();
            batch.found = VniStatus::default();
            if let Some(row) = context.mirror.row(vni) {
                context.decide(batch, vni, row, slot);
            }
            batch.found.pending |= batch.pushed() > pushed;
            batch.found.wake = batch.wake.take();
            batch.found
        });
        batch.wake = wake;
    }

    fn drain_is_over(&self, now: Time, node: &NodeView) -> bool {
        if !self.lifecycle.is_draining() {
            return false;
        }
        let remaining = self.slots.totals().remaining;
        let (me, mirror) = (&self.config.me, &self.mirror);
        let has_left = mirror.has_heard_of(me) && !mirror.ring().has(me);
        let handed_over = node.may_write && has_left && remaining == 0;
        handed_over || self.lifecycle.is_overdue(now) || !node.serving
    }

    fn plan_life(&mut self, batch: &Batch, effects: &mut Vec<Effect>) {
        let totals = self.slots.totals();
        let is_busy = !batch.arp_off.is_empty() || !self.routes.is_idle();
        let remains = Remains {
            withdrawing: totals.exposed > 0 || is_busy,
            lingering: totals.lingering > 0,
        };
        effects.extend(self.lifecycle.exit(batch.now, remains).map(Effect::Exit));
    }

    fn plan_host(&mut self, now: Time, batch: &mut Batch, effects: &mut Vec<Effect>) {
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
            self.next_announcement_slot = now + ANNOUNCE_PAUSE;
            batch.wake_at(self.next_announcement_slot);
            announced.extend(batch.announcements.iter().map(|&(_, vni)| vni));
            effects.push(Effect::Announce(announced));
        }
        let routes = std::mem::take(&mut batch.routes);
        let (effect, wake) = self.routes.plan(now, routes, || self.slots.shown());
        effects.extend(effect);
        batch.wake_at_any(wake);
    }

    fn plan_registration(&mut self, node: &NodeView, batch: &mut Batch, effects: &mut Vec<Effect>) {
        if !node.serving || node.stopping {
            return;
        }
        // Before the first look at FRR we would register without points, and what we adopted would be pulled.
        // Nothing of an earlier run may still be on show when others begin to rely on us.
        let host_is_clean =
            || self.routes.was_tried() && self.slots.iter().all(|slot| slot.arp.is_some());
        let ready = self.mirror.is_complete() && self.routes.has_looked();
        if !ready || !(self.membership.is_registered(&self.mirror) || host_is_clean()) {
            return;
        }
        // Nodes that read ranks pass this one over for its own; others only if it is not in the ring.
        let is_passed_over = self.fitness.tracks(Sign::Frr) && self.mirror.nodes().all_have_ranks();
        let takes = !node.draining && (self.routes.is_able() || is_passed_over);
        let fitness = self.fitness.published();
        let (effect, wake) = self
            .membership
            .plan(batch.now, &self.mirror, takes, fitness);
        effects.extend(effect);
        batch.wake_at_any(wake);
    }
}
