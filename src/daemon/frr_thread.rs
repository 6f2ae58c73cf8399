//! The way to FRR: thread `frr` carries out one order of the worker after the other, and looks now and
//! then whether FRR still has what it was given.
//!
//! Owns the [`Router`]. While it is busy the worker goes on: ARP and etcd never wait for vtysh.

use crate::daemon::fence::Fence;
use crate::daemon::readvertise::Readvertise;
use crate::gateway::Event;
use crate::host::{self, FrrDaemons, RouteChange, Router};
use crate::model::types::{LeaseId, Time, Vni};
use crate::sys::clock;
use crate::telemetry::complaints::Complaints;
use crate::telemetry::log_text::{Complaint, chain, spans};
use log::{Level, debug, info, log, warn};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

/// How often FRR is asked whether it still has what it was given.
const AUDIT: Duration = Duration::from_secs(30);
/// And how long after a reset.
const EARLY: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// How long no order came before FRR is asked what it has: a takeover comes in several orders, and what comes after the
/// first would wait for the answers, which a bgpd that is busy with it takes its time for.
const QUIET: Duration = Duration::from_millis(200);
/// How long an audit is put off for that at most.
const MOST_PUT_OFF: Duration = Duration::from_secs(2);

/// How often it is looked, at little cost, whether an audit is due at once.
const GLANCE: Duration = Duration::from_secs(1);

/// What the thread `frr` is told.
pub enum Order {
    /// Withdraw all but `keep` from `parts`.
    Reset {
        /// From which daemons.
        parts: FrrDaemons,
        /// What stays as it is.
        keep: BTreeSet<Vni>,
    },
    /// Change these.
    Change {
        /// What to change.
        changes: Vec<RouteChange>,
        /// The lease that it was decided under.
        under: Option<LeaseId>,
    },
}

/// Starts the thread. It ends when the returned sender is gone.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    router: Box<dyn Router>,
    fence: Arc<Fence>,
    events: Sender<Event>,
) -> io::Result<Sender<Order>> {
    let (frr, orders) = channel();
    Builder::new()
        .name("frr".to_owned())
        .spawn(move || serve_orders(router, &fence, &orders, &events))?;
    Ok(frr)
}

