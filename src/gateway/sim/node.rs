//! One node: the worker that drives a real [`Gateway`], as `worker.rs` does, and its FRR lane.

use super::cluster::{Call, Cluster, Reason, Reply, ms, note};
use super::faults::Fault;
use super::go::Go;
use super::host::ModelHost;
use crate::gateway::{CommitOutcome, Config, Effect, Event, Exit, Gateway, RegisterOutcome};
use crate::host::{Parts, RouteChange};
use crate::schema::{self, Meta};
use crate::types::{Lease, LeaseId, NodeName, Revision, Time, Vni};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Something that happens at a point in time. `inc` is the run of the process that it is meant for.
#[derive(Debug)]
pub enum Ev {
    Fault(Fault),
    /// A lease may end in etcd.
    Expire,
    /// The worker's next deadline.
    Wake {
        n: usize,
        inc: u32,
    },
    /// Something for the worker's inbox.
    Inbox {
        n: usize,
        inc: u32,
        event: Box<Event>,
    },
    Reach {
        n: usize,
        inc: u32,
        id: u64,
        call: Box<Call>,
    },
    Answer {
        n: usize,
        inc: u32,
        id: u64,
        reply: Box<Reply>,
    },
    Timeout {
        n: usize,
        inc: u32,
        id: u64,
    },
    /// The watchdog's next keepalive.
    Dog {
        n: usize,
        inc: u32,
    },
    /// The watchdog looks whether it must fence.
    Fence {
        n: usize,
        inc: u32,
    },
    /// The guard looks whether it must fence: it goes on when the process does not.
    Guard {
        n: usize,
    },
    GuardRoutes {
        n: usize,
    },
    Watch {
        n: usize,
        inc: u32,
    },
    Poll {
        n: usize,
        inc: u32,
    },
    Health {
        n: usize,
        inc: u32,
    },
    /// vtysh has an effect.
    LaneApply {
        n: usize,
        inc: u32,
        job: u64,
    },
    /// vtysh has ended.
    LaneDone {
        n: usize,
        inc: u32,
        job: u64,
    },
    /// A Go node's transaction leaves.
    Go {
        n: usize,
        inc: u32,
        write: Box<super::go::GoWrite>,
    },
}

/// A worker that asks more often within a second does not batch, or does not back off.
const MOST_CALLS: usize = 60;

impl Ev {
    /// The process that this happens inside of, and that must run for it.
    fn process(&self) -> Option<(usize, u32)> {
        use Ev::*;
        match *self {
            Wake { n, inc }
            | Inbox { n, inc, .. }
            | Answer { n, inc, .. }
            | Timeout { n, inc, .. }
            | Dog { n, inc }
            | Fence { n, inc }
            | Watch { n, inc }
            | Poll { n, inc }
            | Health { n, inc }
            | LaneDone { n, inc, .. }
            | Go { n, inc, .. } => Some((n, inc)),
            Fault(_)
            | Expire
            | Reach { .. }
            | Guard { .. }
            | GuardRoutes { .. }
            | LaneApply { .. } => None,
        }
    }
}

/// A gateway machine.
pub struct Node {
    pub config: Config,
    pub go: bool,
    pub inc: u32,
    pub process: Process,
    pub paused: bool,
    pub deferred: Vec<Ev>,
    pub cut: bool,
    /// The watch hangs although the node is not cut.
    pub watch_hangs: bool,
    pub host: ModelHost,
    /// The shared `LeaseClock`: survives the process, in the guard.
    pub clock: Option<Lease>,
    pub dog: Dog,
    pub feed: Feed,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// It was told to drain: nobody restarts it.
    pub drained: bool,
    pub has_planned: bool,
    /// Since when it shows a VNI that it has no part in.
    pub leftover_since: Vec<Option<Time>>,
    pub calls: Vec<Time>,
    pub commits: u64,
    pub plans: u64,
}

pub enum Process {
    Down,
    Own(Box<Own>),
    Go(Box<Go>),
}

/// The lease's keeper.
#[derive(Default)]
pub struct Dog {
    pub lease: Option<LeaseId>,
    pub call: Option<(u64, Time)>,
}

/// The watch.
#[derive(Default)]
pub struct Feed {
    /// Where the watch goes on; `None` needs a snapshot first.
    pub next: Option<Revision>,
    pub scheduled: bool,
    pub ranges: Vec<u64>,
}

/// A process of ours.
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
    taken: Parts,
    failed: Vec<Vni>,
    applied: bool,
}

enum Work {
    Reset { parts: Parts, keep: BTreeSet<Vni> },
    Change(Vec<RouteChange>),
}

