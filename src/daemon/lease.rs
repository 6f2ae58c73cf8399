//! The lease: granted, renewed and at the end revoked by the thread `watchdog`, the only one that sets it.
//!
//! Beside it the thread `fence` waits to switch ARP off when the lease may end, whatever the worker,
//! etcd or FRR are doing, and the thread `guard_check` looks after the guard. Each acts first and logs then.

use crate::cli::Timing;
use crate::daemon::fence::{Fence, GuardCheck};
use crate::etcd::{Client, Error, Renewal};
use crate::gateway::Event;
use crate::model::types::{Lease, LeaseId};
use crate::schema;
use crate::sys::clock;
use crate::telemetry::log_text::{Complaint, chain};
use log::{debug, error, info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

/// The running thread.
pub struct LeaseKeeper {
    thread: JoinHandle<()>,
    orders: Sender<Order>,
}

/// What the thread is told.
enum Order {
    /// End, and revoke the lease or let it expire.
    End { revoke: bool },
    /// Look at the lease now.
    Look(LeaseDoubt),
}

/// Why a lease may be gone although its last renewal succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseDoubt {
    /// etcd refused a transaction because it does not know this lease.
    Gone(LeaseId),
    /// The witnesses of this node have ended it, or are about to.
    Evicted(LeaseId),
    /// etcd no longer has this node registered under its lease.
    NotRegistered,
    /// etcd was set back: what was decided under the lease may be lost.
    Rewound,
}

/// Tells the thread `watchdog` what another thread heard of the lease.
#[derive(Clone, Debug)]
pub struct DoubtSender(Sender<Order>);

impl DoubtSender {
    /// Has the thread look at the lease now, not at the next interval.
    pub fn send(&self, doubt: LeaseDoubt) {
        // The thread is gone only when the process ends.
        let _ = self.0.send(Order::Look(doubt));
    }
}

/// What the thread has.
struct Renewer {
    client: Client,
    timing: Timing,
    fence: Arc<Fence>,
    events: Sender<Event>,
    complaint: Complaint,
}

impl LeaseKeeper {
    /// Starts the threads `watchdog`, `fence` and `guard_check`. `adopted` is a lease that was just renewed for a
    /// predecessor.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn spawn(
        client: Client,
        timing: Timing,
        fence: Arc<Fence>,
        events: Sender<Event>,
        adopted: Option<Lease>,
    ) -> io::Result<LeaseKeeper> {
        // Before the worker looks: one that found no lease would withdraw what is to be kept.
        fence.set_lease(adopted);
        let (orders, inbox) = channel();
        // Both threads run until the process ends.
        let standing = fence.clone();
        Builder::new()
            .name("fence".to_owned())
            .spawn(move || keep_watch(&standing))?;
        let (kept, told) = (fence.clone(), events.clone());
        Builder::new()
            .name("guard_check".to_owned())
            .spawn(move || keep(&kept, &told))?;
        let renewer = Renewer {
            client,
            timing,
            fence,
            events,
            complaint: Complaint::default(),
        };
        let thread = Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || renewer.run(adopted, &inbox))?;
        Ok(LeaseKeeper { thread, orders })
    }

    /// For those who learn from etcd that the lease may be gone.
    pub fn doubts(&self) -> DoubtSender {
        DoubtSender(self.orders.clone())
    }

    /// Revokes the lease, so that the others need not wait for its end, and ends the thread.
    pub fn revoke(self) {
        self.end(true);
    }

    /// Ends the thread and lets the lease run out: while this host may still answer, no other node must.
    pub fn let_run_out(self) {
        self.end(false);
    }

    fn end(self, revoke: bool) {
        // The receiver is gone only if the thread is.
        let _ = self.orders.send(Order::End { revoke });
        let _ = self.thread.join();
    }
}

/// Thread `fence`.
fn keep_watch(fence: &Fence) {
    let mut complaint = Complaint::default();
    loop {
        let outcome = fence.keep_watch();
        if outcome.silenced > 0 {
            warn!(
                "fenced: count={} VNIs do not answer ARP any more",
                outcome.silenced
            );
        }
        match outcome.refused {
            None => drop(complaint.settle()),
            Some((count, reason)) => {
                if complaint.raise(&reason) {
                    error!("count={count} VNIs answer ARP without a lease, trying again: {reason}");
                }
            }
        }
    }
}

