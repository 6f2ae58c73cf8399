//! The loop that does what the [`Gateway`] decides: thread `worker`.
//!
//! One round empties the inbox, asks for a plan, carries it out and hands the outcomes back, until nothing
//! is left to do. It owns the gateway and an etcd client of its own. ARP goes through the [`Fence`], FRR
//! through the thread `frr`, so that a slow vtysh never holds up the rest.

use crate::clock;
use crate::etcd::{self, Client};
use crate::fence::Fence;
use crate::fsm::{Kind, Write};
use crate::gateway::{
    ArpOutcome, Commit, CommitOutcome, Effect, Event, Exit, Gateway, RegisterOutcome,
};
use crate::host::{self, Kernel, Parts, RouteChange, Router};
use crate::mending::Mending;
use crate::report::{Complaint, chain, spans};
use crate::schema::{self, Meta};
use crate::types::{LeaseId, NodeName, Revision, Vni};
use fnv::FnvHashMap;
use log::{Level, debug, info, log, warn};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Lines about single VNIs in one batch; more are counted in one line.
const FEW: usize = 5;

/// How long FRR is left alone before it is asked whether it still has what it was given.
const AUDIT: Duration = Duration::from_secs(30);

/// What the worker works with.
pub struct Worker {
    /// The decisions.
    pub gateway: Gateway,
    /// Who we are.
    pub me: NodeName,
    /// What we say of ourselves beside our points.
    pub meta: Meta,
    /// The lease and the ARP switch.
    pub fence: Arc<Fence>,
    /// For gratuitous ARP.
    pub kernel: Box<dyn Kernel>,
    /// The worker's own connections.
    pub client: Client,
    /// What happened.
    pub inbox: Receiver<Event>,
}

struct Running {
    worker: Worker,
    frr: Sender<Order>,
    etcd_complaint: Complaint,
    name_complaint: Complaint,
    arp_complaints: Complaints,
    announce_complaints: Complaints,
}

