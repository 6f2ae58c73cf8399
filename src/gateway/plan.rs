//! What is to be done now: one pass over the VNIs that something happened to, or over all.

use super::decide::{Context, Decision, PATIENCE, RELEASE_PATIENCE};
use super::lifecycle::Remains;
use super::routes::RouteBatch;
use super::schedule::Wake;
use super::vni::VniState;
use super::vni_table::{NodeView, VniStatus};
use super::{Effect, Exit, Gateway};
use crate::model::fitness::{Rank, Sign};
use crate::model::frr::RouteChange;
use crate::model::types::{Time, Vni};
use crate::schema::Commit;
use std::time::Duration;

/// How long FRR may refuse to be reset before the node counts as unfit: a configuration session of another program
/// may have it locked for a moment.
const FRR_PATIENCE: Duration = Duration::from_secs(1);

/// What the decisions of one pass come to.
#[derive(Default)]
struct Batch {
    silence: Vec<(Vni, bool)>,
    answer: Vec<(Vni, bool)>,
    routes: RouteBatch,
    hastened: Vec<RouteChange>,
    announcements: Vec<(Time, Vni)>,
    commits: Vec<Commit>,
    suspects_frr: bool,
}

impl Batch {
    fn add(&mut self, vni: Vni, decision: Decision) {
        match decision.arp {
            Some(true) => self.answer.push((vni, true)),
            Some(false) => self.silence.push((vni, false)),
            None => {}
        }
        if let Some(change) = decision.routes {
            self.routes.push(change, decision.is_rescue);
        }
        self.hastened.extend(decision.hastened);
        let announcement = decision.announce.map(|due| (due, vni));
        self.announcements.extend(announcement);
        self.commits.extend(decision.row);
        self.suspects_frr |= decision.suspects_frr;
    }

    fn silences(&self) -> bool {
        !self.silence.is_empty()
    }

    /// ARP, off before on: the other way round two VNIs that share a segment would answer twice.
    fn switches(mut self) -> Option<Effect> {
        let mut switches = self.silence;
        switches.append(&mut self.answer);
        (!switches.is_empty()).then_some(Effect::SwitchArp(switches))
    }
}

impl Gateway {
    /// What is to be done now. Most effects are answered by an event at once; ask again after that until
    /// nothing is left, then wait for the next event or [`Gateway::next_deadline`].
    pub fn plan(&mut self, now: Time) -> Vec<Effect> {
        // Until the rows are known, an adopted host is left as it is; the guard silences it if the lease ends.
        if self.mirror.is_complete() || !self.membership.is_serving(now) {
            self.lifecycle.end_adoption();
        }
        if self.lifecycle.is_adopting() {
            self.deadline = self.membership.fence_at();
            return Vec::new();
        }
        let mut wake = Wake::after(now);
        wake.wake_at_any(self.routes.watch_request(now));
        let gives_way = self.look_at_fitness(now, &mut wake);
        let node = self.node_view(now, gives_way);
        let mut batch = self.visit_vnis(now, &node);
        if let Some(found) = self.vnis.take_capabilities() {
            self.membership.take_capabilities(found);
        }
        if batch.suspects_frr {
            self.routes.suspect();
        }
        if self.drain_is_over(now, &node) {
            self.lifecycle.stop(now, Exit::Stopped);
            return self.plan(now);
        }
        self.wake_node(&mut wake);
        let mut effects = Vec::new();
        // Before what takes longer.
        effects.extend(self.plan_watch(now, &node, &mut wake));
        effects.extend(self.plan_exit(now, &batch));
        let commits = std::mem::take(&mut batch.commits);
        effects.extend(self.plan_host(now, batch, &mut wake).into_iter().flatten());
        effects.extend(self.plan_registration(now, &node, &mut wake));
        effects.extend(self.plan_rows(now, commits));
        wake.wake_at_any(self.vnis.first_wake());
        self.deadline = wake.earliest();
        effects
    }

