//! One node: decides, for all its VNIs at once, what the host shall show and which rows to write next.
//!
//! Pure: no clock, no thread, no I/O, no log. The worker hands it what happened ([`Gateway::observe`]) and
//! asks what is to be done now ([`Gateway::plan`]), does that, and reports the outcomes as events again.
//! Whole clusters of it run under faults in `sim`.
//!
//! It is level-triggered: a plan drives the host from what it shows to what it should show (see
//! [`fsm::wanted`](crate::model::fsm::wanted)), whatever was there before. A missed event, a failed vtysh run and
//! a restarted FRR are repaired by the same code that handles the normal case.

mod ability;
mod arp;
mod backoff;
mod decide;
mod events;
mod fitness;
mod lifecycle;
mod membership;
mod mirror;
mod plan;
mod refresh;
mod routes;
mod schedule;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;
mod vni;
mod vni_table;
mod watch_pause;
mod writer;

use crate::model::fitness::SignSet;
use crate::model::frr::{Cost, FrrDaemons};
use crate::model::fsm::RowView;
use crate::model::ring::Points;
use crate::model::types::{Lease, LeaseId, NodeName, Revision, Time, Vni, VniRange};
use crate::schema::{Change, CommitResult};
pub use events::{ArpOutcome, CommitOutcome, Effect, Event, Exit, RegisterOutcome, Registration};
use fitness::OwnFitness;
use fnv::FnvHashSet;
use lifecycle::Lifecycle;
use membership::Membership;
use mirror::{Mirror, News, Row};
use refresh::Refresh;
use routes::Routes;
use std::time::Duration;
use vni::VniState;
use vni_table::VniTable;
use watch_pause::WatchPause;
use writer::Writer;

/// The configuration of a node. It does not change while the node runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its name.
    pub me: NodeName,
    /// The VNIs that it serves.
    pub range: VniRange,
    /// Its ring points.
    pub points: Points,
    /// The node withdraws everything this long before its lease can end.
    pub fence_margin: Duration,
    /// How long the node waits between two phases of a migration, so that routes and ARP caches converge.
    pub settle: Duration,
    /// How long the node must have been registered before it takes VNIs from living owners.
    pub join_hold: Duration,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// How long a lease can live that no node renews any more. The node waits this long for the lease of an earlier
    /// run, after etcd was set back, and for an owner that may repair an unreadable row.
    pub max_lease_life: Duration,
    /// The OSPF cost of a VNI in the first time after a failover (see `--takeover-cost`).
    pub takeover_cost: Cost,
    /// The host announces VNIs upstream by itself, so that this need not wait while FRR is busy.
    pub announces_itself: bool,
    /// The signs by which the node judges whether it can forward.
    pub track: SignSet,
    /// After a sign was bad, all signs must be good for this long. Then the node takes VNIs again.
    pub fit_hold: Duration,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Gateway {
    config: Config,
    membership: Membership,
    lifecycle: Lifecycle,
    mirror: Mirror,
    vnis: VniTable,
    routes: Routes,
    fitness: OwnFitness,
    writer: Writer,
    watch_pause: WatchPause,
    refresh: Refresh,
    deadline: Option<Time>,
}

impl Gateway {
    /// A node that has not heard of anything yet.
    pub fn new(config: Config) -> Gateway {
        let vnis = VniTable::new(config.range);
        let mirror = Mirror::new(config.range);
        let membership = Membership::new(&config);
        let routes = Routes::new(config.range.len());
        let fitness = OwnFitness::new(config.track, config.fit_hold);
        Gateway {
            config,
            membership,
            lifecycle: Lifecycle::default(),
            mirror,
            vnis,
            routes,
            fitness,
            writer: Writer::default(),
            watch_pause: WatchPause::default(),
            refresh: Refresh::default(),
            deadline: None,
        }
    }

    /// When [`Gateway::plan`] wants to be asked again, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Has the next pass look at every VNI, needed or not.
    #[cfg(test)]
    fn look_at_everything(&mut self) {
        self.vnis.look_at_all();
    }

