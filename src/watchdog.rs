//! The lease: granted, renewed and at the end revoked by the thread `watchdog`, the only one that sets it.
//!
//! Beside it the thread `fence` stands ready to switch ARP off when the lease may end, whatever the worker,
//! etcd or FRR are doing.

use crate::cli::Timing;
use crate::clock;
use crate::etcd::{Client, Error};
use crate::fence::Fence;
use crate::gateway::Event;
use crate::report::{Complaint, chain};
use crate::types::{Lease, LeaseId};
use log::{debug, info, warn};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// The running thread.
pub struct Watchdog {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

/// What the thread has.
struct Renewer {
    client: Client,
    timing: Timing,
    fence: Arc<Fence>,
    events: Sender<Event>,
    complaint: Complaint,
    guard_complaint: Complaint,
}

impl Watchdog {
    /// Starts the threads `watchdog` and `fence`. `adopted` is a lease that was just renewed for a predecessor.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn spawn(
        client: Client,
        timing: Timing,
        fence: Arc<Fence>,
        events: Sender<Event>,
        adopted: Option<Lease>,
    ) -> io::Result<Watchdog> {
        let (stop, stopped) = channel();
        let standing = fence.clone();
        // Ends with the process: while there is one, it stands.
        Builder::new().name("fence".to_owned()).spawn(move || {
            loop {
                let silenced = standing.stand();
                if silenced > 0 {
                    warn!("fenced: vnis={silenced} do not answer ARP any more");
                }
            }
        })?;
        let renewer = Renewer {
            client,
            timing,
            fence,
            events,
            complaint: Complaint::default(),
            guard_complaint: Complaint::default(),
        };
        let thread = Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || renewer.run(adopted, &stopped))?;
        Ok(Watchdog { thread, stop })
    }

    /// Revokes the lease, so that the others need not wait for its end, and ends the thread.
    pub fn revoke(self) {
        // The receiver is gone only if the thread is.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// What one attempt came to.
enum Attempt {
    Renewed(Lease),
    Gone(LeaseId),
    Failed(Error),
}

impl Renewer {
    fn run(mut self, mut lease: Option<Lease>, stopped: &Receiver<()>) {
        self.set(lease);
        loop {
            match self.attempt(lease) {
                Attempt::Renewed(renewed) => {
                    if self.complaint.settle() {
                        info!("lease={} etcd answers again", renewed.id);
                    }
                    if lease.is_none_or(|lease| lease.id != renewed.id) {
                        info!("lease={} granted", renewed.id);
                    }
                    lease = Some(renewed);
                    self.set(lease);
                }
                Attempt::Gone(id) => {
                    warn!(
                        "lease={id} is gone from etcd: everything is withdrawn until there is a new one"
                    );
                    lease = None;
                    self.set(lease);
                    self.fence.silence();
                    // At once, not after an interval: nobody is served meanwhile.
                    continue;
                }
                Attempt::Failed(error) => {
                    let reason = chain(&error);
                    if self.complaint.raise(&reason) {
                        warn!("cannot renew the lease: {reason}");
                    } else {
                        debug!("cannot renew the lease: {reason}");
                    }
                    lease = self.forget_if_over(lease);
                }
            }
            let reason = self.fence.mind_guard().map_err(|error| chain(&error));
            match reason {
                Ok(()) => {
                    self.guard_complaint.settle();
                }
                Err(reason) if self.guard_complaint.raise(&reason) => {
                    warn!("no guard: {reason}; if this process stops now, its VNIs stay on show");
                }
                Err(_) => {}
            }
            match stopped.recv_timeout(self.pause(lease)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(lease) = lease {
            match self.client.lease_revoke(lease.id) {
                Ok(()) => info!("lease={} revoked", lease.id),
                Err(error) => warn!(
                    "cannot revoke lease={}, it ends by itself: {}",
                    lease.id,
                    chain(&error)
                ),
            }
        }
    }

    fn attempt(&self, lease: Option<Lease>) -> Attempt {
        let sent = clock::now();
        let reply = match lease {
            Some(lease) => match self.client.lease_keepalive(lease.id) {
                Ok(Some(ttl)) => Ok((lease.id, ttl)),
                Ok(None) => return Attempt::Gone(lease.id),
                Err(error) => Err(error),
            },
            None => self
                .client
                .lease_grant(self.timing.ttl)
                .map(|grant| (grant.id, grant.ttl)),
        };
        match reply {
            // Counted from before the request left: etcd cannot have started its clock earlier.
            Ok((id, ttl)) => Attempt::Renewed(Lease {
                id,
                valid_until: sent + ttl,
            }),
            Err(error) => Attempt::Failed(error),
        }
    }

    /// A lease that is over for us may be alive in etcd, and then it is renewed like any other: nothing
    /// that it protects was touched meanwhile. It is forgotten only when etcd says that it is gone.
    fn forget_if_over(&self, lease: Option<Lease>) -> Option<Lease> {
        if lease.is_some_and(|lease| lease.valid_until <= clock::now()) {
            // So that the worker hears of it even if it missed the moment.
            let _ = self.events.send(Event::Lease(lease));
        }
        lease
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