/// Thread `guard_check`.
fn keep(fence: &Fence, events: &Sender<Event>) {
    let mut complaint = Complaint::default();
    loop {
        replace_lost_guard(fence, events, &mut complaint);
        wait_at(fence.guard_conn());
    }
}

/// Until the guard at the end of `conn` is gone, or it is time to look after it.
fn wait_at(conn: Option<OwnedFd>) {
    /// How often a guard is looked after that does not end, in milliseconds.
    const EVERY: u16 = 1000;
    /// How soon one that cannot be had is tried again.
    const AGAIN: Duration = Duration::from_millis(500);
    let Some(conn) = conn else {
        return sleep(AGAIN);
    };
    // Nothing but its end: what it says can wait.
    let mut conn = [PollFd::new(conn.as_fd(), PollFlags::empty())];
    if poll(&mut conn, PollTimeout::from(EVERY)).is_err() {
        sleep(AGAIN);
    }
}

fn replace_lost_guard(fence: &Fence, events: &Sender<Event>, complaint: &mut Complaint) {
    let check = match fence.check_guard() {
        Ok(check) => check,
        Err(error) => {
            let reason = chain(&error);
            if complaint.raise(&reason) {
                warn!(
                    "no guard: {reason}; if this process dies now, this host goes on serving its VNIs"
                );
            }
            return;
        }
    };
    if complaint.settle() {
        info!("there is a guard again");
    }
    match check {
        GuardCheck::Well => {}
        GuardCheck::Replaced(why) => warn!("the guard was gone, there is another: {why}"),
        GuardCheck::Fenced => {
            // The lease may have been renewed since, and no thread here has seen it end. The worker is gone only when
            // the process ends.
            let _ = events.send(Event::GuardFenced);
            warn!("the guard has fenced: everything is looked at anew");
        }
    }
}

/// What one attempt came to.
enum Attempt {
    Renewed(Lease),
    Gone(LeaseId),
    /// The member that renewed the lease may not lead etcd any more.
    LeaderChanged,
    Failed(Error),
}