impl Node {
    pub fn new(config: Config, go: bool, vnis: u32) -> Node {
        Node {
            config,
            go,
            inc: 0,
            process: Process::Down,
            paused: false,
            deferred: Vec::new(),
            cut: false,
            watch_hangs: false,
            host: ModelHost::new(vnis),
            clock: None,
            dog: Dog::default(),
            feed: Feed::default(),
            exit: None,
            drained: false,
            has_planned: false,
            leftover_since: vec![None; vnis as usize],
            calls: Vec::new(),
            commits: 0,
            plans: 0,
        }
    }

    pub fn name(&self) -> &NodeName {
        &self.config.me
    }

    pub fn runs(&self) -> bool {
        !matches!(self.process, Process::Down)
    }

    /// Whether what was planned under `lease` may be done now: asked right before everything that claims.
    /// A worker that was held up may come to an effect when its lease has ended, what it owned has gone to
    /// others, and the watchdog already has another lease: so it is the lease of the plan that counts.
    pub fn may_claim(&self, now: Time, lease: Option<LeaseId>) -> bool {
        let margin = self.config.fence_margin;
        self.clock
            .is_some_and(|clock| Some(clock.id) == lease && now < clock.valid_until - margin)
    }
}

impl Cluster {
    pub fn handle(&mut self, ev: Ev) {
        if let Some((n, inc)) = ev.process() {
            let node = &mut self.nodes[n];
            if node.inc != inc || !node.runs() {
                return;
            }
            if node.paused {
                node.deferred.push(ev);
                return;
            }
        }
        match ev {
            Ev::Fault(fault) => self.strike(fault),
            Ev::Expire => self.expire(),
            Ev::Wake { n, .. } => {
                let now = self.now;
                if let Some(own) = self.own(n)
                    && own.wake.is_some_and(|wake| wake <= now)
                {
                    own.wake = None;
                    self.work(n);
                }
            }
            Ev::Inbox { n, event, .. } => self.tell(n, *event),
            Ev::Reach { n, inc, id, call } => self.reach(n, inc, id, *call),
            Ev::Answer { n, id, reply, .. } => {
                if !self.nodes[n].cut && self.etcd.up {
                    self.answer(n, id, Some(*reply));
                }
            }
            Ev::Timeout { n, id, .. } => self.answer(n, id, None),
            Ev::Dog { n, .. } => self.dog(n),
            Ev::Fence { n, .. } => self.fence(n),
            Ev::Guard { n } => self.guard(n),
            Ev::GuardRoutes { n } => self.guard_routes(n),
            Ev::Watch { n, .. } => self.watch(n),
            Ev::Poll { n, .. } => self.poll(n),
            Ev::Health { n, inc } => {
                let health = self.nodes[n].host.frr;
                self.tell(n, Event::Health(health));
                self.check_leftovers(n);
                self.after(ms(1000), Ev::Health { n, inc });
            }
            Ev::LaneApply { n, inc, job } => self.lane_apply(n, inc, job),
            Ev::LaneDone { n, job, .. } => self.lane_done(n, job),
            Ev::Go { n, write, .. } => self.go_write(n, *write),
        }
    }