/// Thread `frr`: one order after the other, and an audit whenever one is due.
fn serve_orders(
    router: Box<dyn Router>,
    fence: &Fence,
    orders: &Receiver<Order>,
    events: &Sender<Event>,
) {
    let mut thread = FrrThread {
        router,
        fence,
        complaints: Complaints::new("FRR"),
        reset_complaint: Complaint::default(),
        audit_complaint: Complaint::default(),
        warned: BTreeSet::new(),
        readvertise: Readvertise::default(),
        claimed_under: None,
        audits: Audits::new(clock::now()),
    };
    loop {
        let due = thread.audits.due();
        let due = thread.readvertise.due.map_or(due, |look| look.min(due));
        match orders.recv_timeout(due.since(clock::now())) {
            Ok(order) => {
                let outcome = thread.carry_out(order);
                // At once: the gateway may have the next order, and what follows here takes a while.
                if events.send(outcome).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if thread
                    .readvertise
                    .due
                    .is_some_and(|due| due <= clock::now())
                {
                    thread.readvertise();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if thread.audits.take_glance(clock::now()) && thread.router.is_suspect() {
            thread.audits.suspect(clock::now());
        }
        // After each order, too: a VNI that FRR refuses again and again must not put the audit off.
        let mut lost = match thread.audits.take_due(clock::now()) {
            true => thread.audit(),
            false => Vec::new(),
        };
        // After what came of the order: the gateway then gives them to FRR once more.
        lost.extend(thread.router.take_lost());
        if !lost.is_empty() {
            warn!(
                "FRR: vnis={} are not as they were left: told again",
                spans(&lost)
            );
            if events.send(Event::Drifted(lost)).is_err() {
                return;
            }
        }
    }
}

/// When FRR is asked for what it was given. Orders put that off for a moment only.
struct Audits {
    /// After each reset: a daemon that has just started may still be reading its configuration.
    early: Vec<Time>,
    regular: Time,
    glance: Time,
    /// Orders may follow the last one until then.
    quiet_from: Time,
    /// No loss that a glance shows brings an audit before then.
    trusted_until: Time,
}

impl Audits {
    fn new(now: Time) -> Audits {
        Audits {
            early: Vec::new(),
            regular: now + AUDIT,
            glance: now + GLANCE,
            quiet_from: now,
            trusted_until: now,
        }
    }

    fn due(&self) -> Time {
        self.audit_due().min(self.glance_due())
    }

    fn glance_due(&self) -> Time {
        self.put_off(self.glance)
    }

    fn audit_due(&self) -> Time {
        let early = self.early.iter().copied();
        self.put_off(early.fold(self.regular, Time::min))
    }

    /// When to ask FRR what is due at `due`, with regard to orders.
    fn put_off(&self, due: Time) -> Time {
        due.max(self.quiet_from.min(due + MOST_PUT_OFF))
    }

    /// An order was carried out at `now`.
    fn follow_order(&mut self, now: Time) {
        self.quiet_from = now + QUIET;
    }

    /// Whether a glance is due; then it is for the caller to cast it.
    fn take_glance(&mut self, now: Time) -> bool {
        let is_due = self.glance_due() <= now;
        if is_due {
            self.glance = now + GLANCE;
        }
        is_due
    }

    /// FRR seems to have lost something at `now`. What takes it away may go on for some seconds. (A loss that cannot be
    /// repaired does not bring an audit each second.)
    fn suspect(&mut self, now: Time) {
        if now >= self.trusted_until {
            info!(
                "FRR seems to have lost something that it was given: everything is compared at once"
            );
            self.follow_reset(now);
            self.early.push(now);
            self.trusted_until = now + EARLY[EARLY.len() - 1];
        }
    }

    /// A daemon was reset at `now`.
    fn follow_reset(&mut self, now: Time) {
        self.early = EARLY.map(|after| now + after).to_vec();
    }

    /// Whether an audit is due; then it is for the caller to make it.
    fn take_due(&mut self, now: Time) -> bool {
        let is_due = self.audit_due() <= now;
        if is_due {
            self.early.retain(|at| *at > now);
            self.regular = now + AUDIT;
        }
        is_due
    }
}

/// What the thread has.
struct FrrThread<'a> {
    router: Box<dyn Router>,
    fence: &'a Fence,
    complaints: Complaints,
    reset_complaint: Complaint,
    audit_complaint: Complaint,
    /// What was last warned of.
    warned: BTreeSet<String>,
    readvertise: Readvertise,
    /// The lease of the last change, under which an audit may claim again.
    claimed_under: Option<LeaseId>,
    audits: Audits,
}

impl FrrThread<'_> {
    fn carry_out(&mut self, order: Order) -> Event {
        let outcome = match order {
            Order::Reset { parts, keep } => self.reset(parts, &keep),
            Order::Change { changes, under } => self.change(&changes, under),
        };
        self.readvertise.due = Some(clock::now() + QUIET);
        self.audits.follow_order(clock::now());
        outcome
    }

    fn reset(&mut self, parts: FrrDaemons, keep: &BTreeSet<Vni>) -> Event {
        let mut taken = FrrDaemons::NONE;
        let mut refusal = None;
        // One by one: a daemon that refuses must not hide that the other did as it was told.
        for part in parts.each() {
            let result = self.router.withdraw(part, keep, &|| true);
            let lacks = || self.router.lacks(part).map_or(Ok(()), Err);
            match result.and_then(|()| lacks()) {
                Ok(()) => taken = taken.or(part),
                Err(error) => refusal = Some(chain(&error)),
            }
        }
        self.audits.follow_reset(clock::now());
        match refusal {
            Some(reason) => {
                let level = match self.reset_complaint.raise(&reason) {
                    true => Level::Warn,
                    false => Level::Debug,
                };
                log!(
                    level,
                    "FRR cannot be used: {reason}; this node takes no VNIs until then"
                );
            }
            None => {
                if self.reset_complaint.settle() {
                    info!("FRR can be used again");
                }
                info!(
                    "FRR: every VNI is withdrawn but those served here: kept={}",
                    keep.len()
                );
            }
        }
        self.tell_of_configuration();
        Event::RoutesReset(taken)
    }

    fn change(&mut self, changes: &[RouteChange], under: Option<LeaseId>) -> Event {
        self.claimed_under = under;
        let fence = self.fence;
        let failures = self.router.apply(changes, &|| fence.permits(under));
        let failed = failures.iter().map(|failure| failure.vni).collect();
        debug!("FRR: changes={} failed={}", changes.len(), failures.len());
        let reasons = failures
            .iter()
            .filter(|failure| !matches!(failure.error, host::Error::NotPermitted))
            .map(|failure| (failure.vni, chain(&failure.error)))
            .collect();
        self.complaints
            .hear(changes.iter().map(|change| change.vni), reasons);
        Event::RoutesChanged { failed }
    }

    fn readvertise(&mut self) {
        let (fence, under) = (self.fence, self.claimed_under);
        self.readvertise
            .look(&mut *self.router, &|| fence.permits(under));
    }

    /// Compares FRR with what it was given. What this and the host monitor's audit of the kernel cover:
    ///
    /// | in FRR | compared with | when it differs |
    /// |---|---|---|
    /// | `filter-vni`, its shape | what wmgwd needs | emptied, brought into shape, VNIs given again |
    /// | list lines, or entries | the VNIs that were claimed | given again |
    /// | export route targets | the list lines | the lines follow |
    /// | OSPF costs of bridges | what was set | set again |
    /// | zebra's addresses of bridges | the kernel's | the kernel tells of them again; logged |
    /// | the gateway's own type-2 routes | the VNIs that were claimed | brought back ([`Readvertise`]) |
    /// | neighbours, route-maps, instance | what wmgwd relies on | logged |
    ///
    /// | in the kernel | compared with | when it differs |
    /// |---|---|---|
    /// | `arp_ignore` of bridges | what was told | put back; logged |
    /// | `all.arp_ignore` | what lets a bridge answer | logged |
    /// | bridges: there, up, their names | the bridges known | the gateway is told; a renamed one is silenced |
    /// | `neigh_suppress` of VXLAN ports | off | logged |
    /// | the table `arp wmgwd` | what was put into it | put back; logged ([`gate`](crate::daemon::gate)) |
    ///
    /// One audit asks four questions over FRR's vty sockets, whatever the number of VNIs: the running configurations of
    /// bgpd and ospfd, bgpd's route targets (if a VNI is advertised and the filter is a list) and zebra's addresses; a
    /// fifth asks for the type-2 routes. It runs vtysh only to repair. Besides, ospfd is asked for one cost each second over its vty socket: a reload of FRR changes
    /// it, and brings an audit at once ([`Router::is_suspect`]). Orders put an audit off for two seconds at most ([`Audits`]), and the
    /// kernel's has a thread of its own ([`host_monitor`](crate::daemon::host_monitor)).
    fn audit(&mut self) -> Vec<Vni> {
        self.readvertise.due = Some(clock::now());
        let (fence, under) = (self.fence, self.claimed_under);
        let found = match self.router.drifted(&|| fence.permits(under)) {
            Ok(vnis) => {
                if self.audit_complaint.settle() {
                    info!("FRR: it can be compared again with what it was given");
                }
                vnis
            }
            Err(error) => {
                let reason = chain(&error);
                let level = match self.audit_complaint.raise(&reason) {
                    true => Level::Warn,
                    false => Level::Debug,
                };
                log!(
                    level,
                    "FRR: cannot compare it with what it was given, trying again: {reason}"
                );
                Vec::new()
            }
        };
        self.tell_of_configuration();
        found
    }

    /// Logs what in the operator's part of the configuration came to be wrong, and what is right again.
    fn tell_of_configuration(&mut self) {
        let warnings: BTreeSet<String> = self.router.warnings().into_iter().collect();
        for warning in warnings.difference(&self.warned) {
            warn!("FRR: {warning}");
        }
        for warning in self.warned.difference(&warnings) {
            info!("FRR: no longer so: {warning}");
        }
        self.warned = warnings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::NoGuard;
    use crate::host::mock::Mock;
    use crate::host::{Error, Health, RouteFailure};
    use crate::model::types::VniRange;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// How long a refusal takes.
    const REFUSAL: Duration = Duration::from_millis(20);
    /// How long the test waits for what must happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A router that refuses one VNI, and counts how often it is compared with what it was given.
    struct Refusing(Arc<AtomicU32>);

    impl Router for Refusing {
        fn withdraw(
            &mut self,
            _: FrrDaemons,
            _: &BTreeSet<Vni>,
            _: &dyn Fn() -> bool,
        ) -> Result<(), Error> {
            Ok(())
        }

        fn apply(&mut self, changes: &[RouteChange], _: &dyn Fn() -> bool) -> Vec<RouteFailure> {
            let error = || Error::Refused {
                daemon: "bgpd",
                output: String::new(),
            };
            let refuse = |change: &RouteChange| RouteFailure {
                vni: change.vni,
                error: error(),
            };
            std::thread::sleep(REFUSAL);
            changes.iter().map(refuse).collect()
        }

        fn health(&mut self) -> Health {
            Health::default()
        }

        fn drifted(&mut self, _: &dyn Fn() -> bool) -> Result<Vec<Vni>, Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Vec::new())
        }
    }

    /// Input: a VNI that FRR always refuses, so that the next order is there before the last one is carried out.
    /// Output: FRR is compared with what it was given all the same.
    #[test]
    fn orders_do_not_put_an_audit_off() {
        let vni = Vni::new(1).expect("a VNI");
        let range = VniRange::new(vni, vni).expect("a range");
        let mock = Box::new(Mock::new(range).expect("a mock"));
        let margin = Duration::from_millis(400);
        let fence = Fence::new(margin, mock, Box::new(NoGuard), Box::new(NoGuard));
        let compared = Arc::new(AtomicU32::new(0));
        let router = Box::new(Refusing(compared.clone()));
        let (events, told) = channel();
        let frr = spawn(router, Arc::new(fence.expect("a fence")), events).expect("a thread");
        let (parts, keep) = (FrrDaemons::ALL, BTreeSet::new());
        frr.send(Order::Reset { parts, keep }).expect("it runs");
        let change = RouteChange {
            vni,
            evpn: Some(true),
            cost: None,
        };
        // More than it can carry out while the test waits.
        for _ in 0..PATIENCE.as_millis() / REFUSAL.as_millis() {
            let changes = vec![change];
            let under = None;
            frr.send(Order::Change { changes, under }).expect("it runs");
        }
        let begun = clock::now();
        while compared.load(Ordering::Relaxed) == 0 {
            assert!(clock::now().since(begun) < PATIENCE);
            std::thread::sleep(REFUSAL);
        }
        // The thread ends with it.
        drop(told);
    }

    /// Input: a reset, then the passing of time. Output: audits 1, 3 and 10 s after it and then every 30 s, each due
    /// once, whatever is ordered meanwhile.
    #[test]
    fn audits_are_due_after_a_reset_and_regularly() {
        let begin = Time::since_boot(Duration::from_secs(100));
        let mut audits = Audits::new(begin);
        audits.follow_reset(begin);
        let mut made = Vec::new();
        for second in 0..80 {
            let now = begin + Duration::from_secs(second);
            if audits.take_due(now) {
                made.push(second);
            }
            audits.take_glance(now);
            assert!(audits.due() > now);
        }
        assert_eq!(made, [1, 3, 10, 40, 70]);
    }

    /// Input: orders while an audit is due. Output: it waits until none has come for a moment, and not for long.
    #[test]
    fn an_audit_waits_for_the_orders_of_a_takeover() {
        let begin = Time::since_boot(Duration::from_secs(100));
        let due = begin + AUDIT;
        let mut audits = Audits::new(begin);
        assert!(
            audits.take_glance(begin + (AUDIT - GLANCE)),
            "the next with the audit"
        );
        audits.follow_order(due);
        assert!(!audits.take_due(due) && !audits.take_glance(due));
        assert_eq!(audits.audit_due(), due + QUIET);
        assert!(audits.take_due(due + QUIET));
        let due = due + QUIET + AUDIT;
        let mut now = due;
        audits.follow_order(now);
        while !audits.take_due(now) {
            audits.follow_order(now);
            now = now + QUIET / 2;
        }
        assert_eq!(now, due + MOST_PUT_OFF);
    }

    /// Input: an FRR that has lost something from second 20 on, in each glance. Output: an audit at once, some more in
    /// the next seconds, and no storm of them.
    #[test]
    fn a_loss_brings_an_audit_at_once_and_no_storm() {
        let begin = Time::since_boot(Duration::from_secs(100));
        let mut audits = Audits::new(begin);
        let mut made = Vec::new();
        for second in 0..60 {
            let now = begin + Duration::from_secs(second);
            assert!(audits.take_glance(now) || second == 0);
            if second >= 20 {
                audits.suspect(now);
            }
            if audits.take_due(now) {
                made.push(second);
            }
        }
        // Also while the audits after a reset are still to come.
        let mut fresh = Audits::new(begin);
        fresh.follow_reset(begin);
        let now = begin + Duration::from_secs(4);
        assert!(fresh.take_due(now) && !fresh.take_due(now));
        fresh.suspect(now);
        assert!(fresh.take_due(now));
        assert_eq!(made, [20, 21, 23, 30, 31, 33, 40, 41, 43, 50, 51, 53]);
    }
}
