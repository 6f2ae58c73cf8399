//! A process of this program: the worker that drives a real [`Gateway`] as `worker.rs` does, and its FRR lane.

use super::cluster::{Call, Cluster, Reason, Reply, ms, note};
use super::node::{Ev, Process};
use super::tables::Family;
use crate::etcd::{Op, Txn};
use crate::gateway::{ArpOutcome, CommitOutcome, Effect, Event, Exit, Gateway, RegisterOutcome};
use crate::model::frr::{FrrDaemons, RouteChange};
use crate::model::types::{LeaseId, Time, Vni};
use crate::schema::{self, Meta};
use std::collections::{BTreeSet, VecDeque};

/// A worker that asks more often within a second does not batch, or does not back off.
const MOST_CALLS: usize = 60;

/// A process of this program.
pub struct Own {
    pub gateway: Gateway,
    pub inbox: VecDeque<Event>,
    pub todo: VecDeque<Effect>,
    /// The lease that the gateway knew when it planned.
    pub planned_under: Option<LeaseId>,
    pub waiting: Option<(u64, Reason)>,
    pub stalled_until: Time,
    pub wake: Option<Time>,
    pub lane: Option<Job>,
    pub next_job: u64,
    pub idle_plans: (Time, u32),
}

/// What vtysh is doing.
pub struct Job {
    id: u64,
    lease: Option<LeaseId>,
    work: Work,
    taken: FrrDaemons,
    failed: Vec<Vni>,
    applied: bool,
}

enum Work {
    Reset {
        parts: FrrDaemons,
        keep: BTreeSet<Vni>,
    },
    Change(Vec<RouteChange>),
}

impl Own {
    pub fn new(gateway: Gateway) -> Own {
        Own {
            gateway,
            inbox: VecDeque::new(),
            todo: VecDeque::new(),
            planned_under: None,
            waiting: None,
            stalled_until: Time::default(),
            wake: None,
            lane: None,
            next_job: 0,
            idle_plans: (Time::default(), 0),
        }
    }
}

impl Cluster {
    /// Puts something into the worker's inbox.
    pub fn tell(&mut self, n: usize, event: Event) {
        if let Process::Go(_) = self.nodes[n].process {
            self.go_observe(n, event);
            return;
        }
        if self.trace.is_some() && !matches!(event, Event::Health(_) | Event::Lease(Some(_))) {
            let mut text = format!("{event:?}");
            text.truncate(1500);
            note!(self, "{} <- {text}", self.nodes[n].name());
        }
        if let Some(own) = self.own(n) {
            own.inbox.push_back(event);
            self.work(n);
        }
    }