impl Renewer {
    fn run(mut self, mut lease: Option<Lease>, orders: &Receiver<Order>) {
        self.set(lease);
        let revoke = loop {
            match self.attempt(lease) {
                Attempt::Renewed(renewed) => {
                    let is_new = lease.is_none_or(|lease| lease.id != renewed.id);
                    lease = Some(renewed);
                    self.set(lease);
                    if self.complaint.settle() {
                        info!("lease={} etcd answers again", renewed.id);
                    }
                    if is_new {
                        info!("lease={} granted", renewed.id);
                    }
                }
                Attempt::Gone(id) => {
                    lease = None;
                    self.give_up(id);
                    // At once, not after an interval: no VNI is served meanwhile.
                    continue;
                }
                Attempt::LeaderChanged => {
                    debug!("etcd's leader changed while the lease was renewed: renewing it again");
                    self.remind_if_over(lease);
                }
                Attempt::Failed(error) => {
                    let what = if lease.is_some() {
                        "renew the lease"
                    } else {
                        "get a lease"
                    };
                    let reason = chain(&error);
                    if self.complaint.raise(&reason) {
                        warn!("cannot {what}: {reason}");
                    } else {
                        debug!("cannot {what}: {reason}");
                    }
                    self.remind_if_over(lease);
                }
            }
            match orders.recv_timeout(self.pause(lease)) {
                Ok(Order::End { revoke }) => break revoke,
                Ok(Order::Look(LeaseDoubt::Gone(id))) if lease.is_some_and(|it| it.id == id) => {
                    lease = None;
                    self.give_up(id);
                }
                Ok(Order::Look(LeaseDoubt::Evicted(id))) if lease.is_some_and(|it| it.id == id) => {
                    lease = None;
                    self.set(None);
                    self.fence.silence();
                    self.revoke(id);
                }
                Ok(Order::Look(LeaseDoubt::Rewound)) => {
                    if let Some(old) = lease.take() {
                        self.give_up_rewound(old.id);
                    }
                }
                Ok(Order::Look(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        if let Some(lease) = lease.filter(|_| revoke) {
            self.revoke(lease.id);
        }
    }

    fn revoke(&self, id: LeaseId) {
        match self.client.lease_revoke(id) {
            Ok(()) => info!("lease={id} revoked"),
            Err(error) => warn!(
                "cannot revoke lease={id}, it ends by itself: {}",
                chain(&error)
            ),
        }
    }

    fn attempt(&self, lease: Option<Lease>) -> Attempt {
        let sent = clock::now();
        let reply = match lease {
            Some(lease) => match self.client.lease_renew(lease.id, schema::PREFIX) {
                Ok(Renewal::Held(ttl)) => Ok((lease.id, ttl)),
                Ok(Renewal::Gone) => return Attempt::Gone(lease.id),
                Ok(Renewal::LeaderChanged) => return Attempt::LeaderChanged,
                Err(error) => Err(error),
            },
            // A majority has agreed to a grant before etcd answers: it needs no second question.
            None => self
                .client
                .lease_grant(self.timing.ttl)
                .map(|grant| (grant.id, grant.ttl)),
        };
        match reply {
            // Counted from before the request left: etcd cannot have started its clock earlier. No longer
            // than asked for, whatever etcd grants: the next keepalive is counted back from there.
            Ok((id, ttl)) => Attempt::Renewed(Lease {
                id,
                valid_until: sent + ttl.min(self.timing.ttl),
            }),
            Err(error) => Attempt::Failed(error),
        }
    }

    /// Serves nothing any more under the lease `id`, which etcd does not know.
    fn give_up(&self, id: LeaseId) {
        self.set(None);
        self.fence.silence();
        warn!("lease={id} is gone from etcd: everything is withdrawn until there is a new one");
    }

    /// Serves nothing any more under the lease `id`, as etcd was set back. The lease runs out by itself: this node may
    /// still acknowledge beats under it for a moment, and must not once it is revoked.
    fn give_up_rewound(&self, id: LeaseId) {
        self.set(None);
        self.fence.silence();
        warn!(
            "lease={id} is given up, as etcd went back: everything is withdrawn until there is a new one"
        );
    }

    /// A lease that is over for this node may be alive in etcd, and then it is renewed like any other: nothing
    /// that it protects was touched meanwhile. It is forgotten only when etcd says that it is gone.
    fn remind_if_over(&self, lease: Option<Lease>) {
        if lease.is_some_and(|lease| lease.valid_until <= clock::now()) {
            // So that the worker hears of it even if it missed the moment.
            let _ = self.events.send(Event::Lease(lease));
        }
    }

    fn set(&self, lease: Option<Lease>) {
        self.fence.set_lease(lease);
        // The worker is gone only when the process ends.
        let _ = self.events.send(Event::Lease(lease));
    }

    /// Until the next attempt: a regular interval while all is well, less when it is not.
    fn pause(&self, lease: Option<Lease>) -> Duration {
        const AGAIN: Duration = Duration::from_millis(200);
        let last = lease.map(|lease| lease.valid_until - self.timing.ttl);
        let due = last.unwrap_or_default() + self.timing.keepalive_interval;
        due.since(clock::now()).max(AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::history::History;
    use crate::guard::{self, Guard, Guards, Standing};
    use crate::host::{self, Kernel};
    use crate::model::types::{Time, Vni};

    struct Nothing;

    impl Kernel for Nothing {
        fn bridge(&mut self, _: Vni) -> Option<u32> {
            None
        }

        fn hold(&mut self, _: Vni, _: u32) {}

        fn silence_strays(&mut self, _: Vni) -> Result<bool, host::Error> {
            Ok(false)
        }

        fn put_back(&mut self, _: Vni, _: bool) -> Result<host::ArpAudit, host::Error> {
            Ok(host::ArpAudit::AsTold)
        }

        fn set_arp(&mut self, _: Vni, _: bool) -> Result<(), host::Error> {
            Ok(())
        }
        fn announce(&mut self, _: &[Vni], _: &dyn Fn() -> bool) -> Vec<(Vni, host::Error)> {
            Vec::new()
        }
    }

    /// A guard that stands as it was made.
    struct Stands(Standing);

    impl Guard for Stands {
        fn lease(&mut self, _: Lease) {}
        fn serves(&mut self, _: &[(Vni, u32)]) {}
        fn released(&mut self, _: &[Vni]) {}
        fn standing(&mut self) -> Standing {
            self.0.clone()
        }
        fn dismiss(&mut self) {}
    }

    impl Guards for Stands {
        fn relieve(&mut self) -> Result<Box<dyn Guard>, guard::Error> {
            Err(guard::Error::Protocol)
        }
        fn dismiss(&mut self) {}
    }

    fn look(standing: Standing) -> (Vec<Event>, Complaint) {
        let stands = || Box::new(Stands(standing.clone()));
        let fence = Fence::new(Duration::ZERO, Box::new(Nothing), stands(), stands())
            .expect("a timer can be had");
        fence.set_lease(Some(Lease {
            id: LeaseId(1),
            valid_until: Time::NEVER,
        }));
        let (events, inbox) = channel();
        let mut complaint = Complaint::default();
        replace_lost_guard(&fence, &events, &mut complaint);
        (inbox.try_iter().collect(), complaint)
    }

    /// Input: a guard that has fenced while the lease is held. Output: the worker hears of it, so that it takes nothing
    /// for granted.
    #[test]
    fn a_guard_that_fenced_makes_the_worker_look_anew() {
        assert_eq!(look(Standing::Fenced).0, [Event::GuardFenced]);
    }

    /// Input: a lease that was adopted. Output: it holds as soon as the threads are started, whichever runs first.
    #[test]
    fn an_adopted_lease_holds_from_the_start() {
        let stands = || Box::new(Stands(Standing::Well));
        let margin = Duration::ZERO;
        let fence = Fence::new(margin, Box::new(Nothing), stands(), stands());
        let fence = Arc::new(fence.expect("a timer can be had"));
        let adopted = Some(Lease {
            id: LeaseId(1),
            valid_until: Time::NEVER,
        });
        let (events, _inbox) = channel();
        let timing = Timing::new(Duration::from_secs(5)).expect("long enough");
        // No endpoint: nothing is ever renewed.
        let client = Client::new(Vec::new(), timing.etcd_timeout);
        let spawned = LeaseKeeper::spawn(client, timing, fence.clone(), events, adopted);
        assert_eq!(fence.lease(), adopted);
        spawned.expect("threads can be started").revoke();
    }

    #[test]
    fn a_guard_that_cannot_be_had_is_complained_of() {
        assert!(!look(Standing::Well).1.settle());
        let (events, mut complaint) = look(Standing::Lost("killed".into()));
        assert_eq!(events, []);
        assert!(complaint.settle());
    }

    /// Input: etcd is found to have gone back, twice by the same look. Output: the lease is given up at once, whatever
    /// the worker does.
    #[test]
    fn the_lease_is_given_up_when_etcd_goes_back() {
        let stands = || Box::new(Stands(Standing::Well));
        let fence = Fence::new(Duration::ZERO, Box::new(Nothing), stands(), stands());
        let fence = Arc::new(fence.expect("a timer can be had"));
        let lease = Lease {
            id: LeaseId(1),
            valid_until: Time::NEVER,
        };
        fence.set_lease(Some(lease));
        let (events, told) = channel();
        let (orders, inbox) = channel();
        let history = History::new(events.clone()).of_lease(DoubtSender(orders.clone()));
        history.went_back(0);
        history.went_back(0);
        let _ = orders.send(Order::End { revoke: false });
        let timing = Timing::new(Duration::from_secs(5)).expect("long enough");
        let renewer = Renewer {
            // No endpoint: nothing is ever renewed.
            client: Client::new(Vec::new(), timing.etcd_timeout),
            timing,
            fence: fence.clone(),
            events,
            complaint: Complaint::default(),
        };
        renewer.run(Some(lease), &inbox);
        assert_eq!(fence.lease(), None);
        let last = told
            .try_iter()
            .filter(|event| matches!(event, Event::Lease(_)))
            .last();
        assert_eq!(last, Some(Event::Lease(None)));
    }
}