    /// Has the rank follow the signs. Returns whether this node is to give way to a better one.
    fn look_at_fitness(&mut self, now: Time, wake: &mut Wake) -> bool {
        if self.routes.has_looked() {
            let refuses = self.routes.failing_since();
            let unfit_at = refuses.map(|since| since + FRR_PATIENCE);
            wake.wake_at_any(unfit_at);
            let usable = self.routes.is_up() && unfit_at.is_none_or(|due| due > now);
            self.fitness.frr_is(now, usable);
        }
        wake.wake_at_any(self.fitness.look(now));
        let best = self.mirror.nodes().best_rank_beside(&self.config.me);
        // A node that fell before this one is known to have fallen once the watch has come as far as this node's own
        // publication. Before that, two nodes that fall together would both give way.
        let is_told = self.mirror.has_heard_of(&self.config.me);
        let published = self.membership.published_fitness(&self.mirror);
        let published = published.filter(|_| is_told).map(|it| it.rank);
        let (gives_way, due) = self.fitness.gives_way(now, published, best);
        wake.wake_at_any(due);
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
            uniform: self.mirror.nodes().are_without_go(),
            routes: self.routes.view(now, [RELEASE_PATIENCE, PATIENCE]),
            is_fit: rank == Rank::Fit,
            gives_way,
        }
    }

    fn visit_vnis(&mut self, now: Time, node: &NodeView) -> Batch {
        let context = Context {
            now,
            node,
            config: &self.config,
            mirror: &self.mirror,
            routes: &self.routes,
            next_announcement: self.refresh.next_announcement(),
        };
        let mut batch = Batch::default();
        self.vnis.visit(now, node, |vni, local| {
            let Some(row) = context.mirror.row(vni) else {
                return VniStatus::default();
            };
            let decision = context.decide(vni, row, local);
            let status = decision.status;
            batch.add(vni, decision);
            status
        });
        batch
    }

    /// When the node as a whole is to be looked at again.
    fn wake_node(&self, wake: &mut Wake) {
        wake.wake_at_any(self.lifecycle.deadline());
        wake.wake_at_any(self.membership.fence_at());
        wake.wake_at(self.membership.distrust_until());
        wake.wake_at_any(self.membership.stable_at());
        // A retry that is not due yet must wake the worker when it is.
        wake.wake_at(self.writer.retry_at());
        if let Some(since) = self.routes.failing_since() {
            wake.wake_at(since + RELEASE_PATIENCE);
            wake.wake_at(since + PATIENCE);
        }
    }

    fn drain_is_over(&self, now: Time, node: &NodeView) -> bool {
        if !self.lifecycle.is_draining() {
            return false;
        }
        let remaining = self.vnis.totals().remaining;
        let (me, mirror) = (&self.config.me, &self.mirror);
        let has_left = mirror.has_heard_of(me) && !mirror.ring().has(me);
        let handed_over = node.may_write && has_left && remaining == 0;
        handed_over || self.lifecycle.is_overdue(now) || !node.serving
    }

    fn plan_watch(&mut self, now: Time, node: &NodeView, wake: &mut Wake) -> Option<Effect> {
        // Never beside a Go wmgwd: that writes over rows that it has not read, and the owner of such a row must hear
        // of it.
        let worthwhile = node.uniform && self.vnis.totals().taken > 0;
        let (effect, resume_at) = self.watch_pause.plan(now, worthwhile);
        wake.wake_at_any(resume_at);
        effect
    }

    fn plan_exit(&mut self, now: Time, batch: &Batch) -> Option<Effect> {
        let totals = self.vnis.totals();
        let is_busy = batch.silences() || !self.routes.is_idle();
        let remains = Remains {
            withdrawing: totals.exposed > 0 || is_busy,
            lingering: totals.lingering > 0,
        };
        self.lifecycle.exit(now, remains).map(Effect::Exit)
    }

    fn plan_host(&mut self, now: Time, mut batch: Batch, wake: &mut Wake) -> [Option<Effect>; 4] {
        let due = std::mem::take(&mut batch.announcements);
        let vnis = &self.vnis;
        let statuses_from = |at| vnis.statuses_from(at);
        let (announcement, next) = self.refresh.plan(now, vnis.len(), statuses_from, due);
        wake.wake_at_any(next);
        let routes = std::mem::take(&mut batch.routes);
        let (routes, retry_at) = self.routes.plan(now, routes, || self.vnis.shown());
        wake.wake_at_any(retry_at);
        let hastened = std::mem::take(&mut batch.hastened);
        let hastened = (!hastened.is_empty()).then_some(Effect::HastenRoutes(hastened));
        [batch.switches(), announcement, hastened, routes]
    }

    fn plan_registration(&mut self, now: Time, node: &NodeView, wake: &mut Wake) -> Option<Effect> {
        if !node.serving || node.stopping {
            return None;
        }
        // Before the first look at FRR the node would register without points, and VNIs that it adopted would be
        // pulled. Nothing of an earlier run may still be on show when other nodes begin to rely on this one.
        let host_is_clean = || {
            let is_known = |local: &VniState| local.arp().answers().is_some();
            self.routes.was_tried() && self.vnis.iter().all(is_known)
        };
        let ready = self.mirror.is_complete() && self.routes.has_looked();
        if !ready || !(self.membership.is_registered(&self.mirror) || host_is_clean()) {
            return None;
        }
        // Nodes that read ranks pass this one over for its own; others only if it is not in the ring.
        let is_passed_over = self.fitness.tracks(Sign::Frr) && self.mirror.nodes().all_have_ranks();
        let takes = !node.draining && (self.routes.is_able() || is_passed_over);
        let fitness = self.fitness.published();
        let (effect, retry_at) = self.membership.plan(now, &self.mirror, takes, fitness);
        wake.wake_at_any(retry_at);
        effect
    }

    fn plan_rows(&mut self, now: Time, commits: Vec<Commit>) -> Option<Effect> {
        let rows = self.writer.gather(now, commits);
        let (lease, rows) = self.membership.lease().zip(rows)?;
        Some(Effect::Commit { lease, rows })
    }
}