    /// The worker's loop, until it has to wait for something.
    pub fn work(&mut self, n: usize) {
        let mut spins = 0;
        loop {
            let (now, rough) = (self.now, self.settings.rough);
            // A new run must not wait before it has silenced what the one before it left: until then the
            // guard of that one has to stay.
            let stall = rough && self.nodes[n].has_planned && self.rng.chance(3);
            let long = if self.rng.chance(100) { 20_000 } else { 1_500 };
            let pause = self.rng.millis(10, long);
            let inc = self.nodes[n].inc;
            let Some(own) = self.own(n) else { return };
            if own.waiting.is_some() {
                return;
            }
            if now < own.stalled_until {
                let at = own.stalled_until;
                own.wake = Some(at);
                self.push(at, Ev::Wake { n, inc });
                return;
            }
            if stall {
                // The scheduler, the disk, a slow write into /proc.
                own.stalled_until = now + pause;
                continue;
            }
            if let Some(effect) = own.todo.pop_front() {
                self.execute(n, effect);
                continue;
            }
            let mut hears_of_rewind = false;
            while let Some(event) = own.inbox.pop_front() {
                hears_of_rewind |= event == Event::Rewound;
                if let Event::Lease(lease) = &event {
                    own.planned_under = lease.map(|lease| lease.id);
                }
                own.gateway.observe(now, event);
            }
            // A look at what changed comes to the same as a look at everything.
            let mut thorough = own.gateway.clone();
            thorough.look_at_everything();
            let expected = thorough.plan(now);
            let effects = own.gateway.plan(now);
            let late = match (own.gateway.next_deadline(), thorough.next_deadline()) {
                (Some(deadline), Some(expected)) => deadline > expected,
                (deadline, expected) => deadline.is_none() && expected.is_some(),
            };
            if effects != expected || late {
                let deadlines = (own.gateway.next_deadline(), thorough.next_deadline());
                let name = self.nodes[n].name().clone();
                self.fail(format!(
                    "{name} overlooks something: {effects:?} for {expected:?}, {deadlines:?}"
                ));
                return;
            }
            let deadline = own.gateway.next_deadline();
            spins += 1;
            let quiet = effects.is_empty();
            own.todo = effects.into();
            if quiet {
                own.wake = deadline;
                let again = if own.idle_plans.0 == now {
                    own.idle_plans.1 + 1
                } else {
                    1
                };
                own.idle_plans = (now, again);
            }
            let busy = own.idle_plans.0 == now && own.idle_plans.1 > 200;
            self.nodes[n].plans += 1;
            let feed = &mut self.nodes[n].feed;
            feed.has_heard |= hears_of_rewind;
            if quiet && std::mem::take(&mut feed.has_heard) {
                feed.is_stale = false;
            }
            self.nodes[n].has_planned |= quiet;
            if spins > 60 || busy {
                let name = self.nodes[n].name().clone();
                self.fail(format!("{name} plans for ever"));
                return;
            }
            if quiet {
                match deadline {
                    Some(at) if at <= now => {
                        let name = self.nodes[n].name().clone();
                        self.fail(format!("{name} has nothing to do, and at once again"));
                    }
                    Some(at) => self.push(at, Ev::Wake { n, inc }),
                    None => {}
                }
                return;
            }
        }
    }

    fn execute(&mut self, n: usize, effect: Effect) {
        if self.trace.is_some() {
            let mut text = format!("{effect:?}");
            text.truncate(1500);
            note!(self, "{} -> {text}", self.nodes[n].name());
        }
        let Some(lease) = self.own(n).map(|own| own.planned_under) else {
            return;
        };
        let permitted = self.nodes[n].may_claim(self.now, lease);
        match effect {
            Effect::SwitchArp(switches) => {
                let mut outcomes = Vec::new();
                for (vni, answer) in switches {
                    let allowed = !answer || permitted;
                    let outcome = if allowed {
                        if answer {
                            self.check_claim(n, "answers ARP for", vni);
                        }
                        self.nodes[n].host.set_arp(vni, answer)
                    } else {
                        ArpOutcome::Failed
                    };
                    outcomes.push((vni, outcome));
                }
                self.inbox(n, Event::ArpSwitched(outcomes));
            }
            Effect::Announce(vnis) => {
                if permitted {
                    for &vni in &vnis {
                        self.check_claim(n, "announces", vni);
                        self.check_announcement(n, vni);
                    }
                }
                self.inbox(n, Event::Announced(vnis));
            }
            Effect::ResetRoutes { parts, keep } => self.lane_start(n, Work::Reset { parts, keep }),
            Effect::ChangeRoutes(changes) => self.lane_start(n, Work::Change(changes)),
            Effect::HastenRoutes(changes) => {
                if !self.nodes[n].config.announces_itself {
                    self.fail("a host without routes of its own is to make some".into());
                }
                for change in changes {
                    if change.claims() {
                        if !permitted {
                            continue;
                        }
                        self.check_claim(n, "advertises", change.vni);
                    }
                    self.nodes[n].host.hasten(change);
                }
            }
            Effect::Commit { lease, rows } => {
                self.nodes[n].commits += 1;
                if !self.nodes[n].may_claim(self.now, Some(lease)) {
                    self.inbox(n, Event::Committed(CommitOutcome::Failed(rows.vnis())));
                    return;
                }
                let txn = schema::commit(self.nodes[n].name(), lease, &rows, None);
                let operations = operations(&txn);
                if operations > 128 {
                    self.fail(format!("{operations} operations in one transaction"));
                }
                self.ask(n, txn, Reason::Commit { lease, rows });
            }
            Effect::Register(registration) => {
                let config = &self.nodes[n].config;
                let meta = Meta {
                    version: "sim".into(),
                    range: config.range,
                    unable: Some(registration.unable.clone()),
                    fitness: Some(registration.fitness),
                    time: None,
                    kernel: None,
                    ipv6: None,
                };
                let (points, drawn) = (&registration.points, registration.drawn.as_deref());
                let txn = schema::register(&config.me, registration.lease, points, drawn, &meta);
                self.ask(n, txn, Reason::Register(registration));
            }
            Effect::PauseWatch => self.rest_watch(n),
            Effect::ResumeWatch => {
                self.nodes[n].feed.rests_until = None;
                self.tell_watch(n);
            }
            Effect::Exit(exit) => self.exit(n, exit),
        }
    }