/// What the thread `frr` is told.
enum Order {
    Reset { parts: Parts, keep: BTreeSet<Vni> },
    Change(Vec<RouteChange>),
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
        let (frr, orders) = channel();
        let fence = self.fence.clone();
        Builder::new()
            .name("frr".to_owned())
            .spawn(move || serve_orders(router, &fence, &orders, &events))?;
        let running = Running {
            worker: self,
            frr,
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
            loop {
                let effects = self.worker.gateway.plan(clock::now());
                if effects.is_empty() {
                    break;
                }
                for effect in effects {
                    if let Some(exit) = self.execute(effect) {
                        return exit;
                    }
                }
                self.drain_inbox();
            }
        }
    }

    /// Until something happens or is due.
    fn wait(&mut self) {
        /// The wait follows CLOCK_MONOTONIC, which stands still while the machine sleeps: look up this often.
        const LONGEST: Duration = Duration::from_secs(1);
        let due = self
            .worker
            .gateway
            .next_deadline()
            .map_or(LONGEST, |due| due.since(clock::now()));
        match self.worker.inbox.recv_timeout(due.min(LONGEST)) {
            Ok(event) => self.observe(event),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.drain_inbox();
    }

    fn drain_inbox(&mut self) {
        while let Ok(event) = self.worker.inbox.try_recv() {
            self.observe(event);
        }
        // Read at its source, so that a lease that was lost is known before its event is.
        let lease = self.worker.fence.lease();
        self.observe(Event::Lease(lease));
    }

    fn observe(&mut self, event: Event) {
        match &event {
            Event::Drain => info!("draining"),
            Event::Stop => info!("stopping"),
            Event::Health(health) => match health.is_up() {
                true => debug!("FRR is up"),
                false => warn!("FRR is not up: {health:?}; this node takes no VNIs"),
            },
            _ => {}
        }
        self.worker.gateway.observe(clock::now(), event);
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
            Effect::ChangeRoutes(changes) => drop(self.frr.send(Order::Change(changes))),
            Effect::Commit { lease, rows } => {
                let outcome = self.commit(lease, &rows);
                let kind = |row: &Commit| self.worker.gateway.row(row.vni).map(|row| row.kind);
                let before: Vec<Kind> = rows.iter().filter_map(kind).collect();
                self.observe(Event::Committed(outcome.clone()));
                if let CommitOutcome::Done { revision, each, .. } = outcome {
                    narrate(&self.worker.gateway, &before, &each, revision);
                }
            }
            Effect::Register { lease, points } => {
                let outcome = self.register(lease, points);
                self.observe(Event::Registered(outcome));
            }
            Effect::Exit(exit) => return Some(exit),
        }
        None
    }

    fn switch_arp(&mut self, switches: &[(Vni, bool)]) -> Event {
        let results = self.worker.fence.switch(switches);
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
        let failures = self.worker.kernel.announce(vnis, &|| fence.permits());
        let failures = failures
            .into_iter()
            .filter(|(_, error)| !matches!(error, host::Error::NotPermitted))
            .map(|(vni, error)| (vni, chain(&error)))
            .collect();
        self.announce_complaints
            .hear(vnis.iter().copied(), failures);
    }

    fn commit(&mut self, lease: LeaseId, rows: &[Commit]) -> CommitOutcome {
        let failed = || CommitOutcome::Failed(rows.iter().map(|row| row.vni).collect());
        if !self.worker.fence.permits() {
            return failed();
        }
        let txn = schema::commit(&self.worker.me, lease, rows);
        match self.worker.client.txn(&txn) {
            Ok(reply) => {
                self.settle_etcd();
                let Some(each) = schema::committed(rows, &reply) else {
                    warn!("etcd has this node not registered any more: registering again");
                    return CommitOutcome::Fenced;
                };
                CommitOutcome::Done {
                    revision: reply.revision,
                    lease,
                    each,
                }
            }
            Err(error) => {
                self.complain_of_etcd("write rows", &error);
                failed()
            }
        }
    }

    fn register(&mut self, lease: LeaseId, points: Vec<u64>) -> RegisterOutcome {
        if !self.worker.fence.permits() {
            return RegisterOutcome::Failed;
        }
        let txn = schema::register(&self.worker.me, lease, &points, &self.worker.meta);
        match self.worker.client.txn(&txn) {
            Ok(reply) if schema::registered(&reply) => {
                self.settle_etcd();
                self.name_complaint.settle();
                info!(
                    "registered name={} points={} lease={lease}",
                    self.worker.me,
                    points.len()
                );
                RegisterOutcome::Done {
                    points,
                    lease,
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
                self.complain_of_etcd("register", &error);
                RegisterOutcome::Failed
            }
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

/// One line for each transition of a few VNIs, one line in all for many. `before` holds the kinds that the
/// rows had; `gateway` knows the rows as they are now.
fn narrate(gateway: &Gateway, before: &[Kind], each: &[(Vni, Write, bool)], revision: Revision) {
    let mut written: BTreeMap<(Kind, Kind), Vec<Vni>> = BTreeMap::new();
    let mut conflicts = Vec::new();
    for (&(vni, write, succeeded), &from) in each.iter().zip(before) {
        if succeeded {
            written.entry((from, write.kind())).or_default().push(vni);
        } else {
            conflicts.push(vni);
        }
    }
    for ((from, to), vnis) in written {
        let (from, to) = (from.name(), to.name());
        if vnis.len() > FEW {
            info!(
                "vnis={} {from} -> {to} rev={revision} ({})",
                vnis.len(),
                spans(&vnis)
            );
            continue;
        }
        for vni in vnis {
            let row = gateway.row(vni);
            let name = |name: Option<&NodeName>| name.map_or("-", NodeName::as_str).to_owned();
            let (owner, successor) = (
                row.and_then(|row| row.owner),
                row.and_then(|row| row.successor),
            );
            info!(
                "vni={vni} {from} -> {to} owner={} successor={} rev={revision}",
                name(owner),
                name(successor)
            );
        }
    }
    if !conflicts.is_empty() {
        debug!(
            "conflicts={} rev={revision} ({})",
            conflicts.len(),
            spans(&conflicts)
        );
    }
}

/// What went wrong with which VNIs: said once each, VNIs with the same trouble in one line.
struct Complaints {
    what: &'static str,
    reasons: FnvHashMap<Vni, String>,
}

impl Complaints {
    fn new(what: &'static str) -> Complaints {
        Complaints {
            what,
            reasons: FnvHashMap::default(),
        }
    }

    /// All of `told` went well but for `failures`.
    fn hear(&mut self, told: impl Iterator<Item = Vni>, failures: Vec<(Vni, String)>) {
        let mut news: BTreeMap<String, Vec<Vni>> = BTreeMap::new();
        let failing: BTreeSet<Vni> = failures.iter().map(|(vni, _)| *vni).collect();
        for (vni, reason) in failures {
            if self.reasons.get(&vni) != Some(&reason) {
                // The VNI's own bridge is named in the reason: without its number, the same for all.
                let shared = reason.replace(&vni.bridge(), "br<VNI>");
                news.entry(shared).or_default().push(vni);
                self.reasons.insert(vni, reason);
            }
        }
        for (reason, vnis) in news {
            warn!("{} vnis={}: {reason}", self.what, spans(&vnis));
        }
        let well: Vec<Vni> = told
            .filter(|vni| !failing.contains(vni) && self.reasons.remove(vni).is_some())
            .collect();
        if !well.is_empty() {
            info!("{} vnis={}: works again", self.what, spans(&well));
        }
    }
}

/// Thread `frr`: one order after the other.
fn serve_orders(
    mut router: Box<dyn Router>,
    fence: &Fence,
    orders: &Receiver<Order>,
    events: &Sender<Event>,
) {
    let mut complaints = Complaints::new("FRR");
    let mut reset_complaint = Complaint::default();
    let mut warned = BTreeSet::new();
    let mut mending = Mending::default();
    let mut audit = clock::now() + AUDIT;
    loop {
        let due = mending.due.map_or(audit, |due| due.min(audit));
        let order = match orders.recv_timeout(due.since(clock::now())) {
            Ok(order) => order,
            Err(RecvTimeoutError::Timeout) => {
                // Orders go first, so this may be late, but is never in their way.
                if mending.due.is_some_and(|due| due <= clock::now()) {
                    mending.look(&mut *router, fence);
                }
                if audit > clock::now() {
                    continue;
                }
                // Only while it is quiet: what is under way is no drift.
                audit = clock::now() + AUDIT;
                mending.due = Some(clock::now());
                match router.drifted() {
                    Ok(vnis) if vnis.is_empty() => continue,
                    Ok(vnis) => {
                        warn!(
                            "FRR: vnis={} are not as they were left: told again",
                            spans(&vnis)
                        );
                        if events.send(Event::Drifted(vnis)).is_err() {
                            return;
                        }
                    }
                    Err(error) => debug!("FRR: cannot look: {}", chain(&error)),
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        audit = clock::now() + AUDIT;
        mending.due = Some(clock::now());
        let event = match order {
            Order::Reset { parts, keep } => {
                let result = router.withdraw(parts, &keep, &|| true);
                match &result {
                    Ok(()) => {
                        reset_complaint.settle();
                        info!("FRR: everything withdrawn, kept={}", keep.len());
                        for warning in router.warnings() {
                            if warned.insert(warning.clone()) {
                                warn!("FRR: {warning}");
                            }
                        }
                    }
                    Err(error) => {
                        let reason = chain(error);
                        let level = if reset_complaint.raise(&reason) {
                            Level::Warn
                        } else {
                            Level::Debug
                        };
                        log!(level, "FRR: cannot withdraw: {reason}");
                    }
                }
                Event::RoutesReset(result.is_ok())
            }
            Order::Change(changes) => {
                let failures = router.apply(&changes, &|| fence.permits());
                let failed = failures.iter().map(|failure| failure.vni).collect();
                debug!("FRR: changes={} failed={}", changes.len(), failures.len());
                let reasons = failures
                    .iter()
                    .filter(|failure| !matches!(failure.error, host::Error::NotPermitted))
                    .map(|failure| (failure.vni, chain(&failure.error)))
                    .collect();
                complaints.hear(changes.iter().map(|change| change.vni), reasons);
                Event::RoutesChanged { failed }
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}
