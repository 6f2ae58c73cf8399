//! The loop that does what the [`Gateway`] decides: thread `worker`.
//!
//! One round empties the inbox, asks for a plan, carries it out and hands the outcomes back, until nothing
//! is left to do. It owns the gateway and an etcd client of its own. ARP goes through the [`Fence`], FRR
//! through the thread `frr`, so that a slow vtysh never holds up the rest.

use crate::daemon::fence::Fence;
use crate::daemon::frr_thread::{self, Order};
use crate::daemon::history::History;
use crate::daemon::host_monitor::log_put_back;
use crate::daemon::lease::{DoubtSender, LeaseDoubt};
use crate::daemon::neighbours::Neighbours;
use crate::daemon::watch_pause::PauseSwitch;
use crate::etcd::{self, Client};
use crate::gateway::{
    ArpOutcome, CommitOutcome, Effect, Event, Exit, Gateway, RegisterOutcome, Registration,
};
use crate::host::{self, Health, Kernel, Router};
use crate::model::fitness::{Fitness, Rank};
use crate::model::fsm::{Kind, Write};
use crate::model::spans::Spans;
use crate::model::types::{LeaseId, NodeName, Revision, Time, Vni};
use crate::schema::{self, Batch, Commit, CommitResult, Meta};
use crate::sys::clock;
use crate::sys::sd_notify::Supervisor;
use crate::telemetry::complaints::Complaints;
use crate::telemetry::counters::Counters;
use crate::telemetry::log_text::{Complaint, chain, spans, value};
use crate::telemetry::metrics::{Metrics, Repair, Standing};
use crate::telemetry::notify::Notifier;
use crate::telemetry::status_line::{Situation, status_line};
use log::{Level, debug, info, log, warn};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Lines about single VNIs in one batch; more are counted in one line.
const FEW: usize = 5;

/// How often a commit marks the time at most.
const MARK: Duration = Duration::from_secs(5);

/// How often a change of the kernel lease is published at most.
const HOLD: Duration = Duration::from_secs(5);

/// A node whose value in etcd has more runs of VNIs than this does not mark the time with each commit: every node
/// would hear all of it again.
const FEW_RUNS: usize = 100;

/// What the worker works with.
pub struct Worker {
    /// The decisions.
    pub gateway: Gateway,
    /// The name of this node.
    pub me: NodeName,
    /// What this node publishes of itself beside its points.
    pub meta: Meta,
    /// The lease and the ARP switch.
    pub fence: Arc<Fence>,
    /// For gratuitous ARP.
    pub kernel: Box<dyn Kernel>,
    /// Whom to tell what is silent.
    pub neighbours: Neighbours,
    /// The worker's own connections.
    pub client: Client,
    /// What happened.
    pub inbox: Receiver<Event>,
    /// For what the worker hears of its lease.
    pub lease_doubts: DoubtSender,
    /// To be told when etcd has gone back.
    pub history: History,
    /// Whether the watch is to pause.
    pub pause: PauseSwitch,
    /// Who wants to know how it goes.
    pub supervisor: Supervisor,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Who is told what happens to the VNIs.
    pub notifier: Notifier,
}

struct Running {
    worker: Worker,
    /// The lease that the gateway knew when it made the present plan.
    planned_under: Option<LeaseId>,
    /// The newest revision that the gateway knows of.
    known: Revision,
    /// How many times etcd was found to have gone back, as far as the gateway knows.
    rewound: u32,
    counters: Counters,
    standing: Standing,
    /// The counters have numbers that are not published yet.
    unpublished: bool,
    frr: Sender<Order>,
    /// What was last registered, and logged.
    registration: Option<Registration>,
    /// When this node last marked the time in etcd.
    marked: Time,
    /// When this node last tried to publish whether its kernel holds the lease.
    told_hold: Time,
    /// The gateway said last that it is drained.
    drained: bool,
    /// The gateway said last that FRR does not answer.
    misses_frr: bool,
    etcd_complaint: Complaint,
    name_complaint: Complaint,
    arp_complaints: Complaints,
    announce_complaints: Complaints,
}