    fn inbox(&mut self, n: usize, event: Event) {
        if let Some(own) = self.own(n) {
            own.inbox.push_back(event);
        }
    }

    fn ask(&mut self, n: usize, txn: Txn, reason: Reason) {
        let now = self.now;
        let calls = &mut self.nodes[n].calls;
        calls.retain(|&at| now.since(at) < ms(1_000));
        calls.push(now);
        if calls.len() > MOST_CALLS {
            let name = self.nodes[n].name().clone();
            self.fail(format!(
                "{name} asks etcd more than {MOST_CALLS} times a second"
            ));
        }
        let id = self.send(n, Call::Txn(txn, Box::new(reason.clone())));
        if let Some(own) = self.own(n) {
            own.waiting = Some((id, reason));
        }
    }

    /// An answer, or `None` where there is none in time.
    pub fn answer(&mut self, n: usize, id: u64, reply: Option<Reply>) {
        let knew = self.nodes[n].feed.asked.remove(&id).unwrap_or_default();
        if self.nodes[n].dog.call.is_some_and(|(call, _)| call == id) {
            self.dog_answer(n, reply);
            return;
        }
        if self.nodes[n].feed.ranges.contains(&id) {
            self.range_answer(n, id, reply, knew);
            return;
        }
        if let Some(at) = self.nodes[n].feed.looks.iter().position(|&look| look == id) {
            self.nodes[n].feed.looks.swap_remove(at);
            if let Some(Reply::Revision(revision)) = reply {
                self.is_rewound(n, revision, knew);
            }
            return;
        }
        let Some(own) = self.own(n) else { return };
        let Some((_, reason)) = own.waiting.take_if(|waiting| waiting.0 == id) else {
            return;
        };
        // What an older etcd answers counts as no answer.
        let reply = match reply {
            Some(Reply::Txn(reply)) if self.is_rewound(n, reply.revision, knew) => None,
            reply => reply,
        };
        let event = match (reason, reply) {
            (Reason::Commit { lease, rows }, Some(Reply::Txn(reply))) => {
                Event::Committed(match schema::committed(&rows, &reply) {
                    Some(each) => CommitOutcome::Done {
                        revision: reply.revision,
                        lease,
                        each,
                    },
                    None => CommitOutcome::NotRegistered,
                })
            }
            (Reason::Commit { rows, .. }, _) => {
                Event::Committed(CommitOutcome::Failed(rows.vnis()))
            }
            (Reason::Register(registration), Some(Reply::Txn(reply))) => {
                Event::Registered(if schema::registered(&reply) {
                    RegisterOutcome::Done {
                        registration,
                        revision: reply.revision,
                    }
                } else {
                    RegisterOutcome::NameTaken
                })
            }
            (Reason::Register(_), _) => Event::Registered(RegisterOutcome::Failed),
        };
        note!(self, "{} <- {event:?}", self.nodes[n].name());
        if let Some(own) = self.own(n) {
            // The worker has waited for it: it comes before what is in the inbox.
            own.inbox.push_front(event);
            self.work(n);
        }
    }

    fn lane_start(&mut self, n: usize, work: Work) {
        let Some(own) = self.own(n) else { return };
        let busy = own.lane.is_some();
        own.next_job += 1;
        own.lane = Some(Job {
            id: own.next_job,
            lease: own.planned_under,
            work,
            taken: FrrDaemons::NONE,
            failed: Vec::new(),
            applied: false,
        });
        if busy {
            self.fail("two jobs for FRR at once".into());
        }
        if !self.nodes[n].host.deaf {
            self.lane_resume(n);
        }
    }