    /// Takes note of what happened.
    pub fn observe(&mut self, now: Time, event: Event) {
        match event {
            Event::Snapshot { revision, changes } => self.observe_snapshot(now, revision, &changes),
            Event::Changed(changes) => {
                let news = self.mirror.take_changes(&changes);
                self.heed(now, &news);
            }
            Event::MassExpiry(changes) => {
                let news = self.mirror.take_changes(&changes);
                self.heed(now, &news);
                self.watch_pause.ask();
            }
            Event::Rewound => self.rewind(now),
            Event::Lease(lease) => self.observe_lease(now, lease),
            Event::GuardFenced => {
                // A node that does not serve needs nothing here: `observe_lease` forgets the host's state as soon as
                // the node has a valid lease again.
                if self.membership.is_serving(now) {
                    self.forget_host();
                }
            }
            Event::ArpSwitched(outcomes) => {
                for (vni, outcome) in outcomes {
                    self.observe_arp(now, vni, outcome);
                }
            }
            Event::Announced(vnis) => {
                for vni in vnis {
                    let is_news = |local: &VniState| !local.is_long_announced();
                    if self.vnis.get(vni).is_some_and(is_news)
                        && let Some(local) = self.vnis.mark_dirty(vni)
                    {
                        local.announce_sent(now);
                    }
                }
            }
            Event::RoutesReset(taken) => self.observe_reset(now, taken),
            Event::RoutesChanged { failed } => self.observe_routes(now, &failed),
            Event::Committed(outcome) => self.observe_commit(now, outcome),
            Event::Registered(outcome) => self.observe_registration(now, outcome),
            Event::Health(health) => self.routes.observe_health(health),
            Event::Signs(bad) => self.fitness.tell(now, bad),
            Event::CutOff(cut_off) => self.fitness.is_cut_off(now, cut_off),
            Event::Links(vnis) => {
                self.routes.upstream_lost(&vnis);
                for vni in vnis {
                    if let Some(local) = self.vnis.mark_dirty(vni) {
                        local.link_changed();
                    }
                }
            }
            Event::Drifted(vnis) => {
                for vni in vnis {
                    if let Some(local) = self.vnis.mark_dirty(vni) {
                        local.drifted();
                    }
                }
            }
            Event::UpstreamLost(vnis) => {
                self.routes.upstream_lost(&vnis);
                for vni in vnis {
                    if let Some(local) = self.vnis.mark_dirty(vni) {
                        local.upstream_lost();
                    }
                }
            }
            Event::Drain => self.lifecycle.drain(now, self.config.drain_timeout),
            Event::Stop => self.lifecycle.stop(now, Exit::Stopped),
        }
    }

    /// Whether the node takes part: it knows the rows, and etcd has it registered.
    pub fn is_in_sync(&self) -> bool {
        self.mirror.is_complete() && self.membership.is_registered(&self.mirror)
    }

    /// Whether it was told to end.
    pub fn is_leaving(&self) -> bool {
        self.lifecycle.is_leaving()
    }

    /// The VNIs whose rows changed since the last call. The worker counts them for the metrics.
    pub fn take_changed(&mut self) -> Vec<Vni> {
        self.mirror.take_changed()
    }

    /// The lease, and whether it is valid at `now`: then no other node serves a VNI that etcd says is this node's. The
    /// witnesses' part of the proof is not in this: the fence checks it.
    pub fn valid_lease(&self, now: Time) -> (Option<LeaseId>, bool) {
        (self.membership.lease(), self.membership.is_serving(now))
    }

    /// Whether etcd says that this node owns `vni` under its present lease.
    pub fn owns(&self, vni: Vni) -> bool {
        let lease = self.membership.lease();
        let row = self.mirror.row(vni);
        row.is_some_and(|row| row.is_owned_by(&self.config.me, lease))
    }