    /// A process starts.
    pub fn boot(&mut self, n: usize) {
        let redraws = self.nodes[n].inc > 0 && self.rng.chance(300);
        let redrawn: Vec<u64> = (0..8).map(|_| self.rng.next()).collect();
        let redrawn = if redraws { redrawn } else { Vec::new() };
        let node = &mut self.nodes[n];
        node.inc += 1;
        node.deferred.clear();
        node.paused = false;
        node.clock = None;
        node.dog = Dog::default();
        node.feed = Feed::default();
        node.exit = None;
        node.has_planned = false;
        node.leftover_since.fill(None);
        node.drained = false;
        if !redrawn.is_empty() {
            node.config.points = redrawn;
        }
        let inc = node.inc;
        node.process = if node.go {
            node.host.silence();
            node.host.withdraw_routes();
            Process::Go(Box::default())
        } else {
            Process::Own(Box::new(Own {
                gateway: Gateway::new(node.config.clone()),
                inbox: VecDeque::new(),
                todo: VecDeque::new(),
                planned_under: None,
                waiting: None,
                stalled_until: Time::default(),
                wake: None,
                lane: None,
                next_job: 0,
                idle_plans: (Time::default(), 0),
            }))
        };
        note!(self, "{} starts, run {inc}", self.nodes[n].name());
        self.work(n);
        let delays: Vec<Duration> = (0..3).map(|_| self.rng.millis(0, 300)).collect();
        self.after(delays[0], Ev::Health { n, inc });
        self.after(delays[1], Ev::Dog { n, inc });
        self.after(delays[2], Ev::Watch { n, inc });
        let poll = self.rng.millis(1_000, 10_000);
        self.after(poll, Ev::Poll { n, inc });
    }

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
            while let Some(event) = own.inbox.pop_front() {
                if let Event::Lease(lease) = &event {
                    own.planned_under = lease.map(|lease| lease.id);
                }
                own.gateway.observe(now, event);
            }
            let effects = own.gateway.plan(now);
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
                        crate::gateway::ArpOutcome::Failed
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
            Effect::Commit { lease, rows } => {
                self.nodes[n].commits += 1;
                if !self.nodes[n].may_claim(self.now, Some(lease)) {
                    let vnis = rows.iter().map(|row| row.vni).collect();
                    self.inbox(n, Event::Committed(CommitOutcome::Failed(vnis)));
                    return;
                }
                if rows.len() > 125 {
                    self.fail(format!("{} rows in one transaction", rows.len()));
                }
                let txn = schema::commit(self.nodes[n].name(), lease, &rows);
                self.ask(n, txn, Reason::Commit { lease, rows });
            }
            Effect::Register { lease, points } => {
                let config = &self.nodes[n].config;
                let meta = Meta {
                    version: "sim".into(),
                    range: config.range,
                };
                let txn = schema::register(&config.me, lease, &points, &meta);
                self.ask(n, txn, Reason::Register { lease, points });
            }
            Effect::Exit(exit) => self.exit(n, exit),
        }
    }

    fn inbox(&mut self, n: usize, event: Event) {
        if let Some(own) = self.own(n) {
            own.inbox.push_back(event);
        }
    }

    fn ask(&mut self, n: usize, txn: crate::etcd::Txn, reason: Reason) {
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
    fn answer(&mut self, n: usize, id: u64, reply: Option<Reply>) {
        if self.nodes[n].dog.call.is_some_and(|(call, _)| call == id) {
            self.dog_answer(n, reply);
            return;
        }
        if self.nodes[n].feed.ranges.contains(&id) {
            self.range_answer(n, id, reply);
            return;
        }
        let Some(own) = self.own(n) else { return };
        let Some((_, reason)) = own.waiting.take_if(|waiting| waiting.0 == id) else {
            return;
        };
        let event = match (reason, reply) {
            (Reason::Commit { lease, rows }, Some(Reply::Txn(reply))) => {
                Event::Committed(match schema::committed(&rows, &reply) {
                    Some(each) => CommitOutcome::Done {
                        revision: reply.revision,
                        lease,
                        each,
                    },
                    None => CommitOutcome::Fenced,
                })
            }
            (Reason::Commit { rows, .. }, _) => {
                let vnis = rows.iter().map(|row| row.vni).collect();
                Event::Committed(CommitOutcome::Failed(vnis))
            }
            (Reason::Register { lease, points }, Some(Reply::Txn(reply))) => {
                Event::Registered(if schema::registered(&reply) {
                    RegisterOutcome::Done {
                        points,
                        lease,
                        revision: reply.revision,
                    }
                } else {
                    RegisterOutcome::NameTaken
                })
            }
            (Reason::Register { .. }, _) => Event::Registered(RegisterOutcome::Failed),
        };
        self.tell(n, event);
    }

    fn lane_start(&mut self, n: usize, work: Work) {
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
        let Some(own) = self.own(n) else { return };
        let busy = own.lane.is_some();
        own.next_job += 1;
        let job = own.next_job;
        own.lane = Some(Job {
            id: job,
            lease: own.planned_under,
            work,
            taken: Parts::NONE,
            failed: Vec::new(),
            applied: false,
        });
        if busy {
            self.fail("two jobs for FRR at once".into());
        }
        self.after(acts, Ev::LaneApply { n, inc, job });
        self.after(lasts, Ev::LaneDone { n, inc, job });
    }

    /// What vtysh was told takes effect; a paused daemon's vtysh goes on, a dead one's does not.
    fn lane_apply(&mut self, n: usize, inc: u32, id: u64) {
        if self.nodes[n].inc != inc {
            return;
        }
        let paused = self.nodes[n].paused;
        let Some(own) = self.own(n) else { return };
        let Some(mut job) = own.lane.take_if(|job| job.id == id) else {
            return;
        };
        let permitted = self.nodes[n].may_claim(self.now, job.lease);
        job.applied = true;
        match &job.work {
            Work::Reset { parts, keep } => job.taken = self.nodes[n].host.reset(*parts, keep),
            Work::Change(changes) => {
                for &change in changes {
                    // Nobody ends the vtysh of a process that is stopped itself: the guard cleans up.
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

    fn lane_done(&mut self, n: usize, id: u64) {
        let Some(own) = self.own(n) else { return };
        let Some(job) = own.lane.take_if(|job| job.id == id) else {
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
        self.check_exit(n);
        if let Some(lease) = lease {
            self.send(n, Call::Revoke(lease));
        }
        let node = &mut self.nodes[n];
        node.process = Process::Down;
        node.inc += 1;
        node.clock = None;
        node.exit = Some(exit);
    }
}