    /// vtysh gets to work.
    pub fn lane_resume(&mut self, n: usize) {
        let slow = self.nodes[n].host.slow;
        let rough = self.settings.rough;
        let (low, high) = match (slow, rough) {
            (true, _) => (500, 6_000),
            (false, true) => (50, 800),
            (false, false) => (50, 200),
        };
        let lasts = self.rng.millis(low, high);
        let acts = lasts * self.rng.within(10, 100) as u32 / 100;
        let inc = self.nodes[n].inc;
        let job = self.own(n).and_then(|own| own.lane.as_ref());
        let Some(job) = job.map(|job| job.id) else {
            return;
        };
        self.after(acts, Ev::LaneApply { n, inc, job });
        self.after(lasts, Ev::LaneDone { n, inc, job });
    }

    /// What vtysh was told takes effect; a paused daemon's vtysh goes on, a dead one's does not.
    pub fn lane_apply(&mut self, n: usize, inc: u32, id: u64) {
        if self.nodes[n].inc != inc || self.nodes[n].host.deaf {
            return;
        }
        let paused = self.nodes[n].paused;
        let Some(own) = self.own(n) else { return };
        let Some(mut job) = own.lane.take_if(|job| job.id == id && !job.applied) else {
            return;
        };
        let permitted = self.nodes[n].may_claim(self.now, job.lease);
        job.applied = true;
        match &job.work {
            Work::Reset { parts, keep } => job.taken = self.nodes[n].host.reset(*parts, keep),
            Work::Change(changes) => {
                for &change in changes {
                    // A process that is stopped itself does not end its vtysh: the guard withdraws afterwards.
                    if change.claims() && !permitted && !paused {
                        job.failed.push(change.vni);
                        continue;
                    }
                    if change.claims() && !paused {
                        self.check_claim(n, "advertises", change.vni);
                    }
                    let half = self.rng.chance(500);
                    if !self.nodes[n].host.change(change, half) {
                        job.failed.push(change.vni);
                    }
                }
            }
        }
        note!(self, "{} vtysh acts", self.nodes[n].name());
        if let Some(own) = self.own(n) {
            own.lane = Some(job);
        }
    }

    pub fn lane_done(&mut self, n: usize, id: u64) {
        let Some(own) = self.own(n) else { return };
        let Some(job) = own.lane.take_if(|job| job.id == id && job.applied) else {
            return;
        };
        let event = match job.work {
            Work::Reset { .. } => Event::RoutesReset(job.taken),
            Work::Change(_) => Event::RoutesChanged { failed: job.failed },
        };
        self.tell(n, event);
    }

    fn exit(&mut self, n: usize, exit: Exit) {
        note!(self, "{} ends: {exit:?}", self.nodes[n].name());
        let lease = self.nodes[n].dog.lease;
        for vni in self.vnis() {
            self.nodes[n].host.audit_arp(vni, |answer| !answer);
        }
        let host = &mut self.nodes[n].host;
        // What the kernel refused to silence goes on until the lease ends.
        let lingers = exit == Exit::Unfinished && host.answers_any(Family::Ip6);
        if exit != Exit::Unfinished {
            host.tables.dismiss();
        }
        self.check_exit(n, exit);
        if let Some(lease) = lease.filter(|_| !lingers) {
            self.send(n, Call::Revoke(lease));
        }
        let node = &mut self.nodes[n];
        node.process = Process::Down;
        node.inc += 1;
        node.clock = node.clock.filter(|_| lingers);
        node.exit = Some(exit);
    }
}

/// As etcd counts them: those of each level, and the most of any below.
fn operations(txn: &Txn) -> usize {
    let own = [txn.compares.len(), txn.then.len(), txn.otherwise.len()];
    let ops = txn.then.iter().chain(&txn.otherwise);
    let below = ops.map(|op| match op {
        Op::Txn(inner) => operations(inner),
        _ => 0,
    });
    own.into_iter().max().unwrap_or(0) + below.max().unwrap_or(0)
}