    /// The row of a VNI as it was last read, for logs, metrics and the notify command.
    pub fn row(&self, vni: Vni) -> Option<RowView<'_>> {
        self.mirror.row(vni).map(Row::view)
    }

    /// Whether an operator has taken this node out: it hands its VNIs over and takes none, but goes on running.
    pub fn is_drained(&self) -> bool {
        self.mirror.nodes().is_drained(&self.config.me)
    }

    /// Whether FRR has not answered for too long.
    pub fn misses_frr(&self) -> bool {
        self.routes.is_overdue()
    }

    fn observe_snapshot(&mut self, now: Time, revision: Revision, changes: &[Change]) {
        let Some(news) = self.mirror.take_snapshot(revision, changes) else {
            return;
        };
        self.vnis.look_at_all();
        self.heed(now, &news);
        self.membership.follow(now, &self.mirror);
    }

    /// Takes note of what an event changed in the mirror.
    fn heed(&mut self, now: Time, news: &News) {
        let nodes = self.mirror.nodes();
        let uniform = nodes.are_without_go();
        for row in &news.rows {
            if let Some(local) = self.vnis.mark_dirty(row.vni) {
                local.row_changed(now, row, nodes, uniform);
            }
        }
        if news.nodes {
            // Which nodes live and which node each VNI belongs to may have changed.
            self.vnis.look_at_all();
            if self.mirror.nodes().registered(&self.config.me).is_none() {
                self.membership.name_is_free();
            }
            self.membership.follow(now, &self.mirror);
        }
    }

    /// etcd was set back to an older state. The rows may now name another node for a VNI that this node serves, or
    /// this node for a VNI that another node serves. So every node withdraws everything first, and begins anew.
    fn rewind(&mut self, now: Time) {
        self.mirror.rewind();
        self.membership.rewind(now);
        for (_, local) in self.vnis.mark_all_dirty() {
            local.enter(now);
        }
    }

    /// The node takes `lease` over from an earlier run, which died. This host has served the VNIs of that lease all the
    /// time, and goes on. The worker calls this before any other method.
    pub fn adopt(&mut self, lease: Lease) {
        self.membership.adopt(lease);
        self.lifecycle.adopt();
        self.routes.adopt();
    }

    fn observe_lease(&mut self, now: Time, lease: Option<Lease>) {
        if self.membership.set_lease(now, lease, &self.mirror) {
            self.forget_host();
        }
    }

    /// Forgets what the host shows: the fence or the guard may have withdrawn it. The outcomes of effects that are
    /// under way do not count either, because the withdrawal may have come after them.
    fn forget_host(&mut self) {
        for (_, local) in self.vnis.mark_all_dirty() {
            local.forget();
        }
        self.routes.forget();
    }

    fn observe_arp(&mut self, now: Time, vni: Vni, outcome: ArpOutcome) {
        let known = |answers| {
            self.vnis
                .get(vni)
                .is_some_and(|local| local.has_arp(answers))
        };
        if matches!(outcome, ArpOutcome::Answers(answers) if known(answers)) {
            return;
        }
        if let Some(local) = self.vnis.mark_dirty(vni) {
            local.arp_switched(now, vni, outcome);
        }
    }

    fn observe_reset(&mut self, now: Time, taken: FrrDaemons) {
        let Some(withdrawn) = self.routes.reset_is_over(now, taken) else {
            return;
        };
        let parts = withdrawn.parts();
        for (vni, local) in self.vnis.mark_all_dirty() {
            local.routes_reset(parts, withdrawn.has(vni));
        }
    }

    fn observe_routes(&mut self, now: Time, failed: &[Vni]) {
        let failed: FnvHashSet<Vni> = failed.iter().copied().collect();
        for change in self.routes.changes_are_over() {
            let Some(local) = self.vnis.mark_dirty(change.vni) else {
                continue;
            };
            if failed.contains(&change.vni) {
                local.routes_failed(change, now);
            } else {
                local.routes_taken(change, now);
            }
        }
    }

    fn observe_commit(&mut self, now: Time, outcome: CommitOutcome) {
        match outcome {
            CommitOutcome::Done {
                revision,
                lease,
                each,
            } => {
                let undecided = each
                    .iter()
                    .filter(|it| it.2 == CommitResult::Undecided)
                    .count();
                self.writer.succeed(now, undecided, each.len());
                for (vni, write, fate) in each {
                    let Some(local) = self.vnis.mark_dirty(vni) else {
                        continue;
                    };
                    match fate {
                        CommitResult::Written => {
                            let me = &self.config.me;
                            self.mirror.committed(vni, write, me, lease, revision);
                            local.row_written(now, write);
                        }
                        CommitResult::Beaten => local.write_was_beaten(now, vni),
                        CommitResult::Undecided => local.write_is_undecided(),
                    }
                }
            }
            CommitOutcome::NotRegistered => self.membership.registration_is_lost(),
            CommitOutcome::Failed(vnis) => self.writer.fail(now, &vnis),
        }
    }

    fn observe_registration(&mut self, now: Time, outcome: RegisterOutcome) {
        match outcome {
            RegisterOutcome::Done {
                registration,
                revision,
            } => {
                self.membership.registered();
                let me = &self.config.me;
                let news = self.mirror.registered(me, registration, revision);
                self.heed(now, &news);
            }
            RegisterOutcome::NameTaken => {
                if self.membership.name_is_taken(now) {
                    self.lifecycle.stop(now, Exit::NameTaken);
                }
            }
            RegisterOutcome::Failed => self.membership.registration_failed(now),
        }
    }
}
