//! One node: what it is made of, and what happens to it when.

use super::cluster::{Call, Cluster, Reply, ms, note};
use super::faults::Fault;
use super::go::Go;
use super::host::ModelHost;
use super::worker::Own;
use crate::gateway::{Config, Event, Exit, Gateway};
use crate::model::frr::Health;
use crate::model::ring::Points;
use crate::model::types::{Lease, LeaseId, NodeName, Revision, Time, Vni};
use std::collections::{BTreeMap, BTreeSet};
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
    /// An event from etcd that is late; etcd may have gone back since.
    Late {
        n: usize,
        inc: u32,
        epoch: u32,
        event: Box<Event>,
    },
    /// The poll asks how new etcd is.
    Look {
        n: usize,
        inc: u32,
    },
    /// FRR is compared with what it was given.
    Audit {
        n: usize,
        inc: u32,
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
    /// The lease keeper's next keepalive.
    Dog {
        n: usize,
        inc: u32,
    },
    /// The fence looks whether it must come down.
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
    /// The kernel's hold on the lease runs out, if it was not renewed.
    Kernel {
        n: usize,
    },
    /// The daemon hears that something has happened to the tables, or to addresses.
    Gate {
        n: usize,
        inc: u32,
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
    /// What a Go node was about to do.
    Go {
        n: usize,
        inc: u32,
        step: Box<super::go::Step>,
    },
}

impl Ev {
    /// The process that this happens inside of, and that must run for it.
    fn process(&self) -> Option<(usize, u32)> {
        use Ev::*;
        match *self {
            Wake { n, inc }
            | Inbox { n, inc, .. }
            | Late { n, inc, .. }
            | Look { n, inc }
            | Audit { n, inc }
            | Answer { n, inc, .. }
            | Timeout { n, inc, .. }
            | Dog { n, inc }
            | Fence { n, inc }
            | Gate { n, inc }
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
            | Kernel { .. }
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
    /// The guard was killed together with the daemon.
    pub guard_is_dead: bool,
    /// Since when the daemon could set right what happened to the tables.
    pub could_tend_since: Option<Time>,
    /// The shared `LeaseClock`: survives the process, in the guard.
    pub clock: Option<Lease>,
    pub dog: Dog,
    pub feed: Feed,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// It was told to drain: it is not restarted.
    pub drained: bool,
    pub has_planned: bool,
    pub told_health: Option<Health>,
    /// The points that it had drawn before this run, as etcd had them then.
    pub kept: Option<Vec<u64>>,
    /// Since when it shows a VNI that it has no part in.
    pub leftover_since: Vec<Option<Time>>,
    /// Since when another program's switch makes a bridge answer that it has no part in.
    pub foreign_since: Vec<Option<Time>>,
    /// How often ARP was audited.
    pub arp_turn: usize,
    /// The VNIs whose bridge the kernel refused to switch when ARP was audited last.
    pub arp_refused: BTreeSet<Vni>,
    /// Since when nothing keeps it from serving a VNI.
    pub fit_since: Vec<Option<Time>>,
    /// Its lease was ended before its time, and it may not know yet.
    pub robbed: Option<Robbed>,
    pub calls: Vec<Time>,
    pub commits: u64,
    pub plans: u64,
}

pub enum Process {
    Down,
    Own(Box<Own>),
    Go(Box<Go>),
}

/// A lease that etcd ended although its holder renewed it.
#[derive(Clone, Copy)]
pub struct Robbed {
    pub lease: LeaseId,
    pub at: Time,
    /// When its holder believed then that it would end.
    pub valid_until: Time,
    /// Something else has kept its holder from hearing of it.
    pub hindered: bool,
}

/// The lease keeper.
#[derive(Default)]
pub struct Dog {
    pub lease: Option<LeaseId>,
    pub call: Option<(u64, Time)>,
    /// Until when the lease was valid that it gave up last.
    pub given_up: Option<Time>,
}

/// The watch.
#[derive(Default)]
pub struct Feed {
    /// Where the watch goes on; `None` needs a snapshot first.
    pub next: Option<Revision>,
    pub scheduled: bool,
    pub ranges: Vec<u64>,
    /// The newest revision that the node has heard of, and how often it has seen etcd go back.
    pub known: Revision,
    pub epoch: u32,
    pub looks: Vec<u64>,
    /// etcd went back, and the worker has not heard of it, or not acted upon it.
    pub is_stale: bool,
    pub has_heard: bool,
    /// What was known of etcd when a request was sent.
    pub asked: BTreeMap<u64, Revision>,
    /// It is paused until then, if it is not told to go on before.
    pub rests_until: Option<Time>,
}

impl Node {
    pub fn new(config: Config, go: bool, host: ModelHost, vnis: u32) -> Node {
        Node {
            config,
            go,
            inc: 0,
            process: Process::Down,
            paused: false,
            deferred: Vec::new(),
            cut: false,
            watch_hangs: false,
            host,
            guard_is_dead: false,
            could_tend_since: None,
            clock: None,
            dog: Dog::default(),
            feed: Feed::default(),
            exit: None,
            drained: false,
            has_planned: false,
            told_health: None,
            leftover_since: vec![None; vnis as usize],
            foreign_since: vec![None; vnis as usize],
            arp_turn: 0,
            arp_refused: BTreeSet::new(),
            fit_since: vec![None; vnis as usize],
            robbed: None,
            kept: None,
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
    /// others, and the lease keeper already has another lease: so the lease of the plan counts.
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
            Ev::Late {
                n, epoch, event, ..
            } => {
                if self.nodes[n].feed.epoch == epoch {
                    self.tell(n, *event);
                }
            }
            Ev::Look { n, .. } => self.look_at_revision(n),
            Ev::Audit { n, .. } => self.audit(n),
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
            Ev::Kernel { n } => {
                let host = &mut self.nodes[n].host;
                host.tables.expire(self.now);
                host.dirty = true;
            }
            Ev::Gate { n, .. } => self.tend_tables(n),
            Ev::Watch { n, .. } => self.watch(n),
            Ev::Poll { n, .. } => self.poll(n),
            Ev::Health { n, inc } => {
                let health = self.nodes[n].host.frr;
                // Only news: an event a second would hide a deadline that the core forgot.
                if self.nodes[n].told_health.replace(health) != Some(health) || self.nodes[n].go {
                    self.tell(n, Event::Health(health));
                }
                self.check_leftovers(n);
                if !self.nodes[n].go {
                    self.audit_arp(n);
                    self.tend_tables(n);
                }
                self.check_foreign(n);
                self.after(ms(1000), Ev::Health { n, inc });
            }
            Ev::LaneApply { n, inc, job } => self.lane_apply(n, inc, job),
            Ev::LaneDone { n, job, .. } => self.lane_done(n, job),
            Ev::Go { n, step, .. } => self.go_step(n, *step),
        }
    }

    /// A process starts.
    pub fn boot(&mut self, n: usize) {
        let may_redraw = self.settings.redraws && self.nodes[n].inc > 0;
        let redraws = may_redraw && self.rng.chance(300);
        let redrawn: Vec<u64> = (0..8).map(|_| self.rng.next()).collect();
        let kept = self.drawn(self.nodes[n].name());
        let node = &mut self.nodes[n];
        node.kept = kept;
        node.inc += 1;
        node.deferred.clear();
        node.paused = false;
        node.clock = None;
        node.dog = Dog::default();
        node.feed = Feed::default();
        node.exit = None;
        node.has_planned = false;
        node.told_health = None;
        node.leftover_since.fill(None);
        node.foreign_since.fill(None);
        node.guard_is_dead = false;
        match node.go {
            true => node.host.forget_told(),
            false => node.host.adopt(node.config.range),
        }
        node.arp_refused.clear();
        node.fit_since.fill(None);
        node.robbed = None;
        node.drained = false;
        match &mut node.config.points {
            // A run that draws draws others each time.
            Points::Drawn(points) => *points = redrawn,
            Points::Given(points) if redraws => *points = redrawn,
            Points::Given(_) => {}
        }
        let inc = node.inc;
        node.process = if node.go {
            node.host.silence();
            node.host.withdraw_routes();
            Process::Go(Box::default())
        } else {
            Process::Own(Box::new(Own::new(Gateway::new(node.config.clone()))))
        };
        note!(self, "{} starts, run {inc}", self.nodes[n].name());
        self.work(n);
        let delays: Vec<Duration> = (0..3).map(|_| self.rng.millis(0, 300)).collect();
        self.after(delays[0], Ev::Health { n, inc });
        self.tell_signs(n);
        self.after(delays[1], Ev::Dog { n, inc });
        self.after(delays[2], Ev::Watch { n, inc });
        let poll = self.rng.millis(1_000, 10_000);
        self.after(poll, Ev::Poll { n, inc });
        if !self.nodes[n].go {
            let (look, audit) = (self.rng.millis(0, 2_000), self.rng.millis(1_000, 30_000));
            self.after(look, Ev::Look { n, inc });
            self.after(audit, Ev::Audit { n, inc });
        }
    }
}