impl Worker {
    /// Starts the threads `worker` and `frr`; the first ends when everything is withdrawn.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn spawn(
        self,
        router: Box<dyn Router>,
        events: Sender<Event>,
    ) -> io::Result<JoinHandle<Exit>> {
        let frr = frr_thread::spawn(router, self.fence.clone(), events)?;
        let counters = Counters::new(self.me.clone());
        let running = Running {
            worker: self,
            planned_under: None,
            known: Revision::default(),
            rewound: 0,
            counters,
            standing: Standing::default(),
            unpublished: true,
            frr,
            registration: None,
            marked: Time::default(),
            told_hold: Time::default(),
            drained: false,
            misses_frr: false,
            etcd_complaint: Complaint::default(),
            name_complaint: Complaint::default(),
            arp_complaints: Complaints::new("ARP"),
            announce_complaints: Complaints::new("gratuitous ARP"),
        };
        Builder::new()
            .name("worker".to_owned())
            .spawn(move || running.run())
    }
}

impl Running {
    fn run(mut self) -> Exit {
        loop {
            self.wait();
            self.account();
            self.publish_hold();
            loop {
                let effects = self.worker.gateway.plan(clock::now());
                if effects.is_empty() {
                    break;
                }
                for effect in effects {
                    if let Some(exit) = self.execute(effect) {
                        self.account();
                        self.counters.leaves();
                        self.account();
                        return exit;
                    }
                }
                self.empty_inbox();
                self.account();
            }
        }
    }

    /// Until something happens or is due.
    fn wait(&mut self) {
        // At most a second: the wait follows CLOCK_MONOTONIC, which stands still while the machine sleeps.
        let longest = self.worker.supervisor.interval();
        let due = self
            .worker
            .gateway
            .next_deadline()
            .map_or(longest, |due| due.since(clock::now()));
        match self.worker.inbox.recv_timeout(due.min(longest)) {
            Ok(event) => self.observe(event),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.empty_inbox();
    }

    /// Tells those around how it goes: the service manager, the numbers, the notify command.
    fn account(&mut self) {
        let now = clock::now();
        let gateway = &mut self.worker.gateway;
        let changed = gateway.take_changed();
        for &vni in &changed {
            if let Some(row) = gateway.row(vni) {
                self.counters.row(now, vni, &row, gateway.owns(vni));
            }
        }
        let standing = Standing {
            in_sync: gateway.is_in_sync(),
            leaving: gateway.is_leaving(),
            drained: gateway.is_drained(),
            bridgeless: self.registration.as_ref().map_or(0, |it| {
                u32::try_from(it.unable.absent.len()).unwrap_or(u32::MAX)
            }),
        };
        let misses_frr = gateway.misses_frr();
        if std::mem::replace(&mut self.misses_frr, misses_frr) != misses_frr {
            match misses_frr {
                true => warn!("FRR does not answer; this node takes no VNIs until it does"),
                false => info!("FRR has answered"),
            }
        }
        self.look_at_proof(now);
        self.unpublished |= !changed.is_empty() || standing != self.standing;
        if standing.leaving && !self.standing.leaving {
            self.counters.drains();
        }
        self.standing = standing;
        for (event, vnis) in self.counters.take_events() {
            self.worker.notifier.tell(event, &vnis);
        }
        self.worker.metrics.turned(now);
        if std::mem::take(&mut self.unpublished) {
            self.worker
                .metrics
                .publish(self.counters.summary(), standing);
        }
        self.tell_supervisor(now);
    }

    /// Has the counters note whether the lease is proved.
    fn look_at_proof(&mut self, now: Time) {
        let gateway = &self.worker.gateway;
        let (lease, is_proved) = gateway.valid_lease(now);
        self.unpublished |= self
            .counters
            .proves(lease, is_proved, |vni| gateway.owns(vni));
    }

    /// Has the counters note that the lease was over, although no thread of this process has seen it end.
    fn note_fencing(&mut self) {
        let gateway = &self.worker.gateway;
        let (lease, _) = gateway.valid_lease(clock::now());
        self.unpublished |= self.counters.proves(lease, false, |vni| gateway.owns(vni));
    }

    fn tell_supervisor(&mut self, now: Time) {
        let Standing {
            in_sync,
            leaving,
            drained,
            bridgeless,
        } = self.standing;
        let range = u32::try_from(self.worker.meta.range.len()).unwrap_or(u32::MAX);
        let able = range.saturating_sub(bridgeless);
        let fitness = self.fitness();
        let supervisor = &mut self.worker.supervisor;
        if in_sync {
            supervisor.ready();
        }
        if leaving {
            supervisor.stopping();
        }
        let has_begun = supervisor.is_ready();
        let (_, is_proved) = self.worker.gateway.valid_lease(now);
        let (counters, metrics) = (&self.counters, &self.worker.metrics);
        supervisor.turn(now, || {
            status_line(&Situation {
                is_leaving: leaving,
                is_drained: drained,
                has_begun,
                is_proved,
                silence: metrics.silence(now),
                fitness,
                served: counters.summary().served,
                able,
            })
        });
    }

    fn empty_inbox(&mut self) {
        while let Ok(event) = self.worker.inbox.try_recv() {
            self.observe(event);
        }
        // Read at its source, so that a lease that was lost is known before its event is.
        let lease = self.worker.fence.lease();
        self.planned_under = lease.map(|lease| lease.id);
        self.observe(Event::Lease(lease));
    }

    fn observe(&mut self, event: Event) {
        match &event {
            Event::Snapshot { revision, .. } => self.known = self.known.max(*revision),
            Event::Changed(changes) | Event::MassExpiry(changes) => {
                let newest = changes.iter().map(|change| change.revision).max();
                self.known = self.known.max(newest.unwrap_or_default());
            }
            Event::Drifted(vnis) => self.worker.metrics.repaired(Repair::Frr, vnis.len()),
            Event::RoutesChanged { failed } => self.worker.metrics.frr_refused(failed.len()),
            Event::Drain => {
                info!("draining: the VNIs go to other nodes; another signal ends this at once")
            }
            Event::Stop => info!("stopping: withdrawing at once"),
            Event::Rewound => {
                warn!("everything is withdrawn for a while, until all have noticed");
                self.known = Revision::default();
                self.rewound = self.rewound.wrapping_add(1);
            }
            Event::GuardFenced => self.note_fencing(),
            Event::Health(health) => {
                self.worker.metrics.health(health);
                match health.is_up() {
                    true => debug!("FRR is up"),
                    false => warn!("FRR is not up: {}; this node takes no VNIs", told(health)),
                }
            }
            _ => {}
        }
        let is_lease = matches!(event, Event::Lease(_) | Event::GuardFenced);
        let now = clock::now();
        self.worker.gateway.observe(now, event);
        if is_lease {
            // At once: a lease that was over and is renewed by now was over all the same.
            self.look_at_proof(now);
        }
        let drained = self.worker.gateway.is_drained();
        if std::mem::replace(&mut self.drained, drained) != drained {
            match drained {
                true => info!(
                    "drained by an operator: this node hands its VNIs over and takes none, until wmgwd undrain {}",
                    self.worker.me
                ),
                false => info!("not drained any more: this node takes VNIs again"),
            }
        }
    }

    fn execute(&mut self, effect: Effect) -> Option<Exit> {
        match effect {
            Effect::SwitchArp(switches) => {
                let outcome = self.switch_arp(&switches);
                self.observe(outcome);
            }
            Effect::Announce(vnis) => {
                self.announce(&vnis);
                self.observe(Event::Announced(vnis));
            }
            // The thread lives as long as this sender.
            Effect::ResetRoutes { parts, keep } => {
                drop(self.frr.send(Order::Reset { parts, keep }))
            }
            Effect::ChangeRoutes(changes) => {
                let under = self.planned_under;
                drop(self.frr.send(Order::Change { changes, under }));
            }
            Effect::HastenRoutes(changes) => {
                let (fence, under) = (&self.worker.fence, self.planned_under);
                let permit = || fence.permits(under);
                self.worker.kernel.hasten(&changes, &permit);
                debug!("routes ahead of FRR: changes={}", changes.len());
            }
            Effect::Commit { lease, rows } => {
                let outcome = self.commit(lease, &rows);
                let kind = |row: &Commit| self.worker.gateway.row(row.vni).map(|row| row.kind);
                let before: Vec<Kind> = rows.iter().filter_map(kind).collect();
                self.observe(Event::Committed(outcome.clone()));
                if let CommitOutcome::Done { revision, each, .. } = outcome {
                    narrate(&self.worker.gateway, &before, &each, revision);
                }
            }
            Effect::Register(registration) => {
                let outcome = self.register(registration);
                self.observe(Event::Registered(outcome));
            }
            Effect::PauseWatch => {
                debug!("the watch is paused while VNIs are taken over");
                self.worker.pause.begin();
            }
            Effect::ResumeWatch => self.worker.pause.end(),
            Effect::Exit(exit) => {
                // What another program has switched on since the audit read it last would answer beside the next owner.
                let fence = &self.worker.fence;
                log_put_back(&fence.put_back(&fence.some_after(None, usize::MAX)).differed);
                return Some(exit);
            }
        }
        None
    }

    fn switch_arp(&mut self, switches: &[(Vni, bool)]) -> Event {
        let results = self.worker.fence.switch(self.planned_under, switches);
        let mut failures = Vec::new();
        let mut outcomes = Vec::with_capacity(results.len());
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for (vni, outcome, error) in results {
            match (outcome, error) {
                (_, Some(host::Error::NotPermitted)) => {}
                (_, Some(error)) => failures.push((vni, chain(&error))),
                (ArpOutcome::Answers(true), None) => on.push(vni),
                _ => off.push(vni),
            }
            outcomes.push((vni, outcome));
        }
        self.worker.neighbours.silent(&off);
        for (vnis, what) in [(on, "answer"), (off, "silent")] {
            if !vnis.is_empty() {
                debug!("arp={what} vnis={}", spans(&vnis));
            }
        }
        let told = switches.iter().map(|&(vni, _)| vni);
        self.arp_complaints.hear(told, failures);
        Event::ArpSwitched(outcomes)
    }

    fn announce(&mut self, vnis: &[Vni]) {
        let fence = self.worker.fence.clone();
        let under = self.planned_under;
        let failures = self.worker.kernel.announce(vnis, &|| fence.permits(under));
        let sent = vnis.len().saturating_sub(failures.len());
        self.worker.metrics.announced(sent);
        let failures = failures
            .into_iter()
            .filter(|(_, error)| !matches!(error, host::Error::NotPermitted))
            .map(|(vni, error)| (vni, chain(&error)))
            .collect();
        self.announce_complaints
            .hear(vnis.iter().copied(), failures);
    }

    fn commit(&mut self, lease: LeaseId, rows: &Batch) -> CommitOutcome {
        let failed = || CommitOutcome::Failed(rows.vnis());
        if !self.worker.fence.permits(Some(lease)) {
            return failed();
        }
        let now = clock::now();
        let unable = self.worker.meta.unable.as_ref();
        let runs = unable.map_or(0, |it| it.absent.runs() + it.failing.runs());
        let is_due = now.since(self.marked) >= MARK && runs <= FEW_RUNS;
        let mark = is_due.then(|| self.meta());
        let txn = schema::commit(&self.worker.me, lease, rows, mark.as_ref());
        match self.worker.client.txn(&txn) {
            Ok(reply) if self.is_rewound(reply.revision) => failed(),
            Ok(reply) => {
                self.settle_etcd();
                if mark.is_some() {
                    self.marked = now;
                }
                let Some(each) = schema::committed(rows, &reply) else {
                    warn!("etcd has this node not registered any more: registering again");
                    self.worker.lease_doubts.send(LeaseDoubt::NotRegistered);
                    return CommitOutcome::NotRegistered;
                };
                CommitOutcome::Done {
                    revision: reply.revision,
                    lease,
                    each,
                }
            }
            Err(error) => {
                self.look_for_lease(lease, &error);
                self.complain_of_etcd("write rows", &error);
                failed()
            }
        }
    }

    /// What this node says of itself now.
    fn meta(&self) -> Meta {
        Meta {
            time: Some(clock::unix_seconds()),
            ..self.worker.meta.clone()
        }
    }

    fn register(&mut self, registration: Registration) -> RegisterOutcome {
        let lease = registration.lease;
        if !self.worker.fence.permits(Some(lease)) {
            return RegisterOutcome::Failed;
        }
        // What marks the time later must say the same.
        self.worker.meta.unable = Some(registration.unable.clone());
        self.worker.meta.kernel = self.worker.fence.kernel_hold();
        self.worker.meta.ipv6 = self.worker.fence.ipv6_hold();
        self.worker.meta.fitness = Some(registration.fitness);
        let (me, drawn) = (&self.worker.me, registration.drawn.as_deref());
        let txn = schema::register(me, lease, &registration.points, drawn, &self.meta());
        match self.worker.client.txn(&txn) {
            Ok(reply) if self.is_rewound(reply.revision) => RegisterOutcome::Failed,
            Ok(reply) if schema::registered(&reply) => {
                self.settle_etcd();
                self.name_complaint.settle();
                self.tell_fitness(registration.fitness);
                self.tell_registration(&registration);
                RegisterOutcome::Done {
                    registration,
                    revision: reply.revision,
                }
            }
            Ok(_) => {
                self.settle_etcd();
                if self.name_complaint.raise("taken") {
                    let me = &self.worker.me;
                    warn!(
                        "the name {me} is registered under another lease: waiting for that to end"
                    );
                }
                RegisterOutcome::NameTaken
            }
            Err(error) => {
                self.look_for_lease(lease, &error);
                self.complain_of_etcd("register", &error);
                RegisterOutcome::Failed
            }
        }
    }

    /// Publishes whether the kernel holds the lease and what there is of IPv6, if that is not as it was published last.
    fn publish_hold(&mut self) {
        let now = clock::now();
        let Some(lease) = self.registration.as_ref().map(|it| it.lease) else {
            return;
        };
        let (kernel, ipv6) = (
            self.worker.fence.kernel_hold(),
            self.worker.fence.ipv6_hold(),
        );
        let meta = &mut self.worker.meta;
        let is_due = now.since(self.told_hold) >= HOLD;
        let is_news = kernel != meta.kernel || ipv6 != meta.ipv6;
        if !is_news || !is_due || !self.worker.fence.permits(Some(lease)) {
            return;
        }
        self.told_hold = now;
        let before = meta.clone();
        (meta.kernel, meta.ipv6) = (kernel, ipv6);
        let txn = schema::publish(&self.worker.me, lease, &self.meta());
        let is_published = match self.worker.client.txn(&txn) {
            Ok(reply) => !self.is_rewound(reply.revision) && reply.succeeded,
            Err(error) => {
                debug!("cannot publish the kernel lease: {}", chain(&error));
                false
            }
        };
        if !is_published {
            self.worker.meta = before;
        }
    }

    /// How well this node can forward, as last registered.
    fn fitness(&self) -> Fitness {
        let registration = self.registration.as_ref();
        registration.map(|it| it.fitness).unwrap_or_default()
    }

    /// Logs how well this node can forward, where that is new.
    fn tell_fitness(&self, fitness: Fitness) {
        let before = self.fitness();
        self.worker.metrics.fitness(fitness);
        let worse = fitness.bad.without(before.bad);
        if !worse.is_empty() {
            warn!(
                "this gateway cannot forward: bad={} rank={}; it gives its VNIs to better gateways, if there are any; \
                 see wmgwd check",
                fitness.bad,
                fitness.rank.number()
            );
        } else if fitness.bad.is_empty() && !before.bad.is_empty() && fitness.rank != Rank::Fit {
            info!("the signs are good again: this gateway takes VNIs again when they stay so");
        } else if fitness.rank > before.rank {
            info!(
                "rank={}: this gateway takes VNIs again",
                fitness.rank.number()
            );
        }
    }

    /// Logs what is new in a registration.
    fn tell_registration(&mut self, registration: &Registration) {
        let is_as = |it: &Registration| {
            it.lease == registration.lease && it.points.len() == registration.points.len()
        };
        let before = self.registration.replace(registration.clone());
        if !before.as_ref().is_some_and(is_as) {
            let name = value(self.worker.me.as_str());
            let (points, lease) = (registration.points.len(), registration.lease);
            info!("registered name={name} points={points} lease={lease}");
        }
        let unable = &registration.unable;
        let before = before.map(|it| it.unable).unwrap_or_default();
        let gained = |set: &Spans, before: &Spans| {
            let vnis: Vec<Vni> = set.iter().filter(|vni| !before.contains(*vni)).collect();
            (!vnis.is_empty()).then(|| spans(&vnis))
        };
        if let Some(vnis) = gained(&unable.absent, &before.absent) {
            info!("vnis={vnis} have no bridge on this gateway: it leaves them to other gateways");
        }
        if let Some(vnis) = gained(&unable.failing, &before.failing) {
            warn!(
                "vnis={vnis} cannot be served here: the kernel or FRR refuses, or did a short time ago; \
                 other gateways take them where they can, and this one tries again later"
            );
        }
        let is_unable = |vni: Vni| unable.absent.contains(vni) || unable.failing.contains(vni);
        let earlier = before.absent.iter().chain(before.failing.iter());
        let able: BTreeSet<Vni> = earlier.filter(|vni| !is_unable(*vni)).collect();
        if !able.is_empty() {
            let able: Vec<Vni> = able.into_iter().collect();
            info!("vnis={} can be served here again", spans(&able));
        }
    }

    /// Whether etcd answers with a revision that is older than what was known when it was asked: then its data
    /// are lost, or from a backup, and what was decided on what is known must not go on.
    fn is_rewound(&mut self, answer: Revision) -> bool {
        let rewound = answer < self.known;
        if rewound {
            warn!("rev={} etcd has gone back to {answer}", self.known);
            // It comes back through the inbox, as soon as the present plan is carried out.
            self.worker.history.went_back(self.rewound);
        }
        self.known = answer;
        rewound
    }

    /// Has the lease keeper give up `lease` if etcd's `error` says that it is gone: that thread would
    /// otherwise learn it from its own member, which may be cut off from the others.
    fn look_for_lease(&self, lease: LeaseId, error: &etcd::Error) {
        if matches!(error, etcd::Error::LeaseNotFound) {
            self.worker.lease_doubts.send(LeaseDoubt::Gone(lease));
        }
    }

    fn settle_etcd(&mut self) {
        if self.etcd_complaint.settle() {
            info!("etcd takes writes again");
        }
    }

    fn complain_of_etcd(&mut self, what: &str, error: &etcd::Error) {
        let reason = chain(error);
        let level = if self.etcd_complaint.raise(&reason) {
            Level::Warn
        } else {
            Level::Debug
        };
        log!(level, "cannot {what}: {reason}");
    }
}

/// Which of FRR's daemons run, in pairs.
fn told(health: &Health) -> String {
    let said = |start: Option<u64>| if start.is_some() { "up" } else { "down" };
    let [bgpd, ospfd, zebra] = [health.bgpd, health.ospfd, health.zebra].map(said);
    format!("bgpd={bgpd} ospfd={ospfd} zebra={zebra}")
}

/// One line for each transition of a few VNIs, one line in all for many. `before` holds the kinds that the
/// rows had; `gateway` knows the rows as they are now.
fn narrate(
    gateway: &Gateway,
    before: &[Kind],
    each: &[(Vni, Write, CommitResult)],
    revision: Revision,
) {
    let mut written: BTreeMap<(Kind, Kind), Vec<Vni>> = BTreeMap::new();
    let mut conflicts = Vec::new();
    let mut undecided = Vec::new();
    for (&(vni, write, fate), &from) in each.iter().zip(before) {
        match fate {
            CommitResult::Written => written.entry((from, write.kind())).or_default().push(vni),
            CommitResult::Beaten => conflicts.push(vni),
            CommitResult::Undecided => undecided.push(vni),
        }
    }
    for ((from, to), vnis) in written {
        let (from, to) = (from.name(), to.name());
        if vnis.len() > FEW {
            info!(
                "vnis={} count={} from={from} to={to} rev={revision}",
                spans(&vnis),
                vnis.len()
            );
            continue;
        }
        for vni in vnis {
            let row = gateway.row(vni);
            let name =
                |name: Option<&NodeName>| value(name.map_or("-", NodeName::as_str)).into_owned();
            let (owner, successor) = (
                row.and_then(|row| row.owner),
                row.and_then(|row| row.successor),
            );
            info!(
                "vni={vni} from={from} to={to} owner={} successor={} rev={revision}",
                name(owner),
                name(successor)
            );
        }
    }
    for (vnis, why) in [
        (conflicts, "another node was faster"),
        (undecided, "another node was faster on some of them"),
    ] {
        if !vnis.is_empty() {
            let count = vnis.len();
            debug!("vnis={} count={count} rev={revision} {why}", spans(&vnis));
        }
    }
}
